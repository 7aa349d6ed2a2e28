"""What bench_budget found, from finished stages and measured steps: one dict, records, a page and a picture of it."""

from __future__ import annotations

import itertools
import json
import statistics
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fastreason.studies.effects import Cells, Effect, cells_of, difference, level
from fastreason.studies.recipe import STAGES
from fastreason.studies.work_units import Run, Unit, code_version, study_runs

from ..harness.markdown import markdown
from ..harness.records import OURS, Record
from ..harness.records import Run as BenchRun
from .peers import PEERS, Compared
from .study import Case

Results = dict[str, Any]


def collect(case: Case, folder: Path, compared: Sequence[Compared], peak: float) -> Results:
    """Of one budget: everything that the page says.

    Args:
        folder: of the case; its stages stand beside it.
        compared: steps beside the peers', none where none were measured.
        peak: FLOP/s of the machine's fastest matrix product.
    Returns:
        {"flop", "model", "weights", "peak", "code", "clock", "seeds", "splits": {NAME: {"shares", "note", "seeds":
        finished ones, "stages": {STAGE: columns by seed}, "seconds", "evaluation_seconds": by seed, "peer_seconds",
        "scores": {RANGE: {K: effect}}, "against": the same for the difference to the first split}}, "ranges",
        "compared": [...]}
    """
    stages = folder.parent / "stages"
    finished: dict[str, list[Run]] = {split.name: [] for split in case.splits}
    for run in study_runs(case.study):
        if all(unit.outcome(stages) is not None for unit in run.units):
            finished[run.variant].append(run)
    units = [unit for runs in finished.values() for run in runs for unit in run.units]
    clock = "cpu" if units and all((stages / unit.key / "cpu.json").exists() for unit in units) else "wall"
    results: Results = {"flop": case.flop, "model": case.model, "weights": case.weights, "peak": peak}
    results |= {"code": code_version(), "clock": clock, "seeds": case.study.seeds, "splits": {}}
    results["ranges"] = {name: [asdict(part) for part in parts] for name, parts in case.study.ranges.items()}
    results["compared"] = [asdict(one) | {"ratio": one.ratio} for one in compared]
    first = case.splits[0].name
    for split in case.splits:
        runs = finished[split.name]
        shares = {stage: split.share(stage) for stage in STAGES if split.share(stage)}
        entry: dict[str, Any] = {"note": split.note, "shares": shares, "seeds": [run.seed for run in runs]}
        if runs:
            entry |= _spent(runs, stages, clock) | {"scores": _scores(case, runs, stages)}
            entry["peer_seconds"] = _peer_seconds(split.name, entry, compared)
            if split.name != first:
                entry["against"] = _against(case, runs, finished[first], stages)
        results["splits"][split.name] = entry
    return results


def _spent(runs: Sequence[Run], stages: Path, clock: str) -> dict[str, Any]:
    """Columns by seed."""
    columns: dict[str, dict[str, list[float]]] = {}
    for run in runs:
        for stage, (unit, _) in run.stages.items():
            done = unit.outcome(stages) or {}
            line = {name: done[name] for name in ("tokens", "samples", "step", "flop")}
            line["seconds"] = _seconds(unit, stages, clock)
            for name, value in line.items():
                columns.setdefault(stage, {}).setdefault(name, []).append(value)
    whole = [sum(values) for values in zip(*(column["seconds"] for column in columns.values()), strict=True)]
    evaluated = [_seconds(list(run.stages.values())[-1][1], stages, clock) for run in runs]
    return {"stages": columns, "seconds": whole, "evaluation_seconds": evaluated}


def _seconds(unit: Unit, stages: Path, clock: str) -> float:
    if clock == "cpu":
        return round(float(json.loads((stages / unit.key / "cpu.json").read_text())["cpu_s"]), 3)
    return float((unit.outcome(stages) or {})["seconds"])


def _cells(case: Case, run: Run, stages: Path, name: str, k: int) -> Cells:
    """Of a run's last evaluation."""
    scores = (list(run.stages.values())[-1][1].outcome(stages) or {})["scores"]
    samples = case.study.variants[run.variant].evaluate.samples
    return cells_of(scores["problems"], case.study.ranges[name], "verified", k, samples)


def _scores(case: Case, runs: Sequence[Run], stages: Path) -> dict[str, dict[str, Any]]:
    ks = case.study.variants[runs[0].variant].evaluate.k
    return {
        name: {str(k): _plain(level([_cells(case, run, stages, name, k) for run in runs])) for k in ks}
        for name in case.study.ranges
    }


