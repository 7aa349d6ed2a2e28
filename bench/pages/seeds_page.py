"""Several runs of one recipe with different seeds as one table and one picture.

    python -m bench.pages.seeds_page runs/a runs/b runs/c --out docs/results

writes NAME.md and NAME.svg, NAME being the recipe's, and keeps recipe and results of every run in NAME/seed-S. Every
number is read from the runs' results.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fastreason.reports.charts import HEIGHT, WIDTH, Series, line_chart
from fastreason.studies.effects import Cells, cells_of, difference
from fastreason.studies.recipe import STAGE_NAMES, load_recipe
from fastreason.studies.study import RangePart

_STYLE = """<style>
  svg { font: 13px system-ui, sans-serif; background: #ffffff; }
  polyline { fill: none; stroke-width: 2; } .whisker { stroke-width: 1; opacity: .6; }
  .grid { stroke: #d9dee3; } .tick, .axis { fill: #59636e; } .dot { stroke: none; }
  .s0 { stroke: #0072b2; } .s1 { stroke: #d55e00; } .s2 { stroke: #008060; }
  .s0.dot, .l0 { fill: #0072b2; } .s1.dot, .l1 { fill: #d55e00; } .s2.dot, .l2 { fill: #008060; }
</style>"""


def table(runs: list[dict[str, Any]]) -> str:
    """Verified pass@k by stage and op: mean over seeds, lowest and highest in brackets."""
    ops = list(next(iter(runs[0]["stages"].values()))["ops"])
    lines = ["| after | score | " + " | ".join(f"op {op}" for op in ops) + " |", "| --- " * (len(ops) + 2) + "|"]
    for stage in runs[0]["stages"]:
        for k in runs[0]["stages"][stage]["ops"][ops[0]]["verified"]:
            cells = [_cell([run["stages"][stage]["ops"][op]["verified"][k] for run in runs]) for op in ops]
            lines.append(f"| {STAGE_NAMES[stage]} | pass@{k} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def ranges(runs: list[dict[str, Any]]) -> str:
    """Mean verified pass@1 of the recipe's ranges, and the seconds of each stage of the first run."""
    names = [name for name, ops in runs[0]["ranges"].items() if ops]
    lines = ["| after | " + " | ".join(names) + " | seconds | with evaluation |", "| --- " * (len(names) + 3) + "|"]
    for stage in runs[0]["stages"]:
        cells = []
        for name in names:
            ops = [str(op) for op in runs[0]["ranges"][name]]
            cells.append(
                _cell([np.mean([run["stages"][stage]["ops"][op]["verified"]["1"] for op in ops]) for run in runs])
            )
        trained, evaluated = runs[0]["seconds"][stage], runs[0]["evaluation_seconds"][stage]
        lines.append(
            f"| {STAGE_NAMES[stage]} | " + " | ".join(cells) + f" | {trained:.0f} | {trained + evaluated:.0f} |"
        )
    return "\n".join(lines)


def gains(runs: list[dict[str, Any]]) -> str:
    """What each stage added to verified pass@k of the ranges: the paired difference to the stage before it in points,
    with the 95 % interval over seeds and problems of fastreason.studies.effects."""
    names = [name for name, ops in runs[0]["ranges"].items() if ops]
    stages = list(runs[0]["stages"])
    lines = ["| stage | score | " + " | ".join(names) + " |", "| --- " * (len(names) + 2) + "|"]
    for before, after in itertools.pairwise(stages):
        for k in runs[0]["stages"][after]["ops"][str(runs[0]["ranges"][names[0]][0])]["verified"]:
            cells = []
            for name in names:
                scores = [
                    [_problems(run["stages"][stage], run["ranges"][name], int(k)) for run in runs]
                    for stage in (after, before)
                ]
                effect = difference(scores[0], [scores[1]])
                low, high = effect.interval
                cells.append(f"{100 * effect.effect:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]")
            lines.append(f"| {STAGE_NAMES[after]} | pass@{k} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _problems(stage: Mapping[str, Any], ops: list[int], k: int) -> Cells:
    num_problems = sum(len(entry["verified"]) for entry in stage["problems"].values())
    return cells_of(stage["problems"], [RangePart(op=ops)], "verified", k, stage["samples"] // num_problems)


def _cell(values: list[Any]) -> str:
    shown = [100 * float(value) for value in values]
    return f"{np.mean(shown):.1f} ({min(shown):.1f} - {max(shown):.1f})"


def picture(runs: list[dict[str, Any]]) -> str:
    """Verified pass@1 by op after each stage; whiskers from the lowest to the highest seed."""
    series = []
    for style, stage in enumerate(runs[0]["stages"]):
        points, spans = [], []
        for op in runs[0]["stages"][stage]["ops"]:
            values = [run["stages"][stage]["ops"][op]["verified"]["1"] for run in runs]
            points.append((float(op), float(np.mean(values))))
            spans.append((min(values), max(values)))
        series.append(Series(STAGE_NAMES[stage], points, style, intervals=spans))
    chart = line_chart(
        series,
        title="Verified pass@1 by number of operations after each stage",
        x_label="op (arithmetic operations of the problem)",
        y_label="verified pass@1",
        y_range=(0.0, 1.0),
        integer_x=True,
    )
    opening, rest = chart.split("</svg>")[0].split(">", 1)
    names = "".join(
        f'<text class="l{line.style}" x="{WIDTH - 190}" y="{34 + 20 * line.style}">after {line.name}</text>'
        for line in series
    )
    size = f' width="{WIDTH}" height="{HEIGHT}">'
    return opening + size + _STYLE + rest + names + "</svg>\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--note", default="", help="a sentence on how they were run")
    options = parser.parse_args()
    runs = [json.loads((folder / "results.json").read_text()) for folder in options.runs]
    recipes = {run["recipe"] for run in runs}
    if len(recipes) != 1:
        parser.error(f"the runs are of different recipes: {', '.join(sorted(recipes))}")
    (name,) = recipes
    machine, threads = runs[0]["machine"], load_recipe(options.runs[0] / "recipe.toml").threads
    text = f"""# {name}: {len(runs)} seeds

Recipe `{name}`, seeds {", ".join(str(run["seed"]) for run in runs)}; {machine["cpu"]}, {threads} thread(s),
fastreason {machine["fastreason"]}, torch {machine["torch"]}. Verified pass@k in percent: mean over seeds, lowest and
highest in brackets. Seconds are of seed {runs[0]["seed"]}. Written by `python -m bench.pages.seeds_page` from the runs'
results.json.

{options.note}

![verified pass@1 by op and stage]({name}.svg)

{ranges(runs)}

What each stage added, in points: mean over seeds of the difference to the stage before, with the 95 % interval of a
paired bootstrap over seeds and problems (`fastreason.studies.effects`; the seeds' part is widened to what so few seeds
need).

{gains(runs)}

All scores:

{table(runs)}

Recipes and results of the runs, problem by problem: [{name}/]({name}/).
"""
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / f"{name}.md").write_text(text, encoding="utf-8")
    (options.out / f"{name}.svg").write_text(picture(runs), encoding="utf-8")
    shutil.rmtree(options.out / name, ignore_errors=True)
    for folder, run in zip(options.runs, runs, strict=True):
        place = options.out / name / f"seed-{run['seed']}"
        place.mkdir(parents=True)
        shutil.copyfile(folder / "recipe.toml", place / "recipe.toml")
        stages = {stage: {**scores, "traces": []} for stage, scores in run["stages"].items()}
        small = json.dumps({**run, "stages": stages}, separators=(",", ":"))
        (place / "results.json").write_text(small + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
