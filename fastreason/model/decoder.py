"""A Qwen2-compatible decoder on packed segments.

Pre-norm blocks with grouped-query attention (RoPE, biases on q, k and v only), SwiGLU and RMSNorm; the output head is
tied to the embedding or a separate matrix. The same forward pass is used for training, log-probabilities and the
prompts of a rollout; sampling/torch_backend.py continues it token by token.

Letters: T tokens, N selected tokens, V vocabulary, H query heads, K key-value heads, D head dim.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .. import ops
from ..kernels.segments import Segments
from ..runtime.arguments import integer, number
from ..runtime.field_docs import explain_fields

if TYPE_CHECKING:
    from ..text.tokenizer import Tokenizer


@explain_fields
@dataclass(frozen=True)
class ModelConfig:
    """The shape of a decoder, with the field names of Hugging Face's Qwen2 configuration."""

    vocab_size: int
    """Number of tokens in the vocabulary."""
    hidden_size: int = 64
    """Width of the residual stream."""
    num_hidden_layers: int = 4
    """Number of transformer blocks."""
    num_attention_heads: int = 4
    """Number of query heads."""
    num_key_value_heads: int = 2
    """Number of key-value heads; must divide num_attention_heads."""
    intermediate_size: int = 128
    """Width of the feed-forward layer."""
    rope_theta: float = 1_000_000.0
    """Base of the rotary angles."""
    rms_norm_eps: float = 1e-6
    """Epsilon added to the mean square in RMSNorm."""
    max_position_embeddings: int = 2048
    """Longest sequence in tokens, prompt plus completion."""
    head_dim: int = 0
    """Width of an attention head, even; 0: hidden_size / num_attention_heads, which replaces the 0."""
    tie_word_embeddings: bool = True
    """Whether the output head shares the weights of the embedding."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value, name = getattr(self, field.name), f"ModelConfig: {field.name}"
            if field.type == "int":
                value = integer(name, value, 0 if field.name == "head_dim" else 1)
            elif field.type == "float":
                value = number(name, value, 0, above_low=True)
            elif not isinstance(value, bool):
                raise ValueError(f"{name} must be True or False, got {value!r:.80}")
            object.__setattr__(self, field.name, value)
        if self.head_dim % 2:
            raise ValueError(f"ModelConfig: head_dim must be even and positive, or 0, got {self.head_dim}")
        if self.head_dim == 0:
            if self.hidden_size % (2 * self.num_attention_heads):
                raise ValueError(
                    "ModelConfig: without head_dim, hidden_size must be an even multiple of num_attention_heads, "
                    f"got {self.hidden_size} and {self.num_attention_heads}"
                )
            object.__setattr__(self, "head_dim", self.hidden_size // self.num_attention_heads)
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                "ModelConfig: num_attention_heads must be a multiple of num_key_value_heads, "
                f"got {self.num_attention_heads} and {self.num_key_value_heads}"
            )

    @classmethod
    def preset(cls, name: str, **overrides: Any) -> ModelConfig:
        """A named shape: `tiny` (0.17 M parameters, the quickstart), `10m` or `100m` (the paper); overrides replace fields.

        >>> fr.ModelConfig.preset("10m", vocab_size=500).hidden_size
        320
        """
        if name not in _PRESETS:
            raise ValueError(f"ModelConfig.preset: name must be one of {', '.join(_PRESETS)}, got {name!r}")
        return cls(**(_PRESETS[name] | overrides))

    @classmethod
    def from_pretrained(cls, path: str | Path) -> ModelConfig:
        """Reads the shape of a Qwen2 model from its Hugging Face folder or config.json.

        Raises:
            ValueError: the file is missing or damaged, or asks for something that the decoder does not support.
        """
        from .hugging_face import load_config

        return load_config(path)


_PRESETS: dict[str, dict[str, Any]] = {
    "tiny": dict(vocab_size=300, rope_theta=1000.0, max_position_embeddings=512),
    "10m": dict(
        vocab_size=2200,
        hidden_size=320,
        num_hidden_layers=8,
        num_attention_heads=5,
        num_key_value_heads=1,
        intermediate_size=1024,
    ),
    "100m": dict(
        vocab_size=2200,
        hidden_size=768,
        num_hidden_layers=12,
        num_attention_heads=12,
        num_key_value_heads=2,
        intermediate_size=3072,
    ),
}


class Linear(nn.Linear):
    """torch's linear layer, using the faster of the available libraries."""

    def forward(self, x: Tensor) -> Tensor:
        return ops.linear(x, self.weight, self.bias)


