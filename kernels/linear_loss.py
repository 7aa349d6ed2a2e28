"""Losses of hidden states and the output matrix, without holding all logits: chunks of rows, one at a time.

    logits[n, v] = sum_k hidden[n, k] weight[v, k]

then `cross_entropy` or `policy_loss` of them. Every chunk's logits, loss and gradient are computed in the forward pass,
and its logits are forgotten:

    dhidden[n] = sum_v dlogits[n, v] weight[v];   dweight = sum over chunks of dlogits^T hidden

Letters:    N rows (tokens), K width, V vocabulary, S sequences.
Numerics:   products as in linear.py, losses as in their files; dweight is summed over chunks in the dtype of the
            weight, in order.
Memory:     2 chunks of logits, at most `_CHUNK_LOGITS` each, and dhidden and dweight, where plain logits and their
            gradient take 2 N V; at N = 65,536 and V = 151,936 in bf16 1 GB in place of 40.
Traffic:    that of the loss, and dweight is read and written once a chunk.
Source:     Hsu et al. 2024, arXiv:2410.10989 (Liger Kernel), section 3.2.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from .cross_entropy import checked_shares, share_weighted
from .linear import linear
from .logit_rows import scaled
from .policy_loss import Kind, KLEstimator, PolicyLoss, policy_loss
from .policy_loss_triton import NUM_SUMS

__all__ = ["LARGE_VOCABULARY", "linear_cross_entropy", "linear_policy_loss"]

# From here on the decoder's loss in training takes these functions: 65,536 tokens have 4 GB of logits in bf16, beside
# 25 GB of activations of a model of width 768 with 12 layers.
LARGE_VOCABULARY = 32_768
# logits of a chunk: on a GPU 256 MB in bf16, which 900 rows of 151,936 fill; on CPU 16 MB in float32, what a cache of
# the second or third level holds: so the policy loss of 256 x 62 tokens at V = 2,353 takes 0.44 s of CPU, 0.73 s all at
# once
_CHUNK_LOGITS = {"cuda": 2**27, "cpu": 2**22}

Loss = tuple[Tensor, ...]  # a scalar, and what else a chunk gives, without gradient


def linear_cross_entropy(
    hidden_NK: Tensor,
    weight_VK: Tensor,
    labels_N: Tensor,
    weights_N: Tensor | None = None,
    *,
    ignore_index: int = -100,
    z_loss: float = 0.0,
    are_shares: bool = False,
    narrow_VK: Tensor | None = None,
) -> Tensor:
    """`cross_entropy(hidden weight^T, ...)` in chunks of rows.

    Args:
        hidden_NK: floating point [N, K].
        weight_VK: [V, K], dtype of hidden unless `narrow_VK` is given.
        labels_N, weights_N, ignore_index, z_loss, are_shares: as for `cross_entropy`. Rows of weight 0 get exactly 0.
        narrow_VK: a copy of the weight in 16 bits, which is multiplied in its place (see `linear`).
    Returns:
        Scalar in float32 (float64 for float64 logits); 0 if all weights are 0.
    Raises:
        ValueError: shapes, dtypes or devices do not match, or z_loss is negative.
        RuntimeError: a second backward.
    """
    _check("linear_cross_entropy", hidden_NK, weight_VK, narrow_VK)
    shares_N = checked_shares(
        "linear_cross_entropy", hidden_NK, len(weight_VK), labels_N, weights_N, ignore_index, z_loss, are_shares
    )

    def loss_of(logits: Tensor, rows: slice) -> Loss:
        return (share_weighted(logits, labels_N[rows], shares_N[rows], z_loss),)

    chunks = _even_chunks(len(hidden_NK), len(weight_VK), hidden_NK.device)
    if not chunks:
        return hidden_NK.sum().to(shares_N.dtype)
    return _over_chunks(hidden_NK, weight_VK, narrow_VK, chunks, loss_of)[0]


def linear_policy_loss(
    hidden_NK: Tensor,
    weight_VK: Tensor,
    tokens_N: Tensor,
    advantages_N: Tensor,
    weights_N: Tensor | None = None,
    *,
    old_logprobs_N: Tensor | None = None,
    importance_N: Tensor | None = None,
    reference_logprobs_N: Tensor | None = None,
    reference_hidden_NK: Tensor | None = None,
    reference_weight_VK: Tensor | None = None,
    sequence_offsets_S: Tensor | None = None,
    kind: Kind = "grpo",
    temperature: float = 1.0,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    clip_dual: float = math.inf,
    kl: KLEstimator = "k3",
    kl_coef: float = 0.0,
    entropy_coef: float = 0.0,
    narrow_VK: Tensor | None = None,
) -> PolicyLoss:
    """`policy_loss(hidden weight^T, ...)` in chunks of rows; with gspo in chunks of whole sequences.

    Args:
        hidden_NK, weight_VK, narrow_VK: as for `linear_cross_entropy`.
        reference_hidden_NK, reference_weight_VK: of the reference model, for the exact KL, in place of its logits.
        sequence_offsets_S: as for `policy_loss`; the host reads them, and waits for them on a GPU.
        tokens_N, ..., entropy_coef: all others as for `policy_loss`.
    Raises:
        ValueError: as for `policy_loss`, or hidden states and weights do not match.
        RuntimeError: a second backward.
    """
    _check("linear_policy_loss", hidden_NK, weight_VK, narrow_VK)
    if (reference_hidden_NK is None) != (reference_weight_VK is None):
        raise ValueError("linear_policy_loss: reference_hidden and reference_weight must be given together")
    if reference_hidden_NK is not None and reference_weight_VK is not None:
        _check("linear_policy_loss, reference", reference_hidden_NK, reference_weight_VK, None)
    N = len(hidden_NK)
    if weights_N is None:
        weights_N = torch.full((N,), 1.0 / max(1, N), device=hidden_NK.device)
    vectors = {
        "tokens_N": tokens_N, "advantages_N": advantages_N, "weights_N": weights_N, "old_logprobs_N": old_logprobs_N,
        "importance_N": importance_N, "reference_logprobs_N": reference_logprobs_N,
    }  # fmt: skip
    for name, x in vectors.items():
        if x is not None and x.shape != (N,):
            raise ValueError(f"linear_policy_loss: {name} must be [N] = ({N},), got {tuple(x.shape)}")
    if (kind == "gspo") != (sequence_offsets_S is not None):
        raise ValueError("linear_policy_loss: sequence offsets must be given with kind 'gspo' and only with it")
    borders = [] if sequence_offsets_S is None else sequence_offsets_S.tolist()
    if borders and borders[-1] != N:
        raise ValueError(f"linear_policy_loss: sequence offsets must end at N = {N}, got {borders[-1]}")
    cut = _even_chunks if sequence_offsets_S is None else functools.partial(_sequence_chunks, borders)
    chunks = cut(N, len(weight_VK), hidden_NK.device)

    def loss_of(logits: Tensor, rows: slice) -> Loss:
        reference = None
        if reference_hidden_NK is not None and reference_weight_VK is not None:
            with torch.no_grad():
                reference = linear(reference_hidden_NK[rows], reference_weight_VK)
        offsets = None
        if borders:
            of_chunk = [border - rows.start for border in borders if rows.start <= border <= rows.stop]
            offsets = torch.tensor(of_chunk, device=logits.device)
        result = policy_loss(
            logits, **{name: None if x is None else x[rows] for name, x in vectors.items()},  # type: ignore[arg-type]
            reference_logits_NV=reference, sequence_offsets_S=offsets, kind=kind, temperature=temperature,
            clip_low=clip_low, clip_high=clip_high, clip_dual=clip_dual, kl=kl, kl_coef=kl_coef,
            entropy_coef=entropy_coef,
        )  # fmt: skip
        return result.loss, result.logprobs_N, result.totals_K

    if not chunks:
        raise ValueError(f"linear_policy_loss: need hidden [N, K] with N >= 1, got {tuple(hidden_NK.shape)}")
    loss, of_chunks = _over_chunks(hidden_NK, weight_VK, narrow_VK, chunks, loss_of)
    totals = torch.stack([totals for _, totals in of_chunks])
    joined = torch.cat([totals[:, :NUM_SUMS].sum(0), totals[:, NUM_SUMS:].amax(0)])
    return PolicyLoss(loss, torch.cat([logprobs for logprobs, _ in of_chunks]), joined)


def _check(name: str, hidden: Tensor, weight: Tensor, narrow: Tensor | None) -> None:
    if hidden.ndim != 2 or weight.ndim != 2 or hidden.shape[1] != weight.shape[1] or not len(weight):
        raise ValueError(
            f"{name}: need hidden [N, K] and weight [V, K] with V >= 1, got {tuple(hidden.shape)} and "
            f"{tuple(weight.shape)}"
        )
    if (
        not hidden.is_floating_point()
        or hidden.device != weight.device
        or (narrow is None and hidden.dtype != weight.dtype)
    ):
        raise ValueError(
            f"{name}: hidden and weight need one floating dtype and device, got {hidden.dtype} on {hidden.device} and "
            f"{weight.dtype} on {weight.device}"
        )
    if narrow is not None and (narrow.shape != weight.shape or narrow.device != weight.device):
        raise ValueError(
            f"{name}: narrow must be like weight, {tuple(weight.shape)} on {weight.device}, got "
            f"{tuple(narrow.shape)} on {narrow.device}"
        )


def chunk_rows(vocabulary: int, device: torch.device) -> int:
    """Rows whose logits are a chunk on this device; at least 1."""
    return max(1, _CHUNK_LOGITS["cpu" if device.type == "cpu" else "cuda"] // vocabulary)


def _even_chunks(rows: int, vocabulary: int, device: torch.device) -> list[slice]:
    """As few chunks as hold the rows, of equal size up to one."""
    count = -(-rows // chunk_rows(vocabulary, device))
    borders = [i * rows // count for i in range(count + 1)] if count else []
    return [slice(begin, end) for begin, end in pairwise(borders)]


def _sequence_chunks(offsets: Sequence[int], rows: int, vocabulary: int, device: torch.device) -> list[slice]:
    """Chunks of whole sequences, of one alone that is too long."""
    size, borders = chunk_rows(vocabulary, device), [0]
    for end, following in pairwise([*offsets[1:], math.inf]):
        if end > borders[-1] and following - borders[-1] > size:
            borders.append(int(end))
    return [slice(begin, end) for begin, end in pairwise(borders)]


def _over_chunks(
    hidden: Tensor,
    weight: Tensor,
    narrow: Tensor | None,
    chunks: Sequence[slice],
    loss_of: Callable[[Tensor, slice], Loss],
) -> tuple[Tensor, list[Loss]]:
    """The sum of the chunks' losses, with gradient, and what else each chunk gave."""
    others: list[Loss] = []
    loss = _Chunks.apply(hidden, weight, narrow, chunks, loss_of, others, torch.is_grad_enabled())
    return loss, others


