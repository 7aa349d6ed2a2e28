"""The task stream and the tokenizer on one core."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

import fastreason as fr

from .timing import Row, measure


def rows() -> Iterator[Row]:
    for theme in ("symbolic", "zoo"):
        for op in (5, 20):
            stream = fr.TaskStream(fr.Mixture.uniform(op=[op], themes=[theme]), seed=0)
            yield measure(f"problems as text, {theme}, op {op}", "problems/s", partial(_draw, stream))
    stream = fr.TaskStream(fr.Mixture.uniform(op=range(2, 6), themes=["symbolic"], max_value=199), seed=0)
    tokenizer = fr.Tokenizer.for_mixtures([stream.mixture])
    yield measure("problems as packed tokens, symbolic, op 2-5", "tokens/s", partial(_pack, stream, tokenizer))
    yield _encode()


def _draw(stream: fr.TaskStream, n: int = 2000) -> float:
    _ = stream.batch(np.arange(n), threads=1).documents
    return n


def _pack(stream: fr.TaskStream, tokenizer: fr.Tokenizer) -> float:
    return float(stream.packed(0, 16, 4096, tokenizer, threads=1).lengths.sum())


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
