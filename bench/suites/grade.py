"""The step verifier, every level and the spans of every step included, beside scorers of other libraries.

reasoning-gym compares the answer with the text that it wants and reads no steps: another task, and a cheaper one. The
released scorer reads the same steps: `--reference`. Where it is not given our own of it stands for it, which the tests
compare with its recorded verdicts.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import numpy as np

import fastreason as fr
from fastreason.grading.released import released_verdicts

from ..harness.questions import Contestant, Question, Settings, Work
from ..harness.records import OURS, Shape
from .released_peer import scorer

SAMPLES = 16


def questions(settings: Settings) -> Iterator[Question]:
    count = settings.size(1000, 20)
    task = {"theme": "zoo", "mode": "forward", "depth": 2}
    yield asked("of right completions", task, count, SAMPLES, settings, gym(count))
    yield asked("of right completions", task, count, 1, settings, released(min(count, 50), settings))
    yield asked("of damaged completions", task, count, SAMPLES, settings, change=damaged)
    for mode, depth in (("reverse", 2), ("forward", 3), ("reverse", 3)):
        yield asked("of right completions", task | {"mode": mode, "depth": depth}, count, SAMPLES, settings)
    for samples in (SAMPLES, 1):
        yield asked("of right completions", task | {"theme": "symbolic"}, count, samples, settings)
    for theme in ("symbolic", "zoo"):
        shape: Shape = {"theme": theme, "op": "2-20", "group": SAMPLES}
        ours = {OURS: Contestant(partial(grading_tokens, theme, count))}
        yield Question("verdicts of right completions as tokens", shape, "verdicts", ours)
    yield two_threads(task, count)


def asked(
    what: str,
    task: dict[str, Any],
    count: int,
    samples: int,
    settings: Settings,
    peers: dict[str, Contestant] | None = None,
    change: Callable[[list[str]], list[str]] = list,
) -> Question:
    """Verdicts of `samples` completions of each problem, on as many threads as everything has."""
    ours = Contestant(partial(grading, task, count, samples, settings.threads, change))
    shape: Shape = task | {"op": "2-20", "group": samples}
    return Question(f"verdicts {what}", shape, "verdicts", {OURS: ours} | (peers or {}))


def two_threads(task: dict[str, Any], count: int) -> Question:
    two, one = (Contestant(partial(grading, task, count, SAMPLES, threads, list)) for threads in (2, 1))
    shape: Shape = task | {"op": "2-20", "group": SAMPLES, "threads": 2}
    contestants = {OURS: two, "one thread": one}
    return Question("verdicts of right completions, two threads", shape, "verdicts", contestants, clock="wall")


def released(count: int, settings: Settings) -> dict[str, Contestant]:
    """The released scorer: our Python version of it and, with `--reference`, the original."""
    contestants = {"released scorer, ours": Contestant(partial(scoring, count))}
    if settings.reference is not None:
        folder = settings.reference
        contestants["released scorer"] = Contestant(lambda: scorer(folder, *right_texts(count)))
    return contestants


@cache
def problems(count: int, theme: str, mode: str = "forward", depth: int = 2) -> fr.ProblemBatch:
    mixture = fr.Mixture.uniform(op=range(2, 21), themes=[theme], modes=[mode], depths=[depth])
    return fr.TaskStream(mixture, seed=0)[0:count]


def golden(batch: fr.ProblemBatch) -> list[str]:
    """What a perfect model writes behind the prompts."""
    pairs = zip(batch.documents, batch.prompts, strict=True)
    return [document.removeprefix(prompt).removesuffix("[EOS]") for document, prompt in pairs]


def damaged(texts: list[str]) -> list[str]:
    return [damage(text, random.Random(i)) for i, text in enumerate(texts)]


def damage(text: str, rng: random.Random) -> str:
    """A word left out, doubled or replaced by another of the text: what a model in training writes."""
    words = text.split(" ")
    i, j = rng.randrange(len(words)), rng.randrange(len(words))
    words[i : i + 1] = rng.choice([[], [words[i], words[i]], [words[j]]])
    return " ".join(words)


def grading(
    task: dict[str, Any], count: int, samples: int, threads: int, change: Callable[[list[str]], list[str]]
) -> Work:
    batch = problems(count, **task)
    completions = change([text for text in golden(batch) for _ in range(samples)])
    return lambda: float(len(fr.grade(batch, completions, threads=threads)))


def grading_tokens(theme: str, count: int) -> Work:
    batch, tokenizer = problems(count, theme), fr.Tokenizer.build([theme])
    ids = [tokenizer.encode(text) for text in golden(batch)]
    tokens = np.full((len(ids), max(map(len, ids))), tokenizer.pad_id, dtype=np.int32)
    for row, values in zip(tokens, ids, strict=True):
        row[: len(values)] = values
    tokens = tokens.repeat(SAMPLES, axis=0)
    return lambda: float(len(fr.grade(batch, tokens, tokenizer=tokenizer, threads=1)))


def gym(count: int) -> dict[str, Contestant]:
    return {"reasoning-gym gsm_symbolic": Contestant(partial(gym_scores, count), needs=("reasoning_gym",))}


def gym_scores(count: int) -> Work:
    """Its own problems, and correct answers in the form it expects."""
    import reasoning_gym

    data = reasoning_gym.create_dataset("gsm_symbolic", size=min(count, 500), seed=0)
    entries = [entry for entry in data for _ in range(SAMPLES)]

    def score() -> float:
        for entry in entries:
            data.score_answer(entry["answer"], entry)
        return float(len(entries))

    return score


def right_texts(count: int) -> tuple[list[str], list[str]]:
    """Gold solutions and right completions."""
    batch = problems(count, "zoo")
    return batch.solutions, golden(batch)


def scoring(count: int) -> Work:
    gold, completions = right_texts(count)
    return lambda: float(len(released_verdicts(gold, completions)["released_verified"]))
