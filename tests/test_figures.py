"""Figures in README and docs are those of the committed results and of the code."""

import json
import re
import statistics
from pathlib import Path

import pytest

import fastreason as fr
from fastreason.studies.recipe import load_recipe

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"
STAGES = {"pretrain": "pre-training", "midtrain": "mid-training", "rl": "reinforcement learning"}


def text(path: str) -> str:
    return " ".join((ROOT / path).read_text(encoding="utf-8").split())


@pytest.fixture(scope="module")
def quickstart():
    """Results of the quickstart by seed."""
    return [json.loads(path.read_text()) for path in sorted((RESULTS / "quickstart").glob("seed-*/results.json"))]


def verified(results, stage, op, k=1):
    return 100 * results["stages"][stage]["ops"][str(op)]["verified"][str(k)]


def test_the_first_picture_of_the_readme():
    """Its effects are those of the study, and hold."""
    readme = text("README.md")
    results = json.loads((RESULTS / "finding-1-edge" / "results.json").read_text())
    claims = {claim["name"]: claim for claim in results["claims"] if claim["graphs"] == "all"}
    rises, within = claims["edge-rises"], claims["within-does-not"]
    assert "(docs/results/finding-1-edge.svg)" in readme and (RESULTS / "finding-1-edge.svg").exists()
    assert f"by {100 * rises['effect']:.1f} points at k = {rises['k']}" in readme
    assert f"in distribution it lowers it by {-100 * within['effect']:.1f}" in readme
    assert rises["verdict"] == within["verdict"] == "holds" and len(results["seeds"]) == 5


def test_the_sizes_that_pages_state(quickstart):
    recipe = load_recipe("quickstart")
    model = recipe.model.config(len(fr.Tokenizer.for_mixtures(recipe.mixtures())))
    millions = f"{fr.Decoder(model).num_parameters / 1e6:.2f} M"
    for page in ("README.md", "docs/evaluation.md", "docs/reproducing.md"):
        assert re.findall(r"(\d\.\d\d M)[ -]param", text(page))[0] == millions, page
    lengths = [results["tokens"]["rl"] for results in quickstart]
    assert len(lengths) == len(quickstart)
    evaluations = [results["stages"]["rl"] for results in quickstart]
    per_sample = statistics.mean(scores["tokens"] / scores["samples"] for scores in evaluations)
    evaluated = sorted(map(int, evaluations[0]["ops"]))
    claim = f"({per_sample:.0f} over the quickstart's own op {evaluated[0]}-{evaluated[-1]})"
    assert claim in text("docs/evaluation.md")


def test_every_score_of_the_quickstart_page(quickstart):
    page, checked = (RESULTS / "quickstart.md").read_text(encoding="utf-8"), 0
    for stage, title in STAGES.items():
        for k in (1, 8, 32):
            (row,) = re.findall(rf"^\| {title} \| pass@{k} \| (\d.*) \|$", page, flags=re.M)
            for op, cell in zip(quickstart[0]["stages"][stage]["ops"], row.split(" | "), strict=True):
                scores = [verified(results, stage, op, k) for results in quickstart]
                assert cell == f"{statistics.mean(scores):.1f} ({min(scores):.1f} - {max(scores):.1f})"
                checked += 1
    assert checked == 63


@pytest.mark.parametrize("study", sorted(path.parent.name for path in RESULTS.glob("finding-*/results.json")))
def test_every_effect_of_a_study_page(study):
    results = json.loads((RESULTS / study / "results.json").read_text())
    page = (RESULTS / f"{study}.md").read_text(encoding="utf-8")
    summary = (ROOT / "docs" / "reproducing.md").read_text(encoding="utf-8")
    assert results["claims"]
    for claim in results["claims"]:
        if claim["effect"] is None:
            continue
        effect = f"| {100 * claim['effect']:+.1f} ["
        rows = [row for row in page.splitlines() if claim["text"] in row and effect in row]
        assert rows, (study, claim["text"], effect)
        if f"results/{study}.md" in summary.split("<!-- findings -->")[1].split("<!-- /findings -->")[0]:
            assert [row for row in summary.splitlines() if claim["text"] in row and effect in row], claim["text"]
