"""Files of completions, read line by line and matched with gold rows.

Gold rows are JSON objects in the published schema, one per line; `solution` is required, `op` and `id` are kept. Lines
of completions are JSON objects too; either file may be gzipped. The text is in `completion`, `response`, `output`,
`text` or `gen_solution_answer`, or `completions` is a list of texts. The gold row is given by

    row      its line in the gold file, from 0 (blank lines do not count), or
    id       its id; if several rows share it, also op, template, mode and d
    __idx    in released generation files (arXiv 2512.07783): the gold row with that index if it has the line's op,
             otherwise the row with that index among those of its op, wrapping around, as the released scorer does
    order    if the first line has none of these: line k belongs to gold row k // n, with n lines per row

A text is complete unless `finish_reason` is "length"; `gen_solution_answer` is cut off before `</answer>`. A line that
cannot be used is reported and skipped, but counts in the order. A gold row without a readable answer or step is
reported and counted separately, as are its completions.
"""

from __future__ import annotations

import codecs
import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import IO, Any

import numpy as np

from ..grading.verdicts import grade_texts

_FACTS = ("id", "op", "template", "mode", "d")
TEXT_FIELDS = ("completion", "response", "output", "text", "gen_solution_answer")
_CHUNK_TEXTS, _CHUNK_CHARACTERS = 8192, 1 << 24
# a compressed file of a few kB may hold a line that no memory does
_LONGEST_LINE = 1 << 28
_ANSWER = re.compile(r"Answer:\s*(.*?)\.?\s*$", re.S)


class Skip(StrEnum):
    """Why a line is skipped."""

    MALFORMED = "malformed"
    """A line of completions without a text or gold row."""
    UNREADABLE_GOLD = "unreadable_gold"
    """A gold row without a readable solution."""
    WITHOUT_GOLD = "without_gold"
    """A line of completions for such a row."""


Report = Callable[[Path, int, str, Skip], None]
"""Called with the file, the line number from 1, the reason and its kind."""


class _Unusable(ValueError):
    """Why a line cannot be used."""

    kind = Skip.MALFORMED


class _WithoutGold(_Unusable):
    kind = Skip.WITHOUT_GOLD


@dataclass
class Chunk:
    """Some completions: for each the gold row, its index among the completions of that row, the text, whether it is
    finished, and whether `</answer>` was removed from its end."""

    rows: list[int] = field(default_factory=list)
    samples: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    finished: list[bool] = field(default_factory=list)
    cut_off: list[bool] = field(default_factory=list)
    num_characters: int = 0
    bytes_read: int = 0

    def add(
        self, row: int, first_sample: int, texts: list[str], *, finished: bool, cut_off: bool, bytes_read: int
    ) -> None:
        self.finished += [finished] * len(texts)
        self.cut_off += [cut_off] * len(texts)
        self.rows += [row] * len(texts)
        self.samples += range(first_sample, first_sample + len(texts))
        self.texts += texts
        self.num_characters += sum(map(len, texts))
        self.bytes_read = bytes_read

    def is_full(self, times: int = 1) -> bool:
        return len(self.texts) >= times * _CHUNK_TEXTS or self.num_characters >= times * _CHUNK_CHARACTERS


