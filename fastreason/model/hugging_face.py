"""Models as Hugging Face folders: what transformers, vLLM and TRL read, and what transformers writes.

    config.json, model.safetensors, generation_config.json, tokenizer.json, tokenizer_config.json, README.md

is what a saved folder holds. Any Qwen2 is loaded whose config.json asks for nothing that the decoder lacks: what it
lacks is named, never ignored.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..text.tokenizer import Tokenizer
from .decoder import Decoder, ModelConfig

_MODEL_CARD = """---
library_name: transformers
pipeline_tag: text-generation
tags: [fastreason]
---
A {parameters:,}-parameter Qwen2 decoder trained by fastreason on synthetic reasoning tasks.

Prompts have the form `<question> ... </question> <solution>`; generation stops at ` </answer>`.

```json
{facts}
```
"""

# What transformers' Qwen2Config takes where config.json says nothing; the fields of ModelConfig but for head_dim.
_DEFAULTS: dict[str, Any] = {
    "vocab_size": 151936,
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "intermediate_size": 22016,
    "rope_theta": 10000.0,
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 32768,
    "tie_word_embeddings": False,
}
# Fields that would change what is computed, and the values that the decoder computes.
_SUPPORTED: dict[str, tuple[Any, ...]] = {
    "model_type": ("qwen2",),
    "architectures": (["Qwen2ForCausalLM"], None),
    "hidden_act": ("silu",),
    "attention_bias": (True, None),
    "attention_dropout": (0.0, None),
    "use_sliding_window": (False, None),
    "use_mrope": (False, None),
    "quantization_config": (None,),
}
# Fields that do not change what is computed: sizes of the initial weights, generation, what transformers itself notes.
_IGNORED = """
_attn_implementation _attn_implementation_autoset _commit_hash _experts_implementation _name_or_path
_output_attentions add_cross_attention attn_implementation auto_map bad_words_ids begin_suppress_tokens bos_token_id
chunk_size_feed_forward cross_attention_hidden_size decoder_start_token_id diversity_penalty do_sample dtype
early_stopping encoder_no_repeat_ngram_size eos_token_id exponential_decay_length_penalty finetuning_task
forced_bos_token_id forced_eos_token_id id2label initializer_range is_decoder is_encoder_decoder label2id
length_penalty max_length max_window_layers min_length no_repeat_ngram_size num_beam_groups num_beams num_labels
num_return_sequences output_attentions output_hidden_states output_scores pad_token_id prefix pretraining_tp
problem_type pruned_heads remove_invalid_values repetition_penalty return_dict return_dict_in_generate sep_token_id
sliding_window suppress_tokens task_specific_params temperature tf_legacy_loss tie_encoder_decoder tokenizer_class
top_k top_p torch_dtype torchscript transformers_version typical_p use_bfloat16 use_cache
"""
_STORED = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def model_to_hf(model: Decoder) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """config.json and weights under the names of transformers' Qwen2ForCausalLM; a shared head is left out."""
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
    # a copy each: safetensors writes no two tensors of one storage
    return hf_config, {name: view.contiguous().clone() for name, view in _weights(model).items()}


def model_from_hf(
    hf_config: Mapping[str, Any], tensors: Mapping[str, Tensor], dtype: torch.dtype = torch.float32
) -> Decoder:
    """The reverse of `model_to_hf`, for any Qwen2 that `config_from_hf` accepts.

    Raises:
        ValueError: a weight is missing, unknown, of another shape or not floating point, or `dtype` is not.
    """
    if dtype not in _STORED:
        raise ValueError(f"load_model: dtype must be {_one_of(_STORED)}, got {dtype}")
    with torch.device("meta"):  # no time for initial weights that are overwritten
        model = Decoder(config_from_hf(hf_config)).to(dtype)
    model.to_empty(device="cpu")
    weights = _weights(model)
    for name, place in weights.items():
        if name not in tensors or tensors[name].shape != place.shape:
            got = tuple(tensors[name].shape) if name in tensors else "nothing"
            raise ValueError(f"weights: {name} must have shape {tuple(place.shape)}, got {got}")
        if tensors[name].dtype not in _STORED:
            raise ValueError(f"weights: {name} must be {_one_of(_STORED)}, got {tensors[name].dtype}")
        place.copy_(tensors[name])
    if extra := set(tensors) - set(weights) - {"lm_head.weight"}:
        raise ValueError(f"weights: {sorted(extra)[0]!r} is no weight of this Qwen2")
    head = tensors.get("lm_head.weight")
    # some write a shared head all the same
    if model.head is None and head is not None and not torch.equal(head, tensors["model.embed_tokens.weight"]):
        raise ValueError("weights: lm_head.weight differs from the embedding, so tie_word_embeddings must be false")
    return model


