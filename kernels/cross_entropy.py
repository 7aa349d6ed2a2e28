"""Cross entropy of one label per row, and its gradient in the same pass over the logits.

    loss = sum_n w[n] (lse[n] - logits[n, label[n]] + z_loss lse[n]^2) / sum_n w[n]

with lse[n] = log sum_v exp(logits[n, v]), and, with p = softmax(logits),

    dlogits[n, v] = w[n] / sum w * (p[n, v] (1 + 2 z_loss lse[n]) - [v = label[n]])

Letters:    N rows, V vocabulary.
Numerics:   loads in the input dtype; differences to the row's maximum, exponentials and sums in float32.
Traffic:    floor N V elements read and N V written. One pass up to V = 8,192: the row stays in registers between the
            sum and the gradient, which waits, already weighted, for backward; if what arrives there is 1, as from
            loss.backward(), it is handed on untouched, else one launch scales it in place (a constant factor belongs
            into the weights). The weights are summed before. Besides, 48 bytes a row: 1.005 at V = 2,200 in bf16.
            Two passes (2 reads, 1 write) above 8,192, and in float16, whose d-logits of a mean over many tokens would
            vanish before a loss scale reached them. Without gradient one read and no write. The weights take six
            launches of torch, unless they are given as shares.
Source:     z-loss: de Brebisson and Vincent 2015, arXiv:1604.08859; PaLM, Chowdhery et al. 2022, arXiv:2204.02311.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import cpu_kernels
from .launch import launch
from .logit_rows import LOWEST, ONE_PASS_LIMIT, alignment, reduce_rows, row_class, row_tiles, scalars, scaled
from .operation import operation
from .triton_support import cdiv, runs_triton, tl, triton

__all__ = ["cross_entropy", "cross_entropy_ref", "shares_of"]


def cross_entropy_ref(
    logits_NV: Tensor,
    labels_N: Tensor,
    weights_N: Tensor | None = None,
    *,
    ignore_index: int = -100,
    z_loss: float = 0.0,
) -> Tensor:
    """The definition, which the tests compare against in float64; CPU runs it where the C++ kernel does not apply."""
    wide = torch.promote_types(logits_NV.dtype, torch.float32)
    return _share_weighted_ref(logits_NV, labels_N, shares_of(labels_N, weights_N, ignore_index, wide), z_loss)


def _share_weighted_ref(logits_NV: Tensor, labels_N: Tensor, shares_N: Tensor, z_loss: float) -> Tensor:
    logits = logits_NV.to(shares_N.dtype)
    # what a row of weight 0 holds is replaced, because 0 times a NaN is not 0
    counts_N = shares_N != 0
    logits, labels_N = torch.where(counts_N[:, None], logits, 0.0), torch.where(counts_N, labels_N, 0)
    loss_N = F.cross_entropy(logits, labels_N, reduction="none")
    if z_loss:
        loss_N = loss_N + z_loss * logits.logsumexp(1).square()
    return (loss_N * shares_N).sum()


def cross_entropy(
    logits_NV: Tensor,
    labels_N: Tensor,
    weights_N: Tensor | None = None,
    *,
    ignore_index: int = -100,
    z_loss: float = 0.0,
    are_shares: bool = False,
) -> Tensor:
    """The weighted mean cross entropy, as in the module docstring.

    Args:
        logits_NV: floating point.
        labels_N: int64 in [0, V), or `ignore_index`. On CUDA any other label makes the loss infinite.
        weights_N: floating point, no gradient; None: all 1. A row with weight 0 has gradient 0 whatever its logits
            hold; on CUDA they are not read.
        ignore_index: rows with this label have weight 0.
        z_loss: coefficient of the squared log-partition, >= 0.
        are_shares: the weights are those of `shares_of`, and taken as they are.
    Returns:
        Scalar in float32 (float64 for float64 logits); 0 if all weights are 0.
    Raises:
        ValueError: shapes, dtypes or devices do not match, or z_loss is negative.
        RuntimeError: a second backward through a loss that was computed in one pass.
    """
    width = logits_NV.shape[1] if logits_NV.ndim == 2 else 0
    shares_N = checked_shares("cross_entropy", logits_NV, width, labels_N, weights_N, ignore_index, z_loss, are_shares)
    return share_weighted(logits_NV, labels_N, shares_N, z_loss)


def share_weighted(logits_NV: Tensor, labels_N: Tensor, shares_N: Tensor, z_loss: float) -> Tensor:
    """`cross_entropy` with weights that need not be divided by their sum, of arguments that have been checked."""
    if cpu_kernels.suits(logits_NV, dtypes=cpu_kernels.FLOAT32_OR_BFLOAT16):
        return cpu_kernels.cross_entropy(logits_NV, labels_N, shares_N, z_loss)
    if not runs_triton(logits_NV):
        return _share_weighted_ref(logits_NV, labels_N, shares_N, z_loss)
    needs_gradient = torch.is_grad_enabled() and logits_NV.requires_grad
    return _cross_entropy_op(logits_NV, labels_N, shares_N, scalars(z_loss), needs_gradient)[0]


def checked_shares(
    name: str,
    rows: Tensor,
    num_labels: int,
    labels: Tensor,
    weights: Tensor | None,
    ignore_index: int,
    z_loss: float,
    are_shares: bool = False,
) -> Tensor:
    """The weight of each row, of arguments that are checked first; `rows` [N, ...] are logits or what makes them."""
    _check(name, rows, num_labels, labels, weights, z_loss)
    wide = torch.promote_types(rows.dtype, torch.float32)
    if not are_shares:
        return shares_of(labels, weights, ignore_index, wide)
    if weights is None or weights.dtype != wide:
        raise ValueError(f"{name}: shares must be {wide}, got {None if weights is None else weights.dtype}")
    return weights.detach()


def shares_of(
    labels: Tensor, weights: Tensor | None = None, ignore_index: int = -100, dtype: torch.dtype = torch.float32
) -> Tensor:
    """The weight of each row: weights that sum to 1, or to 0 if all are 0. Where labels are on the host at first, they
    are computed there and copied with them."""
    counts = labels != ignore_index
    weights = counts.to(dtype) if weights is None else torch.where(counts, weights.detach().to(dtype), 0.0)
    total = weights.sum()
    return weights / (total + (total == 0))


def _check(name: str, rows: Tensor, num_labels: int, labels: Tensor, weights: Tensor | None, z_loss: float) -> None:
    if rows.ndim != 2 or num_labels < 1 or labels.shape != rows.shape[:1]:
        raise ValueError(
            f"{name}: need logits [N, V] with V >= 1 and labels [N], got {tuple(rows.shape)} and {tuple(labels.shape)}"
        )
    if weights is not None and weights.shape != labels.shape:
        raise ValueError(f"{name}: weights must be [N] = {tuple(labels.shape)}, got {tuple(weights.shape)}")
    if not rows.is_floating_point() or labels.dtype != torch.int64:
        raise ValueError(f"{name}: logits must be floating point and labels int64, got {rows.dtype} and {labels.dtype}")
    if labels.device != rows.device or (weights is not None and weights.device != rows.device):
        raise ValueError(f"{name}: labels and weights must be on the device of the logits, {rows.device}")
    if not z_loss >= 0:
        raise ValueError(f"{name}: z_loss must be >= 0, got {z_loss}")


@triton.jit
def _one_pass_kernel(
    logits_ptr,
    labels_ptr,
    shares_ptr,
    gradient_ptr,
    losses_ptr,
    z_loss,
    row_units,  # row stride of the logits, in units of ALIGN
    width_units,
    ALIGN: tl.constexpr,
    BODY: tl.constexpr,
    TAIL: tl.constexpr,
):
    # int64: N * V passes 2**31 at a million tokens of 2,200
    n = tl.program_id(0).to(tl.int64)
    share = tl.load(shares_ptr + n)
    label = tl.load(labels_ptr + n)
    live = share != 0.0
    width = width_units * ALIGN
    end = tl.where(live, width, 0)  # nothing of a masked row is read
    row = logits_ptr + n * (row_units * ALIGN)
    v = tl.arange(0, BODY)
    x = tl.load(row + v, mask=v < end, other=-float("inf")).to(tl.float32)
    m = tl.max(x, axis=0)
    if TAIL > 0:
        v_tail = BODY + tl.arange(0, TAIL)
        x_tail = tl.load(row + v_tail, mask=v_tail < end, other=-float("inf")).to(tl.float32)
        m = tl.maximum(m, tl.max(x_tail, axis=0))
    m = tl.where(live, m, 0.0)
    z = x - m
    e = tl.exp(z)
    s = tl.sum(e, axis=0)
    chosen = tl.max(tl.where(v == label, z, -float("inf")), axis=0)
    if TAIL > 0:
        z_tail = x_tail - m
        e_tail = tl.exp(z_tail)
        s += tl.sum(e_tail, axis=0)
        chosen = tl.maximum(chosen, tl.max(tl.where(v_tail == label, z_tail, -float("inf")), axis=0))
    s = tl.where(live, s, 1.0)
    log_s = tl.log(s)
    lse = m + log_s
    tl.store(losses_ptr + n, tl.where(live, share * (log_s - tl.where(live, chosen, 0.0) + z_loss * lse * lse), 0.0))

    gradient = gradient_ptr + n * width
    scale = share * (1.0 + 2.0 * z_loss * lse) / s
    scale = tl.where(live, scale, 0.0)
    g = e * scale - tl.where(v == label, share, 0.0)
    tl.store(gradient + v, g.to(gradient_ptr.dtype.element_ty), mask=v < width)
    if TAIL > 0:
        g_tail = e_tail * scale - tl.where(v_tail == label, share, 0.0)
        tl.store(gradient + v_tail, g_tail.to(gradient_ptr.dtype.element_ty), mask=v_tail < width)


@triton.jit
def _loss_kernel(
    logits_ptr,
    labels_ptr,
    shares_ptr,
    losses_ptr,
    maxima_ptr,
    log_sums_ptr,
    z_loss,
    row_units,
    width_units,
    ALIGN: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """First of two passes: the loss of a row, and what its gradient needs, by an online softmax."""
    n = tl.program_id(0).to(tl.int64)
    share = tl.load(shares_ptr + n)
    label = tl.load(labels_ptr + n)
    live = share != 0.0
    width = width_units * ALIGN
    row = logits_ptr + n * (row_units * ALIGN)
    m = -float("inf")
    s = 0.0
    chosen = -float("inf")
    for start in range(0, tl.where(live, width, 0), BLOCK):
        v = start + tl.arange(0, BLOCK)
        x = tl.load(row + v, mask=v < width, other=-float("inf")).to(tl.float32)
        m_new = tl.maximum(m, tl.max(x, axis=0))
        origin = tl.maximum(m_new, LOWEST)
        s = s * tl.exp(m - origin) + tl.sum(tl.exp(x - origin), axis=0)
        chosen = tl.maximum(chosen, tl.max(tl.where(v == label, x, -float("inf")), axis=0))
        m = m_new
    m = tl.where(live, m, 0.0)
    log_s = tl.log(tl.where(live, s, 1.0))
    lse = m + log_s
    loss = log_s - (tl.where(live, chosen, 0.0) - m) + z_loss * lse * lse
    tl.store(losses_ptr + n, tl.where(live, share * loss, 0.0))
    tl.store(maxima_ptr + n, m)
    tl.store(log_sums_ptr + n, log_s)


@triton.jit
def _gradient_kernel(
    upstream_ptr,
    logits_ptr,
    labels_ptr,
    shares_ptr,
    maxima_ptr,
    log_sums_ptr,
    gradient_ptr,
    z_loss,
    row_units,
    width_units,
    ALIGN: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Second of two passes, with the incoming gradient folded in."""
    n = tl.program_id(0).to(tl.int64)
    share = tl.load(shares_ptr + n) * tl.load(upstream_ptr)
    label = tl.load(labels_ptr + n)
    live = share != 0.0
    m = tl.load(maxima_ptr + n)
    log_s = tl.load(log_sums_ptr + n)
    width = width_units * ALIGN
    v = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    row = logits_ptr + n * (row_units * ALIGN)
    x = tl.load(row + v, mask=v < tl.where(live, width, 0), other=-float("inf")).to(tl.float32)
    p = tl.exp(x - m - log_s)
    g = share * (p * (1.0 + 2.0 * z_loss * (m + log_s)) - tl.where(v == label, 1.0, 0.0))
    g = tl.where(live, g, 0.0)
    tl.store(gradient_ptr + n * width + v, g.to(gradient_ptr.dtype.element_ty), mask=v < width)


