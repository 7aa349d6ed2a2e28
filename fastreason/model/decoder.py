"""A Qwen2-compatible decoder on packed segments.

Pre-norm blocks with grouped-query attention (RoPE, biases on q, k and v only), SwiGLU and RMSNorm; the output head is
tied to the embedding or a separate matrix. The same forward pass is used for training, log-probabilities and the
prompts of a rollout; sampling/device_decoding.py continues it token by token.

Letters: T tokens, N selected tokens, V vocabulary, H query heads, K key-value heads, D head dim.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .. import kernels
from ..kernels.attention import send
from ..kernels.linear_loss import LARGE_VOCABULARY
from ..kernels.rms_norm import branch_norm
from ..kernels.rms_norm import spread as spread_norms
from ..kernels.rope_attention import spread_biases
from ..kernels.segments import Segments
from ..kernels.triton_support import runs_triton
from ..runtime.distributed import world_size
from ..runtime.json_files import read_json, to_json
from ..runtime.model_names import model_folder
from ..runtime.tensor_files import write_tensors
from ..text.tokenizer import Tokenizer
from .config import ModelConfig, config_from_hf
from .hugging_face import EMBEDDING, HEAD, MODEL_CARD, checked_weights, read_weights, special_ids, write_json

Spread = tuple[Tensor, Tensor, Tensor | None]
"""Weights of a block that gradients are summed of for all blocks at once: its two norms, and the bias of qkv."""


class Linear(nn.Linear):
    """torch's linear layer, using the faster of the available libraries.

    Attributes:
        narrow: copies of weight and bias to be multiplied in their place, while precision.cast_once lends them.
    """

    narrow: tuple[Tensor, Tensor | None] | None = None

    def forward(self, x: Tensor, bias_learns: bool = True) -> Tensor:
        """x w^T + b; the bias gets its gradient elsewhere if it does not learn here, where `narrow` is lent."""
        return kernels.linear(x, self.weight, self.bias if bias_learns else None, narrow=self.narrow)


class Block(nn.Module):
    """x + attention(norm(x)), then x + feed-forward(norm(x)). Projections of the same input are one matrix.

    Blocks hand on the residual stream and, apart, what the last feed-forward adds to it: the addition is fused with the
    norm that follows it, which is the next block's.
    """

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

    def project(
        self, x: Tensor, added: Tensor | None, cos: Tensor, sin: Tensor
    ) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
        """Rotated queries and keys, and values, [T, H, D], [T, K, D], [T, K, D]; and the residual stream, x + added."""
        h, x = _add_norm(x, added, self.attention_norm, self.eps)
        qkv = self.qkv(h).unflatten(-1, (-1, self.head_dim))
        qk, v = qkv.split([self.num_heads + self.num_kv_heads, self.num_kv_heads], dim=1)
        q, k = kernels.rope(qk, cos, sin).split([self.num_heads, self.num_kv_heads], dim=1)
        return (q, k, v), x

    def forward(
        self,
        x: Tensor,
        added: Tensor | None,
        cos: Tensor,
        sin: Tensor,
        segments: Segments,
        spread: Spread | None = None,
    ) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
        """On packed segments: the residual stream, what is to be added to it, and keys and values, without gradient.
        FSDP gathers the weights around this call. `spread` stands for weights of the block, if given."""
        attention_norm, mlp_norm, bias = spread or (self.attention_norm, self.mlp_norm, None)
        if added is None and self.qkv.narrow is not None and runs_triton(x):
            h, x = branch_norm(x, attention_norm, self.eps, self.qkv.narrow[0].dtype)
        else:
            h, x = _add_norm(x, added, attention_norm, self.eps)
        attended, k, v = kernels.rope_attention(
            self.qkv(h, bias is None), cos, sin, segments, heads=self.num_heads, kv_heads=self.num_kv_heads,
            bias_RW=bias,
        )  # fmt: skip
        return *self.mix(x, attended, mlp_norm), (k, v)

    def mix(self, x: Tensor, attended: Tensor, mlp_norm: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The rest of the block, given the output of attention: the residual stream, and what is to be added to it."""
        h, x = _add_norm(x, self.out(attended.flatten(1)), self.mlp_norm if mlp_norm is None else mlp_norm, self.eps)
        return x, self.down(kernels.swiglu(self.gate_up(h)))