def _against(case: Case, runs: Sequence[Run], others: Sequence[Run], stages: Path) -> dict[str, dict[str, Any]]:
    """Seed by seed and problem by problem, over the seeds that both have."""
    both = [(run, other) for run in runs for other in others if run.seed == other.seed]
    if not both:
        return {}
    ks = case.study.variants[runs[0].variant].evaluate.k
    found: dict[str, dict[str, Any]] = {}
    for name, k in itertools.product(case.study.ranges, ks):
        ours, theirs = ([_cells(case, pair[i], stages, name, k) for pair in both] for i in (0, 1))
        found.setdefault(name, {})[str(k)] = _plain(difference(ours, [theirs]))
    return found


def _plain(effect: Effect) -> dict[str, Any]:
    low, high = effect.interval
    return {"mean": effect.effect, "interval": [low, high], "by_seed": list(effect.by_seed)}


def _peer_seconds(split: str, entry: Mapping[str, Any], compared: Sequence[Compared]) -> float | None:
    """Our median seconds of each stage times the ratio of its measured steps; None if one has no ratio."""
    total = 0.0
    for stage, columns in entry["stages"].items():
        ratio = ratio_of(stage, split, compared)
        if ratio is None:
            return None
        total += ratio * statistics.median(columns["seconds"])
    return total


def ratio_of(stage: str, split: str, compared: Sequence[Compared]) -> float | None:
    """The peer's seconds over ours for a stage of a split."""
    for one in compared:
        if (one.kind == "rl" and stage == "rl" and one.shape["start"] == split) or (
            one.kind == "supervised" and stage != "rl"
        ):
            return one.ratio
    return None


def records(results: Results, compared: Sequence[Compared]) -> list[Record]:
    """Whole runs, a time for each seed, and the measured steps; nothing that was extrapolated."""
    found: list[Record] = []
    where: dict[str, int | float | str] = {"budget": f"{results['flop']:g} FLOP", "model": results["model"]}
    peak = results["peak"]
    for name, entry in results["splits"].items():
        if not entry["seeds"]:
            continue
        tokens, flop = (_totals(entry, what) for what in ("tokens", "flop"))
        share = 100 * statistics.median(flop) / statistics.median(entry["seconds"]) / peak
        found.append(
            Record("budget", f"a whole budget, split {name}", OURS, where, "tokens", statistics.median(tokens),
                   list(entry["seconds"]), results["clock"], None, statistics.median(flop), "matmul", share)
        )  # fmt: skip
    clock = "cpu" if results["clock"] == "cpu" else "wall"
    for one in compared:
        what = {"supervised": "a training step", "rl": "an RL step", "evaluate": "samples of an evaluation, graded"}
        for provider, times in ((OURS, one.ours), (PEERS[one.kind], one.theirs)):
            # how many passes the peer makes in a step of RL is its own affair
            counted = one.flop or None if provider == OURS or one.kind == "supervised" else None
            share_of = 100 * counted / statistics.median(times) / peak if counted and times else None
            if times:
                found.append(
                    Record("budget", what[one.kind], provider, where | one.shape, one.unit, one.work, times, clock,
                           None, counted, "matmul" if share_of else None, share_of)
                )  # fmt: skip
    return found


def _totals(entry: Mapping[str, Any], what: str) -> list[float]:
    """Sums over stages, by seed."""
    return [sum(values) for values in zip(*(column[what] for column in entry["stages"].values()), strict=True)]


def page(all_results: Sequence[Results], run: BenchRun, name: str, planned: Sequence[Sequence[object]] = ()) -> str:
    """The markdown page.

    Args:
        name: of its picture and of its folder.
        planned: rows of budgets that were not run: FLOP, model, split, supervised tokens, documents, RL steps, RL
            samples, sampled tokens.
    """
    clock = "CPU seconds of one process" if all_results[0]["clock"] == "cpu" else "seconds by the clock on the wall"
    libraries = ("fastreason", "torch", "transformers", "trl")
    versions = ", ".join(f"{library} {run.versions[library]}" for library in libraries if library in run.versions)
    ks = " and ".join(f"pass@{k}" for k in _shown(all_results[0]))
    facts = {"machine": run.machine["class"], "threads": run.threads, "versions": versions, "commit": run.commit}
    head = _HEAD.format(name=name, clock=clock, ks=ks, peak=f"{all_results[0]['peak'] / 1e9:.0f}", **facts)
    parts = [
        textwrap.fill(part, 120, break_on_hyphens=False) if not part.startswith(("#", "!")) else part
        for part in head.split("\n\n")
    ]
    parts += [_budget_section(results) for results in all_results]
    if planned:
        columns = [
            "FLOP",
            "model",
            "split",
            "supervised tokens",
            "documents",
            "RL steps",
            "RL samples",
            "sampled tokens",
        ]
        parts += ["## Budgets that were not run", _PLANNED, markdown(columns, planned)]
    return "\n\n".join(parts) + "\n"