def config_from_hf(hf_config: Mapping[str, Any]) -> ModelConfig:
    """The decoder's configuration of a Qwen2 config.json, with transformers' defaults for what it leaves out.

    The rotary base may stand in `rope_theta`, `rope_parameters` or `rope_scaling`; `head_dim` may differ from
    hidden_size / num_attention_heads.

    Raises:
        ValueError: names the field whose value the decoder does not compute, or that is unknown.
    """
    _refuse_unsupported(hf_config)
    values = _DEFAULTS | {name: hf_config[name] for name in _DEFAULTS if hf_config.get(name) is not None}
    if "num_key_value_heads" in hf_config and hf_config["num_key_value_heads"] is None:
        values["num_key_value_heads"] = values["num_attention_heads"]
    values |= {"rope_theta": _rope_theta(hf_config), "head_dim": hf_config.get("head_dim") or 0}
    for name, value in values.items():
        kinds = {"rope_theta": (int, float), "rms_norm_eps": (int, float), "tie_word_embeddings": (bool,)}
        if type(value) not in kinds.get(name, (int,)):
            raise ValueError(f"config.json: {name} must be {_one_of(kinds.get(name, (int,)))}, got {value!r}")
    return ModelConfig(**values)


def _refuse_unsupported(hf_config: Mapping[str, Any]) -> None:
    for name, allowed in _SUPPORTED.items():
        value = hf_config.get(name)
        if value not in allowed and (name in hf_config or name == "model_type"):
            raise ValueError(f"config.json: {name} must be {_one_of(allowed)}, got {value!r}")
    layer_types = hf_config.get("layer_types")
    if layer_types is not None and set(layer_types) != {"full_attention"}:
        raise ValueError(f"config.json: layer_types must all be 'full_attention', got {layer_types!r}")
    known = {*_DEFAULTS, *_SUPPORTED, *_IGNORED.split(), "head_dim", "layer_types", "rope_parameters", "rope_scaling"}
    if unknown := sorted(set(hf_config) - known):
        raise ValueError(
            f"config.json: {unknown[0]} is not known here, got {hf_config[unknown[0]]!r}; "
            "remove it if the model computes the same without it"
        )


def _rope_theta(hf_config: Mapping[str, Any]) -> Any:
    """The rotary base, wherever it stands."""
    found = {}
    if hf_config.get("rope_theta") is not None:
        found["rope_theta"] = hf_config["rope_theta"]
    for name in ("rope_parameters", "rope_scaling"):
        rope = hf_config.get(name)
        if rope is None:
            continue
        if not isinstance(rope, Mapping):
            raise ValueError(f"config.json: {name} must be an object or null, got {rope!r}")
        kind = rope.get("rope_type") or rope.get("type") or "default"
        if kind != "default":
            raise ValueError(f"config.json: {name}.rope_type must be 'default', got {kind!r}")
        if unknown := sorted(set(rope) - {"rope_type", "type", "rope_theta"}):
            raise ValueError(f"config.json: {name}.{unknown[0]} is not known here, got {rope[unknown[0]]!r}")
        if rope.get("rope_theta") is not None:
            found[f"{name}.rope_theta"] = rope["rope_theta"]
    if len(set(found.values())) > 1:
        raise ValueError(f"config.json: there must be one rope_theta, got {found}")
    return next(iter(found.values()), _DEFAULTS["rope_theta"])


