"""FLOP of a model.

Convention: matrix products only, with a multiply and an add counting as two. Norms, activations, softmax, rotary angles
and the optimizer are excluded, as is the embedding lookup; the output head is included even if tied. Attention is
causal: position i reads i + 1 keys. A backward pass costs two forward passes; recomputation to save memory is not
counted.

Letters: P weights used in matrix products, T tokens, H query heads, D head dim, L length.
"""

from __future__ import annotations

import numpy as np

from .config import ModelConfig


def block_weights(config: ModelConfig) -> int:
    """Weights of all blocks that multiply every token: query, key, value, output, gate, up and down projections."""
    queries = config.num_attention_heads * config.head_dim
    keys_values = 2 * config.num_key_value_heads * config.head_dim
    attention = config.hidden_size * (2 * queries + keys_values)
    return config.num_hidden_layers * (attention + 3 * config.hidden_size * config.intermediate_size)


def head_weights(config: ModelConfig) -> int:
    """Weights of the output head; included even if tied, because the head is a matrix product."""
    return config.hidden_size * config.vocab_size


def forward_flop(
    config: ModelConfig, lengths: int | np.ndarray, num_logits: int | None = None, *, before: int | np.ndarray = 0
) -> float:
    """FLOP of one forward pass over packed sequences.

        2 block_weights T  +  2 head_weights num_logits  +  4 layers H D sum_s (l_s b_s + l_s (l_s + 1) / 2)

    Args:
        config: the shape of the model.
        lengths: l_s, integers [sequences], in tokens.
        num_logits: number of positions with logits; default: all T.
        before: b_s, tokens before each sequence whose keys are already there (a prompt); a number or [sequences].

    >>> config = ModelConfig.preset("100m")
    >>> round(forward_flop(config, 2048) / 2048 / 1e6, 1)
    244.0
    """
    length = np.atleast_1d(np.asarray(lengths, dtype=np.float64))
    tokens = float(length.sum())
    pairs = float((length * before + length * (length + 1) / 2).sum())
    attention = 4.0 * config.num_hidden_layers * config.num_attention_heads * config.head_dim * pairs
    logits = tokens if num_logits is None else num_logits
    return 2.0 * block_weights(config) * tokens + 2.0 * head_weights(config) * logits + attention


def train_flop(config: ModelConfig, lengths: int | np.ndarray, num_logits: int | None = None) -> float:
    """FLOP of a forward and a backward pass over packed documents: three times `forward_flop`."""
    return 3.0 * forward_flop(config, lengths, num_logits)


def train_flop_per_token(config: ModelConfig, length: int | None = None) -> float:
    """Training FLOP per token.

        6 P                                      without `length`: the rule of thumb, which ignores attention
        6 P + 6 * layers * H * D * (L + 1)       for documents of L tokens, with logits everywhere

    P = block_weights + head_weights, without norms and biases. The convention in which every position reads all L keys
    (PaLM's) doubles the second term: 845 instead of 732 MFLOP at 100m and 2,048 tokens.

    Source: Kaplan et al. 2020, arXiv:2001.08361, section 2.1; Chowdhery et al. 2022, arXiv:2204.02311, appendix B.

    >>> config = ModelConfig.preset("100m")
    >>> round(train_flop_per_token(config) / 1e6, 1), round(train_flop_per_token(config, 2048) / 1e6)
    (618.8, 732)
    """
    if length is None:
        return 6.0 * (block_weights(config) + head_weights(config))
    return train_flop(config, length) / length
