"""Every command that writes: what it is called with, what it leaves, and a process of it that ends where it is told to.

A process is a fork of one that has imported everything, so that an attempt takes as long as its work. It can be killed
at the n-th file-system event inside its folder (a file opened for writing, a rename, a removal, a folder made, a flush
to disk), whoever of our code, pyarrow or safetensors causes it, or from outside at any moment.
"""

from __future__ import annotations

import contextlib
import faulthandler
import hashlib
import json
import os
import pickle
import resource
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from fastreason.cli.main import main
from fastreason.runtime.metrics_log import without_times

TINY = str(Path(__file__).parents[1] / "studies" / "tiny.toml")
LIMIT_S = 600
"""The longest that one attempt may take on a busy machine."""
LIMIT_MB = 4000
"""Of address space beyond what the driver has."""

_SMALL = ["--model.hidden-size", "16", "--model.num-hidden-layers", "1", "--threads", "1", "--rl.steps", "2"]
_SMALL += ["--pretrain.tokens", "3000", "--midtrain.tokens", "1500", "--rl.prompts", "2", "--rl.samples", "2"]
_SMALL += ["--evaluate.problems", "2", "--evaluate.samples", "2", "--evaluate.k", "1", "2", "--evaluate.files"]
for _stage in ("pretrain", "midtrain", "rl"):
    _SMALL += [f"--{_stage}.save-every-s", "0", f"--{_stage}.keep", "2"]
_EVAL = ["--op", "2-4", "--themes", "symbolic", "--max-value", "99", "--problems", "3", "--samples", "2"]


@dataclass(frozen=True)
class Command:
    """A command line, and the flags that are added where it goes on with what is there.

    `{out}` stands for what it writes, inside the folder that is watched; `{given}` for a folder of `make_inputs`.
    """

    name: str
    arguments: list[str]
    resume: list[str] = field(default_factory=lambda: ["--resume"])
    workers: bool = False
    """Whether it starts processes of its own."""

    def line(self, folder: Path, given: Path, *, again: bool) -> list[str]:
        places = {"out": folder / "out", "given": given}
        return [argument.format(**places) for argument in self.arguments] + (self.resume if again else [])


_GENERATE = ["generate", "--out", "{out}", "--count", "40", "--op", "2-3", "--format"]
COMMANDS = {
    command.name: command
    for command in (
        Command("run", ["run", "smoke", "--out", "{out}", *_SMALL]),
        Command("study", ["run", TINY, "--size", "small", "--out", "{out}", "--seeds", "0"]),
        Command("study --jobs", ["run", TINY, "--size", "small", "--out", "{out}", "--seeds", "0", "--jobs", "2"],
                workers=True),
        Command("eval", ["eval", "{given}/checkpoint", "--out", "{out}", "--texts", "--threads", "1", *_EVAL]),
        Command("grade", ["grade", "--gold", "{given}/gold.jsonl", "--completions", "{given}/completions.jsonl",
                          "--out", "{out}", "--results", "{out}.results.json", "--threads", "1"], []),
        Command("generate jsonl", [*_GENERATE, "jsonl"], []),
        Command("generate parquet", [*_GENERATE, "parquet"], []),
        Command("generate tokens", [*_GENERATE, "tokens"], []),
    )
}  # fmt: skip


def make_inputs(folder: Path) -> None:
    """What commands read: a checkpoint, gold rows, completions.

    In a process of its own, as threads do not survive a fork.
    """
    folder.mkdir()
    status = attempt(lambda: _make_inputs(folder), folder / "log").status
    assert status == 0, (folder / "log").read_text()


def _make_inputs(folder: Path) -> int:
    import fastreason as fr

    mixture = fr.Mixture.uniform(op=[2, 3, 4], themes=["symbolic"], max_value=99)
    tokenizer = fr.Tokenizer.for_mixtures([mixture])
    model = fr.Decoder(fr.ModelConfig(len(tokenizer), 16, 1, 2, 1, 16))
    model.reset_parameters(0)
    model.save_pretrained(folder / "checkpoint", tokenizer)
    problems = fr.TaskStream(mixture)[0:20]
    rows = "".join(json.dumps(row) + "\n" for row in problems.rows())
    (folder / "gold.jsonl").write_text(rows)
    texts = [text for pair in zip(problems.solutions, reversed(problems.solutions), strict=True) for text in pair]
    (folder / "completions.jsonl").write_text("".join(json.dumps({"completion": text}) + "\n" for text in texts))
    return 0


# ---- an attempt


@dataclass(frozen=True)
class Attempt:
    status: int
    """Of the exit; minus the signal that ended it."""
    seconds: float
    events: int
    """File-system events in its folder."""
    said: str
    """On stdout and stderr."""


