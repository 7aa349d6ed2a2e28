"""The input of a supervised step: packed rows of the stream, divided among the ranks.

A step takes R rows of whole documents. Row r draws problems r, r + R, r + 2 R, ... of the stream and has its own
position, so the rows of a step are the same for any number of ranks that divides R, and no rank draws another's rows.

Letters: R rows per step over all ranks, L tokens per row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from ..model.config import ModelConfig
from ..model.flop import train_flop
from ..runtime.distributed import share, sum_over_ranks, world_size
from ..tasks.packed import PackedBatch, PackedBatches
from ..tasks.stream import TaskStream
from ..text.tokenizer import Tokenizer


class Traces(Protocol):
    """Batches that are made of what the model writes, drawn anew from time to time."""

    def is_due(self, share_done: float) -> bool:
        """Whether to draw anew at this share of the stage."""

    def refill(self, share_done: float) -> dict[str, Any] | None:
        """Draws anew; all ranks call it. Returns a line for metrics.jsonl, with `round`, counted from 1, `flop` and
        `sampled` (tokens); None if a stop was requested."""

    def draw(self, phase: int, next_index: Sequence[int]) -> tuple[PackedBatch, list[int]]:
        """As `RowBatches.draw`."""

    def tensors(self) -> dict[str, torch.Tensor]:
        """The state, for the checkpoint."""

    def restore(self, tensors: Mapping[str, torch.Tensor], progress: Mapping[str, Any]) -> None:
        """Restores the result of `tensors`, with the counters of the checkpoint."""

    def close(self) -> None:
        """Ends it."""


class RowBatches:
    """This rank's rows of successive steps, one batch per step.

    Args:
        streams: one per phase.
        length: L.
        tokenizer: encodes the documents.
        ahead: steps drawn ahead by a thread; 0 draws them on demand. The batches do not depend on it.
    """

    def __init__(self, streams: Sequence[TaskStream], length: int, tokenizer: Tokenizer, ahead: int) -> None:
        self.streams, self.length, self.tokenizer, self.ahead = streams, length, tokenizer, ahead
        self._phase = -1
        self._drawn: Iterator[PackedBatch] = iter(())

    def draw(self, phase: int, next_index: Sequence[int]) -> tuple[PackedBatch, list[int]]:
        """The rows of a step.

        Args:
            phase: index of the stream; within a phase, steps must be consecutive.
            next_index: the next problem of each of the R rows.
        Returns:
            This rank's rows, and the position of each row after them (0 for rows of other ranks).
        """
        mine = share(len(next_index))
        if phase != self._phase:
            self.close()
            self._phase, self._drawn = phase, self._draw_all(self.streams[phase], next_index[mine], len(next_index))
        rows = [next(self._drawn) for _ in next_index[mine]]
        next_rows = [0] * len(next_index)
        next_rows[mine] = [row.next_index for row in rows]
        return join(rows), next_rows

    def _draw_all(self, stream: TaskStream, starts: Sequence[int], step: int) -> Iterator[PackedBatch]:
        """Yields the rows of each step in turn."""
        if self.ahead:
            return stream.batches(starts, 1, self.length, self.tokenizer, step=step, ahead=self.ahead * len(starts))
        return self._draw_now(stream, list(starts), step)

    def _draw_now(self, stream: TaskStream, starts: list[int], step: int) -> Iterator[PackedBatch]:
        while True:
            for row, start in enumerate(starts):
                batch = stream.packed(start, 1, self.length, self.tokenizer, step=step, threads=1)
                starts[row] = batch.next_index
                yield batch

    def close(self) -> None:
        """Ends the prefetch thread."""
        if isinstance(self._drawn, PackedBatches):
            self._drawn.close()
        self._phase, self._drawn = -1, iter(())


def check_rows(num_rows: int, wanted: int | None, name: str) -> None:
    """Raises ValueError if the number of ranks does not divide the rows of a step, or a stage being resumed was begun
    with a different number of rows than `wanted`."""
    if wanted not in (None, num_rows):
        raise ValueError(f"{name}: rows = {wanted}, but the checkpoint was begun with {num_rows} rows per step")
    if num_rows % world_size():
        raise ValueError(
            f"{name}: {num_rows} rows per step cannot be divided evenly among {world_size()} ranks; start a number of "
            f"ranks that divides {num_rows}, or begin a new run with a multiple of {world_size()} as `rows`"
        )


def join(rows: Sequence[PackedBatch]) -> PackedBatch:
    """Joins rows into one batch; `next_index` is the smallest of theirs."""
    if len(rows) == 1:
        return rows[0]
    offsets = np.cumsum([0, *(len(row.tokens) for row in rows[:-1])])
    starts = [row.starts + offset for row, offset in zip(rows, offsets, strict=True)]
    return PackedBatch(
        rows=sum(row.rows for row in rows),
        length=rows[0].length,
        tokens=np.concatenate([row.tokens for row in rows]),
        positions=np.concatenate([row.positions for row in rows]),
        loss_mask=np.concatenate([row.loss_mask for row in rows]),
        starts=np.concatenate(starts).astype(np.int32),
        lengths=np.concatenate([row.lengths for row in rows]),
        next_index=min(row.next_index for row in rows),
    )


def split_batch(batch: PackedBatch, parts: int) -> list[PackedBatch]:
    """Splits the documents of a batch, in order, into `parts` parts of similar size, or fewer if there are fewer
    documents.

    The parts share the batch's arrays; nothing is copied.
    """
    if parts == 1:
        return [batch]
    middle = batch.lengths.cumsum() - batch.lengths / 2
    part_of = (middle * parts / batch.lengths.sum()).astype(np.int64)
    return [
        replace(batch, starts=batch.starts[part_of == i], lengths=batch.lengths[part_of == i])
        for i in np.unique(part_of)
    ]


def count_targets(batch: PackedBatch, loss_on: str) -> int:
    """Number of tokens in the batch that have a loss."""
    if loss_on == "all":
        return int(batch.lengths.sum()) - len(batch.lengths)
    counted = np.concatenate([[0], batch.loss_mask.cumsum(dtype=np.int64)])
    inside = counted[batch.starts + batch.lengths] - counted[batch.starts]
    return int(inside.sum()) - int(batch.loss_mask[batch.starts].sum())


class StepTotals(NamedTuple):
    """The increments of a stage's counters in one step, over all ranks."""

    targets: int
    tokens: int
    samples: int
    flop: float
    next_index: list[int]

    @classmethod
    def over_ranks(cls, config: ModelConfig, batch: PackedBatch, next_rows: Sequence[int], loss_on: str) -> StepTotals:
        """Computed from this rank's batch and the positions of its rows after it; all ranks must call it."""
        targets, tokens = count_targets(batch, loss_on), int(batch.lengths.sum())
        flop = train_flop(config, batch.lengths, targets)
        counts = torch.tensor([targets, tokens, len(batch.lengths), flop, *next_rows], dtype=torch.float64)
        whole = sum_over_ranks(counts).tolist()  # exact: integers below 2**53
        return cls(int(whole[0]), int(whole[1]), int(whole[2]), whole[3], [int(index) for index in whole[4:]])
