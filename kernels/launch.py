"""How kernels are launched: tile shapes and warps for each kernel and GPU, as data in launch.toml with their reasons.

    use(kernel, gpu, facts) = of the newest entries not newer than the gpu whose every `when` is one of the facts,
                              the one with most conditions, and the first of those

Nothing is tuned while a program runs, so every run has the same bits. FASTREASON_AUTOTUNE=1 is for making the table:
on CUDA the first launch of every kernel then times the entry's `try` values, and the end of the process prints entries
to put into launch.toml.
"""

from __future__ import annotations

import atexit
import functools
import itertools
import os
import tomllib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from . import triton_support

__all__ = ["Entry", "arch_of", "configuration", "entries", "launch", "tune"]

AUTOTUNE = os.environ.get("FASTREASON_AUTOTUNE") == "1"
DEFAULT_ARCH = 90  # where there is no GPU: what the interpreter runs

Config = dict[str, int]
Result = TypeVar("Result")
_found: dict[tuple[str, int, tuple[tuple[str, int], ...]], tuple[Config, list[tuple[float, Config]]]] = {}


@dataclass(frozen=True)
class Entry:
    """One entry of launch.toml.

    Args:
        arch: compute capability times ten from which on it holds, until an entry with a later one: 80, 90, 100.
        use: constants of the kernel, num_warps and num_stages.
        why: the reason for these values.
        when: facts of the call (a head dim, an element size) that must be so; an empty one is always so.
        candidates: `try` in the file: for some names of `use`, the values that tuning times.
    """

    arch: int
    use: Config
    why: str
    when: Config = field(default_factory=dict)
    candidates: dict[str, list[int]] = field(default_factory=dict)

    def configs(self) -> list[Config]:
        """Every combination of the candidates, `use` itself first."""
        combinations = itertools.product(*self.candidates.values())
        tried = [self.use | dict(zip(self.candidates, values, strict=True)) for values in combinations]
        return [self.use, *(config for config in tried if config != self.use)]


@functools.cache
def entries() -> dict[str, tuple[Entry, ...]]:
    """launch.toml, by the name of the kernel."""
    table = tomllib.loads(Path(__file__).with_name("launch.toml").read_text(encoding="utf-8"))
    return {name: tuple(_entry(**values) for values in rows) for name, rows in table.items()}


def _entry(**values: Any) -> Entry:
    return Entry(candidates=values.pop("try", {}), **values)


def arch_of(x: Tensor) -> int:
    """Compute capability times ten of the GPU that kernels on `x` run on, or are compiled for."""
    pretended = triton_support.pretended_arch()
    if pretended is not None:
        return pretended
    return _arch_of_gpu(x.device) if x.is_cuda else DEFAULT_ARCH


@functools.cache
def _arch_of_gpu(device: torch.device) -> int:
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


def configuration(name: str, x: Tensor, /, **facts: int) -> Config:
    """What to launch kernel `name` on `x` with: the entry's `use`, and whether to fuse multiplications with additions.

    Args:
        facts: what the table's `when` may ask for.
    Raises:
        KeyError: no entry holds.
    """
    return _with_fusion(_chosen(name, arch_of(x), tuple(sorted(facts.items()))).use)


@functools.cache
def _chosen(name: str, arch: int, facts: tuple[tuple[str, int], ...]) -> Entry:
    rows = [row for row in entries()[name] if row.arch <= arch and row.when.items() <= dict(facts).items()]
    if not rows:
        raise KeyError(f"kernels/launch.toml: {name} has no entry for sm_{arch} and {dict(facts)}")
    return max(rows, key=lambda row: (row.arch, len(row.when)))


def _tunes(x: Tensor) -> bool:
    return AUTOTUNE and x.is_cuda


def _with_fusion(config: Config) -> Config:
    # written down because Triton's default changes in 3.10, and it changes bits
    return config | {"enable_fp_fusion": True}


def launch(
    name: str, x: Tensor, call: Callable[[Config], Result], changes: Sequence[Tensor] = (), /, **facts: int
) -> Result:
    """`call(configuration(name, x, **facts))` on the GPU of x; with FASTREASON_AUTOTUNE=1, of the fastest candidate.

    Every kernel is launched through here: Triton takes the current GPU and its stream, wherever the tensors are.

    Args:
        call: allocates what depends on the configuration, launches, and returns what it allocated.
        changes: inputs that the kernel overwrites; tuning puts them back after every call.
    """
    with torch.cuda.device_of(x):
        if not _tunes(x):
            return call(configuration(name, x, **facts))
        key = (name, arch_of(x), tuple(sorted(facts.items())))
        if key not in _found:
            _found[key] = tune(call, _chosen(*key).configs(), _milliseconds, changes)
        return call(_with_fusion(_found[key][0]))


def tune(
    call: Callable[[Config], Any],
    configs: Iterable[Config],
    timer: Callable[[Callable[[], Any]], float],
    changes: Sequence[Tensor] = (),
) -> tuple[Config, list[tuple[float, Config]]]:
    """The fastest of `configs`, and (time, config) of all that run, fastest first.

    Args:
        timer: the time that a function takes. A config that needs more of the GPU than it has is left out.
    """
    saved = [tensor.clone() for tensor in changes]
    timed = []
    for config in configs:
        try:
            timed.append((timer(functools.partial(call, _with_fusion(config))), config))
        except triton_support.OutOfResources:
            continue
        finally:
            for tensor, before in zip(changes, saved, strict=True):
                tensor.copy_(before)
    if not timed:
        raise RuntimeError("fastreason.kernels: no configuration of a kernel fits this GPU")
    timed.sort(key=lambda pair: pair[0])
    return timed[0][1], timed


def _milliseconds(work: Callable[[], Any]) -> float:
    return float(triton_support.triton.testing.do_bench(work, return_mode="median"))


def tuned_table() -> str:
    """What tuning found, as entries for launch.toml."""
    lines = []
    for (name, arch, facts), (_, timed) in sorted(_found.items()):
        entry = _chosen(name, arch, facts)
        now = next((time for time, config in timed if config == entry.use), None)
        before = "does not fit" if now is None else f"{1e3 * now:.1f} us with the entry before"
        lines += [f"[[{name}]]", f"arch = {arch}"]
        if entry.when:
            lines.append(f"when = {_inline(entry.when)}")
        lines += [f"use = {_inline(timed[0][1])}", f"try = {_inline(entry.candidates)}"]
        made_by = f"{torch.cuda.get_device_name()} with Triton {triton_support.triton.__version__}"
        lines += [f'why = "tuned on {made_by}: {1e3 * timed[0][0]:.1f} us, {before}"', ""]
    return "\n".join(lines)


def _inline(values: dict[str, Any]) -> str:
    return "{" + ", ".join(f"{name} = {value}" for name, value in values.items()) + "}"


def _report() -> None:
    if _found:
        print(tuned_table())


if AUTOTUNE:
    atexit.register(_report)
