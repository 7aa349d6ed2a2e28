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
    "rl": ("reward", "zero_advantage", "answer_correct", "verified", "finished"),
    "pretrain": ("loss",),
    "midtrain": ("loss",),
}


def collect(study: Study, runs: Sequence[Run], stages: Path) -> dict[str, Any]:
    """The content of results.json: everything in the report, from finished units.

    Returns:
        {"study": name, "size", "seeds", "code", "machine", "finished": bool,
        "variants": {NAME: {"note", "samples", "runs": {SEED: {STAGE: {"unit": key, "evaluation": key}}}}},
        "units": {KEY: what the unit took, its curve and warnings}, "scores": {KEY: what `evaluate` returned},
        "claims": [...]}

        Of a single run, instead of "scores", {"recipe": name, "seed", "ranges": {"in-distribution", "edge": ops},
        "stages": {STAGE: what `evaluate` returned}, "seconds", "tokens", "evaluation_seconds": {STAGE: number}}
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
            lines = MetricsLog(stages / unit.key / "metrics.jsonl").read()
            warnings = [{"step": line["step"], "text": text} for line in lines for text in line.get("warnings", ())]
            results["units"][unit.key] |= {"curve": _curve(lines, unit.kind), "warnings": warnings}
    results["finished"] = len(results["units"]) == len(units)
    results["claims"] = [_claim(claim, study, results) for claim in study.claims]
    return results | _by_stage(study, results) if study.is_run else results


def _by_stage(study: Study, results: dict[str, Any]) -> dict[str, Any]:
    """The entries of a single run by stage; takes the scores out of `results`."""
    ((name, recipe),), (seed,) = study.variants.items(), study.seeds
    units, scores = results["units"], results.pop("scores")
    keys = results["variants"][name]["runs"][str(seed)]
    done = {stage: (key["unit"], key["evaluation"]) for stage, key in keys.items() if key["evaluation"] in scores}
    return {
        "recipe": recipe.name,
        "seed": seed,
        "ranges": {"in-distribution": recipe.in_distribution, "edge": recipe.edge},
        "stages": {stage: scores[evaluation] for stage, (_, evaluation) in done.items()},
        "seconds": {stage: round(units[unit]["seconds"], 3) for stage, (unit, _) in done.items()},
        "tokens": {stage: units[unit]["tokens"] for stage, (unit, _) in done.items()},
        "evaluation_seconds": {stage: units[evaluation]["seconds"] for stage, (_, evaluation) in done.items()},
    }


def scores_by_stage(results: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The results of `evaluate` for the first variant, by stage and finished seed."""
    runs = next(iter(results["variants"].values()))["runs"]
    found: dict[str, list[dict[str, Any]]] = {}
    for keys in runs.values():
        for stage, key in keys.items():
            scores = _scores(results, stage, key)
            found.setdefault(stage, []).extend([] if scores is None else [scores])
    return found


def graph_parts(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Verified pass@k of problems with seen and with unseen graphs for the first variant.

    Returns:
        One {"stage", "kind": training or rl, "part": seen or unseen, "bound", "ops": {OP: (problems, {K: share})}} per
        stage, kind and part. Shares are means over the problems of all finished seeds; an op without any is left out.
    """
    rows = []
    for stage, by_seed in scores_by_stage(results).items():
        for kind in ("training", "rl"):
            splits = [scores["graphs"][kind] for scores in by_seed if kind in scores.get("graphs", {})]
            for part in ("seen", "unseen") if splits else ():
                ops = {}
                for op in splits[0]["ops"]:
                    entries = [split["ops"][op][part] for split in splits if part in split["ops"][op]]
                    if problems := sum(entry["problems"] for entry in entries):
                        ops[op] = (problems, _pooled(entries, problems))
                bounds = {split["bound"] for split in splits}
                bound = bounds.pop() if len(bounds) == 1 else "about"
                rows.append({"stage": stage, "kind": kind, "part": part, "bound": bound, "ops": ops})
    return rows


def _pooled(entries: Sequence[Mapping[str, Any]], problems: int) -> dict[str, float]:
    """Verified pass@k over the problems of all entries, `problems` in total."""
    shares = entries[0]["verified"]
    return {k: sum(entry["problems"] * entry["verified"][k] for entry in entries) / problems for k in shares}


def _scores(results: Mapping[str, Any], stage: str, keys: Mapping[str, str]) -> dict[str, Any] | None:
    scores: dict[str, Any] | None
    scores = results["stages"].get(stage) if "stages" in results else results["scores"].get(keys["evaluation"])
    return scores


def _curve(lines: Sequence[Mapping[str, Any]], kind: str) -> dict[str, list[float]]:
    """Columns of metrics.jsonl, smoothed to 60 points."""
    x = "step" if kind == "rl" else "tokens"
    columns: dict[str, list[float]] = {}
    for name in _CURVES[kind]:
        if points := smooth([(line[x], line[name]) for line in lines if name in line]):
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
        stage = stage if stage is not None else list(keys)[-1]
        return _scores(self.results, stage, keys[stage])

    def entries(self, variant: str, stage: str | None = None) -> list[dict[str, Any]]:
        """`entry` of the seeds that are finished."""
        found = [self.entry(variant, seed, stage) for seed in self.study.seeds]
        return [entry for entry in found if entry is not None]

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
