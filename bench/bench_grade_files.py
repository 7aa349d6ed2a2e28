"""What `fastreason grade` adds to the verifier: reading and writing 20,000 completions of op 2-20, on one core."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import fastreason as fr
from fastreason.generations import GoldRows, read_completions
from fastreason.grade_files import grade_file

from .timing import Row, measure

PROBLEMS, SAMPLES = 200, 100


def rows() -> Iterator[Row]:
    with TemporaryDirectory() as folder:
        gold, completions = Path(folder) / "gold.jsonl", Path(folder) / "completions.jsonl"
        _write(gold, completions)
        for name, work in (
            ("read", partial(_read, gold, completions)),
            ("read and graded", partial(_grade, gold, completions, None)),
            ("read, graded and written as JSONL", partial(_grade, gold, completions, Path(folder) / "out.jsonl")),
            ("read, graded and written as Parquet", partial(_grade, gold, completions, Path(folder) / "out.parquet")),
        ):
            yield measure(f"completions in files, {name}", "completions/s", work)


def _write(gold: Path, completions: Path) -> None:
    batch = fr.TaskStream(fr.Mixture.uniform(op=range(2, 21), themes=["zoo"]), seed=0, split="test")[0:PROBLEMS]
    gold.write_text("".join(json.dumps(row) + "\n" for row in batch.rows()), encoding="utf-8")
    texts = [document.removeprefix(prompt) for document, prompt in zip(batch.documents, batch.prompts, strict=True)]
    with completions.open("w", encoding="utf-8") as file:
        for row, text in zip(batch.rows(), texts, strict=True):
            file.write((json.dumps({"id": row["id"], "completion": text}) + "\n") * SAMPLES)


def _read(gold: Path, completions: Path) -> float:
    def refuse(path: Path, line: int, reason: str) -> None:
        raise AssertionError(f"{path}:{line}: {reason}")

    return float(sum(len(chunk.texts) for chunk in read_completions(completions, GoldRows(gold, refuse), refuse)))


def _grade(gold: Path, completions: Path, out: Path | None) -> float:
    return float(grade_file(gold, completions, out, threads=1).counts[..., 0].sum())
