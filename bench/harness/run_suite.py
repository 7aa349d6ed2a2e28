"""Runs one suite in a process of its own and makes records of the times that pytest-benchmark kept."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from .environment import ROOT
from .machine_peaks import percent_of_peak
from .questions import Settings
from .records import OURS, Record

__all__ = ["Collected", "records_of", "run_suite"]

# the repository's own options are for its tests: warnings of peers are no errors here
_PYTEST = [
    "-m",
    "pytest",
    "-q",
    "-p",
    "bench.harness.pytest_plugin",
    "bench/harness/turns.py",
    "-p",
    "no:cacheprovider",
]
_PYTEST += ["-o", "addopts=", "-o", "filterwarnings=ignore", "-o", "python_files=turns.py"]
_PYTEST += ["-o", "python_functions=bench_*"]


@dataclass
class Collected:
    """What a suite gave.

    Args:
        skipped: what took no part, and why.
        failure: what went wrong with a contestant of ours, as pytest printed it; "" if nothing did.
    """

    records: list[Record]
    skipped: dict[str, str] = field(default_factory=dict)
    failure: str = ""


def run_suite(name: str, settings: Settings, peaks: Mapping[str, float], *, only: str = "") -> Collected:
    """Every turn of every question of a suite.

    Args:
        name: of bench/suites/NAME.py, or a whole module's.
        only: what the questions are about, up to their first comma; default: all.
    """
    with TemporaryDirectory() as folder:
        times, skipped = Path(folder) / "times.json", Path(folder) / "skipped.json"
        command = [sys.executable, *_PYTEST, "--suite", name, "--threads", str(settings.threads)]
        command += ["--benchmark-json", str(times), "--skipped", str(skipped)]
        command += ["--quick"] if settings.quick else []
        command += ["--only", only] if only else []
        command += ["--reference", str(settings.reference)] if settings.reference else []
        # under the interpreter no time means anything
        environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
        environment |= {"OMP_NUM_THREADS": str(settings.threads), "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        found = _read(times, {"benchmarks": []})["benchmarks"]
        left = _read(skipped, {})
        # who failed in a later turn does not count with the turns before
        benchmarks = [entry for entry in found if entry["extra_info"]["label"] not in left]
        records = records_of(name.rpartition(".")[2], benchmarks, peaks, settings.threads)
        failure = "" if done.returncode == 0 else f"{done.stdout}\n{done.stderr}".strip()
        return Collected(records, left, failure)


def _read(path: Path, otherwise: dict[str, Any]) -> dict[str, Any]:
    """pytest-benchmark leaves an empty file where nothing ran."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    found: dict[str, Any] = json.loads(text) if text.strip() else otherwise
    return found


def records_of(
    suite: str, benchmarks: Iterable[Mapping[str, Any]], peaks: Mapping[str, float], threads: int
) -> list[Record]:
    """A record for each provider of each question, one time a turn.

    Args:
        benchmarks: entries of pytest-benchmark's JSON, with what bench/harness/pytest_plugin.py noted in their
        `extra_info`.
        peaks: of the machine.
    """
    turns: dict[tuple[int, str], list[Mapping[str, Any]]] = {}
    for entry in benchmarks:
        info = entry["extra_info"]
        # the median of the calls of a turn
        turns.setdefault((info["question"], info["provider"]), []).append(info | {"time_s": entry["stats"]["median"]})
    records = []
    for (question, _), mine in turns.items():
        everybody = [turn for (other, _), theirs in turns.items() if other == question for turn in theirs]
        needs = {name: _per_unit(everybody, name) for name in ("flop", "bytes")}
        records += _records(suite, sorted(mine, key=lambda turn: turn["turn"]), needs, peaks, threads)
    return records


def _per_unit(turns: Iterable[Mapping[str, Any]], name: str) -> float | None:
    """What a unit of the work needs, whoever counted it: it is the same work."""
    counted = [turn[name] / turn["work"] for turn in turns if turn[name] is not None]
    return statistics.median(counted) if counted else None


def _records(
    suite: str,
    turns: Sequence[Mapping[str, Any]],
    needs: Mapping[str, float | None],
    peaks: Mapping[str, float],
    threads: int,
) -> list[Record]:
    """The records of one provider on one question: the total and, for us, its parts."""
    first = turns[0]
    work = float(statistics.median(turn["work"] for turn in turns))
    # calls that did more or less than the median are brought to its size
    times_s = [turn["time_s"] * work / turn["work"] for turn in turns]
    flop, size_bytes = (None if each is None else each * work for each in (needs["flop"], needs["bytes"]))
    peak, amount, percent = first["peak"], {"matmul": flop, "copy": size_bytes}.get(first["peak"]), None
    if amount is not None:
        time_s = statistics.median(times_s)
        percent = percent_of_peak(peaks, peak, amount, time_s, threads=threads, gpu=first["gpu"])
    common: dict[str, Any] = dict(
        suite=suite, provider=first["provider"], shape=first["shape"], unit=first["unit"], work=work,
        clock=first["clock"],
    )  # fmt: skip
    whole = Record(
        what=first["what"], times_s=times_s, bytes=size_bytes, flop=flop,
        peak=peak if percent is not None else None, percent_of_peak=percent, **common,
    )  # fmt: skip
    parts = [
        Record(what=f"{first['what']}: {part}", times_s=[turn["parts"][part] for turn in turns], **common)
        for part in (first["parts"] if first["provider"] == OURS else ())
    ]
    return [whole, *parts]
