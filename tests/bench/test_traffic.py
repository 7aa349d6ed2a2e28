"""The traffic counter against kernels whose bytes are known by hand, and the gates at small shapes."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton")

from bench.kernels.operations import OPS, Shape
from bench.kernels.traffic import main, measure, table
from bench.kernels.traffic_meter import Traffic, counting
from fastreason.kernels.triton_support import INTERPRETED, tl, triton

needs_interpreter = pytest.mark.skipif(not INTERPRETED, reason="needs TRITON_INTERPRET=1")


@triton.jit
def _add_first_row(x_ptr, row_ptr, y_ptr, count_ptr, N, D, factor, BLOCK: tl.constexpr):
    n, d = tl.program_id(0), tl.arange(0, BLOCK)
    x = tl.load(x_ptr + n * D + d, mask=d < D, other=0.0)
    row = tl.load(row_ptr + d, mask=d < D, other=0.0)
    tl.store(y_ptr + n * D + d, (x + row) * factor, mask=(d < D) & (n < N - 1))
    tl.store(count_ptr + n, 1)


@needs_interpreter
def test_counts_the_bytes_of_active_lanes():
    x, row, y = torch.zeros(5, 6), torch.zeros(6), torch.zeros(5, 6)
    count = torch.zeros(5, dtype=torch.int64)
    with counting() as traffic:
        _add_first_row[(5,)](x, row, y, count, 5, 6, 0.5, BLOCK=8)
    (launch,) = traffic.launches
    assert launch.kernel == "_add_first_row"
    moved = launch.moved
    # 5 rows of 6 floats; the row is read by each of 5 programs, 24 different bytes; the last row is not stored
    assert (moved["x_ptr"].read, moved["x_ptr"].read_once, moved["x_ptr"].written) == (120, 120, 0)
    assert (moved["row_ptr"].read, moved["row_ptr"].read_once) == (120, 24)
    assert (moved["y_ptr"].written, moved["y_ptr"].written_once, moved["y_ptr"].read) == (96, 96, 0)
    assert moved["count_ptr"].written == 40
    assert traffic.issued == 120 + 120 + 96 + 40
    assert traffic.distinct == 120 + 24 + 96 + 40
    assert count.tolist() == [1] * 5  # and the kernel did run


@triton.jit
def _add_atomically(x_ptr, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    tl.atomic_add(x_ptr + at, 1.0, mask=at < 3)


@needs_interpreter
def test_an_atomic_reads_and_writes():
    x = torch.zeros(4)
    with counting() as traffic:
        _add_atomically[(2,)](x, BLOCK=4)
    moved = traffic.launches[0].moved["x_ptr"]
    assert (moved.read, moved.written, moved.read_once) == (24, 24, 12)
    assert x.tolist() == [2.0, 2.0, 2.0, 0.0]


@needs_interpreter
def test_torch_operations_are_counted_and_views_are_not():
    x = torch.zeros(4, 8)
    with counting() as traffic:
        x.t().contiguous()  # reads and writes 128 bytes
        x[1:].view(-1).sum()  # reads 96, writes 4
        torch.zeros(2)  # writes 8
        torch.empty(1000)
        x.index_select(0, torch.tensor([1, 2]))  # reads 64 and the 16 of the index, writes 64
        x[:1].expand(50, 8).clone()  # reads 32, writes 1600
    expected = {"clone": 256 + 1632, "sum": 100, "zeros": 8, "index_select": 144}
    found = {name: size for name, size in traffic.torch_ops.items() if name != "lift_fresh"}
    assert found == expected


@needs_interpreter
def test_nothing_is_counted_outside():
    with counting() as traffic:
        pass
    _add_atomically[(1,)](torch.zeros(4), BLOCK=4)
    torch.zeros(4).clone()
    assert traffic == Traffic()


@pytest.mark.skipif(INTERPRETED, reason="says what is missing without the interpreter")
def test_needs_the_interpreter():
    with pytest.raises(RuntimeError, match="TRITON_INTERPRET=1"), counting():
        pass


# Many narrow rows, because a program of the norms reads the weight once for all of its rows.
SMALL = {name: {"tokens": 64, "own": 32} for name in OPS} | {
    "rms_norm": {"tokens": 16384, "width": 128},
    "add_rms_norm": {"tokens": 8192, "width": 64},
    "add_rms_norm_float32": {"tokens": 8192, "width": 64},
    "attention": {"tokens": 100, "length": 60},
    "attention_groups": {"tokens": 1, "length": 30, "own": 20, "members": 3},
    "decode_attention": {"tokens": 4, "length": 20, "own": 5, "members": 2},
}


@needs_interpreter
@pytest.mark.parametrize("name", OPS)
def test_gates_are_met_at_small_shapes(name):
    op = OPS[name]
    row = measure(name, op, Shape(**SMALL[name], dtype=op.counted_dtype), liger_tokens=min(64, SMALL[name]["tokens"]))
    assert row.failures == ()
    # what is moved is at least what has to be
    assert row.floor <= row.distinct <= row.issued
    assert name in table([row])


@needs_interpreter
def test_a_gate_that_is_not_met_fails():
    op = replace(OPS["swiglu"], most_traffic=0.5)
    row = measure("swiglu", op, Shape(4, ffn=64, dtype=torch.float16))
    assert row.failures == ("1.000 x the floor, at most 0.5",)


def test_refuses_unknown_operations(capsys):
    with pytest.raises(SystemExit):
        main(["softmax"])
    assert "no such operation: softmax; there are rms_norm" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(INTERPRETED, reason="starts the interpreter itself")
def test_the_command_starts_the_interpreter_by_itself():
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-m", "bench.kernels.traffic", "swiglu"],
        capture_output=True,
        text=True,
        env=environment,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "every gate is met" in done.stdout
