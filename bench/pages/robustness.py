"""Whether a recipe ends well whatever the seed and the machine's arithmetic: one run from scratch each, and their page.

    python -m bench.pages.robustness --runs runs/robustness --out docs/results

A run that is there is not made again, one that was stopped goes on. Seeds 0 .. 9 run on one thread with what the
processor has; then seed 0 on two threads, with narrower instructions, and with torch in the place of the C++ core.
Writes robustness.md; every number is read from the runs. The bounds below were set before the runs that the page shows.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..harness.markdown import markdown

FINISHED = 0.99
"""Least share of samples that end by themselves, over the last steps of RL and of the evaluation after it."""
LAST_STEPS = 20
"""Number of last RL steps over which `finished` is averaged."""
LARGEST_LOSS = 0.05
"""Most that verified pass@1 in distribution may lose to RL."""


@dataclass(frozen=True)
class Variant:
    """A run.

    Args:
        name: of its folder.
        says: what its arithmetic is, in words.
        environment: read by torch, oneDNN and MKL when they are loaded.
        kernels, sampler: what of the core computes, or "torch"; see `robustness_run.choose`.
    """

    name: str
    says: str = "as it comes"
    seed: int = 0
    threads: int = 1
    environment: Mapping[str, str] = field(default_factory=dict)
    kernels: str = "auto"
    sampler: str = "auto"


# as a processor without AVX-512, and one without AVX, would compute: MKL and oneDNN take what they are told here
_AVX2 = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_CBWR": "AVX2"}
_SSE = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_CBWR": "COMPATIBLE"}

VARIANTS = [
    *(Variant(f"seed-{seed}", seed=seed) for seed in range(10)),
    Variant("threads-2", "two threads", threads=2),
    Variant("torch-kernels", "training by torch alone", kernels="torch"),
    Variant("torch-sampler", "sampling by torch alone", sampler="torch"),
    Variant("torch-both", "training and sampling by torch alone", kernels="torch", sampler="torch"),
    Variant("aten-avx2", "torch in AVX2", environment={"ATEN_CPU_CAPABILITY": "avx2"}),
    Variant("aten-default", "torch without AVX", environment={"ATEN_CPU_CAPABILITY": "default"}),
    Variant("onednn-sse41", "oneDNN in SSE4.1", environment={"ONEDNN_MAX_CPU_ISA": "SSE41"}),
    Variant("avx2", "all in AVX2", environment=_AVX2, kernels="avx2", sampler="avx2"),
    Variant("sse", "all without AVX", environment=_SSE, kernels="baseline", sampler="base"),
]


def is_finished(folder: Path) -> bool:
    return (folder / "arithmetic.json").exists()


def start(variant: Variant, folder: Path, recipe: str) -> None:
    """Runs a variant in its own process, or continues it.

    Raises:
        CalledProcessError: it failed; what it said is on stderr.
    """
    command = [sys.executable, "-m", "bench.pages.robustness_run", str(folder), recipe, "--seed", str(variant.seed)]
    command += ["--threads", str(variant.threads), "--kernels", variant.kernels]
    command += ["--sampler", variant.sampler]
    environment = {**os.environ, "OMP_NUM_THREADS": str(variant.threads), **variant.environment}
    subprocess.run(command, check=True, env=environment)


@dataclass(frozen=True)
class Ending:
    """How a run ended; shares in 0 .. 1, lengths in tokens, gains are differences to the stage before RL.

    Args:
        finished_rl: over LAST_STEPS; finished: of the evaluation, the least of the ranges.
        lengths: mean of the first and of the last step of RL.
        edge: verified pass@1 before and after.
        range_loss, op_loss: largest loss of verified pass@1 in distribution, of the range and of one op.
        gains: of verified pass@k by op, for each k.
        warnings: what the watch of RL said.
        pretrain_losses: by step, as metrics.jsonl has them.
    """

    variant: Variant
    finished_rl: float
    finished: float
    lengths: tuple[float, float]
    edge: tuple[float, float]
    range_loss: float
    op_loss: float
    gains: Mapping[str, Mapping[str, float]]
    warnings: int
    pretrain_losses: list[float]
    arithmetic: Mapping[str, Any]
    results: Mapping[str, Any]

    @classmethod
    def read(cls, variant: Variant, folder: Path) -> Ending:
        results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        steps = [line for line in lines if line["stage"] == "rl"]
        *_, before, after = results["stages"].values()
        inside, edge = "in-distribution", "edge"
        ks = next(iter(after["ops"].values()))["verified"]
        gains = {
            k: {op: entry["verified"][k] - before["ops"][op]["verified"][k] for op, entry in after["ops"].items()}
            for k in ks
        }
        return cls(
            variant,
            float(np.mean([line["finished"] for line in steps[-LAST_STEPS:]])),
            min(after["ranges"][name]["stopped"] for name in (inside, edge)),
            (steps[0]["mean_length"], steps[-1]["mean_length"]),
            (before["ranges"][edge]["verified"]["1"], after["ranges"][edge]["verified"]["1"]),
            before["ranges"][inside]["verified"]["1"] - after["ranges"][inside]["verified"]["1"],
            -min(gains["1"][str(op)] for op in results["ranges"][inside]),
            gains,
            sum(len(line.get("warnings", [])) for line in steps),
            [line["loss"] for line in lines if line["stage"] == "pretrain"],
            json.loads((folder / "arithmetic.json").read_text(encoding="utf-8")),
            results,
        )

    @property
    def is_well(self) -> bool:
        finished = min(self.finished_rl, self.finished) >= FINISHED
        return finished and self.edge[1] > self.edge[0] and self.range_loss <= LARGEST_LOSS


def parts_from(first: Ending, other: Ending) -> str:
    """The first step of pre-training whose loss differs from the other run's in its six digits."""
    if first.variant.seed != other.variant.seed or first is other:
        return ""
    pairs = zip(first.pretrain_losses, other.pretrain_losses, strict=True)
    return next((str(step) for step, (a, b) in enumerate(pairs, 1) if a != b), "never")


