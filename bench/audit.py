"""What the compiler makes of every Triton kernel, without a GPU: registers, spills, shared memory, access width.

    python -m bench.audit [--arch 80 90 100] [--write]

Kernels are compiled ahead of time to machine code and read back with the tools that Triton carries. Each line is
checked against `bench/budgets.toml`; `--write` records the present figures there as the new budgets.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tomli_w
import triton
from fastreason.kernels.rms_norm import _backward_kernel, _forward_kernel, tile_shape
from fastreason.kernels.triton_support import INTERPRETED
from triton.backends import nvidia
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

BUDGETS = Path(__file__).with_name("budgets.toml")
ARCHS = (80, 90, 100)
_TOOLS = Path(nvidia.__file__).parent / "bin"
_REGISTERS_PER_SM, _WARPS_PER_SM = 65536, 64


@dataclass(frozen=True)
class Case:
    """One kernel with the types and constants that a model of the paper launches it with.

    Args:
        signature: Triton type of every argument that is no constant; `*bf16` is a pointer, aligned to 16 bytes.
    """

    name: str
    kernel: Any
    signature: dict[str, str]
    constants: dict[str, Any]
    num_warps: int


@dataclass(frozen=True)
class Figures:
    """What one compiled kernel uses, a thread or a program of it."""

    registers: int
    spilled_bytes: int
    shared_bytes: int
    widest_access_bits: int
    scalar_accesses: int
    instructions: int

    def occupancy(self, num_warps: int) -> float:
        """Share of a multiprocessor's warps that its registers admit."""
        per_warp = -(-self.registers // 8) * 8 * 32
        programs = _REGISTERS_PER_SM // (per_warp * num_warps)
        return min(1.0, programs * num_warps / _WARPS_PER_SM)


def cases() -> list[Case]:
    """Every kernel at width 768 in bf16."""
    width = 768
    rows, block, num_warps = tile_shape(width)
    shape = {"ROWS": rows, "BLOCK_D": block}
    found = []
    for residual in (False, True):
        suffix = "add_rms_norm" if residual else "rms_norm"
        extra = {"HAS_RESIDUAL": residual, **shape}
        forward = {"x_ptr": "*bf16", "residual_ptr": "*bf16", "weight_ptr": "*bf16", "y_ptr": "*bf16"}
        forward |= {"sum_ptr": "*bf16", "rstd_ptr": "*fp32", "N": "i32", "D": "i32", "eps": "fp32"}
        backward = {"dy_ptr": "*bf16", "sum_ptr": "*bf16", "dsum_ptr": "*bf16", "weight_ptr": "*bf16"}
        backward |= {"rstd_ptr": "*fp32", "dx_ptr": "*bf16", "dweight_ptr": "*fp32", "N": "i32", "D": "i32"}
        backward |= {"tiles_per_program": "i32"}
        # the launcher passes None for what is absent, which Triton makes a constant
        forward_constants = dict(extra) if residual else extra | {"residual_ptr": None}
        backward_constants = dict(extra) if residual else extra | {"dsum_ptr": None}
        found.append(Case(f"{suffix}_forward", _forward_kernel, forward, forward_constants, num_warps))
        found.append(Case(f"{suffix}_backward", _backward_kernel, backward, backward_constants, num_warps))
    return found


def compile_case(case: Case, arch: int) -> Figures:
    """Compiles one case for compute capability `arch` / 10 and reads its figures."""
    names = case.kernel.arg_names
    signature = {name: "constexpr" if name in case.constants else case.signature[name] for name in names}
    constants = {(names.index(name),): value for name, value in case.constants.items()}
    aligned = [["tt.divisibility", 16]]
    is_aligned = [name for name in names if signature[name].startswith("*") or name == "D"]
    attributes = {(names.index(name),): aligned for name in is_aligned}
    source = ASTSource(case.kernel, signature, constexprs=constants, attrs=attributes)
    options = {"num_warps": case.num_warps, "enable_fp_fusion": True}
    compiled = triton.compile(source, target=GPUTarget("cuda", arch, 32), options=options)
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernel.cubin"
        cubin.write_bytes(compiled.asm["cubin"])
        usage, code = _tool("cuobjdump", "-res-usage", cubin), _tool("cuobjdump", "-sass", cubin)
    return read_figures(usage, code, compiled.metadata.shared)


def read_figures(usage: str, code: str, shared_bytes: int) -> Figures:
    """Figures from the text that cuobjdump writes."""
    accesses = re.findall(r"\b(?:LDG|STG)\.([A-Z0-9.]+)", code)
    widths = [max((int(bits) for bits in re.findall(r"\b(64|128|256)\b", kind)), default=32) for kind in accesses]
    return Figures(
        registers=int(re.search(r"REG:(\d+)", usage)[1]),  # type: ignore[index]
        spilled_bytes=int(re.search(r"LOCAL:(\d+)", usage)[1]) + 4 * len(re.findall(r"\b(?:STL|LDL)\b", code)),  # type: ignore[index]
        shared_bytes=shared_bytes,
        widest_access_bits=max(widths, default=0),
        scalar_accesses=sum(width == 32 for width in widths),
        instructions=len(re.findall(r"^\s+/\*[0-9a-f]{4,}\*/", code, flags=re.M)),
    )


def over_budget(figures: Figures, budget: dict[str, int]) -> list[str]:
    """What is worse than the budget, in words."""
    now = asdict(figures)
    worse = [
        f"{name} {now[name]} > {budget[name]}"
        for name in ("registers", "spilled_bytes", "shared_bytes", "scalar_accesses")
        if now[name] > budget[name]
    ]
    if now["widest_access_bits"] < budget["widest_access_bits"]:
        worse.append(f"widest_access_bits {now['widest_access_bits']} < {budget['widest_access_bits']}")
    return worse


def _tool(name: str, *arguments: object) -> str:
    command = [str(_TOOLS / name), *(str(argument) for argument in arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", type=int, nargs="+", default=list(ARCHS))
    parser.add_argument("--write", action="store_true", help="record the present figures as the budgets")
    options = parser.parse_args(arguments)
    if INTERPRETED:
        parser.error("what the interpreter decorates cannot be compiled; unset TRITON_INTERPRET")
    budgets = tomllib.loads(BUDGETS.read_text()) if BUDGETS.exists() else {}
    failures = 0
    print(f"{'kernel':22} {'sm':>4} {'registers':>9} {'spilled B':>9} {'shared B':>8} {'bits':>5} {'occupancy':>9}")
    for case in cases():
        for arch in options.arch:
            figures = compile_case(case, arch)
            budget = budgets.get(case.name, {}).get(str(arch))
            worse = ["no budget"] if budget is None else over_budget(figures, budget)
            if options.write:
                budgets.setdefault(case.name, {})[str(arch)], worse = asdict(figures), []
            failures += bool(worse)
            print(
                f"{case.name:22} {arch:>4} {figures.registers:>9} {figures.spilled_bytes:>9} {figures.shared_bytes:>8} "
                f"{figures.widest_access_bits:>5} {figures.occupancy(case.num_warps):>9.0%}  {'; '.join(worse)}"
            )
    if options.write:
        BUDGETS.write_text(tomli_w.dumps(budgets))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
