"""The recipes of the findings at the paper's size: what they plan, and every kind of stage for two steps on CPU."""

import re
import shutil
from dataclasses import replace

import numpy as np
import pytest

from fastreason.runtime.stop_request import StopRequest
from fastreason.studies.dry_run import Rates, format_plan, plan_study
from fastreason.studies.run_study import work_through
from fastreason.studies.study import Study, load_study
from fastreason.studies.work_units import distinct_units, study_runs
from fastreason.tasks.mixture import Mixture
from fastreason.tasks.stream import TaskStream
from fastreason.text.tokenizer import Tokenizer
from fastreason.training.checkpoint import load_progress

FINDINGS = ["finding-1-edge", "finding-2-context", "finding-3-midtrain", "finding-4-process"]


@pytest.fixture(autouse=True)
def known_rates(monkeypatch):
    """Rates of a machine that every test runs on, lengths of fewer documents, and fewer of those that a run checks."""
    monkeypatch.setattr("fastreason.studies.dry_run._DRAWN", 200)
    monkeypatch.setattr("fastreason.studies.preflight.MOST", 10_000)
    monkeypatch.setattr("fastreason.studies.dry_run.measured_rates", lambda *arguments: Rates(1e12, 5e11, 1e-5, 256))


@pytest.mark.parametrize("name", FINDINGS)
def test_the_released_recipe(name):
    study = load_study(name, size="paper")
    for variant, recipe in study.variants.items():
        config = recipe.model.config(2200)
        shape = (config.num_hidden_layers, config.hidden_size, config.num_attention_heads, config.num_key_value_heads)
        assert shape == (12, 768, 12, 2) and config.intermediate_size == 3072
        stage = recipe.pretrain
        assert (stage.tokens, stage.batch_tokens, stage.loss_on) == (10_000_000_000, 256 * 2048, "all")
        assert stage.rows == 256
        for optim, warmup in ((stage.optim, 0.05), (recipe.midtrain and recipe.midtrain.optim, 0.15)):
            if optim:
                assert (optim.matrices, optim.lr, optim.matrix_lr, optim.floor) == ("adamw", 1e-4, 1e-4, 0.3)
                assert (optim.weight_decay, optim.clip, optim.schedule, optim.warmup) == (0.1, 1.0, "cosine", warmup)
        if recipe.rl is not None:
            rl = recipe.rl
            assert (rl.prompts, rl.samples, rl.prompts // rl.minibatches, rl.max_new_tokens) == (1024, 6, 256, 1024)
            assert (rl.kl_coef, rl.kl, rl.entropy_coef, rl.temperature, rl.loss) == (0.001, "k3", 0.0, 1.0, "grpo")
            assert (rl.optim.lr, rl.optim.matrix_lr, rl.optim.schedule, rl.optim.warmup) == (1e-6, 1e-6, "constant", 0)
            assert rl.steps == 200 or name == "finding-3-midtrain"
        evaluation = recipe.evaluate
        assert (evaluation.problems, evaluation.samples, evaluation.temperature) == (200, 128, 0.7)
        assert Mixture.from_dict(evaluation.mixture).ops == tuple(range(2, 21)), variant


def test_the_mixtures_are_those_of_the_presets():
    def same(parts, name):
        return Mixture.from_dict(parts).weights == pytest.approx(Mixture.preset(name).weights)

    edge = load_study("finding-1-edge", size="paper").variants
    assert same(edge["none"].pretrain.phases[0].mixture, "pretrain")
    for variant, name in {"in-distribution": "7-10", "mixed": "9-12", "edge": "11-14", "hard": "17-20"}.items():
        assert same(edge[variant].rl.mixture, f"rl-op{name}")
    assert same(
        load_study("finding-3-midtrain", size="paper").variants["beta-0"].midtrain.phases[0].mixture, "midtrain"
    )
    context = load_study("finding-2-context", size="paper").variants
    assert same(context["op2-1"].pretrain.phases[0].mixture, "context-pretrain")
    assert same(context["op2-1"].rl.mixture, "context-rl")


@pytest.mark.parametrize(
    "name", [FINDINGS[0], FINDINGS[3], *(pytest.param(name, marks=pytest.mark.slow) for name in FINDINGS[1:3])]
)
def test_the_plan_has_the_papers_figures(name, monkeypatch):
    if name == "finding-3-midtrain":  # its steps of RL follow from lengths
        monkeypatch.setattr("fastreason.studies.dry_run._DRAWN", 2048)
    plan = plan_study(load_study(name, size="paper"), jobs=2)
    text = format_plan(plan)
    assert plan.parameters == pytest.approx(103e6, rel=0.01)
    assert "10 B tokens in 19,074 steps of 524,288" in text
    assert "3,800 problems x 128 samples" in text
    assert "200 steps x 1,024 prompts x 6 samples" in text
    # 12 layers, 2 heads of 64 in float32: 12,288 bytes a token
    assert re.search(r"\nkeys and values: rl: [\d.]+ MB a prompt, 12\.6 MB a sample; \d+ at once in 2\.05 GB\n", text)
    pretrain = next(line.cost for line in plan.lines if line.kind == "pretrain")
    # 6 P a token, and attention in documents of some hundred tokens
    assert 6 * 103e6 * 1e10 < pretrain.flop < 1.1 * 6 * 103e6 * 1e10
    assert pretrain.seconds == pytest.approx(pretrain.flop / 5e11)
    assert re.search(r"total: \d\.\d\de\+\d\d FLOP, .* in one process, about .* in 2 processes", text)


def test_equal_compute_is_that_of_the_released_rl():
    """beta = 1 is 200 steps of 1,024 prompts x 6 samples, prompts included, at the length of documents of op 11-14."""
    recipe = load_study("finding-3-midtrain", size="paper").variants["beta-1"]
    stream = TaskStream(Mixture.from_dict(recipe.rl.mixture), seed=0, split="rl")
    tokenizer = Tokenizer.for_mixtures(recipe.mixtures())
    length = np.diff(stream.encoded(0, 4096, tokenizer)[1]).mean()
    assert recipe.rl.limit.tokens == pytest.approx(200 * 1024 * 6 * length, rel=0.01)


def test_a_plan_counts_what_is_shared_once_and_splits_over_shards():
    study = load_study("finding-1-edge", size="laptop", seeds=[0, 1, 2])
    plan = plan_study(study)
    assert [(line.kind, line.units) for line in plan.lines][:3] == [("pretrain", 3), ("evaluate", 3), ("rl", 3)]
    assert sum(line.units for line in plan.lines) == 3 * (1 + 4 + 5)
    shards = [plan_study(study, shard=f"{i}/3") for i in range(3)]
    assert sum(shard.flop for shard in shards) == pytest.approx(plan.flop, rel=0.02)
    kept = [line for line in format_plan(plan).splitlines() if line.startswith("keys and values")]
    assert 2 <= len(kept) == len(set(kept))
    strict = next(line.cost for line in plan.lines if line.kind == "rl")
    assert "250 steps x 32 prompts x 16 samples, reward strict" in strict.what


def easy(parts):
    """The op 2 to 4 of a mixture, whose documents are short."""
    kept = [{**part, "op": [op for op in part["op"] if op <= 4]} for part in parts]
    return [part for part in kept if part["op"]]


# one block, half of the width, as many heads
SMALLER = {"num_hidden_layers": 1, "hidden_size": 384, "intermediate_size": 384}


def two_steps(recipe, model):
    """The recipe with two steps of some hundred tokens in each stage."""
    recipe = replace(recipe, model=replace(recipe.model, **model))
    changes = {"threads": 1, "evaluate": replace(recipe.evaluate, problems=1, samples=2, k=[1, 2], max_new_tokens=2)}
    changes["evaluate"] = replace(changes["evaluate"], mixture=[{**recipe.evaluate.mixture[0], "op": [2]}])
    for stage in ("pretrain", "midtrain"):
        if (settings := getattr(recipe, stage)) is not None:
            phases = [replace(phase, mixture=easy(phase.mixture)) for phase in settings.phases]
            fewer = {"batch_tokens": 280, "rows": 1, "tokens": 281, "budget": None, "accumulate": 2}
            changes[stage] = replace(settings, phases=phases, **fewer)
    if recipe.rl is not None:
        prompts = 2 if recipe.midtrain is not None else 1
        fewer = {"prompts": prompts, "samples": 2, "minibatches": prompts, "accumulate": 1, "max_new_tokens": 4}
        changes["rl"] = replace(recipe.rl, steps=2, budget=None, **fewer)
    return replace(recipe, **changes)


@pytest.mark.parametrize("model", [SMALLER, pytest.param({}, marks=pytest.mark.slow, id="paper")])
def test_every_kind_of_stage_runs_for_two_steps(model, tmp_path):
    """Variants that differ in more than their mixture; what recipes share is run once."""
    wanted = {
        "finding-1-edge": ["edge"],
        "finding-2-context": ["op2-1"],
        "finding-3-midtrain": ["beta-0.5"],
        "finding-4-process": ["blended-0.2", "strict", "steps"],
    }
    ran, progress = {}, {}
    for name, variants in wanted.items():
        full = load_study(name, size="paper")
        study = Study(name, full.seeds, {variant: two_steps(full.variants[variant], model) for variant in variants})
        runs = study_runs(study)
        # evaluations are the same code behind every stage: those of the first recipe do
        units = [u for u in distinct_units(runs) if u.kind != "evaluate" or name == "finding-1-edge"]
        work_through(study, units, tmp_path, StopRequest())
        ran |= {unit.key: unit for unit in units}
    kinds = [unit.kind for unit in ran.values()]
    assert {kind: kinds.count(kind) for kind in kinds} == {"pretrain": 2, "evaluate": 2, "rl": 6, "midtrain": 1}
    for unit in ran.values():
        if unit.kind != "evaluate":
            progress[unit.key] = load_progress(tmp_path / unit.key / "checkpoint")
    shutil.rmtree(tmp_path)  # 4 GB that pytest would keep
    assert all(counters["finished"] and counters["step"] == 2 for counters in progress.values())
