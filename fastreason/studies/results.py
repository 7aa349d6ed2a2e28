"""The results of a study: results.json, from its finished units."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..runtime.files import read_whole
from ..runtime.machine import describe_machine
from ..runtime.metrics_log import MetricsLog
from ..runtime.old_names import with_current_names
from ..tasks.mixture import Mixture
from .claims import effects_table, judged_claims
from .recipe import Recipe
from .study import Study
from .study_scores import scores_after
from .work_units import Run, code_version, distinct_units


def smooth(points: Sequence[tuple[float, float]], most: int = 60) -> list[tuple[float, float]]:
    """Means over at most `most` runs of consecutive points; NaN values are skipped."""
    points = [point for point in points if math.isfinite(point[1])]
    size = _per_point(len(points), most)
    runs = [points[i : i + size] for i in range(0, len(points), size)]
    return [(run[-1][0], sum(y for _, y in run) / len(run)) for run in runs]


def _per_point(count: int, most: int = 60) -> int:
    return max(1, -(-count // most))


_CURVES = {
    "rl": ("reward", "zero_advantage", "answer_correct", "verified", "finished", "mean_length", "entropy", "kl"),
    "supervised": ("loss",),
    "self": ("loss",),
}


def collect(study: Study, runs: Sequence[Run], stages: Path) -> dict[str, Any]:
    """The content of results.json: everything in the report, from finished units.

    Returns:
        {"study": name, "size", "seeds", "code", "machine", "finished": bool,
        "variants": {NAME: {"note", "samples", "runs": {SEED: {STAGE: {"unit": key, "evaluation": key}}}}},
        "units": {KEY: what the unit took, its curve and warnings}, "scores": {KEY: what `evaluate` returned},
        "claims": [...], "effects": [...]}, see `claims`

        Of a single run, instead of "scores", {"recipe": name, "seed", "ranges": {"in-distribution", "edge": ops},
        "stages": {STAGE: what `evaluate` returned}, "seconds", "tokens", "evaluation_seconds": {STAGE: number}}
    """
    results: dict[str, Any] = {"study": study.name, "size": study.size, "seeds": study.seeds, "about": study.about}
    results |= {"code": code_version(), "machine": describe_machine(), "variants": {}, "units": {}, "scores": {}}
    for name, recipe in study.variants.items():
        note, samples = study.notes.get(name, ""), recipe.evaluate.samples
        results["variants"][name] = {"note": note, "samples": samples, "k": recipe.evaluate.k, "runs": {}}
    for run in runs:
        keys = {
            stage: {"unit": unit.key} | ({} if evaluation is None else {"evaluation": evaluation.key})
            for stage, (unit, evaluation) in run.stages.items()
        }
        results["variants"][run.variant]["runs"][str(run.seed)] = keys
    units = distinct_units(list(runs))
    for unit in units:
        done = unit.outcome(stages)
        if done is None:
            continue
        if unit.kind == "evaluate":
            results["scores"][unit.key] = done.pop("scores")
        done["machine"] = {name: done["machine"].get(name) for name in ("cpu", "gpu", "threads")}
        results["units"][unit.key] = {"kind": unit.kind, "loop": unit.loop, "seed": unit.seed, **done}
        if unit.loop in _CURVES:
            lines = _lines_of(stages / unit.key / "metrics.jsonl", done.get("step", 0))
            warnings = [{"step": line["step"], "text": text} for line in lines for text in line.get("warnings", ())]
            results["units"][unit.key] |= {"curve": _curve(lines, unit.loop), "warnings": warnings}
    results["finished"] = len(results["units"]) == len(units)
    results |= {"claims": judged_claims(study, results), "effects": effects_table(study, results)}
    return results | _by_stage(study, results) if study.is_run else results


_ALWAYS = {"study", "seeds", "code", "machine", "variants", "units", "finished"}


def load_results(command: str, folder: Path) -> tuple[Study, dict[str, Any]]:
    """study.toml and results.json of a directory.

    Args:
        command: named in errors.
    Raises:
        ValueError: one of them does not exist or was cut, or the results are not those of the study: one of its
            variants, seeds or ops is not in them.
    """
    for name in ("study.toml", "results.json"):
        if not (folder / name).is_file():
            raise ValueError(f"{command}: {folder / name} does not exist")
    study, path = Study.load(folder / "study.toml"), folder / "results.json"
    results = read_whole(path)
    if not isinstance(results, dict) or not set(results) >= _ALWAYS or not {"scores", "stages"} & set(results):
        raise ValueError(f"{command}: {path} does not hold the results of a study")
    results = with_current_names(results)
    if missing := next(_missing(study, results), None):
        raise ValueError(f"{command}: {path} has no {missing}, which {folder / 'study.toml'} has")
    return study, results


def _missing(study: Study, results: Mapping[str, Any]) -> Iterator[str]:
    """What the study has and its results have not; finished or not, they name all runs."""
    for name, recipe in study.variants.items():
        runs = results["variants"].get(name, {}).get("runs")
        if runs is None:
            yield f"variant {name}"
            continue
        for seed in study.seeds:
            of = f"of variant {name}, seed {seed}"
            if str(seed) not in runs:
                yield f"run {of}"
            for stage, keys in runs.get(str(seed), {}).items():
                scores = scores_after(results, stage, keys)
                yield from (f"{what} {of}, {stage}" for what in _missing_scores(recipe, scores))


def _missing_scores(recipe: Recipe, scores: Mapping[str, Any] | None) -> Iterator[str]:
    if scores is not None:
        ops = Mixture.from_dict(recipe.evaluate.mixture).ops
        yield from (f"op {op}" for op in ops if str(op) not in scores["problems"])


def _by_stage(study: Study, results: dict[str, Any]) -> dict[str, Any]:
    """The entries of a single run by stage; takes the scores out of `results`."""
    ((name, recipe),), (seed,) = study.variants.items(), study.seeds
    units, scores = results["units"], results.pop("scores")
    keys = results["variants"][name]["runs"][str(seed)]
    done = {s: (key["unit"], key["evaluation"]) for s, key in keys.items() if key.get("evaluation") in scores}
    return {
        "recipe": recipe.name,
        "seed": seed,
        "ranges": {"in-distribution": recipe.in_distribution, "edge": recipe.edge},
        "stages": {stage: scores[evaluation] for stage, (_, evaluation) in done.items()},
        "seconds": {stage: round(units[unit]["seconds"], 3) for stage, (unit, _) in done.items()},
        "tokens": {stage: units[unit]["tokens"] for stage, (unit, _) in done.items()},
        "evaluation_seconds": {stage: units[evaluation]["seconds"] for stage, (_, evaluation) in done.items()},
    }


def _lines_of(path: Path, last_step: int) -> list[dict[str, Any]]:
    """The metrics of a finished stage; none if the file was left out."""
    lines = MetricsLog(path).read()
    found = lines[-1].get("step", 0) if lines else 0
    if path.exists() and found < last_step:
        raise ValueError(
            f"{path}: ends at step {found} of {last_step}, so it was cut; remove {path.parent} and resume to train the "
            "stage again, or the file alone to go on without its curve"
        )
    return lines


def _curve(lines: Sequence[Mapping[str, Any]], kind: str) -> dict[str, Any]:
    """Columns of metrics.jsonl, smoothed to 60 points, where these are, and how many lines each is the mean of."""
    x = "step" if kind == "rl" else "tokens"
    columns: dict[str, Any] = {}
    for name in _CURVES[kind]:
        found = [(line[x], line[name]) for line in lines if math.isfinite(line.get(name, math.nan))]
        if points := smooth(found):
            columns[name] = [float(f"{y:.6g}") for _, y in points]
            # not all lines have every column, such as the entropy of steps with an update
            for what, value in ((x, [float(at) for at, _ in points]), ("lines_per_point", _per_point(len(found)))):
                columns[what if columns.setdefault(what, value) == value else f"{what} of {name}"] = value
    return columns
