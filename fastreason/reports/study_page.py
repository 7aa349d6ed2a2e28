"""The report: one self-contained HTML page from study.toml and results.json, without network or scripts.

Its lines are the variants of a study after their last stage; a study of one variant has its stages as lines.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2

from ..runtime.files import read_whole, write_text
from ..runtime.json_files import to_json
from ..runtime.old_names import with_current_names
from ..studies.claims import effects_table, judged_claims
from ..studies.effects import difference, level
from ..studies.recipe import STAGE_NAMES
from ..studies.study import RangePart, Study
from ..studies.study_scores import StudyScores, graph_parts
from .charts import Row, Series, interval_chart, line_chart, share_chart

_WIDTH, _HEIGHT = 460, 290


def write_report(folder: str | Path) -> Path:
    """Writes `report.html` from study.toml and results.json, and returns its path.

    Raises:
        ValueError: one of them does not exist, or the directory is of an earlier version.
    """
    folder = Path(folder)
    if (folder / "recipe.toml").is_file() and not (folder / "study.toml").is_file():
        raise ValueError(
            f"report: {folder} holds a run of an earlier version (recipe.toml without study.toml); only that version "
            "can write its page again"
        )
    for name in ("study.toml", "results.json"):
        if not (folder / name).is_file():
            raise ValueError(f"report: {folder / name} does not exist")
    study = Study.load(folder / "study.toml")
    results = judged_again(study, folder / "results.json")
    scores = StudyScores(study, results)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("fastreason.reports", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    page = environment.get_template("study.html").render(
        results=results,
        study=study,
        one=len(study.variants) == 1,
        ranges={name: _range_text(parts) for name, parts in study.ranges.items()},
        warnings=_warnings(results),
        gains=_gains(study, scores) if len(study.variants) == 1 else [],
        claims=_claims_figure(results),
        pass_figures=_pass_figures(study, scores),
        op_figure=_op_figure(study, scores),
        level_figures=_level_figures(study, scores),
        failure_figures=_failure_figures(study, scores),
        curve_figures=_curve_figures(study, results),
        account=_account(results),
        saved=_saved(results),
        graph_rows=_graph_rows(results) if len(study.variants) == 1 else [],
        traces=_traces(study, scores),
        recipe_text=(folder / "study.toml").read_text(encoding="utf-8"),
        stage_names=STAGE_NAMES,
    )
    path = folder / "report.html"
    write_text(path, page)
    return path


def judged_again(study: Study, path: Path) -> dict[str, Any]:
    """results.json with the claims of the study judged as this version does, which is written where that changes it."""
    results: dict[str, Any] = with_current_names(read_whole(path))
    # as they read from a file
    judged = json.loads(to_json({"claims": judged_claims(study, results), "effects": effects_table(study, results)}))
    if any(results.get(name) != value for name, value in judged.items()):
        results |= judged
        write_text(path, to_json(results) + "\n")
    return results


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
            f"{claim['name']}, k = {claim['k']}",
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


def _lines(study: Study) -> list[tuple[int, str, str, str | None]]:
    """(style, name, variant, stage) of each line of a figure; stage None: the variant's last."""
    if len(study.variants) > 1:
        return [(style, name, name, None) for style, name in enumerate(study.variants)]
    ((variant, recipe),) = study.variants.items()
    return [(style, STAGE_NAMES[stage], variant, stage) for style, stage in enumerate(recipe.stages)]


