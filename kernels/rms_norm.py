"""Root-mean-square norm, alone or with the residual addition before it.

    s = x + residual        (or s = x)
    y = s * rstd * weight,  rstd = 1 / sqrt(mean_d s[n, d]^2 + eps)

and backward, with g = dy * weight, xhat = s * rstd:

    ds = rstd * (g - xhat * mean_d(g * xhat)) + (gradient of s as an output);   dweight = sum_n dy * xhat

Letters:    N rows (tokens), D width; a program takes a tile of ROWS rows.
Numerics:   loads in the input dtype; squares, means, rstd and the sum for dweight in float32. x, y and their gradients
            may be of 16 bits where residual, s, weight and their gradients are float32: a branch under autocast. So may
            y be of the first one, whose stream nothing was added to (`branch_norm`).
Traffic:    floor forward: x (and residual) read once, y (and s) written once; backward: dy, s (and ds) read once, the
            gradient of s written once, and once more for x where x is of another dtype. Besides, a few hundred rows in
            all for the weight and the partial sums of dweight: every program sums its rows in order into a row of its
            own, and those rows are summed in order; no atomics, so the same bits every time. The rows of many norms are
            summed at once where their weights come from `spread`.
Source:     Zhang and Sennrich 2019, arXiv:1910.07467.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import cpu_kernels
from .launch import launch
from .logit_rows import alignment, take
from .operation import operation
from .row_sums import spread_rows
from .triton_support import cdiv, next_power_of_2, runs_triton, tl, triton

__all__ = ["add_rms_norm", "add_rms_norm_ref", "branch_norm", "rms_norm", "rms_norm_ref", "spread"]

_HALF = (torch.bfloat16, torch.float16)
_MAX_WIDTH = 16384  # a row must fit into the registers of one program
# A program takes several tiles where there are many, so that the weight is read, and a row of partial dweight written,
# a few hundred times in all and not once a tile. The same on every GPU, because the partial rows decide bits.
_MAX_FORWARD_PROGRAMS = 1024
_MAX_BACKWARD_PROGRAMS = 256


def rms_norm_ref(x_ND: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    """The definition, which the tests compare against in float64; CPU runs it where the C++ kernel does not apply."""
    return F.rms_norm(x_ND, (x_ND.shape[-1],), weight_D, eps)


def add_rms_norm_ref(x_ND: Tensor, residual_ND: Tensor, weight_D: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """The definition with the residual: (y, s)."""
    total = x_ND + residual_ND
    return rms_norm_ref(total, weight_D, eps).to(x_ND.dtype), total


def spread(weights: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Weights of norms as those of `spread_rows` [P, D], which `rms_norm` and `add_rms_norm` take in place of [D]."""
    return spread_rows(weights, _MAX_BACKWARD_PROGRAMS)


def rms_norm(x_ND: Tensor, weight_D: Tensor, eps: float = 1e-6) -> Tensor:
    """Norm of every row; Triton on CUDA (and under TRITON_INTERPRET=1), the definition elsewhere.

    Args:
        x_ND: float32, float16 or bfloat16 [N, D], D <= 16384, rows contiguous.
        weight_D: [D], dtype of x; on CUDA also one of `spread`.
        eps: added to the mean square.
    Returns:
        [N, D], dtype of x.
    Raises:
        ValueError: shapes, dtypes or strides do not fit.
    """
    _check("rms_norm", x_ND, weight_D, eps)
    if cpu_kernels.suits(x_ND, weight_D, widths=weight_D.shape):
        return cpu_kernels.rms_norm(x_ND, weight_D, eps)
    if not runs_triton(x_ND):
        return rms_norm_ref(x_ND, weight_D, eps)
    return _rms_norm_op(x_ND, None, weight_D, eps, None)[0]


