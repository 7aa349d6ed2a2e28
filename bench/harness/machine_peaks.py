"""What the machine reaches at best: FLOP/s of matrix products and bytes/s of a copy, one core and all.

    python -m bench.harness.machine_peaks [--fresh]

Measured once for a class of machines and kept in $XDG_CACHE_HOME/fastreason/peaks-CLASS.json. A peak that was measured
while others used the machine is too low; then shares of it are too high, up to more than 100 %.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import torch

from fastreason import kernels
from fastreason.runtime.json_files import to_json

from .environment import machine

__all__ = ["CORES", "age", "cache_path", "machine_peaks", "measure", "measure_gpu", "percent_of_peak"]

# square matrices: the smallest fit into a core's cache, the largest into none
SIZES = (256, 512, 768, 1024, 2048)
# larger than any cache in use
COPY_BYTES = 1 << 28
CORES = ("one_core", "all_cores")


def machine_peaks(*, fresh: bool = False) -> dict[str, float]:
    """The peaks of this machine, from the cache where it has them.

    Args:
        fresh: measure them again.
    Returns:
        matmul_one_core, matmul_all_cores: FLOP/s in float32, the best over sizes and both products that
        `fastreason.kernels.linear` picks from; copy_one_core, copy_all_cores: bytes/s, read and written; with a GPU
        matmul_gpu (bfloat16) and copy_gpu.
    """
    found = None if fresh else _cached()
    if found is None:
        found = measure()
        path = cache_path()
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "torch": torch.__version__, "peaks": found}
        path.write_text(to_json(content, indent=1) + "\n", encoding="utf-8")
    return found


def cache_path() -> Path:
    """Where the peaks of this class of machines lie."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "fastreason" / f"peaks-{machine()['class']}.json"


def age() -> str:
    """How old the cached peaks are, in words; "" where there are none."""
    try:
        then = datetime.fromisoformat(json.loads(cache_path().read_text(encoding="utf-8"))["date"])
    except (OSError, ValueError, KeyError):
        return ""
    hours = (datetime.now(UTC) - then).total_seconds() / 3600
    return f"{hours / 24:.0f} days" if hours >= 48 else f"{hours:.1f} hours"


def _cached() -> dict[str, float] | None:
    """None if there is no file, it is not readable, or another version of torch wrote it."""
    try:
        content = json.loads(cache_path().read_text(encoding="utf-8"))
        if content["torch"] != torch.__version__:
            return None
        return {str(name): float(value) for name, value in content["peaks"].items()}
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return None


def percent_of_peak(
    peaks: Mapping[str, float], peak: str, amount: float, time_s: float, *, threads: int = 1, gpu: bool = False
) -> float | None:
    """100 * amount / time_s / the peak; None where the peak was not measured.

    >>> percent_of_peak({"matmul_one_core": 1e11}, "matmul", 2e10, 1.0)
    20.0
    """
    rate = peaks.get(f"{peak}_{'gpu' if gpu else CORES[threads > 1]}")
    return None if rate is None else 100.0 * amount / time_s / rate


def measure(seconds: float = 0.3) -> dict[str, float]:
    """Measures every peak, `seconds` for each size of each product and for each copy.

    A core's figures are by its CPU time, which other processes move less; those of all cores by the clock on the wall.
    """
    found = {}
    before = torch.get_num_threads()
    for cores, threads in zip(CORES, (1, os.cpu_count() or 1), strict=True):
        torch.set_num_threads(threads)
        clock = time.thread_time if threads == 1 else time.perf_counter
        found[f"matmul_{cores}"] = max(
            2.0 * size**3 / _best(work, clock, seconds) for size in SIZES for work in _products(size)
        )
        found[f"copy_{cores}"] = 2.0 * COPY_BYTES / _best(_copy(COPY_BYTES), clock, seconds)
    torch.set_num_threads(before)
    # where neighbours hold a core, threads that wait for each other are slower than one alone
    for peak in ("matmul", "copy"):
        found[f"{peak}_all_cores"] = max(found[f"{peak}_{cores}"] for cores in CORES)
    return found | (measure_gpu(seconds) if torch.cuda.is_available() else {})


def _products(size: int) -> Iterator[Callable[[], object]]:
    a, b = torch.ones(2, size, size)
    weight = b.clone().requires_grad_()
    yield lambda: torch.mm(a, b)
    yield lambda: kernels.linear(a, weight)


def _copy(size_bytes: int, device: str = "cpu") -> Callable[[], object]:
    source = torch.ones(size_bytes, dtype=torch.uint8, device=device)
    target = torch.zeros_like(source)
    return lambda: target.copy_(source)


def _best(work: Callable[[], object], clock: Callable[[], float], seconds: float) -> float:
    """Seconds of the fastest of the calls that `seconds` allow, at least three; the first is not counted."""
    work()
    best_s, calls, end = math.inf, 0, time.perf_counter() + seconds
    while calls < 3 or time.perf_counter() < end:
        start = clock()
        work()
        best_s = min(best_s, clock() - start)
        calls += 1
    return best_s


def measure_gpu(seconds: float = 0.3) -> dict[str, float]:
    """Products in bfloat16, and a copy, each the mean of ten calls that are waited for together."""

    def rate(amount: float, work: Callable[[], object]) -> float:
        def ten() -> None:
            for _ in range(10):
                work()
            torch.cuda.synchronize()

        return 10 * amount / _best(ten, time.perf_counter, seconds)

    found = []
    for size in (4096, 8192):
        a, b = torch.randn(2, size, size, device="cuda").to(torch.bfloat16)
        found.append(rate(2.0 * size**3, lambda a=a, b=b: a @ b))  # type: ignore[misc]
    return {"matmul_gpu": max(found), "copy_gpu": rate(2.0 * 4 * COPY_BYTES, _copy(4 * COPY_BYTES, "cuda"))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fresh", action="store_true", help="measure again")
    options = parser.parse_args()
    for name, rate in machine_peaks(fresh=options.fresh).items():
        print(f"{name:18} {rate / 1e9:10.1f} G{'FLOP' if name.startswith('matmul') else 'B'}/s")
    print(f"measured {age()} ago: {cache_path()}")


if __name__ == "__main__":
    main()
