"""The study behind bench_budget: a budget of FLOP, its model, and one variant for each split over the stages.

Everything that can be chosen stands in budget.toml; here it becomes a `fastreason.studies.study.Study`, whose stages
run once however many splits share them, and go on after a stop.
"""

from __future__ import annotations

import json
import math
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from fastreason.model.flop import block_weights, head_weights
from fastreason.runtime.files import write_text
from fastreason.runtime.json_files import to_json
from fastreason.runtime.stop_request import StopRequest
from fastreason.studies.recipe import STAGES, merge, read_recipe, validated
from fastreason.studies.run_study import prepare, run_study, work_through
from fastreason.studies.study import Study
from fastreason.studies.work_units import Unit, distinct_units, study_runs
from fastreason.text.tokenizer import Tokenizer

RECIPE = Path(__file__).with_name("budget.toml")
LEAST, MOST = 1e10, 1e19


@dataclass(frozen=True)
class Split:
    """Shares of the FLOP by stage, sum 1."""

    __pydantic_config__ = {"extra": "forbid"}

    name: str
    note: str = ""
    pretrain: float = 0.0
    midtrain: float = 0.0
    rl: float = 0.0

    def __post_init__(self) -> None:
        shares = [self.share(stage) for stage in STAGES]
        if min(shares) < 0 or not math.isclose(sum(shares), 1.0):
            raise ValueError(f"splits: the shares of {self.name} must be >= 0 and sum to 1, got {shares}")

    def share(self, stage: str) -> float:
        return float(getattr(self, stage))


@dataclass(frozen=True)
class Model:
    """A row of the table of models."""

    __pydantic_config__ = {"extra": "forbid"}

    name: str
    size: str
    """Of the recipe's sizes: which problems it learns."""
    set: dict[str, Any] = field(default_factory=dict)
    """Fields by dotted name that it does not share with others of its size."""


@dataclass(frozen=True)
class Case:
    """A budget with its model, and the study that spends it in every split."""

    flop: float
    model: str
    weights: int
    """Of the model, those that multiply."""
    splits: list[Split]
    study: Study


def load_case(
    flop: float,
    *,
    seeds: Sequence[int] = (0,),
    only: Sequence[str] = (),
    recipe: Path = RECIPE,
    overrides: Mapping[str, Any] | None = None,
) -> Case:
    """The case of a budget.

    Args:
        flop: 1e10 .. 1e19.
        seeds: of the study.
        only: names of splits; default: all.
        recipe: a file like budget.toml.
        overrides: values by dotted name, over those of the model that the table chose.
    Raises:
        ValueError: flop out of range, an unknown split, or a recipe that does not fit.
    """
    if not LEAST <= flop <= MOST:
        raise ValueError(f"--flop must be in {LEAST:g} .. {MOST:g}, got {flop:g}")
    with recipe.open("rb") as file:
        tables = tomllib.load(file)
    splits = validated(list[Split], tables["splits"], f"{recipe.name}, splits")
    if unknown := set(only) - {split.name for split in splits}:
        known = ", ".join(split.name for split in splits)
        raise ValueError(f"--splits must be of {known}, got {sorted(unknown)[0]!r}")
    splits = [split for split in splits if split.name in (only or [s.name for s in splits])]
    models = validated(list[Model], tables["models"], f"{recipe.name}, models")
    model = min(models, key=lambda model: _distance(flop, model, splits, recipe))
    study = _study(flop, model, splits, list(seeds), recipe, overrides or {})
    return Case(flop, model.name, multiplying_weights(study), splits, study)


def _distance(flop: float, model: Model, splits: Sequence[Split], recipe: Path) -> float:
    """Of a model as the table has it from the compute-optimal one, as a ratio of weights."""
    weights = multiplying_weights(_study(flop, model, splits, [0], recipe, {}))
    return abs(math.log(weights / compute_optimal_weights(flop)))


def compute_optimal_weights(flop: float) -> float:
    """sqrt(C / 120): 6 FLOP a weight and token, and 20 tokens a weight.

    Source: Hoffmann et al. 2022, arXiv:2203.15556 (its rule of thumb; nobody has fitted it to these problems).

    >>> round(compute_optimal_weights(1e14))
    912871
    """
    return math.sqrt(flop / 120.0)


def multiplying_weights(study: Study) -> int:
    """Weights of the study's model that take part in a product."""
    config = next(iter(study.variants.values())).model.config(len(Tokenizer.for_mixtures(study.mixtures())))
    return block_weights(config) + head_weights(config)


def _study(
    flop: float, model: Model, splits: Sequence[Split], seeds: list[int], recipe: Path, overrides: Mapping[str, Any]
) -> Study:
    values = read_recipe(recipe, {**model.set, **overrides}, model.size)
    base = {name: value for name, value in values.items() if name not in ("splits", "models", "ranges")}
    variants = {split.name: _variant(base, split, flop) for split in splits}
    study = {"name": f"budget-{flop:g}", "seeds": seeds, "size": model.name, "ranges": values["ranges"]}
    study |= {"variants": variants, "notes": {split.name: split.note for split in splits}}
    return validated(Study, study, f"{recipe.name}, {flop:g} FLOP")


def _variant(base: Mapping[str, Any], split: Split, flop: float) -> dict[str, Any]:
    shares = {stage: split.share(stage) for stage in STAGES}
    # rounded: 0.1 * 1e13 and 0.3 * 1e13 - 0.2 * 1e13 must be one stage
    budgets = {stage: {"budget": f"{float(f'{share * flop:.6g}')} flop"} for stage, share in shares.items() if share}
    values = merge(base, budgets)
    return {name: value for name, value in values.items() if name not in STAGES or shares[name]}


def run_case(case: Case, folder: Path, *, seed: int | None = None, jobs: int = 1) -> None:
    """Does what is not finished of a case's stages and evaluations; a later call goes on.

    One process on CPU notes the CPU seconds of every unit beside it, which other work on the machine moves little.

    Args:
        folder: of the case; its stages lie beside it, shared with other cases.
        seed: only this one's, in one process; default: all.
        jobs: processes.

    Raises:
        Interrupted, KeyboardInterrupt: it was asked to stop.
        ValueError: the folder is of another study, or of other code.
    """
    stages = folder.parent / "stages"
    if jobs > 1:
        run_study(case.study, folder, resume=True, jobs=jobs, stages=stages)
        return
    prepare(folder, case.study, resume=True)
    with StopRequest.watch() as stop:
        for unit in distinct_units([run for run in study_runs(case.study) if seed in (None, run.seed)]):
            with _cpu_seconds_noted(unit, stages):
                work_through(case.study, [unit], stages, stop)


@contextmanager
def _cpu_seconds_noted(unit: Unit, stages: Path) -> Iterator[None]:
    """Adds up over interruptions."""
    if unit.outcome(stages) is not None or torch.cuda.is_available():
        yield
        return
    path, begin = stages / unit.key / "cpu.json", time.process_time()
    before = json.loads(path.read_text())["cpu_s"] if path.exists() else 0.0
    try:
        yield
    finally:
        if path.parent.is_dir():
            write_text(path, to_json({"cpu_s": before + time.process_time() - begin}) + "\n")
