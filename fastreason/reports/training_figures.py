"""The figures of training: what metrics.jsonl says over steps or tokens, with all digits that results.json keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..studies.stages import STAGE_NAMES
from ..studies.study import Study
from .charts import Series, line_chart
from .figures import Figure, figure


@dataclass(frozen=True)
class _Curve:
    """A column of the curves in results.json."""

    loop: str
    """The kind of the stages it is of: rl, or any other."""
    column: str
    title: str
    label: str
    share: bool = False
    minus: str | None = None
    """A column that is subtracted."""


_WANTED = [
    _Curve("rl", "reward", "Reward", "mean reward"),
    _Curve("rl", "verified", "Verified samples in training", "share of samples", True),
    _Curve("rl", "answer_correct", "Right answers in training", "share of samples", True),
    _Curve("rl", "answer_correct", "Right but unverified", "share of samples", True, minus="verified"),
    _Curve("rl", "zero_advantage", "Zero-advantage groups", "share of groups", True),
    _Curve("rl", "finished", "Samples that ended by themselves", "share of samples", True),
    _Curve("rl", "mean_length", "Length of samples", "tokens"),
    _Curve("rl", "entropy", "Entropy", "nats per token"),
    _Curve("rl", "kl", "KL from the reference model", "nats per token"),
    _Curve("supervised", "loss", "Loss", "nats per token"),
]


def training_figures(study: Study, results: Mapping[str, Any]) -> list[Figure]:
    """Those of the stages that are finished, and of the columns that they have."""
    kinds = {stage.name: stage.kind for recipe in study.variants.values() for stage in recipe.plan}
    loops = {name: "rl" if kind == "rl" else "supervised" for name, kind in kinds.items() if kind != "model"}
    wanted = [(stage, curve) for curve in _WANTED for stage, loop in loops.items() if curve.loop == loop]
    return [found for stage, curve in wanted if (found := _figure(study, results, stage, curve))]


def _title(stage: str, curve: _Curve) -> str:
    """The name of a stage is said where there may be several of its kind."""
    if curve.loop != "rl":
        return f"{curve.title} of {STAGE_NAMES[stage]}"
    return curve.title if stage == "rl" else f"{curve.title}, {stage}"


def _figure(study: Study, results: Mapping[str, Any], stage: str, curve: _Curve) -> Figure | None:
    """Means over seeds, with a line for each variant whose stage is not shared with an earlier one."""
    series, table, shown = [], [], set()
    x, label, scale = ("step", "step", 1.0) if curve.loop == "rl" else ("tokens", "million tokens", 1e6)
    needed = [name for name in (curve.column, curve.minus) if name is not None]
    for style, variant in enumerate(study.variants):
        runs = results["variants"][variant]["runs"].values()
        keys = [keys[stage]["unit"] for keys in runs if stage in keys]
        curves = [results["units"][key]["curve"] for key in keys if key in results["units"]]
        if not curves or keys[0] in shown or not all(one.get(name) for one in curves for name in needed):
            continue
        shown.add(keys[0])
        points = [(at / scale, y) for at, y in _mean(curves, x, curve)]
        series.append(Series(variant, points, style, note=_note(curves, curve.column), digits=6))
        table += [[variant, at, value] for at, value in points]
    if not series:
        return None
    chart = line_chart(series, title=_title(stage, curve), x_label=label, y_label=curve.label, share=curve.share)
    name = curve.column if curve.minus is None else f"{curve.column}-minus-{curve.minus}"
    header = ["variant", label.replace(" ", "_"), name.replace("-", "_")]
    return figure(_title(stage, curve), chart, f"{stage}-{name}", header, table)


def _mean(curves: Sequence[Mapping[str, Any]], x: str, curve: _Curve) -> list[tuple[float, float]]:
    """Over seeds, as far as all reach."""
    size = min(len(one[curve.column]) for one in curves)
    at = curves[0].get(f"{x} of {curve.column}", curves[0][x])
    less = [one[curve.minus] if curve.minus is not None else [0.0] * size for one in curves]
    return [
        (
            at[i],
            sum(one[curve.column][i] - off[i] for one, off in zip(curves, less, strict=True)) / len(curves),
        )
        for i in range(size)
    ]


def _note(curves: Sequence[Mapping[str, Any]], column: str) -> str:
    """mean of 3 seeds and 5 lines of metrics.jsonl; nothing where a point is a line."""
    lines = curves[0].get(f"lines_per_point of {column}", curves[0].get("lines_per_point", 1))
    parts = [f"{len(curves)} seeds"] if len(curves) > 1 else []
    parts += [f"{lines} lines of metrics.jsonl"] if lines > 1 else []
    return f"mean of {' and '.join(parts)}" if parts else ""
