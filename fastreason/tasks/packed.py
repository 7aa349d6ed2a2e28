"""Rows of token ids, each filled with whole documents of a stream."""

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
    """Rows of whole documents. A document is cut only if it is longer than a row.

    Args:
        rows, length: the shape of the flat arrays.
        tokens: int32 [rows * length], [PAD] behind the last document of a row.
        positions: int32 [rows * length], counted from 0 in every document.
        loss_mask: uint8 [rows * length], 1 where the token belongs to the solution, the answer or [EOS].
        starts, lengths: int32 [documents]: where the documents lie in the flat arrays.
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
    """An iterator without end; what `TaskStream.batches` returns.

    Batch i belongs to lane i % number of lanes, and is what `packed` gives for the problem at which the lane's last
    batch ended. A problem that cannot be drawn is an error at its batch, as with `packed`. The thread ends with `close`
    or the iterator or the interpreter; a forked child has none, and gets a RuntimeError.

    Args:
        packer: of a stream and a tokenizer.
        starts: first problem of each lane.
        rows, length: shape of a batch.
        step: a lane's problems are start, start + step, ...
        ahead: batches that may wait, at least 1; one more is being drawn.
    """

    def __init__(
        self, packer: _core.Packer, starts: Sequence[int], rows: int, length: int, *, step: int = 1, ahead: int = 2
    ) -> None:
        self.rows, self.length = rows, length
        self._core = _core.Prefetcher(packer, starts, rows, length, step=step, ahead=ahead)
        # at the latest before the interpreter ends: what the thread uses is taken apart behind it
        self._end = weakref.finalize(self, self._core.close)

    def __next__(self) -> PackedBatch:
        return PackedBatch(self.rows, self.length, **self._core.next())

    def close(self) -> None:
        """Ends the thread; `next` is an error from here on."""
        self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
