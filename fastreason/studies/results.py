"""The results of a study: results.json, from its finished units."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..runtime.machine import describe_machine
from ..runtime.metrics_log import MetricsLog
from .effects import UNFINISHED, Cells, cells_of, difference, verdict
from .recipe import STAGE_NAMES
from .study import Claim, Study
from .work_units import Run, code_version, distinct_units


def smooth(points: Sequence[tuple[float, float]], most: int = 60) -> list[tuple[float, float]]:
    """Means over at most `most` runs of consecutive points; NaN values are skipped."""
    points = [point for point in points if math.isfinite(point[1])]
    size = max(1, -(-len(points) // most))
    runs = [points[i : i + size] for i in range(0, len(points), size)]
    return [(run[-1][0], sum(y for _, y in run) / len(run)) for run in runs]


_CURVES = {
    "rl": ("reward", "silent_groups", "answer_correct", "verified"),
    "pretrain": ("loss",),
    "midtrain": ("loss",),
}


def collect(study: Study, runs: Sequence[Run], stages: Path) -> dict[str, Any]:
    """The content of results.json: everything in the report, from finished units.

    Returns:
        {"study": name, "size", "seeds", "code", "machine", "finished": bool,
        "variants": {NAME: {"note", "samples", "runs": {SEED: {STAGE: {"unit": key, "evaluation": key}}}}},
        "units": {KEY: what the unit took, and its curve}, "scores": {KEY: what `evaluate` returned}, "claims": [...]}
    """
    results: dict[str, Any] = {"study": study.name, "size": study.size, "seeds": study.seeds, "about": study.about}
    results |= {"code": code_version(), "machine": describe_machine(), "variants": {}, "units": {}, "scores": {}}
    for name, recipe in study.variants.items():
        note, samples = study.notes.get(name, ""), recipe.evaluate.samples
        results["variants"][name] = {"note": note, "samples": samples, "k": recipe.evaluate.k, "runs": {}}
    for run in runs:
        keys = {stage: {"unit": a.key, "evaluation": b.key} for stage, (a, b) in run.stages.items()}
        results["variants"][run.variant]["runs"][str(run.seed)] = keys
    units = distinct_units(list(runs))
    for unit in units:
        done = unit.outcome(stages)
        if done is None:
            continue
        if unit.kind == "evaluate":
            results["scores"][unit.key] = done.pop("scores")
        done["machine"] = {name: done["machine"].get(name) for name in ("cpu", "gpu", "threads")}
        results["units"][unit.key] = {"kind": unit.kind, "seed": unit.seed, **done}
        if unit.kind in _CURVES:
            results["units"][unit.key]["curve"] = _curve(stages / unit.key / "metrics.jsonl", unit.kind)
    results["finished"] = len(results["units"]) == len(units)
    results["claims"] = [_claim(claim, study, results) for claim in study.claims]
    return results


def _curve(path: Path, kind: str) -> dict[str, list[float]]:
    """Columns of metrics.jsonl, smoothed to 60 points."""
    lines, x = MetricsLog(path).read(), "step" if kind == "rl" else "tokens"
    columns: dict[str, list[float]] = {}
    for name in _CURVES[kind]:
        points = smooth([(line[x], line[name]) for line in lines if name in line])
        columns |= {x: [float(at) for at, _ in points], name: [float(f"{y:.4g}") for _, y in points]}
    return columns


def _claim(claim: Claim, study: Study, results: Mapping[str, Any]) -> dict[str, Any]:
    """The verdict on a claim, over the seeds with finished runs of all its variants."""
    table = StudyScores(study, results)
    scored: dict[int, list[Cells]] = {}
    for seed in study.seeds:
        wanted = [(claim.variant, claim.stage), *((other, claim.against_stage) for other in claim.others)]
        sides = [table.cells(name, seed, claim.range, claim.metric, claim.k, stage) for name, stage in wanted]
        if all(cells is not None for cells in sides):
            scored[seed] = [cells for cells in sides if cells is not None]
    entry: dict[str, Any] = {"name": claim.name, "text": claim.text, "verdict": UNFINISHED, "effect": None}
    entry |= {"of": _compared(claim)}
    entry |= {"bound": claim.at_least if claim.at_least is not None else claim.at_most, "seeds": list(scored)}
    entry |= {"rule": f"at {'least' if claim.at_least is not None else 'most'}"}
    if scored:
        by_variant = list(zip(*scored.values(), strict=True))
        effect = difference(by_variant[0], by_variant[1:])
        entry |= {"effect": effect.effect, "interval": list(effect.interval), "by_seed": effect.by_seed}
        if len(scored) == len(study.seeds):
            entry["verdict"] = verdict(claim, effect.interval)
    return entry


def _compared(claim: Claim) -> str:
    """verified pass@32, edge: strict against outcome, steps"""
    metric = {"verified": "verified", "answer": "right answer", "sound": "sound", "gap": "right answer minus verified"}
    what = f"{metric[claim.metric]} pass@{claim.k}" if claim.metric in metric else "process accuracy"
    stage = f" after {STAGE_NAMES[claim.stage]}" if claim.stage is not None else ""
    others = ", ".join(claim.against) or "itself"
    others += f" after {STAGE_NAMES[claim.against_stage]}" if claim.against_stage is not None else ""
    return f"{what}, {claim.range}: {claim.variant}{stage} against {others}"


class StudyScores:
    """Per-problem values of results.json by variant, seed and stage."""

    def __init__(self, study: Study, results: Mapping[str, Any]) -> None:
        self.study, self.results = study, results

    def entry(self, variant: str, seed: int, stage: str | None = None) -> dict[str, Any] | None:
        """The result of `evaluate` after a stage (None: the last), if finished."""
        keys = self.results["variants"][variant]["runs"][str(seed)]
        key = keys[stage if stage is not None else list(keys)[-1]]["evaluation"]
        return self.results["scores"].get(key)

    def cells(self, variant: str, seed: int, name: str, metric: str, k: int, stage: str | None = None) -> Cells | None:
        """The values of the problems of a range, from `cells_of`; None if not finished."""
        scores = self.entry(variant, seed, stage)
        if scores is None:
            return None
        samples = self.results["variants"][variant]["samples"]
        return cells_of(scores["problems"], self.study.ranges[name], metric, k, samples)

    def by_seed(self, variant: str, name: str, metric: str, k: int, stage: str | None = None) -> list[Cells]:
        """`cells` for all finished seeds."""
        by_seed = [self.cells(variant, seed, name, metric, k, stage) for seed in self.study.seeds]
        return [cells for cells in by_seed if cells is not None]
