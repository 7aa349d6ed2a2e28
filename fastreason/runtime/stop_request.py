"""Stop requests: signals become a flag that loops check between steps."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import torch

from . import distributed


class Interrupted(Exception):
    """The user asked to stop; everything needed to resume is on disk."""


class Terminated(SystemExit):
    """SIGTERM asked to stop; everything needed to resume is on disk. A script that does not catch it exits with 143."""

    def __init__(self) -> None:
        super().__init__(128 + signal.SIGTERM)


class StopRequest:
    """Turns the first Ctrl-C or SIGTERM into a flag that loops check between steps.

    A second Ctrl-C interrupts immediately; repeated SIGTERMs, as schedulers send them, do not.
    """

    def __init__(self) -> None:
        self.requested = False
        self.terminated = False
        self._raises = False

    def request(self) -> None:
        """Requests a stop, as Ctrl-C does."""
        self.requested = True

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """A context in which a signal raises KeyboardInterrupt immediately: for work that can be abandoned anywhere."""
        self._raises = True
        try:
            yield
        finally:
            self._raises = False

    def on_any_rank(self) -> bool:
        """Whether a stop was requested on any rank; all ranks must call this and get the same answer."""
        asked = torch.tensor([int(self.requested), int(self.terminated)])
        requested, terminated = distributed.sum_over_ranks(asked).tolist()
        if terminated:  # never reset: a signal may have arrived since
            self.terminated = True
        return bool(requested)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        again, self.requested = self.requested, True
        self.terminated = self.terminated or signum == signal.SIGTERM
        if self._raises or (again and signum == signal.SIGINT):
            raise KeyboardInterrupt
        if signum == signal.SIGTERM:
            print("\nterminated: stopping at the next step", file=sys.stderr)
            return
        print("\nstopping at the next step; press Ctrl-C again to stop immediately", file=sys.stderr)

    @classmethod
    @contextmanager
    def watch(cls) -> Iterator[StopRequest]:
        request = cls()
        try:
            before = {number: signal.signal(number, request._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        except ValueError:  # not the main thread: its owner handles signals
            yield request
            return
        try:
            yield request
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
