"""The report of a study: one self-contained HTML page from study.toml and results.json."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2

from ..runtime.files import read_whole, write_text
from ..studies.effects import level
from ..studies.recipe import STAGE_NAMES
from ..studies.results import StudyScores
from ..studies.study import RangePart, Study
from .charts import STYLES, Row, Series, interval_chart, line_chart, share_chart
from .page_parts import trace_parts

_WIDTH, _HEIGHT = 460, 290


def write_study_report(folder: str | Path) -> Path:
    """Writes `report.html` from study.toml and results.json, and returns its path.

    Raises:
        ValueError: one of them does not exist.
    """
    folder = Path(folder)
    for name in ("study.toml", "results.json"):
        if not (folder / name).is_file():
            raise ValueError(f"report: {folder / name} does not exist")
    study = Study.load(folder / "study.toml")
    results = read_whole(folder / "results.json")
    scores = StudyScores(study, results)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("fastreason.reports", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    page = environment.get_template("study.html").render(
        results=results,
        study=study,
        ranges={name: _range_text(parts) for name, parts in study.ranges.items()},
        styles=STYLES,
        claims=_claims_figure(results),
        pass_figures=_pass_figures(study, scores),
        op_figure=_op_figure(study, scores),
        level_figures=_level_figures(study, scores),
        failure_figures=_failure_figures(study, scores),
        curve_figures=_curve_figures(study, results),
        account=_account(results),
        saved=_saved(results),
        traces=_traces(study, scores),
        recipe_text=(folder / "study.toml").read_text(encoding="utf-8"),
        stage_names=STAGE_NAMES,
    )
    path = folder / "report.html"
    write_text(path, page)
    return path


def _figure(title: str, chart: str, name: str, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> dict[str, str]:
    """A chart with its heading, and its data as a link to a CSV file."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([f"{v:.6g}" if isinstance(v, float) else v for v in row] for row in rows)
    link = "data:text/csv;charset=utf-8," + quote(file.getvalue())
    return {"title": title, "chart": chart, "file": name + ".csv", "csv": link}


def _claims_figure(results: Mapping[str, Any]) -> dict[str, str]:
    measured = [claim for claim in results["claims"] if claim["effect"] is not None]
    rows = [
        Row(
            claim["name"],
            [("", 100 * claim["effect"], *(100 * end for end in claim["interval"]), 0)],
            100 * claim["bound"],
        )
        for claim in measured
    ]
    chart = interval_chart(
        rows,
        title="Effect of each claim with its 95 % interval",
        x_label="effect in points; dotted: smallest effect that counts",
        width=_WIDTH,
    )
    header = ["claim", "verdict", "effect", "low", "high", "rule", "bound", "by_seed"]
    lines = []
    for claim in measured:
        by_seed = " ".join(f"{value:.6g}" for value in claim["by_seed"])
        head = [claim[name] for name in ("name", "verdict", "effect")]
        lines.append([*head, *claim["interval"], claim["rule"], claim["bound"], by_seed])
    return _figure("Effects", chart, "claims", header, lines)


def _variants(study: Study) -> list[tuple[int, str]]:
    return list(enumerate(study.variants))


def _pass_figures(study: Study, scores: StudyScores) -> list[dict[str, str]]:
    """Verified pass@k over k, one figure per range, one line per variant."""
    figures = []
    for name in study.ranges:
        series, table = [], []
        for style, variant in _variants(study):
            points, intervals = [], []
            for k in study.variants[variant].evaluate.k:
                if by_seed := scores.by_seed(variant, name, "verified", k):
                    estimate = level(by_seed, resamples=500)
                    points.append((float(k), estimate.effect))
                    intervals.append(estimate.interval)
                    table.append([variant, k, estimate.effect, *estimate.interval, len(by_seed)])
            if points:
                series.append(Series(variant, points, style, intervals=intervals))
        chart = line_chart(
            series,
            title=f"Verified pass@k over k, {name}",
            x_label="k",
            y_label="verified pass@k",
            y_range=(0.0, 1.0),
            log_x=True,
            width=_WIDTH,
            height=_HEIGHT,
        )
        header = ["variant", "k", "verified", "low", "high", "seeds"]
        title = f"{name} ({_range_text(study.ranges[name])})"
        figures.append(_figure(title, chart, f"pass-at-k-{_file(name)}", header, table))
    return figures


