"""`fastreason bench`: its arguments, the peaks it keeps, what it says of the machine, the released code it runs."""

import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("pytest_benchmark")

import bench.__main__ as command
from bench.harness import environment, machine_peaks, pytest_plugin
from bench.harness.questions import Settings, Unavailable
from bench.harness.records import Record, ratio, read_run
from bench.harness.run_suite import Collected
from bench.kernels import count_suites
from bench.suites import released_peer
from fastreason.cli import main
from fastreason.cli.main import bench_command

PEAKS = {"matmul_one_core": 1e11, "copy_one_core": 1e10}


@pytest.fixture
def suites(monkeypatch):
    """Suites that give one record each at once; those that were asked for, and how."""
    asked = []

    def collect(name, settings, peaks, only):
        asked.append((name, settings, peaks) if not only else (name, only))
        record = Record(name, "w", "fastreason", {}, "units", 1.0, [1.0, 2.0], "cpu")
        return Collected([record], {f"peer of {name}": "absent"}, "broken" if name == "rl" else "")

    monkeypatch.setattr(command, "collect", collect)
    monkeypatch.setattr(command, "machine_peaks", lambda *, fresh: PEAKS | {"copy_all_cores": 2e10 if fresh else 1e10})
    return asked


def test_list_names_every_suite(capsys):
    assert main.main(["bench", "--list"]) == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert listed == list(command.SUITES)
    timed = set(listed) - set(command.COUNTS)
    folder = Path(command.__file__).parent
    assert {pytest_plugin.suite_module(name) for name in timed} <= {
        f"bench.suites.{path.stem}" for path in folder.glob("suites/*.py")
    }


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["task"], "no suite 'task'; there are tasks, grade, "),
        (["tasks", "--threads", "0"], "--threads must be at least 1, got 0"),
        (["--compare", "tasks"], "--compare: no file 'tasks'; names of suites stand before it"),
        (["--reference", "/no/such/folder"], "--reference: no directory '/no/such/folder'"),
    ],
)
def test_wrong_arguments_are_named(arguments, message, capsys):
    assert main.main(["bench", *arguments]) == 2
    assert capsys.readouterr().err.startswith(f"fastreason bench: {message}")


def test_without_a_checkout_it_says_what_it_needs(tmp_path, capsys):
    with pytest.raises(ValueError, match="needs a checkout of the repository; bench/ is not installed"):
        bench_command([], package=tmp_path / "fastreason")
    assert bench_command(["--help"], package=tmp_path / "fastreason") == 0
    out = capsys.readouterr().out
    assert out.startswith("usage: fastreason bench") and f"not installed with {tmp_path}" in out


def test_one_file_holds_what_all_suites_gave(suites, tmp_path, capsys):
    out = tmp_path / "run.json"
    assert bench_command(["tasks", "grade", "--threads", "2", "--quick", "--fresh-peaks", "--out", str(out)]) == 0
    settings = Settings(threads=2, quick=True)
    assert suites == [(name, settings, PEAKS | {"copy_all_cores": 2e10}) for name in ("tasks", "grade")]
    run = read_run(out)
    assert [r.suite for r in run.records] == ["tasks", "grade"]
    assert run.skipped == {"peer of tasks": "absent", "peer of grade": "absent"}
    assert (run.threads, run.peaks["copy_all_cores"]) == (2, 2e10)
    assert "| tasks: w" in capsys.readouterr().out


def test_a_run_of_some_questions_hands_on_what_they_are_about(suites, tmp_path):
    assert command.main(["train", "--only", "training in bfloat16", "--out", str(tmp_path / "run.json")]) == 0
    assert suites == [("train", "training in bfloat16")]


def test_all_suites_are_the_latest_run_and_some_are_not(suites, tmp_path, monkeypatch):
    monkeypatch.setattr(command, "LATEST", tmp_path / "latest.json")
    assert command.main(["tasks", "grade"]) == 0
    assert not (tmp_path / "latest.json").exists()
    assert (tmp_path / "tasks-grade.json").exists()
    # the one that fails is shown, and the others are kept
    assert command.main([]) == 1
    assert len(read_run(tmp_path / "latest.json").records) == len(command.SUITES)


@pytest.mark.parametrize("arguments, against", [([], None), ([__file__], Path(__file__))])
def test_compare_decides_about_the_exit_status(suites, tmp_path, monkeypatch, arguments, against):
    import bench.regressions.compare

    seen = []
    monkeypatch.setattr(bench.regressions.compare, "main", lambda path, against: seen.append((path, against)) or 1)
    assert command.main(["tasks", "--out", str(tmp_path / "run.json"), "--compare", *arguments]) == 1
    assert seen == [(tmp_path / "run.json", against)]


