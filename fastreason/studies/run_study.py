"""Runs a study: its units of work are divided among any number of processes, on one or several machines.

    OUT/study.toml    the fully resolved recipe of every variant, seeds, claims
    OUT/code.json     version and hash of the code
    OUT/stages/       units of work, see fastreason.studies.work_units; several studies may share another folder
    OUT/results.json  scores by variant and seed, and the verdicts on claims, as far as they are finished

and for a single run also

    OUT/metrics.jsonl      the metrics of its stages in order
    OUT/checkpoints/STAGE  links to the checkpoints of its stages, and OUT/evaluation/STAGE to the samples, if kept

Each process repeatedly takes a unit whose predecessor is finished and whose lock is free, until none is left. So
`--jobs 4`, shards on several machines with a shared folder, and a restart after a crash are the same thing: additional
processes. Under torchrun all ranks work on the unit that rank 0 takes.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from ..runtime import distributed
from ..runtime.files import check_folder, read_whole, write_json, write_text, write_whole
from ..runtime.folder_lock import Lock, held
from ..runtime.json_files import to_json
from ..runtime.progress import tell
from ..runtime.stop_request import Interrupted, StopRequest, Terminated
from ..training.checkpoint import settle_checkpoint
from .preflight import preflight
from .results import collect
from .resume import check_study
from .study import Study
from .study_scores import graph_parts, scores_by_stage
from .work_units import (
    Run,
    Unit,
    check_ranges,
    code_version,
    describe_unit,
    distinct_units,
    study_runs,
    work,
)

_POLL_S = 0.5
# a page takes a second or two
_PAGE_EVERY_S = 30.0
# code of a worker, which must know its parent before the slow imports
_WORKER = """import sys
from fastreason.runtime.processes import end_with_parent
end_with_parent(int(sys.argv[-1]))
from fastreason.studies.run_study import _worker
sys.exit(_worker())"""


def run_study(
    study: Study,
    out: str | Path | None = None,
    *,
    resume: bool = False,
    jobs: int = 1,
    shard: str | None = None,
    stages: str | Path | None = None,
    write_page: Callable[[Path], Any] = lambda folder: None,
) -> dict[str, Any]:
    """Runs the unfinished part of a study, and returns the content of results.json. All ranks call it; rank 0 writes.

    Args:
        study: see `load_study`.
        out: the run directory; default runs/NAME. It must be new, empty or, with `resume` or `shard`, that of this
            study.
        resume: continue the study in the directory. The code and the settings of stages that have begun must not have
            changed; changes to other stages are printed.
        jobs: number of processes on this machine.
        shard: "I/N": only the runs of part I of N (0 .. N - 1); other machines do the rest. Units shared by several
            parts are done by the first to reach them, while the others wait. Without it the process has the directory
            to itself.
        stages: folder of finished units; default OUT/stages.
        write_page: writes the report into the directory: at the end, and for a single run after an evaluation too, at
            most every half minute.
    Raises:
        ValueError: an argument is invalid, or the directory belongs to another study.
        Interrupted, Terminated, KeyboardInterrupt, OSError, FloatingPointError: as in `fastreason.run`.
        OtherRankFailed: another rank stopped with an error.
        RuntimeError: one of several processes failed; its message is on stderr.
    """
    first, count = parse_shard(shard)
    if jobs < 1:
        raise ValueError(f"run: jobs must be at least 1, got {jobs}")
    if distributed.world_size() > 1 and (jobs > 1 or shard is not None):
        raise ValueError("run: jobs and shards are processes of their own; start them without torchrun")
    folder = Path(out) if out is not None else default_folder(study)
    place = Path(stages) if stages is not None else folder / "stages"
    with distributed.together():
        check_ranges(study)
        preflight(study.variants, study.seeds)
    runs = study_runs(study)
    units = distinct_units(part_of(runs, first, count))

    page_written = time.monotonic()

    def update(finished: Unit | None) -> None:
        nonlocal page_written
        conclude(study, runs, folder, place)
        if finished is None or finished.kind != "evaluate" or finished is units[-1]:  # the last page is written below
            return
        if time.monotonic() - page_written >= _PAGE_EVERY_S:
            write_page(folder)
            page_written = time.monotonic()

    with StopRequest.watch() as stop, ExitStack() as stack:
        try:
            with distributed.together():
                if distributed.is_main():
                    if stages is not None:
                        check_folder("run: stages (--stages)", place)
                    check_folder("run: out (--out)", folder)
                    if shard is None:  # of several parts, each works in the directory
                        stack.enter_context(held(folder / ".lock", f"run: {folder}", stop.request))
                    prepare(folder, study, resume or shard is not None, place)
                    _forget_cut(units, place)
                    _check_finished(units, place)
            if jobs > 1:
                _start_workers(folder, place, jobs, shard, stop)
            else:
                work_through(study, units, place, stop, update if study.is_run else None)
            with distributed.together():
                results = conclude(study, runs, folder, place)
                if distributed.is_main():
                    write_page(folder)
        except (Interrupted, KeyboardInterrupt):
            if stop.terminated:
                raise Terminated from None
            raise
    return results


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
    if (folder / "recipe.toml").exists() and not saved.exists():
        raise ValueError(
            f"run: {folder} holds a run of an earlier version (recipe.toml without study.toml), which this version "
            "cannot continue; finish it with that version, or choose another out (--out)"
        )
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
            write_whole(saved, study.save)
        return
    mine = ("study.toml.new", "code.json", "stages", ".lock")  # left by a crash, made by other shards, or our lock
    if folder.exists() and any(not path.name.startswith(mine) for path in folder.iterdir()):
        raise ValueError(f"run: {folder} is not empty and not a run; choose another out (--out)")
    folder.mkdir(parents=True, exist_ok=True)
    # several shards may start at once: each writes the same
    write_json(code, {"code": code_version()})
    write_whole(saved, study.save)


def _forget_cut(units: Sequence[Unit], stages: Path) -> None:
    """Removes a done.json truncated by a power failure; the unit is redone from its checkpoint."""
    for unit in units:
        try:
            unit.outcome(stages)
        except ValueError as error:
            print(f"run: {error}; this stage is redone from its checkpoint", file=sys.stderr)
            (stages / unit.key / "done.json").unlink(missing_ok=True)


def _check_finished(units: Sequence[Unit], stages: Path) -> None:
    """Checks the files of finished units, which nothing else here would read again: models have the SHA-256 that they
    were written with, and unit.json is made again."""
    for unit in units:
        if not _finished(unit, stages):
            continue
        describe_unit(unit, stages)
        if unit.kind == "evaluate":
            continue
        try:
            settle_checkpoint(stages / unit.key / "checkpoint")
        except ValueError as error:
            raise ValueError(f"{error}; remove {stages / unit.key / 'done.json'} too") from None


def begun_stages(study: Study, stages: Path) -> dict[str, list[str]]:
    """The stages of each variant that have begun with any seed."""
    begun: dict[str, list[str]] = {name: [] for name in study.variants}
    for run in study_runs(study):
        for stage, (unit, evaluation) in run.stages.items():
            places = [stages / unit.key / name for name in ("checkpoint", "checkpoint.old", "done.json")]
            if any(place.exists() for place in places):
                begun[run.variant].append(stage)
            if evaluation is not None and _finished(evaluation, stages):
                begun[run.variant].append("evaluate")
    return begun


_ALL_DONE, _NONE_READY = -1, -2


def work_through(
    study: Study,
    units: Sequence[Unit],
    stages: Path,
    stop: StopRequest,
    update: Callable[[Unit | None], None] | None = None,
) -> None:
    """Works on units until all are finished, here or elsewhere. All ranks call it; rank 0 chooses the unit.

    Args:
        update: called on rank 0 when a unit begins or fails (with None) and when it is finished (with the unit).
    Raises:
        Interrupted: `stop` was requested.
    """
    recipe = next(iter(study.variants.values()))
    threads_before = torch.get_num_threads()
    torch.set_num_threads(distributed.cpu_threads(recipe.threads))
    update = update if update is not None and distributed.is_main() else lambda finished: None
    try:
        while True:
            with distributed.together():
                number, lock = _take(units, stages, stop) if distributed.is_main() else (_ALL_DONE, None)
            number = int(distributed.from_main(number))
            if number == _ALL_DONE:
                return
            try:
                if stop.on_any_rank():
                    raise Interrupted("between stages")
                if number == _NONE_READY:
                    time.sleep(_POLL_S)
                    continue
                _do(units[number], f"{number + 1} of {len(units)}", stages, stop, recipe.metrics, update)
            finally:
                if lock is not None:
                    lock.release()
    finally:
        torch.set_num_threads(threads_before)


def _take(units: Sequence[Unit], stages: Path, stop: StopRequest) -> tuple[int, Lock | None]:
    """The first unit that can be done now, with its lock."""
    pending = [(number, unit) for number, unit in enumerate(units) if not _finished(unit, stages)]
    for number, unit in pending:
        if unit.before is not None and not _finished(unit.before, stages):
            continue
        lock = Lock.acquire(stages / unit.key, on_lost=stop.request)
        if lock is None:
            continue
        if not _finished(unit, stages):
            return number, lock
        lock.withdraw()  # another process finished it just before we got the lock
    return (_NONE_READY if pending else _ALL_DONE), None


def _do(
    unit: Unit, count: str, stages: Path, stop: StopRequest, metrics: list[Any], update: Callable[[Unit | None], None]
) -> None:
    started = time.perf_counter()
    with distributed.together():
        update(None)
    try:
        work(unit, stages, stop, metrics)
    except BaseException:
        with contextlib.suppress(OSError):  # such as a full disk: the error that is being raised says more
            update(None)
        raise
    with distributed.together():
        update(unit)
    tell(f"{unit.title}: done in {time.perf_counter() - started:.0f} s ({count})")


def _finished(unit: Unit, stages: Path) -> bool:
    return (stages / unit.key / "done.json").exists()


def conclude(study: Study, runs: Sequence[Run], folder: Path, stages: Path) -> dict[str, Any]:
    """Writes results.json from finished units, on rank 0, and returns its content."""
    results = collect(study, runs, stages)
    if distributed.is_main():
        if study.is_run:
            _lay_out(runs[0], folder, stages)
        write_text(folder / "results.json", to_json(results) + "\n")
    return results


def _lay_out(run: Run, folder: Path, stages: Path) -> None:
    """Links and metrics of a single run, as described at the top of this module."""
    links, metrics = {}, []
    for stage, (unit, evaluation) in run.stages.items():
        place = stages / unit.key
        if place.is_dir():
            # and checkpoint-00000120, checkpoint-best, checkpoint-failed
            kept = [path.name for path in place.glob("checkpoint-*") if path.is_dir() and not path.suffix]
            for name in ("checkpoint", *kept):
                links[folder / "checkpoints" / name.replace("checkpoint", stage, 1)] = place / name
        if evaluation is not None and (samples := stages / evaluation.key / "samples").is_dir():
            links[folder / "evaluation" / stage] = samples
        if (place / "metrics.jsonl").exists():
            metrics.append((place / "metrics.jsonl").read_text(encoding="utf-8"))
    stale = [link for name in ("checkpoints", "evaluation") for link in (folder / name).glob("*") if link.is_symlink()]
    for link in {*stale, *links}:
        target = links.get(link)
        wanted = None if target is None else os.path.relpath(target.resolve(), link.parent.resolve())
        if link.is_symlink() and os.readlink(link) == wanted:
            continue
        with contextlib.suppress(OSError):  # a file system without links; nothing here depends on them
            link.parent.mkdir(exist_ok=True)
            link.unlink(missing_ok=True)
            if wanted is not None:
                link.symlink_to(wanted, target_is_directory=True)
    write_text(folder / "metrics.jsonl", "".join(metrics))


def _start_workers(folder: Path, stages: Path, jobs: int, shard: str | None, stop: StopRequest) -> None:
    """Starts worker processes and waits for them, forwarding signals."""
    command = [sys.executable, "-c", _WORKER, str(folder), str(stages), shard or "0/1", str(os.getpid())]
    # they import rewards from the same folders as this process
    environment = os.environ | {"TQDM_DISABLE": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    workers: list[subprocess.Popen[bytes]] = []
    try:
        for _ in range(jobs):
            # in their own process group, so that Ctrl-C reaches them once, through us
            workers.append(subprocess.Popen(command, env=environment, process_group=0))
        _wait(workers, stop)
    finally:
        for worker in workers:
            worker.terminate()
            worker.wait()
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
    parser = argparse.ArgumentParser(prog="a worker of fastreason run")
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


def format_results(results: Mapping[str, Any]) -> str:
    """One line per claim: verdict, effect with its interval, text; verified pass@k of one variant without claims."""
    if len(results["variants"]) == 1 and not results["claims"]:
        return _format_stages(results)
    lines = []
    for claim in results["claims"]:
        effect = ""
        if claim["effect"] is not None:
            low, high = claim["interval"]
            effect = f"{100 * claim['effect']:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}] points"
        lines.append(f"{claim['verdict']:28} {effect:34} {claim['text']}, k = {claim['k']}")
    return "\n".join(lines) or "no claims"


def _format_stages(results: Mapping[str, Any]) -> str:
    """Means over seeds in percent, one line per stage and k, one column per op."""
    lines: list[str] = []
    for stage, by_seed in scores_by_stage(results).items():
        if not by_seed:
            continue
        ops = by_seed[0]["ops"]
        lines = lines or ["verified pass@k, %  " + "".join(f"{'op ' + op:>7}" for op in ops)]
        for k in next(iter(ops.values()))["verified"]:
            shares = [sum(scores["ops"][op]["verified"][k] for scores in by_seed) / len(by_seed) for op in ops]
            lines.append(f"{stage:12} @{k:<6}" + "".join(f"{100 * share:7.1f}" for share in shares))
    return "\n".join(lines + _format_unseen(results)) or "nothing is finished"


def _format_unseen(results: Mapping[str, Any]) -> list[str]:
    """The same for the n problems whose graph did not occur in training; no line if there are none."""
    lines: list[str] = []
    for row in graph_parts(results):
        if (row["kind"], row["part"]) != ("training", "unseen") or not row["ops"]:
            continue
        ops, unseen = next(scores["ops"] for scores in scores_by_stage(results)[row["stage"]]), row["ops"]
        lines = lines or ["", "problems whose graph did not occur in training"]
        lines.append(f"{row['stage']:12} {'n':7}" + "".join(f"{unseen[op][0] if op in unseen else 0:7}" for op in ops))
        for k in next(iter(unseen.values()))[1]:
            values = [f"{100 * unseen[op][1][k]:7.1f}" if op in unseen else f"{'-':>7}" for op in ops]
            lines.append(f"{row['stage']:12} @{k:<6}" + "".join(values))
    return lines
