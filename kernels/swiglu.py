"""SwiGLU: the gated activation of the feed-forward block.

    y = silu(gate) * up,   silu(x) = x s(x),   s(x) = 1 / (1 + exp(-x))

and backward, from gate and up again:

    dgate = dy * up * s(gate) * (1 + gate * (1 - s(gate))),   dup = dy * silu(gate)

Letters:    N rows (tokens), F width of the feed-forward block.
Numerics:   loads in the input dtype, computes in float32.
Traffic:    forward reads gate and up and writes y, 3 N F elements; backward reads dy, gate and up and writes both
            gradients, 5 N F. Both are the floor: nothing but the input is saved.
Source:     Shazeer 2020, arXiv:2002.05202.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import cpu_kernels
from .launch import launch
from .logit_rows import alignment, take
from .operation import operation
from .triton_support import cdiv, next_power_of_2, runs_triton, tl, triton

__all__ = ["swiglu", "swiglu_ref"]


def swiglu_ref(gate_up: Tensor) -> Tensor:
    """The definition, which the tests compare against in float64; CPU runs it where the C++ kernel does not apply."""
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate) * up


def swiglu(gate_up: Tensor) -> Tensor:
    """silu of the first half of the last dimension times the second half.

    Args:
        gate_up: floating point [..., 2 F], gate first and up behind it, F >= 1.
    Returns:
        [..., F], dtype of gate_up.
    Raises:
        ValueError: the last dimension is odd or empty, or the dtype is not floating point.
    """
    if gate_up.ndim < 1 or gate_up.shape[-1] < 2 or gate_up.shape[-1] % 2 or not gate_up.is_floating_point():
        raise ValueError(
            f"swiglu: need floating point [..., 2 F] with F >= 1, got {gate_up.dtype} {tuple(gate_up.shape)}"
        )
    if cpu_kernels.suits(gate_up, widths=(gate_up.shape[-1] // 2,), dtypes=cpu_kernels.FLOAT32_OR_BFLOAT16):
        return cpu_kernels.swiglu(gate_up)
    if not runs_triton(gate_up):
        return swiglu_ref(gate_up)
    return _swiglu_op(gate_up)


@triton.jit
def _sigmoid(x):
    # of the smaller of exp(x) and exp(-x), which cannot overflow
    e = tl.exp(-tl.abs(x))
    return tl.where(x >= 0, 1.0, e) / (1.0 + e)


@triton.jit(do_not_specialize=["N"])
def _forward_kernel(
    x_ptr, y_ptr, N, width_units, ALIGN: tl.constexpr, ROWS: tl.constexpr, BLOCK_F: tl.constexpr
):  # fmt: skip
    # int64: N * 2 F passes 2**31 at 350 k tokens of width 3,072
    n = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    f = tl.program_id(1) * BLOCK_F + tl.arange(0, BLOCK_F)[None, :]
    width = width_units * ALIGN
    inside = (n < N) & (f < width)
    at = x_ptr + n * (2 * width) + f
    gate = tl.load(at, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(at + width, mask=inside, other=0.0).to(tl.float32)
    y = gate * _sigmoid(gate) * up
    tl.store(y_ptr + n * width + f, y.to(y_ptr.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["N"])
def _backward_kernel(
    dy_ptr, x_ptr, dx_ptr, N, width_units, ALIGN: tl.constexpr, ROWS: tl.constexpr, BLOCK_F: tl.constexpr
):  # fmt: skip
    n = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    f = tl.program_id(1) * BLOCK_F + tl.arange(0, BLOCK_F)[None, :]
    width = width_units * ALIGN
    inside = (n < N) & (f < width)
    at = n * (2 * width) + f
    dy = tl.load(dy_ptr + n * width + f, mask=inside, other=0.0).to(tl.float32)
    gate = tl.load(x_ptr + at, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(x_ptr + at + width, mask=inside, other=0.0).to(tl.float32)
    s = _sigmoid(gate)
    dgate = dy * up * s * (1.0 + gate * (1.0 - s))
    tl.store(dx_ptr + at, dgate.to(dx_ptr.dtype.element_ty), mask=inside)
    tl.store(dx_ptr + at + width, (dy * gate * s).to(dx_ptr.dtype.element_ty), mask=inside)


def _grid(N: int, width: int, tile: int) -> tuple[tuple[int, int], dict[str, int]]:
    """Tiles of about `tile` elements: pieces of one row where it is wide, several rows where it is narrow."""
    block = min(tile, next_power_of_2(width))
    rows, align = tile // block, alignment(width)
    constants = {"width_units": width // align, "ALIGN": align, "ROWS": rows, "BLOCK_F": block}
    return (cdiv(N, rows), cdiv(width, block)), constants


@operation("swiglu")
def _swiglu_op(x: Tensor) -> Tensor:
    x = x.contiguous()
    width = x.shape[-1] // 2
    y = torch.empty((*x.shape[:-1], width), dtype=x.dtype, device=x.device)
    N = y.numel() // width

    def call(config: dict[str, int]) -> None:
        tile, options = take(config, "TILE")
        grid, constants = _grid(N, width, tile)
        _forward_kernel[grid](x, y, N, **constants, **options)

    if N:
        launch("swiglu_forward", x, call)
    return y


@_swiglu_op.register_fake
def _(x: Tensor) -> Tensor:
    return x.new_empty((*x.shape[:-1], x.shape[-1] // 2))


@operation("swiglu_backward")
def _swiglu_backward_op(dy: Tensor, x: Tensor) -> Tensor:
    dy, x = dy.contiguous(), x.contiguous()
    dx = torch.empty_like(x)
    N = dy.numel() // dy.shape[-1]

    def call(config: dict[str, int]) -> None:
        tile, options = take(config, "TILE")
        grid, constants = _grid(N, dy.shape[-1], tile)
        _backward_kernel[grid](dy, x, dx, N, **constants, **options)

    if N:
        launch("swiglu_backward", x, call)
    return dx


@_swiglu_backward_op.register_fake
def _(dy: Tensor, x: Tensor) -> Tensor:
    return x.new_empty(x.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, dy: Tensor) -> Tensor:
    return _swiglu_backward_op(dy, *ctx.saved_tensors)


_swiglu_op.register_autograd(_backward, setup_context=_setup_context)
