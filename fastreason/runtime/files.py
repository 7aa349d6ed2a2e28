"""Files that are either complete or absent, even after a power failure."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .json_files import to_json


def write_whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Writes to a temporary file, flushes it and renames it, so that the path never holds a partial file.

    The temporary name, NAME.new-PROCESS-RANDOM, is unique to this call; it is removed on failure.
    """
    temporary = path.with_name(f"{path.name}.new-{os.getpid()}-{uuid.uuid4().hex[:8]}")
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        write(temporary)
        flush(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    flush(path.parent)


def write_text(path: Path, text: str) -> None:
    """Writes a text file atomically."""
    write_whole(path, lambda file: file.write_text(text, encoding="utf-8"))


def write_json(path: Path, content: Any) -> None:
    """Writes a JSON file atomically; NaN and infinities become null."""
    write_text(path, to_json(content, indent=1) + "\n")


def read_whole(path: Path) -> Any:
    """The content of a JSON file written by fastreason.

    Raises:
        ValueError: it is empty or truncated; the message names file and line.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}, line {error.lineno}: incomplete ({error.msg})") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: no UTF-8 ({error.reason} at byte {error.start})") from None


def flush(path: Path) -> None:
    """Flushes a file or folder to disk, so that a later rename cannot overtake its content."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
