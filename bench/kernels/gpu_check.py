"""The whole kernel suite natively on a GPU, then every operation timed against its floor and against others.

    python -m bench.kernels.gpu_check [OPERATION ...] [--share 1.0] [--no-tests] [--out bench/kernels/results]

The floor of an operation is the longer of its bytes over the bandwidth of a large copy and its FLOPs over the speed of
a large matrix product, both measured on the same GPU in the same run. The others are the torch definition in eager mode
and under torch.compile, Liger-Kernel and flash-attn where they are installed. Writes <gpu>.json and <gpu>.md. With
FASTREASON_AUTOTUNE=1 the run also prints tuned entries for kernels/launch.toml. Exits 2 where there is no GPU, 1 if a
test fails or an operation of ours does not run.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from fastreason.runtime.json_files import to_json
from fastreason.runtime.machine import describe_machine, package_version

from ..harness.markdown import markdown
from .operations import OPS, Call, Op, Shape
from .peers import Rival

__all__ = ["Device", "Peaks", "Result", "Timing", "cuda", "main", "measure_peaks", "time_operation"]

OURS = "fastreason"
ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).with_name("results")


@dataclass(frozen=True)
class Timing:
    """Microseconds: the median, and the 20th and 80th percentile of its repetitions."""

    median: float
    p20: float
    p80: float


@dataclass(frozen=True)
class Device:
    """Where to time, and how.

    Args:
        name: of the GPU; names the files.
        kind: torch's name of it.
        timer: how long a function takes there.
        compile: what stands for torch.compile.
        copy_elements, matrix_width: of the copy and of the matrices that measure its peaks.
    """

    name: str
    kind: str
    timer: Callable[[Callable[[], Any]], Timing]
    compile: Callable[[Callable[..., Any]], Callable[..., Any]]
    copy_elements: int = 1 << 29
    matrix_width: int = 8192


@dataclass(frozen=True)
class Peaks:
    """What the GPU reaches: bytes and FLOPs a second."""

    copy: float
    matmul: float

    def floor_us(self, size_bytes: int, flops: int) -> float:
        return 1e6 * max(size_bytes / self.copy, flops / self.matmul)


@dataclass(frozen=True)
class Result:
    """One operation by one library.

    Args:
        mode: "forward", or "both" for forward and backward.
        timing: None where it did not run, and `error` says why.
    """

    operation: str
    mode: str
    library: str
    floor_us: float
    timing: Timing | None
    error: str = ""

    @property
    def of_floor(self) -> float | None:
        """Share of the time that is the floor; 1 is the best there is."""
        return None if self.timing is None else self.floor_us / self.timing.median


def cuda() -> Device | None:
    """The first GPU; None without one."""
    if not torch.cuda.is_available():
        return None
    return Device(torch.cuda.get_device_name(), "cuda", _do_bench, torch.compile)


def _do_bench(work: Callable[[], Any]) -> Timing:
    import triton

    # empties the L2 cache before every repetition
    p20, median, p80 = triton.testing.do_bench(work, warmup=25, rep=200, quantiles=[0.2, 0.5, 0.8])
    return Timing(1e3 * median, 1e3 * p20, 1e3 * p80)


def measure_peaks(device: Device) -> Peaks:
    """Bandwidth of a copy (read and written bytes) and speed of a matrix product, in bfloat16."""
    source = torch.zeros(device.copy_elements, dtype=torch.bfloat16, device=device.kind)
    target = torch.empty_like(source)
    copy = device.timer(lambda: target.copy_(source))
    width = device.matrix_width
    a, b = (torch.randn(width, width, device=device.kind).to(torch.bfloat16) for _ in range(2))
    product = device.timer(lambda: a @ b)
    return Peaks(2e6 * source.numel() * source.element_size() / copy.median, 2e6 * width**3 / product.median)


def time_operation(name: str, op: Op, shape: Shape, device: Device, peaks: Peaks) -> Iterator[Result]:
    """Every library at forward alone and at forward and backward."""
    call = op.build(replace(shape, device=device.kind))
    floors = {"forward": peaks.floor_us(call.floor[0], call.flops[0])}
    if call.learns:
        floors["both"] = peaks.floor_us(sum(call.floor), sum(call.flops))
    for library, make in _libraries(call, device).items():
        for mode, floor_us in floors.items():
            try:
                timing = device.timer(_work(make(), mode))
            except Exception as error:  # a library that does not run must not hide the others
                yield Result(name, mode, library, floor_us, None, f"{type(error).__name__}: {error}".splitlines()[0])
            else:
                yield Result(name, mode, library, floor_us, timing)


def _libraries(call: Call, device: Device) -> dict[str, Callable[[], Call | Rival]]:
    names = list(call.inputs)
    learns = tuple(names.index(name) for name in call.learns)

    def torch_rival(definition: Callable[..., Any]) -> Rival:
        return Rival(
            lambda *values: definition(**dict(zip(names, values, strict=True))), (*call.inputs.values(),), learns
        )

    return {
        OURS: lambda: call,
        "torch": lambda: torch_rival(call.definition),
        "torch.compile": lambda: torch_rival(device.compile(call.definition)),
        **call.rivals,
    }


def _work(call: Call | Rival, mode: str) -> Callable[[], Any]:
    if mode == "forward":
        return call.forward
    upstream = call.upstream(call.forward())

    def both() -> None:
        call.backward(call.forward(), upstream)

    return both


def table(results: Sequence[Result]) -> str:
    """A line for every operation and mode: the floor, our share of it, and how many times longer others take."""
    others = list(dict.fromkeys(r.library for r in results if r.library != OURS))
    head = ["operation", "floor, us", "us", "p20 - p80", "of the floor", *(f"{other} / ours" for other in others)]
    rows = []
    for ours in (r for r in results if r.library == OURS):
        twins = {r.library: r for r in results if (r.operation, r.mode) == (ours.operation, ours.mode)}
        cells = [_ratio(twins.get(other), ours) for other in others]
        label = f"{ours.operation}, {'forward' if ours.mode == 'forward' else 'forward + backward'}"
        t = ours.timing
        own = [f"{t.median:.1f}", f"{t.p20:.1f} - {t.p80:.1f}", f"{ours.of_floor:.0%}"] if t else [ours.error, "", ""]
        rows.append([label, f"{ours.floor_us:.1f}", *own, *cells])
    return markdown(head, rows)


def _ratio(other: Result | None, ours: Result) -> str:
    if other is None:
        return ""
    if other.timing is None:
        return "fails"
    return f"{other.timing.median / ours.timing.median:.2f}" if ours.timing else f"{other.timing.median:.1f} us"


def run_tests() -> tuple[bool, str]:
    """Whether tests/kernels pass on this machine, and pytest's last line."""
    command = [sys.executable, "-m", "pytest", "-q", "tests/kernels"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stdout, done.stderr, sep="\n")
    return done.returncode == 0, (done.stdout.strip().splitlines() or ["no output"])[-1]


