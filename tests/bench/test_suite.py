"""A suite of cheap questions, from pytest-benchmark's turns to records and the table."""

import json
import sys

import pytest

pytest.importorskip("pytest_benchmark")

from bench.harness import worker_process
from bench.harness.environment import new_run
from bench.harness.questions import Contestant, Done, Settings
from bench.harness.records import Record
from bench.harness.results_table import format_run, table
from bench.harness.run_suite import run_suite

SUITE = "tests.bench.small_suite"
PEAKS = {"matmul_one_core": 2e7, "matmul_all_cores": 1e9}


def collected(folder, settings):
    """What the suite gave, and who was called when."""
    calls = folder / "calls"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTREASON_TEST_CALLS", str(calls))
        found = run_suite(SUITE, settings, PEAKS)
    return found, calls.read_text().splitlines()


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    return collected(tmp_path_factory.mktemp("one"), Settings())


def named(found, what, provider="fastreason"):
    (record,) = [r for r in found.records if (r.what, r.provider) == (what, provider)]
    return record


def test_contestants_take_turns(one):
    _, calls = one
    begins = ["ours starts", "ours", "ours", "peer starts", "peer", "peer"]
    # built and called once before its first turn, then ours, peer, ours, peer, ...
    assert calls == ["threads 1, reference None", *begins, *(["ours", "peer"] * 4), "ours stops", "peer stops"]


def test_a_turn_is_a_time_of_the_median_work(one):
    found, _ = one
    assert found.failure == ""
    ours, peer = named(found, "sums"), named(found, "sums", "peer")
    for record in (ours, peer):
        assert (record.suite, record.shape, record.unit) == ("small_suite", {"terms": 10, "kind": "int"}, "terms")
        # the turns did 10, 20, .. 50 units in as many tenths of a millisecond; their times are of 30 units
        assert record.work == 30
        assert len(record.times_s) == 5
        assert min(record.times_s) >= 30e-4
        assert record.clock == "cpu"
        # two FLOP a unit by our count, which is the peer's work too
        assert record.flop == 60
        assert record.percent_of_peak == pytest.approx(100 * 60 / record.p50_s / 2e7)


def test_parts_of_ours_are_records_of_their_own(one):
    found, _ = one
    assert named(found, "sums: second half").times_s == [0.75] * 5
    assert not [r for r in found.records if r.provider == "peer" and ":" in r.what]


def test_short_work_is_repeated_within_a_turn(one):
    found, _ = one
    repeated = named(found, "repeated")
    assert len(repeated.times_s) == 3
    assert (repeated.work, repeated.flop, repeated.peak) == (1.0, None, None)


def test_peers_that_are_absent_or_fail_are_skipped_by_name(one):
    found, _ = one
    where = "sums (terms 10, kind int)"
    assert found.skipped == {
        "absent": "no_such_module is not installed",
        f"elsewhere, {where}": "it needs a GPU",
        f"broken, {where}": "failed, RuntimeError: out of luck",
        f"late, {where}": "failed, RuntimeError: out of luck",
        "fastreason, nobody": "it needs a GPU",
    }
    # what failed in its second turn does not count with the first
    assert {r.provider for r in found.records} == {"fastreason", "peer"}


def test_ours_failing_fails_the_suite_and_hides_nobody(tmp_path):
    found, calls = collected(tmp_path, Settings(threads=3, quick=True, reference=tmp_path))
    assert "out of luck" in found.failure
    assert calls[0] == f"threads 3, reference {tmp_path}"
    sums = named(found, "sums")
    # quick: two turns; several threads: the clock on the wall, and the peak of all cores
    assert (len(sums.times_s), sums.clock) == (2, "wall")
    assert sums.percent_of_peak == pytest.approx(100 * sums.flop / sums.p50_s / 1e9)


def test_a_suite_that_cannot_be_loaded_says_so():
    found = run_suite("tests.bench.no_such_suite", Settings(), {})
    assert found.records == []
    assert "No module named 'tests.bench.no_such_suite'" in found.failure


def test_one_of_the_questions_can_be_asked_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTREASON_TEST_CALLS", str(tmp_path / "calls"))
    found = run_suite("tests.bench.small_suite", Settings(quick=True), {}, only="repeated")
    assert {one.what for one in found.records} == {"repeated"} and not found.failure


def test_the_table_shows_ours_and_each_peer(one):
    found, _ = one
    run = new_run(found.records, threads=1, peaks=PEAKS, skipped=found.skipped | {"late, other": "it needs a GPU"})
    text = format_run(run, "2 hours ago")
    assert "peaks, measured 2 hours ago: matmul_one_core" in text
    (line,) = [line for line in text.splitlines() if "small_suite: sums;" in line]
    cells = [cell.strip() for cell in line.split("|")][1:-1]
    assert cells[0] == "small_suite: sums; terms 10, kind int"
    assert cells[1].endswith(" terms/CPU-s")
    assert cells[3].endswith(" %")
    assert cells[4] == "peer"
    assert cells[6].endswith(" x")
    assert "- absent: no_such_module is not installed" in text
    assert "% of it" in text


