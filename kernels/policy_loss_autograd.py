"""Operators of `policy_loss` for torch: launches of the kernels in policy_loss_triton.py, shapes, and autograd.

Letters:    N rows (tokens), V vocabulary, K statistics.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .launch import launch
from .logit_rows import ONE_PASS_LIMIT, alignment, reduce_rows, row_class, row_tiles, scaled
from .operation import operation
from .policy_loss_triton import (
    NUM_SUMS,
    STATISTICS,
    gradient_kernel,
    one_pass_kernel,
    sequences_kernel,
    statistics_kernel,
    tokens_kernel,
)
from .triton_support import cdiv

__all__ = ["policy_loss_backward_op", "policy_loss_op"]


def _row_values(logits: Tensor, reference_logits: Tensor | None, offsets: Tensor | None, needs_gradient: bool) -> Any:
    """Size of what the second pass needs: slope, max x, log s, u of every row, and max r, k where there is an r."""
    if _in_one_pass(logits, offsets, needs_gradient):
        return 0
    return 4 if reference_logits is None else 6, logits.shape[0]


def _in_one_pass(logits: Tensor, offsets: Tensor | None, needs_gradient: bool) -> bool:
    short = logits.shape[1] <= ONE_PASS_LIMIT
    return needs_gradient and short and logits.dtype != torch.float16 and offsets is None


def _units(logits: Tensor, reference: Tensor | None) -> dict[str, int]:
    strides = [x.stride(0) for x in (logits, reference) if x is not None]
    align = alignment(*strides, logits.shape[1])
    return {
        "row_units": strides[0] // align,
        "reference_units": strides[-1] // align,
        "width_units": logits.shape[1] // align,
        "ALIGN": align,
    }


def _rows_adjacent(x: Tensor) -> Tensor:
    return x if x.stride(1) == 1 else x.contiguous()


@operation("policy_loss")
def policy_loss_op(
    logits: Tensor,
    reference_logits: Tensor | None,
    tokens: Tensor,
    weights: Tensor,
    old: Tensor | None,
    advantages: Tensor,
    importance: Tensor | None,
    reference: Tensor | None,
    offsets: Tensor | None,
    scalars: Tensor,
    kind: int,
    estimator: int,
    needs_gradient: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """(loss, STATISTICS [K], logp [N], d-logits, row values); of the last two one is empty, the other for backward.

    Backward overwrites the d-logits of one pass, unless the gradient of the loss is 1.
    Vectors over rows are contiguous and float32, tokens and offsets int64; offsets make the ratio one of sequences.
    scalars: temperature, clip_low, clip_high, clip_dual, kl_coef, entropy_coef, on CPU.
    """
    logits = _rows_adjacent(logits)
    reference_logits = None if reference_logits is None else _rows_adjacent(reference_logits)
    N, V = logits.shape
    one_pass = _in_one_pass(logits, offsets, needs_gradient)
    logp, rows = weights.new_empty(N), weights.new_empty(len(STATISTICS), N)
    gradient = logits.new_empty((N, V) if one_pass else 0)
    values = weights.new_empty(_row_values(logits, reference_logits, offsets, needs_gradient))
    temperature, *numbers = scalars.tolist()
    inv_t = 1.0 / temperature
    names = ("clip_low", "clip_high", "clip_dual", "kl_coef", "entropy_coef")
    settings = dict(zip(names, numbers, strict=True)) | {"KIND": kind, "ESTIMATOR": estimator}
    sizes = _units(logits, reference_logits)
    has_reference = int(reference_logits is not None)

    def call_one_pass(config: dict[str, int]) -> None:
        body, tail = row_tiles(V, config["num_warps"], logits.element_size())
        one_pass_kernel[(N,)](
            logits, reference_logits, tokens, weights, old, advantages, importance, reference, gradient, logp, rows,
            N, inv_t, BODY=body, TAIL=tail, **settings, **sizes, **config,
        )  # fmt: skip

    if one_pass:
        launch("policy_loss", logits, call_one_pass, row_class=row_class(V), reference=has_reference)
    else:
        entropy_kl = weights.new_empty(2, N)
        _row_statistics(logits, reference_logits, tokens, weights, logp, entropy_kl, values, inv_t, sizes)
        log_ratio = None
        if offsets is not None:
            log_ratio, importance = _sequence_means(offsets, logp, old, weights, importance)

        def call_tokens(config: dict[str, int]) -> None:
            tokens_kernel[(cdiv(N, config["BLOCK"]),)](
                weights, logp, entropy_kl, log_ratio, old, advantages, importance, reference, rows,
                values, N, **settings, **config,
            )  # fmt: skip

        launch("policy_loss_tokens", logits, call_tokens)
    totals = reduce_rows(rows, NUM_SUMS)
    return totals[0].clone(), totals, logp, gradient, values


def _row_statistics(
    logits: Tensor,
    reference_logits: Tensor | None,
    tokens: Tensor,
    weights: Tensor,
    logp: Tensor,
    entropy_kl: Tensor,
    values: Tensor,
    inv_t: float,
    sizes: dict[str, int],
) -> None:
    N, V = logits.shape
    fits = V <= ONE_PASS_LIMIT

    def call(config: dict[str, int]) -> None:
        body, tail = row_tiles(V, config["num_warps"], logits.element_size()) if fits else (0, 0)
        statistics_kernel[(N,)](
            logits, reference_logits, tokens, weights, logp, entropy_kl, values, N, inv_t,
            BODY=body, TAIL=tail, **({"BLOCK": 0} | config), **sizes,
        )  # fmt: skip

    # rows that fit take the tiles and warps of one pass, so that both find the same bits
    name = "policy_loss" if fits else "policy_loss_statistics"
    launch(name, logits, call, row_class=row_class(V), reference=int(reference_logits is not None))


def _sequence_means(
    offsets: Tensor, logp: Tensor, old: Tensor | None, weights: Tensor, importance: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """(log ratio, importance) of its sequence for every token."""
    log_ratio = torch.zeros_like(logp)
    means = None if importance is None else torch.zeros_like(logp)

    def call(config: dict[str, int]) -> None:
        sequences_kernel[(offsets.numel() - 1,)](offsets, logp, old, weights, importance, log_ratio, means, **config)

    launch("policy_loss_sequences", logp, call)
    return log_ratio, means


@policy_loss_op.register_fake
def _(
    logits: Tensor,
    reference_logits: Tensor | None,
    tokens: Tensor,
    weights: Tensor,
    old: Tensor | None,
    advantages: Tensor,
    importance: Tensor | None,
    reference: Tensor | None,
    offsets: Tensor | None,
    scalars: Tensor,
    kind: int,
    estimator: int,
    needs_gradient: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    N = logits.shape[0]
    one_pass = _in_one_pass(logits, offsets, needs_gradient)
    gradient = logits.new_empty(logits.shape if one_pass else 0)
    values = weights.new_empty(_row_values(logits, reference_logits, offsets, needs_gradient))
    return weights.new_empty(()), weights.new_empty(len(STATISTICS)), weights.new_empty(N), gradient, values


@operation("policy_loss_backward")
def policy_loss_backward_op(
    upstream: Tensor,
    logits: Tensor,
    reference_logits: Tensor | None,
    tokens: Tensor,
    weights: Tensor,
    values: Tensor,
    scalars: Tensor,
) -> Tensor:
    """d-logits, second of two passes."""
    logits = _rows_adjacent(logits)
    reference_logits = None if reference_logits is None else _rows_adjacent(reference_logits)
    N, V = logits.shape
    gradient = logits.new_empty(N, V)
    temperature, _, _, _, kl_coef, entropy_coef = scalars.tolist()
    inv_t = 1.0 / temperature

    def call(config: dict[str, int]) -> None:
        gradient_kernel[(N, cdiv(V, config["BLOCK"]))](
            upstream, logits, reference_logits, tokens, weights, values, gradient, N, inv_t, kl_coef, entropy_coef,
            **_units(logits, reference_logits), **config,
        )  # fmt: skip

    launch("policy_loss_gradient", logits, call)
    return gradient


@policy_loss_backward_op.register_fake
def _(
    upstream: Tensor,
    logits: Tensor,
    reference_logits: Tensor | None,
    tokens: Tensor,
    weights: Tensor,
    values: Tensor,
    scalars: Tensor,
) -> Tensor:
    return logits.new_empty(logits.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    logits, reference_logits, tokens, weights, _, _, _, _, offsets, scalars, _, _, needs_gradient = inputs
    _, totals, logp, gradient, values = output
    ctx.one_pass = _in_one_pass(logits, offsets, needs_gradient)
    if ctx.one_pass:
        ctx.save_for_backward(gradient)
    else:
        ctx.save_for_backward(logits, reference_logits, tokens, weights, values, scalars)
    # else backward would be given zeros, as large as the logits, for the outputs that have no gradient
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(totals, logp, gradient, values)


def _backward(ctx: Any, upstream: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
    if ctx.one_pass:
        gradient = scaled(ctx.saved_tensors[0], upstream)
    else:
        gradient = policy_loss_backward_op(upstream, *ctx.saved_tensors)
    return gradient, *(None for _ in range(12))


policy_loss_op.register_autograd(_backward, setup_context=_setup_context)
