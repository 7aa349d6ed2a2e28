"""What a budget of FLOP buys and reaches, in splits over pre-training, mid-training and RL, beside the peer stack.

    python -m bench.flop_budget.run --flop 1e13 1e14 --seeds 0,1,2 --out runs/budget --docs docs/results
    python -m bench.flop_budget.run --flop 1e13 1e19 --dry-run

Whatever stops it, the same command goes on; finished stages, evaluations and measured steps are not done again. OUT
holds a folder for each budget, the stages that they share, and run.json, the records of it all. --docs takes the page,
its picture and what both are made from. Splits, models and settings: budget.toml.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch

from fastreason.runtime.files import write_text
from fastreason.runtime.json_files import to_json
from fastreason.runtime.machine import package_version
from fastreason.runtime.stop_request import Interrupted, Terminated
from fastreason.studies.dry_run import Rates, plan_study
from fastreason.studies.work_units import Run, Unit, code_version, study_runs
from fastreason.training.budget import matmul_peak
from fastreason.training.checkpoint import load_model

from ..harness.environment import new_run
from ..harness.machine_peaks import machine_peaks
from ..harness.markdown import markdown
from ..harness.records import Record, write_run
from .peers import PEERS, Compared, compare, missing
from .picture import picture
from .report import Results, collect, page, records
from .study import RECIPE, Case, load_case, run_case

NAME = "budget"


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 130 or 143 where it was asked to stop."""
    options = _options(arguments)
    cases = [
        load_case(flop, seeds=options.seeds, only=options.splits, recipe=options.recipe, overrides=options.set)
        for flop in sorted(options.flop)
    ]
    if options.dry_run:
        for case in cases:
            print(dry_run(case) + "\n", flush=True)
        return 0
    torch.set_num_threads(1)
    matmul_peak()  # here, so that no stage's CPU time has it
    status = 0
    try:
        for case in cases:
            folder = options.out / f"{case.flop:g}"
            if not options.report:
                spend(case, folder, options.jobs, options.peer_steps)
            elif options.peer_steps:
                measure(case, folder, options.peer_steps)
    except (Interrupted, KeyboardInterrupt, Terminated) as stopped:
        print("\nstopped; the same command goes on from here", file=sys.stderr)
        status = 143 if isinstance(stopped, Terminated) else 130
    write(cases, options.out, options.docs)
    print(f"{options.out / 'run.json'}" + (f", {options.docs / (NAME + '.md')}" if options.docs else ""))
    return status


def spend(case: Case, folder: Path, jobs: int, peer_steps: int) -> None:
    """Runs the splits, seed by seed; the peers' steps are measured as soon as the first seed's weights are there."""
    for seed in case.study.seeds:
        run_case(case, folder, seed=seed if jobs == 1 else None, jobs=jobs)
        if peer_steps:
            measure(case, folder, peer_steps)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flop", nargs="+", type=float, required=True, help="budgets, 1e10 .. 1e19")
    parser.add_argument("--seeds", type=_numbers, default=[0], help="default: 0")
    parser.add_argument("--splits", nargs="+", default=[], help="names in budget.toml; default: all")
    parser.add_argument("--out", type=Path, default=Path("runs") / NAME)
    parser.add_argument("--docs", type=Path, help="where the page goes, for example docs/results")
    parser.add_argument("--jobs", type=int, default=1, help="processes; seconds are CPU time with one alone")
    parser.add_argument("--peer-steps", type=int, default=3, help="of each kind; 0: no peers")
    parser.add_argument("--report", action="store_true", help="no training: measure and write what is finished")
    parser.add_argument("--dry-run", action="store_true", help="what each budget buys, and nothing done")
    parser.add_argument("--recipe", type=Path, default=RECIPE)
    parser.add_argument("--set", type=_changes, default={}, help="fields over those of the models, as a JSON object")
    return parser.parse_args(arguments)


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _changes(text: str) -> dict[str, Any]:
    return dict(json.loads(text))


def dry_run(case: Case) -> str:
    """Tokens, documents or samples, steps and seconds of every stage of every split, as `studies.dry_run` estimates."""
    plan = plan_study(case.study)
    rows = []
    for split in case.splits:
        total = 0.0
        for line in plan.lines:
            if split.name in line.used_by and line.kind != "evaluate":
                cost = line.cost
                total += cost.seconds
                what = [f"{cost.flop:.3g}", f"{cost.tokens:,.0f}", f"{cost.samples:,.0f}", f"{cost.steps:,}"]
                share = f"{100 * split.share(line.kind):g} %"
                rows.append([split.name, line.kind, share, *what, _duration(cost.seconds)])
        rows.append([split.name, "together", "", "", "", "", "", _duration(total)])
    rate = f"{plan.rates.train:.3g} FLOP/s in training, {100 * plan.rates.train / plan.rates.peak:.0f} % of peak"
    head = ["split", "stage", "share", "FLOP", "tokens", "documents, samples", "steps", "time here"]
    size = f"{case.model}, {plan.parameters / 1e6:.2f} M parameters, {case.weights / 1e6:.2f} M weights that multiply"
    how = f"{rate}, {plan.threads} thread(s), measured now; RL as if no group were silent"
    return f"{case.flop:g} FLOP: {size}\n{how}\n\n{markdown(head, rows)}"


