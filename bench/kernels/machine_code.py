"""What one compiled kernel uses, read from the text that Triton's own tools write about it.

Registers and spills come from the machine code (cuobjdump). Which access of global memory is how wide comes from the
PTX, whose instructions carry the line of the kernel they were made from, as do the loads and stores of Triton's IR, so
that each access is known by its source and by the size of the tile it moves.
"""

from __future__ import annotations

import hashlib
import linecache
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from triton.backends import nvidia
from triton.runtime.cache import get_cache_manager

from .compile_without_gpu import Compiled

__all__ = ["SHARED_LIMIT_BYTES", "Access", "Figures", "figures_of"]

_TOOLS = Path(nvidia.__file__).parent / "bin"
# Of one multiprocessor: registers, warps, programs, and shared memory, of which every program takes 1 KiB besides its
# own. CUDA C++ Programming Guide, table "Technical Specifications per Compute Capability".
_REGISTERS = 65536
_WARPS = {80: 64, 90: 64, 100: 64, 120: 48}
_PROGRAMS = {80: 32, 90: 32, 100: 32, 120: 24}
_SHARED_BYTES = {80: 164 << 10, 90: 228 << 10, 100: 228 << 10, 120: 100 << 10}
SHARED_LIMIT_BYTES = {80: 163 << 10, 90: 227 << 10, 100: 227 << 10, 120: 99 << 10}  # of one program
_TENSOR_CORES = re.compile(r"(HMMA|HGMMA|UTC[HQ]MMA)\b")
_WIDE_BITS = 128


@dataclass(frozen=True)
class Access:
    """Loads or stores of global memory made from one line of a kernel.

    Args:
        source: the line.
        tile_bytes: the largest tile that one program moves there at once.
        bits: the narrowest instruction that moves it.
    """

    source: str
    tile_bytes: int
    bits: int


@dataclass(frozen=True)
class Figures:
    """What one kernel uses.

    Args:
        registers: of a thread.
        spilled_bytes: local memory of a thread and 4 bytes for every instruction that touches it.
        shared_bytes: of a program.
        tensor_cores: the instructions of the tensor cores, "" without any.
        widest_bits, narrowest_bits: over the accesses that stream: those whose tile gives every thread 16 bytes.
        narrow: the sources of streaming accesses below 128 bits.
        instructions: in all.
        num_warps: of a program.
        occupancy: share of a multiprocessor's warps that can be resident.
    """

    registers: int
    spilled_bytes: int
    shared_bytes: int
    tensor_cores: str
    widest_bits: int
    narrowest_bits: int
    narrow: tuple[str, ...]
    instructions: int
    num_warps: int
    occupancy: float


def figures_of(compiled: Compiled, arch: int) -> Figures:
    """Reads a kernel that was compiled for compute capability arch / 10."""
    registers, spilled, instructions, tensor_cores = read_code(_dump(compiled.asm["cubin"]))
    streams = [
        access
        for access in accesses(compiled.asm["ttir"], compiled.asm["ptx"])
        if access.tile_bytes >= compiled.num_warps * 32 * _WIDE_BITS // 8
    ]
    return Figures(
        registers=registers,
        spilled_bytes=spilled,
        shared_bytes=compiled.shared_bytes,
        tensor_cores=tensor_cores,
        widest_bits=max((access.bits for access in streams), default=0),
        narrowest_bits=min((access.bits for access in streams), default=0),
        narrow=tuple(f"{access.source} ({access.bits} bits)" for access in streams if access.bits < _WIDE_BITS),
        instructions=instructions,
        num_warps=compiled.num_warps,
        occupancy=occupancy(arch, registers, compiled.shared_bytes, compiled.num_warps),
    )


def read_code(dump: str) -> tuple[int, int, int, str]:
    """(registers, spilled bytes, instructions, tensor-core instructions) from what cuobjdump writes."""
    registers, local = re.search(r"REG:(\d+)", dump), re.search(r"LOCAL:(\d+)", dump)
    assert registers is not None and local is not None, dump
    return (
        int(registers[1]),
        int(local[1]) + 4 * len(re.findall(r"\b(?:STL|LDL)\b", dump)),
        len(re.findall(r"^\s+/\*[0-9a-f]{4,}\*/", dump, flags=re.M)),
        " ".join(sorted(set(_TENSOR_CORES.findall(dump)))),
    )


