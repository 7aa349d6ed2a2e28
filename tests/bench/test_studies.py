"""Pages of finished studies: their figures are those of results.json, and what is kept makes the report again."""

import re
import sys
from xml.etree import ElementTree

import numpy as np
import pytest

from bench.pages import study_pages
from fastreason.reports.study_page import write_report
from fastreason.studies.effects import Values
from fastreason.studies.run_study import conclude, prepare
from fastreason.studies.study import load_study
from fastreason.studies.work_units import study_runs
from tests.studies.synthetic import EDGE_STUDY, write_outcomes

GAIN = {"mixed": {6: 1.0}, "edge": {6: 2.5, 7: 2.0}}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("studies")
    study = load_study(EDGE_STUDY, size="laptop")
    run = folder / "run"
    prepare(run, study, False)
    runs = write_outcomes(study, run / "stages", GAIN)
    results = conclude(study, runs, run, run / "stages")
    docs = folder / "page.md"
    docs.write_text("<!-- findings -->\n<!-- /findings -->\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study_pages.shutil, "which", lambda name: None)
        more = ["--note", "A note.", "--picture", "edge:none=no RL,edge", "--gains", "1:none/edge,none/mixed=both"]
        patch.setattr(sys, "argv", ["studies", str(run), "--out", str(folder / "out"), "--docs", str(docs), *more])
        study_pages.main()
    return folder, results


def test_verdicts_and_effects_are_those_of_the_results(written):
    folder, results = written
    page = (folder / "out" / "edge-study.md").read_text()
    assert "A note." in page
    for text in (page, (folder / "page.md").read_text()):
        rows = {row.split("|")[1 if text is page else 2].strip(): row for row in text.splitlines() if "**" in row}
        assert len(rows) == len(results["claims"])
        for claim in results["claims"]:
            row = rows[claim["text"]]
            assert f"**{claim['verdict']}**" in row
            assert f"{100 * claim['effect']:+.1f} [" in row
            # claims of one text at several k are told apart
            assert f"@{claim['k']}" in row if text is page else row.split("|")[3].strip() == str(claim["k"])


def test_the_picture_says_each_variant_at_each_k(written):
    """A file of its own, with colors for light and dark pages; the base of a paired difference has no interval."""
    drawn = (written[0] / "out" / "edge-study.svg").read_text()
    assert "![verified pass@k over k](edge-study.svg)" in (written[0] / "out" / "edge-study.md").read_text()
    ElementTree.fromstring(drawn)
    assert "prefers-color-scheme: dark" in drawn
    ks = load_study(EDGE_STUDY, size="laptop").variants["none"].evaluate.k
    said = re.findall(r'aria-label="([^"]*)"', drawn)
    for name, interval in (("no RL", False), ("edge", True)):
        points = [text for text in said if text.startswith(name)]
        assert len(points) == len(ks)
        assert all(("interval" in text) == interval for text in points), points


def test_whiskers_end_where_a_share_ends():
    """A difference of shares around a share that is near an end could be drawn below 0 or above 100 %."""
    low, high = (Values(np.full(4, end), np.full(4, 0.25), np.arange(4)) for end in (0.0, 1.0))
    point, (below, above) = study_pages.paired([low], [low])
    assert (point, below) == (0.0, 0.0) and 0.0 < above < 1.0
    point, (below, above) = study_pages.paired([low], [high])
    assert (point, above) == (1.0, 1.0) and 0.0 < below < 1.0
    assert study_pages.paired([high], [low])[1][0] == 0.0


def test_pages_made_from_what_is_kept_keep_it(written, monkeypatch):
    out = written[0] / "out"
    kept = (out / "edge-study" / "results.json").read_bytes()
    monkeypatch.setattr(study_pages.shutil, "which", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["studies", str(out / "edge-study"), "--out", str(out), "--note", "A note."])
    study_pages.main()
    assert (out / "edge-study" / "results.json").read_bytes() == kept
    assert (out / "edge-study" / "study.toml").is_file()


def test_gains_are_drawn_over_what_the_base_has(written):
    drawn = (written[0] / "out" / "edge-study-gains.svg").read_text()
    ops = load_study(EDGE_STUDY, size="laptop").variants["none"].evaluate.mixture[0]["op"]
    said = re.findall(r'aria-label="([^"]*)"', drawn)
    for name in ("edge", "both"):
        points = [text for text in said if text.startswith(name)]
        assert len(points) == len(ops) and all("interval" in text for text in points)


def test_every_variant_is_scored_once(written):
    page = (written[0] / "out" / "edge-study.md").read_text()
    rows = re.findall(
        r"^\| (none|in-distribution|mixed|edge|hard) +\| +(pre-training|reinforcement learning) ", page, re.M
    )
    assert [variant for variant, _ in rows] == ["none", "in-distribution", "mixed", "edge", "hard"]


def test_the_report_is_made_again_from_what_is_kept(written):
    place = written[0] / "out" / "edge-study"
    report = write_report(place).read_text()
    assert "does not hold" in report or "holds" in report
    assert sorted(file.name for file in place.iterdir()) == ["report.html", "results.json", "study.toml"]


def test_an_unfinished_study_is_refused(tmp_path, monkeypatch, capsys):
    study = load_study(EDGE_STUDY, size="laptop")
    prepare(tmp_path / "run", study, False)
    conclude(study, study_runs(study), tmp_path / "run", tmp_path / "stages")
    monkeypatch.setattr(sys, "argv", ["studies", str(tmp_path / "run"), "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit):
        study_pages.main()
    assert "is not finished" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