class GoldRows:
    """The gold rows of a file, in memory.

    Args:
        path: JSONL, plain or gzip.
        report: called for lines that cannot be used and for unreadable solutions, which keep their row numbers with an
            empty solution.
    Raises:
        ValueError: there is no such file, or none of its lines can be used.
    """

    def __init__(self, path: Path, report: Report) -> None:
        self.path = path
        self.solutions: list[str] = []
        self.facts: list[dict[str, Any]] = []
        numbers = []
        for number, line, _ in _lines(path, report, Skip.UNREADABLE_GOLD):
            try:
                solution, facts = _gold(_parse(line))
            except _Unusable as error:
                report(path, number, str(error), Skip.UNREADABLE_GOLD)
                solution, facts = "", dict.fromkeys(_FACTS)
            numbers.append(number)
            self.solutions.append(solution)
            self.facts.append(facts)
        self._forget_unreadable(numbers, report)
        if not any(self.solutions):
            raise ValueError(f"{path} has no row with a readable solution")
        self._rows_of_id = self._rows_by("id")
        self._rows_of_op = self._rows_by("op")

    def __len__(self) -> int:
        return len(self.solutions)

    def _forget_unreadable(self, numbers: list[int], report: Report) -> None:
        readable = [row for row, solution in enumerate(self.solutions) if solution]
        if not readable:
            return
        verdicts = grade_texts([self.solutions[row] for row in readable], [""] * len(readable), unreadable_gold="mark")
        for i in np.flatnonzero(~verdicts.gold_readable).tolist():
            what = "answer" if np.isnan(verdicts.gold_steps.answer[i]) else "step"
            report(self.path, numbers[readable[i]], f"solution has no readable {what}", Skip.UNREADABLE_GOLD)
            self.solutions[readable[i]] = ""

    def _rows_by(self, name: str) -> dict[str, list[int]]:
        rows_of: dict[str, list[int]] = {}
        for row, facts in enumerate(self.facts):
            if facts[name] is not None:
                rows_of.setdefault(str(facts[name]), []).append(row)
        return rows_of

    def check(self, row: int) -> None:
        """Raises for a row that completions cannot be graded against."""
        if not 0 <= row < len(self):
            raise _Unusable(f"row must be in 0 .. {len(self) - 1}, got {row}")
        if not self.solutions[row]:
            raise _WithoutGold(f"gold row {row} has no readable solution")

    def find(self, record: dict[str, Any]) -> int | None:
        """The gold row that a line of completions refers to; None if it does not refer to one."""
        if record.get("row") is not None:
            return _integer(record, "row")
        if record.get("id") is not None:
            rows = self._rows_named(record)
            if len(rows) == 1:
                return rows[0]
            if record.get("__idx") is None:
                named = f"matches {len(rows)} gold rows; use row" if rows else "matches no gold row"
                raise _Unusable(f"id {record['id']!r:.50} {named}")
        if record.get("__idx") is not None:
            return self._row_of_index(record)
        return None

    def _rows_named(self, record: dict[str, Any]) -> list[int]:
        rows = self._rows_of_id.get(str(record["id"]), [])
        for name in ("op", "template", "mode", "d"):
            if len(rows) > 1 and record.get(name) is not None:
                rows = [row for row in rows if str(self.facts[row][name]) == str(record[name])]
        return rows

    def _row_of_index(self, record: dict[str, Any]) -> int:
        index, op = _integer(record, "__idx"), record.get("op")
        row = index
        if op is not None and not (0 <= index < len(self) and str(self.facts[index]["op"]) == str(op)):
            rows = self._rows_of_op.get(str(op))
            if rows is None:
                raise _Unusable(f"no gold row has op {op}")
            row = rows[index % len(rows)]
        stated = record.get("gold_answer")
        if isinstance(stated, str) and stated.strip():
            self.check(row)
            match = _ANSWER.search(self.solutions[row])
            if match and match[1] != stated.strip().removesuffix("."):
                raise _Unusable(f"gold_answer {stated!r} differs from that of gold row {row}, {match[1]!r}")
        return row


