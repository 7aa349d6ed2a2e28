"""Bytes that an operation moves, counted while Triton's interpreter runs it.

Every load and store of every program is seen, with its mask: `issued` bytes are those of all active lanes, `distinct`
ones those of different addresses of one launch, which is what device memory moves when caches serve the rest. torch
operations beside the kernels (a sum of partial results, a copy to make rows contiguous) are counted as reading their
inputs and writing their outputs once. Nothing is estimated.
"""

from __future__ import annotations

import functools
import math
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import triton.language as tl
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from triton.runtime import interpreter

__all__ = ["Launch", "Moved", "Traffic", "counting"]


@dataclass
class Moved:
    """Bytes of one tensor in one launch."""

    read: int = 0
    written: int = 0
    read_once: int = 0
    written_once: int = 0


@dataclass(frozen=True)
class Launch:
    """One kernel launch: its name and what it moved, by the name of the kernel's argument."""

    kernel: str
    moved: dict[str, Moved]


@dataclass
class Traffic:
    """What was counted: launches in order, and bytes of torch operations by their name."""

    launches: list[Launch] = field(default_factory=list)
    torch_ops: dict[str, int] = field(default_factory=dict)

    @property
    def issued(self) -> int:
        """All bytes: of every active lane, and of torch operations."""
        kernels = sum(m.read + m.written for launch in self.launches for m in launch.moved.values())
        return kernels + sum(self.torch_ops.values())

    @property
    def distinct(self) -> int:
        """Bytes when no launch moves an address twice."""
        kernels = sum(m.read_once + m.written_once for launch in self.launches for m in launch.moved.values())
        return kernels + sum(self.torch_ops.values())


@contextmanager
def counting() -> Iterator[Traffic]:
    """Counts what kernels and torch operations move while it is open.

    Raises:
        RuntimeError: kernels are not interpreted in this process.
    """
    if not interpreter_is_on():
        raise RuntimeError("counting traffic needs TRITON_INTERPRET=1 from the start of the process")
    traffic = Traffic()
    builder, function = interpreter.InterpreterBuilder, interpreter.InterpretedFunction
    replaced: list[tuple[Any, str, Any]] = []

    def replace(owner: Any, name: str, make: Callable[[Any], Any]) -> None:
        replaced.append((owner, name, getattr(owner, name)))
        setattr(owner, name, make(getattr(owner, name)))

    meter = _Meter()
    mode = _TorchOps(traffic)
    # unmasked loads and stores go through the masked ones
    replace(builder, "create_masked_load", functools.partial(meter.wrap, mask_at=1, reads=True))
    replace(builder, "create_masked_store", functools.partial(meter.wrap, mask_at=2, writes=True))
    replace(
        builder, "create_atomic_rmw", functools.partial(meter.wrap, pointer_at=1, mask_at=3, reads=True, writes=True)
    )
    replace(function, "run", lambda original: _counted_run(original, meter, mode, traffic))
    replace(interpreter, "_implicit_cvt", _floats_are_tensors)
    replace(interpreter, "_patch_lang", functools.partial(_once_a_launch, meter))
    try:
        with mode:
            yield traffic
    finally:
        for owner, name, original in reversed(replaced):
            setattr(owner, name, original)


def interpreter_is_on() -> bool:
    from fastreason.kernels.triton_support import INTERPRETED

    return INTERPRETED


