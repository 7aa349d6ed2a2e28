"""Whether this installation's CUDA module can run here and, if not, why.

`fastreason._cuda` is built if nvcc is found and contains what Triton cannot express well: the sampler. Everything also
works without it. Importing this module makes no CUDA calls; the first query does.
"""

from __future__ import annotations

import ctypes
import functools
import os
from types import ModuleType
from typing import Any

__all__ = ["describe", "require", "why_unavailable"]


def why_unavailable() -> str | None:
    """What is missing, as a sentence without a full stop, or None if the module can run.

    The answer is cached: a driver or GPU that appears later is seen only by a new process.
    """
    return _why_unavailable()


def require() -> ModuleType:
    """The module `fastreason._cuda`.

    Raises:
        RuntimeError: it cannot run here; the message says what is missing.
    """
    reason = why_unavailable()
    if reason is not None:
        raise RuntimeError(f"fastreason.cuda is not available: {reason}")
    module = _module()
    assert module is not None
    return module


def describe() -> dict[str, Any]:
    """The module's availability, the CUDA version and targets it was built for, and the CUDA version of the driver."""
    module = _module()
    reason = why_unavailable()
    facts: dict[str, Any] = {"cuda": reason or "available", "cuda module": None, "cuda driver": None}
    if module is not None:
        facts["cuda module"] = f"CUDA {_dotted(module.runtime_version)} for {module.architectures}"
        driver = module.status()[1]
        facts["cuda driver"] = f"CUDA {_dotted(driver)}" if driver else None
    return facts


@functools.cache
def _why_unavailable() -> str | None:
    module = _module()
    if module is None:
        return "this installation was built without its CUDA module (docs/wheels.md says how to build it)"
    num_devices, driver, error = module.status()
    if driver == 0 and not _has_driver():
        return "no NVIDIA driver is installed (libcuda.so.1 was not found)"
    # within a major version of CUDA, a driver runs code compiled by a later minor version
    if 0 < driver // 1000 < module.runtime_version // 1000:
        return (
            f"the NVIDIA driver supports CUDA {_dotted(driver)}, and fastreason was built with CUDA "
            f"{_dotted(module.runtime_version)}; it needs a newer driver, or a wheel built with CUDA {driver // 1000}"
        )
    if num_devices == 0:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        hidden = "" if visible is None else f"; CUDA_VISIBLE_DEVICES is {visible!r}"
        return f"no GPU is available ({error or 'the driver counts none'}{hidden})"
    if error:
        return f"the CUDA runtime says: {error}"
    return _why_torch_cannot()


def _module() -> ModuleType | None:
    try:
        # not `from fastreason import _cuda`, whose ImportError would hide a module that exists but is broken
        import fastreason._cuda as module
    except ModuleNotFoundError:
        return None
    return module


def _has_driver() -> bool:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def _why_torch_cannot() -> str | None:
    import torch

    if torch.version.cuda is None:
        return f"torch {torch.__version__} is a build without CUDA, so there are no tensors on a GPU"
    if not torch.cuda.is_available():
        return f"torch {torch.__version__}, built with CUDA {torch.version.cuda}, finds no GPU"
    return None


def _dotted(version: int) -> str:
    """13000 is 13.0."""
    return f"{version // 1000}.{version % 1000 // 10}"
