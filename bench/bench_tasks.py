"""The task stream and the tokenizer on one core."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

import fastreason as fr

from .timing import Row, measure

EASY, HARD = tuple(range(2, 11)), (20,)


def rows() -> Iterator[Row]:
    for theme, mode, depth in (
        ("zoo", "forward", 2),
        ("zoo", "reverse", 2),
        ("zoo", "forward", 3),
        ("symbolic", "forward", 2),
    ):
        for ops, name in ((EASY, "op 2-10"), (HARD, "op 20")):
            stream = fr.TaskStream(fr.Mixture.uniform(op=ops, themes=[theme], modes=[mode], depths=[depth]), seed=0)
            what = f"problems as text, {theme}, {mode}, depth {depth}, {name}"
            yield measure(what, "problems/s", partial(_draw, stream, 1))
    stream = fr.TaskStream(fr.Mixture.uniform(op=EASY, themes=["zoo"]), seed=0)
    yield measure("the first of these on two threads", "problems/s", partial(_draw, stream, 2))
    for theme, ops in (("zoo", EASY), ("symbolic", (2, 3, 4, 5))):
        stream = fr.TaskStream(fr.Mixture.uniform(op=ops, themes=[theme]), seed=0)
        tokenizer = fr.Tokenizer.for_mixtures([stream.mixture])
        what = f"problems as packed tokens, {theme}, op {ops[0]}-{ops[-1]}"
        yield measure(what, "tokens/s", partial(_pack, stream, tokenizer))
    yield _encode()


def _draw(stream: fr.TaskStream, threads: int, n: int = 8000) -> float:
    stream.batch(np.arange(n), threads=threads)
    return n


def _pack(stream: fr.TaskStream, tokenizer: fr.Tokenizer) -> float:
    return float(stream.packed(0, 64, 4096, tokenizer, threads=1).lengths.sum())


def _encode() -> Row:
    """The same documents through our encoder and through Hugging Face's, which reads the tokenizer.json we write."""
    import tokenizers

    batch = fr.TaskStream(fr.Mixture.uniform(op=range(2, 21), themes=["zoo"]), seed=0)[0:500]
    ours = fr.Tokenizer.build(["zoo"])
    with TemporaryDirectory() as folder:
        ours.save_pretrained(folder)
        theirs = tokenizers.Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))
    documents = batch.documents

    def encode_ours() -> float:
        return float(len(ours.core.encode_batch(documents)[0]))

    def encode_theirs() -> float:
        return float(sum(len(theirs.encode(text, add_special_tokens=False)) for text in documents))

    assert encode_ours() == encode_theirs()
    return measure("encoding text, zoo, op 2-20", "tokens/s", encode_ours, peer=("tokenizers", encode_theirs))
