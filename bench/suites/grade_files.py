"""What `fastreason grade` adds to the verifier: reading and writing 20,000 completions of op 2-20."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory

import fastreason as fr
from fastreason.evaluation.completion_files import GoldRows, Skip, read_completions
from fastreason.evaluation.grade_completions import grade_file
from fastreason.runtime.json_files import to_json

from ..harness.questions import Contestant, Question, Settings, Work
from ..harness.records import OURS, Shape


def questions(settings: Settings) -> Iterator[Question]:
    count, samples = settings.size((200, 100), (10, 10))
    for name, start, needs in (
        ("read", reading, ()),
        ("read and graded", partial(grading, None), ()),
        ("read, graded and written as JSONL", partial(grading, "out.jsonl"), ()),
        ("read, graded and written as Parquet", partial(grading, "out.parquet"), ("pyarrow",)),
    ):
        contestants = {OURS: Contestant(partial(started, start, count, samples, settings.threads), needs)}
        shape: Shape = {"op": "2-20", "problems": count, "samples": samples}
        yield Question(f"completions in files, {name}", shape, "completions", contestants)


def started(start: Callable[[Path, int], Work], count: int, samples: int, threads: int) -> Work:
    return start(files(count, samples), threads)


# kept until the process ends
_folders: list[TemporaryDirectory[str]] = []


@cache
def files(count: int, samples: int) -> Path:
    """A folder with gold.jsonl and completions.jsonl."""
    _folders.append(TemporaryDirectory())
    folder = Path(_folders[-1].name)
    batch = fr.TaskStream(fr.Mixture.uniform(op=range(2, 21), themes=["zoo"]), seed=0, split="test")[0:count]
    rows = list(batch.rows())
    (folder / "gold.jsonl").write_text("".join(to_json(row) + "\n" for row in rows), encoding="utf-8")
    texts = [
        document.removeprefix(prompt).removesuffix("[EOS]")
        for document, prompt in zip(batch.documents, batch.prompts, strict=True)
    ]
    with (folder / "completions.jsonl").open("w", encoding="utf-8") as file:
        for row, text in zip(rows, texts, strict=True):
            file.write((to_json({"id": row["id"], "completion": text}) + "\n") * samples)
    return folder


def reading(folder: Path, threads: int) -> Work:
    def refuse(path: Path, line: int, reason: str, kind: Skip) -> None:
        raise AssertionError(f"{path}:{line}: {reason}")

    def read() -> float:
        gold = GoldRows(folder / "gold.jsonl", refuse)
        return float(sum(len(chunk.texts) for chunk in read_completions(folder / "completions.jsonl", gold, refuse)))

    return read


def grading(out: str | None, folder: Path, threads: int) -> Work:
    def grade() -> float:
        target = folder / out if out else None
        found = grade_file(folder / "gold.jsonl", folder / "completions.jsonl", target, threads=threads)
        return float(found.counts[..., 0].sum())

    return grade
