"""A linear layer that uses the faster of torch's two CPU libraries for matrix products.

    y = x w^T + b;   dx = dy w,   dw = dy^T x,   db = sum_n dy[n]

torch's float32 products on CPU are MKL's, which uses 256-bit instructions on processors that are not Intel's. Its other
library, oneDNN, compiles code for the instructions that are there: on an AMD EPYC with AVX-512 it gives 220 to 250
GFLOP/s where MKL gives 105 to 112, at every shape of the presets (130 to 200 for dw, with an operand transposed).
On Intel's own processors MKL is full-width too and needs no operand rearranged for a gradient: dx 140 to 165 GFLOP/s
against 100 to 160, dw 125 to 165 against 55 to 130 (a Xeon with AVX-512 whose peak was then 155 to 165). So there the
gradients are MKL's.
oneDNN compiles once for every shape (about 0.7 ms), so it is asked only for row counts that repeat.

Letters:    N rows (tokens), K width in, M width out.
Numerics:   float32 products and sums in another order than MKL's; elsewhere torch's linear as it is. With a narrow copy
            of the weight: what torch.autocast computes, bit for bit on CPU, but for dw where the processor has tile
            registers (AMX): there it is written in float32, as dw and db are on CUDA. Autocast rounds both to 16 bits
            first.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import cpu_kernels

__all__ = ["ROW_MULTIPLE", "linear", "linear_ref"]

# of the rows: a batch that is rounded up to it has one of few shapes, and wastes at most one token in forty of 2,500
ROW_MULTIPLE = 64


def linear_ref(x_NK: Tensor, weight_MK: Tensor, bias_M: Tensor | None = None) -> Tensor:
    """The definition: torch's linear layer."""
    return F.linear(x_NK, weight_MK, bias_M)


def linear(
    x_NK: Tensor,
    weight_MK: Tensor,
    bias_M: Tensor | None = None,
    *,
    narrow: tuple[Tensor, Tensor | None] | None = None,
) -> Tensor:
    """x w^T + b by torch's linear or, where it is faster, by oneDNN.

    oneDNN is used for float32 in training, with rows in multiples of `ROW_MULTIPLE`, on a CPU with AVX-512; for the
    gradients if it is not Intel's.

    Args:
        x_NK: floating point [N, K].
        weight_MK: [M, K], dtype of x.
        bias_M: [M] or None.
        narrow: copies of weight and bias in 16 bits, which are multiplied in their place; the gradients are those of
            weight and bias.
    Returns:
        [N, M], dtype of x, or of the copies.
    """
    if narrow is not None:
        return _NarrowLinear.apply(x_NK.to(narrow[0].dtype), weight_MK, bias_M, *narrow)
    if not _suits_onednn(x_NK, weight_MK):
        return linear_ref(x_NK, weight_MK, bias_M)
    return _Linear.apply(x_NK, weight_MK, bias_M)


def _suits_onednn(x: Tensor, weight: Tensor) -> bool:
    return (
        x.ndim == 2
        and x.shape[0] >= ROW_MULTIPLE
        and x.shape[0] % ROW_MULTIPLE == 0
        and x.dtype == weight.dtype == torch.float32
        and x.device.type == "cpu"
        and torch.is_grad_enabled()
        and weight.requires_grad
        and type(x) is Tensor
        and not torch.is_autocast_enabled("cpu")
        and _has_onednn()
    )


@cache
def _has_onednn() -> bool:
    has_operator = hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return has_operator and torch.backends.mkldnn.is_available() and torch.backends.cpu.get_cpu_capability() == "AVX512"


@cache
def _gradients_by_mkl() -> bool:
    """Whether MKL has its full width here, which it gives to processors of its own maker alone."""
    try:
        return torch.backends.mkl.is_available() and "GenuineIntel" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:  # another operating system
        return False


def _product(a_NK: Tensor, b_MK: Tensor, bias_M: Tensor | None = None) -> Tensor:
    """a b^T + bias by oneDNN; any strides."""
    return torch.ops.mkldnn._linear_pointwise(a_NK, b_MK, bias_M, "none", [], "")


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.has_bias = bias is not None
        return _product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        need_x, need_weight, _ = ctx.needs_input_grad
        dx = _input_gradient(dy, weight) if need_x else None
        dw = _weight_gradient(dy, x) if need_weight else None
        return dx, dw, dy.sum(0) if ctx.has_bias else None


def _input_gradient(dy_NM: Tensor, weight_MK: Tensor) -> Tensor:
    return torch.mm(dy_NM, weight_MK) if _gradients_by_mkl() else _product(dy_NM, weight_MK.t())


def _weight_gradient(dy_NM: Tensor, x_NK: Tensor) -> Tensor:
    if _gradients_by_mkl():
        return torch.mm(dy_NM.t(), x_NK)
    # the narrower of the two as the rows, where it was faster
    if dy_NM.shape[1] >= x_NK.shape[1]:
        return _product(x_NK.t(), dy_NM.t()).t()
    return _product(dy_NM.t(), x_NK.t())


class _NarrowLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, narrow_weight: Tensor, narrow_bias: Tensor | None
    ) -> Tensor:
        ctx.save_for_backward(x, narrow_weight)
        ctx.dtype, ctx.has_bias = weight.dtype, bias is not None
        return F.linear(x, narrow_weight, narrow_bias)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        x, narrow_weight = ctx.saved_tensors
        dx = dy @ narrow_weight if ctx.needs_input_grad[0] else None
        dw = _wide_product(dy.t(), x, ctx.dtype) if ctx.needs_input_grad[1] else None
        db = None
        if ctx.has_bias:
            db = dy.sum(0).to(ctx.dtype) if dy.device.type == "cpu" else dy.sum(0, dtype=ctx.dtype)
        return dx, dw, db, None, None


def _wide_product(a: Tensor, b: Tensor, dtype: torch.dtype) -> Tensor:
    """a b of 16-bit matrices in `dtype`; on CUDA and on CPUs with AMX written in it, without a rounding and a cast."""
    if dtype == torch.float32 and cpu_kernels.suits_tiles(a, b):
        return cpu_kernels.weight_gradient(a.t(), b)
    if a.device.type != "cpu" and dtype == torch.float32 and "dtype" in torch.ops.aten.mm.overloads():
        return torch.mm(a, b, out_dtype=dtype)
    return (a @ b).to(dtype)
