"""The surface of question-flop: it finds what made the scores, and its page says so."""

import json
import re
import sys
from xml.etree import ElementTree

import numpy as np
import pytest

from bench.pages import frontier
from bench.pages.frontier import Scores, Surface, terms
from fastreason.studies.run_study import conclude, prepare
from fastreason.studies.study import load_study
from fastreason.studies.work_units import distinct_units
from fastreason.training.budget import Budget
from tests.studies.synthetic import write_outcomes

TRUTH = np.array([-1.0, 1.5, -0.3, 8.0, 2.0, 3.0, -4.0, 5.0])
SPLITS = ((0.0, 0.0), (0.2, 0.0), (0.0, 0.2), (0.1, 0.1))


def scores_from(truth, problems, noise, random):
    """Scores of 12 variants and 3 seeds, whose problems are right as often as the surface says, or not."""
    places = np.array([(x, *split) for x in (-0.5, 0.0, 0.5) for split in SPLITS])
    logits = terms(*places.T) @ truth
    skill = logits[:, None, None] + noise * random.standard_normal((1, 3, 1)) + np.zeros((12, 3, problems))
    values = random.binomial(128, 1 / (1 + np.exp(-skill))) / 128
    names = [f"{i}" for i in range(12)]
    return Scores(names, *places.T, values, np.full(problems, 1 / problems), np.arange(problems) % 3)


def test_the_surface_that_made_the_scores_is_found():
    surface = Surface(scores_from(TRUTH, 3000, 0.0, np.random.default_rng(1)))
    assert surface.fitted == pytest.approx(TRUTH, abs=0.3)
    assert surface.error() < 0.01
    assert surface.at(TRUTH, 0.0, 0.2, 0.0) == pytest.approx(1 / (1 + np.exp(1.0 - 1.6)))


def test_intervals_hold_the_truth(monkeypatch):
    """Of 40 worlds whose seeds differ, at least as many as 95 % leave likely."""
    monkeypatch.setattr(frontier, "_DRAWS", 60)
    random, inside = np.random.default_rng(2), 0
    for _ in range(40):
        surface = Surface(scores_from(TRUTH, 180, 0.1, random))
        low, high = surface.gain(0.0, 0.2, 0.0)[1]
        inside += low <= surface.at(TRUTH, 0.0, 0.2, 0.0) - surface.at(TRUTH, 0.0, 0.0, 0.0) <= high
    assert inside >= 34


def test_intervals_stay_where_a_share_can_be():
    """One level is at the floor, one at the ceiling."""
    steep = np.array([0.0, 25.0, 0.0, 4.0, 0.0, 4.0, 0.0, 0.0])
    surface = Surface(scores_from(steep, 60, 2.0, np.random.default_rng(3)))
    for x in (-0.5, 0.0, 0.5):
        for found, low, high in ((surface.share(x, 0.2, 0.0), 0.0, 1.0), (surface.gain(x, 0.2, 0.0), -1.0, 1.0)):
            assert low <= found[1][0] <= found[0] <= found[1][1] <= high


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A world in which mid-training alone adds anything, and compute nothing."""
    folder = tmp_path_factory.mktemp("flop")
    study, run = load_study("question-flop", size="laptop"), folder / "run"
    prepare(run, study, False)
    logits = {name: 12.0 if name.endswith("mid") else 10.0 for name in study.variants}
    both = {name: dict.fromkeys((9, 10, 11), value) for name, value in logits.items()}
    runs = write_outcomes(study, run / "stages", both)
    for unit in distinct_units(runs):
        if unit.kind != "evaluate":
            path = run / "stages" / unit.key / "done.json"
            path.write_text(
                json.dumps(json.loads(path.read_text()) | {"flop": Budget.parse(unit.settings.budget).amount})
            )
    conclude(study, runs, run, run / "stages")
    page = folder / "page.md"
    page.write_text("<!-- frontier -->\n<!-- /frontier -->\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["frontier", str(run), "--out", str(folder), "--docs", str(page)])
        frontier.main()
    return folder


def test_the_page_says_what_each_split_gains_at_each_level(written):
    rows = re.findall(
        r"^\| +([\d.]+x[^|]*?) +\|([^|]*)\|([^|]*)\|([^|]*)\|([^|]*)\|", (written / "page.md").read_text(), re.M
    )
    assert [row[0] for row in rows] == ["0.3x", "1x", "3x"] * 2
    for _, _, mid, rl, _ in rows[:3]:
        assert float(mid.split("[")[1].split(",")[0]) > 5.0
        assert abs(float(rl.split("[")[0])) < 1.0


def test_the_picture_has_a_point_for_each_level_and_split(written):
    drawn = (written / "question-flop-1.svg").read_text()
    ElementTree.fromstring(drawn)
    said = re.findall(r'aria-label="([^"]*)"', drawn)
    splits = ("all on pre", "20 % on mid", "20 % on RL", "10 % on each")
    assert [sum(text.startswith(split) for text in said) for split in splits] == [3, 3, 3, 3]
