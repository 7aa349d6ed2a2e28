"""A recipe: everything a run depends on, as one frozen dataclass tree read from TOML.

Fields can be overridden by their dotted names (`rl.steps`); a run saves the resolved recipe. Unknown fields and values
out of range are errors that name the field, before anything is built.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import tomli_w
from pydantic import TypeAdapter, ValidationError

from ..evaluation.evaluate import EvaluateSettings
from ..evaluation.op_ranges import covered
from ..grading.rewards import import_from
from ..model.config import ModelConfig
from ..rl.loop import PolicySettings
from ..runtime.distributed import Device
from ..runtime.field_docs import explain_fields
from ..runtime.old_names import with_current_names
from ..runtime.ranges import COUNT_OR_ZERO, SEED, check_ranges
from ..runtime.trackers import TrackerName
from ..tasks.mixture import Mixture, available_mixtures
from ..training.supervised_settings import SupervisedSettings

_LENGTHS = {"tokens", "steps", "budget"}
T = TypeVar("T")
STAGES = ("pretrain", "midtrain", "rl")


@explain_fields
@dataclass(frozen=True)
class ModelSettings:
    """The decoder: a preset, and fields that override it. The vocabulary follows from the mixtures."""

    __pydantic_config__ = {"extra": "forbid"}

    preset: str = "tiny"
    """Base shape: tiny, 10m or 100m."""
    hidden_size: int | None = None
    """Width of the residual stream."""
    num_hidden_layers: int | None = None
    """Number of transformer blocks."""
    num_attention_heads: int | None = None
    """Number of query heads."""
    num_key_value_heads: int | None = None
    """Number of key-value heads; must divide num_attention_heads."""
    intermediate_size: int | None = None
    """Width of the feed-forward layer."""
    rope_theta: float | None = None
    """Base of the rotary angles."""
    max_position_embeddings: int | None = None
    """Longest sequence in tokens, prompt plus completion."""

    def __post_init__(self) -> None:
        self.config(vocab_size=1)

    def config(self, vocab_size: int) -> ModelConfig:
        overrides = {k: v for k, v in asdict(self).items() if k != "preset" and v is not None}
        return ModelConfig.preset(self.preset, vocab_size=vocab_size, **overrides)


@explain_fields
@dataclass(frozen=True, repr=False)
class Recipe:
    """Everything a run depends on: the model, optional stages in order, and the evaluation after each."""

    __pydantic_config__ = {"extra": "forbid"}

    name: str
    """Name shown in the report; the default directory is runs/NAME."""
    model: ModelSettings
    """The decoder."""
    evaluate: EvaluateSettings
    """The evaluation after every stage."""
    pretrain: SupervisedSettings | None = None
    """Pre-training, from random weights."""
    midtrain: SupervisedSettings | None = None
    """Mid-training: a second supervised stage on another mixture."""
    rl: PolicySettings | None = None
    """Reinforcement learning."""
    seed: int = 0
    """Seed of initial weights, problems and samples."""
    threads: int = 0
    """Number of torch threads on CPU; 0: all cores."""
    device: Device = "auto"
    """Device of the model: cpu, cuda, or auto for a GPU if there is one (under torchrun, one per rank)."""
    metrics: list[TrackerName] = field(default_factory=list)
    """Trackers in addition to metrics.jsonl: tensorboard, trackio, wandb; their packages must be installed."""
    in_distribution: list[int] = field(default_factory=list)
    """Ops that reports call in-distribution."""
    edge: list[int] = field(default_factory=list)
    """Ops that reports call the edge of competence."""

    def __repr__(self) -> str:
        return f"Recipe({self.name!r}: {', '.join(self.stages)}; model {self.model.preset}, seed {self.seed})"

    def __post_init__(self) -> None:
        if not self.stages:
            raise ValueError("recipe: must have at least one of pretrain, midtrain, rl")
        check_name("recipe: name", self.name)
        check_ranges("recipe", self, {"seed": SEED, "threads": COUNT_OR_ZERO})
        self.mixtures()

    @property
    def stages(self) -> tuple[str, ...]:
        """The names of the stages in order: pretrain, midtrain, rl, as far as present."""
        return tuple(stage for stage in STAGES if getattr(self, stage) is not None)

    def mixtures(self) -> list[Mixture]:
        """All mixtures of all stages and of the evaluation."""
        mixtures = [Mixture.from_dict(self.evaluate.mixture)]
        for stage in (self.pretrain, self.midtrain):
            if stage is not None:
                mixtures += stage.mixtures
        if self.rl is not None:
            mixtures.append(Mixture.from_dict(self.rl.mixture))
        return mixtures

    def evaluation_ranges(self) -> dict[str, dict[str, float]]:
        """The ranges of `evaluate`; by default `in_distribution` and `edge`, if evaluated, with equal weights."""
        named = {"in-distribution": self.in_distribution, "edge": self.edge}
        ranges = {name: {",".join(map(str, ops)): 1.0} for name, ops in named.items() if ops}
        return self.evaluate.ranges or covered(ranges, Mixture.from_dict(self.evaluate.mixture).ops)

    def to_dict(self) -> dict[str, Any]:
        """The recipe as plain values, without fields that are None."""
        return without_none(asdict(self))

    def save(self, path: Path) -> None:
        """Writes the fully resolved recipe as TOML."""
        path.write_text(tomli_w.dumps(self.to_dict()), encoding="utf-8")


def check_name(what: str, name: str) -> None:
    """Raises ValueError for a name that is not usable as a folder name, as in the default run directory runs/NAME."""
    if not re.fullmatch(r"[\w.+ -]{1,100}", name) or name.startswith((".", " ")):
        raise ValueError(
            f"{what} must be at most 100 letters, digits, spaces and . + - _, not starting with a dot, got {name!r}"
        )


def available_recipes() -> tuple[str, ...]:
    """The names of the recipes that ship."""
    folder = resources.files("fastreason.studies").joinpath("recipes")
    return tuple(sorted(file.name.removesuffix(".toml") for file in folder.iterdir() if file.name.endswith(".toml")))


def load_recipe(
    name_or_path: str | Path, overrides: Mapping[str, Any] | None = None, *, size: str | None = None
) -> Recipe:
    """Loads a recipe that ships or a TOML file, with fields overridden.

    Args:
        name_or_path: the name of a recipe that ships, or a path that ends in .toml.
        overrides: values by dotted name, for example {"rl.steps": 10, "pretrain.budget": "600 seconds"}; the length of
            a stage in one unit replaces that in another.
        size: one of the recipe's `sizes`, if it has any.
    Raises:
        ValueError: there is no such recipe, a field is unknown, or a value has the wrong type or range; the message
            names it. A recipe with variants is a study (`fastreason.studies.study.load_study`).
    """
    values = read_recipe(name_or_path, overrides, size)
    if "variants" in values:
        raise ValueError(f"recipe {name_or_path}: it has variants; load it with load_study, or run it with run")
    return recipe_from_dict(values, source=str(name_or_path))


def read_recipe(
    name_or_path: str | Path, overrides: Mapping[str, Any] | None = None, size: str | None = None
) -> dict[str, Any]:
    """The values of a recipe's file, overridden by those of the size, then by overrides, with mixtures spelled out.

    Raises:
        ValueError: see `load_recipe`.
    """
    source = str(name_or_path)
    values = _with_base(source)
    sizes = values.pop("sizes", {})
    if sizes and size is None:
        raise ValueError(f"recipe {source}: has sizes; set size (--size) to one of {', '.join(sizes)}")
    if size is not None and size not in sizes:
        known = f"one of {', '.join(sizes)}" if sizes else "omitted, because it has only one"
        raise ValueError(f"recipe {source}: size must be {known}, got {size!r}")
    values = merge(merge(values, sizes.get(size, {})), nested(overrides or {}))
    mixtures = values.pop("mixtures", {})
    try:
        return _spell_mixtures(values, mixtures)
    except ValueError as error:
        raise ValueError(f"recipe {source}: {error}") from None


def _with_base(source: str, *above: str) -> dict[str, Any]:
    """A recipe's file over its base, of which all is taken but what a study asks: variants, claims and `about`."""
    try:
        values = with_current_names(tomllib.loads(_recipe_text(source)))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"recipe {source}: {error}") from None
    base = values.pop("base", None)
    if base is None:
        return values
    if not isinstance(base, str) or base in (source, *above):
        raise ValueError(f"recipe {source}: base must name another recipe, got {base!r}")
    taken = _with_base(base, source, *above)
    for name in ("variants", "claims", "about"):
        taken.pop(name, None)
    return merge(taken, values)


