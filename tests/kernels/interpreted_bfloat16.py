"""bfloat16 in Triton's interpreter, which keeps its numbers as the bits of uint16.

Up to Triton 3.9 it multiplies those bits as integers in `tl.dot`, and cuts float32 off where a GPU rounds to nearest
even. `repair` puts both right, so that what kernels compute in bfloat16 can be compared with their definitions.

Products of float32 are numpy's, whose library sums a row in another order at another place of the tile on a processor
without AVX-512, which no GPU does. They are summed in float64 and rounded once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import triton.language as tl
from triton.runtime import interpreter


def widened(bits: np.ndarray) -> np.ndarray:
    """float32 of the bits of bfloat16."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def rounded(x: np.ndarray) -> np.ndarray:
    """The bits of bfloat16 of float32, to nearest even; a NaN stays one."""
    bits = np.ascontiguousarray(x, dtype=np.float32).view(np.uint32)
    up = bits + (0x7FFF + ((bits >> 16) & 1))
    return (np.where(np.isnan(x), bits | 0x00400000, up) >> 16).astype(np.uint16)


def repair() -> None:
    """From now on in this process."""
    builder = interpreter.InterpreterBuilder
    cast, dot = builder.cast_impl, builder.create_dot

    def exact(handle: Any) -> Any:
        if handle.dtype.scalar != tl.bfloat16:
            return handle
        return interpreter.TensorHandle(widened(handle.data), tl.float32)

    def cast_impl(self: Any, src: Any, dst_type: Any) -> Any:
        if dst_type.scalar == tl.bfloat16 and src.dtype.scalar == tl.float32:
            return interpreter.TensorHandle(rounded(src.data), tl.bfloat16)
        return cast(self, exact(src), dst_type) if dst_type.scalar != src.dtype.scalar else src

    def create_dot(self: Any, a: Any, b: Any, d: Any, *options: Any) -> Any:
        a, b = exact(a), exact(b)
        if a.data.dtype != np.float32 or d.data.dtype != np.float32:
            return dot(self, a, b, d, *options)
        product = np.matmul(a.data, b.data, dtype=np.float64).astype(np.float32)
        return interpreter.TensorHandle(product + d.data, d.dtype.scalar)

    def create_fp_to_fp(self: Any, src: Any, dst_type: Any, rounding_mode: Any) -> Any:
        return cast_impl(self, src, dst_type)

    builder.cast_impl, builder.create_dot = cast_impl, create_dot
    builder.create_fp_to_fp = create_fp_to_fp