def write(folder: Path, device: Device, peaks: Peaks, tests: str, results: Sequence[Result]) -> Path:
    """<gpu>.json with everything and <gpu>.md with the table; returns the path of the latter."""
    machine = describe_machine() | {name: package_version(name) for name in ("liger_kernel", "flash_attn")}
    machine["commit"] = _commit()
    stem = re.sub(r"[^a-z0-9]+", "-", device.name.lower()).strip("-")
    folder.mkdir(parents=True, exist_ok=True)
    record: dict[str, Any] = {"gpu": device.name, "machine": machine, "peaks": asdict(peaks), "tests": tests}
    record["results"] = [asdict(r) | {"of_floor": r.of_floor} for r in results]
    (folder / f"{stem}.json").write_text(to_json(record, indent=1) + "\n", encoding="utf-8")
    failures = [f"- {r.operation}, {r.mode}, {r.library}: {r.error}" for r in results if r.error]
    versions = f"commit {machine['commit']}, torch {machine['torch']}, Triton {machine['triton']}"
    reached = f"{peaks.copy / 1e12:.2f} TB/s and a large matrix product {peaks.matmul / 1e12:.0f} TFLOP/s"
    text = f"""# Kernels on {device.name}

Written by `python -m bench.kernels.gpu_check`: {versions}. bfloat16; medians of repetitions with a cold L2 cache.
A large copy reaches {reached}; the floor of an operation
is the longer of its bytes and its FLOPs at these. Tests of the kernels: {tests}.

{table(results)}
"""
    if failures:
        text += "\nDid not run:\n\n" + "\n".join(failures) + "\n"
    path = folder / f"{stem}.md"
    path.write_text(text, encoding="utf-8")
    return path


def _commit() -> str:
    command = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip() or "unknown"


def main(
    arguments: Sequence[str] | None = None,
    *,
    find_device: Callable[[], Device | None] = cuda,
    tests: Callable[[], tuple[bool, str]] = run_tests,
) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("operations", nargs="*", metavar="OPERATION", help=f"default: all of {', '.join(OPS)}")
    parser.add_argument("--share", type=float, default=1.0, help="of the tokens, for a GPU with little memory")
    parser.add_argument("--no-tests", action="store_true", help="time only")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    if unknown := set(options.operations) - set(OPS):
        parser.error(f"no such operation: {', '.join(sorted(unknown))}; there are {', '.join(OPS)}")
    device = find_device()
    if device is None:
        print(f"gpu-check needs an NVIDIA GPU and a CUDA build of torch; torch {torch.__version__} sees no GPU here")
        return 2
    passed, summary = (True, "not run") if options.no_tests else tests()
    peaks = measure_peaks(device)
    results = []
    for name in options.operations or OPS:
        sizes = OPS[name].timed
        shape = Shape(**{**sizes, "tokens": max(1, int(options.share * sizes["tokens"]))})
        for result in time_operation(name, OPS[name], shape, device, peaks):
            results.append(result)
            print(f"{result.operation} {result.mode} {result.library}: {result.timing or result.error}", flush=True)
    path = write(options.out, device, peaks, summary, results)
    print(path.read_text(encoding="utf-8"))
    return 0 if passed and all(r.timing for r in results if r.library == OURS) else 1


if __name__ == "__main__":
    sys.exit(main())
