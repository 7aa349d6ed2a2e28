"""How many bytes every operation moves, against the floor where each operand is moved once, and against Liger-Kernel.

    python -m bench.kernels.traffic [OPERATION ...] [--docs]

Runs forward and backward under Triton's interpreter, on CPU, and counts every load and store
(bench/kernels/traffic_meter.py). Exits 1 where a gate of bench/kernels/operations.py is not met; `--docs` also writes
the table into docs/kernels.md.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace

import torch

from fastreason.kernels.triton_support import INTERPRETED

from ..harness.markdown import KERNEL_DOCS, markdown, put_between_marks
from . import peers
from .operations import OPS, Call, Op, Shape
from .peers import Rival
from .traffic_meter import Traffic, counting

__all__ = ["Row", "count", "main", "measure", "measure_by_name"]


@dataclass(frozen=True)
class Row:
    """What one operation moved, forward and backward together.

    Args:
        tokens: how many it was given.
        floor, issued, distinct, by_torch: bytes; see bench/kernels/traffic_meter.py. `by_torch` is a part of the
        others.
        liger: bytes of Liger-Kernel on `liger_tokens` tokens; None where it has no such operation or is absent.
        note: what else was found.
        failures: gates that are not met, in words.
    """

    name: str
    tokens: int
    floor: int
    issued: int
    distinct: int
    by_torch: int
    liger: int | None
    liger_tokens: int
    note: str
    failures: tuple[str, ...]

    @property
    def ratio(self) -> float:
        return self.issued / self.floor

    @property
    def of_liger(self) -> float | None:
        """Our bytes a token over Liger's."""
        return None if self.liger is None else self.issued / self.tokens / (self.liger / self.liger_tokens)


def count(call: Call | Rival) -> tuple[Traffic, Traffic]:
    """Traffic of forward and of backward."""
    with counting() as forward:
        outputs = call.forward()
    upstream = call.upstream(outputs)
    with counting() as backward:
        if call.learns:
            call.backward(outputs, upstream)
    return forward, backward


def measure(name: str, op: Op, shape: Shape, *, liger_tokens: int | None = None) -> Row:
    """Counts `op` at `shape`, and Liger's twin at as many tokens or at `liger_tokens`."""
    call = op.build(shape)
    forward, backward = count(call)
    issued, floor = forward.issued + backward.issued, sum(call.floor)
    note, failures = call.judge(forward) if call.judge else ("", [])
    liger_tokens = liger_tokens or call.tokens
    rival = op.build(replace(shape, tokens=liger_tokens)).rivals.get("Liger")
    liger = sum(traffic.issued for traffic in count(rival())) if rival else None
    if op.most_traffic is not None and issued > op.most_traffic * floor:
        failures.append(f"{issued / floor:.3f} x the floor, at most {op.most_traffic}")
    row = Row(
        name,
        call.tokens,
        floor,
        issued,
        forward.distinct + backward.distinct,
        sum(forward.torch_ops.values()) + sum(backward.torch_ops.values()),
        liger,
        liger_tokens,
        note,
        tuple(failures),
    )
    if op.most_of_liger is not None and row.of_liger is not None and row.of_liger > op.most_of_liger:
        failures.append(f"{row.of_liger:.3f} x Liger, at most {op.most_of_liger}")
    return replace(row, failures=tuple(failures))


def table(rows: Sequence[Row]) -> str:
    head = ["operation", "tokens", "floor, B/token", "moved", "of the floor", "each address once", "by torch"]
    head += ["Liger, B/token", "ours / Liger"]
    lines = []
    for row in rows:
        line = [row.name, f"{row.tokens:,}", _per(row.floor, row), _per(row.issued, row), f"{row.ratio:.3f} x"]
        line += [f"{row.distinct / row.floor:.3f} x", f"{row.by_torch / row.issued:.1%}"]
        line += ["" if row.liger is None else f"{row.liger / row.liger_tokens:,.0f}"]
        line += ["" if row.of_liger is None else f"{row.of_liger:.2f}"]
        lines.append(line)
    notes = "".join(f"\n- {row.name}: {row.note}" for row in rows if row.note)
    return markdown(head, lines) + (f"\n{notes}" if notes else "")


def _per(size: int, row: Row) -> str:
    return f"{size / row.tokens:,.0f}"


def measure_by_name(name: str) -> Row:
    """An operation at the shape that operations.py counts it at, in a process that may have been started for it."""
    torch.set_num_threads(1)
    op = OPS[name]
    return measure(name, op, Shape(**op.counted, dtype=op.counted_dtype), liger_tokens=op.liger_tokens)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("operations", nargs="*", metavar="OPERATION", help=f"default: all of {', '.join(OPS)}")
    parser.add_argument("--docs", action="store_true", help="write the table into docs/kernels.md")
    options = parser.parse_args(arguments)
    unknown = set(options.operations) - set(OPS)
    if unknown:
        parser.error(f"no such operation: {', '.join(sorted(unknown))}; there are {', '.join(OPS)}")
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        rows = list(pool.map(measure_by_name, options.operations or OPS))
    text = table(rows)
    print(text)
    if not peers.LIGER:
        print("Liger-Kernel is not installed, so its columns are empty: pip install --no-deps liger-kernel")
    failures = [f"{row.name}: {failure}" for row in rows for failure in row.failures]
    print("\n".join(failures) or "every gate is met")
    if options.docs:
        put_between_marks(KERNEL_DOCS, "traffic", text)
    return 1 if failures else 0


if __name__ == "__main__":
    if not INTERPRETED:
        # the interpreter replaces kernels when they are decorated, so the process has to start with it
        os.execve(
            sys.executable,
            [sys.executable, "-m", "bench.kernels.traffic", *sys.argv[1:]],
            os.environ | {"TRITON_INTERPRET": "1"},
        )
    sys.exit(main())
