"""The page of several seeds: its figures are those of the results, and it keeps what they were read from, no more."""

import json
import sys

import pytest

from bench.pages import seeds_page
from fastreason.studies.recipe import load_recipe


def write_run(folder, seed, *, edge):
    """A run of four samples of each of two problems, all right at op 2 and `edge` of each right at op 6 after RL."""

    def stage(right):
        counts = {"2": [4, 4], "6": [right, right]}
        ops = {op: {"verified": {"1": sum(n) / 8, "4": float(sum(n) > 0)}} for op, n in counts.items()}
        problems = {op: {"theme": ["symbolic"] * 2, "verified": n} for op, n in counts.items()}
        return {"ops": ops, "problems": problems, "traces": [{"prompt": "long"}], "samples": 16}

    folder.mkdir(parents=True)
    load_recipe("quickstart", {"seed": seed, "threads": 1}).save(folder / "recipe.toml")
    results = {
        "recipe": "quickstart",
        "seed": seed,
        "machine": {"cpu": "A CPU", "fastreason": "0.1", "torch": "2.0"},
        "ranges": {"in-distribution": [2], "edge": [6]},
        "stages": {"midtrain": stage(1), "rl": stage(edge)},
        "seconds": {"midtrain": 1.0, "rl": 2.0},
        "evaluation_seconds": {"midtrain": 3.0, "rl": 3.0},
    }
    (folder / "results.json").write_text(json.dumps(results))
    (folder / "metrics.jsonl").write_text("{}\n")
    return folder


@pytest.fixture
def written(tmp_path, monkeypatch):
    runs = [write_run(tmp_path / f"run-{seed}", seed, edge=2 + seed) for seed in (0, 1)]
    out = tmp_path / "out"
    (out / "quickstart" / "seed-9").mkdir(parents=True)
    monkeypatch.setattr(sys, "argv", ["seeds_page", *map(str, runs), "--out", str(out), "--note", "A note."])
    seeds_page.main()
    return out


def test_means_and_gains_are_those_of_the_runs(written):
    page = (written / "quickstart.md").read_text()
    assert "seeds 0, 1; A CPU, 1 thread(s)" in page and "A note." in page
    assert "| reinforcement learning | 100.0 (100.0 - 100.0) | 62.5 (50.0 - 75.0) | 2 | 5 |" in page
    assert "| reinforcement learning | pass@1 | +0.0 [+0.0, +0.0] | +37.5 [" in page
    assert (written / "quickstart.svg").read_text().startswith("<svg")


def test_recipe_and_results_of_these_seeds_are_kept_without_traces(written):
    place = written / "quickstart"
    kept = sorted(str(file.relative_to(place)) for file in place.rglob("*") if file.is_file())
    assert kept == [f"seed-{seed}/{name}" for seed in (0, 1) for name in ("recipe.toml", "results.json")]
    assert not (place / "seed-9").exists()
    results = json.loads((place / "seed-1" / "results.json").read_text())
    assert results["stages"]["rl"]["traces"] == []
    assert results["stages"]["rl"]["problems"]["6"]["verified"] == [3, 3]