_HEAD = """# What a budget of FLOP buys

Written by `python -m bench.flop_budget.run`: every number is read from finished stages and measured steps, which
[{name}/]({name}/) holds as JSON with the recipe of every run. A budget is given to the model that
`bench/flop_budget/budget.toml` names for it and spent in several splits: 60-30-10 is 60 % of the FLOP on pre-training,
30 % on mid-training, 10 % on reinforcement learning. FLOP are counted as in `fastreason.training.budget`: matrix
products, a backward pass as two forward passes, sampling and updates of RL both; evaluation is not part of a budget.
Splits, models and ranges were chosen before any result was seen; settings were tuned for none of the splits.

Machine: {machine}, {threads} thread(s); {versions}; commit {commit}. Seconds are {clock}, the median over seeds, on a
machine that others used at the same time. The peak is that of matrix products, {peak} GFLOP/s.

The peer stack is transformers.Trainer for supervised stages and TRL's GRPOTrainer for RL. **Its seconds for a whole
budget are an extrapolation of measured steps**: our seconds of each stage times the ratio of a few steps of both, taken
in turns in one run, on the same weights, problems and batch shapes. Nobody ran the peers to the end, and what they
would reach is taken to be the same. RL steps are measured on the weights that the stage begins with; groups whose
samples all fare alike cost us no update, while TRL trains on them.

Verified {ks} in percent, at temperature 0.7, with 95 % intervals of `fastreason.studies.effects` over seeds and
problems; with one seed they are over problems alone and say nothing about other seeds.

![verified pass@1 against FLOP and against seconds]({name}.svg)"""


_PLANNED = """What they would buy by `fastreason.studies.dry_run`: documents as the first that a stage draws, samples as
long as gold solutions, and no group silent, so that RL makes at least these steps. The models of words and their
settings are untried."""


def _shown(results: Results) -> list[str]:
    for entry in results["splits"].values():
        if entry["seeds"]:
            ks = list(next(iter(entry["scores"].values())))
            return [ks[0], ks[-1]] if len(ks) > 1 else ks
    return ["1"]


def _budget_section(results: Results) -> str:
    done = {name: entry for name, entry in results["splits"].items() if entry["seeds"]}
    missing = [name for name in results["splits"] if name not in done]
    head = f"## {results['flop']:g} FLOP: {results['model']}, {results['weights'] / 1e6:.2f} M weights that multiply"
    parts = [head]
    if done:
        parts += ["What it buys, the median over seeds:", _buys(results, done)]
        parts += ["What that reaches:", _reaches(results, done), *_floors(done)]
        if gains := _gains(done):
            parts += [f"Against {next(iter(results['splits']))}, the same FLOP, in points (verified pass@1):", gains]
    if done and (said := _evaluation(results, done)):
        parts.append(said)
    if results["compared"]:
        parts += ["Steps of both, in turns:", _compared(results)]
    missing += [
        f"seeds {', '.join(map(str, late))} of {name}"
        for name, entry in done.items()
        if (late := [seed for seed in results["seeds"] if seed not in entry["seeds"]])
    ]
    if missing:
        parts.append(f"Not finished when this was written: {'; '.join(missing)}.")
    return "\n\n".join(parts)


