"""What changed between runs: simulated ones whose truth is known, recorded ones, and a history on disk.

No test times anything. real_runs/ holds recorded runs of nine small operations: five as they are, and two that drew
20 % more problems than they said.
"""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.harness.records import read_run, write_run
from bench.regressions import history
from bench.regressions.compare import ALLOWED, command, compare, main, report
from bench.regressions.history import MOST_BYTES, add, entries, latest
from bench.regressions.noise import Figure, changes, t_quantile

from .noise_simulation import CPU, WALL, rates
from .runs import CLASS, record, run, simulated_runs

REAL = Path(__file__).with_name("real_runs")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(history, "HISTORY", tmp_path / "history")
    return tmp_path / "history"


def slow(found):
    return [one.new.what for one in found if one.change.slower_by(ALLOWED)]


# of 60 seeds; docs/benchmarks.md has the shares of 400
@pytest.mark.parametrize(
    "noise, runs, most_false, least_caught",
    [
        (CPU, (3, 3), 0.04, 0.88),
        pytest.param(CPU, (1, 1), 0.07, 0.35, marks=pytest.mark.slow),
        pytest.param(CPU, (5, 1), 0.07, 0.7, marks=pytest.mark.slow),
        pytest.param(WALL, (5, 5), 0.05, 0.5, marks=pytest.mark.slow),
    ],
)
def test_noise_is_hardly_ever_an_alarm_and_a_fifth_is_seen(noise, runs, most_false, least_caught):
    false, caught, accused = rates(noise, runs, range(60), 1.2)
    assert false <= most_false
    assert caught >= least_caught
    assert accused <= most_false


def test_five_runs_of_noise_raise_no_alarm():
    """Each against the other four, in ten simulated fives: one alarm may be."""
    alarms = 0
    for seed in range(10):
        _, runs = simulated_runs(seed, (1, 5))
        alarms += sum(bool(slow(compare(runs[:i] + runs[i + 1 :], [one])[0])) for i, one in enumerate(runs))
    assert alarms <= 1


def test_a_machine_that_is_half_as_fast_is_not_a_regression():
    base, new = simulated_runs(3, (3, 3))
    twice = [replace(r, records=[replace(x, times_s=[2 * t for t in x.times_s]) for x in r.records]) for r in new]
    found, notes = compare(base, twice)
    assert slow(found) == []
    (note,) = notes
    assert "12 figures of peers" in note
    assert 80 < float(note.split("took +")[1].split(" %")[0]) < 120


def test_a_slow_down_of_everything_of_ours_is_seen_beside_peers():
    base, new = simulated_runs(4, (3, 3), slower=dict.fromkeys(range(40), 1.3))
    assert len(slow(compare(base, new)[0])) >= 36


def test_without_peers_it_is_said_that_a_slow_down_of_everything_would_not_be_seen():
    base, new = simulated_runs(5, (3, 3), num_peers=0, slower=dict.fromkeys(range(40), 1.3))
    found, notes = compare(base, new)
    assert slow(found) == []
    assert "a slow-down of everything would not be seen" in notes[0]


def test_what_a_neighbour_does_to_a_figure_and_to_its_peer_alike_is_taken_out():
    """Half of the figures are hit in the new run, by as much as their peers that took turns with them."""
    rng = np.random.default_rng(0)
    hit = {i: 1.0 + 0.5 * (i % 2) for i in range(12)}

    def times(factor):
        return [np.exp(0.01 * rng.standard_normal(7)) * factor]

    figures = [Figure((i,), peer, times(1.0), times(hit[i])) for peer in (False, True) for i in range(12)]
    found, _ = changes(figures)
    assert not any(change.slower_by(ALLOWED) for change in found[:12])


def test_the_band_knows_turns_that_scatter_and_runs_that_disagree():
    rng = np.random.default_rng(1)

    def figure(turn, between=0.0, runs=4):
        sides = [[np.exp(between * rng.standard_normal() + turn * rng.standard_normal(9)) for _ in range(runs)]] * 2
        return Figure(("f", turn, between), False, *sides)

    quiet = [figure(0.01) for _ in range(10)]
    found, _ = changes([*quiet, figure(0.3), figure(0.01, between=0.3)])
    usual = np.median([change.band for change in found[:10]])
    assert found[10].band > 3 * usual and found[11].band > 3 * usual


