"""Triton where it is installed, and the one rule for when a kernel runs instead of its torch definition.

The package imports without Triton, a GPU or a driver; a kernel that is launched without Triton says so.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from torch import Tensor

try:
    import triton
    import triton.language as tl
except ModuleNotFoundError:  # a CPU-only installation
    if TYPE_CHECKING:
        raise

    class _MissingKernel:
        def __getitem__(self, grid: Any) -> Any:
            raise RuntimeError("fastreason.kernels: Triton is not installed; `pip install triton`")

    class _MissingTriton:
        """Stands in for the names that kernel files use when they are imported."""

        constexpr = object

        @staticmethod
        def jit(function: Any) -> _MissingKernel:
            return _MissingKernel()

    triton = tl = _MissingTriton()

__all__ = ["INTERPRETED", "runs_triton", "tl", "triton"]

# read once: Triton decides at decoration, so a later change of the variable has no effect on kernels either
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


def runs_triton(x: Tensor) -> bool:
    """Whether operations on `x` use their Triton kernel: on CUDA, or anywhere under TRITON_INTERPRET=1."""
    return x.is_cuda or INTERPRETED
