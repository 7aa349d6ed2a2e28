"""A description of this machine, recorded with results."""

from __future__ import annotations

import os
import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_FURTHER = ("safetensors", "pydantic", "tomli-w", "jinja2", "tqdm", "transformers", "tokenizers", "pyarrow")


def describe_machine() -> dict[str, Any]:
    """Processor, cores, memory, CUDA, and versions of the libraries that results depend on."""
    import torch

    from . import cuda

    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "threads": torch.get_num_threads(),
        "os": platform.platform(),
        "python": platform.python_version(),
        **{name: package_version(name) for name in ("fastreason", "torch", "triton", "numpy")},
        "torch cuda": torch.version.cuda,
        **cuda.describe(),
        **{name: package_version(name) for name in _FURTHER},
    }


@cache  # it parses the package's metadata, and a run asks a few hundred times
def package_version(name: str) -> str | None:
    """Of an installed distribution, by its name on PyPI; None where it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