@pytest.mark.parametrize("df, p, want", [(8, 0.995, 3.355), (8, 0.9995, 5.041), (16, 0.995, 2.921), (30, 0.975, 2.042)])
def test_quantiles_of_student(df, p, want):
    """Tables of Student's t; the expansion is within 1 %."""
    assert t_quantile(p, df) == pytest.approx(want, rel=0.01)


def test_sides_need_the_same_runs_for_every_figure():
    one = np.ones(3)
    with pytest.raises(ValueError, match="at least one a side"):
        changes([Figure((0,), False, [one], [])])
    with pytest.raises(ValueError, match="the same runs"):
        changes([Figure((0,), False, [one], [one]), Figure((1,), False, [one, one], [one])])


def test_real_runs_agree_with_each_other():
    """Recorded on a machine that others used too: five runs as they are."""
    plain = [read_run(path) for path in sorted(REAL.glob("plain-*.json"))]
    assert len(plain) == 5
    for i, one in enumerate(plain):
        assert slow(compare(plain[:i] + plain[i + 1 :], [one])[0]) == []


def test_a_planted_slow_down_is_seen_in_real_runs():
    """Two more that drew 20 % more problems than they said."""
    plain, planted = ([read_run(path) for path in sorted(REAL.glob(f"{kind}-*.json"))] for kind in ("plain", "planted"))
    assert slow(compare(plain, planted)[0]) == ["drawing problems"]


def test_a_regression_exits_1_and_is_named(tmp_path, capsys):
    base, new = simulated_runs(6, (3, 3), slower={7: 1.3})
    paths = [_written(tmp_path, f"{i}.json", one) for i, one in enumerate([*base, *new])]
    assert main(paths[3:], against=paths[:3]) == 1
    out = capsys.readouterr().out
    assert "1 of 40 figures slower by more than 5 % beyond noise: tasks: figure 7 (op 5) +" in out
    assert out.count("SLOWER") == 1
    assert main(paths[:3], against=paths[3:]) == 0
    assert capsys.readouterr().out.count("faster") == 1


def _written(folder, name, one):
    write_run(folder / name, one)
    return folder / name


def test_noise_exits_0(tmp_path, capsys):
    base, new = simulated_runs(8, (2, 2))
    paths = [_written(tmp_path, f"{i}.json", one) for i, one in enumerate([*base, *new])]
    assert main(paths[2:], against=paths[:2]) == 0
    assert "40 figures, none slower by more than 5 % beyond noise." in capsys.readouterr().out


def test_other_machines_are_compared_only_when_asked(tmp_path, capsys):
    base, new = simulated_runs(0)
    old = replace(base[0], machine=base[0].machine | {"class": "other-64c"})
    paths = [_written(tmp_path, name, one) for name, one in (("old.json", old), ("new.json", new[0]))]
    assert main(paths[1], against=paths[0]) == 2
    assert f"different machines: other-64c, {CLASS}; --any-machine" in capsys.readouterr().out
    assert command([str(paths[1]), "--against", str(paths[0]), "--any-machine"]) == 0


def test_nothing_in_common_exits_2(tmp_path, capsys):
    paths = [_written(tmp_path, f"{what}.json", run([record(what)])) for what in ("drawing", "grading")]
    assert main(paths[0], against=paths[1]) == 2
    assert "no figure of fastreason in common" in capsys.readouterr().out
    other = _written(tmp_path, "two.json", run([record()], threads=2))
    assert main(other, against=paths[0]) == 2
    assert "as many threads, got [1, 2]" in capsys.readouterr().out


def test_files_that_are_none_exit_2(tmp_path, capsys):
    assert command([str(tmp_path / "missing.json")]) == 2
    assert "missing.json" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        command([])


def test_peers_of_other_versions_are_no_controls():
    base, new = simulated_runs(1)
    newer = replace(new[0], versions=new[0].versions | {"torch": "2.14.0"})
    _, notes = compare(base, [newer])
    assert notes[0] == "torch differs (2.13.0, 2.14.0): peers say nothing about the machine and are left out."
    assert "for want of 4 of peers" in notes[1]


def test_our_own_variants_are_neither_peers_nor_figures():
    figures = [record(), record(provider="one thread"), record(provider="transformers")]
    found, notes = compare([run(figures)], [run(figures)])
    assert [one.new.provider for one in found] == ["fastreason"]
    assert notes == ["cpu time: 2 figures do not tell whether the machine itself changed; the bands are wide."]


