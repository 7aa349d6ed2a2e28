"""Files that are either complete or absent, even after a power failure."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import tempfile
import tomllib
import uuid
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w

from .json_files import to_json
from .processes import process_start, this_process

# names here refer to what a process has open, which may be a regular file
_STREAMS = (Path("/dev"), Path("/dev/fd"), Path("/proc/self/fd"))
# what numpy raises for a file that is cut or overwritten
_DAMAGED = (OSError, ValueError, KeyError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error)

_TOML_ENDS = "# end"
_TOML_BEGINS = f"# Written by fastreason. The last line is {_TOML_ENDS!r}; a file without it was cut."


def write_whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Writes to a temporary file, flushes it and renames it, so that the path never holds a partial file.

    The temporary name, NAME.new-MACHINE-PROCESS-START-RANDOM, is unique to this call; it is removed on failure, and
    those of killed processes of this machine are removed by the next call. A symlink stays: its target is replaced.
    Devices and pipes cannot be replaced and are written to directly.
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


def check_writable(name: str, path: Path) -> None:
    """Finds before the work, not after it, that a file cannot be written; creates its folder.

    Raises:
        ValueError: it is a folder, or its folder cannot be made or written to; the message begins with `name`.
    """
    if path.is_dir():
        raise ValueError(f"{name} must be a file, got the folder {path}")
    check_folder(name, path.parent)
    if path.exists() and not os.access(path, os.W_OK):
        raise ValueError(f"{name} {path} cannot be written: permission denied")


def check_folder(name: str, folder: Path) -> None:
    """Creates a folder; a ValueError that begins with `name` if it cannot be made or written to.

    Writing is tried: permissions say little of what root, a read-only file system or /proc allow.
    """
    for place in (folder, *folder.parents):
        if place.exists() and not place.is_dir():
            raise ValueError(f"{name}: {place} is a file, not a folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"{name}: {folder} cannot be made: {error.strerror}") from None
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(f"{name}: {folder} cannot be written to: {error.strerror}") from None


@functools.cache
def _machine() -> str:
    """Identifies the machine or container that process ids refer to."""
    here = this_process()
    return hashlib.sha256(f"{here['host']} {here['namespace']}".encode()).hexdigest()[:6]


def _forget_dead(folder: Path, prefix: str) -> None:
    """Removes the files with this prefix whose process, named behind it, is no longer running."""
    with contextlib.suppress(FileNotFoundError):  # no such folder, or another process was faster
        for entry in os.scandir(folder):
            if entry.name.startswith(prefix):
                pid, start, _ = entry.name[len(prefix) :].split("-")
                if process_start(int(pid)) != start:
                    os.unlink(entry)


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


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz file written by fastreason, by name.

    Raises:
        ValueError: it is empty, truncated or damaged; the message names the file.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except FileNotFoundError:
        raise
    except (*_DAMAGED, AttributeError, TypeError) as error:  # the last two: one array and no archive
        raise ValueError(f"{path}: incomplete or damaged ({error})") from None


def read_array(path: Path) -> np.ndarray:
    """The array of an .npy file written by fastreason, memory-mapped.

    Raises:
        ValueError: it is empty, truncated or damaged; the message names the file.
    """
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise
    except _DAMAGED as error:
        raise ValueError(f"{path}: incomplete or damaged ({error})") from None


def toml_text(content: Mapping[str, Any]) -> str:
    """A TOML file that shows where it is cut: without its tables at the end it would be valid, and another."""
    return f"{_TOML_BEGINS}\n{tomli_w.dumps(content)}{_TOML_ENDS}\n"


def read_toml(path: Path) -> dict[str, Any]:
    """What a TOML file holds.

    Raises:
        ValueError: it is not TOML, not UTF-8, or one of `toml_text` that was cut; the message names the file.
    """
    try:
        return parse_toml(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def parse_toml(text: str) -> dict[str, Any]:
    """What a TOML file with this text holds; a ValueError if it is not TOML, or one of `toml_text` that was cut."""
    content = tomllib.loads(text)
    lines = text.rstrip().splitlines()
    if lines and lines[0] == _TOML_BEGINS and lines[-1] != _TOML_ENDS:
        raise ValueError(f"incomplete (at line {len(lines)}; the last line must be {_TOML_ENDS!r})")
    return content


def flush(path: Path) -> None:
    """Flushes a file or folder to disk, so that a later rename cannot overtake its content."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