def endings_table(endings: Iterable[Ending]) -> str:
    endings = list(endings)
    rows = [
        [
            end.variant.seed,
            end.variant.says,
            parts_from(endings[0], end),
            f"{end.finished_rl:.4f}",
            f"{end.finished:.4f}",
            "{:.0f} -> {:.0f}".format(*end.lengths),
            "{:.1f} -> {:.1f}".format(*(100 * score for score in end.edge)),
            _points(-end.range_loss),
            _points(-end.op_loss),
            end.warnings,
            "ok" if end.is_well else "**not**",
        ]
        for end in endings
    ]
    head = ["seed", "arithmetic", "diverges at", "finished, RL", "finished", "length", "edge pass@1"]
    head += ["in distribution", "its worst op", "warnings", "ends well"]
    return markdown(head, rows, align="><>>>>>>>><")


def gains_table(endings: Iterable[Ending]) -> str:
    """The change in verified pass@k due to RL, by op, in points."""
    endings = list(endings)
    ops, ks = list(endings[0].gains["1"]), [k for k in endings[0].gains if k in ("1", max(endings[0].gains, key=int))]
    rows = [[end.variant.name, f"pass@{k}", *(_points(end.gains[k][op]) for op in ops)] for end in endings for k in ks]
    return markdown(["run", "score", *(f"op {op}" for op in ops)], rows, align="<<" + ">" * len(ops))


def _points(difference: float) -> str:
    return f"{round(100 * difference, 1) + 0.0:+.1f}"  # the sum makes -0.0 a 0.0


def page(endings: list[Ending]) -> str:
    first = endings[0]
    recipe, machine = first.results["recipe"], first.results["machine"]
    well, times = sum(end.is_well for end in endings), [end.arithmetic["cpu_s"] for end in endings]
    times = [seconds / 60 for seconds in times if seconds is not None]
    took = f"{min(times):.1f} to {max(times):.1f} CPU-minutes per run" if times else "times were not taken"
    there = {end.variant.name for end in endings}
    missing = [variant.name for variant in VARIANTS if variant.name not in there]
    left = f" Not run yet: {', '.join(missing)}." if missing else ""
    return f"""# {recipe}: robustness to seeds and arithmetic

{well} of {len(endings)} runs end well.{left}

Each run from scratch, with evaluations; {machine["cpu"]}, {machine["cores"]} cores,
torch {machine["torch"]} ({first.arithmetic["torch"]}), fastreason {machine["fastreason"]}; {took}.
Generated by `python -m bench.pages.robustness`, which also makes missing runs. Only library switches that change bits
on this machine are used: on an AMD EPYC, `MKL_CBWR` does and `MKL_ENABLE_INSTRUCTIONS` does not.

Rounding differs between processors, and a run amplifies the differences until its samples change. Seed 0 is run with
the arithmetic of other processors: narrower instructions in torch, oneDNN, MKL and the C++ core, two threads, and torch
in place of the core. "diverges at" is the first step of pre-training whose loss differs from the first run's in its six
digits; "never" means that pre-training was identical.

A run ends well if at least {100 * FINISHED:g} % of the samples finish before the limit, over the last {LAST_STEPS}
steps of RL and in the evaluation after it (the lower of in-distribution and edge), verified pass@1 at the edge is
higher than before RL, and in distribution it has dropped by at most {100 * LARGEST_LOSS:g} points. Lengths
are mean tokens of the first and the last step of RL; "in distribution" and "its worst op" are changes due to RL, in
points; warnings are those of the run's monitor.

{endings_table(endings)}

Change in verified pass@k due to RL, in points:

{gains_table(endings)}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--runs", type=Path, default=Path("runs/robustness"), help="one folder per run; existing runs are continued"
    )
    parser.add_argument("--recipe", default="quickstart")
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", help="make only these runs; the page has all finished ones"
    )
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    names = [variant.name for variant in VARIANTS]
    if unknown := [name for name in options.only or [] if name not in names]:
        parser.error(f"--only: must be of {', '.join(names)}, got {unknown[0]}")
    for variant in VARIANTS:
        if not is_finished(options.runs / variant.name) and variant.name in (options.only or names):
            start(variant, options.runs / variant.name, options.recipe)
    finished = [variant for variant in VARIANTS if is_finished(options.runs / variant.name)]
    endings = [Ending.read(variant, options.runs / variant.name) for variant in finished]
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "robustness.md").write_text(page(endings), encoding="utf-8")


if __name__ == "__main__":
    main()
