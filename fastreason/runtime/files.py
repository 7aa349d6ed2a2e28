"""Files that are whole or not there, also behind a power cut."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import tomllib
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .json_files import to_json
from .processes import process_start, this_process

# where names stand for what a process has open, be that a file
_STREAMS = (Path("/dev"), Path("/dev/fd"), Path("/proc/self/fd"))


def write_whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Writes under another name, flushes and renames, so that the path never names half a file.

    The other name, NAME.new-MACHINE-PROCESS-START-RANDOM, is made by this call and is nobody else's; a failure leaves
    none behind, and what a killed process of this machine left is removed. A link stays one: what it leads to is
    replaced. What is no file (a device, a pipe) cannot be replaced, and is written to as it is.
    """
    if (path.exists() and not path.is_file() and not path.is_dir()) or path.parent in _STREAMS:
        write(path)
        return
    path = Path(os.path.realpath(path))
    prefix = f"{path.name}.new-{_machine()}-"
    _forget_dead(path.parent, prefix)
    process = f"{os.getpid()}-{process_start(os.getpid())}"
    temporary = path.with_name(f"{prefix}{process}-{uuid.uuid4().hex[:8]}")
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        write(temporary)
        flush(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    flush(path.parent)


@functools.cache
def _machine() -> str:
    """Stands for the machine, or the container, in which numbers of processes mean something."""
    here = this_process()
    return hashlib.sha256(f"{here['host']} {here['namespace']}".encode()).hexdigest()[:6]


def _forget_dead(folder: Path, prefix: str) -> None:
    """Removes files of that beginning whose process, which the name goes on with, runs no more."""
    with contextlib.suppress(FileNotFoundError):  # the folder, or a file that another removes, too
        for entry in os.scandir(folder):
            if entry.name.startswith(prefix):
                pid, start, _ = entry.name[len(prefix) :].split("-")
                if process_start(int(pid)) != start:
                    os.unlink(entry)


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


def read_toml(path: Path) -> dict[str, Any]:
    """What a TOML file holds.

    Raises:
        ValueError: it is not TOML, or not UTF-8; the message names the file.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: {error}") from None


def flush(path: Path) -> None:
    """Asks the system to put a file or folder on disk, so that a rename behind it never overtakes its content."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
