"""The step verifier on one core."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

import fastreason as fr

from .timing import Row, measure


def rows() -> Iterator[Row]:
    for theme in ("symbolic", "zoo"):
        for op in (5, 20):
            batch = fr.TaskStream(fr.Mixture.uniform(op=[op], themes=[theme]), seed=0)[0:1000]
            golden = [_completion(text) for text in batch.solutions]
            yield measure(
                f"verdicts of right completions as text, {theme}, op {op}", "verdicts/s", partial(_grade, batch, golden)
            )
    stream = fr.TaskStream(fr.Mixture.uniform(op=[5], themes=["symbolic"]), seed=0)
    batch, tokenizer = stream[0:1000], fr.Tokenizer.for_mixtures([stream.mixture])
    ids = [tokenizer.encode(_completion(text)) for text in batch.solutions]
    tokens = np.full((len(ids), max(map(len, ids))), tokenizer.pad_id, dtype=np.int32)
    for row, values in zip(tokens, ids, strict=True):
        row[: len(values)] = values
    yield measure(
        "verdicts of right completions as tokens, symbolic, op 5",
        "verdicts/s",
        lambda: float(len(fr.grade(batch, tokens, tokenizer=tokenizer, threads=1))),
    )


def _completion(solution: str) -> str:
    """What a perfect model writes behind the prompt."""
    steps, answer = solution.rsplit(" Answer: ", 1)
    return f" {steps} </solution> <answer> {answer.rstrip('.')} </answer>"


def _grade(batch: fr.ProblemBatch, completions: list[str]) -> float:
    verdicts = fr.grade(batch, completions, threads=1)
    assert verdicts.verified.all()
    return float(len(verdicts))
