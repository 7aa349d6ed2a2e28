"""gpu-check on CPU, with a timer that runs the work once and says how long it took."""

import json

import pytest
import torch

pytest.importorskip("triton")

from bench.kernels import gpu_check
from bench.kernels.gpu_check import Device, Peaks, Timing, main, measure_peaks, time_operation
from bench.kernels.operations import OPS, Shape
from bench.kernels.peers import Rival

# what each operation is timed at here: the code, not the speed
SMALL = {
    "attention": {"tokens": 24, "length": 16},
    "attention_groups": {"tokens": 1, "length": 6, "own": 4, "members": 2},
    "decode_attention": {"tokens": 4, "length": 6, "own": 3, "members": 2},
}


def once(work):
    work()
    return Timing(200.0, 150.0, 250.0)


@pytest.fixture
def device():
    return Device("NVIDIA Test 9000", "cpu", once, lambda function: function, copy_elements=1000, matrix_width=10)


def test_without_a_gpu_it_says_so_and_exits_2(capsys):
    assert main([], find_device=lambda: None) == 2
    assert "gpu-check needs an NVIDIA GPU" in capsys.readouterr().out


def test_peaks_are_bytes_and_flops_a_second(device):
    peaks = measure_peaks(device)
    # 2,000 bytes read and written in 200 us; 2 * 10**3 FLOPs in 200 us
    assert peaks == Peaks(copy=4000 / 200e-6, matmul=2000 / 200e-6)
    assert peaks.floor_us(2000, 0) == pytest.approx(100.0)
    assert peaks.floor_us(0, 2000) == pytest.approx(200.0)


@pytest.mark.parametrize("name", OPS)
def test_times_every_operation_and_library(name, device):
    op = OPS[name]
    # float32, because the interpreter computes sums and products of bfloat16 wrongly
    shape = Shape(**SMALL.get(name, {"tokens": 4, "own": 2}), dtype=torch.float32)
    results = list(time_operation(name, op, shape, device, Peaks(1e9, 1e9)))
    assert not [r for r in results if r.error and r.library not in ("Liger", "flash-attn")]
    ran = {(r.library, r.mode) for r in results if r.timing}
    modes = {"forward"} if name == "decode_attention" else {"forward", "both"}
    assert ran >= {(library, mode) for library in ("fastreason", "torch", "torch.compile") for mode in modes}
    for r in results:
        assert r.floor_us > 0
        assert r.of_floor == (r.floor_us / 200.0 if r.timing else None)


def test_a_library_that_fails_is_reported_and_hides_nobody(device, monkeypatch, tmp_path, capsys):
    def broken():
        raise RuntimeError("no kernel image\nis available")

    build = OPS["swiglu"].build

    def with_rival(shape):
        call = build(shape)
        call.rivals["Other"] = lambda: Rival(lambda x: broken(), (call.inputs["gate_up"],), (0,))
        call.rivals.pop("Liger", None)
        return call

    monkeypatch.setitem(gpu_check.OPS, "swiglu", gpu_check.Op(with_rival, timed={"tokens": 4}))
    assert main(["swiglu", "--out", str(tmp_path)], find_device=lambda: device, tests=lambda: (True, "9 passed")) == 0
    text = (tmp_path / "nvidia-test-9000.md").read_text()
    assert "9 passed" in text
    assert "- swiglu, both, Other: RuntimeError: no kernel image\n" in text
    assert "| swiglu, forward + backward" in text
    record = json.loads((tmp_path / "nvidia-test-9000.json").read_text())
    assert record["gpu"] == "NVIDIA Test 9000"
    assert record["machine"]["commit"]
    assert {r["library"] for r in record["results"]} == {"fastreason", "torch", "torch.compile", "Other"}
    ours = next(r for r in record["results"] if r["library"] == "fastreason" and r["mode"] == "forward")
    assert ours["timing"] == {"median": 200.0, "p20": 150.0, "p80": 250.0}
    assert ours["of_floor"] == pytest.approx(ours["floor_us"] / 200.0)


def test_failing_tests_or_operations_fail_the_check(device, monkeypatch, tmp_path):
    out = ["swiglu", "--share", "0.001", "--out", str(tmp_path)]
    monkeypatch.setitem(gpu_check.OPS, "swiglu", gpu_check.Op(OPS["swiglu"].build, timed={"tokens": 4000}))
    assert main(out, find_device=lambda: device, tests=lambda: (False, "1 failed")) == 1
    assert main([*out, "--no-tests"], find_device=lambda: device, tests=lambda: pytest.fail("was run")) == 0

    def out_of_memory(work):
        raise MemoryError("too large")

    def device_that_fails_late():
        # peaks are measured, operations are not
        calls = iter([once, once])
        return Device("G", "cpu", lambda work: next(calls, out_of_memory)(work), lambda f: f, 1000, 10)

    assert main([*out, "--no-tests"], find_device=device_that_fails_late) == 1
