"""The kernels that an operation launches, compiled for any GPU on a machine without one.

Operations run on CPU tensors as if they were on a GPU of the wanted compute capability. Triton is given a driver that
names that GPU, and every launch ends after compilation. What is compiled is therefore what would be launched: the
types, the constants, num_warps and num_stages, and what Triton specialises on (pointers aligned to 16 bytes, integers
that are 1 or divisible by 16).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver
from triton.runtime.jit import JITFunction

from fastreason.kernels.triton_support import INTERPRETED, as_if_on

__all__ = ["Compiled", "recorded"]

# Triton finds what it has compiled by the text of a kernel, not by its file: from a cache that checkouts share, the
# machine code would name the lines of another one.
os.environ.setdefault("TRITON_CACHE_DIR", str(Path(__file__).parents[2] / "build" / "triton"))


@dataclass(frozen=True)
class Compiled:
    """One kernel as a launch compiled it.

    Args:
        module, name: where the kernel is, and what it is called.
        constants: values of its constexpr parameters.
        asm: what the compiler made, by stage: ttir, ttgir, ptx (text) and cubin (bytes).
        num_warps, shared_bytes: of the launch.
        fp_fusion: enable_fp_fusion of the launch; None where it does not say.
    """

    module: str
    name: str
    constants: dict[str, Any]
    asm: Any
    num_warps: int
    shared_bytes: int
    fp_fusion: bool | None


class _NamedGPU:
    """As much of a Triton driver as compilation asks for."""

    def __init__(self, arch: int) -> None:
        self.arch = arch

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.arch, 32)

    def get_current_device(self) -> int:
        # Triton keeps what it compiled by device, so every arch is one
        return self.arch

    def get_current_stream(self, device: int) -> int:
        return 0


@contextmanager
def recorded(arch: int, *, kept: bool = True) -> Iterator[list[Compiled]]:
    """Launches of operations on CPU tensors, compiled for compute capability arch / 10 and not run.

    Outputs hold nothing: they are allocated and never written.

    Args:
        kept: whether the list is filled, which takes longer than a launch that has been compiled.
    Raises:
        RuntimeError: this process runs kernels under the interpreter.
    """
    if INTERPRETED:
        raise RuntimeError("what the interpreter decorates cannot be compiled; unset TRITON_INTERPRET")
    found: list[Compiled] = []
    launch, active = JITFunction.run, driver._active

    def compile_only(kernel: Any, *arguments: Any, grid: Any, warmup: bool, **options: Any) -> Any:
        compiled = launch(kernel, *arguments, grid=grid, warmup=True, **options)
        if kept:
            found.append(_of_launch(kernel, arguments, options, compiled))
        return compiled

    JITFunction.run = compile_only
    driver.set_active(_NamedGPU(arch))
    try:
        with as_if_on(arch):
            yield found
    finally:
        JITFunction.run = launch
        driver._active = active


def _of_launch(kernel: Any, arguments: tuple[Any, ...], options: dict[str, Any], compiled: Any) -> Compiled:
    values = dict(zip(kernel.arg_names, arguments, strict=False)) | options
    constants = {p.name: values[p.name] for p in kernel.params if p.is_constexpr and p.name in values}
    metadata, fusion = compiled.metadata, options.get("enable_fp_fusion")
    module, name = kernel.fn.__module__.rpartition(".")[2], kernel.fn.__name__
    return Compiled(module, name, constants, compiled.asm, metadata.num_warps, metadata.shared, fusion)
