"""A recipe: everything a run depends on, as one frozen dataclass tree read from TOML.

Fields can be overridden by their dotted names (`rl.steps`); a run saves the resolved recipe. Unknown fields and values
out of range are errors that name the field, before anything is built.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator

from ..evaluation.evaluate import EvaluateSettings
from ..evaluation.op_ranges import covered
from ..grading.rewards import import_from
from ..model.config import ModelConfig
from ..rl.loop import PolicySettings
from ..runtime.distributed import Device
from ..runtime.field_docs import explain_fields
from ..runtime.files import parse_toml, read_toml, toml_text
from ..runtime.old_names import with_current_names
from ..runtime.ranges import COUNT_OR_ZERO, SEED, check_settings
from ..runtime.trackers import TrackerName
from ..tasks.mixture import Mixture, available_mixtures
from ..training.supervised_settings import SupervisedSettings
from .fields import merge, nested, validated, without_none
from .stages import SHORT_FORM, Stage, read_stage, spell_stages


@explain_fields
@dataclass(frozen=True)
class ModelSettings:
    """The decoder: a preset, and fields that override it. The vocabulary follows from the mixtures."""

    __pydantic_config__ = {"extra": "forbid"}

    preset: str = "tiny"
    """Base shape: tiny, 1m, 10m or 100m."""
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
    """Everything a run depends on: the model, its stages in order, and the evaluation after each."""

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
    stages: list[Annotated[Stage, BeforeValidator(read_stage)]] = field(default_factory=list)
    """Any stages in order, instead of these three; see `fastreason.studies.stages`."""
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
        return f"Recipe({self.name!r}: {', '.join(self.stage_names)}; model {self.model.preset}, seed {self.seed})"

    def __post_init__(self) -> None:
        short = [name for name in SHORT_FORM if getattr(self, name) is not None]
        if self.stages and short:
            raise ValueError(f"recipe: stages and {short[0]} exclude each other; name a stage {short[0]} to change it")
        if not self.plan:
            raise ValueError("recipe: must have stages, or at least one of pretrain, midtrain, rl")
        check_name("recipe: name", self.name)
        check_settings("recipe", self, {"seed": SEED, "threads": COUNT_OR_ZERO})
        names = self.stage_names
        for number, stage in enumerate(self.plan):
            if stage.name in names[:number]:
                raise ValueError(f"recipe: there are two stages {stage.name!r}")
            if stage.start_from in names[number:]:
                raise ValueError(f"recipe: {stage.name}: start_from must be a stage above it, got {stage.start_from!r}")
            if stage.kind == "model" and stage.start_from in names:
                raise ValueError(
                    f"recipe: {stage.name}: start_from of a stage of kind model must be the folder or name of a model, "
                    f"got the stage {stage.start_from!r}"
                )
        if not self.plan[-1].evaluate:
            raise ValueError(f"recipe: {names[-1]}: the last stage must be evaluated")
        self.mixtures()

    @cached_property
    def plan(self) -> tuple[Stage, ...]:
        """The stages in order, those of pretrain, midtrain and rl too."""
        named = {name: getattr(self, name) for name in SHORT_FORM}
        short = [Stage(name, SHORT_FORM[name], each) for name, each in named.items() if each is not None]
        return (*self.stages, *short)

    @property
    def stage_names(self) -> tuple[str, ...]:
        """The names of the stages in order."""
        return tuple(stage.name for stage in self.plan)

    def stage_before(self, stage: Stage) -> Stage | None:
        """The stage whose model a stage begins from; None: new weights, or those of a folder."""
        names = self.stage_names
        if stage.start_from is None:
            number = names.index(stage.name)
            return self.plan[number - 1] if number else None
        return self.plan[names.index(stage.start_from)] if stage.start_from in names else None

    def stages_before(self, stage: Stage) -> list[Stage]:
        """All stages that the model of a stage has gone through before it, the last first."""
        found = []
        before = self.stage_before(stage)
        while before is not None:
            found.append(before)
            before = self.stage_before(before)
        return found

    def draw_of(self, stage: Stage) -> int:
        """The number of stages before it that have drawn from the same split; 0 for the three of the short form, which
        have always had one seed."""
        if not self.stages:
            return 0
        return sum(before.split == stage.split for before in self.stages_before(stage))

    def mixtures(self) -> list[Mixture]:
        """All mixtures of all stages and of the evaluation."""
        mixtures = [Mixture.from_dict(self.evaluate.mixture)]
        for stage in self.plan:
            mixtures += stage.settings.mixtures
        return mixtures

    def evaluation_ranges(self) -> dict[str, dict[str, float]]:
        """The ranges of `evaluate`; by default `in_distribution` and `edge`, if evaluated, with equal weights."""
        named = {"in-distribution": self.in_distribution, "edge": self.edge}
        ranges = {name: {",".join(map(str, ops)): 1.0} for name, ops in named.items() if ops}
        return self.evaluate.ranges or covered(ranges, Mixture.from_dict(self.evaluate.mixture).ops)

    def to_dict(self) -> dict[str, Any]:
        """The recipe as plain values, without fields that are None."""
        values = asdict(self) | {"stages": [stage.to_dict() for stage in self.stages] or None}
        return without_none(values)

    def save(self, path: Path) -> None:
        """Writes the fully resolved recipe as TOML."""
        path.write_text(toml_text(self.to_dict()), encoding="utf-8")


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
    chosen = {} if size is None else _whole_size(sizes, size, source)
    values = merge(merge(values, chosen), nested(overrides or {}))
    mixtures = values.pop("mixtures", {})
    try:
        return _spell_mixtures(values, mixtures)
    except ValueError as error:
        raise ValueError(f"recipe {source}: {error}") from None


def _whole_size(sizes: Mapping[str, Any], size: str, source: str, *above: str) -> dict[str, Any]:
    """The fields of a size over those of the size that it is like."""
    fields = dict(sizes[size])
    like = fields.pop("like", None)
    if like is None:
        return fields
    others = [name for name in sizes if name not in (size, *above)]
    if like not in others:
        raise ValueError(f"recipe {source}: sizes.{size}.like must be one of {', '.join(others)}, got {like!r}")
    return merge(_whole_size(sizes, like, source, size, *above), fields)


def _with_base(source: str, *above: str) -> dict[str, Any]:
    """A recipe's file over its base, of which all is taken but what a study asks: variants, claims, what these alone
    read, and `about`."""
    values = with_current_names(_file_of(source))
    base = values.get("base")
    if base is None or isinstance(base, Mapping):  # a stage may be called so
        return values
    del values["base"]
    if not isinstance(base, str) or base in (source, *above):
        raise ValueError(f"recipe {source}: base must name another recipe, got {base!r}")
    taken = _with_base(base, source, *above)
    asked = ["variants", "claims", "about"]
    # what only variants and claims read
    asked += [name for name, reader in (("compute", "variants"), ("k", "claims")) if reader not in values]
    sizes = taken.get("sizes")
    for table in (taken, *(sizes.values() if isinstance(sizes, Mapping) else ())):
        for name in asked if isinstance(table, dict) else ():
            table.pop(name, None)
    return merge(taken, values)


def _file_of(source: str) -> dict[str, Any]:
    if source.endswith(".toml"):
        if not Path(source).is_file():
            raise ValueError(f"recipe: no file {source!r}")
        import_from(Path(source).resolve().parent)  # a reward "module:function" may be next to its recipe
        try:
            return read_toml(Path(source))
        except ValueError as error:
            raise ValueError(f"recipe {error}") from None
    if source in available_recipes():
        shipped = resources.files("fastreason.studies").joinpath("recipes", source + ".toml")
        return parse_toml(shipped.read_text(encoding="utf-8"))
    raise ValueError(f"recipe: must be one of {', '.join(available_recipes())} or a .toml file, got {source!r}")


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
    """The recipe of these values; a ValueError names invalid fields."""
    try:
        spelt = spell_stages(values)
    except ValueError as error:
        raise ValueError(f"recipe {source}: {error}") from None
    return validated(Recipe, spelt, f"recipe {source}")