def _op_figure(study: Study, scores: StudyScores) -> dict[str, str]:
    """Verified pass@1 by op: the mean over seeds."""
    series, table = [], []
    for style, variant in _variants(study):
        entries = [entry for seed in study.seeds if (entry := scores.entry(variant, seed)) is not None]
        points = []
        for op in sorted(entries[0]["problems"], key=int) if entries else []:
            samples = study.variants[variant].evaluate.samples
            values = [mean_share(entry["problems"][op]["verified"], samples) for entry in entries]
            points.append((float(op), sum(values) / len(values)))
            table.append([variant, int(op), points[-1][1], min(values), max(values)])
        if points:
            series.append(Series(variant, points, style))
    chart = line_chart(
        series,
        title="Verified pass@1 by number of operations",
        x_label="op (arithmetic operations of the problem)",
        y_label="verified pass@1",
        y_range=(0.0, 1.0),
        integer_x=True,
        width=_WIDTH,
        height=_HEIGHT,
    )
    return _figure("pass@1 by op", chart, "pass-at-1-by-op", ["variant", "op", "verified", "least", "most"], table)


def mean_share(counts: Sequence[int], samples: int) -> float:
    """pass@1 from counts of samples that pass."""
    return sum(counts) / len(counts) / samples


def _level_figures(study: Study, scores: StudyScores) -> list[dict[str, str]]:
    """Right answers, verified and sound samples at k = 1, one figure per range."""
    figures = []
    for name in study.ranges:
        rows, table = [], []
        for _, variant in _variants(study):
            values = []
            for style, (metric, what) in enumerate(
                {"answer": "right answer", "verified": "verified", "sound": "sound"}.items()
            ):
                if by_seed := scores.by_seed(variant, name, metric, 1):
                    estimate = level(by_seed, resamples=500)
                    low, high = estimate.interval
                    values.append((what, 100 * estimate.effect, 100 * low, 100 * high, style))
                    table.append([variant, metric, estimate.effect, *estimate.interval])
            if values:
                rows.append(Row(variant, values))
        chart = interval_chart(
            rows, title=f"Right answers, verified and sound samples, {name}", x_label="%", width=_WIDTH
        )
        header = ["variant", "level", "share", "low", "high"]
        figures.append(_figure(name, chart, f"levels-{_file(name)}", header, table))
    return figures


def _failure_figures(study: Study, scores: StudyScores) -> list[dict[str, str]]:
    """Shares of failure kinds among all samples of a range, if the evaluation has them."""
    figures = []
    for name, parts in study.ranges.items():
        if any(part.themes for part in parts):
            continue  # failure kinds are known by op only
        rows, table = [], []
        for _, variant in _variants(study):
            entries = [entry for seed in study.seeds if (entry := scores.entry(variant, seed)) is not None]
            shares = _failures([entry["ops"] for entry in entries], parts)
            if shares:
                rows.append((variant, list(shares.items())))
                table += [[variant, kind, share] for kind, share in shares.items()]
        if rows:
            chart = share_chart(rows, title=f"Failure kinds, {name}", width=_WIDTH)
            figures.append(_figure(name, chart, f"failures-{_file(name)}", ["variant", "kind", "share"], table))
    return figures


def _failures(by_seed: Sequence[Mapping[str, Any]], parts: Sequence[RangePart]) -> dict[str, float]:
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


