"""What a step hands to a GPU, counted without one: launches, matrix products, copies, waits, and bytes that are moved.

The step runs on torch's meta device, whose tensors have shapes and no values, as if on a GPU: an operation of
fastreason is entered, and its Triton launches are counted in place of being made; an operation of torch counts as one
launch unless it is a view or only allocates.

    bytes = of every launch the operands that it is given, each once; matrix products apart

What this cannot see: operations of torch that launch several kernels, and caches.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from triton.runtime.jit import JITFunction

from fastreason.kernels.triton_support import as_if_on

__all__ = ["Launches", "counted", "counted_custom_op", "launches_nothing"]

_PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "matmul", "linear", "addmv", "mv")
_ALLOCATES = (
    "empty",
    "empty_like",
    "empty_strided",
    "new_empty",
    "new_empty_strided",
    "empty_permuted",
    "detach",
    "lift_fresh",
)
_COPIES = ("_to_copy", "copy_")


@dataclass
class Launches:
    """Counts by name.

    Args:
        triton, torch, products: launches of our kernels, of torch's operations, and of its matrix products.
        moved: bytes of the first two.
        to_device: copies from the host, for which it does not wait where they come from pinned memory.
        waits: copies to the host, and numbers that it reads.
    """

    triton: Counter[str] = field(default_factory=Counter)
    torch: Counter[str] = field(default_factory=Counter)
    products: Counter[str] = field(default_factory=Counter)
    moved: Counter[str] = field(default_factory=Counter)
    to_device: int = 0
    waits: int = 0

    @property
    def total(self) -> int:
        """All launches."""
        return self.triton.total() + self.torch.total() + self.products.total()


@contextmanager
def counted(arch: int = 90) -> Iterator[Launches]:
    """Counts what is done with tensors on the meta device while it is open, as on a GPU of compute capability
    arch / 10."""
    launches = Launches()
    mode = _Mode(launches)
    with (
        mock.patch.object(JITFunction, "run", lambda kernel, *given, **options: mode.launch(kernel, *given, **options)),
        # torch has no autocast for meta, and cast_once makes products narrow without it
        mock.patch.object(torch, "autocast", return_value=nullcontext()),
        mock.patch.object(torch, "is_autocast_enabled", return_value=False),
        as_if_on(arch),
        mode,
    ):
        yield launches


class _Mode(TorchDispatchMode):
    def __init__(self, launches: Launches) -> None:
        super().__init__()
        self.launches = launches

    def launch(self, kernel: Any, *arguments: Any, grid: Any, warmup: bool, **options: Any) -> None:
        """In place of Triton's."""
        name = f"{kernel.fn.__module__.rpartition('.')[2]}.{kernel.fn.__name__.strip('_').removesuffix('_kernel')}"
        self.launches.triton[name] += 1
        tensors = {id(x): x for x in tree_leaves((arguments, options)) if isinstance(x, Tensor)}
        self.launches.moved[name] += _bytes(tensors.values())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if counted_custom_op(func):
            with self, torch.no_grad():
                return counted_custom_op(func)(*args, **kwargs)
        inputs = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        name = func._schema.name.split("::")[1]
        if name == "_local_scalar_dense" and inputs[0].is_meta:
            self.launches.waits += 1
            return 1.0
        if name in _COPIES and (result := self._copy(name, args, kwargs, inputs)) is not None:
            return result
        result = func(*args, **kwargs)
        outputs = [x for x in tree_leaves(result) if isinstance(x, Tensor)]
        if any(x.is_meta for x in (*inputs, *outputs)) and not launches_nothing(func):
            products = name in _PRODUCTS
            (self.launches.products if products else self.launches.torch)[name] += 1
            if not products:
                self.launches.moved[name] += _bytes({id(x): x for x in (*inputs, *outputs)}.values())
        return result

    def _copy(self, name: str, args: Any, kwargs: Any, inputs: list[Tensor]) -> Tensor | None:
        """Between host and device; None where it is within one of them."""
        target = args[0].device if name == "copy_" else torch.device(kwargs.get("device") or args[0].device)
        source = args[1].device if name == "copy_" else args[0].device
        if {target.type, source.type} != {"cpu", "meta"}:
            return None
        if target.type == "meta":
            self.launches.to_device += 1
            return args[0] if name == "copy_" else torch.empty_like(args[0], device="meta")
        self.launches.waits += 1
        like = args[1] if name == "copy_" else args[0]
        return torch.zeros(like.shape, dtype=kwargs.get("dtype") or like.dtype)


def counted_custom_op(func: Any) -> Any:
    """The implementation of an operation of fastreason; None for those of torch."""
    op = torch._library.custom_ops.OPDEFS.get(f"{func.namespace}::{func._schema.name.split('::')[1]}")
    return None if op is None else op._init_fn


def launches_nothing(func: Any) -> bool:
    """Whether an operation of torch is a view, or only allocates."""
    is_view = any(out.alias_info is not None and not out.alias_info.is_write for out in func._schema.returns)
    return is_view or func._schema.name.split("::")[1] in (*_ALLOCATES, "_unsafe_view")


def _bytes(tensors: Any) -> int:
    return sum(x.numel() * x.element_size() for x in tensors if x.is_meta)
