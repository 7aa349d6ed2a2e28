"""Models as Hugging Face folders: writes what transformers, vLLM and TRL read, and reads what transformers writes.

A saved folder contains

    config.json, model.safetensors, generation_config.json, tokenizer.json, tokenizer_config.json, README.md

Any Qwen2 model can be loaded unless its config.json asks for something the decoder does not support, which is an error
and never ignored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor
from typing_extensions import TypedDict

from ..runtime.json_files import check_fields, read_json, shown, to_json
from ..runtime.tensor_files import read_tensors, write_tensors
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

# The defaults of transformers' Qwen2Config for omitted fields; the fields of ModelConfig except head_dim.
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
# Fields that change the computation, and the values that the decoder supports.
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
# Fields that do not change the computation: initialization, generation, transformers' own bookkeeping.
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
_HEAD, _EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"

_Size = Annotated[int, Field(ge=1, lt=2**31)] | None
_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)] | None


class _Rope(TypedDict, total=False):
    rope_type: str | None
    type: str | None
    rope_theta: _Positive


class _Fields(TypedDict, total=False):
    """The types of the config.json fields that are read; null counts as missing."""

    vocab_size: _Size
    hidden_size: _Size
    num_hidden_layers: _Size
    num_attention_heads: _Size
    num_key_value_heads: _Size
    intermediate_size: _Size
    max_position_embeddings: _Size
    head_dim: Annotated[int, Field(ge=0, lt=2**31)] | None
    rope_theta: _Positive
    rms_norm_eps: _Positive
    tie_word_embeddings: bool | None
    layer_types: list[str] | None
    rope_parameters: _Rope | None
    rope_scaling: _Rope | None


class _Index(TypedDict):
    weight_map: dict[str, str]


class WeightsMismatch(ValueError):
    """A weight is missing or its shape contradicts config.json: no reader can load the folder."""


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
    tensors = _checked(config, tensors, dtype)
    with torch.device("meta"):  # spends no time on initial weights that would be overwritten
        model = Decoder(config).to(dtype)
    model.to_empty(device="cpu")
    for name, place in _weights(model).items():
        place.copy_(tensors[name])
    return model


def _checked(config: ModelConfig, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """The checked weights of the model by name; ValueError as for `model_from_hf`.

    This runs before anything is built: a config may claim any size, and the first missing weight ends it.
    """
    if dtype not in _STORED:
        raise ValueError(f"load_model: dtype must be {_one_of(_STORED)}, got {dtype}")
    tensors, checked = dict(tensors), {}
    head = tensors.pop(_HEAD, None) if config.tie_word_embeddings else None
    if head is not None:  # some writers store a tied head too, or instead of the embedding
        tensors.setdefault(_EMBEDDING, head)
    for name, shape in _shapes(config):
        tensor = tensors.get(name)
        if tensor is None or tuple(tensor.shape) != shape:
            got = "nothing" if tensor is None else tuple(tensor.shape)
            raise WeightsMismatch(f"weights: {name} must have shape {shape}, as config.json says, got {got}")
        if tensor.dtype not in _STORED:
            raise ValueError(f"weights: {name} must be {_one_of(_STORED)}, got {tensor.dtype}")
        checked[name] = tensor
    shared = checked[_EMBEDDING]
    if head is not None and not (head.dtype == shared.dtype and torch.equal(head, shared)):
        raise ValueError(f"weights: {_HEAD} differs from the embedding, so tie_word_embeddings must be false")
    if extra := tensors.keys() - checked.keys():
        raise ValueError(f"weights: {shown(min(extra))} is not a weight of this Qwen2 model")
    return checked


def config_from_hf(hf_config: Mapping[str, Any]) -> ModelConfig:
    """The decoder's configuration from a Qwen2 config.json, with transformers' defaults for omitted fields.

    The rotary base may be in `rope_theta`, `rope_parameters` or `rope_scaling`; `head_dim` may differ from
    hidden_size / num_attention_heads.

    Raises:
        ValueError: a field is unknown or has a value that the decoder does not support; the message names it.
    """
    _refuse_unsupported(hf_config)
    values = _DEFAULTS | {name: hf_config[name] for name in _DEFAULTS if hf_config.get(name) is not None}
    if "num_key_value_heads" in hf_config and hf_config["num_key_value_heads"] is None:
        values["num_key_value_heads"] = values["num_attention_heads"]
    values |= {"rope_theta": _rope_theta(hf_config), "head_dim": hf_config.get("head_dim") or 0}
    values["rms_norm_eps"] = float(values["rms_norm_eps"])
    try:
        return ModelConfig(**values)
    except ValueError as error:
        raise ValueError(f"config.json: {error}") from None


def _refuse_unsupported(hf_config: Mapping[str, Any]) -> None:
    for name, allowed in _SUPPORTED.items():
        value = hf_config.get(name)
        if value not in allowed and (name in hf_config or name == "model_type"):
            raise ValueError(f"config.json: {name} must be {_one_of(allowed)}, got {shown(value)}")
    check_fields(_Fields, dict(hf_config), "config.json")
    layer_types = hf_config.get("layer_types")
    if layer_types is not None and set(layer_types) != {"full_attention"}:
        raise ValueError(f"config.json: layer_types must all be 'full_attention', got {shown(layer_types)}")
    known = {*_DEFAULTS, *_SUPPORTED, *_IGNORED.split(), "head_dim", "layer_types", "rope_parameters", "rope_scaling"}
    if unknown := sorted(set(hf_config) - known):
        raise ValueError(
            f"config.json: {_named(unknown[0])} is an unknown field, got {shown(hf_config[unknown[0]])}; "
            "remove it if it does not change what the model computes"
        )


def _named(field: str) -> str:
    return field if field.isidentifier() and len(field) < 80 else shown(field)


def _rope_theta(hf_config: Mapping[str, Any]) -> float:
    """The rotary base, from whichever field has it."""
    bases: dict[str, float] = {}
    if hf_config.get("rope_theta") is not None:
        bases["rope_theta"] = hf_config["rope_theta"]
    for name in ("rope_parameters", "rope_scaling"):
        rope = hf_config.get(name)
        if rope is None:
            continue
        kind = rope.get("rope_type") or rope.get("type") or "default"
        if kind != "default":
            raise ValueError(f"config.json: {name}.rope_type must be 'default', got {shown(kind)}")
        if unknown := sorted(set(rope) - {"rope_type", "type", "rope_theta"}):
            raise ValueError(
                f"config.json: {name}.{_named(unknown[0])} is an unknown field, got {shown(rope[unknown[0]])}"
            )
        if rope.get("rope_theta") is not None:
            bases[f"{name}.rope_theta"] = rope["rope_theta"]
    if len(set(bases.values())) > 1:
        raise ValueError(f"config.json: there must be one rope_theta, got {bases}")
    return float(next(iter(bases.values()), _DEFAULTS["rope_theta"]))


def _shapes(config: ModelConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yields names and shapes of all weights without building a model."""
    width, inner = config.hidden_size, config.intermediate_size
    queries, keys = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
    yield _EMBEDDING, (config.vocab_size, width)
    for i in range(config.num_hidden_layers):
        layer = f"model.layers.{i}."
        for part, rows in zip("qkv", (queries, keys, keys), strict=True):
            yield f"{layer}self_attn.{part}_proj.weight", (rows, width)
            yield f"{layer}self_attn.{part}_proj.bias", (rows,)
        yield layer + "self_attn.o_proj.weight", (width, queries)
        yield layer + "mlp.gate_proj.weight", (inner, width)
        yield layer + "mlp.up_proj.weight", (inner, width)
        yield layer + "mlp.down_proj.weight", (width, inner)
        yield layer + "input_layernorm.weight", (width,)
        yield layer + "post_attention_layernorm.weight", (width,)
    yield "model.norm.weight", (width,)
    if not config.tie_word_embeddings:
        yield _HEAD, (config.vocab_size, width)


