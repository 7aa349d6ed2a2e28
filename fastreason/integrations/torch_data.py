"""Task streams as datasets for `torch.utils.data.DataLoader`, with any number of workers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from torch.utils.data import IterableDataset, get_worker_info

from ..runtime.arguments import instance, integer
from ..tasks.stream import StreamShard, TaskStream

_CHUNK = 64  # problems drawn per call


class StreamDataset(IterableDataset[dict[str, Any]]):
    """Rows in the published schema, in stream order for any number of workers.

    Worker w of W reads blocks w, w + W, w + 2 W, ... of `block` problems each. A DataLoader takes one batch from each
    worker in turn, so with `block` equal to its `batch_size`, batch k holds problems from start + k * block on, and the
    state of training is one integer: to resume, start at `start` plus the number of rows used.

    Args:
        stream: a stream or, in distributed training, `stream.shard(rank, world_size)`.
        start: the first problem, >= 0.
        stop: one past the last problem; None for an endless dataset. The dataset is empty if it equals `start`.
        block: the `batch_size` of the DataLoader, or 1 if it does not batch.

    >>> from fastreason import Mixture
    >>> stream = TaskStream(Mixture.uniform(op=[3], themes=["symbolic"]), seed=0)
    >>> [row["id"][:10] for row in StreamDataset(stream.shard(1, 2), start=5, stop=7)]
    ['train-0-11', 'train-0-13']
    """

    def __init__(
        self, stream: TaskStream | StreamShard, *, start: int = 0, stop: int | None = None, block: int = 1
    ) -> None:
        instance("StreamDataset: stream", stream, TaskStream, StreamShard)
        start, block = integer("StreamDataset: start", start, 0), integer("StreamDataset: block", block, 1)
        stop = None if stop is None else integer("StreamDataset: stop", stop, start)
        self.stream, self.start, self.stop, self.block = stream, start, stop, block

    def __repr__(self) -> str:
        end = "" if self.stop is None else self.stop
        return f"StreamDataset({self.stream!r}, problems {self.start} .. {end})"

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker = get_worker_info()
        indices = self._indices(worker.id, worker.num_workers) if worker else self._indices(0, 1)
        while chunk := list(itertools.islice(indices, _CHUNK)):
            # there are already as many workers as cores
            yield from self.stream.batch(np.array(chunk), threads=1 if worker else 0).rows()

    def _indices(self, worker: int, num_workers: int) -> Iterator[int]:
        """The indices of one worker, increasing."""
        for begin in itertools.count(self.start + worker * self.block, num_workers * self.block):
            for index in range(begin, begin + self.block):
                if self.stop is not None and index >= self.stop:
                    return
                yield index