class _Meter:
    """Attributes addresses to the arguments of the launch in progress."""

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.arguments: list[tuple[str, int, int]] = []  # name, first address, end
        self.moved: dict[str, Moved] = {}
        # which elements were touched, by argument, element size and direction
        self.touched: dict[tuple[str, int, bool], Any] = {}
        self.patched: set[int] = set()

    def begin(self, tensors: dict[str, Tensor]) -> None:
        ranges: dict[int, tuple[str, int, int]] = {}
        for name, x in tensors.items():
            storage = x.untyped_storage()
            ranges.setdefault(storage.data_ptr(), (name, storage.data_ptr(), storage.data_ptr() + storage.nbytes()))
        self.arguments = [ranges[start] for start in sorted(ranges)]
        self.starts = [start for _, start, _ in self.arguments]
        self.moved, self.touched, self.patched = {}, {}, set()

    def wrap(
        self, original: Any, *, mask_at: int, pointer_at: int = 0, reads: bool = False, writes: bool = False
    ) -> Any:
        def counted(builder: Any, *arguments: Any, **options: Any) -> Any:
            pointers, mask = arguments[pointer_at], arguments[mask_at]
            size = max(1, pointers.get_element_ty().primitive_bitwidth // 8)
            # the interpreter's masks are not always booleans: `a & b` of a block and a scalar gives integers
            active = pointers.data[np.broadcast_to(mask.data, pointers.data.shape).astype(bool)]
            if active.size:
                self.count(active, size, reads, writes)
            return original(builder, *arguments, **options)

        return counted

    def count(self, addresses: Any, size: int, reads: bool, writes: bool) -> None:
        first = int(addresses.flat[0])
        at = bisect_right(self.starts, first) - 1
        assert at >= 0 and first < self.arguments[at][2], "an access outside of every argument"
        name, start, end = self.arguments[at]
        moved = self.moved.setdefault(name, Moved())
        moved.read += reads * size * addresses.size
        moved.written += writes * size * addresses.size
        elements = (addresses - np.uint64(start)) // np.uint64(size)
        for is_write in [False] * reads + [True] * writes:
            touched = self.touched.setdefault((name, size, is_write), np.zeros((end - start) // size + 1, dtype=bool))
            touched[elements] = True

    def end(self) -> dict[str, Moved]:
        for (name, size, is_write), touched in self.touched.items():
            once = size * int(np.count_nonzero(touched))
            self.moved[name].written_once += is_write * once
            self.moved[name].read_once += (not is_write) * once
        return self.moved


def _counted_run(original: Any, meter: _Meter, mode: _TorchOps, traffic: Traffic) -> Any:
    def run(kernel: Any, *arguments: Any, **options: Any) -> Any:
        named = dict(zip(kernel.arg_names, arguments, strict=False)) | options
        meter.begin(_tensors(named))
        mode.inside_kernel = True
        try:
            result = original(kernel, *arguments, **options)
        finally:
            mode.inside_kernel = False
        traffic.launches.append(Launch(kernel.fn.__name__, meter.end()))
        return result

    return run


def _tensors(named: dict[str, Any]) -> dict[str, Tensor]:
    """The tensors among the arguments of a launch, those of a tuple one by one."""
    found = {}
    for name, value in named.items():
        for i, x in enumerate(value if isinstance(value, tuple) else [value]):
            if isinstance(x, Tensor):
                found[f"{name}[{i}]" if isinstance(value, tuple) else name] = x
    return found


def _floats_are_tensors(original: Any) -> Any:
    """Compiled kernels get float arguments as float32 scalars; the interpreter leaves them Python numbers."""

    def convert(argument: Any) -> Any:
        if isinstance(argument, float):
            return tl.tensor(interpreter.TensorHandle(np.array([argument], np.float32), tl.float32), tl.float32)
        return original(argument)

    return convert


def _once_a_launch(meter: _Meter, original: Any) -> Any:
    """The interpreter patches the language at every call of a device function; once a launch is enough, and faster."""

    def patch(function: Any) -> Any:
        where = id(function.__globals__)
        if where in meter.patched:
            return interpreter._LangPatchScope()
        meter.patched.add(where)
        return original(function)

    return patch


_NO_BYTES = ("empty", "new_empty", "empty_like", "empty_strided", "new_empty_strided", "empty_permuted", "_unsafe_view")
_OVERWRITES = ("copy_", "zero_", "fill_", "normal_", "uniform_")
_GATHERS = ("index", "index_select", "gather", "embedding", "take_along_dim")


class _TorchOps(TorchDispatchMode):
    """Adds the bytes of torch operations. Custom operations are entered: their kernels are counted separately."""

    def __init__(self, traffic: Traffic) -> None:
        super().__init__()
        self.traffic = traffic
        self.inside_kernel = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        custom = torch._library.custom_ops.OPDEFS.get(f"{func.namespace}::{func._schema.name.split('::')[1]}")
        if custom is not None:
            with self, torch.no_grad():
                return custom._init_fn(*args, **kwargs)
        result = func(*args, **kwargs)
        if not self.inside_kernel:
            name = func._schema.name.split("::")[1]
            size = _bytes_of(func, name, args, kwargs, result)
            if size:
                self.traffic.torch_ops[name] = self.traffic.torch_ops.get(name, 0) + size
        return result


def _bytes_of(func: Any, name: str, args: Any, kwargs: Any, result: Any) -> int:
    is_view = any(out.alias_info is not None and not out.alias_info.is_write for out in func._schema.returns)
    if is_view or name in _NO_BYTES:
        return 0
    written = sum(_touched(x) for x in tree_leaves(result) if isinstance(x, Tensor))
    inputs = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    if name in _OVERWRITES:
        inputs = inputs[1:]
    if name in _GATHERS:
        # of the first input, only what is picked
        return 2 * written + sum(_touched(x) for x in inputs[1:])
    return written + sum(_touched(x) for x in inputs)


def _touched(x: Tensor) -> int:
    """Bytes of the different elements of x: an expanded dimension is one element long."""
    sizes = (size for size, stride in zip(x.shape, x.stride(), strict=True) if stride != 0)
    return math.prod(sizes) * x.element_size() if x.numel() else 0
