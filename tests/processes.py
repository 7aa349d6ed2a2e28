"""Processes that start in no time: forked from a server that has imported the package once, three seconds each spared.

For what a process does or how it dies. How the interpreter starts and what it imports is tested with `sys.executable`.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["fastreason.runner", "fastreason.cli.main", "tests.processes"])


def forked(function: Callable[..., Any], *arguments: Any, **more: Any) -> ForkServerProcess:
    """A started process that calls a function of a module, with one thread of torch."""
    process = _CONTEXT.Process(target=_call, args=(function, arguments, more))
    process.start()
    return process


def _call(function: Callable[..., Any], arguments: Sequence[Any], more: Mapping[str, Any]) -> None:
    import torch

    torch.set_num_threads(1)
    function(*arguments, **more)


class Command:
    """`fastreason ARGUMENTS ...` in a process of its own, used like subprocess.Popen."""

    def __init__(self, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._printed: tuple[str, str] | None = None
        self._files = [Path(self._folder.name) / name for name in ("stdout", "stderr")]
        self.process = forked(_command, arguments, self._files, dict(environment or {}))
        while not self._files[1].exists() and self.process.is_alive():
            time.sleep(0.001)

    @property
    def returncode(self) -> int | None:
        """As of subprocess: None while it runs, -signal if it was killed."""
        return self.process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.process.exitcode is None:
            os.kill(self.process.pid or 0, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float = 300.0) -> tuple[str, str]:
        """Waits for the end; what was printed to stdout and to stderr."""
        self.process.join(timeout)
        assert self.process.exitcode is not None, f"still running after {timeout} s"
        if self._printed is None:
            out, err = (file.read_text() if file.exists() else "" for file in self._files)
            self._printed = (out, err)
            self._folder.cleanup()
        return self._printed


def _command(arguments: Sequence[str], files: Sequence[Path], environment: Mapping[str, str]) -> None:
    from fastreason.cli.main import main

    os.environ.update(environment)
    redirect(files)
    try:
        sys.exit(main(arguments))
    except KeyboardInterrupt:  # outside of the command: the interpreter dies of it
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)


def redirect(files: Sequence[Path]) -> None:
    """Sends stdout and stderr of this process to files, those of the processes that it starts too."""
    for number, path in enumerate(files, 1):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(descriptor, number)
        os.close(descriptor)


_FORKS = """
import json, os, sys, traceback
preamble, codes, folder = json.load(sys.stdin)
names = {}
exec(preamble, names)
for i, code in enumerate(codes):
    if not os.fork():
        try:
            exec(code, names)
        except BaseException:
            with open(f"{folder}/{i}", "w") as file:
                traceback.print_exc(file=file)
        os._exit(0)
    status = os.wait()[1]
    if status:
        open(f"{folder}/{i}", "w").write(f"wait status {status}")
"""


def run_in_forks(preamble: str, codes: Sequence[str]) -> list[str]:
    """The traceback of each code, "" where it ran: each in a fork of its own of a fresh interpreter, in which only
    `preamble` ran before."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    with tempfile.TemporaryDirectory() as folder:
        given = json.dumps([preamble, codes, folder])
        subprocess.run([sys.executable, "-c", _FORKS], input=given, text=True, check=True, env=environment)
        found = [Path(folder) / str(i) for i in range(len(codes))]
        return [path.read_text() if path.exists() else "" for path in found]


def wait_until(happened: Callable[[], object], process: Command | subprocess.Popen, timeout_s: float = 120.0) -> None:
    """Waits for something that a running command does."""
    deadline = time.monotonic() + timeout_s
    while not happened():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, f"it did not happen within {timeout_s} s"
        time.sleep(0.005)
