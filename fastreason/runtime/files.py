"""Files that are whole or not there, also behind a power cut."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .json_files import to_json


def write_whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Writes under another name, flushes and renames, so that the path never names half a file.

    The other name, NAME.new-PROCESS-RANDOM, is made by this call and is nobody else's; a failure leaves none behind.
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
    """Whole or not at all."""
    write_whole(path, lambda file: file.write_text(text, encoding="utf-8"))


def write_json(path: Path, content: Any) -> None:
    """Whole or not at all; numbers that JSON does not have become null."""
    write_text(path, to_json(content, indent=1) + "\n")


def read_whole(path: Path) -> Any:
    """What a JSON file of ours holds.

    Raises:
        ValueError: it is empty or cut; the message names file and line.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}, line {error.lineno}: not whole ({error.msg})") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: no UTF-8 ({error.reason} at byte {error.start})") from None


def flush(path: Path) -> None:
    """Asks the system to put a file or folder on disk, so that a rename behind it never overtakes its content."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