def _recipe_text(source: str) -> str:
    if source.endswith(".toml"):
        if not Path(source).is_file():
            raise ValueError(f"recipe: no file {source!r}")
        import_from(Path(source).resolve().parent)  # a reward "module:function" may be next to its recipe
        return Path(source).read_text(encoding="utf-8")
    if source in available_recipes():
        return resources.files("fastreason.studies").joinpath("recipes", source + ".toml").read_text(encoding="utf-8")
    raise ValueError(f"recipe: must be one of {', '.join(available_recipes())} or a .toml file, got {source!r}")


def nested(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Nested tables from dotted names.

    >>> nested({"rl.steps": 3, "rl.optim.lr": 0.1, "seed": 1})
    {'rl': {'steps': 3, 'optim': {'lr': 0.1}}, 'seed': 1}
    """
    values: dict[str, Any] = {}
    for name, value in overrides.items():
        *sections, last = name.split(".")
        table = values
        for section in sections:
            table = table.setdefault(section, {})
        table[last] = value
    return values


def merge(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Merges `changes` into `values`: tables by field, lists of named tables by name; everything else is replaced.

    A stage has one length: a new one replaces an existing one in another unit.

    >>> merge({"rl": {"steps": 3, "prompts": 8}}, {"rl": {"budget": "1 samples"}})
    {'rl': {'prompts': 8, 'budget': '1 samples'}}
    """
    given = {name for name in _LENGTHS if changes.get(name) is not None}
    merged = {name: v for name, v in values.items() if not (given and name in _LENGTHS - set(changes))}
    for name, change in changes.items():
        before = merged.get(name)
        if isinstance(before, Mapping) and isinstance(change, Mapping):
            merged[name] = merge(before, change)
        elif isinstance(before, list) and _are_named(before) and _are_named(change):
            merged[name] = _merge_named(before, change)
        else:
            merged[name] = change
    return merged


def _are_named(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, Mapping) and "name" in v for v in value)


