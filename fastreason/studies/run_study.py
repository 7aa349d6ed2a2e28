"""Runs a study: its units of work are divided among any number of processes, on one or several machines.

    OUT/study.toml    the fully resolved recipe of every variant, seeds, claims
    OUT/stages/       units of work, see fastreason.studies.work_units; several studies may share another folder
    OUT/results.json  scores by variant and seed, and the verdicts on claims, once all is done

Each process repeatedly takes a unit whose predecessor is finished and whose lock is free, until none is left. So
`--jobs 4`, the same command on several machines with a shared folder, and a restart after a crash are the same thing:
additional processes.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..runtime.files import read_whole, write_text
from ..runtime.folder_lock import Lock
from ..runtime.json_files import to_json
from ..runtime.stop_request import Interrupted, StopRequest, Terminated
from .preflight import preflight
from .results import collect
from .resume import check_study
from .study import Study
from .work_units import (
    Run,
    Unit,
    check_ranges,
    code_version,
    distinct_units,
    study_runs,
    work,
)

_POLL_S = 0.5


def run_study(
    study: Study,
    out: str | Path | None = None,
    *,
    resume: bool = False,
    jobs: int = 1,
    shard: str | None = None,
    stages: str | Path | None = None,
) -> dict[str, Any]:
    """Runs the unfinished part of a study, and returns the content of results.json.

    Args:
        study: see `load_study`.
        out: the run directory; default runs/NAME. It must be new, empty or, with `resume` or `shard`, that of this
            study.
        resume: continue the study in the directory.
        jobs: number of processes on this machine.
        shard: "I/N": only the runs of part I of N (0 .. N - 1); other machines do the rest. Units shared by several
            parts are done by the first to reach them, while the others wait.
        stages: folder of finished units; default OUT/stages.
    Raises:
        ValueError: an argument is invalid, or the directory belongs to another study.
        Interrupted, Terminated, KeyboardInterrupt, OSError, FloatingPointError: as in `fastreason.run`.
        RuntimeError: one of several processes failed; its message is on stderr.
    """
    first, count = parse_shard(shard)
    if jobs < 1:
        raise ValueError(f"run: jobs must be at least 1, got {jobs}")
    folder = Path(out) if out is not None else default_folder(study)
    place = Path(stages) if stages is not None else folder / "stages"
    check_ranges(study)
    preflight(study.variants, study.seeds)
    prepare(folder, study, resume or shard is not None, place)
    runs = study_runs(study)
    _forget_cut(runs, place)
    mine = part_of(runs, first, count)
    if jobs == 1:
        with StopRequest.watch() as stop:
            try:
                work_through(study, distinct_units(mine), place, stop)
            except (Interrupted, KeyboardInterrupt):
                if stop.terminated:
                    raise Terminated from None
                raise
    else:
        _start_workers(folder, place, jobs, shard)
    return conclude(study, runs, folder, place)


def default_folder(study: Study) -> Path:
    """runs/NAME-SIZE"""
    return Path("runs") / (study.name if study.size is None else f"{study.name}-{study.size}")


def parse_shard(shard: str | None) -> tuple[int, int]:
    """(I, N) of "I/N".

    >>> parse_shard("2/8"), parse_shard(None)
    ((2, 8), (0, 1))
    """
    first, _, count = (shard or "0/1").partition("/")
    if not (first.isdigit() and count.isdigit() and int(first) < int(count)):
        raise ValueError(f"run: shard must have the form I/N with 0 <= I < N, got {shard!r}")
    return int(first), int(count)


def part_of(runs: list[Run], first: int, count: int) -> list[Run]:
    """Part `first` of `count`; consecutive runs, which share the most, stay together."""
    return runs[first * len(runs) // count : (first + 1) * len(runs) // count]


def prepare(folder: Path, study: Study, resume: bool, stages: Path | None = None) -> None:
    """Creates the directory, or checks that it belongs to this study and this code."""
    saved, code = folder / "study.toml", folder / "code.json"
    if saved.exists():
        if not resume:
            raise ValueError(
                f"run: {folder} holds a run; continue it with resume=True (--resume), or choose another out (--out)"
            )
        before = read_whole(code)["code"]
        if before != code_version():
            raise ValueError(
                f"run: {folder} was started with other code ({before}, this is {code_version()}), so results "
                "would not be comparable; continue with that code, or choose another out (--out)"
            )
        started = Study.load(saved)
        check_study(folder, started, study, begun_stages(started, folder / "stages" if stages is None else stages))
        if study.to_dict() != started.to_dict():
            _save(study, saved)
        return
    mine = ("study.new", "code.json", "code.json.new", "stages")  # may be left by a crash or created by other shards
    if folder.exists() and any(not path.name.startswith(mine) for path in folder.iterdir()):
        raise ValueError(f"run: {folder} is not empty and not a run; choose another out (--out)")
    folder.mkdir(parents=True, exist_ok=True)
    # several shards may start at once: each writes the same content under its own temporary name
    temporary = folder / f"study.new-{os.getpid()}"
    temporary.write_text(to_json({"code": code_version()}) + "\n", encoding="utf-8")
    temporary.replace(code)
    _save(study, saved)


def _save(study: Study, path: Path) -> None:
    temporary = path.with_name(f"study.new-{os.getpid()}")
    study.save(temporary)
    temporary.replace(path)


def _forget_cut(runs: list[Run], stages: Path) -> None:
    """Removes a done.json truncated by a power failure; the unit is redone from its checkpoint."""
    for unit in distinct_units(runs):
        try:
            unit.outcome(stages)
        except ValueError as error:
            print(f"run: {error}; this stage is redone from its checkpoint", file=sys.stderr)
            (stages / unit.key / "done.json").unlink(missing_ok=True)


def begun_stages(study: Study, stages: Path) -> dict[str, list[str]]:
    """The stages of each variant that have begun with any seed."""
    begun: dict[str, list[str]] = {name: [] for name in study.variants}
    for run in study_runs(study):
        for stage, (unit, evaluation) in run.stages.items():
            if (stages / unit.key / "checkpoint").exists() or _finished(unit, stages):
                begun[run.variant].append(stage)
            if _finished(evaluation, stages):
                begun[run.variant].append("evaluate")
    return begun


def work_through(study: Study, units: Sequence[Unit], stages: Path, stop: StopRequest) -> None:
    """Works on units until all are finished, here or elsewhere.

    Raises:
        Interrupted: `stop` was requested.
    """
    recipe = next(iter(study.variants.values()))
    threads_before = torch.get_num_threads()
    torch.set_num_threads(recipe.threads or os.cpu_count() or 1)
    try:
        pending = list(units)
        while pending := [unit for unit in pending if not _finished(unit, stages)]:
            if stop.requested:
                raise Interrupted("between stages")
            if not any(_try(unit, stages, stop, recipe.metrics) for unit in pending):
                time.sleep(_POLL_S)
    finally:
        torch.set_num_threads(threads_before)


def _finished(unit: Unit, stages: Path) -> bool:
    return (stages / unit.key / "done.json").exists()


def _try(unit: Unit, stages: Path, stop: StopRequest, metrics: list[Any]) -> bool:
    """Does a unit if it is ready and not locked; returns whether it did."""
    if unit.before is not None and not _finished(unit.before, stages):
        return False

    def stop_work() -> None:
        stop.requested = True

    lock = Lock.acquire(stages / unit.key, on_lost=stop_work)
    if lock is None:
        return False
    if _finished(unit, stages):  # another process finished it just before we got the lock
        lock.withdraw()
        return True
    try:
        started = time.perf_counter()
        work(unit, stages, stop, metrics)
        print(f"{unit.key}: done in {time.perf_counter() - started:.0f} s", file=sys.stderr)
    finally:
        lock.release()
    return True


def conclude(study: Study, runs: Sequence[Run], folder: Path, stages: Path) -> dict[str, Any]:
    """Writes results.json from finished units, and returns its content."""
    results = collect(study, runs, stages)
    write_text(folder / "results.json", to_json(results) + "\n")
    return results


def _start_workers(folder: Path, stages: Path, jobs: int, shard: str | None) -> None:
    """Starts worker processes and waits for them, forwarding signals."""
    command = [sys.executable, "-m", "fastreason.studies.run_study", str(folder), str(stages), shard or "0/1"]
    command.append(str(os.getpid()))
    # they import rewards from the same folders as this process
    environment = os.environ | {"TQDM_DISABLE": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    workers: list[subprocess.Popen[bytes]] = []
    with StopRequest.watch() as stop:
        try:
            for _ in range(jobs):
                # in their own process group, so that Ctrl-C reaches them once, through us
                workers.append(subprocess.Popen(command, env=environment, process_group=0))
            _wait(workers, stop)
        finally:
            for worker in workers:
                worker.terminate()
                worker.wait()
        if stop.terminated:
            raise Terminated
        if stop.requested:
            raise Interrupted("several stages")
    failed = [worker.returncode for worker in workers if worker.returncode]
    if failed:
        raise RuntimeError(
            f"run: {len(failed)} of {jobs} processes failed (status {failed[0]}); see their messages above"
        )


def _wait(workers: Sequence[subprocess.Popen[bytes]], stop: StopRequest) -> None:
    passed_on = False
    while any(worker.poll() is None for worker in workers):
        if stop.requested and not passed_on:
            passed_on = True
            for worker in workers:
                worker.send_signal(signal.SIGTERM)
        time.sleep(0.1)


def _worker(arguments: Sequence[str] | None = None) -> int:
    """Entry point of a process started by `_start_workers`."""
    parser = argparse.ArgumentParser(prog="python -m fastreason.studies.run_study")
    for name in ("folder", "stages"):
        parser.add_argument(name, type=Path)
    parser.add_argument("shard")
    parser.add_argument("parent", type=int)
    options = parser.parse_args(arguments)
    study = Study.load(options.folder / "study.toml")
    units = distinct_units(part_of(study_runs(study), *parse_shard(options.shard)))
    with StopRequest.watch() as stop:
        if os.getppid() != options.parent:  # the parent was killed while we were importing
            return 128 + signal.SIGTERM
        threading.Thread(target=_stop_when_orphaned, args=(stop, options.parent), daemon=True).start()
        try:
            work_through(study, units, options.stages, stop)
        except (Interrupted, KeyboardInterrupt):
            return 128 + signal.SIGTERM
        except (ValueError, OSError, FloatingPointError) as error:
            print(f"fastreason run: {error}", file=sys.stderr)
            return 1
    return 0


def _stop_when_orphaned(stop: StopRequest, parent: int) -> None:
    """Stops a worker, with a checkpoint, when its parent process is gone."""
    while os.getppid() == parent:
        time.sleep(_POLL_S)
    stop.requested = True


def format_verdicts(results: Mapping[str, Any]) -> str:
    """One line per claim: verdict, effect with its interval, text."""
    lines = []
    for claim in results["claims"]:
        effect = ""
        if claim["effect"] is not None:
            low, high = claim["interval"]
            effect = f"{100 * claim['effect']:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}] points"
        lines.append(f"{claim['verdict']:28} {effect:34} {claim['text']}")
    return "\n".join(lines) or "no claims"


if __name__ == "__main__":
    sys.exit(_worker())
