"""safetensors files: reading untrusted ones, and writing with the mode given by the umask."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from .json_files import check_regular


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, memory-mapped; a ValueError names the file if it is missing or damaged."""
    check_regular(path)
    try:
        return load_file(path)
    except Exception as error:  # SafetensorError, OSError, and torch's errors about dtypes and shapes
        raise ValueError(f"{path} cannot be read: {str(error).partition(chr(10))[0][:200]}") from None


def write_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Writes a file; raises SafetensorError or OSError on failure. Tensors must not share storage."""
    path.touch()
    mode = path.stat().st_mode
    save_file(dict(tensors), path, metadata=metadata)
    path.chmod(mode)  # safetensors renames a temporary file that only its owner may read