def occupancy(arch: int, registers: int, shared_bytes: int, num_warps: int) -> float:
    """Share of a multiprocessor's warps that registers, shared memory and the number of programs admit."""
    # registers are given out to a warp by the 256
    by_registers = _REGISTERS // (-(-registers * 32 // 256) * 256 * num_warps)
    by_shared = _SHARED_BYTES[arch] // (shared_bytes + 1024)
    return min(by_registers, by_shared, _PROGRAMS[arch], _WARPS[arch] // num_warps) * num_warps / _WARPS[arch]


def accesses(ttir: str, ptx: str) -> list[Access]:
    """Every line of the kernel that loads or stores global memory."""
    tiles = _tiles_by_line(ttir)
    widths = _widths_by_line(ptx)
    return [
        Access(
            linecache.getline(file, number).strip() or f"{file}:{number}", tiles.get((file, number, what), 0), min(bits)
        )
        for (file, number, what), bits in widths.items()
    ]


Line = tuple[str, int, str]  # file, number, and whether it loads or stores: one line may do both


def _tiles_by_line(ttir: str) -> dict[Line, int]:
    """The bytes of the largest tile that tt.load or tt.store moves at each line."""
    places = dict(re.findall(r"^(#loc\d*) = (loc\(.*\))$", ttir, flags=re.M))
    found: dict[Line, int] = {}
    pattern = r"tt\.(load|store) .*tensor<([\dx]+)x!tt\.ptr<(\w+)>>.*loc\((#loc\d*)\)"
    for what, shape, kind, place in re.findall(pattern, ttir):
        size = int(re.sub(r"\D", "", kind)) // 8 or 1
        for extent in shape.split("x"):
            size *= int(extent)
        line = (*_place_of(places[place], places), what)
        found[line] = max(found.get(line, 0), size)
    return found


def _place_of(place: str, places: dict[str, str]) -> tuple[str, int]:
    """File and line of a location, the innermost one of an inlined call."""
    direct = re.search(r'"([^"]+)":(\d+):\d+', place)
    if direct:
        return direct[1], int(direct[2])
    return _place_of(places[re.findall(r"#loc\d*", place)[0]], places)


def _widths_by_line(ptx: str) -> dict[Line, list[int]]:
    """Bits of every instruction that moves global memory, by the line it was made from."""
    files = dict(re.findall(r'^\s*\.file\s+(\d+) "([^"]+)"', ptx, flags=re.M))
    found: dict[Line, list[int]] = {}
    line = ("", 0)
    for text in ptx.splitlines():
        if place := re.match(r"\s*\.loc\s+(\d+) (\d+)", text):
            line = (files[place[1]], int(place[2]))
        elif move := re.search(r"\b(ld|st)\.global\S*?(?:\.v(\d))?\.[bufs](\d+)\s", text):
            what = "load" if move[1] == "ld" else "store"
            found.setdefault((*line, what), []).append(int(move[2] or 1) * int(move[3]))
        elif copy := re.search(r"\bcp\.async\.c[ag]\.shared\.global .*\], (0x[0-9a-f]+)", text):
            found.setdefault((*line, "load"), []).append(8 * int(copy[1], 16))
    return found


def _dump(cubin: bytes) -> str:
    """Resource usage and disassembly, kept where Triton keeps what it compiled: a quarter of a second a kernel."""
    kept = get_cache_manager(hashlib.sha256(cubin).hexdigest())
    path = kept.get_file("kernel.sass")
    if path is None:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "kernel.cubin"
            file.write_bytes(cubin)
            command = [str(_TOOLS / "cuobjdump"), "-res-usage", "-sass", str(file)]
            dump = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        path = kept.put(dump, "kernel.sass", binary=False)
    return Path(path).read_text(encoding="utf-8")