def test_a_few_figures_alone_are_neither_taken_for_drift_nor_trusted():
    """One figure that became half as fast: its change is shown whole, and its band allows for a slower machine."""
    one, other = (run([record(times_s=[t, 1.01 * t, 1.02 * t])]) for t in (0.1, 0.2))
    (found,), _ = compare([one], [other])
    assert found.change.change == pytest.approx(math.log(2))
    assert found.change.band > 0.5
    (found,), _ = compare([one] * 5, [other] * 5)
    assert found.verdict == "SLOWER"


def test_counts_have_no_noise():
    def counted(work):
        return run([record("bytes of a norm", times_s=[], clock="count", unit="bytes", work=work)])

    assert slow(compare([counted(100.0)], [counted(104.0)])[0]) == []
    (one,), _ = compare([counted(100.0)], [counted(106.0)])
    assert one.verdict == "SLOWER" and one.change.band == 0.0
    assert one.change.change == pytest.approx(math.log(1.06))
    assert "100 bytes" in report([one], [])


def test_figures_that_only_some_runs_have_are_counted():
    both = [record(), record("grading", times_s=[1.0])]
    found, notes = compare([run(both)], [run([record(), record("grading", times_s=[1.0], clock="wall")])])
    assert len(found) == 1
    assert notes[-1].startswith("1 figures are not in every run")


def test_the_history_is_small_named_and_of_commits(tmp_path, folder):
    many = [record(f"figure {i}", times_s=np.linspace(0.1, 0.2, 99)) for i in range(150)]
    many += [record("bytes", name, times_s=[], clock="count") for name in ("fastreason", "floor")]
    hosted = run([]).machine | {"os": "Linux-6.1-of-some-host"}
    path = add(_written(tmp_path, "run.json", run(many, machine=hosted)))
    assert "some-host" not in path.read_text()
    assert path.name == f"20260131T120000-0123abc-{CLASS}.json"
    assert path.stat().st_size <= MOST_BYTES
    kept = read_run(path).records[7]
    assert [one.provider for one in read_run(path).records if one.what == "bytes"] == ["fastreason"]
    assert len(kept.times_s) < 99 and kept.p50_s == pytest.approx(0.15, rel=1e-4)
    assert kept.p20_s == pytest.approx(0.12, rel=0.02)
    with pytest.raises(ValueError, match="is there already"):
        add(tmp_path / "run.json")
    for wrong in (run(many, commit="0123abc-dirty"), run(many, commit="unknown")):
        with pytest.raises(ValueError, match="must be of a commit"):
            add(_written(tmp_path, "wrong.json", wrong))
    with pytest.raises(ValueError, match="has no records"):
        add(_written(tmp_path, "wrong.json", run([])))


def test_a_run_that_stays_too_large_is_refused(tmp_path, folder):
    many = [record(f"figure {i} {'x' * 2000}") for i in range(60)]
    with pytest.raises(ValueError, match="more than 100000"):
        add(_written(tmp_path, "run.json", run(many)))
    assert list(folder.glob("*")) == []


def test_the_latest_of_the_class_and_of_its_commit_is_compared_with(tmp_path, folder, capsys):
    def at(day, commit, machine_class=CLASS):
        machine = run([]).machine | {"class": machine_class}
        one = run([record()], date=f"2026-02-{day:02}T00:00:00+00:00", commit=commit, machine=machine)
        return add(_written(tmp_path, f"{day}.json", one))

    assert main(_written(tmp_path, "new.json", run([record()]))) == 2
    assert f"bench/regressions/history has no run of {CLASS}" in capsys.readouterr().out
    at(1, "aaaaaaa")
    second, third = at(2, "bbbbbbb"), at(3, "bbbbbbb")
    at(4, "ccccccc", "other-64c")
    assert latest(CLASS) == [second, third]
    assert [path.name for path, _ in entries("other-64c")] == ["20260204T000000-ccccccc-other-64c.json"]
    # a run of the history is compared with what was before it
    assert latest(CLASS, other_than=[read_run(third)]) == [second]
    assert main(_written(tmp_path, "new.json", run([record()]))) == 0
    assert "1 run of 0123abc (2026-01-31T12:00) against 2 runs of bbbbbbb" in capsys.readouterr().out


def test_the_committed_history_can_be_read():
    for path, one in entries():
        assert path.stat().st_size <= MOST_BYTES
        assert path.name.endswith(f"{one.machine['class']}.json")
        assert "dirty" not in one.commit