def _buys(results: Results, done: Mapping[str, Any]) -> str:
    head = ["split", "seeds", "supervised tokens", "documents", "RL steps", "RL samples", "sampled tokens", "FLOP",
            "seconds", "% of peak", "peer stack, s", "ratio"]  # fmt: skip
    rows = []
    for name, entry in done.items():
        learnt = [entry["stages"][stage] for stage in ("pretrain", "midtrain") if stage in entry["stages"]]
        rl = entry["stages"].get("rl")
        seconds, flop = statistics.median(entry["seconds"]), statistics.median(_totals(entry, "flop"))
        peer = entry["peer_seconds"]
        cells = [f"{sum(statistics.median(column[what]) for column in learnt):,.0f}" for what in ("tokens", "samples")]
        cells += [f"{statistics.median(rl[what]):,.0f}" if rl else "" for what in ("step", "samples", "tokens")]
        cells += [f"{flop:.3g}", f"{seconds:,.0f}", f"{100 * flop / seconds / results['peak']:.0f}"]
        cells += [f"{peer:,.0f}", f"{peer / seconds:.1f} x"] if peer is not None else ["", ""]
        rows.append([name, len(entry["seeds"]), *cells])
    return markdown(head, rows)


def _evaluation(results: Results, done: Mapping[str, Any]) -> str:
    """What scoring costs, which no budget holds."""
    ratio = next((one["ratio"] for one in results["compared"] if one["kind"] == "evaluate"), None)
    if ratio is None:
        return ""
    seconds = statistics.median(value for entry in done.values() for value in entry["evaluation_seconds"])
    peer = f"{PEERS['evaluate']} would take {ratio * seconds:,.0f} s by the same extrapolation"
    return f"Scoring the end of one split takes {seconds:,.0f} s here and is not part of the budget; {peer}."


def _reaches(results: Results, done: Mapping[str, Any]) -> str:
    columns = list(itertools.product(results["ranges"], _shown(results)))
    head = ["split", *(f"{name} (op {_ops(results, name)}) @{k}" for name, k in columns)]
    return markdown(head, [[n, *(_percent(entry["scores"][r][k]) for r, k in columns)] for n, entry in done.items()])


def _ops(results: Results, name: str) -> str:
    ops = sorted(op for part in results["ranges"][name] for op in part["op"])
    return f"{ops[0]}-{ops[-1]}" if len(ops) > 1 else str(ops[0])


def _percent(effect: Mapping[str, Any]) -> str:
    low, high = effect["interval"]
    # the seeds' part of an interval is symmetric and may pass what a share can be
    return f"{100 * effect['mean']:.1f} [{100 * max(low, 0.0):.1f}, {100 * min(high, 1.0):.1f}]"


def _floors(done: Mapping[str, Any]) -> list[str]:
    """A range where no split does anything, or all do all, compares nothing."""
    lines = []
    for name in next(iter(done.values()))["scores"]:
        values = [entry["scores"][name]["1"]["mean"] for entry in done.values()]
        if max(values) < 0.01:
            lines.append(f"- {name}: every split is below 1 % at pass@1: the floor, which compares nothing.")
        elif min(values) > 0.97:
            lines.append(f"- {name}: every split is above 97 % at pass@1: the ceiling, which compares nothing.")
    return ["\n".join(lines)] if lines else []


def _gains(done: Mapping[str, Any]) -> str:
    rows = []
    for name, entry in done.items():
        if found := entry.get("against"):
            effects = [effects["1"] for effects in found.values()]
            cells = [(100 * e["mean"], *(100 * end for end in e["interval"])) for e in effects]
            rows.append([name, *(f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]" for mean, low, high in cells)])
    return markdown(["split", *next(iter(done.values()))["scores"]], rows) if rows else ""


def _compared(results: Results) -> str:
    rows = []
    for one in results["compared"]:
        shape = ", ".join(f"{value} {name.replace('_', ' ')}" for name, value in one["shape"].items())
        shape = shape.replace(f"{one['shape'].get('start')} start", f"as {one['shape'].get('start')} starts it")
        if one["facts"]:
            shape += f" (samples of {one['facts']['mean_length']:.0f} tokens, "
            shape += f"{100 * one['facts']['silent_groups']:.0f} % of groups silent)"
        theirs = f"{_of_times(one['theirs'])}" if one["theirs"] else "not installed"
        ratio = f"{one['ratio']:.1f} x" if one["ratio"] else ""
        kind = {"supervised": "training", "rl": "RL", "evaluate": "evaluation"}[one["kind"]]
        rows.append([f"{kind}: {shape}", _of_times(one["ours"]), f"{PEERS[one['kind']]}: {theirs}", ratio])
    return markdown(["one step", "s, median (least - most)", "peer", "ratio"], rows)


def _of_times(times: Sequence[float]) -> str:
    return f"{statistics.median(times):.3g} ({min(times):.3g} - {max(times):.3g})"
