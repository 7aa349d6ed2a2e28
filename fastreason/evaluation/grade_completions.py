"""Implements `fastreason grade`: the verdicts on a file of completions as JSONL or Parquet, and a summary.

Files are read, graded and written in chunks, so memory does not grow with the completions. The result is written to a
temporary file and renamed when complete.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from ..grading.failure_kinds import FailureKind, failure_kinds
from ..grading.verdicts import StepStatus, Verdicts, grade_texts
from ..runtime.files import write_whole
from ..runtime.json_files import to_json
from ..runtime.progress import progress_bar
from . import pass_table
from .completion_files import Chunk, GoldRows, Report, Skip, read_completions
from .op_ranges import PAPER_RANGES, covered
from .pass_table import SCORES

FORMATS = ("jsonl", "parquet")
LEVELS = ("answer_correct", "verified", "sound")
COLUMNS = (*LEVELS, "process_accuracy")
"""The fields of `Verdicts` that are written for each completion."""
RELEASED_COLUMNS = ("released_verified", "released_process_accuracy", "released_outcome", "released_process_reward")
"""The fields that are also written if `released` is set."""


@dataclass(frozen=True, eq=False)
class Graded:
    """Graded completions as they are written: gold row, sample and failure kind of each, and the verdicts."""

    rows: np.ndarray
    samples: np.ndarray
    verdicts: Verdicts
    failures: np.ndarray

    @classmethod
    def of(cls, chunk: Chunk, gold: GoldRows, answer_may_end_text: bool, threads: int) -> Graded:
        rows = np.array(chunk.rows)
        solutions = [gold.solutions[row] for row in _one_of_each_group(rows).tolist()]
        may_end = np.array(chunk.cut_off) | answer_may_end_text
        verdicts = grade_texts(
            solutions, chunk.texts, finished=chunk.finished, answer_may_end_text=may_end, threads=threads
        )
        return cls(rows, np.array(chunk.samples), verdicts, failure_kinds(verdicts))


def _one_of_each_group(rows: np.ndarray) -> np.ndarray:
    """One row of each run of equal rows if all runs have the same length, so that its solution is read once."""
    begins = np.flatnonzero(np.diff(rows, prepend=-1))
    size, rest = divmod(len(rows), len(begins))
    return rows[begins] if rest == 0 and (begins == np.arange(len(begins)) * size).all() else rows


class Summary:
    """Counts of completions by op and by failure kind.

    Args:
        gold: the gold rows.

    Attributes:
        ops: int64 [ops], increasing; -1 for rows without an op.
        counts: int64 [ops, failure kinds, 1 + levels]: number of completions, and of those that pass each of LEVELS.
        scores: SCORES [gold rows], over the completions of each row; `tokens` and `stopped` are unknown.
        skipped: number of lines that could not be used, by `completion_files.Skip`.
    """

    def __init__(self, gold: GoldRows) -> None:
        # -1 for rows without op
        self.ops, self._op_of_row = np.unique(
            [-1 if facts["op"] is None else facts["op"] for facts in gold.facts], return_inverse=True
        )
        self.counts = np.zeros((len(self.ops), len(FailureKind), 1 + len(LEVELS)), dtype=np.int64)
        self.skipped = dict.fromkeys(Skip, 0)
        self.scores = np.zeros(len(gold), dtype=SCORES)
        self.scores["op"], self.scores["problem"] = self.ops[self._op_of_row], np.arange(len(gold))
        self.names = {}
        for name, fact in (("theme", "template"), ("mode", "mode")):
            names, self.scores[name] = np.unique([str(facts[fact] or "?") for facts in gold.facts], return_inverse=True)
            self.names[name] = names.tolist()

    def add(self, graded: Graded) -> None:
        cells = self._op_of_row[graded.rows] * len(FailureKind) + graded.failures
        passes = [np.ones(len(cells)), *(getattr(graded.verdicts, level) for level in LEVELS)]
        size = self.counts[..., 0].size
        counts = np.stack([np.bincount(cells, weights, minlength=size) for weights in passes], axis=1)
        self.counts += counts.astype(np.int64).reshape(self.counts.shape)
        rows = len(self.scores)
        self.scores["samples"] += np.bincount(graded.rows, minlength=rows)
        for name, level in pass_table.LEVELS.items():
            self.scores[name] += np.bincount(graded.rows[getattr(graded.verdicts, level)], minlength=rows)
        # a running sum until all completions are added
        self.scores["process_accuracy"] += np.bincount(graded.rows, graded.verdicts.process_accuracy, rows)
        np.add.at(self.scores["failures"], (graded.rows, graded.failures), 1)

    @property
    def problems(self) -> int:
        """Number of gold rows with a completion."""
        return int((self.scores["samples"] > 0).sum())

    def results(self) -> dict[str, Any]:
        """pass@k as from an evaluation, for k up to the smallest number of completions of a row that has any; themes
        are the templates of the gold rows, and op -1 stands for rows without an op."""
        answered = self.scores[self.scores["samples"] > 0].copy()
        answered["process_accuracy"] /= answered["samples"]
        ks = range(1, int(answered["samples"].min()) + 1)
        ranges = covered(PAPER_RANGES, np.unique(answered["op"]).tolist())
        tables = pass_table.summarise(answered, self.names["theme"], self.names["mode"], ks, ranges)
        for entries in tables.values():
            for entry in entries.values():
                del entry["mean_length"], entry["stopped"]
        return {
            **tables,
            "samples": int(answered["samples"].sum()),
            **{kind.value: n for kind, n in self.skipped.items()},
        }

    def table(self) -> str:
        """A table in percent, one line per op and per failure kind."""
        total = self.counts.sum(0)
        number = int(total[:, 0].sum())
        header = f"{'completions':>12}{'share':>8}{'answer':>8}{'verified':>10}{'sound':>8}"
        lines = [f"{'op':20}{header}"]
        lines += [
            _line("?" if op < 0 else str(op), counts.sum(0), number)
            for op, counts in zip(self.ops.tolist(), self.counts, strict=True)
            if counts.any()
        ]
        lines += [_line("all", total.sum(0), number), "", f"{'failure':20}{header}"]
        lines += [
            _line(kind.name.lower().replace("_", " "), total[kind], number) for kind in FailureKind if total[kind, 0]
        ]
        if self.scores["samples"][self.scores["samples"] > 0].min() > 1:
            lines += ["", pass_table.table(self.results())]
        malformed = self.skipped[Skip.MALFORMED]
        lines += ["", f"{number:,} completions of {self.problems:,} problems; {malformed:,} malformed lines skipped"]
        if unreadable := self.skipped[Skip.UNREADABLE_GOLD]:
            lost = self.skipped[Skip.WITHOUT_GOLD]
            lines.append(f"{unreadable:,} gold rows are unreadable; {lost:,} lines for them have no verdict")
        return "\n".join(lines)


_NOT_JSONL = (".csv", ".tsv", ".parquet", ".arrow", ".xlsx")


def grade_file(
    gold: str | Path,
    completions: str | Path,
    out: str | Path | None = None,
    *,
    format: str | None = None,
    answer_may_end_text: bool = False,
    released: bool = False,
    threads: int = 0,
) -> Summary:
    """Grades a file of completions; docs/grading.md says what the files hold.

    Args:
        gold: JSONL in the published schema, plain or gzip.
        completions: JSONL, plain or gzip; see `completion_files`.
        out: the file for the verdicts; None writes none.
        format: one of FORMATS; by default parquet if `out` ends in .parquet, otherwise jsonl.
        answer_may_end_text: as for `grade`, for all texts; always set for `gen_solution_answer`.
        released: also write the verdicts of the scorer released with the paper, at a few thousand completions a second.
        threads: 0 uses all cores.
    Returns:
        The summary. Lines that cannot be used are reported on stderr with file, line number and reason.
    Raises:
        ValueError: a file is missing, contains nothing usable, or would be overwritten by `out`.
        ModuleNotFoundError: Parquet needs pyarrow, which is not installed.
    """
    gold, completions = Path(gold), Path(completions)
    for name, file in (("gold", gold), ("completions", completions)):
        if (suffix := Path(file.name.removesuffix(".gz")).suffix.lower()) in _NOT_JSONL:
            raise ValueError(f"grade: {name} must be JSONL, one object per line, got {file} ({suffix})")
    path = Path(out) if out is not None else None
    if path is not None and path.is_dir():
        raise ValueError(f"grade: {path} is a folder")
    if path is not None and path.exists() and any(path.samefile(file) for file in (gold, completions) if file.exists()):
        raise ValueError(f"grade: {path} would be overwritten by its own verdicts")
    if released and path is None:
        raise ValueError("grade: released verdicts are written to `out`, which is None")
    writer = _WRITERS[_format(path, format)]((*COLUMNS, *RELEASED_COLUMNS) if released else COLUMNS)
    skipped = dict.fromkeys(Skip, 0)

    def report(file: Path, line: int, reason: str, kind: Skip) -> None:
        skipped[kind] += 1
        print(f"{file}:{line}: {reason}", file=sys.stderr)

    rows = GoldRows(gold, report)
    summary = Summary(rows)
    graded = _grade(completions, rows, report, answer_may_end_text, threads, summary)
    if path is None:
        for _ in graded:
            pass
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, lambda temporary: writer.write(temporary, graded, rows))
    summary.skipped = skipped
    return summary


def _grade(
    path: Path, gold: GoldRows, report: Report, answer_may_end_text: bool, threads: int, summary: Summary
) -> Iterator[Graded]:
    chunks = read_completions(path, gold, report)
    first = next(chunks, None)
    if first is None:
        raise ValueError(f"{path} has no completion for any gold row")
    with progress_bar("grade", path.stat().st_size, unit="B") as bar:
        for chunk in itertools.chain([first], chunks):
            graded = Graded.of(chunk, gold, answer_may_end_text, threads)
            summary.add(graded)
            yield graded
            bar.update(chunk.bytes_read - bar.n)


def _format(path: Path | None, format: str | None) -> str:
    if format is None:
        return "parquet" if path is not None and path.suffix == ".parquet" else "jsonl"
    if format not in FORMATS:
        raise ValueError(f"grade: format must be one of {', '.join(FORMATS)}, got {format!r}")
    return format


def _line(name: str, counts: np.ndarray, number: int) -> str:
    samples = int(counts[0])
    answer, verified, sound = (f"{100 * int(count) / samples:.1f}" for count in counts[1:])
    return f"{name:20}{samples:>12,}{100 * samples / number:>8.1f}{answer:>8}{verified:>10}{sound:>8}"


class _Jsonl:
    """One line per completion. The lines of a chunk are built column by column instead of by `json.dumps`."""

    _STEPS = np.array([to_json(status.name) for status in StepStatus], dtype=object)
    _FAILURES = np.array([to_json(kind.name) for kind in FailureKind], dtype=object)

    def __init__(self, columns: tuple[str, ...]) -> None:
        self.columns = columns

    def write(self, path: Path, graded: Iterator[Graded], gold: GoldRows) -> None:
        ids, ops = (np.array([to_json(row[name]) for row in gold.facts], dtype=object) for name in ("id", "op"))
        with path.open("w", encoding="utf-8") as file:
            for part in graded:
                file.write(self._text(part, ids, ops))

    def _text(self, graded: Graded, ids: np.ndarray, ops: np.ndarray) -> str:
        columns = {
            "row": graded.rows.tolist(),
            "id": ids[graded.rows].tolist(),
            "sample": graded.samples.tolist(),
            "op": ops[graded.rows].tolist(),
            **{name: _json_numbers(getattr(graded.verdicts, name)) for name in self.columns},
            "failure": self._FAILURES[graded.failures].tolist(),
            "steps": self._step_lists(graded),
        }
        line = "{" + ", ".join(f'"{name}": %s' for name in columns) + "}\n"
        return "".join([line % values for values in zip(*columns.values(), strict=True)])

    def _step_lists(self, graded: Graded) -> list[str]:
        names = self._STEPS[graded.verdicts.steps.status].tolist()
        offsets = graded.verdicts.steps.offsets.tolist()
        return [f"[{', '.join(names[begin:end])}]" for begin, end in itertools.pairwise(offsets)]


def _json_numbers(values: np.ndarray) -> list[Any]:
    if values.dtype == bool:
        return np.array(["false", "true"], dtype=object)[values.astype(np.intp)].tolist()
    # six digits, the precision of float32
    numbers = np.round(values.astype(np.float64), 6).astype(object)
    numbers[np.isnan(values)] = "null"
    return numbers.tolist()


class _Parquet:
    """The same columns, with failure kinds and steps as dictionary-encoded names."""

    def __init__(self, columns: tuple[str, ...]) -> None:
        try:
            import pyarrow
            import pyarrow.parquet
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError("Parquet needs pyarrow: pip install 'fastreason[parquet]'") from error
        self.pa: ModuleType = pyarrow
        self.columns = columns

    def write(self, path: Path, graded: Iterator[Graded], gold: GoldRows) -> None:
        ids = self.pa.array([None if row["id"] is None else str(row["id"]) for row in gold.facts], self.pa.string())
        ops = self.pa.array([row["op"] for row in gold.facts], self.pa.int64())
        first = self._table(next(graded), ids, ops)
        with self.pa.parquet.ParquetWriter(path, first.schema) as file:
            file.write_table(first)
            for part in graded:
                file.write_table(self._table(part, ids, ops))

    def _table(self, graded: Graded, ids: Any, ops: Any) -> Any:
        pa, steps = self.pa, graded.verdicts.steps
        rows = pa.array(graded.rows, pa.int64())
        columns = {
            "row": rows,
            "id": ids.take(rows),
            "sample": pa.array(graded.samples, pa.int64()),
            "op": ops.take(rows),
            # NaN becomes null
            **{name: pa.array(getattr(graded.verdicts, name), from_pandas=True) for name in self.columns},
            "failure": self._names(graded.failures, FailureKind),
            "steps": pa.ListArray.from_arrays(
                pa.array(steps.offsets, pa.int32()), self._names(steps.status, StepStatus)
            ),
        }
        return pa.table(columns)

    def _names(self, values: np.ndarray, kinds: type[IntEnum]) -> Any:
        names = self.pa.array([kind.name for kind in kinds])
        return self.pa.DictionaryArray.from_arrays(self.pa.array(values.astype(np.int8)), names)


_WRITERS: dict[str, Callable[[tuple[str, ...]], _Jsonl | _Parquet]] = {"jsonl": _Jsonl, "parquet": _Parquet}
