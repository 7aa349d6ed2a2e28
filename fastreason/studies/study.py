"""A study: variants of a recipe, seeds, and the claims it tests.

A recipe without variants is a study of one variant, itself, with its own seed; one variant with one seed is a run.

    name = "mine"
    seeds = [0, 1, 2]
    [[variants]]                     # the recipe with fields replaced
    name = "edge"
    rl.mixture = "edge"
    [[variants]]
    name = "none"
    remove = ["rl"]                  # stages that this variant omits
    [ranges]
    edge = [{ op = [6] }]            # problems that scores are averaged over
    [[claims]]
    name = "edge-rises"
    text = "RL at the edge raises pass@32 there"
    k = 32
    range = "edge"
    variant = "edge"
    against = ["none"]
    at_least = 0.05

With `compute = "1e6 tokens"`, a variant's `beta` splits that between mid-training and RL (`budget.split`). In FLOP,
`split = { base = 0.8, rl = 0.2 }` splits it, or `times` as much, between any stages; the share 0 leaves a stage out. A
top-level `k = 32` is the default for claims.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..evaluation.op_ranges import parse_range
from ..runtime.files import read_toml, toml_text
from ..runtime.old_names import with_current_names
from ..runtime.ranges import COUNT, POSITIVE, SEED, SHARE, Range, check_settings
from ..tasks.mixture import Mixture
from ..training.budget import Budget, split
from .fields import merge, validated, without_none
from .recipe import Recipe, check_name, read_recipe, recipe_from_dict
from .stages import spell_stages, without_stages

_VARIANT_ONLY = ("name", "note", "remove", "beta", "split", "times")
# fields of the study, not of the recipe that its variants start from
_STUDY_ONLY = {"seeds", "variants", "claims", "ranges", "compute", "about", "k"}


@dataclass(frozen=True)
class RangePart:
    """A part of a range: some ops with equal weights."""

    __pydantic_config__ = {"extra": "forbid"}

    op: list[int]
    """Numbers of operations, with equal weights."""
    weight: float = 1.0
    """Weight of the part, over all its ops, in the mean of the range."""
    themes: list[str] | None = None
    """Only problems of these themes; default: all."""

    def __post_init__(self) -> None:
        check_settings("ranges", self, {"op": COUNT, "weight": POSITIVE})


@dataclass(frozen=True)
class Claim:
    """A prediction about the difference between a variant and others."""

    __pydantic_config__ = {"extra": "forbid"}

    name: str
    """A short name, unique in the study."""
    text: str
    """The claim in words."""
    range: str
    """Name of a range of the study."""
    variant: str
    """The variant that the claim is about."""
    against: list[str] = field(default_factory=list)
    """The variants it is compared with; of several, the one that scores highest. Default: itself, at stage
    `against_stage`."""
    metric: Literal["verified", "answer", "sound", "gap", "process_accuracy"] = "verified"
    """The score. gap: answer minus verified, the share of right answers with a wrong step."""
    k: int | list[int] = 1
    """k of pass@k, or several, each with a verdict; not used by process_accuracy. Default: the study's k."""
    graphs: Literal["all", "unseen"] = "all"
    """unseen: only problems whose graph no training stage of the variants compared has shown, with the same seed."""
    stage: str | None = None
    """The stage after which the variant is scored; default: its last."""
    against_stage: str | None = None
    """The stage after which the others are scored; default: their last."""
    at_least: float | None = None
    """The claim holds if the whole 95 % interval of the difference is at or above this, and fails if all is below."""
    at_most: float | None = None
    """The claim holds if the whole interval is at or below this, and fails if all is above."""
    within: float | None = None
    """The claim holds if the whole interval is between minus this and this, and fails if all is on one side of it."""

    def __post_init__(self) -> None:
        limits = {"at_least": Range(-1, 1), "at_most": Range(-1, 1), "within": Range(0, 1, open_low=True)}
        check_settings(f"claims: {self.name}", self, {"k": COUNT, **limits})
        if not self.ks or len(set(self.ks)) < len(self.ks):
            raise ValueError(f"claims: {self.name}: k must be distinct numbers, at least one, got {self.k}")
        if sum(bound is not None for bound in (self.at_least, self.at_most, self.within)) != 1:
            raise ValueError(f"claims: {self.name} must have exactly one of at_least, at_most and within")
        if not self.against and self.against_stage is None:
            raise ValueError(f"claims: {self.name} must have against or against_stage")

    @property
    def others(self) -> list[str]:
        return self.against or [self.variant]

    @property
    def ks(self) -> list[int]:
        return [self.k] if isinstance(self.k, int) else self.k

    @property
    def rule(self) -> tuple[str, float]:
        """at least, at most or within, and the bound."""
        bounds = {"at least": self.at_least, "at most": self.at_most, "within": self.within}
        return next((rule, bound) for rule, bound in bounds.items() if bound is not None)