def _gains(study: Study, scores: StudyScores) -> list[dict[str, Any]]:
    """After each stage of an only variant: verified pass@k of each range, and what the stage added, at k = 1 and the
    largest k."""
    ((variant, recipe),) = study.variants.items()
    rows: list[dict[str, Any]] = []
    for before, stage in zip((None, *recipe.stages), recipe.stages, strict=False):
        cells = []
        for name in study.ranges:
            for k in sorted({1, max(recipe.evaluate.k)}):
                by_seed = {
                    seed: [scores.values(variant, seed, name, "verified", k, s) for s in (stage, before or stage)]
                    for seed in study.seeds
                }
                pairs = [(after, was) for after, was in by_seed.values() if after is not None and was is not None]
                if not pairs:
                    continue
                after, was = (list(side) for side in zip(*pairs, strict=True))
                cell = {"range": name, "k": k, "level": level(after)}
                if before is not None:
                    added = difference(after, [was])
                    low, high = added.interval
                    cell |= {"added": added, "word": "raised" if low > 0 else "lowered" if high < 0 else "undecided"}
                cells.append(cell)
        if cells:
            rows.append({"stage": STAGE_NAMES[stage], "cells": cells})
    return rows


def _graph_rows(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Of an only variant: verified pass@largest k and the number of problems by op, for seen and for unseen graphs, of
    the stages and kinds that have both."""
    rows = graph_parts(results)
    both = {(row["stage"], row["kind"]) for row in rows if row["part"] == "seen" and row["ops"]}
    both &= {(row["stage"], row["kind"]) for row in rows if row["part"] == "unseen" and row["ops"]}
    rows = [row for row in rows if (row["stage"], row["kind"]) in both]
    ops = sorted({op for row in rows for op in row["ops"]}, key=int)
    return [{**row, "cells": {op: _largest_k(row["ops"].get(op)) for op in ops}} for row in rows]


def _largest_k(found: tuple[int, dict[str, float]] | None) -> tuple[str, float, int] | None:
    """(k, share, problems)"""
    if found is None:
        return None
    k = max(found[1], key=int)
    return k, found[1][k], found[0]


def _warnings(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the watch of reinforcement learning said, run by run in the order of the steps."""
    return [
        {"variant": name, "seed": seed, **warning}
        for name, variant in results["variants"].items()
        for seed, run in variant["runs"].items()
        if "rl" in run
        for warning in results["units"].get(run["rl"]["unit"], {}).get("warnings", ())
    ]


def _pass_figures(study: Study, scores: StudyScores) -> list[dict[str, str]]:
    """Verified pass@k over k, one figure per range, one line per variant or stage."""
    figures = []
    for name in study.ranges:
        series, table = [], []
        for style, line, variant, stage in _lines(study):
            points, intervals = [], []
            for k in study.variants[variant].evaluate.k:
                if by_seed := scores.by_seed(variant, name, "verified", k, stage):
                    found = level(by_seed)
                    points.append((float(k), found.effect))
                    intervals.append(found.interval)
                    table.append([line, k, found.effect, *found.interval, len(by_seed)])
            if points:
                series.append(Series(line, points, style, intervals=intervals))
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
        header = [_what(study), "k", "verified", "low", "high", "seeds"]
        title = f"{name} ({_range_text(study.ranges[name])})"
        figures.append(_figure(title, chart, f"pass-at-k-{_file(name)}", header, table))
    return figures


def _op_figure(study: Study, scores: StudyScores) -> dict[str, str]:
    """Verified pass@1 by op: the mean over seeds."""
    series, table = [], []
    for style, line, variant, stage in _lines(study):
        entries = scores.entries(variant, stage)
        points = []
        for op in sorted(entries[0]["problems"], key=int) if entries else []:
            samples = study.variants[variant].evaluate.samples
            values = [mean_share(entry["problems"][op]["verified"], samples) for entry in entries]
            points.append((float(op), sum(values) / len(values)))
            table.append([line, int(op), points[-1][1], min(values), max(values)])
        if points:
            series.append(Series(line, points, style))
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
    header = [_what(study), "op", "verified", "least", "most"]
    return _figure("pass@1 by op", chart, "pass-at-1-by-op", header, table)


def _what(study: Study) -> str:
    """What the lines of a figure stand for."""
    return "variant" if len(study.variants) > 1 else "stage"


def mean_share(counts: Sequence[int], samples: int) -> float:
    """pass@1 from counts of samples that pass."""
    return sum(counts) / len(counts) / samples


def _level_figures(study: Study, scores: StudyScores) -> list[dict[str, str]]:
    """Right answers, verified and sound samples at k = 1, one figure per range."""
    figures = []
    for name in study.ranges:
        rows, table = [], []
        for _, line, variant, stage in _lines(study):
            values = []
            for style, (metric, what) in enumerate(
                {"answer": "right answer", "verified": "verified", "sound": "sound"}.items()
            ):
                if by_seed := scores.by_seed(variant, name, metric, 1, stage):
                    found = level(by_seed)
                    low, high = found.interval
                    values.append((what, 100 * found.effect, 100 * low, 100 * high, style))
                    table.append([line, metric, found.effect, *found.interval])
            if values:
                rows.append(Row(line, values))
        chart = interval_chart(
            rows, title=f"Right answers, verified and sound samples, {name}", x_label="%", width=_WIDTH
        )
        header = [_what(study), "level", "share", "low", "high"]
        figures.append(_figure(name, chart, f"levels-{_file(name)}", header, table))
    return figures


def _failure_figures(study: Study, scores: StudyScores) -> list[dict[str, str]]:
    """Shares of failure kinds among all samples of a range, if the evaluation has them."""
    figures = []
    for name, parts in study.ranges.items():
        if any(part.themes for part in parts):
            continue  # failure kinds are known by op only
        rows, table = [], []
        for _, line, variant, stage in _lines(study):
            shares = _failures([entry["ops"] for entry in scores.entries(variant, stage)], parts)
            if shares:
                rows.append((line, list(shares.items())))
                table += [[line, kind, share] for kind, share in shares.items()]
        if rows:
            chart = share_chart(rows, title=f"Failure kinds, {name}", width=_WIDTH)
            figures.append(_figure(name, chart, f"failures-{_file(name)}", [_what(study), "kind", "share"], table))
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
    """Rewards and shares by RL step; losses by tokens."""
    wanted = [
        ("rl", "reward", "Reward", "mean reward"),
        ("rl", "zero_advantage", "Zero-advantage groups", "share of groups"),
        ("rl", "answer_correct", "Right answers in training", "share of samples"),
        ("rl", "verified", "Verified samples in training", "share of samples"),
        ("rl", "finished", "Samples that ended by themselves", "share of samples"),
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
    for style, variant in enumerate(study.variants):
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
    """Samples of the first finished seed after the last stage, failures and the hardest successes in turn: one per
    variant, or several of the only one."""
    chosen: list[dict[str, Any]] = []
    for variant in study.variants:
        entries = scores.entries(variant)
        traces = [trace for trace in entries[0]["traces"] if trace["steps"]] if entries else []
        wrong = [trace for trace in traces if not trace["verified"]]
        right = sorted((trace for trace in traces if trace["verified"]), key=lambda trace: -trace["op"])
        first, second = (right, wrong) if len(chosen) % 2 else (wrong, right)
        order = first[:1] + second[:1] + first[1:] + second[1:]
        count = 1 if len(study.variants) > 1 else most
        chosen += [{**trace, "variant": variant, "parts": trace_parts(trace)} for trace in order[:count]]
    return chosen[:most]


def trace_parts(trace: Mapping[str, Any]) -> list[tuple[str | None, str]]:
    """(status or None, text); offsets of steps count bytes."""
    data, parts, at = trace["completion"].encode(), [], 0
    for step in trace["steps"]:
        parts.append((None, data[at : step["begin"]].decode(errors="replace")))
        parts.append((step["status"], data[step["begin"] : step["end"]].decode(errors="replace")))
        at = step["end"]
    parts.append((None, data[at:].decode(errors="replace")))
    return [(status, text) for status, text in parts if text]


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
