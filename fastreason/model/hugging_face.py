"""Models as Hugging Face folders: writes what transformers, vLLM and TRL read, and reads what transformers writes.

A saved folder contains

    config.json, model.safetensors, generation_config.json, tokenizer.json, tokenizer_config.json, README.md

Any Qwen2 model can be loaded unless its config.json asks for something the decoder does not support, which is an error
and never ignored.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from typing_extensions import TypedDict

from ..runtime.json_files import check_fields, read_json, shown, to_json
from ..runtime.tensor_files import read_tensors
from ..text.tokenizer import Tokenizer
from .config import ModelConfig, one_of

MODEL_CARD = """---
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

STORED_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"


class _Index(TypedDict):
    weight_map: dict[str, str]


class WeightsMismatch(ValueError):
    """A weight is missing or its shape contradicts config.json: no reader can load the folder."""


def checked_weights(config: ModelConfig, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """The checked weights of the model by name; ValueError as for `model_from_hf`.

    This runs before anything is built: a config may claim any size, and the first missing weight ends it.
    """
    if dtype not in STORED_DTYPES:
        raise ValueError(f"load_model: dtype must be {one_of(STORED_DTYPES)}, got {dtype}")
    tensors, checked = dict(tensors), {}
    head = tensors.pop(HEAD, None) if config.tie_word_embeddings else None
    if head is not None:  # some writers store a tied head too, or instead of the embedding
        tensors.setdefault(EMBEDDING, head)
    for name, shape in _shapes(config):
        tensor = tensors.get(name)
        if tensor is None or tuple(tensor.shape) != shape:
            got = "nothing" if tensor is None else tuple(tensor.shape)
            raise WeightsMismatch(f"weights: {name} must have shape {shape}, as config.json says, got {got}")
        if tensor.dtype not in STORED_DTYPES:
            raise ValueError(f"weights: {name} must be {one_of(STORED_DTYPES)}, got {tensor.dtype}")
        checked[name] = tensor
    shared = checked[EMBEDDING]
    if head is not None and not (head.dtype == shared.dtype and torch.equal(head, shared)):
        raise ValueError(f"weights: {HEAD} differs from the embedding, so tie_word_embeddings must be false")
    if extra := tensors.keys() - checked.keys():
        raise ValueError(f"weights: {shown(min(extra))} is not a weight of this Qwen2 model")
    return checked


def _shapes(config: ModelConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yields names and shapes of all weights without building a model."""
    width, inner = config.hidden_size, config.intermediate_size
    queries, keys = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
    yield EMBEDDING, (config.vocab_size, width)
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
        yield HEAD, (config.vocab_size, width)


def special_ids(tokenizer: Tokenizer) -> dict[str, int]:
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


def read_weights(folder: Path) -> tuple[Path, dict[str, Tensor]]:
    """All tensors of a single file or of the files named by an index, and the path of that file or index."""
    file, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if os.path.exists(file) or not os.path.exists(index):  # False for a name that is too long
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
