"""Several processes that work on one run, started by torchrun: who takes part, and the few things they tell each other.

One process needs no launcher: without torchrun's environment every function here is the identity of one rank. Nothing
is pickled: ranks exchange tensors and arrays of numbers.

Letters: R ranks.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor


def rank() -> int:
    """Number of this process, 0 .. world_size() - 1."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Processes that take part; 1 without torchrun."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """Whether this process writes files and draws progress bars: rank 0."""
    return rank() == 0


@contextmanager
def process_group() -> Iterator[None]:
    """Joins the processes that torchrun started (gloo, and NCCL for tensors on GPUs), and leaves them at the end.

    Without torchrun, or inside a group that is there already, it does nothing.
    """
    if dist.is_initialized() or "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        yield
        return
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """The sum over all ranks, in place; returns its argument."""
    if world_size() > 1:
        dist.all_reduce(tensor)
    return tensor


def any_rank(flag: bool) -> bool:
    """Whether the flag is set on any rank: every rank gets the same answer."""
    return bool(sum_over_ranks(torch.tensor([int(flag)])).item())


def barrier() -> None:
    """Waits for all ranks."""
    if world_size() > 1:
        dist.barrier()


def gather_arrays(array: np.ndarray) -> list[np.ndarray]:
    """The arrays of all ranks, in their order, on every rank.

    Args:
        array: numbers [n, ...]; n may differ between ranks, the rest of the shape and the dtype may not.
    """
    if world_size() == 1:
        return [array]
    lengths = torch.zeros(world_size(), dtype=torch.int64)
    lengths[rank()] = len(array)
    sum_over_ranks(lengths)
    padded = np.zeros((int(lengths.max()), *array.shape[1:]), dtype=array.dtype)
    padded[: len(array)] = array
    data = torch.from_numpy(padded.reshape(-1).view(np.uint8))
    parts = [torch.empty_like(data) for _ in range(world_size())]
    dist.all_gather(parts, data)
    shaped = [part.numpy().view(array.dtype).reshape(padded.shape) for part in parts]
    return [part[:length] for part, length in zip(shaped, lengths.tolist(), strict=True)]


def share(num_items: int) -> slice:
    """This rank's contiguous part of `num_items`; the parts differ by at most one item.

    >>> share(10)
    slice(0, 10, None)
    """
    return slice(rank() * num_items // world_size(), (rank() + 1) * num_items // world_size())
