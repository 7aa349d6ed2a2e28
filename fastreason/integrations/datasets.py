"""A task stream as a Hugging Face dataset."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..tasks.shards import StreamShard
from ..tasks.stream import TaskStream

if TYPE_CHECKING:
    import datasets

_CHUNK = 256


def to_datasets(
    stream: TaskStream | StreamShard, *, start: int = 0, stop: int | None = None, num_shards: int = 1
) -> datasets.Dataset | datasets.IterableDataset:
    """Rows in the published schema as a dataset of the `datasets` library.

    Args:
        stream: a stream or a part of one.
        start: the first problem, >= 0.
        stop: the problem behind the last one: a `Dataset` in memory. None: an `IterableDataset` without end.
        num_shards: of an `IterableDataset`: the number of its readers, nodes times data-loader workers. Each gets one
            part, as `datasets` divides it; part i holds problems start + i, start + i + num_shards, ... A reader of
            several parts would stay in its first one, which has no end.
    Raises:
        ValueError: a number out of range.
        ModuleNotFoundError: `datasets` is not installed.
    """
    if start < 0 or num_shards < 1 or (stop is not None and stop < start):
        raise ValueError(
            f"to_datasets: need start >= 0, stop >= start and num_shards >= 1, got {start}, {stop} and {num_shards}"
        )
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("to_datasets needs datasets: pip install 'fastreason[datasets]'") from error
    texts = ("problem", "question", "solution", "op", "id", "template", "mode", "length", "d")
    features = datasets.Features({name: datasets.Value("int64" if name in ("op", "d") else "string") for name in texts})
    if stop is not None:
        return datasets.Dataset.from_list(stream[start:stop].rows(), features=features)
    whole = stream if isinstance(stream, StreamShard) else stream.shard(0, 1)
    # the part that holds problem start + i, and that problem's place in it
    places = [divmod(start + i, num_shards) for i in range(num_shards)]
    parts = [(whole.shard(rest, num_shards), begin) for begin, rest in places]
    return datasets.IterableDataset.from_generator(_rows, features=features, gen_kwargs={"parts": parts})


def _rows(parts: list[tuple[StreamShard, int]]) -> Iterator[dict[str, Any]]:
    """`datasets` hands over the parts one at a time."""
    for part, begin in parts:
        while True:
            yield from part[begin : begin + _CHUNK].rows()
            begin += _CHUNK
