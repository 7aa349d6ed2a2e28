"""Packed batches of a stream one after the other, drawn by a C++ thread while the step before is running."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from .. import _core
from .stream import PackedBatch

if TYPE_CHECKING:
    from typing import Self


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
