"""Tables and pictures of the documentation from what was measured."""

import re
from pathlib import Path

import pytest

from bench.harness.records import read_run, write_run
from bench.pages.benchmarks_page import PAGE, machine, main, marks, regenerate, section

from .runs import CLASS, record, run
from .test_sweeps import swept

TEXT = """# Benchmarks

<!-- bench machine -->

<!-- /bench machine -->

By hand.

<!-- bench tasks -->

old

<!-- /bench tasks -->
<!-- bench grade -->

of another day

<!-- /bench grade -->
<!-- bench sweep -->
<!-- /bench sweep -->
"""


@pytest.fixture
def page(tmp_path):
    path = tmp_path / "benchmarks.md"
    path.write_text(TEXT)
    return path


def test_a_table_says_machine_commit_peers_and_spread(page):
    peer = record(provider="reasoning-gym", times_s=[0.9, 1.1, 1.3])
    regenerate([run([record(percent_of_peak=50.0, peak="copy", bytes=1e9), peer])], page)
    text = page.read_text()
    assert "old" not in text and "By hand." in text and "of another day" in text
    assert f"`{CLASS}`, 1 thread, commit 0123abc, 2026-01-31: CPU time, medians of 3 turns" in text
    (row,) = [line for line in text.splitlines() if line.startswith("| tasks: drawing; op 5 ")]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[1:7] == ["909 problems/CPU-s", "862 - 962", "50 %", "reasoning-gym", "90.9 problems/CPU-s", "10 x"]
    assert "its peaks: matmul one core 100 GFLOP/s, copy one core 20 GB/s" in text
    assert "fastreason 0.1.0, torch 2.13.0" in text and "took no part: trl: trl is not installed" in text


def test_the_same_runs_give_the_same_page(page):
    for _ in range(2):
        regenerate([run([record()])], page)
        found = page.read_text()
    regenerate([run([record()])], page)
    assert page.read_text() == found


def test_the_last_run_that_has_a_suite_counts(page):
    old = run([record(), record(suite="grade", what="grading")], commit="aaaaaaa")
    regenerate([old, run([record()], commit="bbbbbbb")], page)
    where = re.findall(r"commit (\w+), 2026-01-31: CPU", page.read_text())
    assert where == ["bbbbbbb", "aaaaaaa"]


def test_pictures_stand_where_the_sweep_has_its_place(page):
    regenerate([run(swept("attention, by context", "length", [(64, 10.0), (128, 20.0)]))], page)
    text = page.read_text()
    assert "![Attention, forward and backward, by context length](bench/attention.svg)" in text
    assert text.count("![") == 1
    busy = swept("attention, by context", "length", [(64, 10.0)])
    said = section(run(busy, machine={"cpu": "Test CPU", "cores": 2, "class": CLASS, "load": 3.5}), "sweep")
    assert said.startswith(f"`{CLASS}`, 3.5 processes running when it began, commit 0123abc")
    # sweeps do not say what the suites ran on
    assert "its peaks" not in text


def test_counts_have_no_turns():
    one = record(times_s=[], clock="count")
    assert section(run([one]), "tasks").startswith(f"`{CLASS}`, 1 thread, commit 0123abc, 2026-01-31: counts.")


def test_a_suite_without_a_place_is_named_and_left(page, capsys):
    regenerate([run([record(), record(suite="audit", what="registers")])], page)
    assert "audit: benchmarks.md has no marks for it" in capsys.readouterr().out
    with pytest.raises(ValueError, match="has marks for machine, tasks, grade, sweep, the runs have audit"):
        regenerate([run([record(suite="audit", what="registers")])], page)


def test_the_command_reads_files_and_names_what_is_wrong(tmp_path, page, capsys):
    write_run(tmp_path / "run.json", run([record()]))
    assert main([str(tmp_path / "run.json"), "--page", str(page)]) == 0
    assert "909 problems/CPU-s" in page.read_text()
    assert main([str(tmp_path / "none.json"), "--page", str(page)]) == 2
    assert "none.json" in capsys.readouterr().err


def test_a_machine_without_peaks_and_gaps_says_less():
    text = machine(run([record()], peaks={}, skipped={}))
    assert "peaks" not in text and "took no part" not in text


def test_the_page_has_a_place_for_every_suite_that_is_timed():
    assert set(marks(PAGE)) >= {
        "machine", "tasks", "grade", "grade_files", "groups", "train", "rollout", "rl", "kernels", "sweep",
    }  # fmt: skip
    text = PAGE.read_text(encoding="utf-8")
    for name in marks(PAGE):
        assert text.count(f"<!-- /bench {name} -->") == 1
    for picture in re.findall(r"\]\((bench/\w+\.svg)\)", text):
        assert (PAGE.parent / picture).exists()


def test_what_the_page_shows_is_what_was_measured():
    """Regenerating the pictures' place from the committed sweeps changes nothing."""
    sweeps = Path(PAGE.parent / "bench" / "sweeps.json")
    if sweeps.exists():
        between = PAGE.read_text(encoding="utf-8").split("<!-- bench sweep -->")[1].split("<!-- /bench sweep -->")[0]
        assert between.strip() == section(read_run(sweeps), "sweep")
