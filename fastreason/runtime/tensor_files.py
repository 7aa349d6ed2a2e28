"""safetensors files: read whatever they hold, written with the mode that the umask gives."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, mapped into memory; ValueError with its name if it is missing or damaged."""
    if not path.is_file():
        raise ValueError(f"{path} does not exist" if not path.exists() else f"{path} is no regular file")
    try:
        return load_file(path)
    except Exception as error:  # SafetensorError, OSError, and what torch says of a dtype or shape
        raise ValueError(f"{path} cannot be read: {str(error).partition(chr(10))[0][:200]}") from None


def write_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Writes a file; SafetensorError or OSError if it cannot be. No two tensors may share their storage."""
    path.touch()
    mode = path.stat().st_mode
    save_file(dict(tensors), path, metadata=metadata)
    path.chmod(mode)  # safetensors renames a temporary file, which its owner alone may read