def branch_norm(x_ND: Tensor, weight_D: Tensor, eps: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The norm in `dtype`, and x again: what begins a residual stream, which nothing has been added to.

    Its backward is handed the gradient of x as that stream, so that no launch casts the norm, casts its gradient or
    adds the two gradients of x; the bits are those of casts and addition.

    Args:
        x_ND, weight_D, eps: as for `rms_norm`, where it runs Triton.
        dtype: of 16 bits, or that of x.
    """
    _check("branch_norm", x_ND, weight_D, eps)
    if torch.compiler.is_compiling():
        return _rms_norm_op(x_ND, None, weight_D, eps, dtype)[0], x_ND
    return _Branch.apply(x_ND, weight_D, eps, dtype)


class _Branch(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        y, _, rstd = _rms_norm_op(x, None, weight, eps, dtype)
        ctx.save_for_backward(x, weight, rstd)
        ctx.set_materialize_grads(False)
        return y, x.view_as(x)

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None, dx: Tensor | None) -> tuple[Tensor | None, Tensor | None, None, None]:
        if dy is None:
            return dx, None, None, None
        x, weight, rstd = ctx.saved_tensors
        total, _, dweight = _rms_norm_backward_op(dy, dx, x, weight, rstd, False)
        return total, dweight, None, None


def add_rms_norm(x_ND: Tensor, residual_ND: Tensor, weight_D: Tensor, eps: float = 1e-6) -> tuple[Tensor, Tensor]:
    """The norm of x + residual, and x + residual, in one pass.

    Args:
        x_ND: what is added to the residual stream: [N, D], the dtype of residual, or of 16 bits where that is float32.
        residual_ND: float32, float16 or bfloat16 [N, D].
        weight_D: [D], dtype of residual; on CUDA also one of `spread`.
        eps: as for `rms_norm`.
    Returns:
        The norm, dtype of x, and the sum, dtype of residual. Off the GPU the sum is torch's and the norm `rms_norm`'s;
        a branch in bfloat16 takes one pass with the same bits.
    Raises:
        ValueError: as for `rms_norm`.
    """
    _check("add_rms_norm", residual_ND, weight_D, eps)
    fits = x_ND.dtype == residual_ND.dtype or (residual_ND.dtype == torch.float32 and x_ND.dtype in _HALF)
    if residual_ND.shape != x_ND.shape or not fits or residual_ND.device != x_ND.device:
        raise ValueError(
            f"add_rms_norm: x must be like residual, {residual_ND.dtype} {tuple(residual_ND.shape)} on "
            f"{residual_ND.device} (or of 16 bits where that is float32), got {x_ND.dtype} {tuple(x_ND.shape)} on "
            f"{x_ND.device}"
        )
    if (
        cpu_kernels.suits(residual_ND, weight_D, widths=x_ND.shape[1:])
        and cpu_kernels.suits(x_ND, dtypes=(torch.bfloat16,))
    ):  # fmt: skip
        return cpu_kernels.add_rms_norm(x_ND, residual_ND, weight_D, eps)
    if not runs_triton(residual_ND):
        total_ND = x_ND + residual_ND
        return rms_norm(total_ND, weight_D, eps).to(x_ND.dtype), total_ND
    y_ND, total_ND, _ = _rms_norm_op(x_ND, residual_ND, weight_D, eps, None)
    return y_ND, total_ND


def _check(name: str, x: Tensor, weight: Tensor, eps: float) -> None:
    fits = weight.shape == x.shape[1:] or (runs_triton(x) and _is_spread(weight) and weight.shape[1:] == x.shape[1:])
    if x.ndim != 2 or not fits or not 1 <= x.shape[1] <= _MAX_WIDTH:
        raise ValueError(
            f"{name}: need x [N, D] and weight [D] with D in 1 .. {_MAX_WIDTH}, "
            f"got {tuple(x.shape)} and {tuple(weight.shape)}"
        )
    if weight.dtype != x.dtype or not x.is_floating_point() or weight.device != x.device:
        raise ValueError(
            f"{name}: x and weight need one floating dtype and device, got {x.dtype} on {x.device} "
            f"and {weight.dtype} on {weight.device}"
        )
    if not eps > 0:
        raise ValueError(f"{name}: eps must be > 0, got {eps}")


def _is_spread(weight: Tensor) -> bool:
    return weight.ndim == 2 and len(weight) == _MAX_BACKWARD_PROGRAMS and weight.stride(0) == 0


@triton.jit(do_not_specialize=["N", "tiles_per_program"])
def _forward_kernel(
    x_ptr,
    residual_ptr,  # read if HAS_RESIDUAL
    weight_ptr,
    y_ptr,
    sum_ptr,  # written if HAS_RESIDUAL
    rstd_ptr,
    N,
    width_units,
    tiles_per_program,
    eps,
    HAS_RESIDUAL: tl.constexpr,
    ALIGN: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    D = width_units * ALIGN
    # int64: N * D passes 2**31 at 2.8 M tokens of width 768
    first = tl.program_id(0).to(tl.int64) * tiles_per_program
    d = tl.arange(0, BLOCK_D)
    weight = tl.load(weight_ptr + d, mask=d < D, other=0.0).to(tl.float32)
    for tile in range(tiles_per_program):
        n = (first + tile) * ROWS + tl.arange(0, ROWS)
        inside = (n < N)[:, None] & (d < D)[None, :]
        at = n[:, None] * D + d[None, :]
        x = tl.load(x_ptr + at, mask=inside, other=0.0).to(tl.float32)
        if HAS_RESIDUAL:
            x += tl.load(residual_ptr + at, mask=inside, other=0.0).to(tl.float32)
            # what is normalised is the sum as it is stored
            total = x.to(sum_ptr.dtype.element_ty)
            tl.store(sum_ptr + at, total, mask=inside)
            x = total.to(tl.float32)
        rstd = 1.0 / tl.sqrt(tl.sum(x * x, axis=1) / D + eps)
        tl.store(rstd_ptr + n, rstd, mask=n < N)
        y = x * rstd[:, None] * weight[None, :]
        tl.store(y_ptr + at, y.to(y_ptr.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["N", "tiles_per_program"])
def _backward_kernel(
    dy_ptr,
    sum_ptr,  # s of the head
    dsum_ptr,  # gradient of s as an output, read if HAS_RESIDUAL
    weight_ptr,
    rstd_ptr,
    dx_ptr,
    branch_ptr,  # dx in the dtype of x, written if HAS_BRANCH
    dweight_ptr,  # [programs, D] float32, one row a program
    N,
    width_units,
    tiles_per_program,
    HAS_RESIDUAL: tl.constexpr,
    HAS_BRANCH: tl.constexpr,
    ALIGN: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    D = width_units * ALIGN
    program = tl.program_id(0).to(tl.int64)
    d = tl.arange(0, BLOCK_D)
    weight = tl.load(weight_ptr + d, mask=d < D, other=0.0).to(tl.float32)
    dweight = tl.zeros([BLOCK_D], dtype=tl.float32)
    for tile in range(tiles_per_program):
        n = (program * tiles_per_program + tile) * ROWS + tl.arange(0, ROWS)
        inside = (n < N)[:, None] & (d < D)[None, :]
        at = n[:, None] * D + d[None, :]
        rstd = tl.load(rstd_ptr + n, mask=n < N, other=0.0)
        dy = tl.load(dy_ptr + at, mask=inside, other=0.0).to(tl.float32)
        xhat = tl.load(sum_ptr + at, mask=inside, other=0.0).to(tl.float32) * rstd[:, None]
        dweight += tl.sum(dy * xhat, axis=0)
        g = dy * weight[None, :]
        dx = rstd[:, None] * (g - xhat * (tl.sum(g * xhat, axis=1) / D)[:, None])
        if HAS_RESIDUAL:
            dx += tl.load(dsum_ptr + at, mask=inside, other=0.0).to(tl.float32)
        tl.store(dx_ptr + at, dx.to(dx_ptr.dtype.element_ty), mask=inside)
        if HAS_BRANCH:
            tl.store(branch_ptr + at, dx.to(branch_ptr.dtype.element_ty), mask=inside)
    tl.store(dweight_ptr + program * D + d, dweight, mask=d < D)


def _tiles(N: int, width: int, tile: int, max_programs: int) -> tuple[int, dict[str, int]]:
    """(programs, constants of the kernel): tiles of several narrow rows or one wide one, about `tile` elements."""
    block, align = next_power_of_2(width), alignment(width)
    rows = max(1, tile // block)
    tiles_per_program = cdiv(cdiv(N, rows), max_programs)
    sizes = {"width_units": width // align, "tiles_per_program": tiles_per_program}
    return cdiv(N, rows * tiles_per_program), sizes | {"ALIGN": align, "ROWS": rows, "BLOCK_D": block}


def _row(weight: Tensor) -> Tensor:
    return (weight[0] if weight.ndim == 2 else weight).contiguous()


@operation("rms_norm")
def _rms_norm_op(
    x: Tensor, residual: Tensor | None, weight: Tensor, eps: float, dtype: torch.dtype | None
) -> tuple[Tensor, Tensor, Tensor]:
    """(y, s, rstd); without residual s is empty, because it would be x itself. dtype: of y, if not that of x."""
    x, weight = x.contiguous(), _row(weight)
    residual = None if residual is None else residual.contiguous()
    N, D = x.shape
    y = torch.empty_like(x, dtype=dtype)
    total = torch.empty_like(residual) if residual is not None else x.new_empty(0)
    rstd = torch.empty(N, dtype=torch.float32, device=x.device)

    def call(config: dict[str, int]) -> None:
        tile, options = take(config, "TILE")
        programs, constants = _tiles(N, D, tile, _MAX_FORWARD_PROGRAMS)
        _forward_kernel[(programs,)](
            x, residual, weight, y, total, rstd, N, eps=eps, HAS_RESIDUAL=residual is not None, **constants, **options
        )

    if N:
        launch("rms_norm_forward", x, call)
    return y, total, rstd


@_rms_norm_op.register_fake
def _(
    x: Tensor, residual: Tensor | None, weight: Tensor, eps: float, dtype: torch.dtype | None
) -> tuple[Tensor, Tensor, Tensor]:
    total = x.new_empty(0) if residual is None else residual.new_empty(x.shape)
    return x.new_empty(x.shape, dtype=dtype), total, x.new_empty(x.shape[0], dtype=torch.float32)


@operation("rms_norm_backward")
def _rms_norm_backward_op(
    dy: Tensor, dsum: Tensor | None, total: Tensor, weight: Tensor, rstd: Tensor, has_branch: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """(ds, ds in the dtype of dy, dweight); the second is empty where there was no branch of another dtype than s. Of a
    weight of `spread`, dweight is a row a program, 0 where it had no tokens."""
    dy, total, row = dy.contiguous(), total.contiguous(), _row(weight)
    dsum = None if dsum is None else dsum.contiguous()
    N, D = total.shape
    dx = torch.empty_like(total)
    branch = dy.new_empty(dy.shape if has_branch and dy.dtype != total.dtype else 0)

    def call(config: dict[str, int]) -> Tensor:
        tile, options = take(config, "TILE")
        programs, constants = _tiles(N, D, tile, _MAX_BACKWARD_PROGRAMS)
        programs = len(weight) if weight.ndim == 2 else programs
        dweight = torch.empty(programs, D, dtype=torch.float32, device=total.device)
        _backward_kernel[(programs,)](
            dy, total, dsum, row, rstd, dx, branch, dweight, N,
            HAS_RESIDUAL=dsum is not None, HAS_BRANCH=branch.numel() > 0, **constants, **options,
        )  # fmt: skip
        return dweight

    if not N:
        return dx, branch, torch.zeros(weight.shape, dtype=weight.dtype, device=weight.device)
    dweight = launch("rms_norm_backward", total, call)
    return dx, branch, (dweight if weight.ndim == 2 else dweight.sum(0)).to(weight.dtype)


@_rms_norm_backward_op.register_fake
def _(
    dy: Tensor, dsum: Tensor | None, total: Tensor, weight: Tensor, rstd: Tensor, has_branch: bool
) -> tuple[Tensor, Tensor, Tensor]:
    branch = dy.new_empty(dy.shape if has_branch and dy.dtype != total.dtype else 0)
    return total.new_empty(total.shape), branch, weight.new_empty(weight.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, residual, weight, *_ = inputs
    _, total, rstd = output
    ctx.save_for_backward(x if residual is None else total, weight, rstd)
    ctx.has_residual, ctx.dtype = residual is not None, x.dtype
    # else backward would be given zeros for outputs that nothing depends on
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(rstd)


def _backward(
    ctx: Any, dy: Tensor | None, dsum: Tensor | None, drstd: None
) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
    total, weight, rstd = ctx.saved_tensors
    dsum = dsum if ctx.has_residual else None
    if dy is None:
        return None if dsum is None else dsum.to(ctx.dtype), dsum, None, None, None
    dx, branch, dweight = _rms_norm_backward_op(dy, dsum, total, weight, rstd, ctx.has_residual)
    return branch if branch.numel() else dx, dx if ctx.has_residual else None, dweight, None, None


_rms_norm_op.register_autograd(_backward, setup_context=_setup_context)