def read_completions(path: Path, gold: GoldRows, report: Report) -> Iterator[Chunk]:
    """The completions of a file in chunks of bounded size.

    Raises:
        ValueError: there is no such file, or completions in order do not have the same number for every gold row.
    """
    next_sample = [0] * len(gold)
    lines_per_row: int | None = None
    chunk = Chunk()
    for place, (number, line, bytes_read) in enumerate(_lines(path, report, Skip.MALFORMED)):
        try:
            record = _parse(line)
            row, (texts, name) = gold.find(record), _texts(record)
            if row is None:
                if lines_per_row is None:
                    lines_per_row = _lines_per_row(path, gold) if not any(next_sample) else 0
                if lines_per_row == 0:
                    raise _Unusable("has none of row, id and __idx, unlike earlier lines")
                row = place // lines_per_row
            gold.check(row)
        except _Unusable as error:
            report(path, number, str(error), error.kind)
            continue
        # the completions of a row stay together, unless they are too many
        if chunk.is_full() and (row != chunk.rows[-1] or chunk.is_full(times=4)):
            yield chunk
            chunk = Chunk()
        chunk.add(
            row,
            next_sample[row],
            texts,
            finished=record.get("finish_reason") != "length",
            cut_off=name == "gen_solution_answer",
            bytes_read=bytes_read,
        )
        next_sample[row] += len(texts)
    if chunk.texts:
        chunk.bytes_read = path.stat().st_size
        yield chunk


def _lines_per_row(path: Path, gold: GoldRows) -> int:
    count = sum(1 for _ in _lines(path, lambda *_: None, Skip.MALFORMED))
    if count % len(gold):
        raise ValueError(
            f"{path} has {count} lines without row, id or __idx, which is not a multiple of the {len(gold)} gold rows"
        )
    return count // len(gold)


def _gold(row: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The solution and the facts of a gold row; op as an integer."""
    solution, op = row.get("solution"), row.get("op")
    if not isinstance(solution, str) or not solution.strip():
        raise _Unusable("no solution")
    facts = {name: row.get(name) for name in _FACTS}
    if isinstance(op, str) and op.isdecimal():
        facts["op"] = int(op[:10])
    if op is not None and not 0 <= _integer(facts, "op") < 2**31:
        raise _Unusable("op must be in 0 .. 2**31 - 1")
    return solution, facts


def _texts(record: dict[str, Any]) -> tuple[list[str], str]:
    """The texts of a line, and the field that they come from."""
    if isinstance(record.get("completions"), list):
        if not record["completions"]:
            raise _Unusable("completions is empty")
        for i, text in enumerate(record["completions"]):
            if not isinstance(text, str):
                raise _Unusable(f"completions[{i}] must be a text, got {text!r:.50}")
        return record["completions"], "completions"
    for name in TEXT_FIELDS:
        if isinstance(record.get(name), str):
            return [record[name]], name
    raise _Unusable(f"no text; must have completions, {', '.join(TEXT_FIELDS)}")


def _integer(record: dict[str, Any], name: str) -> int:
    value = record[name]
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise _Unusable(f"{name} must be an integer, got {value!r:.50}")


def _parse(line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line.removeprefix(codecs.BOM_UTF8).decode())
    except UnicodeDecodeError as error:
        raise _Unusable(f"not UTF-8 at byte {error.start}") from None
    except (ValueError, RecursionError) as error:
        raise _Unusable(f"not JSON: {error}") from None
    if not isinstance(row, dict):
        raise _Unusable(f"must be a JSON object, got {type(row).__name__}")
    return row


def _lines(path: Path, report: Report, kind: Skip) -> Iterator[tuple[int, bytes, int]]:
    """The number from 1, the bytes, and the file position of every non-blank line."""
    if not path.is_file():
        raise ValueError(f"no file {str(path)!r}")
    number = 0
    with path.open("rb") as raw:
        file: IO[bytes] | gzip.GzipFile = raw
        if raw.read(2) == b"\x1f\x8b":
            file = gzip.GzipFile(fileobj=raw)
        raw.seek(0)
        try:
            while line := file.readline(_LONGEST_LINE):
                number += 1
                if len(line) == _LONGEST_LINE:
                    report(path, number, f"a line of {_LONGEST_LINE:,} bytes or more", kind)
                    while line and not line.endswith(b"\n"):
                        line = file.readline(_LONGEST_LINE)
                elif not line.isspace():
                    yield number, line, raw.tell()
        except (EOFError, OSError, zlib.error) as error:
            report(path, number + 1, f"the file cannot be read further: {error}", kind)