class _Chunks(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, narrow: Tensor | None, chunks: Sequence[slice],
        loss_of: Callable[[Tensor, slice], Loss], others: list[Loss], has_gradient: bool,
    ) -> Tensor:  # fmt: skip
        wanted = tuple(has_gradient and wants for wants in ctx.needs_input_grad[:2])
        total, dhidden = None, torch.empty_like(hidden) if wanted[0] else None
        matrix, dweight = weight.detach().requires_grad_(wanted[1]), torch.zeros_like(weight) if wanted[1] else None
        for rows in chunks:
            with torch.set_grad_enabled(any(wanted)):
                piece = hidden[rows].detach().requires_grad_(wanted[0])
                logits = linear(piece, matrix, narrow=None if narrow is None else (narrow, None))
                loss, *rest = loss_of(logits, rows)
            others.append(tuple(rest))
            total = loss.detach() if total is None else total + loss.detach()
            if any(wanted):
                leaves = [leaf for leaf, wants in ((piece, wanted[0]), (matrix, wanted[1])) if wants]
                gradients = list(torch.autograd.grad(loss, leaves))
                if dhidden is not None:
                    dhidden[rows] = gradients.pop(0)
                if dweight is not None:
                    dweight += gradients.pop(0)
            del logits, loss  # before those of the next chunk are made
        ctx.save_for_backward(dhidden, dweight)
        assert total is not None
        return total

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        dhidden, dweight = (None if x is None else _times(x, upstream) for x in ctx.saved_tensors)
        return dhidden, dweight, None, None, None, None, None


def _times(x: Tensor, upstream: Tensor) -> Tensor:
    """x itself where the loss is differentiated alone, as by loss.backward()."""
    if x.device.type != "cpu":
        return scaled(x, upstream)
    return x if upstream == 1.0 else x * upstream