@dataclass(frozen=True)
class Study:
    """Recipes by variant, each run with every seed, and claims about them."""

    __pydantic_config__ = {"extra": "forbid"}

    name: str
    """Name shown in the report; the default directory is runs/NAME."""
    seeds: list[int]
    """Each seed gives every variant a run with its own weights, problems and samples; evaluation problems are
    shared."""
    variants: dict[str, Recipe]
    """The fully resolved recipe of each variant, in report order."""
    ranges: dict[str, list[RangePart]] = field(default_factory=dict)
    """Sets of problems that scores are averaged over."""
    claims: list[Claim] = field(default_factory=list)
    """The claims to test."""
    about: str = ""
    """The question, in a few sentences."""
    notes: dict[str, str] = field(default_factory=dict)
    """A one-line note on each variant."""
    size: str | None = None
    """The size of the recipe."""

    def __post_init__(self) -> None:
        check_name("study: name", self.name)
        if self.size is not None:
            check_name("study: size", self.size)
        check_settings("study", self, {"seeds": SEED})
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"study: seeds must be distinct numbers, at least one, got {self.seeds}")
        if not self.variants:
            raise ValueError("study: must have at least one variant")
        for name in self.variants:
            if not re.fullmatch(r"[\w.+ -]+", name):
                raise ValueError(
                    f"study: the name of a variant must be of letters, digits, spaces and . + - _, got {name!r}"
                )
        if len({claim.name for claim in self.claims}) < len(self.claims):
            raise ValueError(f"study: claims must have distinct names, got {[claim.name for claim in self.claims]}")
        for claim in self.claims:
            self._check(claim)

    def _check(self, claim: Claim) -> None:
        if claim.range not in self.ranges:
            raise ValueError(f"claims: {claim.name}: range must be one of {list(self.ranges)}, got {claim.range!r}")
        for name, stage in [(claim.variant, claim.stage), *((other, claim.against_stage) for other in claim.others)]:
            if name not in self.variants:
                raise ValueError(f"claims: {claim.name}: no variant {name!r}; there are {', '.join(self.variants)}")
            recipe = self.variants[name]
            if stage is not None and stage not in recipe.stage_names:
                raise ValueError(f"claims: {claim.name}: variant {name} has no stage {stage!r}")
            if stage is not None and not recipe.plan[recipe.stage_names.index(stage)].evaluate:
                raise ValueError(f"claims: {claim.name}: variant {name} does not evaluate stage {stage!r}")
            if max(claim.ks) > recipe.evaluate.samples:
                raise ValueError(
                    f"claims: {claim.name}: k must be in 1 .. samples = {recipe.evaluate.samples}, got {max(claim.ks)}"
                )
            evaluated = set(Mixture.from_dict(recipe.evaluate.mixture).ops)
            if missing := sorted({op for part in self.ranges[claim.range] for op in part.op} - evaluated):
                raise ValueError(f"claims: {claim.name}: op {missing[0]} of {claim.range!r} is not evaluated")

    @classmethod
    def of(cls, recipe: Recipe) -> Study:
        """The study whose only variant is this recipe, with its own seed and the ranges of its evaluation."""
        return cls(recipe.name, [recipe.seed], {recipe.name: recipe}, ranges=_ranges_of(recipe))

    @property
    def is_run(self) -> bool:
        """Whether it is one run: one variant with one seed."""
        return len(self.variants) == len(self.seeds) == 1

    def mixtures(self) -> list[Mixture]:
        """All mixtures of all variants, which share one vocabulary so that stages can be shared."""
        return [mixture for recipe in self.variants.values() for mixture in recipe.mixtures()]

    def to_dict(self) -> dict[str, Any]:
        """The recipe as plain values, without fields that are None."""
        variants = {name: recipe.to_dict() for name, recipe in self.variants.items()}
        return without_none(asdict(self) | {"variants": variants})

    def save(self, path: Path) -> None:
        path.write_text(toml_text(self.to_dict()), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Study:
        """Loads a file written by `save`."""
        return validated(cls, with_current_names(read_toml(path)), f"recipe {path}")


def _ranges_of(recipe: Recipe) -> dict[str, list[RangePart]]:
    """What the recipe calls in-distribution, edge or otherwise, or else all ops that it evaluates."""
    ops = Mixture.from_dict(recipe.evaluate.mixture).ops
    named = recipe.evaluation_ranges() or {"all ops": {",".join(map(str, ops)): 1.0}}
    return {
        name: [RangePart(parse_range(text), weight) for text, weight in parts.items()] for name, parts in named.items()
    }


def load_study(
    name_or_path: str | Path,
    overrides: Mapping[str, Any] | None = None,
    *,
    size: str | None = None,
    seeds: list[int] | None = None,
    change: Callable[[Recipe], Recipe] | None = None,
) -> Study:
    """Loads a study from a recipe that ships or a TOML file.

    Args:
        name_or_path: one of `available_recipes()` or a path that ends in .toml.
        overrides: values by dotted name for the recipe that all variants start from; variants take precedence.
        size: one of the recipe's `sizes`, if it has any.
        seeds: replace those of the recipe.
        change: applied to the recipe that all variants start from.
    Raises:
        ValueError: there is no such recipe, or a field is unknown or has the wrong type or range.
    """
    values, source = read_recipe(name_or_path, overrides, size), str(name_or_path)
    base = {name: value for name, value in values.items() if name not in _STUDY_ONLY}
    if "seed" in (overrides or {}) and (seeds is not None or "seeds" in values):
        raise ValueError(f"recipe {source}: seed (--seed) has no effect, since seeds (--seeds) replace it")
    _check_effects(values, source)
    study: dict[str, Any] = {name: values[name] for name in ("name", "about", "ranges") if name in values}
    study["claims"] = [{"k": values["k"], **claim} if "k" in values else claim for claim in values.get("claims", [])]
    if change is not None or "variants" not in values:
        recipe = recipe_from_dict(base, source)
        recipe = recipe if change is None else change(recipe)
        base = recipe.to_dict()
    if "variants" in values:
        study |= _variants(values, base, source)
    else:
        study = {"ranges": _ranges_of(recipe), **study, "name": recipe.name, "variants": {recipe.name: recipe}}
    study |= {"seeds": values.get("seeds", [base.get("seed", 0)]) if seeds is None else seeds, "size": size}
    return validated(Study, study, f"recipe {source}")


def _check_effects(values: Mapping[str, Any], source: str) -> None:
    """A setting that nothing would read is an error, and not another study than was meant."""
    variants = values.get("variants", [])
    variants = [v for v in variants if isinstance(v, Mapping)] if isinstance(variants, list) else []
    unread = [
        ("compute", not any(v.keys() & {"beta", "split"} for v in variants), "since no variant has a beta or a split"),
        ("k", not values.get("claims"), "since there are no claims"),
    ]
    for name, unused, why in unread:
        if name in values and unused:
            raise ValueError(f"recipe {source}: {name} has no effect, {why}")
    for variant in variants:
        where = f"recipe {source}: variants: {variant.get('name')}"
        if "times" in variant and "split" not in variant:
            raise ValueError(f"{where}: times has no effect, without a split")
        if "seed" in variant:
            raise ValueError(f"{where}: seed has no effect, since every variant is run with every seed of seeds")


def _variants(values: Mapping[str, Any], base: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Variants and notes of a recipe that has variants."""
    variants = values["variants"]
    if not isinstance(variants, list) or not all(isinstance(v, Mapping) and "name" in v for v in variants):
        raise ValueError(f"recipe {source}: variants must be tables with a name, as in [[variants]]")
    try:
        recipes = {v["name"]: _variant(base, v, values.get("compute")) for v in variants}
    except ValueError as error:
        raise ValueError(f"recipe {source}: {error}") from None
    return {"variants": recipes, "notes": {variant["name"]: variant.get("note", "") for variant in variants}}


def _variant(base: Mapping[str, Any], variant: Mapping[str, Any], compute: str | None) -> dict[str, Any]:
    """The values of a variant's recipe."""
    changes = {name: value for name, value in variant.items() if name not in _VARIANT_ONLY}
    removed = list(variant.get("remove", []))
    given = [name for name in ("beta", "split") if name in variant]
    if given:
        if compute is None:
            raise ValueError(
                f"variants: {variant['name']} has a {given[0]}, so the recipe must have compute, for example "
                "'1e6 tokens'"
            )
        if len(given) > 1:
            raise ValueError(f"variants: {variant['name']}: beta and split exclude each other")
        whole = Budget.parse(compute)
        if "beta" in variant:
            parts = dict(zip(("midtrain", "rl"), split(whole, variant["beta"]), strict=True))
        else:
            parts = _split(f"variants: {variant['name']}", whole, variant["split"], variant.get("times", 1))
        removed += [stage for stage, part in parts.items() if part is None]
        changes = merge(changes, {stage: {"budget": str(part)} for stage, part in parts.items() if part is not None})
    try:
        return without_stages(spell_stages(merge(base, changes)), removed)
    except ValueError as error:
        raise ValueError(f"variants: {variant['name']}: {error}") from None


def _split(what: str, whole: Budget, shares: Any, times: Any) -> dict[str, Budget | None]:
    """The budget of each stage of `times` the compute; a share of 0 is None: the stage is left out."""
    if whole.unit not in ("flop", "seconds"):
        raise ValueError(f"{what}: split needs compute in flop or seconds, got {whole}")
    if times not in POSITIVE:
        raise ValueError(f"{what}: times must be {POSITIVE}, got {times!r}")
    if not isinstance(shares, Mapping) or any(share not in SHARE for share in shares.values()):
        raise ValueError(f"{what}: split must be a share {SHARE} of each of some stages, got {shares!r}")
    if shares and abs(sum(shares.values()) - 1) > 1e-9 and any(shares.values()):
        raise ValueError(f"{what}: the shares of split must sum to 1, or all be 0, got {shares!r}")
    amounts = {stage: float(f"{share * times * whole.amount:.12g}") for stage, share in shares.items()}
    return {stage: Budget(**{whole.unit: amount}) if amount else None for stage, amount in amounts.items()}