def _in_one_pass(logits: Tensor, needs_gradient: bool) -> bool:
    return needs_gradient and logits.shape[1] <= ONE_PASS_LIMIT and logits.dtype != torch.float16


def _row_constants(logits: Tensor) -> dict[str, int]:
    align = alignment(logits.stride(0), logits.shape[1])
    return {"row_units": logits.stride(0) // align, "width_units": logits.shape[1] // align, "ALIGN": align}


@operation("cross_entropy")
def _cross_entropy_op(
    logits: Tensor, labels: Tensor, shares: Tensor, settings: Tensor, needs_gradient: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(loss, d-logits, maxima, logs of sums); in one pass the last two are empty, in two the second one.

    settings: z_loss, on CPU.

    Backward overwrites the d-logits of one pass, unless the gradient of the loss is 1.
    """
    if logits.stride(1) != 1:
        logits = logits.contiguous()
    labels, shares = labels.contiguous(), shares.contiguous()
    N, V = logits.shape
    constants = _row_constants(logits)
    one_pass = _in_one_pass(logits, needs_gradient)
    gradient = logits.new_empty((N, V) if one_pass else 0)
    losses = shares.new_empty(1, N)
    (z_loss,) = settings.tolist()
    maxima, log_sums = (shares.new_empty(0 if one_pass else N) for _ in range(2))

    def call_one_pass(config: dict[str, int]) -> None:
        body, tail = row_tiles(V, config["num_warps"], logits.element_size())
        _one_pass_kernel[(N,)](
            logits, labels, shares, gradient, losses, z_loss, BODY=body, TAIL=tail, **constants, **config
        )

    def call_loss(config: dict[str, int]) -> None:
        _loss_kernel[(N,)](logits, labels, shares, losses, maxima, log_sums, z_loss, **constants, **config)

    if not N:
        return shares.new_zeros(()), gradient, maxima, log_sums
    if one_pass:
        launch("cross_entropy", logits, call_one_pass, row_class=row_class(V))
    else:
        launch("cross_entropy_loss", logits, call_loss)
    return reduce_rows(losses, 1).view(()), gradient, maxima, log_sums


@_cross_entropy_op.register_fake
def _(
    logits: Tensor, labels: Tensor, shares: Tensor, settings: Tensor, needs_gradient: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    one_pass = _in_one_pass(logits, needs_gradient)
    maxima, log_sums = (shares.new_empty(0 if one_pass else logits.shape[0]) for _ in range(2))
    return shares.new_empty(()), logits.new_empty(logits.shape if one_pass else 0), maxima, log_sums


@operation("cross_entropy_backward")
def _cross_entropy_backward_op(
    upstream: Tensor, logits: Tensor, labels: Tensor, shares: Tensor, maxima: Tensor, log_sums: Tensor, settings: Tensor
) -> Tensor:
    """d-logits, second of two passes."""
    if logits.stride(1) != 1:
        logits = logits.contiguous()
    labels, shares = labels.contiguous(), shares.contiguous()
    N, V = logits.shape
    gradient = logits.new_empty(N, V)
    (z_loss,) = settings.tolist()

    def call(config: dict[str, int]) -> None:
        _gradient_kernel[(N, cdiv(V, config["BLOCK"]))](
            upstream, logits, labels, shares, maxima, log_sums, gradient, z_loss, **_row_constants(logits), **config
        )

    if N:
        launch("cross_entropy_gradient", logits, call)
    return gradient


@_cross_entropy_backward_op.register_fake
def _(
    upstream: Tensor, logits: Tensor, labels: Tensor, shares: Tensor, maxima: Tensor, log_sums: Tensor, settings: Tensor
) -> Tensor:
    return logits.new_empty(logits.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    logits, labels, shares, settings, needs_gradient = inputs
    _, gradient, maxima, log_sums = output
    ctx.one_pass = _in_one_pass(logits, needs_gradient)
    ctx.save_for_backward(*((gradient,) if ctx.one_pass else (logits, labels, shares, maxima, log_sums, settings)))
    # else backward would be given zeros, as large as the logits, for the outputs that have no gradient
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(gradient, maxima, log_sums)


def _backward(ctx: Any, upstream: Tensor, *_: Any) -> tuple[Tensor, None, None, None, None]:
    if ctx.one_pass:
        (gradient,) = ctx.saved_tensors
        gradient = scaled(gradient, upstream)
    else:
        gradient = _cross_entropy_backward_op(upstream, *ctx.saved_tensors)
    return gradient, None, None, None, None


_cross_entropy_op.register_autograd(_backward, setup_context=_setup_context)