def test_peaks_are_measured_once_for_a_class_of_machines(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    measured = []
    monkeypatch.setattr(
        machine_peaks, "measure", lambda: measured.append(1) or {"matmul_one_core": float(len(measured))}
    )
    assert machine_peaks.age() == ""
    assert machine_peaks.machine_peaks() == machine_peaks.machine_peaks() == {"matmul_one_core": 1.0}
    assert machine_peaks.machine_peaks(fresh=True) == machine_peaks.machine_peaks() == {"matmul_one_core": 2.0}
    path = machine_peaks.cache_path()
    assert path == tmp_path / "fastreason" / f"peaks-{environment.machine()['class']}.json"
    assert machine_peaks.age() == "0.0 hours"
    content = json.loads(path.read_text())
    # another torch may reach another peak; a file that is broken is written again
    for text in (json.dumps(content | {"torch": "0.1"}), "{", "[]", json.dumps(content | {"peaks": {"a": None}})):
        path.write_text(text)
        assert machine_peaks.machine_peaks() == {"matmul_one_core": float(len(measured))}
    assert len(measured) == 6


def test_an_old_cache_tells_its_age_in_days(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = machine_peaks.cache_path()
    path.parent.mkdir()
    path.write_text(json.dumps({"date": "2020-01-01T00:00:00+00:00"}))
    assert int(machine_peaks.age().removesuffix(" days")) > 2000


def test_peaks_are_those_of_a_core_and_of_all(monkeypatch):
    monkeypatch.setattr(machine_peaks, "SIZES", (8, 16))
    monkeypatch.setattr(machine_peaks, "COPY_BYTES", 1000)
    found = machine_peaks.measure(seconds=0.0)
    names = {f"{peak}_{cores}" for peak in ("matmul", "copy") for cores in machine_peaks.CORES}
    assert names <= found.keys()
    assert all(rate > 0 for rate in found.values())
    for peak in ("matmul", "copy"):
        assert found[f"{peak}_all_cores"] >= found[f"{peak}_one_core"]


def test_a_share_is_of_the_peak_of_the_cores_that_work():
    peaks = {"copy_one_core": 100.0, "copy_all_cores": 400.0, "copy_gpu": 1000.0}
    share = [machine_peaks.percent_of_peak(peaks, "copy", 100.0, 2.0, threads=n) for n in (1, 2)]
    assert share == [50.0, 12.5]
    assert machine_peaks.percent_of_peak(peaks, "copy", 100.0, 2.0, gpu=True) == 5.0
    assert machine_peaks.percent_of_peak(peaks, "matmul", 100.0, 2.0) is None


def test_the_class_of_a_machine_is_its_processor_cores_and_gpu():
    described = {"cpu": "Ampere(R) Altra", "cores": 80, "gpu": "NVIDIA H100"}
    arm = {"CPU implementer": "0x41", "CPU part": "0xd0c", "Features": "fp asimd aes"}
    assert environment.machine_class(described, arm) == "ampere-r-altra-0x41-0xd0c-asimd-80c-nvidia-h100"
    assert environment.machine_class({"cpu": "x", "cores": 1, "gpu": None}, {}) == "x-1c"
    assert re.fullmatch(r"[a-z0-9-]+", environment.machine()["class"])


def test_a_run_says_what_it_was_made_with():
    run = environment.new_run([], threads=1, peaks={}, modules=["numpy", "no_such_module"])
    assert {"fastreason", "torch", "numpy", "pytest-benchmark"} == run.versions.keys()
    assert re.fullmatch(r"[0-9a-f]{7,}(-dirty)?|unknown", run.commit)


def checkout(folder, generator="", scorer=""):
    """As much of the released code as a test needs."""
    for path, text in ((released_peer.GENERATORS[0], generator), (released_peer.SCORER, scorer)):
        if text:
            (folder / path).parent.mkdir(parents=True)
            (folder / path).write_text(text)
    return folder


GENERATOR = """
import names_of_test
calls = []
def drawAll(*, op_max, ip_max, force, number_range, strictline, mod, target_length, template, d, tokenizer, oplist):
    print("noise")
    calls.append((op_max, oplist[0]))
    if len(calls) % 3 == 1:
        raise ValueError("an attempt that failed")
    return "problem", "question", "solution", oplist[0] + (len(calls) % 3 == 2), 0
"""
SCORER = """
class SolutionParser:
    def parse(self, text): return [text]
    def build_graph(self, parsed): return Graph(parsed)
class Graph:
    seen = []
    def __init__(self, parsed): self.parsed = parsed
    def compare(self, other): Graph.seen.append((self.parsed, other.parsed))
"""


def test_the_released_code_is_run_from_a_checkout(tmp_path, capsys):
    folder = checkout(tmp_path, GENERATOR, SCORER)
    (folder / released_peer.GENERATORS[0]).with_name("names_of_test.py").write_text("")
    released_peer.check_reference(folder)
    # an attempt that fails or gives another op is no problem: three for each
    assert released_peer.generator(folder, (2, 7), count=3)() == 3.0
    assert sys.modules["forward_generator"].calls == [(3, 2)] * 3 + [(10, 7)] * 3 + [(3, 2)] * 3
    assert capsys.readouterr().out == ""
    assert released_peer.scorer(folder, ["gold", "other"], ["found", "more"])() == 2.0
    assert sys.modules["solution_dependency_graph"].Graph.seen == [(["gold"], ["found"]), (["other"], ["more"])]


def test_a_folder_that_is_no_checkout_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"is no checkout of the released code; it has none of gsm_infinite"):
        released_peer.check_reference(tmp_path)


def test_what_a_checkout_lacks_is_named(tmp_path):
    with pytest.raises(Unavailable, match=r"has no utils/solution_dependency_graph\.py"):
        released_peer.scorer(tmp_path, [], [])
    folder = checkout(tmp_path, "import no_such_module")
    released_peer.check_reference(folder)
    with pytest.raises(Unavailable, match=r"forward_generator\.py needs the module no_such_module"):
        released_peer.generator(folder, (2,))


def test_traffic_is_bytes_a_token_beside_the_floor_and_liger():
    row = SimpleNamespace(name="op", tokens=10, issued=500, floor=400, liger=900, liger_tokens=5)
    found = {r.provider: r for r in count_suites.traffic_records(row)}
    assert {name: r.work for name, r in found.items()} == {"fastreason": 50.0, "floor": 40.0, "Liger-Kernel": 180.0}
    assert {r.bytes for r in found.values()} == {40.0}
    assert ratio(found["fastreason"], found["Liger-Kernel"]) == pytest.approx(3.6)
    row.liger = None
    assert [r.provider for r in count_suites.traffic_records(row)] == ["fastreason", "floor"]


def test_the_audit_is_of_all_kernels_of_an_operation_beside_their_budgets():
    kernels = [
        SimpleNamespace(
            key=f"op/{name}/bf16", operation="op", dtype="bf16", arch=90,
            figures=SimpleNamespace(registers=registers, shared_bytes=0, instructions=100),
        )
        for name, registers in (("a", 32), ("b", 40))
    ]  # fmt: skip
    budgets = {"op/a/bf16": {"90": {"registers": 30, "shared_bytes": 0, "instructions": 90}}}
    found = [(r.what, r.provider, r.work) for r in count_suites.audit_records(kernels, budgets)]
    assert found == [
        ("op: registers", "fastreason", 40),
        ("op: registers", "budget", 30),
        ("op: instructions", "fastreason", 200),
        ("op: instructions", "budget", 90),
    ]


def test_counts_are_read_from_a_process_of_their_own(monkeypatch):
    record = Record("traffic", "op", "fastreason", {}, "bytes a token", 5.0, [], "count")
    seen = []

    def run(arguments, *, env, **_):
        seen.append((arguments[1:], env.get("TRITON_INTERPRET")))
        return SimpleNamespace(stdout=f"noise\nRECORD {json.dumps(record.to_dict())}\n", stderr="bad", returncode=1)

    monkeypatch.setattr(count_suites.subprocess, "run", run)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    found = [count_suites.count_suite(name, Settings(quick=True)) for name in ("traffic", "audit")]
    # what the interpreter decorates cannot be compiled
    assert seen == [
        (["-m", "bench.kernels.count_suites", "traffic", "--quick"], "1"),
        (["-m", "bench.kernels.count_suites", "audit", "--quick"], None),
    ]
    assert [(each.records, each.failure) for each in found] == [([record], "bad")] * 2


def test_without_triton_counts_are_skipped_by_name(monkeypatch):
    monkeypatch.setattr(count_suites, "find_spec", lambda name: None)
    assert count_suites.count_suite("audit", Settings()) == Collected([], {"audit": "triton is not installed"})
