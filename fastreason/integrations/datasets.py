"""A task stream as a Hugging Face dataset."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..runtime.arguments import integer
from ..tasks.stream import StreamShard, TaskStream

if TYPE_CHECKING:
    import datasets


def to_datasets(
    stream: TaskStream | StreamShard, *, start: int = 0, stop: int | None = None, num_shards: int = 1
) -> datasets.Dataset | datasets.IterableDataset:
    """Rows in the published schema as a dataset of the `datasets` library.

    Args:
        stream: a stream or a part of one.
        start: the first problem, >= 0.
        stop: the problem behind the last one: a `Dataset` in memory. None: an `IterableDataset` without end.
        num_shards: of an `IterableDataset`: parts that `datasets` divides among nodes and data-loader workers; part i
            holds problems start + i, start + i + num_shards, ... A reader of several parts takes a problem of each in
            turn. So one reader has the problems in the order of the stream, whatever `num_shards`; so has a DataLoader
            without batches whose number of workers divides `num_shards`; and with any number of readers up to
            `num_shards` every problem comes exactly once.
    Raises:
        ValueError: a number out of range.
        ModuleNotFoundError: `datasets` is not installed.
    """
    start, num_shards = integer("to_datasets: start", start, 0), integer("to_datasets: num_shards", num_shards, 1)
    stop = None if stop is None else integer("to_datasets: stop", stop, start)
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("to_datasets needs datasets: pip install 'fastreason[datasets]'") from error
    texts = ("problem", "question", "solution", "op", "id", "template", "mode", "length", "d")
    features = datasets.Features({name: datasets.Value("int64" if name in ("op", "d") else "string") for name in texts})
    if stop is not None:
        rows = stream[start:stop].rows()  # of which there may be none
        return datasets.Dataset.from_dict({name: [row[name] for row in rows] for name in features}, features=features)
    from .stream_examples import StreamExamples

    return datasets.IterableDataset(
        StreamExamples(stream, start, num_shards), info=datasets.DatasetInfo(features=features)
    )
