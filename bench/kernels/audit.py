"""What the compiler makes of every Triton kernel, without a GPU: registers, spills, shared memory, access widths.

    python -m bench.kernels.audit [OPERATION ...] [--arch 80 90 100 120] [--write] [--docs]

Operations of bench/kernels/operations.py run on CPU, their launches are compiled for each architecture (by default all
but sm_120) and read back with the tools that Triton carries. Every kernel must spill nothing, fit into shared memory,
move what streams by 128 bits, use tensor cores where the operation demands it, and stay within its budget for this
version of Triton (bench/kernels/budgets.py).
`--write` records the present figures there as the new budgets; `--docs` writes the table into docs/kernels.md. Exits 1
on any failure.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch

from fastreason.kernels.triton_support import INTERPRETED

from ..harness.markdown import KERNEL_DOCS, markdown, put_between_marks
from .budgets import BUDGETED, read_budgets, record_budgets
from .compile_without_gpu import Compiled, recorded
from .machine_code import SHARED_LIMIT_BYTES, Figures, figures_of
from .operations import MAY_BE_NARROW, OPS, Unwritten

__all__ = ["Audited", "audit_operation", "broken_rules", "main", "over_budget", "tasks", "work"]

ARCHS = (80, 90, 100)
# what else the CUDA module and launch.toml know; looked at where --arch asks for it
TARGETS = (*ARCHS, 120)
# no multiple of 16, so that nothing is specialised on a lucky number of tokens
TOKENS = 20_003
_SHORT = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}


@dataclass(frozen=True)
class Audited:
    """One kernel of one operation, compiled for one dtype and architecture.

    Args:
        tensor_cores: the instruction of tensor cores that is wanted of it on sm_90; "": none.
        may_be_narrow: why its streaming accesses may be below 128 bits; "": they may not.
        fp_fusion: what the launch says of fusing multiplications with additions; None where it does not.
    """

    operation: str
    kernel: str
    dtype: str
    arch: int
    figures: Figures
    tensor_cores: str
    may_be_narrow: str
    fp_fusion: bool | None

    @property
    def key(self) -> str:
        """The key of its budget: budgets[key][str(arch)]."""
        return f"{self.operation}/{self.kernel}/{self.dtype}"


def audit_operation(name: str, variant: str, dtype: torch.dtype, arch: int) -> list[Audited]:
    """Every different kernel that forward and backward of an operation launch."""
    op = OPS[name]
    sizes: dict[str, Any] = {"tokens": TOKENS} | op.shapes[variant]
    call = op.build(Unwritten(**sizes, dtype=dtype))
    with recorded(arch) as launches:
        outputs = call.forward()
        if call.learns:
            call.backward(outputs, tuple(torch.empty_like(x) for x in outputs))
    return [
        Audited(
            operation=f"{name} {variant}".strip(),
            kernel=kernel,
            dtype=_SHORT[dtype],
            arch=arch,
            figures=figures_of(compiled, arch),
            tensor_cores=op.tensor_cores.get(kernel.split()[0], "") if dtype.itemsize == 2 else "",
            may_be_narrow=MAY_BE_NARROW.get(kernel.split()[0], ""),
            fp_fusion=compiled.fp_fusion,
        )
        for kernel, compiled in _named(launches).items()
    ]


def _named(launches: Iterable[Compiled]) -> dict[str, Compiled]:
    """Different kernels by module and name; where one was compiled with different constants, numbered."""
    different = {compiled.asm["cubin"]: compiled for compiled in launches}
    named: dict[str, Compiled] = {}
    for compiled in different.values():
        name = f"{compiled.module}.{compiled.name.strip('_').removesuffix('_kernel')}"
        number = sum(other.split()[0] == name for other in named)
        named[f"{name} {number + 1}" if number else name] = compiled
    return named


def broken_rules(audited: Audited) -> list[str]:
    """What no kernel may do, whatever its budget."""
    figures, limit = audited.figures, SHARED_LIMIT_BYTES[audited.arch]
    broken = [f"narrow: {source}" for source in figures.narrow if not audited.may_be_narrow]
    if figures.spilled_bytes:
        broken.append(f"spills {figures.spilled_bytes} bytes")
    if figures.shared_bytes > limit:
        broken.append(f"shared memory {figures.shared_bytes} > {limit}")
    wanted = audited.tensor_cores if audited.arch == 90 or not audited.tensor_cores else "MMA"
    if wanted not in figures.tensor_cores:
        broken.append(f"no {wanted} among its instructions")
    if audited.fp_fusion is None:
        broken.append("leaves enable_fp_fusion to Triton's default")
    return broken


def over_budget(figures: Figures, budget: dict[str, int] | None) -> list[str]:
    """What is more than the budget allows, in words."""
    if budget is None:
        return ["no budget"]
    return [
        f"{name} {getattr(figures, name)} > {budget[name]}"
        for name in BUDGETED
        if getattr(figures, name) > budget[name]
    ]


def table(found: Sequence[Audited]) -> str:
    """Markdown: a line for each kernel and dtype, with the figures of the architectures, one where they are equal."""
    head = ["kernel", "dtype", "registers", "spilled B", "shared KiB", "tensor cores", "global access, bits"]
    head += ["instructions", "warps", "occupancy"]
    by_key: dict[str, list[Audited]] = {}
    for one in found:
        by_key.setdefault(one.key, []).append(one)
    rows = []
    for of_key in by_key.values():
        figures = [one.figures for one in of_key]
        row: list[object] = [f"{of_key[0].operation}: {of_key[0].kernel}", of_key[0].dtype]
        row += [_each(f.registers for f in figures), _each(f.spilled_bytes for f in figures)]
        row += [_each(f"{f.shared_bytes / 1024:.0f}" for f in figures), _each(f.tensor_cores for f in figures)]
        row += [_each(f.narrowest_bits for f in figures), _each(f.instructions for f in figures)]
        row += [_each(f.num_warps for f in figures), _each(f"{f.occupancy:.0%}" for f in figures)]
        rows.append(row)
    return markdown(head, rows)


def _each(values: Iterable[object]) -> str:
    texts = [str(value) for value in values]
    return texts[0] if len(set(texts)) == 1 else " / ".join(texts)


Task = tuple[str, str, torch.dtype, int]


def tasks(names: Iterable[str], archs: Iterable[int]) -> list[Task]:
    """What is compiled of some operations: all their shapes in bfloat16, the first in float32 too."""
    return [
        (name, variant, dtype, arch)
        for name in names
        for i, variant in enumerate(OPS[name].shapes)
        for dtype in (torch.bfloat16, torch.float32)[: 1 if i else 2]
        for arch in archs
    ]


def work(task: Task) -> list[Audited]:
    """One of `tasks`, in a process that may have been started for it."""
    torch.set_num_threads(1)
    return audit_operation(*task)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("operations", nargs="*", metavar="OPERATION", help=f"default: all of {', '.join(OPS)}")
    parser.add_argument("--arch", type=int, nargs="+", default=list(ARCHS), choices=TARGETS)
    parser.add_argument("--write", action="store_true", help="record the present figures as the budgets")
    parser.add_argument("--docs", action="store_true", help="write the table into docs/kernels.md")
    options = parser.parse_args(arguments)
    if INTERPRETED:
        parser.error("what the interpreter decorates cannot be compiled; unset TRITON_INTERPRET")
    names = options.operations or list(OPS)
    if unknown := set(names) - set(OPS):
        parser.error(f"no such operation: {', '.join(sorted(unknown))}; there are {', '.join(OPS)}")
    with ProcessPoolExecutor(min(os.cpu_count() or 1, 16), multiprocessing.get_context("spawn")) as pool:
        found = [audited for batch in pool.map(work, tasks(names, options.arch)) for audited in batch]
    text = table(found)
    print(f"{text}\nWhere architectures differ: {' / '.join(f'sm_{arch}' for arch in options.arch)}")
    failures = [f"{one.key} sm_{one.arch}: {rule}" for one in found for rule in broken_rules(one)]
    if options.write:
        figures = [(one.key, one.arch, {name: getattr(one.figures, name) for name in BUDGETED}) for one in found]
        record_budgets(figures, whole=not options.operations and set(options.arch) == set(TARGETS))
    else:
        budgets = read_budgets()
        over = [(one, over_budget(one.figures, budgets.get(one.key, {}).get(str(one.arch)))) for one in found]
        failures += [f"{one.key} sm_{one.arch}: {what}" for one, whats in over for what in whats]
    print("\n".join(failures) or f"{len(found)} kernels are within their budgets")
    if options.docs:
        put_between_marks(KERNEL_DOCS, "audit", text)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
