"""A recipe: everything a run depends on, as one frozen dataclass tree read from TOML.

Fields may be overridden by their dotted names (`rl.steps`); a run saves the resolved recipe. An unknown field or a
value out of range is an error that names it, before anything is built.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import TypeAdapter, ValidationError

from .evaluate import EvaluateSettings
from .model import ModelConfig
from .policy import PolicySettings
from .ranges import covered
from .supervised import SupervisedSettings
from .tasks import Mixture
from .trackers import TrackerName

_LENGTHS = {"tokens", "steps", "budget"}
STAGES = ("pretrain", "midtrain", "rl")


@dataclass(frozen=True)
class ModelSettings:
    """Which decoder: a preset, and fields that differ from it. The vocabulary follows from the mixtures."""

    __pydantic_config__ = {"extra": "forbid"}

    preset: str = "tiny"
    """tiny, 10m or 100m."""
    hidden_size: int | None = None
    """Width of the residual stream."""
    num_hidden_layers: int | None = None
    """Blocks."""
    num_attention_heads: int | None = None
    """Query heads."""
    num_key_value_heads: int | None = None
    """Key-value heads."""
    intermediate_size: int | None = None
    """Width of the feed-forward block."""
    rope_theta: float | None = None
    """Base of the rotary angles."""

    def __post_init__(self) -> None:
        self.config(vocab_size=1)

    def config(self, vocab_size: int) -> ModelConfig:
        overrides = {k: v for k, v in asdict(self).items() if k != "preset" and v is not None}
        return ModelConfig.preset(self.preset, vocab_size=vocab_size, **overrides)


@dataclass(frozen=True)
class Recipe:
    """Stages in order, each optional, and how their results are evaluated."""

    __pydantic_config__ = {"extra": "forbid"}

    name: str
    """Shown in the report."""
    model: ModelSettings
    """The decoder."""
    evaluate: EvaluateSettings
    """What every stage's result is scored on."""
    pretrain: SupervisedSettings | None = None
    """First stage, from random weights."""
    midtrain: SupervisedSettings | None = None
    """Second stage: supervised again, on another mixture."""
    rl: PolicySettings | None = None
    """Third stage: reinforcement learning."""
    seed: int = 0
    """Of weights, problems and samples."""
    threads: int = 0
    """Threads of torch on CPU; 0: all cores."""
    metrics: list[TrackerName] = field(default_factory=list)
    """Trackers beside metrics.jsonl: tensorboard, trackio, wandb; their packages must be installed."""
    in_distribution: list[int] = field(default_factory=list)
    """Ops that the report calls in-distribution."""
    edge: list[int] = field(default_factory=list)
    """Ops that the report calls the edge of competence."""

    def __post_init__(self) -> None:
        if not self.stages:
            raise ValueError("recipe: needs at least one of pretrain, midtrain, rl")
        if not 0 <= self.seed < 2**63 or self.threads < 0:
            raise ValueError(f"recipe: need seed in 0 .. 2**63 - 1 and threads >= 0, got {self.seed}, {self.threads}")
        self.mixtures()

    @property
    def stages(self) -> tuple[str, ...]:
        return tuple(stage for stage in STAGES if getattr(self, stage) is not None)

    def mixtures(self) -> list[Mixture]:
        """Every mixture of every stage and of the evaluation."""
        mixtures = [Mixture.from_dict(self.evaluate.mixture)]
        for stage in (self.pretrain, self.midtrain):
            if stage is not None:
                mixtures += stage.mixtures
        if self.rl is not None:
            mixtures.append(Mixture.from_dict(self.rl.mixture))
        return mixtures

    def evaluation_ranges(self) -> dict[str, dict[str, float]]:
        """Those of `evaluate`, or else `in_distribution` and `edge`, as far as they are evaluated, all ops alike."""
        named = {"in-distribution": self.in_distribution, "edge": self.edge}
        ranges = {name: {",".join(map(str, ops)): 1.0} for name, ops in named.items() if ops}
        return self.evaluate.ranges or covered(ranges, Mixture.from_dict(self.evaluate.mixture).ops)

    def to_dict(self) -> dict[str, Any]:
        """Plain values; fields that are None are left out."""
        return _without_none(asdict(self))

    def save(self, path: Path) -> None:
        path.write_text(tomli_w.dumps(self.to_dict()), encoding="utf-8")


def available_recipes() -> tuple[str, ...]:
    """Names of the recipes that ship."""
    folder = resources.files("fastreason").joinpath("recipes")
    return tuple(sorted(file.name.removesuffix(".toml") for file in folder.iterdir() if file.name.endswith(".toml")))


def load_recipe(name_or_path: str | Path, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """A recipe that ships or a TOML file, with some fields replaced.

    Args:
        name_or_path: one of `available_recipes()` or a path that ends in .toml.
        overrides: values by dotted name, for example {"rl.steps": 10, "pretrain.budget": "600 seconds"}; the length of
            a stage in one unit replaces that in another.
    Raises:
        ValueError: no such recipe, an unknown field, or a value of the wrong type or range; the message names it.
    """
    text_path = str(name_or_path)
    if text_path.endswith(".toml"):
        if not Path(text_path).is_file():
            raise ValueError(f"recipe: no file {text_path!r}")
        text = Path(text_path).read_text(encoding="utf-8")
    elif text_path in available_recipes():
        text = resources.files("fastreason").joinpath("recipes", text_path + ".toml").read_text(encoding="utf-8")
    else:
        raise ValueError(f"recipe: must be one of {', '.join(available_recipes())} or a .toml file, got {text_path!r}")
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"recipe {text_path}: {error}") from None
    for name, value in (overrides or {}).items():
        *sections, last = name.split(".")
        table = values
        for section in sections:
            table = table.setdefault(section, {})
        table[last] = value
        # a stage has one length: a new one takes the place of the one in the file
        for other in _LENGTHS - {last} if last in _LENGTHS and value is not None else ():
            if f"{'.'.join(sections)}.{other}" not in (overrides or {}):
                table.pop(other, None)
    return recipe_from_dict(values, source=text_path)


def recipe_from_dict(values: Mapping[str, Any], source: str = "dict") -> Recipe:
    try:
        return TypeAdapter(Recipe).validate_python(values)
    except ValidationError as error:
        lines = [
            f"{'.'.join(str(part) for part in item['loc'])}: {item['msg'].removeprefix('Value error, ')}"
            for item in error.errors()
        ]
        raise ValueError(f"recipe {source}: " + "; ".join(line.removeprefix(": ") for line in lines)) from None


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_without_none(item) for item in value]
    return value