def attempt(
    work: Callable[[], int],
    log: Path,
    *,
    watched: Path | None = None,
    kill_at: int = 0,
    meanwhile: Callable[[int], None] = lambda pid: None,
) -> Attempt:
    """Forks, works, and waits.

    Args:
        work: gives the status.
        log: where its words go.
        watched: the folder whose events are counted.
        kill_at: the event before which it kills itself; 0: none.
        meanwhile: called here with its number, while it works.
    """
    started = time.monotonic()
    counted = log.with_name(log.name + ".events")
    counted.unlink(missing_ok=True)
    pid = os.fork()
    if pid == 0:
        _inside(work, log, counted, watched, kill_at)
    meanwhile(pid)
    _, status = os.waitpid(pid, 0)
    events = len(counted.read_bytes()) if counted.exists() else 0
    return Attempt(
        os.waitstatus_to_exitcode(status), time.monotonic() - started, events, log.read_text(errors="replace")
    )


def _inside(work: Callable[[], int], log: Path, counted: Path, watched: Path | None, kill_at: int) -> None:
    """The forked process: never returns."""
    status = 70
    try:
        os.setpgid(0, 0)
        with log.open("wb") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        faulthandler.dump_traceback_later(LIMIT_S, exit=True)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        now_kb = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now_kb + LIMIT_MB * 10**6, -1))
        torch.set_num_threads(1)
        if watched is not None:
            _count_events(watched, counted, kill_at)
        status = work()
    except KeyboardInterrupt:  # before or behind the command's own care
        status = 130
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 70
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


_EVENTS = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink", "shutil.rmtree"}


def _count_events(watched: Path, counted: Path, kill_at: int) -> None:
    """Counts what is done to a folder, one byte an event; the `kill_at`-th is not done any more."""
    place, seen, lock = str(watched), 0, threading.Lock()
    out = os.open(counted, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

    def happen() -> None:
        nonlocal seen
        with lock:
            seen += 1
            os.write(out, b".")
            if seen == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    def hear(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            writes = bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
            if writes and isinstance(path, str | os.PathLike) and os.fspath(path).startswith(place):
                happen()
        elif event in _EVENTS and str(arguments[0]).startswith(place):
            happen()

    real = os.fsync

    def fsync(descriptor: int) -> None:
        happen()
        real(descriptor)

    os.fsync = fsync
    sys.addaudithook(hear)


def call(command: Command, folder: Path, given: Path, *, again: bool, **how: Any) -> Attempt:
    """One attempt of a command whose output is in `folder`."""
    log = folder.with_name(folder.name + ".log")
    return attempt(lambda: main(command.line(folder, given, again=again)), log, watched=folder, **how)


# ---- what is left


def outcome(folder: Path) -> dict[str, Any]:
    """What must not depend on kills: every file but marks of owners; of what holds times, the rest.

    Read in a process of its own: pyarrow's threads would not survive the next fork.
    """
    found = folder.with_name(folder.name + ".outcome")

    def work() -> int:
        files = sorted(path for path in folder.rglob("*") if path.is_file() or path.is_symlink())
        kept = [p for p in files if not any(part.startswith("owner-") for part in p.relative_to(folder).parts)]
        content = {str(path.relative_to(folder)): _content(path) for path in kept}
        found.write_bytes(pickle.dumps({name: c for name, c in content.items() if c is not None}))
        return 0

    done = attempt(work, folder.with_name(folder.name + ".outcome.log"))
    assert done.status == 0, done.said
    return pickle.loads(found.read_bytes())


def _content(path: Path) -> Any:
    try:
        return _parsed(path)
    except (ValueError, OSError) as error:  # damaged on purpose, and not made whole
        return f"cannot be read: {type(error).__name__}"


def _parsed(path: Path) -> Any:
    if path.suffix == ".parquet":
        import pyarrow.parquet

        return pyarrow.parquet.read_table(path, use_threads=False).replace_schema_metadata().to_pydict()
    if path.name == "metrics.jsonl":
        return [_timeless(json.loads(line)) for line in path.read_text().splitlines()]
    if path.name in ("README.md", "checksums.json"):  # a card with times, and hashes of files with times
        return None
    if path.name == "report.html":
        return "a page"
    if path.suffix == ".json":
        return _timeless(json.loads(path.read_text()))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _timeless(content: Any) -> Any:
    if isinstance(content, dict):
        # the evaluation's samples are counted while they are drawn, whose order times do not decide
        told = without_times(content).items()
        return {name: _timeless(value) for name, value in told if name not in ("machine", "date")}
    return [_timeless(item) for item in content] if isinstance(content, list) else content


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Names of files that one has and the other has not, or that differ."""
    return sorted(name for name in one.keys() | other.keys() if one.get(name, 0) != other.get(name, 1))


# ---- processes of a command


def children(pid: int) -> list[int]:
    """Processes that a process started."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if int((place / "stat").read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(place.name))
    return found


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def commit() -> str:
    """Of this checkout, with a star where it has changes."""
    here = Path(__file__).parents[2]
    run = ["git", "-C", str(here), "describe", "--always", "--dirty=*", "--exclude=*"]
    return subprocess.run(run, capture_output=True, text=True, check=False).stdout.strip() or "?"
