"""Drawing problems and encoding text, beside other generators and another encoder.

reasoning-gym draws from its own generator of word problems, which is another task: one sentence of its problems has
its place in a template. The released generator draws the same task: `--reference`.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

import fastreason as fr

from ..harness.questions import Contestant, Question, Settings, Work
from ..harness.records import OURS, Shape
from .released_peer import generator

EASY, HARD = tuple(range(2, 11)), (20,)


def questions(settings: Settings) -> Iterator[Question]:
    for theme, mode, depth in (
        ("zoo", "forward", 2),
        ("zoo", "reverse", 2),
        ("zoo", "forward", 3),
        ("symbolic", "forward", 2),
    ):
        for ops in (EASY, HARD):
            mixture = fr.Mixture.uniform(op=ops, themes=[theme], modes=[mode], depths=[depth])
            contestants = {OURS: Contestant(partial(drawing, mixture, settings, settings.threads))}
            if (theme, mode, depth) == ("zoo", "forward", 2):
                contestants |= peers(ops, settings)
            shape: Shape = {"theme": theme, "mode": mode, "depth": depth, "op": of(ops)}
            yield Question("problems as text", shape, "problems", contestants)
    yield two_threads(settings)
    for theme, ops in (("zoo", EASY), ("symbolic", (2, 3, 4, 5))):
        ours = {OURS: Contestant(partial(packing, theme, ops))}
        yield Question("problems as packed tokens", {"theme": theme, "op": of(ops)}, "tokens", ours)
    both = {OURS: Contestant(our_encoder), "tokenizers": Contestant(their_encoder, needs=("tokenizers",))}
    yield Question("encoding text", {"theme": "zoo", "op": "2-20"}, "tokens", both)


def of(ops: tuple[int, ...]) -> str:
    return f"{ops[0]}-{ops[-1]}" if len(ops) > 1 else str(ops[0])


def two_threads(settings: Settings) -> Question:
    mixture = fr.Mixture.uniform(op=EASY, themes=["zoo"], modes=["forward"], depths=[2])
    shape: Shape = {"theme": "zoo", "mode": "forward", "depth": 2, "op": of(EASY), "threads": 2}
    contestants = {OURS: Contestant(partial(drawing, mixture, settings, 2))}
    contestants["one thread"] = Contestant(partial(drawing, mixture, settings, 1))
    return Question("problems as text, two threads", shape, "problems", contestants, clock="wall")


def peers(ops: tuple[int, ...], settings: Settings) -> dict[str, Contestant]:
    """Where theirs has no number of operations to choose, only the easier ones are compared."""
    found = {}
    if ops == EASY:
        found["reasoning-gym gsm_symbolic"] = Contestant(word_problems, needs=("reasoning_gym",))
    if settings.reference:
        found["released generator"] = Contestant(partial(generator, settings.reference, ops))
    return found


def drawing(mixture: fr.Mixture, settings: Settings, threads: int) -> Work:
    stream, count = fr.TaskStream(mixture, seed=0), settings.size(8000, 100)

    def draw() -> float:
        stream.batch(np.arange(count), threads=threads)
        return float(count)

    return draw


def word_problems() -> Work:
    """500 of them a call, others each time: it draws an entry when it is asked for."""
    import reasoning_gym

    seeds = iter(range(10**9))

    def draw() -> float:
        data = reasoning_gym.create_dataset("gsm_symbolic", size=500, seed=next(seeds))
        return float(sum(1 for entry in data if entry["question"]))

    return draw


def packing(theme: str, ops: tuple[int, ...]) -> Work:
    stream = fr.TaskStream(fr.Mixture.uniform(op=ops, themes=[theme]), seed=0)
    tokenizer = fr.Tokenizer.for_mixtures([stream.mixture])
    return lambda: float(stream.packed(0, 64, 4096, tokenizer, threads=1).lengths.sum())


@cache
def text() -> tuple[fr.Tokenizer, list[str]]:
    batch = fr.TaskStream(fr.Mixture.uniform(op=range(2, 21), themes=["zoo"]), seed=0)[0:500]
    return fr.Tokenizer.build(["zoo"]), batch.documents


def our_encoder() -> Work:
    tokenizer, documents = text()
    return lambda: float(len(tokenizer.core.encode_batch(documents)[0]))


def their_encoder() -> Work:
    """Hugging Face's, which reads the tokenizer.json that we write."""
    import tokenizers

    ours, documents = text()
    with TemporaryDirectory() as folder:
        ours.save_pretrained(folder)
        theirs = tokenizers.Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))

    def encode() -> float:
        return float(sum(len(theirs.encode(text, add_special_tokens=False)) for text in documents))

    if encode() != our_encoder()():
        raise AssertionError("the encoders do not agree, so their times cannot be compared")
    return encode
