"""The step verifier on one core, every level and the spans of every step included.

The released scorer is Python; where it stands in as a peer, it is by a plain twin of it that the tests compare with its
recorded verdicts.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial

import numpy as np

import fastreason as fr
from tests.grade import released_twin

from .timing import Row, measure

PROBLEMS, SAMPLES = 1000, 16


def rows() -> Iterator[Row]:
    zoo = problems("zoo")
    size = np.mean([len(text) for text in golden(zoo)])
    yield from of_texts(f"zoo, op 2-20, {size:.0f} characters", zoo)
    damaged = [damage(text, random.Random(i)) for i, text in enumerate(golden(zoo) * SAMPLES)]
    yield verdicts("damaged completions, zoo, op 2-20, groups of 16", zoo, damaged)
    for mode, depth in (("reverse", 2), ("forward", 3), ("reverse", 3)):
        batch = problems("zoo", mode, depth)
        yield verdicts(f"right completions, zoo, {mode}, depth {depth}, groups of 16", batch, repeated(golden(batch)))
    yield from of_texts("symbolic, op 2-20", problems("symbolic"))
    yield of_tokens("symbolic")
    yield of_tokens("zoo")
    texts = repeated(golden(zoo))
    one, two = (partial(grade, zoo, texts, threads=threads) for threads in (1, 2))
    yield measure("the first of these on two threads", "verdicts/s", two, peer=("one thread", one))
    yield measure(
        "verdicts of the released scorer's reading, zoo, op 2-20",
        "verdicts/s",
        lambda: released(zoo.solutions, golden(zoo)),
        peer=("the same in Python", lambda: twin(zoo.solutions[:50], golden(zoo)[:50])),
    )


def problems(theme: str, mode: str = "forward", depth: int = 2) -> fr.ProblemBatch:
    mixture = fr.Mixture.uniform(op=range(2, 21), themes=[theme], modes=[mode], depths=[depth])
    return fr.TaskStream(mixture, seed=0)[0:PROBLEMS]


def golden(batch: fr.ProblemBatch) -> list[str]:
    """What a perfect model writes behind the prompts."""
    pairs = zip(batch.documents, batch.prompts, strict=True)
    return [document.removeprefix(prompt).removesuffix("[EOS]") for document, prompt in pairs]


def repeated(texts: list[str]) -> list[str]:
    return [text for text in texts for _ in range(SAMPLES)]


def damage(text: str, rng: random.Random) -> str:
    """A word left out, doubled or replaced by another of the text: what a model in training writes."""
    words = text.split(" ")
    i, j = rng.randrange(len(words)), rng.randrange(len(words))
    words[i : i + 1] = rng.choice([[], [words[i], words[i]], [words[j]]])
    return " ".join(words)


def of_texts(what: str, batch: fr.ProblemBatch) -> Iterator[Row]:
    texts = golden(batch)
    yield verdicts(f"right completions, {what}, groups of 16", batch, repeated(texts))
    yield verdicts(f"right completions, {what}, one a problem", batch, texts)


def verdicts(what: str, batch: fr.ProblemBatch, texts: list[str]) -> Row:
    return measure(f"verdicts of {what}", "verdicts/s", partial(grade, batch, texts))


def of_tokens(theme: str) -> Row:
    batch, tokenizer = problems(theme), fr.Tokenizer.build([theme])
    ids = [tokenizer.encode(text) for text in golden(batch)]
    tokens = np.full((len(ids), max(map(len, ids))), tokenizer.pad_id, dtype=np.int32)
    for row, values in zip(tokens, ids, strict=True):
        row[: len(values)] = values
    tokens = tokens.repeat(SAMPLES, axis=0)
    return measure(
        f"verdicts of right completions as tokens, {theme}, op 2-20, groups of 16",
        "verdicts/s",
        lambda: float(len(fr.grade(batch, tokens, tokenizer=tokenizer, threads=1))),
    )


def grade(batch: fr.ProblemBatch, completions: list[str], threads: int = 1) -> float:
    return float(len(fr.grade(batch, completions, threads=threads)))


def released(gold: list[str], completions: list[str]) -> float:
    fr._core.grade_released(gold, completions, threads=1)
    return float(len(completions))


def twin(gold: list[str], completions: list[str]) -> float:
    for solution, completion in zip(gold, completions, strict=True):
        released_twin.score(solution, completion)
    return float(len(completions))