def on_paper(case: Case) -> list[list[object]]:
    """A row for each split: what it would buy, by lengths of gold solutions."""
    plan = plan_study(case.study, rates=Rates(1.0, 1.0, 1.0, 1))  # no time is asked for
    rows: list[list[object]] = []
    for split in case.splits:
        costs = {line.kind: line.cost for line in plan.lines if split.name in line.used_by}
        learnt, rl = [costs[stage] for stage in ("pretrain", "midtrain") if stage in costs], costs.get("rl")
        cells = [f"{sum(cost.tokens for cost in learnt):.3g}", f"{sum(cost.samples for cost in learnt):.3g}"]
        cells += [f"{rl.steps:,}", f"{rl.samples:.3g}", f"{rl.tokens:.3g}"] if rl else ["", "", ""]
        rows.append([f"{case.flop:g}", case.model, split.name, *cells])
    return rows


def _duration(seconds: float) -> str:
    for size, name in ((86400.0 * 365, "years"), (86400.0, "days"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {name}"
    return f"{seconds:.1f} s"


def measure(case: Case, folder: Path, steps: int) -> None:
    """Steps of every kind beside the peers', from the first seed's weights that are there, into peers.json; once."""
    path = folder / "peers.json"
    runs = [run for run in study_runs(case.study) if run.seed == case.study.seeds[0]]
    stages, pretrain = folder.parent / "stages", runs[0].stages["pretrain"][0]
    if pretrain.outcome(stages) is None:
        return
    before = {run.variant: _before(run) for run in runs if "rl" in run.stages}
    before = {name: unit for name, unit in before.items() if unit.outcome(stages) is not None}
    units = {name: unit.key for name, unit in before.items()} | {"pretrain": pretrain.key}
    key: dict[str, Any] = {"code": code_version(), "units": units}
    key |= {"peers": {name: package_version(name) for name in ("transformers", "trl", "accelerate")}, "steps": steps}
    if path.exists() and json.loads(path.read_text())["key"] == key:
        return
    starts = {name: _weights(unit, stages) for name, unit in before.items()}
    recipe = next((case.study.variants[name] for name in starts), next(iter(case.study.variants.values())))
    found = compare(recipe, _weights(pretrain, stages), starts, pretrain.tokenizer, steps)
    skipped = {PEERS[one.kind]: why for one in found if (why := missing(one.kind)) is not None}
    content = {"key": key, "skipped": skipped, "compared": [asdict(one) for one in found]}
    write_text(path, to_json(content, indent=1) + "\n")


def _before(run: Run) -> Unit:
    """Whose weights the run's RL starts from."""
    before = run.stages["rl"][0].before
    assert before is not None
    return before


def _weights(unit: Unit, stages: Path) -> Any:
    return load_model(stages / unit.key / "checkpoint")


def _compared(folder: Path) -> tuple[list[Compared], dict[str, str]]:
    path = folder / "peers.json"
    if not path.exists():
        return [], {}
    content = json.loads(path.read_text())
    return [Compared(**one) for one in content["compared"]], content["skipped"]


def write(cases: Sequence[Case], out: Path, docs: Path | None) -> None:
    """run.json of everything that is finished; with `docs` the page, the picture, results and recipes."""
    peaks = machine_peaks()
    peak = peaks["matmul_gpu" if torch.cuda.is_available() else "matmul_one_core"]
    all_results: list[Results] = []
    found: list[Record] = []
    skipped: dict[str, str] = {}
    for case in cases:
        folder = out / f"{case.flop:g}"
        compared, absent = _compared(folder)
        results = collect(case, folder, compared, peak)
        all_results.append(results)
        found += records(results, compared)
        skipped |= absent
    finished = [results for results in all_results if any(e["seeds"] for e in results["splits"].values())]
    run = new_run(found, threads=1, peaks=peaks, skipped=skipped, modules=("transformers", "accelerate", "trl"))
    write_run(out / "run.json", run)
    if docs is None or not finished:
        return
    (docs / NAME).mkdir(parents=True, exist_ok=True)
    begun = {results["flop"] for results in finished}
    planned = [row for case in cases if case.flop not in begun for row in on_paper(case)]
    write_text(docs / f"{NAME}.md", page(finished, run, NAME, planned))
    write_text(docs / f"{NAME}.svg", picture(finished))
    facts: dict[str, Any] = {"date": run.date, "commit": run.commit, "machine": run.machine, "versions": run.versions}
    facts |= {"budgets": finished}
    write_text(docs / NAME / "results.json", to_json(facts, indent=1) + "\n")
    for case in cases:
        if (saved := out / f"{case.flop:g}" / "study.toml").exists():
            write_text(docs / NAME / f"{case.flop:g}.toml", saved.read_text(encoding="utf-8"))


if __name__ == "__main__":
    sys.exit(main())