def _merge_named(values: list[Any], changes: list[Any]) -> list[Any]:
    by_name = {value["name"]: value for value in values}
    for change in changes:
        by_name[change["name"]] = merge(by_name.get(change["name"], {}), change)
    return list(by_name.values())


def _spell_mixtures(value: Any, mixtures: Mapping[str, Any]) -> Any:
    """Replaces every `mixture = NAME` by the parts of that mixture, from the recipe or from `Mixture.preset`."""
    if isinstance(value, list):
        return [_spell_mixtures(item, mixtures) for item in value]
    if not isinstance(value, Mapping):
        return value
    spelt = {name: _spell_mixtures(item, mixtures) for name, item in value.items()}
    if isinstance(spelt.get("mixture"), str):
        spelt["mixture"] = _mixture_named(spelt["mixture"], mixtures)
    return spelt


def _mixture_named(name: str, mixtures: Mapping[str, Any]) -> Any:
    known = [*mixtures, *available_mixtures()]
    if name not in known:
        raise ValueError(f"mixture must be a list of parts or one of {', '.join(known)}, got {name!r}")
    parts = mixtures.get(name)
    # a mixture of the recipe may refer to a preset
    return Mixture.preset_parts(name if parts is None else parts) if parts is None or isinstance(parts, str) else parts


def recipe_from_dict(values: Mapping[str, Any], source: str = "dict") -> Recipe:
    return validated(Recipe, values, source)


def validated(kind: type[T], values: Mapping[str, Any], source: str) -> T:
    """Builds an object of a settings class; a ValueError names invalid fields."""
    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        lines = [
            f"{'.'.join(str(part) for part in item['loc'])}: {item['msg'].removeprefix('Value error, ')}"
            for item in error.errors()
        ]
        raise ValueError(f"recipe {source}: " + "; ".join(line.removeprefix(": ") for line in lines)) from None


def without_none(value: Any) -> Any:
    """Removes fields that are None, which TOML cannot represent, and turns tuples into lists."""
    if isinstance(value, dict):
        return {key: without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [without_none(item) for item in value]
    return value


STAGE_NAMES = {"pretrain": "pre-training", "midtrain": "mid-training", "rl": "reinforcement learning"}
