"""The one schema of every benchmark: a run of a machine, and its figures, as JSON.

A figure is a `Record`: what one provider took for the same work as the others. (suite, what, provider, shape) is its
key, stable over commits. Most records are of time. A record without times is a count (bytes a token, registers): its
figure is `work` itself, less is better, and it has no noise.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

__all__ = [
    "CLOCKS",
    "OURS",
    "PEAKS",
    "SCHEMA",
    "Record",
    "Run",
    "Shape",
    "key",
    "question",
    "ratio",
    "read_run",
    "write_run",
]

SCHEMA = 1
OURS = "fastreason"
CLOCKS = ("wall", "cpu", "count")
PEAKS = ("matmul", "copy")
Shape = dict[str, "int | float | str"]
_PERCENTILES = ("p20_s", "p50_s", "p80_s")


@dataclass(frozen=True)
class Record:
    """What one provider took for one piece of work.

    Args:
        suite: "tasks", "grade", "train", "rollout", "rl", "kernels", "traffic", "audit", "budget", "sweep", ...
        what: the question in words, the same over commits.
        provider: "fastreason", or the name of the peer.
        shape: sizes of the work, by name.
        unit: of the work: "problems", "tokens", "verdicts", "steps", "bytes".
        work: units of one call, > 0. Of a count: how many.
        times_s: seconds of one call, an entry for each of the interleaved turns; empty for a count.
        clock: "wall"; "cpu": CPU time of the process; "count": nothing was timed.
        bytes: that one call must move; None where nobody counted.
        flop: that one call must compute; None where nobody counted.
        peak: which of the machine's peaks `percent_of_peak` is of: "matmul" (by flop) or "copy" (by bytes).
        percent_of_peak: 100 * (flop or bytes) / p50_s / the peak.
    Raises:
        ValueError, TypeError: a field is not as above; the message names it.
    """

    suite: str
    what: str
    provider: str
    shape: Shape
    unit: str
    work: float
    times_s: list[float]
    clock: str
    bytes: float | None = None
    flop: float | None = None
    peak: str | None = None
    percent_of_peak: float | None = None

    def __post_init__(self) -> None:
        where = f"record {self.suite!r} {self.what!r} {self.provider!r}"
        for name in ("suite", "what", "provider", "unit"):
            _check(where, name, getattr(self, name), _is_text, "text that is not empty")
        _check(where, "shape", self.shape, _is_shape, "a dict of text to int, float or text")
        _check(where, "work", self.work, _is_positive, "a positive number")
        _check(where, "clock", self.clock, lambda x: x in CLOCKS, f"one of {', '.join(CLOCKS)}")
        empty = self.clock == "count"
        _check(where, "times_s", self.times_s, lambda x: _are_times(x, empty), _TIMES[empty])
        for name in ("bytes", "flop", "percent_of_peak"):
            _check(where, name, getattr(self, name), _is_amount_or_none, "None or a number >= 0")
        _check(where, "peak", self.peak, lambda x: x is None or x in PEAKS, f"None or one of {', '.join(PEAKS)}")
        has = {"matmul": self.flop, "copy": self.bytes}
        if self.peak is not None and has[self.peak] is None:
            raise ValueError(
                f"{where}: peak {self.peak!r} needs {'flop' if self.peak == 'matmul' else 'bytes'}, got None"
            )
        if (self.percent_of_peak is None) != (self.peak is None):
            raise ValueError(
                f"{where}: percent_of_peak and peak go together, got {self.percent_of_peak!r} and {self.peak!r}"
            )

    @property
    def p20_s(self) -> float | None:
        """The 20th percentile of the times; None for a count."""
        return self._percentile(20)

    @property
    def p50_s(self) -> float | None:
        """The median of the times; None for a count."""
        return self._percentile(50)

    @property
    def p80_s(self) -> float | None:
        """The 80th percentile of the times; None for a count."""
        return self._percentile(80)

    def _percentile(self, percent: int) -> float | None:
        return float(np.percentile(self.times_s, percent)) if self.times_s else None

    @property
    def cost(self) -> float:
        """Of one unit of work: seconds, the median; of a count, `work`. Less is better."""
        return self.work if self.p50_s is None else self.p50_s / self.work

    def to_dict(self) -> dict[str, Any]:
        """Its JSON form: the fields, and percentiles after the times."""
        return asdict(self) | {name: getattr(self, name) for name in _PERCENTILES}

    @classmethod
    def from_dict(cls, given: Mapping[str, Any], where: str = "record") -> Record:
        """The inverse of `to_dict`; the percentiles are taken from the times.

        Raises:
            ValueError, TypeError: a field is missing, unknown or not as the class says.
        """
        return cls(**_fields_of(cls, given, where, ignored=_PERCENTILES))


@dataclass(frozen=True)
class Run:
    """Everything that one command measured on one machine.

    Args:
        schema: 1.
        date: UTC, ISO 8601.
        machine: `fastreason.runtime.machine.describe_machine()` and "class", a short stable slug of processor and
        cores.
        versions: of every library that took part.
        commit: of the checkout, with "-dirty" where it had changes.
        threads: of the providers.
        peaks: FLOP/s and bytes/s of the machine by name: see bench/harness/machine_peaks.py.
        skipped: what took no part, and why.
        records: the figures.
    """

    schema: int
    date: str
    machine: dict[str, Any]
    versions: dict[str, str]
    commit: str
    threads: int
    peaks: dict[str, float]
    skipped: dict[str, str]
    records: list[Record]

    def __post_init__(self) -> None:
        where = "run"
        _check(where, "schema", self.schema, lambda x: x == SCHEMA, f"{SCHEMA}, the only version there is")
        _check(where, "date", self.date, _is_utc, "a UTC time in ISO 8601, as 2026-01-31T12:00:00+00:00")
        _check(where, "machine", self.machine, lambda x: _is_dict(x, _any) and _is_text(x.get("class")), _MACHINE)
        _check(where, "versions", self.versions, lambda x: _is_dict(x, _is_text), "a dict of text to text")
        _check(where, "commit", self.commit, _is_text, "text that is not empty")
        _check(where, "threads", self.threads, lambda x: _is_int(x) and x >= 1, "an int >= 1")
        _check(where, "peaks", self.peaks, lambda x: _is_dict(x, _is_positive), "a dict of text to positive numbers")
        _check(where, "skipped", self.skipped, lambda x: _is_dict(x, _is_text), "a dict of text to text")
        records = self.records if isinstance(self.records, list) else [None]
        _check(
            where, "records", self.records, lambda _: all(isinstance(r, Record) for r in records), "a list of Record"
        )
        seen = set()
        for record in self.records:
            if key(record) in seen:
                raise ValueError(
                    f"run: records must have different (suite, what, provider, shape), twice {key(record)}"
                )
            seen.add(key(record))

    def to_dict(self) -> dict[str, Any]:
        """Its JSON form."""
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        return plain | {"records": [record.to_dict() for record in self.records]}

    @classmethod
    def from_dict(cls, given: Mapping[str, Any], where: str = "run") -> Run:
        """The inverse of `to_dict`.

        Raises:
            ValueError, TypeError: a field is missing, unknown or not as the class says.
        """
        values = _fields_of(cls, given, where)
        if not isinstance(values["records"], list):
            raise TypeError(f"{where}: records must be a list, got {_short(values['records'])}")
        values["records"] = [Record.from_dict(r, f"{where}: records[{i}]") for i, r in enumerate(values["records"])]
        return cls(**values)


Key = tuple[str, str, str, str]


def key(record: Record) -> Key:
    """(suite, what, provider, shape) of a figure, what it is found by in another run."""
    return (record.suite, record.what, record.provider, json.dumps(record.shape, sort_keys=True))


def question(record: Record) -> tuple[str, str, str]:
    """(suite, what, shape): what all providers were asked."""
    suite, what, _, shape = key(record)
    return suite, what, shape


def ratio(ours: Record, peer: Record) -> float:
    """How many times cheaper a unit of our work is: peer.cost / ours.cost.

    Raises:
        ValueError: they are not of the same (suite, what, shape).
    """
    if question(ours) != question(peer):
        raise ValueError(f"ratio: needs records of one question, got {question(ours)} and {question(peer)}")
    return peer.cost / ours.cost


def write_run(path: Path | str, run: Run) -> None:
    """Writes JSON, one record a line, so that a difference of two files can be read."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    head = json.dumps(run.to_dict() | {"records": []}, indent=1, allow_nan=False)
    records = ",\n".join("  " + json.dumps(record.to_dict(), allow_nan=False) for record in run.records)
    text = head.replace('"records": []', f'"records": [\n{records}\n ]' if records else '"records": []')
    path.write_text(text + "\n", encoding="utf-8")


