"""Causal attention over segments, grouped queries, prefixes shared without a copy per member.

    o[t, h] = sum_u softmax_u(scale * q[t, h] . k[u, h // g]) v[u, h // g]

over the tokens u of t's prefix and of t's own segment up to t itself; g = H / K query heads use one key-value head.

Letters:    T tokens, H query heads, K key-value heads, D head dim; rectangles of B segments of L padded tokens that see
            S keys; P prefixes.
Numerics:   torch's scaled_dot_product_attention in the input dtype; float64 in, float64 out.
Traffic:    q, k, v and o are gathered to and from padded rectangles once, the keys and values of a prefix once more per
            segment that sees it; a mask exists per rectangle, never [T, T].
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .segments import Rectangle, Segments

__all__ = ["attention", "decode_attention"]


def attention(q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor, segments: Segments, *, scale: float | None = None) -> Tensor:
    """Attention of every token to its prefix and to its own segment up to itself.

    Args:
        q_THD, k_TKD, v_TKD: floating point, one dtype and device; H a multiple of K.
        segments: the layout; T must be segments.num_tokens.
        scale: of the scores; default D ** -0.5.
    Returns:
        [T, H, D], the dtype of q; zeros for tokens outside every segment.
    Raises:
        ValueError: shapes or dtypes do not fit together.
    """
    _check(q_THD, k_TKD, v_TKD, segments)
    scale = q_THD.shape[-1] ** -0.5 if scale is None else scale
    plan = segments.plan
    rectangles = [bucket.rectangle for bucket in plan.buckets]
    queries, keys, values = (_cut(plan.rows.gather(x), rectangles) for x in (q_THD, k_TKD, v_TKD))
    if plan.prefix_rows is not None and plan.prefixes is not None:
        prefix_k, prefix_v = (_cut(plan.prefix_rows.gather(x), [plan.prefixes])[0] for x in (k_TKD, v_TKD))
    outputs = []
    for bucket, q, k, v in zip(plan.buckets, queries, keys, values, strict=True):
        mask = None
        if bucket.prefix is not None and bucket.hidden is not None:
            row = bucket.prefix.to(q.device)
            k = torch.cat([prefix_k.index_select(0, row), k], dim=1)
            v = torch.cat([prefix_v.index_select(0, row), v], dim=1)
            mask = torch.zeros(bucket.hidden.shape, dtype=q.dtype).masked_fill_(bucket.hidden, float("-inf"))
            mask = mask[:, None].to(q.device)
        outputs.append(_attend(q, k, v, mask, scale).flatten(0, 1))
    return plan.rows.scatter(torch.cat(outputs) if len(outputs) > 1 else outputs[0])


def decode_attention(
    q_NHD: Tensor,
    prefix_k_PKLD: Tensor,
    prefix_v_PKLD: Tensor,
    prefix_padding_PL: Tensor | None,
    own_k_NKLD: Tensor,
    own_v_NKLD: Tensor,
    *,
    scale: float | None = None,
) -> Tensor:
    """One new token for each of N = P * G sequences: its group's shared prefix, and its own tokens so far.

    Args:
        q_NHD: queries, the G sequences of a prefix next to each other.
        prefix_k_PKLD, prefix_v_PKLD: keys and values of the prefixes, read once for all members of a group.
        prefix_padding_PL: bool, True where a prefix has no token; None if all have the same length.
        own_k_NKLD, own_v_NKLD: keys and values of each sequence, its new token included.
        scale: of the scores; default D ** -0.5.
    Returns:
        [N, H, D], the dtype of q.
    """
    N, H, D = q_NHD.shape
    P, K = prefix_k_PKLD.shape[:2]
    scale = D**-0.5 if scale is None else scale
    q = (q_NHD * scale).view(N, K, H // K, D)
    # [P, K, G * g, D]: all queries of a group against its prefix in one matrix product
    grouped = q.view(P, N // P, K, H // K, D).transpose(1, 2).reshape(P, K, -1, D)
    scores_prefix = grouped @ prefix_k_PKLD.transpose(2, 3)
    if prefix_padding_PL is not None:
        scores_prefix = scores_prefix.masked_fill_(prefix_padding_PL[:, None, None], float("-inf"))
    scores_own = q @ own_k_NKLD.transpose(2, 3)
    length = scores_prefix.shape[-1]
    scores_prefix = scores_prefix.view(P, K, N // P, H // K, length).transpose(1, 2).reshape(N, K, H // K, length)
    weights = torch.cat([scores_prefix, scores_own], dim=-1).softmax(-1)
    weights_prefix = weights[..., :length].view(P, N // P, K, H // K, length).transpose(1, 2).reshape(P, K, -1, length)
    o = weights[..., length:] @ own_v_NKLD
    o_prefix = (weights_prefix @ prefix_v_PKLD).view(P, K, N // P, H // K, D).transpose(1, 2)
    return (o + o_prefix.reshape(N, K, H // K, D)).view(N, H, D)


def _cut(padded_RHD: Tensor, rectangles: Sequence[Rectangle]) -> list[Tensor]:
    """The rectangles [B, L, H, D]. One split, not a slice each: the gradient of a slice is as large as the whole."""
    parts = padded_RHD.split([rectangle.count * rectangle.length for rectangle in rectangles])
    return [part.unflatten(0, (r.count, r.length)) for part, r in zip(parts, rectangles, strict=True)]


def _check(q: Tensor, k: Tensor, v: Tensor, segments: Segments) -> None:
    fits = q.ndim == 3 and k.ndim == 3 and k.shape == v.shape and k.shape[::2] == q.shape[::2]
    if not fits or q.shape[1] % k.shape[1] or q.shape[0] != segments.num_tokens:
        raise ValueError(
            f"attention: need q [T, H, D], k and v [T, K, D] with T = {segments.num_tokens} and H a multiple of K, "
            f"got {tuple(q.shape)}, {tuple(k.shape)} and {tuple(v.shape)}"
        )
    if not q.is_floating_point() or q.dtype != k.dtype or q.dtype != v.dtype:
        raise ValueError(f"attention: q, k and v need one floating dtype, got {q.dtype}, {k.dtype} and {v.dtype}")


def _attend(q_BLHD: Tensor, k_BSKD: Tensor, v_BSKD: Tensor, mask_B1LS: Tensor | None, scale: float) -> Tensor:
    # a padding row sees itself, so its softmax is finite, and nothing reads it
    o = F.scaled_dot_product_attention(
        q_BLHD.transpose(1, 2),
        k_BSKD.transpose(1, 2),
        v_BSKD.transpose(1, 2),
        attn_mask=mask_B1LS,
        is_causal=mask_B1LS is None,
        scale=scale,
        enable_gqa=q_BLHD.shape[2] != k_BSKD.shape[2],
    )
    return o.transpose(1, 2)
