"""The page of how a recipe ends: its figures and verdicts are those of the runs, which are not made twice."""

import json
import sys

import pytest

from bench.pages import robustness
from bench.pages.robustness import VARIANTS, Ending, Variant

OPS = ["2", "3", "6"]


def write_run(folder, *, finished=1.0, stopped=1.0, after=(0.9, 0.8, 0.5), losses=(3.0, 2.0)):
    """A run whose pass@1 before RL is 0.9, 0.8 and 0.3."""
    folder.mkdir(parents=True)

    def stage(scores):
        ops = {op: {"verified": {"1": p, "8": min(1.0, p + 0.1)}} for op, p in zip(OPS, scores, strict=True)}
        ranges = {"in-distribution": {"verified": {"1": sum(scores[:2]) / 2}}, "edge": {"verified": {"1": scores[2]}}}
        for entry in ranges.values():
            entry["stopped"] = stopped
        return {"ops": ops, "ranges": ranges}

    results = {
        "recipe": "small",
        "machine": {"cpu": "A CPU", "cores": 2, "torch": "2.0", "fastreason": "0.1"},
        "ranges": {"in-distribution": [2, 3], "edge": [6]},
        "stages": {"midtrain": stage((0.9, 0.8, 0.3)), "rl": stage(after)},
    }
    lines = [{"stage": "pretrain", "loss": loss} for loss in losses]
    lines += [{"stage": "rl", "finished": 0.0, "mean_length": 30.0, "warnings": ["length: samples stop early"]}]
    lines += [{"stage": "rl", "finished": finished, "mean_length": 32.0}] * robustness.LAST_STEPS
    (folder / "results.json").write_text(json.dumps(results))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "arithmetic.json").write_text(json.dumps({"torch": "AVX2", "cpu_s": 90.0}))


@pytest.mark.parametrize(
    ("run", "is_well"),
    [
        ({}, True),
        ({"finished": 0.98}, False),
        ({"stopped": 0.98}, False),
        ({"after": (0.9, 0.8, 0.3)}, False),
        ({"after": (0.9, 0.72, 0.5)}, True),
        ({"after": (0.9, 0.68, 0.5)}, False),
    ],
    ids=["well", "samples of rl go on", "of the evaluation", "edge stays", "4 points lost", "6 points lost"],
)
def test_a_run_ends_well_if_samples_end_the_edge_gains_and_little_is_lost(tmp_path, run, is_well):
    write_run(tmp_path / "run", **run)
    assert Ending.read(Variant("run"), tmp_path / "run").is_well is is_well


def test_the_page_has_the_figures_of_every_run(tmp_path):
    write_run(tmp_path / "a")
    write_run(tmp_path / "b", losses=(3.0, 2.1), after=(0.8, 0.8, 0.4), finished=0.5)
    write_run(tmp_path / "c")
    variants = [Variant("a"), Variant("b", "narrow"), Variant("c", "twice")]
    page = robustness.page([Ending.read(variant, tmp_path / variant.name) for variant in variants])
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("|")]
    assert ["0", "as it comes", "", "1.0000", "1.0000", "30 -> 32", "30.0 -> 50.0", "+0.0", "+0.0", "1", "ok"] in rows
    assert ["0", "narrow", "2", "0.5000", "1.0000", "30 -> 32", "30.0 -> 40.0", "-5.0", "-10.0", "1", "**not**"] in rows
    assert [row[2] for row in rows if row[1] == "twice"] == ["never"]
    assert ["b", "pass@1", "-10.0", "+0.0", "+10.0"] in rows
    assert ["a", "pass@8", "+0.0", "+0.0", "+20.0"] in rows
    assert "2 of 3 runs end well. Not run yet: seed-0, seed-1," in page
    assert "1.5 to 1.5 CPU-minutes per run" in page


def test_runs_that_are_there_are_not_made_again(tmp_path, monkeypatch):
    names = [VARIANTS[0].name, VARIANTS[-1].name, VARIANTS[3].name]
    write_run(tmp_path / "runs" / names[0])
    made = []

    def start(variant, folder, recipe):
        made.append((variant.name, recipe))
        write_run(folder)

    monkeypatch.setattr(robustness, "start", start)
    command = ["robustness", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out"), "--recipe", "small"]
    monkeypatch.setattr(sys, "argv", [*command, "--only", *names])
    robustness.main()
    assert made == [(names[2], "small"), (names[1], "small")]
    assert "3 of 3 runs" in (tmp_path / "out" / "robustness.md").read_text()


@pytest.mark.slow
def test_a_variant_runs_in_a_process_with_the_arithmetic_that_it_names(tmp_path):
    recipe = tmp_path / "small.toml"
    problems = '[{ op = [2], themes = ["symbolic"], max_value = 199 }]'
    recipe.write_text(f"""
name = "small"
[model]
preset = "tiny"
num_hidden_layers = 1
[pretrain]
tokens = 600
batch_tokens = 600
phases = [{{ until = 1.0, mixture = {problems} }}]
[evaluate]
problems = 1
samples = 1
k = [1]
max_new_tokens = 4
mixture = {problems}
""")
    narrow = Variant("narrow", seed=3, environment={"ATEN_CPU_CAPABILITY": "default"}, kernels="torch", sampler="base")
    robustness.start(narrow, tmp_path / "run", str(recipe))
    used = json.loads((tmp_path / "run" / "arithmetic.json").read_text())
    assert (used["threads"], used["torch"], used["kernels"], used["sampler"]) == (1, "DEFAULT", "torch", "base")
    assert used["environment"]["ATEN_CPU_CAPABILITY"] == "default"
    assert used["cpu_s"] > 0
    assert json.loads((tmp_path / "run" / "results.json").read_text())["seed"] == 3
