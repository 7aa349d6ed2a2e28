"""Commands that are killed, or told to stop, at file-system events and at random moments, and go on to the same end.

What counts is everything that a command leaves (see `commands.outcome`): to the bit, and no file more.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from .commands import COMMANDS, LIMIT_S, Attempt, Command, call, children, differences, is_alive, outcome

_SIGNALS = {signal.SIGKILL: 2, signal.SIGINT: 1, signal.SIGTERM: 1}
"""How often each is sent at a random moment."""


@dataclass
class Whole:
    """What a command leaves that nobody disturbs."""

    left: dict[str, Any]
    events: int
    seconds: float


class Kills:
    """Interrupts commands, each for as long as the others.

    Attributes:
        counts: by what was done; what went wrong by its text, which begins with WRONG.
    """

    def __init__(self, place: Path, given: Path, random: Random) -> None:
        self.place, self.given, self.random = place, given, random
        self.counts: Counter[str] = Counter()
        self.wholes: dict[str, Whole] = {}
        self.spent = dict.fromkeys(COMMANDS, 0.0)

    def go_on(self, end: float) -> None:
        """Until `end` of the clock."""
        while time.time() < end:
            name = min(self.spent, key=self.spent.__getitem__)
            started = time.monotonic()
            self.once(COMMANDS[name])
            self.spent[name] += time.monotonic() - started

    def once(self, command: Command, kill_at: int | None = None) -> None:
        """A command with up to three interruptions, the first at the event `kill_at` if that is given."""
        whole = self.whole(command)
        folder = self._new_folder(command)
        done, steps = None, []
        for i in range(self.random.choice([1, 1, 2, 3])):
            done, what = self._interrupted(command, folder, whole, again=i > 0, kill_at=kill_at if i == 0 else None)
            steps.append(f"{what} -> {done.status}")
            if done.status == 0:
                break
        if done is None or done.status != 0:
            done = call(command, folder, self.given, again=True)
        wrong = differences(whole.left, outcome(folder))
        if done.status or wrong:
            reason = f"differs in {', '.join(wrong[:5])}; status {done.status}: {done.said[-500:]!r}"
            self.counts[f"WRONG {command.name} ({'; '.join(steps)}): {reason}"] += 1
        else:
            self.counts[f"{command.name}: went on to the same end"] += 1
        shutil.rmtree(folder, ignore_errors=True)

    def whole(self, command: Command) -> Whole:
        if command.name not in self.wholes:
            folder = self._new_folder(command)
            done = call(command, folder, self.given, again=False)
            assert done.status == 0, f"{command.name}: {done.said}"
            self.wholes[command.name] = Whole(outcome(folder), done.events, done.seconds)
            shutil.rmtree(folder)
        return self.wholes[command.name]

    def _new_folder(self, command: Command) -> Path:
        folder = self.place / command.name.replace(" ", "")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder

    def _interrupted(
        self, command: Command, folder: Path, whole: Whole, *, again: bool, kill_at: int | None
    ) -> tuple[Attempt, str]:
        """An attempt that may come to its end before it is interrupted, and what was to be done to it."""
        if kill_at is not None or (not command.workers and self.random.random() < 0.6):
            event = kill_at or self.random.randint(1, whole.events)
            done = call(command, folder, self.given, again=again, kill_at=event)
            self.counts["killed at an event of the file system"] += done.status == -signal.SIGKILL
            self._check(command, done, signal.SIGKILL)
            return done, f"killed at event {event}"
        number = self.random.choices(list(_SIGNALS), list(_SIGNALS.values()))[0]
        sent: list[int] = []

        def disturb(pid: int) -> None:
            _wait(pid, self.random.uniform(0.05, 1.0) * whole.seconds)
            workers = children(pid) if command.workers else []
            victim = self.random.choice([pid, *workers])
            if is_alive(victim):
                os.kill(victim, number)
                sent.append(victim)
            if victim == pid and number == signal.SIGKILL:
                self._check_orphans(workers)

        done = call(command, folder, self.given, again=again, meanwhile=disturb)
        name = signal.Signals(number).name
        if sent and done.status:
            self.counts[f"{name} at a random moment"] += 1
        self._check(command, done, number)
        return done, f"{name} at a random moment"

    def _check(self, command: Command, done: Attempt, number: signal.Signals) -> None:
        """A signal has its status, and no traceback."""
        expected = {signal.SIGKILL: {-9}, signal.SIGINT: {130}, signal.SIGTERM: {143, -15}}[number] | {0}
        if command.workers:  # a worker that ends is an error of the whole; one that is told to stop, too
            expected |= {1, 130, 143}
        if done.status not in expected or "Traceback" in done.said:
            self.counts[f"WRONG {command.name} after {number.name}: status {done.status}: {done.said[-500:]!r}"] += 1

    def _check_orphans(self, workers: list[int]) -> None:
        end = time.monotonic() + LIMIT_S
        while any(map(is_alive, workers)) and time.monotonic() < end:
            time.sleep(0.1)
        for worker in filter(is_alive, workers):
            self.counts["WRONG a worker lives on behind its parent"] += 1
            os.kill(worker, signal.SIGKILL)
        self.counts["workers that ended behind their killed parent"] += len(workers)


def _wait(pid: int, seconds: float) -> None:
    """Waits so long, or until the process has ended."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and is_alive(pid):
        time.sleep(0.01)