def _weights(model: Decoder) -> dict[str, Tensor]:
    """Detached views of all parameters under the names of transformers' Qwen2ForCausalLM."""
    config = model.config
    queries, keys = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
    views: dict[str, Tensor] = {_EMBEDDING: model.embedding.weight}
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
        views[_HEAD] = model.head.weight
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
        ids = _special_ids(tokenizer)
        stops = [ids[name] for name in ("stop", "eos_token_id") if name in ids]
        ids.pop("stop", None)
        hf_config |= ids
        write_json(folder / "generation_config.json", {**ids, "eos_token_id": stops, "do_sample": True})
        tokenizer.save_pretrained(folder, model.config.max_position_embeddings)
    write_json(folder / "config.json", hf_config)
    write_tensors(tensors, folder / "model.safetensors", {"format": "pt"})
    card = _MODEL_CARD.format(parameters=model.num_parameters, facts=to_json(facts or {}, indent=1))
    (folder / "README.md").write_text(card, encoding="utf-8")


def _special_ids(tokenizer: Tokenizer) -> dict[str, int]:
    """Special token ids by their names in config.json, and `stop`, the end of an answer; missing ones are omitted."""
    ids = {}
    attributes = {
        "bos_token_id": "bos_id",
        "eos_token_id": "eos_id",
        "pad_token_id": "pad_id",
        "stop": "answer_close_id",
    }
    for name, attribute in attributes.items():
        with suppress(ValueError):  # foreign tokenizers may lack some of them
            ids[name] = getattr(tokenizer, attribute)
    return ids


def load_config(path: str | Path) -> ModelConfig:
    """The configuration in a Hugging Face folder or config.json; ValueError as for `config_from_hf`."""
    file = Path(path) / "config.json" if Path(path).is_dir() else Path(path)
    hf_config = read_json(file)
    try:
        return config_from_hf(hf_config)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


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
    file, tensors = _read_weights(folder)
    try:
        return model_from_hf(hf_config, tensors, dtype)
    except ValueError as error:
        raise type(error)(f"{file}: {error}") from None


def _read_weights(folder: Path) -> tuple[Path, dict[str, Tensor]]:
    """All tensors of a single file or of the files named by an index, and the path of that file or index."""
    file, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if file.exists() or not index.exists():
        return file, read_tensors(file)
    content = read_json(index)
    check_fields(_Index, content, str(index))
    tensors: dict[str, Tensor] = {}
    for name in sorted(set(content["weight_map"].values())):
        # a file of another folder is none of this model's
        if Path(name).name != name or name in ("", "..") or not name.isprintable():
            raise ValueError(f"{index}: weight_map must name files beside it, got {shown(name)}")
        try:
            tensors |= read_tensors(folder / name)
        except ValueError as error:
            raise ValueError(f"{index}: {error}") from None
    return index, tensors


def write_json(path: Path, content: Any) -> None:
    path.write_text(to_json(content, indent=1) + "\n", encoding="utf-8")


def _one_of(options: tuple[Any, ...]) -> str:
    return " or ".join(option.__name__ if isinstance(option, type) else repr(option) for option in options)
