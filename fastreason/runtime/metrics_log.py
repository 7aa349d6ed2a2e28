"""The metrics of a run: metrics.jsonl, and optional trackers."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from . import distributed
from .files import write_text
from .json_files import to_json
from .old_names import with_current_names
from .trackers import open_tracker


class MetricsLog:
    """Appends one JSON object per line to a file and passes numbers to trackers, on rank 0 only.

    Args:
        path: created if missing, with its folder; None writes nothing.
        trackers: any of `trackers.TRACKERS`, imported only here.
        run_name: the name of the run for trackers.
    Raises:
        ModuleNotFoundError: the package of a tracker is not installed; the message says how to install it.
    """

    def __init__(self, path: str | Path | None, trackers: Sequence[str] = (), run_name: str = "run") -> None:
        self.path = Path(path) if path is not None else Path(os.devnull)
        self.writes = distributed.is_main() and path is not None
        if self.writes:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        self.trackers = [open_tracker(name, self.path.parent, run_name) for name in trackers] if self.writes else []

    @classmethod
    def of(cls, log: MetricsLog | str | Path | None) -> MetricsLog:
        """The given log, one that writes to the given file, or one that writes nothing."""
        return log if isinstance(log, MetricsLog) else cls(log)

    def write(self, stage: str, **values: Any) -> None:
        if not self.writes:
            return
        line = to_json({"stage": stage, **{k: _short(v) for k, v in values.items()}})
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        numbers = {f"{stage}/{k}": v for k, v in values.items() if isinstance(v, int | float) and k != "step"}
        for tracker in self.trackers:
            tracker.write(numbers, stage, int(values.get("step", 0)))

    def close(self) -> None:
        """Flushes the file to disk, as whoever says that a stage is done relies on its lines."""
        if self.writes and self.path.is_file():
            with self.path.open("rb") as file:
                os.fsync(file.fileno())
        for tracker in self.trackers:
            tracker.close()

    def forget_after(self, stage: str, step: int) -> None:
        """Drops this stage's lines after `step`, and an incomplete last line: a resumed run writes them again."""
        if not self.writes or not self.path.exists():
            return
        kept = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                continue
            if entry.get("stage") != stage or entry.get("step", 0) <= step:
                kept.append(line + "\n")
        write_text(self.path, "".join(kept))

    def read(self) -> list[dict[str, Any]]:
        """The lines, with NaN for values that are null in the file, and names of earlier versions as they are today."""
        if not self.path.exists():
            return []
        lines = []
        for number, line in enumerate(self.path.read_text(encoding="utf-8").splitlines(), 1):
            try:
                lines.append(with_current_names(json.loads(line)))
            except ValueError as error:
                raise ValueError(f"{self.path}, line {number}: incomplete ({error})") from None
        return [{name: math.nan if value is None else value for name, value in line.items()} for line in lines]


def without_times(line: Mapping[str, Any]) -> dict[str, Any]:
    """A line of metrics.jsonl without timings: two runs of one recipe agree on it bit for bit."""
    return {k: v for k, v in line.items() if not k.endswith(("seconds", "_s", "_percent"))}


def _short(value: Any) -> Any:
    return float(f"{value:.6g}") if isinstance(value, float) else value