def _add_norm(x: Tensor, added: Tensor | None, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """The norm of x + added, and x + added; the first block adds nothing."""
    if added is None:
        return kernels.rms_norm(x, weight, eps), x
    return kernels.add_rms_norm(added, x, weight, eps)


class Decoder(nn.Module):
    """A Qwen2-compatible decoder: token ids in, hidden states or logits out.

    Args:
        config: the shape. Call `reset_parameters(seed)` for reproducible initial weights.
    Attributes:
        narrow_head: a copy of the head's matrix to be multiplied in its place, while precision.cast_once lends it.
        checkpoint_activations: whether a block keeps for its gradient only what it was given, and computes the rest
            again in the backward pass: a third more computation for a fraction of the memory; the same bits.

    >>> model = Decoder(ModelConfig.preset("tiny"))
    >>> tokens, segments = torch.tensor([5, 6, 7, 5, 8]), Segments.from_lengths([3, 2])
    >>> model.logits(model(tokens, segments)).shape
    torch.Size([5, 300])
    """

    narrow_head: Tensor | None = None
    checkpoint_activations: bool = False
    _angles: tuple[tuple[torch.device, torch.dtype], Tensor] | None = None

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
            folder: with config.json and model.safetensors (or an index of several files); or the name of a model that
                ships, "fastreason/tiny-base"; or "hf://OWNER/NAME" on the Hub.
            dtype: of the loaded weights, whatever dtype is stored.
        Raises:
            ValueError: a file is missing or damaged, or the model is not supported; the message names file and field.
        """
        return load_model(model_folder(folder), dtype)

    def save_pretrained(self, folder: str | Path, tokenizer: Tokenizer | None = None) -> None:
        """Writes a Hugging Face folder: config.json, model.safetensors and, if given, the tokenizer's files."""

        Path(folder).mkdir(parents=True, exist_ok=True)
        save_model(self, folder, tokenizer)

    @property
    def num_parameters(self) -> int:
        """Number of weights, a tied head counted once."""
        return sum(parameter.numel() for parameter in self.parameters())

    def forward(self, tokens_T: Tensor, segments: Segments, each_once: bool = False) -> Tensor:
        """Hidden states after the final norm: [T, hidden_size].

        Args:
            tokens_T: token ids, integers [T].
            segments: their layout, `num_tokens` = T.
            each_once: whether no hidden state gets more than one gradient. On a GPU they then have the dtype of matrix
                products, to which they are cast anyway.
        """
        return self.prefill(tokens_T, segments, each_once)[0]

    def prefill(
        self, tokens_T: Tensor, segments: Segments, each_once: bool = False
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Hidden states as in `forward`, and the keys and values [T, K, D] of every layer, without gradient."""
        x = self.embedding(tokens_T)
        cos, sin = self._angles_of(segments, x)
        keys_values, added = [], None
        spread, final_norm = self._spread(x, segments)
        recomputes = self.checkpoint_activations and torch.is_grad_enabled()
        for block, of_block in zip(self.blocks, spread, strict=True):
            given = (x, added, cos, sin, segments, of_block)
            # nothing in a block is random
            x, added, kv = (
                checkpoint(block, *given, use_reentrant=False, preserve_rng_state=False)
                if recomputes
                else block(*given)
            )
            keys_values.append(kv)
        if each_once and added is not None and self.narrow_head is not None and runs_triton(x):
            return kernels.add_rms_norm(added, x, final_norm, self.config.rms_norm_eps)[0], keys_values
        return self.last_norm(x, added, final_norm), keys_values

    def last_norm(self, x: Tensor, added: Tensor | None, weight: Tensor | None = None) -> Tensor:
        """Hidden states, from what the last block hands on; in the dtype of the residual stream, which sums of their
        gradients need."""
        weight = self.final_norm if weight is None else weight
        return kernels.rms_norm(x if added is None else x + added, weight, self.config.rms_norm_eps)

    def _spread(self, x: Tensor, segments: Segments) -> tuple[Sequence[Spread | None], Tensor]:
        """What blocks take as `spread`, and the weight of the last norm: in training on one GPU, where the gradients of
        norms, and of biases in 16 bits, are then summed at once. On several, gradients are exchanged while others are
        computed, so none may wait for the last one, and FSDP gathers weights block by block."""
        trains = torch.is_grad_enabled() and runs_triton(x) and not torch.compiler.is_compiling()
        if not trains or world_size() > 1 or self.final_norm.dtype != torch.float32:
            return [None] * len(self.blocks), self.final_norm
        norms = [norm for block in self.blocks for norm in (block.attention_norm, block.mlp_norm)]
        *of_blocks, last = spread_norms([*norms, self.final_norm])
        biases: Sequence[Tensor | None] | None = None
        if self.narrow_head is not None:
            like, config = x.new_empty(0, dtype=self.narrow_head.dtype), self.config
            biases = spread_biases(
                [block.qkv.bias for block in self.blocks], like, segments, heads=config.num_attention_heads,
                kv_heads=config.num_key_value_heads,
            )  # fmt: skip
        return list(zip(of_blocks[::2], of_blocks[1::2], biases or [None] * len(self.blocks), strict=True)), last

    def send(self, segments: Segments, *tensors: Tensor) -> list[Tensor]:
        """Tensors of a batch on the device of the weights; what the blocks need of its layout is copied with them."""
        config, weight = self.config, self.embedding.weight
        like = weight.new_empty(0, dtype=self._product_dtype(weight))
        return send(
            segments, tensors, like, heads=config.num_attention_heads, kv_heads=config.num_key_value_heads,
            head_dim=config.head_dim,
        )  # fmt: skip

    def _product_dtype(self, x: Tensor) -> torch.dtype:
        """The dtype of matrix products, which with copies of the weights or under torch.autocast is not that of x."""
        if self.narrow_head is not None:
            return self.narrow_head.dtype
        device = x.device.type
        return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype

    def rope_angles(self, positions_T: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """cos and sin of the positions in the dtype of matrix products."""
        dtype = self._product_dtype(x)
        return kernels.rope_angles(positions_T, self.config.head_dim, self.config.rope_theta, dtype)

    def _angles_of(self, segments: Segments, x: Tensor) -> tuple[Tensor, Tensor]:
        """`rope_angles` of a batch. Off the CPU they are rows of a table that is kept: one launch, not fourteen."""
        positions_T = segments.positions_on(x.device)
        if x.device.type == "cpu" or torch.compiler.is_compiling():
            return self.rope_angles(positions_T, x)
        longest, kind = int(segments.positions.max()) + 1, (x.device, self._product_dtype(x))
        if self._angles is None or self._angles[0] != kind or self._angles[1].shape[1] < longest:
            positions = torch.arange(2 ** math.ceil(math.log2(longest)), device=x.device)
            self._angles = kind, torch.stack(self.rope_angles(positions, x))
        cos, sin = self._angles[1].index_select(1, positions_T)
        return cos, sin

    def logits(self, hidden_ND: Tensor) -> Tensor:
        """Logits [N, V] from hidden states [N, hidden_size]."""
        narrow = None if self.narrow_head is None else (self.narrow_head, None)
        return kernels.linear(hidden_ND, self.head_weight, narrow=narrow)

    def cross_entropy(self, hidden_ND: Tensor, labels_N: Tensor, shares_N: Tensor) -> Tensor:
        """`kernels.cross_entropy` of the logits, with shares; those of a large vocabulary are never there all at
        once."""
        if self.config.vocab_size < LARGE_VOCABULARY:
            return kernels.cross_entropy(self.logits(hidden_ND), labels_N, shares_N, are_shares=True)
        return kernels.linear_cross_entropy(
            hidden_ND, self.head_weight, labels_N, shares_N, are_shares=True, narrow_VK=self.narrow_head
        )

    @property
    def head_weight(self) -> Tensor:
        """The matrix [V, hidden_size] that makes logits of hidden states."""
        return (self.embedding if self.head is None else self.head).weight


def model_to_hf(model: Decoder) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """config.json and weights under the names of transformers' Qwen2ForCausalLM; a tied head is omitted."""
    dtype = str(model.embedding.weight.dtype).removeprefix("torch.")
    hf_config = {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        **asdict(model.config),
        # transformers 5 reads rope_parameters and dtype, earlier versions and vLLM rope_theta and torch_dtype
        "rope_parameters": {"rope_type": "default", "rope_theta": model.config.rope_theta},
        "hidden_act": "silu",
        "attention_dropout": 0.0,
        "use_sliding_window": False,
        "sliding_window": None,
        "max_window_layers": model.config.num_hidden_layers,
        "use_cache": True,
        "initializer_range": 0.02,
        "dtype": dtype,
        "torch_dtype": dtype,
    }
    # copies, because safetensors does not write two tensors that share storage
    return hf_config, {name: view.contiguous().clone() for name, view in _weights(model).items()}


def model_from_hf(
    hf_config: Mapping[str, Any], tensors: Mapping[str, Tensor], dtype: torch.dtype = torch.float32
) -> Decoder:
    """The inverse of `model_to_hf`, for any Qwen2 that `config_from_hf` accepts.

    Raises:
        WeightsMismatch: a weight is missing or has the wrong shape.
        ValueError: a weight is unknown or not floating point, or `dtype` is not.
    """
    config = config_from_hf(hf_config)
    tensors = checked_weights(config, tensors, dtype)
    with torch.device("meta"):  # spends no time on initial weights that would be overwritten
        model = Decoder(config).to(dtype)
    model.to_empty(device="cpu")
    for name, place in _weights(model).items():
        place.copy_(tensors[name])
    return model


def _weights(model: Decoder) -> dict[str, Tensor]:
    """Detached views of all parameters under the names of transformers' Qwen2ForCausalLM."""
    config = model.config
    queries, keys = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
    views: dict[str, Tensor] = {EMBEDDING: model.embedding.weight}
    for i, block in enumerate(model.blocks):
        layer = f"model.layers.{i}."
        for kind in ("weight", "bias"):
            parts = getattr(block.qkv, kind).detach().split([queries, keys, keys])
            views |= {f"{layer}self_attn.{name}_proj.{kind}": part for name, part in zip("qkv", parts, strict=True)}
        gate, up = block.gate_up.weight.detach().chunk(2)
        views |= {
            layer + "self_attn.o_proj.weight": block.out.weight,
            layer + "mlp.gate_proj.weight": gate,
            layer + "mlp.up_proj.weight": up,
            layer + "mlp.down_proj.weight": block.down.weight,
            layer + "input_layernorm.weight": block.attention_norm,
            layer + "post_attention_layernorm.weight": block.mlp_norm,
        }
    views["model.norm.weight"] = model.final_norm
    if model.head is not None:
        views[HEAD] = model.head.weight
    return {name: view.detach() for name, view in views.items()}


def save_model(
    model: Decoder, folder: str | Path, tokenizer: Tokenizer | None = None, facts: Mapping[str, Any] | None = None
) -> None:
    """Writes the files of a Hugging Face model into an existing folder.

    Args:
        model: the decoder to save.
        folder: must exist.
        tokenizer: saved too, with what transformers' `generate` and vLLM need: stop tokens and padding.
        facts: shown in README.md, as JSON.
    """
    folder = Path(folder)
    hf_config, tensors = model_to_hf(model)
    if tokenizer is not None:
        ids = special_ids(tokenizer)
        stops = [ids[name] for name in ("stop", "eos_token_id") if name in ids]
        ids.pop("stop", None)
        hf_config |= ids
        write_json(folder / "generation_config.json", {**ids, "eos_token_id": stops, "do_sample": True})
        tokenizer.save_pretrained(folder, model.config.max_position_embeddings)
    write_json(folder / "config.json", hf_config)
    write_tensors(tensors, folder / "model.safetensors", {"format": "pt"})
    card = MODEL_CARD.format(parameters=model.num_parameters, facts=to_json(facts or {}, indent=1))
    (folder / "README.md").write_text(card, encoding="utf-8")


def load_model(folder: str | Path, dtype: torch.dtype = torch.float32) -> Decoder:
    """Loads a decoder from a Hugging Face folder, written by fastreason or of any Qwen2 model.

    Args:
        folder: with config.json and model.safetensors, or model.safetensors.index.json and the files it names.
        dtype: of the loaded weights, whatever is stored (float32, bfloat16, float16 or float64).
    Raises:
        WeightsMismatch: the weights do not match config.json; this is checked before anything is built.
        ValueError: a file is missing or cannot be read, or the decoder does not support the model.
    """
    folder = Path(folder)
    hf_config = read_json(folder / "config.json")
    try:
        config_from_hf(hf_config)  # before any weight is read
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from None
    file, tensors = read_weights(folder)
    try:
        return model_from_hf(hf_config, tensors, dtype)
    except ValueError as error:
        raise type(error)(f"{file}: {error}") from None
