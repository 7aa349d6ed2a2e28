"""Rotary position embedding, half-split layout (as in Llama and Qwen2 of transformers).

    (a, b) = halves of x[t, h];   y = (a cos - b sin, b cos + a sin),   angle[t, i] = position[t] * theta ** (-2 i / D)

The gradient is the inverse rotation, the same kernel with sin negated.

Letters:    T tokens, H heads (of queries and keys together), D head dim.
Numerics:   angles in float32 whatever the input (float64 for float64), rounded to the dtype of x; the kernel rotates in
            float32.
Traffic:    floor 2 T H D elements, x read and y written. The kernel reads half of each table once a token for all heads
            besides, T D elements: 1 + 1 / (2 H) times the floor, 1.036 at 14 heads. Not in place: the same traffic, and
            what autograd saved stays what it was.
Source:     Su et al. 2021, arXiv:2104.09864.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import cpu_kernels
from .launch import launch
from .logit_rows import alignment, take
from .operation import operation
from .triton_support import cdiv, next_power_of_2, runs_triton, tl, triton

__all__ = ["check_rope", "rope", "rope_angles", "rope_ref", "rotate"]

_MAX_HEAD_DIM = 512


def rope_angles(positions_T: Tensor, head_dim: int, theta: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """What `rope` needs of the positions; computed once and used by every layer.

    Returns:
        [T, 1, D] (cos, cos) and (-sin, sin) of the angles, computed in float32 (float64 for float64), cast to `dtype`.
    """
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    exponent = torch.arange(0, head_dim, 2, dtype=wide, device=positions_T.device) / head_dim
    # the reciprocal of the power as transformers and vLLM take it: another rounding would turn the last of 2,048
    # positions by up to 1e-4
    angles = positions_T.to(wide)[:, None, None] * (1.0 / theta**exponent)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((cos, cos), dim=-1).to(dtype), torch.cat((-sin, sin), dim=-1).to(dtype)


def rope_ref(x_THD: Tensor, cos_T1D: Tensor, sin_T1D: Tensor) -> Tensor:
    """The definition, which the tests compare against in float64; CPU runs it where the C++ kernel does not apply."""
    # a roll by half swaps the halves; on CPU it costs a seventh of joining the two rotated halves
    return x_THD * cos_T1D + x_THD.roll(x_THD.shape[-1] // 2, dims=-1) * sin_T1D


def rope(x_THD: Tensor, cos_T1D: Tensor, sin_T1D: Tensor) -> Tensor:
    """x rotated by the angles of `rope_angles`.

    Args:
        x_THD: floating point, D even and at most 512; on CUDA any strides of tokens and heads, so that queries and keys
            can stay in the matrix that also holds the values.
        cos_T1D, sin_T1D: of `rope_angles`, dtype of x, no gradient.
    Returns:
        [T, H, D], contiguous on CUDA, dtype of x.
    Raises:
        ValueError: shapes, dtypes or devices do not fit.
    """
    check_rope(x_THD, cos_T1D, sin_T1D)
    if cpu_kernels.suits(x_THD, cos_T1D, sin_T1D, dtypes=cpu_kernels.FLOAT32_OR_BFLOAT16):
        return cpu_kernels.rope(x_THD, cos_T1D, sin_T1D)
    if not runs_triton(x_THD):
        return rope_ref(x_THD, cos_T1D, sin_T1D)
    return _rope_op(x_THD, cos_T1D, sin_T1D, False)


def check_rope(x: Tensor, cos: Tensor, sin: Tensor) -> None:
    if x.ndim != 3 or x.shape[2] % 2 or not 2 <= x.shape[2] <= _MAX_HEAD_DIM:
        raise ValueError(f"rope: need x [T, H, D] with D even, in 2 .. {_MAX_HEAD_DIM}, got {tuple(x.shape)}")
    table = (x.shape[0], 1, x.shape[2])
    if cos.shape != table or sin.shape != table:
        raise ValueError(f"rope: cos and sin must be {table} for this x, got {tuple(cos.shape)} and {tuple(sin.shape)}")
    if not x.is_floating_point() or {cos.dtype, sin.dtype} != {x.dtype} or {cos.device, sin.device} != {x.device}:
        raise ValueError(
            f"rope: x, cos and sin need one floating dtype and device, got {x.dtype} on {x.device}, "
            f"{cos.dtype} on {cos.device} and {sin.dtype} on {sin.device}"
        )
    if cos.requires_grad or sin.requires_grad:
        raise ValueError("rope: cos and sin get no gradient; detach them")


@triton.jit(do_not_specialize=["T"])
def _rope_kernel(
    x_ptr,
    cos_ptr,
    sin_ptr,
    y_ptr,
    T,
    H,
    token_units,  # strides of x, in units of ALIGN
    head_units,
    INVERSE: tl.constexpr,
    HALF: tl.constexpr,
    ALIGN: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_HALF: tl.constexpr,
):
    # int64: T * H * D passes 2**31 at 2.4 M tokens of 14 heads of 64
    t = tl.program_id(0).to(tl.int64) * BLOCK_T + tl.arange(0, BLOCK_T)
    d = tl.arange(0, BLOCK_HALF)[None, :]
    inside = (t < T)[:, None] & (d < HALF)
    table = t[:, None] * (2 * HALF) + d
    # both halves of cos are the same and those of sin differ in sign: one of each is read
    cos = tl.load(cos_ptr + table, mask=inside, other=0.0).to(tl.float32)
    sin = tl.load(sin_ptr + HALF + table, mask=inside, other=0.0).to(tl.float32)
    if INVERSE:
        sin = -sin
    x_at = x_ptr + t[:, None] * (token_units * ALIGN) + d
    y_at = y_ptr + t[:, None] * (H * (2 * HALF)) + d
    # unrolled so that the loads of several heads are under way at once
    for h in tl.range(0, H, loop_unroll_factor=4):
        at = h * (head_units * ALIGN)
        a = tl.load(x_at + at, mask=inside, other=0.0).to(tl.float32)
        b = tl.load(x_at + at + HALF, mask=inside, other=0.0).to(tl.float32)
        out = y_at + h * (2 * HALF)
        tl.store(out, (a * cos - b * sin).to(y_ptr.dtype.element_ty), mask=inside)
        tl.store(out + HALF, (b * cos + a * sin).to(y_ptr.dtype.element_ty), mask=inside)


def rotate(x: Tensor, cos: Tensor, sin: Tensor, y: Tensor, inverse: bool) -> None:
    """Writes the rotation of x [T, H, D] to y, contiguous."""
    T, H, D = x.shape
    half, align = D // 2, alignment(x.stride(0), x.stride(1), D // 2)
    block_half = next_power_of_2(half)

    def call(config: dict[str, int]) -> None:
        tile, options = take(config, "TILE")
        block_t = max(1, tile // block_half)
        _rope_kernel[(cdiv(T, block_t),)](
            x, cos, sin, y, T, H, x.stride(0) // align, x.stride(1) // align,
            INVERSE=inverse, HALF=half, ALIGN=align, BLOCK_T=block_t, BLOCK_HALF=block_half, **options,
        )  # fmt: skip

    if y.numel():
        launch("rope", x, call)


@operation("rope")
def _rope_op(x: Tensor, cos: Tensor, sin: Tensor, inverse: bool) -> Tensor:
    if x.stride(2) != 1:
        x = x.contiguous()
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    rotate(x, cos.contiguous(), sin.contiguous(), y, inverse)
    return y


@_rope_op.register_fake
def _(x: Tensor, cos: Tensor, sin: Tensor, inverse: bool) -> Tensor:
    return x.new_empty(x.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, cos, sin, ctx.inverse = inputs
    ctx.save_for_backward(cos, sin)


def _backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None, None, None]:
    return _rope_op(dy, *ctx.saved_tensors, not ctx.inverse), None, None, None


_rope_op.register_autograd(_backward, setup_context=_setup_context)
