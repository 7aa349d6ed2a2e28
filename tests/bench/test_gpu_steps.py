"""The steps of a day on a GPU: lines that survive failures and kills, and a rehearsal that cannot look measured."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.autograd import DeviceType

pytest.importorskip("triton")

from bench.gpu import items as gpu_items
from bench.gpu.bundle import largest
from bench.gpu.bundle import main as bundle
from bench.gpu.end_to_end import summary
from bench.gpu.items import Outcome, Place, Results, Skipped, run_items
from bench.gpu.kernel_tests import read_report
from bench.gpu.report import NO_GPU, main, page, read, suggestions

ROOT = Path(__file__).parents[2]
GPU, NONE = Place("cuda", 90), Place("cpu", 90, rehearsed=True)


@pytest.fixture(autouse=True)
def facts(monkeypatch):
    """A machine with a GPU, and a step that begins now."""
    known = {"machine": "m", "gpu": "H", "versions": {"triton": "3.6.0"}, "commit": "c"}
    monkeypatch.setattr(gpu_items, "_facts", lambda: known)
    monkeypatch.setattr(gpu_items, "_cuda_is_lost", lambda: False)
    monkeypatch.setenv(gpu_items.STARTED, str(time.time()))
    return known


def fails(place):
    raise ValueError("it broke")


def absent(place):
    raise Skipped("not here")


def timed(place):
    return Outcome({"seconds": 0.25}, {"tokens": 3})


def test_a_failure_is_a_line_and_the_others_go_on(tmp_path):
    results = Results(tmp_path, "smoke", GPU)
    left = run_items([("a", fails), ("b", timed), ("c", absent)], results, seconds=60)
    assert (left.failed, left.left, left.exit_code) == (["a"], [], 1)
    a, b, c = results.lines()
    assert (a["status"], b["status"], c["status"]) == ("failed", "ok", "skipped")
    assert "ValueError: it broke" in a["error"] and c["notes"] == {"why": "not here"}
    assert {"machine", "gpu", "versions", "commit", "step", "seconds", "date"} <= b.keys()
    assert b["measured"] == {"seconds": 0.25}


def test_called_again_it_does_what_is_left_or_failed(tmp_path, monkeypatch, facts):
    done = []

    def noted(place):
        done.append(1)
        return Outcome()

    results = Results(tmp_path, "smoke", GPU)
    run_items([("a", fails), ("b", noted)], results, seconds=60)
    # the process that replaced itself: what it tried is not tried again
    run_items([("a", noted), ("b", noted)], results, seconds=60)
    assert len(done) == 1
    monkeypatch.setenv(gpu_items.STARTED, str(time.time() + 60))
    assert run_items([("a", noted), ("b", noted)], results, seconds=60).exit_code == 0
    assert len(done) == 2
    monkeypatch.setitem(facts, "commit", "d")
    run_items([("b", noted)], results, seconds=60)
    assert len(done) == 3


def test_when_the_time_is_up_the_rest_is_left(tmp_path, monkeypatch):
    monkeypatch.setenv(gpu_items.STARTED, str(time.time() - 100))
    left = run_items([("a", timed), ("b", timed)], Results(tmp_path, "smoke", GPU), seconds=60, workers=2)
    assert (sorted(left.left), left.exit_code) == (["a", "b"], 3)


def test_half_a_line_of_a_killed_process_costs_that_line_only(tmp_path):
    results = Results(tmp_path, "timings", GPU)
    run_items([("swiglu, fastreason", timed)], results, seconds=60)
    with results.path.open("a") as file:
        file.write('{"step": "timings", "item": "ro')
    run_items([("rope, fastreason", timed)], results, seconds=60)
    assert [line["item"] for line in results.lines()] == ["swiglu, fastreason", "rope, fastreason"]
    assert [line["item"] for line in read(tmp_path)] == ["swiglu, fastreason", "rope, fastreason"]


@pytest.mark.parametrize("lost", ["hangs", "breaks CUDA"])
def test_a_lost_process_is_replaced_behind_a_line(tmp_path, monkeypatch, lost):
    replaced = []
    monkeypatch.setattr(gpu_items, "_replace_process", lambda: replaced.append(1))
    monkeypatch.setattr(gpu_items, "_cuda_is_lost", lambda: True)
    item = fails if lost == "breaks CUDA" else lambda place: (time.sleep(0.2), Outcome())[1]
    results = Results(tmp_path, "smoke", GPU)
    run_items([("a", item)], results, seconds=60, limit_s=0.05 if lost == "hangs" else 60)
    assert replaced == [1]
    assert results.lines()[0]["status"] == "failed"


def test_a_rehearsal_writes_no_figure_and_the_page_says_so(tmp_path):
    for step in ("timings", "end-to-end", "autotune"):
        run_items([("rope, fastreason", timed), ("b", fails)], Results(tmp_path, step, NONE), seconds=60)
    lines = read(tmp_path)
    assert {line["status"] for line in lines} == {"rehearsed", "failed"}
    assert not any(line["measured"] for line in lines)
    # nor would one be shown that a line claims
    lines[0]["measured"] = {"seconds": 0.12345}
    text = page(lines)
    assert "No figure from a GPU exists" in text and NO_GPU in text
    assert "0.12345" not in text and "123" not in text and "ms" not in text
    assert NO_GPU in suggestions(lines)


def line(step, item, **measured):
    return {"step": step, "item": item, "status": "ok", "rehearsed": False, "gpu": "H200", "commit": "c",
            "versions": {"triton": "3.6.0"}, "measured": measured, "notes": {}}  # fmt: skip


def test_figures_of_a_gpu_become_tables_and_suggestions(tmp_path):
    path = tmp_path / "gpu.md"
    path.write_text("<!-- results -->\n<!-- /results -->\n")
    steps = {
        "timings": [
            line("timings", "peaks", copy_gpu=4e12, matmul_gpu=8e14),
            line("timings", "rope, fastreason", seconds=5e-4, bytes=1e9, flop=0.0),
            line("timings", "rope, torch", seconds=2e-3, bytes=1e9, flop=0.0),
        ],
        "end-to-end": [
            line(
                "end-to-end",
                "100m, train",
                seconds=0.5,
                tokens=1e5,
                busy_seconds=0.4,
                profiled_seconds=0.5,
                launches=900,
                kernels=[{"name": "gemm"}],
            )
        ],
        "autotune": [line("autotune", name, entries="[[rope]]\narch = 90\n") for name in ("a", "b")],
        # a rehearsal before it does not count
        "smoke": [line("smoke", "rope") | {"rehearsed": True, "status": "rehearsed"}],
    }
    for step, lines in steps.items():
        (tmp_path / f"{step}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    assert main(["--results", str(tmp_path), "--page", str(path)]) == 0
    text = path.read_text()
    assert "H200; commit c" in text and NO_GPU not in text
    row = next(row for row in text.splitlines() if row.startswith("| rope"))
    assert [cell.strip() for cell in row.split("|")[2:6]] == ["0.5", "2", "50%", ""]
    assert "200,000 tokens/s" in text and "80%" in text
    assert suggestions(read(tmp_path)).count("[[rope]]") == 1
    assert "Triton 3.6.0" in suggestions(read(tmp_path))


def test_a_profile_counts_the_time_of_the_gpu_once():
    def event(key, device, microseconds, count, annotation=False):
        return SimpleNamespace(key=key, device_type=device, self_device_time_total=microseconds, count=count,
                               is_user_annotation=annotation)  # fmt: skip

    found = summary(
        [
            event("aten::mm", DeviceType.CPU, 300, 2),
            event("copy", DeviceType.CUDA, 100, 5),
            event("gemm", DeviceType.CUDA, 300, 2),
            event("a step", DeviceType.CUDA, 900, 1, annotation=True),
        ],
        wall_s=1e-3,
    )
    assert found["busy_seconds"] == pytest.approx(4e-4) and found["launches"] == 7
    assert [one["name"] for one in found["kernels"]] == ["gemm", "copy"]


def test_no_results_are_no_figures(tmp_path):
    assert page(read(tmp_path)) == "No results yet: no figure from a GPU exists."


def test_the_page_in_the_repository_claims_no_figure():
    text = (ROOT / "docs" / "gpu.md").read_text(encoding="utf-8").partition("<!-- results -->")[2]
    assert "No figure from a GPU exists" in text or "no figure from a GPU exists" in text


def test_tests_are_counted_from_their_report(tmp_path):
    path = tmp_path / "report.xml"
    path.write_text('<testsuites><testsuite tests="4" skipped="1" failures="1" errors="0"><testcase name="a"/>'
                    '<testcase name="b"><failure/></testcase></testsuite></testsuites>')  # fmt: skip
    assert read_report(path) == ({"passed": 2, "skipped": 1}, ["b"])
    assert read_report(tmp_path / "none.xml") == ({}, [])


def test_a_bundle_that_is_too_large_is_refused_by_name(tmp_path, monkeypatch, capsys):
    def collect(folder, python):
        (folder / "wheels").mkdir()
        (folder / "wheels" / "large.whl").write_bytes(bytes(3 << 20))
        (folder / "COMMIT").write_text("c\n")

    monkeypatch.setattr("bench.gpu.bundle.collect", collect)
    monkeypatch.setattr("bench.gpu.bundle.commit", lambda: "c")
    out = tmp_path / "bundle"
    assert bundle(["--out", str(out), "--limit-mib", "4"]) == 0
    assert largest(out, 1) == [(3 << 20, "wheels/large.whl")]
    assert bundle(["--out", str(out), "--limit-mib", "2"]) == 1
    assert "wheels/large.whl" in capsys.readouterr().out and not out.exists()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine").touch()
    assert bundle(["--out", str(tmp_path / "other")]) == 1
    monkeypatch.setattr("bench.gpu.bundle.commit", lambda: "c-dirty")
    assert bundle(["--out", str(out)]) == 1


def test_without_a_gpu_it_says_so(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    from bench.gpu.__main__ import main as step

    assert step(["timings", "--results", str(tmp_path)]) == 2
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_every_step_can_be_rehearsed(tmp_path):
    """With Triton, two items of each step; in an environment as on such a machine, with this tree installed, where
    FASTREASON_GPU_PYTHON names one."""
    python = os.environ.get("FASTREASON_GPU_PYTHON", sys.executable)
    chosen = {"smoke": "rope", "tests": "test_package", "timings": "rope", "end-to-end": "quickstart, train",
              "autotune": "rope"}  # fmt: skip
    for step, only in chosen.items():
        command = [python, "-m", "bench.gpu", step, "--rehearse", "--results", str(tmp_path), "--only", only]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    lines = read(tmp_path)
    assert len(lines) >= len(chosen)
    assert {one["status"] for one in lines} <= {"rehearsed", "skipped"}
    assert not any(one["measured"] for one in lines)
