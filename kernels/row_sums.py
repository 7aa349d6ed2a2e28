"""Sums over the rows of several matrices of one shape, in one launch, as gradients of weights that were repeated.

    sums[i, w] = sum_r matrices[i][r, w]

Letters:    n matrices of R rows and W columns; a program takes the BLOCK_W columns of one of them.
Numerics:   float32; lane l of ROWS adds rows l, l + ROWS, ... in order, then lanes are added: the same bits every time.
Traffic:    n R W elements read once, n W written. The matrices are not joined first, which would move them twice more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .launch import launch
from .logit_rows import alignment
from .operation import operation
from .triton_support import cdiv, runs_triton, tl, triton

__all__ = ["spread_rows", "sum_rows"]


def spread_rows(weights: Sequence[Tensor], rows: int) -> tuple[Tensor, ...]:
    """Each weight [W] as [rows, W], one address for all rows.

    Operations that take it so hand back, as its gradient, what their programs summed each over its own tokens. It is
    added up for all of the weights in one launch, when the last of them has its gradient.

    Args:
        weights: float32, of one W.
    """
    return _Spread.apply(rows, *weights)


class _Spread(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: int, *weights: Tensor) -> tuple[Tensor, ...]:
        return tuple(weight.expand(rows, -1) for weight in weights)

    @staticmethod
    def backward(ctx: Any, *sums: Tensor) -> tuple[Tensor | None, ...]:
        return None, *sum_rows(sums).unbind()


@triton.jit(do_not_specialize=["R"])
def _sum_kernel(
    matrices,  # a tuple
    out_ptr,
    R,
    width_units,
    COUNT: tl.constexpr,
    ALIGN: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_W: tl.constexpr,
):
    which = tl.program_id(1)
    base = matrices[0]
    for i in tl.static_range(1, COUNT):
        base = tl.where(which == i, matrices[i], base)
    base = tl.multiple_of(base, 16)
    W = width_units * ALIGN
    w = tl.program_id(0) * BLOCK_W + tl.arange(0, BLOCK_W)
    total = tl.zeros([ROWS, BLOCK_W], dtype=tl.float32)
    for first in range(0, R, ROWS):
        r = first + tl.arange(0, ROWS)
        inside = (r < R)[:, None] & (w < W)[None, :]
        total += tl.load(base + (r.to(tl.int64)[:, None] * W + w[None, :]), mask=inside, other=0.0)
    tl.store(out_ptr + which * W + w, tl.sum(total, axis=0), mask=w < W)


def sum_rows(matrices: Sequence[Tensor]) -> Tensor:
    """The sums [n, W] of the rows of n >= 1 matrices, float32 [R, W]; torch's where no kernel runs."""
    return _row_sums_op(list(matrices)) if runs_triton(matrices[0]) else torch.stack(list(matrices)).sum(1)


@operation("row_sums")
def _row_sums_op(matrices: Sequence[Tensor]) -> Tensor:
    given = tuple(x.contiguous() for x in matrices)
    R, W = given[0].shape
    align, out = alignment(W), given[0].new_empty(len(given), W)

    def call(config: dict[str, int]) -> None:
        grid = (cdiv(W, config["BLOCK_W"]), len(given))
        _sum_kernel[grid](given, out, R, W // align, COUNT=len(given), ALIGN=align, **config)

    launch("sum_rows", out, call)
    return out


@_row_sums_op.register_fake
def _(matrices: Sequence[Tensor]) -> Tensor:
    return matrices[0].new_empty(len(matrices), matrices[0].shape[1])
