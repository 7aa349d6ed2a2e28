"""The shape of a decoder, by name, from fields, or from the config.json of a Hugging Face Qwen2."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from typing_extensions import TypedDict

from ..runtime.arguments import choice, integer, number
from ..runtime.field_docs import explain_fields
from ..runtime.json_files import check_fields, read_json, shown


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
        """A shape by name, with fields overridden: `tiny` (0.17 M parameters), `1m`, `10m` or `100m` (the paper's).

        >>> fr.ModelConfig.preset("10m", vocab_size=500).hidden_size
        320
        """
        return cls(**(_PRESETS[choice("ModelConfig.preset: name", name, tuple(_PRESETS))] | overrides))

    @classmethod
    def from_pretrained(cls, path: str | Path) -> ModelConfig:
        """Reads the shape of a Qwen2 model from its Hugging Face folder or config.json.

        Raises:
            ValueError: the file is missing or damaged, or asks for something that the decoder does not support.
        """
        return load_config(path)


_PRESETS: dict[str, dict[str, Any]] = {
    # heads of 32: the narrowest that vLLM reads
    "tiny": dict(
        vocab_size=300,
        num_attention_heads=2,
        num_key_value_heads=1,
        rope_theta=1000.0,
        max_position_embeddings=512,
    ),
    "1m": dict(
        vocab_size=300,
        hidden_size=128,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=320,
        rope_theta=1000.0,
        max_position_embeddings=512,
    ),
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
            raise ValueError(f"config.json: {name} must be {one_of(allowed)}, got {shown(value)}")
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


def load_config(path: str | Path) -> ModelConfig:
    """The configuration in a Hugging Face folder or config.json; ValueError as for `config_from_hf`."""
    file = Path(path) / "config.json" if Path(path).is_dir() else Path(path)
    hf_config = read_json(file)
    try:
        return config_from_hf(hf_config)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def one_of(options: tuple[Any, ...]) -> str:
    return " or ".join(option.__name__ if isinstance(option, type) else repr(option) for option in options)
