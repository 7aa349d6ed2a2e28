"""The figures of scores: pass@k over k and by op, levels of rightness, failure kinds, claims. Each has its data as CSV,
where shares are of 1 as in results.json.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from ..studies.effects import level, values_of
from ..studies.stages import STAGE_NAMES
from ..studies.study import RangePart, Study
from ..studies.study_scores import StudyScores
from .charts import Row, Series, interval_chart, line_chart, share_chart

Figure = dict[str, str]
LEVELS = {"answer": "right answer", "verified": "verified", "sound": "sound"}


def figure(title: str, chart: str, name: str, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> Figure:
    """A chart with its heading, and its data as a link to a CSV file."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([f"{v:.6g}" if isinstance(v, float) else v for v in row] for row in rows)
    link = "data:text/csv;charset=utf-8," + quote(file.getvalue())
    return {"title": title, "chart": chart, "file": name + ".csv", "csv": link}


def lines_of(study: Study) -> list[tuple[int, str, str, str | None]]:
    """(style, name, variant, stage) of each line: variants after their last stage, or the stages of the only one."""
    if len(study.variants) > 1:
        return [(style, name, name, None) for style, name in enumerate(study.variants)]
    ((variant, recipe),) = study.variants.items()
    stages = [stage.name for stage in recipe.plan if stage.evaluate]
    return [(style, STAGE_NAMES[stage], variant, stage) for style, stage in enumerate(stages)]


def what_lines_are(study: Study) -> str:
    return "variant" if len(study.variants) > 1 else "stage"


def claims_figure(results: Mapping[str, Any]) -> Figure:
    """The effect of each claim in points, with its bound or bounds."""
    rows, lines = [], []
    for claim in results["claims"]:
        if claim["effect"] is None:
            continue
        low, high = claim["interval"]
        bounds = [100 * claim["bound"] * sign for sign in ((-1, 1) if claim["rule"] == "within" else (1,))]
        name = f"{claim['name']}, k = {claim['k']}"
        rows.append(Row(name, [("", 100 * claim["effect"], 100 * low, 100 * high, 0)], bounds))
        by_seed = " ".join(f"{value:.6g}" for value in claim["by_seed"])
        head = [claim[name] for name in ("name", "k", "graphs", "verdict", "over_all", "effect")]
        lines.append([*head, low, high, claim["rule"], claim["bound"], by_seed])
    chart = interval_chart(
        rows,
        title="Effect of each claim with its 95 % interval",
        x_label="effect in points; dotted: smallest effect that counts",
    )
    header = ["claim", "k", "graphs", "verdict", "over_all", "effect", "low", "high", "rule", "bound", "by_seed"]
    return figure("Effects", chart, "claims", header, lines)


def pass_figures(study: Study, scores: StudyScores) -> list[Figure]:
    """Verified pass@k over k, one figure per range, one line per variant or stage."""
    figures = []
    for name, parts in study.ranges.items():
        series, table = [], []
        for style, line, variant, stage in lines_of(study):
            points, intervals = [], []
            for k in study.variants[variant].evaluate.k:
                if by_seed := scores.by_seed(variant, name, "verified", k, stage):
                    found = level(by_seed)
                    points.append((float(k), found.effect))
                    intervals.append(found.interval)
                    table.append([line, k, found.effect, *found.interval, len(by_seed)])
            if points:
                series.append(Series(line, points, style, intervals))
        chart = line_chart(
            series,
            title=f"Verified pass@k over k, {name}",
            x_label="k",
            y_label="verified pass@k",
            share=True,
            log_x=True,
        )
        header = [what_lines_are(study), "k", "verified", "low", "high", "seeds"]
        figures.append(figure(f"{name} ({range_text(parts)})", chart, f"pass-at-k-{file_name(name)}", header, table))
    return figures


def op_figures(study: Study, scores: StudyScores) -> list[Figure]:
    """Verified pass@1, and pass@k at the largest k, by op."""
    return [_op_figure(study, scores, k) for k in ks_shown(study)]


def ks_shown(study: Study) -> list[int]:
    """1 and the largest k that all variants have."""
    return sorted({1, min(max(recipe.evaluate.k) for recipe in study.variants.values())})