def _weights(model: Decoder) -> dict[str, Tensor]:
    """Views of all parameters, without gradient, under the names of transformers' Qwen2ForCausalLM."""
    config = model.config
    queries, keys = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
    views: dict[str, Tensor] = {"model.embed_tokens.weight": model.embedding.weight}
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
        views["lm_head.weight"] = model.head.weight
    return {name: view.detach() for name, view in views.items()}


def save_model(
    model: Decoder, folder: str | Path, tokenizer: Tokenizer | None = None, facts: Mapping[str, Any] | None = None
) -> None:
    """Writes a Hugging Face folder into an existing one.

    Args:
        tokenizer: saved too, with what transformers' `generate` and vLLM need of it: where to stop and how to pad.
        facts: shown in README.md, as JSON.
    """
    folder = Path(folder)
    hf_config, tensors = model_to_hf(model)
    if tokenizer is not None:
        ids = _special_ids(tokenizer)
        stops = [ids[name] for name in ("stop", "eos_token_id") if name in ids]
        ids.pop("stop", None)
        hf_config |= ids
        write_json(folder / "generation_config.json", {**ids, "eos_token_id": stops, "do_sample": True})
        tokenizer.save_pretrained(folder)
    write_json(folder / "config.json", hf_config)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    card = _MODEL_CARD.format(parameters=model.num_parameters, facts=json.dumps(facts or {}, indent=1))
    (folder / "README.md").write_text(card, encoding="utf-8")


def _special_ids(tokenizer: Tokenizer) -> dict[str, int]:
    """The special tokens by their names in config.json, and `stop`, where an answer ends; without those it lacks."""
    found = {}
    attributes = {
        "bos_token_id": "bos_id",
        "eos_token_id": "eos_id",
        "pad_token_id": "pad_id",
        "stop": "answer_close_id",
    }
    for name, attribute in attributes.items():
        with suppress(ValueError):  # other people's tokenizers need not have all of them
            found[name] = getattr(tokenizer, attribute)
    return found


def load_config(path: str | Path) -> ModelConfig:
    """The configuration in a Hugging Face folder or config.json; ValueError as for `config_from_hf`."""
    file = Path(path) / "config.json" if Path(path).is_dir() else Path(path)
    hf_config = read_json(file)
    try:
        return config_from_hf(hf_config)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def load_model(folder: str | Path, dtype: torch.dtype = torch.float32) -> Decoder:
    """A decoder from a Hugging Face folder of ours or of anybody's Qwen2.

    Args:
        folder: with config.json and model.safetensors, or model.safetensors.index.json and the files it names.
        dtype: of the loaded weights, whatever is stored (float32, bfloat16, float16 or float64).
    Raises:
        ValueError: a file is missing or cannot be read, or it is a model that the decoder does not compute.
    """
    folder = Path(folder)
    hf_config, tensors = read_json(folder / "config.json"), _read_weights(folder)
    try:
        return model_from_hf(hf_config, tensors, dtype)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from None


def _read_weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of one file or of the several that an index names."""
    index = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").is_file() or not index.is_file():
        return read_tensors(folder / "model.safetensors")
    file_of = read_json(index).get("weight_map")
    if not isinstance(file_of, dict) or not all(isinstance(name, str) for name in file_of.values()):
        raise ValueError(f"checkpoint: {index} must map weights to files in weight_map")
    tensors: dict[str, Tensor] = {}
    for name in sorted(set(file_of.values())):
        if Path(name).name != name:  # a file of another folder is none of this model's
            raise ValueError(f"checkpoint: {index} must name files beside it, got {name!r}")
        tensors |= read_tensors(folder / name)
    return tensors


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file; ValueError if it is missing or holds something else."""
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
    """The tensors of a safetensors file; ValueError if it is missing or damaged."""
    if not path.is_file():
        raise ValueError(f"checkpoint: {path} does not exist")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"checkpoint: {path} cannot be read: {error}") from None


def write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _one_of(options: tuple[Any, ...]) -> str:
    return " or ".join(option.__name__ if isinstance(option, type) else repr(option) for option in options)