def _curve_figures(study: Study, results: Mapping[str, Any]) -> list[dict[str, str]]:
    """Reward, zero-advantage groups and verified samples by RL step; losses by tokens."""
    wanted = [
        ("rl", "reward", "Reward", "mean reward"),
        ("rl", "silent_groups", "Zero-advantage groups", "share of groups"),
        ("rl", "verified", "Verified samples in training", "share of samples"),
        ("pretrain", "loss", "Loss of pre-training", "nats per token"),
        ("midtrain", "loss", "Loss of mid-training", "nats per token"),
    ]
    return [
        figure
        for stage, column, title, label in wanted
        if (figure := _curves(study, results, stage, column, title, label))
    ]


def _curves(
    study: Study, results: Mapping[str, Any], stage: str, column: str, title: str, label: str
) -> dict[str, str] | None:
    """One figure of means over seeds, with a line for each variant whose stage is not shared with an earlier one."""
    series, table, shown = [], [], set()
    for style, variant in _variants(study):
        keys = [keys[stage]["unit"] for keys in results["variants"][variant]["runs"].values() if stage in keys]
        curves = [results["units"][key]["curve"] for key in keys if key in results["units"]]
        if not curves or keys[0] in shown or not all(curve.get(column) for curve in curves):
            continue
        shown.add(keys[0])
        x, scale = ("step", 1.0) if stage == "rl" else ("tokens", 1e6)
        size = min(len(curve[column]) for curve in curves)
        points = [
            (curves[0][x][i] / scale, sum(curve[column][i] for curve in curves) / len(curves)) for i in range(size)
        ]
        series.append(Series(variant, points, style))
        table += [[variant, at, value] for at, value in points]
    if not series:
        return None
    chart = line_chart(
        series,
        title=title,
        x_label="step" if stage == "rl" else "million tokens",
        y_label=label,
        y_range=(0.0, 1.0) if stage == "rl" else None,
        width=_WIDTH,
        height=_HEIGHT,
    )
    return _figure(
        title, chart, f"{stage}-{column}", ["variant", "step" if stage == "rl" else "million_tokens", column], table
    )


def _account(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The cost of the stages, by kind."""
    rows = []
    for kind, name in {**STAGE_NAMES, "evaluate": "evaluation"}.items():
        units = [unit for unit in results["units"].values() if unit["kind"] == kind]
        if units:
            total = {column: sum(unit.get(column, 0) for unit in units) for column in ("seconds", "tokens", "flop")}
            rate = total["tokens"] / total["seconds"] if total["seconds"] else 0.0
            flop_rate = total["flop"] / total["seconds"] if total["seconds"] else 0.0
            rows.append({"stage": name, "units": len(units), **total, "tokens_per_s": rate, "flop_per_s": flop_rate})
    return rows


def _saved(results: Mapping[str, Any]) -> dict[str, float]:
    """Seconds that the runs took, and would have taken without sharing stages."""
    keys = [
        key
        for v in results["variants"].values()
        for run in v["runs"].values()
        for s in run.values()
        for key in s.values()
    ]
    seconds = {key: unit["seconds"] for key, unit in results["units"].items()}
    return {"taken": sum(seconds.values()), "apart": sum(seconds.get(key, 0.0) for key in keys)}


def _traces(study: Study, scores: StudyScores, most: int = 4) -> list[dict[str, Any]]:
    """Samples of the first finished seed: of every variant a failure or, if there is none, the hardest success."""
    chosen: list[dict[str, Any]] = []
    for variant in study.variants:
        entries = [entry for seed in study.seeds if (entry := scores.entry(variant, seed)) is not None]
        traces = [trace for trace in entries[0]["traces"] if trace["steps"]] if entries else []
        wrong = [trace for trace in traces if not trace["verified"]]
        right = sorted((trace for trace in traces if trace["verified"]), key=lambda trace: -trace["op"])
        order = (right[:1] + wrong) if len(chosen) % 2 else (wrong[:1] + right)
        chosen += [{**trace, "variant": variant, "parts": trace_parts(trace)} for trace in order[:1]]
    return chosen[:most]


def _range_text(parts: Sequence[RangePart]) -> str:
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


def _file(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name)
