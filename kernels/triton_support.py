"""Triton where it is installed, and the one rule for when a kernel runs instead of its torch definition.

The package imports without Triton, a GPU or a driver; a kernel that is launched without Triton says so.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl
    from triton.runtime.errors import OutOfResources
except ModuleNotFoundError:  # a CPU-only installation
    if TYPE_CHECKING:
        raise

    class _MissingKernel:
        def __getitem__(self, grid: Any) -> Any:
            raise RuntimeError("fastreason.kernels: Triton is not installed; `pip install triton`")

    class _MissingTriton:
        """Stands in for the names that kernel files use when they are imported."""

        class constexpr:
            def __init__(self, value: Any) -> None:
                self.value = value

        @staticmethod
        def jit(function: Any = None, **options: Any) -> Any:
            return _MissingKernel() if function is not None else lambda function: _MissingKernel()

    class OutOfResources(Exception):  # type: ignore[no-redef]
        """What Triton raises when a kernel needs more of a GPU than it has."""

    triton = tl = _MissingTriton()

__all__ = ["INTERPRETED", "OutOfResources", "as_if_on", "cdiv", "next_power_of_2", "pretended_arch", "runs_triton"]
__all__ += ["tl", "triton"]

# read once: Triton decides at decoration, so a later change of the variable has no effect on kernels either
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"

_arch: int | None = None


def cdiv(a: int, b: int) -> int:
    """a / b, rounded up. Triton's own may be called in kernels too, and takes microseconds of the host for it."""
    return -(-a // b)


def next_power_of_2(n: int) -> int:
    """The least power of two that is not below n >= 1."""
    return 1 << (n - 1).bit_length()


def runs_triton(x: Tensor) -> bool:
    """Whether operations on `x` use their Triton kernel: on CUDA, or anywhere under TRITON_INTERPRET=1.

    Kernels compute in float32, so float64 always runs the definition.
    """
    return (x.is_cuda or INTERPRETED or _arch is not None) and x.dtype != torch.float64


@contextmanager
def as_if_on(arch: int) -> Iterator[None]:
    """Operations on CPU tensors launch what they would on a GPU of compute capability arch / 10.

    For tools that look at launches (bench/kernels/compile_without_gpu.py); what is launched cannot run there. Under the
    interpreter it selects whose configurations are interpreted.
    """
    global _arch
    before, _arch = _arch, arch
    try:
        yield
    finally:
        _arch = before


def pretended_arch() -> int | None:
    """The arch of `as_if_on`, None outside of it."""
    return _arch
