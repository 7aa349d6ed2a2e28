"""Keys and values of sequences in decoding, and the step that adds one token to each.

Letters: P prompts of up to L tokens, N = P * G sequences, K key-value heads, D head dim.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from . import ops
from .model import Decoder


@dataclass
class KVCache:
    """Keys and values of N sequences in decoding: shared prefixes, and what each sequence added.

    Args:
        prefix: per layer (keys, values) [P, K, L, D] of the P prompts.
        prefix_padding: bool [P, L], True where a prompt has no token; None if all have the same length.
        prefix_length: int64 [P].
        own: per layer (keys, values) [N, K, max new tokens, D].
        length: how many positions of `own` are filled, the same for all sequences.
    """

    prefix: list[tuple[Tensor, Tensor]]
    prefix_padding: Tensor | None
    prefix_length: Tensor
    own: list[tuple[Tensor, Tensor]]
    length: int = 0


def decode_step(model: Decoder, tokens_N: Tensor, cache: KVCache) -> Tensor:
    """Hidden states of one new token for every sequence: [N, hidden_size]; the cache grows by it."""
    x = model.embedding(tokens_N)
    at, config = cache.length, model.config
    positions = (cache.prefix_length + at).repeat_interleave(len(tokens_N) // len(cache.prefix_length))
    cos, sin = ops.rope_angles(positions, config.head_dim, config.rope_theta, x.dtype)
    for block, (prefix_k, prefix_v), (own_k, own_v) in zip(model.blocks, cache.prefix, cache.own, strict=True):
        q, k, v = block.project(x, cos, sin)
        own_k[:, :, at], own_v[:, :, at] = k, v
        attended = ops.decode_attention(
            q, prefix_k, prefix_v, cache.prefix_padding, own_k[:, :, : at + 1], own_v[:, :, : at + 1]
        )
        x = block.mix(x, attended)
    cache.length += 1
    return ops.rms_norm(x, model.final_norm, config.rms_norm_eps)