def _op_figure(study: Study, scores: StudyScores, k: int) -> Figure:
    series, table = [], []
    for style, line, variant, stage in lines_of(study):
        entries = scores.entries(variant, stage)
        samples = study.variants[variant].evaluate.samples
        points, intervals = [], []
        for op in sorted(entries[0]["problems"], key=int) if entries else []:
            part = [RangePart(op=[int(op)])]
            found = level([values_of(entry["problems"], part, "verified", k, samples) for entry in entries])
            points.append((float(op), found.effect))
            intervals.append(found.interval)
            table.append([line, int(op), found.effect, *found.interval])
        if points:
            series.append(Series(line, points, style, intervals))
    chart = line_chart(
        series,
        title=f"Verified pass@{k} by number of operations",
        x_label="op (arithmetic operations of the problem)",
        y_label=f"verified pass@{k}",
        share=True,
        integer_x=True,
    )
    header = [what_lines_are(study), "op", "verified", "low", "high"]
    return figure(f"pass@{k} by op", chart, f"pass-at-{k}-by-op", header, table)


def level_figures(study: Study, scores: StudyScores) -> list[Figure]:
    """Right answers, verified and sound samples at k = 1, one figure per range."""
    figures = []
    for name in study.ranges:
        rows, table = [], []
        for _, line, variant, stage in lines_of(study):
            values = []
            for style, (metric, what) in enumerate(LEVELS.items()):
                if by_seed := scores.by_seed(variant, name, metric, 1, stage):
                    found = level(by_seed)
                    low, high = found.interval
                    values.append((what, 100 * found.effect, 100 * low, 100 * high, style))
                    table.append([line, metric, found.effect, *found.interval])
            if values:
                rows.append(Row(line, values))
        title = f"Right answers, verified and sound samples, {name}"
        chart = interval_chart(rows, title=title, x_label="share of samples, %", limits=(0.0, 100.0))
        header = [what_lines_are(study), "level", "share", "low", "high"]
        figures.append(figure(name, chart, f"levels-{file_name(name)}", header, table))
    return figures


def failure_figures(study: Study, scores: StudyScores) -> list[Figure]:
    """Shares of failure kinds among all samples of a range, if the evaluation has them."""
    figures = []
    for name, parts in study.ranges.items():
        if any(part.themes for part in parts):
            continue  # failure kinds are known by op only
        rows, table = [], []
        for _, line, variant, stage in lines_of(study):
            shares = failure_shares([entry["ops"] for entry in scores.entries(variant, stage)], parts)
            if shares:
                rows.append((line, list(shares.items())))
                table += [[line, kind, share] for kind, share in shares.items()]
        if rows:
            chart = share_chart(rows, title=f"Failure kinds, {name}")
            header = [what_lines_are(study), "kind", "share"]
            figures.append(figure(name, chart, f"failures-{file_name(name)}", header, table))
    return figures


def failure_shares(by_seed: Sequence[Mapping[str, Any]], parts: Sequence[RangePart]) -> dict[str, float]:
    """The share of each kind, without NONE, so that a bar ends where success begins."""
    shares: dict[str, float] = {}
    total = sum(part.weight for part in parts)
    for ops in by_seed:
        for part in parts:
            for op in part.op:
                for kind, share in ops[str(op)].get("failures", {}).items():
                    if kind.lower() != "none":
                        weight = part.weight / total / len(part.op) / len(by_seed)
                        kind = kind.lower().replace("_", " ")
                        shares[kind] = shares.get(kind, 0.0) + weight * share
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def range_text(parts: Sequence[RangePart]) -> str:
    """op 2-4, 5-7 (20, 80 %), themes zoo"""
    texts, total = [], sum(part.weight for part in parts)
    for part in parts:
        ops = sorted(part.op)
        plain = len(ops) > 1 and ops == list(range(ops[0], ops[-1] + 1))
        texts.append(f"{ops[0]}-{ops[-1]}" if plain else ", ".join(map(str, ops)))
    text = "op " + ", ".join(texts)
    if len(parts) > 1:
        text += f" by {', '.join(f'{100 * part.weight / total:.0f}' for part in parts)} %"
    themes = dict.fromkeys(theme for part in parts for theme in part.themes or [])
    return text + (f", theme {', '.join(themes)}" if themes else "")


def file_name(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name)
