"""The report of a run: one self-contained HTML page without scripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from ..runtime.files import read_whole, write_text
from ..runtime.metrics_log import MetricsLog
from ..studies.recipe import STAGE_NAMES
from ..studies.results import smooth
from .charts import Series, line_chart
from .page_parts import trace_parts


def write_report(folder: str | Path) -> Path:
    """Writes `report.html` into the directory of a run or study, and returns its path.

    Raises:
        ValueError: recipe.toml (for a study, study.toml) or results.json does not exist.
    """
    folder = Path(folder)
    if (folder / "study.toml").is_file():
        from .study_page import write_study_report

        return write_study_report(folder)
    for name in ("recipe.toml", "results.json"):
        if not (folder / name).is_file():
            raise ValueError(f"report: {folder / name} does not exist")
    results = read_whole(folder / "results.json")
    metrics = MetricsLog(folder / "metrics.jsonl").read()
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("fastreason.reports", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    page = environment.get_template("report.html").render(
        results=results,
        recipe_text=(folder / "recipe.toml").read_text(encoding="utf-8"),
        stage_names=STAGE_NAMES,
        pass_chart=_pass_chart(results),
        reward_chart=_reward_chart(metrics),
        loss_chart=_loss_chart(metrics),
        warnings=_warnings(metrics),
        summary=_summary(results),
        throughput=_throughput(results, metrics),
        ks=_ks(results),
        ops=_ops(results),
        graph_rows=_graph_rows(results),
        traces=_traces(results),
    )
    path = folder / "report.html"
    write_text(path, page)
    return path


def _ops(results: Mapping[str, Any]) -> list[str]:
    names = {op for stage in results["stages"].values() for op in stage["ops"]}
    return sorted(names, key=int)


def _ks(results: Mapping[str, Any]) -> list[str]:
    first = next(iter(results["stages"].values()))["ops"]
    return list(next(iter(first.values()))["verified"])


def _pass_chart(results: Mapping[str, Any]) -> str:
    """Lines of pass@1 with intervals, and dashed lines of pass@k for the largest k."""
    last = _ks(results)[-1]
    series = []
    for style, (stage, scores) in enumerate(results["stages"].items()):
        for k in dict.fromkeys(["1", last]):
            if k not in next(iter(scores["ops"].values()))["verified"]:
                continue
            ops = sorted(scores["ops"], key=int)
            series.append(
                Series(
                    f"{STAGE_NAMES[stage]}, pass@{k}",
                    [(int(op), scores["ops"][op]["verified"][k]) for op in ops],
                    style,
                    dashed=k != "1",
                    intervals=[scores["ops"][op]["verified_interval"][k] for op in ops] if k == "1" else None,
                )
            )
    return line_chart(
        series,
        title="Verified pass@k by number of operations, for each stage",
        x_label="op (arithmetic operations of the problem)",
        y_label="verified pass@k",
        y_range=(0.0, 1.0),
        integer_x=True,
    )


def _graph_rows(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Of each stage, and of graphs that training or the prompts of reinforcement learning have shown or not: verified
    pass@largest k and the number of problems, by op; only where both kinds of graphs occur."""
    last, rows = _ks(results)[-1], []
    for stage, scores in results["stages"].items():
        for kind, found in scores.get("graphs", {}).items():
            parts = [part for part in ("seen", "unseen") if any(part in both for both in found["ops"].values())]
            for part in parts if len(parts) == 2 else ():
                entries = [found["ops"].get(op, {}).get(part) for op in _ops(results)]
                cells = [entry and (entry["verified"][last], entry["problems"]) for entry in entries]
                rows.append(
                    {"stage": STAGE_NAMES[stage], "kind": kind, "part": part, "bound": found["bound"], "cells": cells}
                )
    return rows


def _warnings(metrics: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The warnings of the reinforcement-learning monitor, by step."""
    return [
        {"stage": STAGE_NAMES[entry["stage"]], "step": entry["step"], "text": text}
        for entry in metrics
        for text in entry.get("warnings", ())
    ]


def _reward_chart(metrics: Sequence[Mapping[str, Any]]) -> str:
    steps = [entry for entry in metrics if entry["stage"] == "rl"]
    lines = {
        "reward": "reward", "answer_correct": "right answer", "silent_groups": "zero-advantage groups",
        "finished": "finished",
    }  # fmt: skip
    points = {key: [(entry["step"], entry[key]) for entry in steps if key in entry] for key in lines}
    return line_chart(
        [Series(name, smooth(points[key]), style) for style, (key, name) in enumerate(lines.items()) if points[key]],
        title="Reward, and shares of right answers, zero-advantage groups and finished samples, by step",
        x_label="step",
        y_label="mean",
        y_range=(0.0, 1.0),
    )


def _loss_chart(metrics: Sequence[Mapping[str, Any]]) -> str:
    series = []
    for style, stage in enumerate(("pretrain", "midtrain")):
        points = [(entry["tokens"] / 1e6, entry["loss"]) for entry in metrics if entry["stage"] == stage]
        if points:
            series.append(Series(STAGE_NAMES[stage], smooth(points), style))
    highest = max((y for line in series for _, y in line.points[2:]), default=1.0)
    return line_chart(
        [Series(line.name, [(x, min(y, highest)) for x, y in line.points], line.style) for line in series],
        title="Loss over training tokens",
        x_label="million tokens",
        y_label="cross entropy, nats per token",
        y_range=(0.0, highest),
    )


def _summary(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Mean verified pass@1 of the recipe's ranges after each stage."""
    ranges = results.get("ranges", {})
    rows = []
    for stage, scores in results["stages"].items():
        row: dict[str, Any] = {"stage": STAGE_NAMES[stage]}
        for name, ops in ranges.items():
            values = [scores["ops"][str(op)]["verified"]["1"] for op in ops if str(op) in scores["ops"]]
            row[name] = sum(values) / len(values) if values else None
        rows.append(row)
    return rows


def _throughput(results: Mapping[str, Any], metrics: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    rows = []
    for stage in results["stages"]:
        seconds, tokens = results["seconds"][stage], results["tokens"][stage]
        rows.append(
            {
                "stage": STAGE_NAMES[stage],
                "seconds": seconds,
                "tokens": tokens,
                "tokens_per_s": tokens / seconds if seconds else 0.0,
                "evaluation_seconds": results["evaluation_seconds"][stage],
            }
        )
    return rows


def _traces(results: Mapping[str, Any], most: int = 3) -> list[dict[str, Any]]:
    """Samples of the last stage, divided into steps and text between them; failures and hard problems first."""
    traces = list(results["stages"].values())[-1]["traces"]
    wrong = [trace for trace in traces if not trace["verified"] and trace["steps"]]
    right = [trace for trace in traces if trace["verified"]]
    right.sort(key=lambda trace: -trace["op"])
    chosen = wrong[:1] + right[:1] + wrong[1:]
    return [{**trace, "parts": trace_parts(trace)} for trace in (chosen + right[1:])[:most]]
