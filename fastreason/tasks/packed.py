"""Packing: rows of token ids filled with whole documents of a stream."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from .. import _core

if TYPE_CHECKING:
    from typing import Self

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False, repr=False)
class PackedBatch:
    """Rows packed with whole documents. A document is truncated only if it is longer than a row.

    Args:
        rows, length: the shape of the flat arrays.
        tokens: int32 [rows * length], [PAD] after the last document of a row.
        positions: int32 [rows * length], counted from 0 in every document.
        loss_mask: uint8 [rows * length], 1 for tokens of the solution and answer and for [EOS].
        starts, lengths: int32 [documents]: position and length of each document in the flat arrays.
        next_index: the first problem that did not fit; the `start` of the next batch.
    """

    rows: int
    length: int
    tokens: np.ndarray
    positions: np.ndarray
    loss_mask: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    next_index: int

    def __repr__(self) -> str:
        return (
            f"PackedBatch({self.rows} rows of {self.length} tokens: {len(self.starts)} documents, "
            f"{int(self.loss_mask.sum()):,} tokens with a loss, next_index={self.next_index})"
        )

    @property
    def cu_seqlens(self) -> np.ndarray:
        """int32: boundaries of documents and of the padding between them, 0 first and rows * length last."""
        bounds = np.concatenate([[0], self.starts, self.starts + self.lengths, [len(self.tokens)]])
        return np.unique(bounds).astype(np.int32)


class PackedBatches(Iterator[PackedBatch]):
    """The endless iterator returned by `TaskStream.batches`.

    Batch i belongs to lane i % number of lanes, and is what `packed` returns for the problem after the lane's previous
    batch. A problem that cannot be drawn raises an error at its batch, as with `packed`. The thread ends with `close`,
    with the iterator or with the interpreter; a forked child has no thread and gets a RuntimeError.

    Args:
        packer: of a stream and a tokenizer.
        starts: first problem of each lane.
        rows, length: shape of a batch.
        step: a lane's problems are start, start + step, ...
        ahead: number of batches to draw ahead, at least 1, plus one being drawn.
    """

    def __init__(
        self, packer: _core.Packer, starts: Sequence[int], rows: int, length: int, *, step: int = 1, ahead: int = 2
    ) -> None:
        self.rows, self.length = rows, length
        self._core = _core.Prefetcher(packer, starts, rows, length, step=step, ahead=ahead)
        # before the interpreter exits, which destroys what the thread uses
        self._end = weakref.finalize(self, self._core.close)

    def __next__(self) -> PackedBatch:
        return PackedBatch(self.rows, self.length, **self._core.next())

    def close(self) -> None:
        """Ends the thread; `next` raises an error from now on."""
        self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