def read_run(path: Path | str) -> Run:
    """Reads what `write_run` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError, TypeError: it is not JSON, or a field is not as `Run` and `Record` say; the message names it.
    """
    text = Path(path).read_text(encoding="utf-8")
    try:
        given = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: must be JSON, {error}") from error
    if not isinstance(given, dict):
        raise TypeError(f"{path}: must be a JSON object, got {_short(given)}")
    return Run.from_dict(given, str(path))


_TIMES = {False: "a list of at least one positive number (of seconds)", True: "[], because the clock is 'count'"}
_MACHINE = "a dict of text with at least 'class', text that is not empty"


def _check(where: str, name: str, value: object, is_right: Callable[[Any], bool], wanted: str) -> None:
    if not is_right(value):
        raise ValueError(f"{where}: {name} must be {wanted}, got {_short(value)}")


def _fields_of(
    cls: type[Record] | type[Run], given: Mapping[str, Any], where: str, ignored: Iterable[str] = ()
) -> dict[str, Any]:
    """The fields of a dataclass out of a JSON object that has them all and no others."""
    if not isinstance(given, Mapping):
        raise TypeError(f"{where}: must be a JSON object, got {_short(given)}")
    names = [field.name for field in fields(cls)]
    if missing := [name for name in names if name not in given]:
        raise ValueError(f"{where}: lacks {', '.join(missing)}; it has {', '.join(given) or 'nothing'}")
    if unknown := set(given) - set(names) - set(ignored):
        raise ValueError(f"{where}: has no field {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    return {name: given[name] for name in names}


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _any(_: object) -> bool:
    return True


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_positive(value: Any) -> bool:
    return _is_number(value) and value > 0


def _is_amount_or_none(value: Any) -> bool:
    return value is None or (_is_number(value) and value >= 0)


def _is_dict(value: object, of: Callable[[Any], bool]) -> bool:
    return isinstance(value, dict) and all(isinstance(k, str) and of(v) for k, v in value.items())


def _is_shape(value: object) -> bool:
    return _is_dict(value, lambda x: isinstance(x, str) or _is_number(x))


def _are_times(value: object, empty: bool) -> bool:
    if not isinstance(value, list):
        return False
    return not value if empty else bool(value) and all(map(_is_positive, value))


def _is_utc(value: object) -> bool:
    try:
        offset = datetime.fromisoformat(value).utcoffset() if isinstance(value, str) else None
    except ValueError:
        return False
    return offset is not None and not offset
