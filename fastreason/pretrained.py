"""Models as Hugging Face folders: what transformers, vLLM and TRL read, and what they write.

    config.json, model.safetensors, generation_config.json, tokenizer.json, tokenizer_config.json, README.md
"""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from .model import Decoder, ModelConfig
from .tokenizer import Tokenizer

_MODEL_CARD = """---
library_name: transformers
pipeline_tag: text-generation
tags: [fastreason]
---
A {parameters:,}-parameter Qwen2 decoder trained by fastreason on synthetic reasoning tasks.

Prompts have the form `<question> ... </question> <solution>`; generation stops at ` </answer>`. Load the tokenizer with
`PreTrainedTokenizerFast`: `AutoTokenizer` of transformers 5 gives every Qwen2 model the word pieces of Qwen2.

```json
{facts}
```
"""


def model_to_hf(model: Decoder) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """config.json and weights under the names of transformers' Qwen2ForCausalLM; the shared head is left out."""
    config = model.config
    head, kv, width = config.num_attention_heads, config.num_key_value_heads, config.head_dim
    tensors = {"model.embed_tokens.weight": model.embedding.weight, "model.norm.weight": model.final_norm}
    for i, block in enumerate(model.blocks):
        layer = f"model.layers.{i}."
        for kind in ("weight", "bias"):
            parts = getattr(block.qkv, kind).split([head * width, kv * width, kv * width])
            for name, part in zip("qkv", parts, strict=True):
                tensors[f"{layer}self_attn.{name}_proj.{kind}"] = part
        gate, up = block.gate_up.weight.chunk(2)
        tensors |= {
            layer + "self_attn.o_proj.weight": block.out.weight,
            layer + "mlp.gate_proj.weight": gate,
            layer + "mlp.up_proj.weight": up,
            layer + "mlp.down_proj.weight": block.down.weight,
            layer + "input_layernorm.weight": block.attention_norm,
            layer + "post_attention_layernorm.weight": block.mlp_norm,
        }
    hf_config = {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        **asdict(config),
        # transformers 5 reads rope_parameters, earlier versions rope_theta
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        "attention_dropout": 0.0,
        "use_sliding_window": False,
        "initializer_range": 0.02,
        "torch_dtype": "float32",
    }
    return hf_config, {name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}


def model_from_hf(hf_config: dict[str, Any], tensors: dict[str, Tensor]) -> Decoder:
    """The reverse of `model_to_hf`, for any Qwen2 configuration with a shared head."""
    if hf_config.get("model_type") != "qwen2" or not hf_config.get("tie_word_embeddings"):
        raise ValueError(
            "checkpoint: need model_type qwen2 with tie_word_embeddings true, got "
            f"{hf_config.get('model_type')!r} and {hf_config.get('tie_word_embeddings')!r}"
        )
    values = {field.name: hf_config[field.name] for field in fields(ModelConfig) if field.name in hf_config}
    if "rope_theta" not in values and "rope_parameters" in hf_config:
        values["rope_theta"] = hf_config["rope_parameters"]["rope_theta"]
    model = Decoder(ModelConfig(**values))
    wanted = model_to_hf(model)[1]
    tensors = {name: tensor for name, tensor in tensors.items() if name != "lm_head.weight"}
    for name, tensor in wanted.items():
        if name not in tensors or tensors[name].shape != tensor.shape:
            got = tuple(tensors[name].shape) if name in tensors else "nothing"
            raise ValueError(f"checkpoint: {name} must have shape {tuple(tensor.shape)}, got {got}")
    if extra := set(tensors) - set(wanted):
        raise ValueError(f"checkpoint: unknown weight {sorted(extra)[0]!r}")
    with torch.no_grad():
        model.embedding.weight.copy_(tensors["model.embed_tokens.weight"])
        model.final_norm.copy_(tensors["model.norm.weight"])
        for i, block in enumerate(model.blocks):
            layer = f"model.layers.{i}."
            for kind in ("weight", "bias"):
                parts = [tensors[f"{layer}self_attn.{name}_proj.{kind}"] for name in "qkv"]
                getattr(block.qkv, kind).copy_(torch.cat(parts))
            block.gate_up.weight.copy_(
                torch.cat([tensors[f"{layer}mlp.{name}_proj.weight"] for name in ("gate", "up")])
            )
            block.out.weight.copy_(tensors[layer + "self_attn.o_proj.weight"])
            block.down.weight.copy_(tensors[layer + "mlp.down_proj.weight"])
            block.attention_norm.copy_(tensors[layer + "input_layernorm.weight"])
            block.mlp_norm.copy_(tensors[layer + "post_attention_layernorm.weight"])
    return model


def save_model(model: Decoder, folder: str | Path, tokenizer: Tokenizer | None = None, facts: Any = None) -> None:
    """Writes the Hugging Face part of a checkpoint into an existing folder."""
    folder = Path(folder)
    hf_config, tensors = model_to_hf(model)
    if tokenizer is not None:
        hf_config |= {
            "bos_token_id": tokenizer.bos_id,
            "eos_token_id": tokenizer.eos_id,
            "pad_token_id": tokenizer.pad_id,
        }
        generation = {
            "eos_token_id": [tokenizer.answer_close_id, tokenizer.eos_id],
            "pad_token_id": tokenizer.pad_id,
            "do_sample": True,
        }
        write_json(folder / "generation_config.json", generation)
        tokenizer.save_pretrained(folder)
    write_json(folder / "config.json", hf_config)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    card = _MODEL_CARD.format(parameters=model.num_parameters, facts=json.dumps(facts or {}, indent=1))
    (folder / "README.md").write_text(card, encoding="utf-8")


def load_model(folder: str | Path) -> Decoder:
    """A decoder from a Hugging Face folder of ours or anybody's Qwen2 with a shared head."""
    folder = Path(folder)
    return model_from_hf(read_json(folder / "config.json"), read_tensors(folder / "model.safetensors"))


def read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(f"checkpoint: {path} does not exist")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # no UTF-8 or no JSON
        raise ValueError(f"checkpoint: {path} cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"checkpoint: {path} must hold an object, got {type(content).__name__}")
    return content


def read_tensors(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise ValueError(f"checkpoint: {path} does not exist")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"checkpoint: {path} cannot be read: {error}") from None


def write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