def test_a_ratio_and_its_spread_are_of_turns():
    ours = Record("s", "w", "fastreason", {}, "units", 2.0, [1.0, 2.0, 4.0], "cpu")
    peer = Record("s", "w", "peer", {}, "units", 1.0, [1.0, 2.0, 4.0], "cpu")
    counts = [Record("s", "c", name, {}, "bytes", n, [], "count") for name, n in (("fastreason", 10), ("floor", 8))]
    rows = [[cell.strip() for cell in line.split("|")][1:-1] for line in table([ours, peer, *counts]).splitlines()[2:]]
    # every turn of the peer does half the work in the same time
    assert rows[0][4:] == ["peer", "0.5 units/CPU-s", "2 x", "2 - 2"]
    assert rows[0][1:3] == ["1 units/CPU-s", "0.625 - 1.43"]
    assert rows[1] == ["s: c", "10 bytes", "", "", "floor", "8 bytes", "0.8 x", ""]


def test_counts_that_equal_their_budget_are_only_numbered():
    budgeted = [Record("audit", "r", name, {}, "registers", 32, [], "count") for name in ("fastreason", "budget")]
    other = [
        Record("audit", "q", name, {}, "registers", n, [], "count") for name, n in (("fastreason", 33), ("budget", 32))
    ]
    text = table([*budgeted, *other])
    assert "audit: r" not in text
    assert "audit: q" in text
    assert "1 counts of kernels equal their budgets" in text


def worker(tmp_path, body, threads=1):
    """A worker process with this body."""
    module = tmp_path / "worker_for_test.py"
    module.write_text(body)
    return worker_process.contestant(module.stem, steps=3, threads=threads)


def test_a_worker_does_what_it_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    contestant = worker(
        tmp_path,
        "from bench.harness.worker_process import serve\n"
        "serve(lambda report: (sum(range(10**6)), report.add(2, 5.0, waiting=0.5), print('noise')), warm_up=4)\n",
    )
    work = contestant.start()
    before = contestant.clock()
    # three steps, without those of the warm-up; other lines of the process are no answers
    assert work() == work() == Done(6, 15.0, parts={"waiting": 1.5})
    assert contestant.clock() > before
    contestant.stop()


def test_several_threads_are_timed_by_the_clock_on_the_wall(tmp_path):
    assert worker(tmp_path, "", threads=2).clock is None
    assert worker(tmp_path, "").clock is not None


def test_a_worker_of_another_environment_reads_a_folder(tmp_path, monkeypatch):
    """Only its file is run, beside no module of its folder; without the variable it takes no part."""
    (tmp_path / "neighbours").mkdir()
    (tmp_path / "neighbours" / "json.py").write_text("raise ValueError('a neighbour')")
    (tmp_path / "neighbours" / "peer.py").write_text(
        "import json, sys; from pathlib import Path\n"
        "say = lambda **of: print('RESULT ' + json.dumps(of), flush=True)\n"
        "work = float(Path(sys.argv[1], 'work').read_text()); say(ready=True)\n"
        "for line in sys.stdin: say(work=work * int(line), flop=0, parts=dict(zip(sys.argv[2:], range(9))))\n"
    )
    monkeypatch.setattr(worker_process, "ROOT", tmp_path)
    folders = []

    def prepare(folder):
        folders.append(folder)
        (folder / "work").write_text("1.5")

    one = worker_process.contestant("neighbours.peer", "x", steps=2, threads=3, python_in="PEERS", prepare=prepare)
    assert one.missing() == "PEERS is not set"
    monkeypatch.setenv("PEERS", sys.executable)
    assert one.start()() == Done(3.0, None, parts={"x": 0, "3": 1})
    one.stop()
    assert not folders[0].exists()


def test_a_worker_that_fails_says_why(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    contestant = worker(tmp_path, "raise ValueError('no luck')")
    with pytest.raises(RuntimeError, match="worker_for_test 1 ended with status 1: ValueError: no luck"):
        contestant.start()
    contestant.stop()


def test_a_trainer_waits_between_rounds(monkeypatch, capsys):
    """Its callback says when the steps of the warm-up are done, then lets it go on as far as it is asked to."""
    monkeypatch.setattr(worker_process, "orders", lambda: iter([2, 1]))
    report = worker_process.Report()
    rounds = worker_process.rounds_of(object, report, 3)
    for _ in range(6):
        rounds.on_step_begin()
        report.add(1.0, 2.0)
        rounds.on_step_end()
    said = [json.loads(line.removeprefix("RESULT ")) for line in capsys.readouterr().out.splitlines()]
    assert said == [{"ready": True}, {"work": 2.0, "flop": 4.0, "parts": {}}, {"work": 1.0, "flop": 2.0, "parts": {}}]


def test_missing_modules_are_named():
    assert Contestant(lambda: lambda: 1.0).missing() == ""
    assert Contestant(lambda: lambda: 1.0, needs=("json", "no_a", "no_b")).missing() == "no_a, no_b is not installed"
