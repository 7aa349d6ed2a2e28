"""Several processes working on one run, started by torchrun: ranks, and communication between them.

A single process needs no launcher: without torchrun's environment every function here acts as for one rank. Nothing is
pickled: ranks exchange tensors and arrays of numbers.

Letters: R ranks.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

Device = Literal["auto", "cpu", "cuda"]


def rank() -> int:
    """Number of this process, 0 .. world_size() - 1."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Number of processes; 1 without torchrun."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """Whether this process writes files and draws progress bars: rank 0."""
    return rank() == 0


@contextmanager
def process_group() -> Iterator[None]:
    """Joins the processes that torchrun started (gloo, and NCCL for tensors on GPUs), and leaves them at the end.

    If there are GPUs, every rank uses the GPU with its local rank. Without torchrun, or inside an existing group, this
    does nothing.
    """
    if dist.is_initialized() or "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        yield
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield
    finally:
        # what holds the group, as a DDP model in a cycle of references does, would keep gloo's threads beyond the
        # interpreter, and they then end the process by SIGABRT
        gc.collect()
        dist.destroy_process_group()


def chosen_device(wanted: Device) -> torch.device:
    """The device for a model: "auto" is a GPU if there is one, and of several the one with torchrun's local rank.

    Raises:
        ValueError: "cuda" without a GPU.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ValueError('device must be "auto" or "cpu" on a machine without a GPU that torch can use, got "cuda"')
    if wanted == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    local_rank = os.environ.get("LOCAL_RANK")
    return torch.device("cuda", torch.cuda.current_device() if local_rank is None else int(local_rank))


def cpu_threads(wanted: int) -> int:
    """Number of torch threads for a process: `wanted`, or one per core if 0. Under torchrun each rank gets at most its
    share of the machine's cores, because oversubscribed threads are many times slower."""
    cores, ranks_here = os.cpu_count() or 1, int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return (wanted or cores) if ranks_here == 1 else max(1, min(wanted or cores, cores // ranks_here))


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """The sum over all ranks, in place; returns its argument."""
    if world_size() > 1:
        dist.all_reduce(tensor)
    return tensor


def max_over_ranks(number: int) -> int:
    """The largest of the ranks' numbers, on every rank."""
    if world_size() == 1:
        return number
    tensor = torch.tensor([number])
    dist.all_reduce(tensor, dist.ReduceOp.MAX)
    return int(tensor.item())


def any_rank(flag: bool) -> bool:
    """Whether the flag is set on any rank: every rank gets the same answer."""
    return bool(sum_over_ranks(torch.tensor([int(flag)])).item())


def from_main(number: float) -> float:
    """Rank 0's number, such as its clock, on every rank."""
    if world_size() == 1:
        return number
    return float(sum_over_ranks(torch.tensor([number if is_main() else 0.0], dtype=torch.float64)).item())


def barrier() -> None:
    """Waits for all ranks."""
    if world_size() > 1:
        dist.barrier()


class OtherRankFailed(RuntimeError):
    """Another rank stopped with an error, which it reports itself."""


@contextmanager
def together() -> Iterator[None]:
    """Either all ranks complete this block or none does: an error on one rank stops the others too, which would
    otherwise wait for it forever.

    Raises:
        OtherRankFailed: the block succeeded here but failed on another rank.
    """
    error: Exception | None = None
    try:
        yield
    except Exception as caught:
        error = caught
    if any_rank(error is not None) and error is None:
        raise OtherRankFailed("another rank stopped with an error")
    if error is not None:
        raise error


def gather_arrays(array: np.ndarray) -> list[np.ndarray]:
    """The arrays of all ranks, in rank order, on every rank.

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
