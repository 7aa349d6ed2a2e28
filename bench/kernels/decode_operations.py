"""What a step of decoding, and a pass over prompts, launches and moves on a GPU, counted without one.

They run on tensors without values (torch's `meta` device), where a dispatch mode counts the operations that are kernels
or copies on a GPU. launch_counts.py counts by name what training launches; here every operation keeps its bytes and
multiplications, from which decode_step.py makes a time.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

import fastreason as fr
from fastreason import kernels
from fastreason.kernels.triton_support import as_if_on
from fastreason.sampling.device_decoding import PREFILL_TOKENS, DeviceDecoding, Size

from .launch_counts import launches_nothing

__all__ = [
    "DTYPE",
    "PRESET",
    "PROMPT_TOKENS",
    "Counting",
    "Operation",
    "counted_prefill",
    "counted_step",
    "meta_decoding",
]

PRESET, DTYPE, ARCH = "100m", torch.bfloat16, 90
PROMPT_TOKENS = 400
_KERNELS = {"decode_attention": 2}


@dataclass(frozen=True)
class Operation:
    """What an operation launches and moves; keys and values that attention reads are not in `bytes`."""

    name: str
    kernels: int
    bytes: int
    flops: int


class Counting(TorchDispatchMode):
    """Notes every operation that is a kernel or a copy on a GPU, and what the host would wait for."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[Operation] = []
        self.waits = 0
        self.inside_s = 0.0  # CPU time of the operations themselves

    @property
    def launches(self) -> int:
        return sum(operation.kernels for operation in self.operations)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        begin, kwargs = time.process_time(), kwargs or {}
        out = func(*args, **kwargs)
        namespace, name = func.name().split("::")
        name = name.split(".")[0]
        given = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, Tensor)]
        made = [x for x in tree_flatten(out)[0] if isinstance(x, Tensor)]
        if name in ("_local_scalar_dense", "nonzero", "equal") or (name == "_to_copy" and leaves(given[0], made[0])):
            self.waits += 1
        if not launches_nothing(func):
            kernels_ = _KERNELS.get(name, 1) if namespace == "fastreason" else 1
            self.operations.append(Operation(name, kernels_, moved(name, given, made), flops(name, given)))
        self.inside_s += time.process_time() - begin
        return out


def leaves(before: Tensor, after: Tensor) -> bool:
    return before.device.type != "cpu" and after.device.type == "cpu"


def _size(*tensors: Tensor) -> int:
    return sum(x.numel() * x.element_size() for x in tensors)


def moved(name: str, given: Sequence[Tensor], made: Sequence[Tensor]) -> int:
    """Bytes read and written: every operand once, but of tables and caches only what is picked."""
    if name in ("index", "embedding", "index_select"):
        return 2 * _size(*made) + _size(*given[1:])
    if name in ("index_put_", "index_put", "_index_put_impl_"):
        return 2 * _size(given[-1]) + _size(*given[1:-1])
    if name == "decode_attention":
        q = given[0]
        return 2 * _size(q) + 8 * q.shape[0] * q.shape[1] * (q.shape[2] + 1)
    return _size(*given) + _size(*made)


def flops(name: str, given: Sequence[Tensor]) -> int:
    if name not in ("mm", "addmm"):
        return 0
    a, b = given[-2:]
    return 2 * a.shape[0] * a.shape[1] * b.shape[1]


def _drawn(logits: Tensor, *, prompts_N: Tensor, **settings: Any) -> tuple[Tensor, Tensor, Tensor]:
    """In the place of `kernels.sample`, which is one kernel that reads the logits once."""
    token = torch.empty_like(prompts_N)
    logprobs = torch.empty(2, len(logits), device=logits.device)
    logits.sum()  # the one operation that is counted
    return token, logprobs[0], logprobs[1]


def meta_decoding(size: Size) -> DeviceDecoding:
    with torch.device("meta"):
        model = fr.Decoder(fr.ModelConfig.preset(PRESET)).to(DTYPE)
    return DeviceDecoding(model, size, {"seed": 0}, np.array([3]))


def counted_step(decoding: DeviceDecoding, width: int) -> Counting:
    """One step of `width` rows on tensors without values."""
    with (
        mock.patch.object(kernels, "sample", _drawn),
        torch.no_grad(),
        as_if_on(ARCH),
        Counting() as found,
    ):
        decoding._step(width)
    return found


def counted_prefill(decoding: DeviceDecoding) -> Counting:
    """One full pass over prompts."""
    prompts = [np.zeros(PROMPT_TOKENS, np.int32)] * (PREFILL_TOKENS // PROMPT_TOKENS)
    with torch.no_grad(), as_if_on(ARCH), Counting() as found:
        decoding.prefill(np.arange(len(prompts)), prompts)
    return found