class Block(nn.Module):
    """x + attention(norm(x)), then x + feed-forward(norm(x)). Projections of the same input are one matrix."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, heads, kv_heads, dim = (
            config.hidden_size,
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim,
        )
        self.eps = config.rms_norm_eps
        self.num_heads, self.num_kv_heads, self.head_dim = heads, kv_heads, dim
        self.attention_norm = nn.Parameter(torch.ones(width))
        self.qkv = Linear(width, (heads + 2 * kv_heads) * dim)
        self.out = Linear(heads * dim, width, bias=False)
        self.mlp_norm = nn.Parameter(torch.ones(width))
        self.gate_up = Linear(width, 2 * config.intermediate_size, bias=False)
        self.down = Linear(config.intermediate_size, width, bias=False)

    def project(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rotated queries and keys, and values: [T, H, D], [T, K, D], [T, K, D]."""
        h = ops.rms_norm(x, self.attention_norm, self.eps)
        qkv = self.qkv(h).unflatten(-1, (-1, self.head_dim))
        qk, v = qkv.split([self.num_heads + self.num_kv_heads, self.num_kv_heads], dim=1)
        q, k = ops.rope(qk, cos, sin).split([self.num_heads, self.num_kv_heads], dim=1)
        return q, k, v

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, segments: Segments) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The block's output on packed segments, with its keys and values. FSDP gathers the weights around this call."""
        q, k, v = self.project(x, cos, sin)
        return self.mix(x, ops.attention(q, k, v, segments)), (k, v)

    def mix(self, x: Tensor, attended: Tensor) -> Tensor:
        """The rest of the block, given the output of attention."""
        x = x + self.out(attended.flatten(1))
        h = ops.rms_norm(x, self.mlp_norm, self.eps)
        return x + self.down(ops.swiglu(self.gate_up(h)))


class Decoder(nn.Module):
    """A Qwen2-compatible decoder: token ids in, hidden states or logits out.

    Args:
        config: the shape. Call `reset_parameters(seed)` for reproducible initial weights.

    >>> model = Decoder(ModelConfig.preset("tiny"))
    >>> tokens, segments = torch.tensor([5, 6, 7, 5, 8]), Segments.from_lengths([3, 2])
    >>> model.logits(model(tokens, segments)).shape
    torch.Size([5, 300])
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.blocks: Sequence[Block] = nn.ModuleList(Block(config) for _ in range(config.num_hidden_layers))  # type: ignore[assignment]
        self.final_norm = nn.Parameter(torch.ones(config.hidden_size))
        tied = config.tie_word_embeddings
        self.head = None if tied else nn.Linear(config.hidden_size, config.vocab_size, bias=False)

    def __repr__(self) -> str:
        weight, config = self.embedding.weight, self.config
        return (
            f"Decoder({self.num_parameters:,} parameters: {config.num_hidden_layers} blocks of width "
            f"{config.hidden_size}, {config.vocab_size:,} tokens; {str(weight.dtype).removeprefix('torch.')} on "
            f"{weight.device})"
        )

    def reset_parameters(self, seed: int) -> None:
        """Initializes all weights as a pure function of config and seed (on one platform).

        Matrices are drawn with standard deviation fan_in ** -0.5, the embedding and an untied head with 0.02; the two
        projections back into the residual stream are zero, so that every block starts as the identity.
        """
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in self.named_parameters():
            with torch.no_grad():
                if name.endswith("norm"):
                    parameter.fill_(1.0)
                elif name.endswith(("bias", "out.weight", "down.weight")):
                    parameter.zero_()
                else:
                    std = 0.02 if name in ("embedding.weight", "head.weight") else parameter.shape[1] ** -0.5
                    parameter.copy_(torch.randn(parameter.shape, generator=generator) * std)

    @classmethod
    def from_pretrained(cls, folder: str | Path, dtype: torch.dtype = torch.float32) -> Decoder:
        """Loads a Hugging Face folder, written by fastreason or of any Qwen2 model.

        Args:
            folder: with config.json and model.safetensors (or an index of several files).
            dtype: of the loaded weights, whatever dtype is stored.
        Raises:
            ValueError: a file is missing or damaged, or the model is not supported; the message names file and field.
        """
        from .hugging_face import load_model

        return load_model(folder, dtype)

    def save_pretrained(self, folder: str | Path, tokenizer: Tokenizer | None = None) -> None:
        """Writes a Hugging Face folder: config.json, model.safetensors and, if given, the tokenizer's files."""
        from .hugging_face import save_model

        Path(folder).mkdir(parents=True, exist_ok=True)
        save_model(self, folder, tokenizer)

    @property
    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())

    def forward(self, tokens_T: Tensor, segments: Segments) -> Tensor:
        """Hidden states after the final norm: [T, hidden_size].

        Args:
            tokens_T: token ids, integers [T].
            segments: their layout, `num_tokens` = T.
        """
        return self.prefill(tokens_T, segments)[0]

    def prefill(self, tokens_T: Tensor, segments: Segments) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Hidden states as in `forward`, and the keys and values [T, K, D] of every layer."""
        x = self.embedding(tokens_T)
        cos, sin = self.rope_angles(segments.positions.to(x.device), x)
        keys_values = []
        for block in self.blocks:
            x, kv = block(x, cos, sin, segments)
            keys_values.append(kv)
        return ops.rms_norm(x, self.final_norm, self.config.rms_norm_eps), keys_values

    def rope_angles(self, positions_T: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """cos and sin of the positions in the dtype of matrix products, not that of x under torch.autocast."""
        device = x.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
        return ops.rope_angles(positions_T, self.config.head_dim, self.config.rope_theta, dtype)

    def logits(self, hidden_ND: Tensor) -> Tensor:
        """Logits [N, V] from hidden states [N, hidden_size]."""
        head = self.embedding if self.head is None else self.head
        return ops.linear(hidden_ND, head.weight)
