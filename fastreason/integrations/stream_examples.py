"""How `datasets` reads an endless stream: the shards of a reader take turns."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

import numpy as np
from datasets.iterable_dataset import ExamplesIterable

from ..tasks.stream import StreamShard, TaskStream

_CHUNK = 256


def _rows(
    stream: TaskStream | StreamShard, start: int, num_parts: int, parts: list[int], skip: int = 0
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields a row of each part in turn, with its index in the stream; part i holds start + i, start + i + num_parts,
    ...

    Args:
        skip: number of rows to skip.
    """
    turns = np.array(parts)
    for begin in count(skip, _CHUNK):
        rounds, turn = np.divmod(np.arange(begin, begin + _CHUNK), len(turns))
        wanted = start + turns[turn] + rounds * num_parts
        yield from zip(wanted.tolist(), stream.batch(wanted).rows(prompts=True), strict=True)


class StreamExamples(ExamplesIterable):  # type: ignore[misc]
    """The endless parts that `datasets` divides among its readers.

    Its own implementation reads the parts sequentially, and so would never leave the first.

    Args:
        stream, start, num_parts: as for `_rows`.
    """

    def __init__(self, stream: TaskStream | StreamShard, start: int, num_parts: int, parts: list[int] | None = None):
        kwargs = {"stream": stream, "start": start, "num_parts": num_parts}
        super().__init__(_rows, {**kwargs, "parts": list(range(num_parts)) if parts is None else parts})

    def _of(self, other: ExamplesIterable) -> StreamExamples:
        return StreamExamples(**other.kwargs)

    def __iter__(self) -> Iterator[tuple[int, dict[str, Any]]]:
        state: dict[str, Any] = self._state_dict or {"shard_example_idx": 0}
        for key_and_row in _rows(**self.kwargs, skip=state["shard_example_idx"]):
            state["shard_example_idx"] += 1
            yield key_and_row

    def shuffle_data_sources(self, generator: np.random.Generator) -> StreamExamples:
        return self  # problems are already in random order

    def shard_data_sources(self, *args: Any, **kwargs: Any) -> StreamExamples:
        return self._of(super().shard_data_sources(*args, **kwargs))

    def reshard_data_sources(self) -> StreamExamples:
        return self
