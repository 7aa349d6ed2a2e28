"""Tensors from the host to a device in one transfer that nobody waits for."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["send"]

_ALIGNMENT = 16  # bytes: kernels are compiled for addresses that are multiples of it


def send(tensors: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """The tensors on `device`, as views of one buffer; on CPU the tensors themselves.

    To a GPU the buffer is copied from pinned memory: the host goes on while it is copied, and operations that are
    launched later see it. A copy from ordinary memory would make the host wait.

    Args:
        tensors: on CPU, of any dtypes and shapes.
        device: where to.
    """
    if device.type == "cpu" or not tensors:
        return list(tensors)
    offsets, size = [], 0
    for x in tensors:
        offsets.append(size)
        size += -(-x.numel() * x.element_size() // _ALIGNMENT) * _ALIGNMENT
    buffer = torch.empty(size, dtype=torch.uint8, pin_memory=device.type == "cuda")
    for place, x in zip(_views(buffer, offsets, tensors), tensors, strict=True):
        place.copy_(x)
    return _views(buffer.to(device, non_blocking=True), offsets, tensors)


def _views(buffer: Tensor, offsets: Sequence[int], like: Sequence[Tensor]) -> list[Tensor]:
    return [
        buffer[offset : offset + x.numel() * x.element_size()].view(x.dtype).view(x.shape)
        for offset, x in zip(offsets, like, strict=True)
    ]
