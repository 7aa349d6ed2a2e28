"""One process's part of a task stream.

    problem i of shard (rank, world_size)  =  problem i * world_size + rank of the stream

so shards never overlap, leave nothing out, and together go through the stream in its order. The state of a shard is one
integer, the index of its next problem; going on with another world size w starts at the stream's problem s with
`stream.shard(rank, w)` at ceil((s - rank) / w).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..runtime.arguments import INT64_MAX, indices, integer, integers
from .stream import PackedBatch, ProblemBatch, TaskStream

if TYPE_CHECKING:
    from ..text.tokenizer import Tokenizer


class StreamShard:
    """Every world_size-th problem of a stream; used like the stream.

    Args:
        stream: the whole stream.
        rank: 0 .. world_size - 1.
        world_size: how many shards there are.

    >>> from fastreason import Mixture
    >>> stream = TaskStream(Mixture.uniform(op=[3], themes=["symbolic"]), seed=0)
    >>> stream.shard(1, 4)[0:3].indices
    array([1, 5, 9])
    """

    def __init__(self, stream: TaskStream, rank: int, world_size: int) -> None:
        self.stream = stream
        self.world_size = integer("shard: world_size", world_size, 1)
        self.rank = integer("shard: rank", rank, 0, self.world_size - 1)
        self._last = (INT64_MAX - self.rank) // self.world_size

    def __repr__(self) -> str:
        return f"StreamShard({self.rank} of {self.world_size} of {self.stream!r})"

    def __getitem__(self, key: int | slice | Sequence[int] | np.ndarray) -> ProblemBatch:
        """The problems that `TaskStream` takes for such a key; all counted within the shard."""
        return self.batch(indices("shard", key, self._last))

    def batch(self, indices: Sequence[int] | np.ndarray, *, threads: int = 0) -> ProblemBatch:
        """The problems at these indices of the shard; see `TaskStream.batch`."""
        wanted = integers("shard: indices", indices, 0, self._last)
        return self.stream.batch(wanted * self.world_size + self.rank, threads=threads)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Rows in the published schema, without end."""
        index = 0
        while True:
            yield from self[index : index + 64].rows()
            index += 64

    def shard(self, rank: int, world_size: int) -> StreamShard:
        """A part of this part."""
        part = StreamShard(self.stream, rank, world_size)
        return StreamShard(self.stream, self.rank + part.rank * self.world_size, self.world_size * part.world_size)

    def packed(self, start: int, rows: int, length: int, tokenizer: Tokenizer, *, threads: int = 0) -> PackedBatch:
        """The shard's problems start, start + 1, ... in rows of token ids; `next_index` counts within the shard."""
        first = integer("packed: start", start, 0, self._last) * self.world_size + self.rank
        packed = self.stream.packed(first, rows, length, tokenizer, step=self.world_size, threads=threads)
        return replace(packed, next_index=(packed.next_index - self.rank) // self.world_size)

    def encoded(
        self, start: int, count: int, tokenizer: Tokenizer, *, threads: int = 0
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """`count` documents of the shard as token ids; see `TaskStream.encoded`."""
        first = integer("encoded: start", start, 0, self._last) * self.world_size + self.rank
        return self.stream.encoded(first, count, tokenizer, step=self.world_size, threads=threads)
