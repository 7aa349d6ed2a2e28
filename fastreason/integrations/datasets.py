"""Task streams as Hugging Face datasets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..runtime.arguments import instance, integer
from ..tasks.stream import StreamShard, TaskStream

if TYPE_CHECKING:
    import datasets


def to_datasets(
    stream: TaskStream | StreamShard, *, start: int = 0, stop: int | None = None, num_shards: int = 1
) -> datasets.Dataset | datasets.IterableDataset:
    """Rows in the published schema, after the column `prompt`, as a dataset of the `datasets` library.

    Args:
        stream: a stream or a shard of one.
        start: the first problem, >= 0.
        stop: one past the last problem, for an in-memory `Dataset`; None for an endless `IterableDataset`.
        num_shards: of an `IterableDataset`: `datasets` divides the shards among nodes and data-loader workers; shard i
            holds problems start + i, start + i + num_shards, ... A reader of several shards takes one problem from each
            in turn, so a single reader gets the problems in stream order for any `num_shards`, as does a DataLoader
            without batching whose number of workers divides `num_shards`. With any number of readers up to `num_shards`
            every problem is read exactly once.
    Raises:
        ValueError: a number is out of range.
        ModuleNotFoundError: `datasets` is not installed.
    """
    instance("to_datasets: stream", stream, TaskStream, StreamShard)
    start, num_shards = integer("to_datasets: start", start, 0), integer("to_datasets: num_shards", num_shards, 1)
    stop = None if stop is None else integer("to_datasets: stop", stop, start)
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("to_datasets needs datasets: pip install 'fastreason[datasets]'") from error
    texts = ("prompt", "problem", "question", "solution", "op", "id", "template", "mode", "length", "d")
    features = datasets.Features({name: datasets.Value("int64" if name in ("op", "d") else "string") for name in texts})
    if stop is not None:
        rows = stream[start:stop].rows(prompts=True)  # possibly empty
        return datasets.Dataset.from_dict({name: [row[name] for row in rows] for name in features}, features=features)
    from .stream_examples import StreamExamples

    return datasets.IterableDataset(
        StreamExamples(stream, start, num_shards), info=datasets.DatasetInfo(features=features)
    )
