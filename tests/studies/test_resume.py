"""What may differ when a run goes on, and what is said of it."""

import dataclasses
import math

import pytest
import torch

import fastreason as fr
from fastreason.rl.loop import reinforce
from fastreason.runtime.metrics_log import MetricsLog
from fastreason.runtime.stop_request import StopRequest
from fastreason.studies.recipe import load_recipe
from fastreason.studies.resume import check_study
from fastreason.studies.study import Study
from fastreason.training.checkpoint import kept_checkpoints

RECIPE = load_recipe("smoke")


def check_run(folder, begun, changes):
    """Of a run, whose fields are named as in its recipe."""
    check_study(folder, Study.of(RECIPE), Study.of(load_recipe("smoke", changes)), {"smoke": begun})


@pytest.mark.parametrize(
    "stages, changes",
    [
        ([], {"seed": 3, "model.hidden_size": 32, "pretrain.tokens": 5, "rl.mixture": [{"op": [3]}]}),
        (["pretrain"], {"midtrain.tokens": 5, "rl.steps": 3, "evaluate.problems": 3, "edge": [2]}),
        (["pretrain", "midtrain"], {"rl.optim.lr": 0.1, "rl.temperature": 0.9}),
        (["pretrain", "midtrain", "rl"], {"metrics": ["tensorboard"], "rl.keep": 3, "rl.kv_memory_mb": 50.0}),
        (["pretrain", "midtrain", "rl"], {"rl.checkpoint_activations": True, "pretrain.save_every_s": 1.0}),
    ],
)
def test_a_stage_that_has_not_begun_may_change_and_it_is_said(stages, changes, tmp_path, capsys):
    check_run(tmp_path, stages, changes)
    said = capsys.readouterr().err
    for name, value in changes.items():
        assert f"run: {name} was " in said
        assert isinstance(value, list) or f"now it is {value!r}\n" in said


@pytest.mark.parametrize(
    "stages, evaluated, changes, message",
    [
        (["pretrain"], False, {"pretrain.tokens": 5}, r"differs is pretrain\.tokens: it was 250000, now it is 5"),
        (["pretrain"], False, {"seed": 5}, "differs is seed: it was 0, now it is 5"),
        (["pretrain"], False, {"name": "other"}, "differs is name: it was 'smoke', now it is 'other'"),
        (["pretrain"], False, {"model.hidden_size": 32}, "differs is model.hidden_size: it was nothing, now it is 32"),
        (["pretrain", "midtrain"], False, {"midtrain.optim.lr": 0.1}, r"differs is midtrain\.optim\.lr"),
        (["rl"], False, {"midtrain.tokens": 5}, r"differs is midtrain\.tokens"),
        (["pretrain"], True, {"evaluate.problems": 5}, r"differs is evaluate\.problems"),
        (["pretrain"], True, {"edge": [2]}, "differs is edge"),
        (["pretrain"], False, {"rl.mixture": [{"op": [2], "themes": ["zoo"]}]}, "another vocabulary"),
    ],
)
def test_what_has_begun_may_not(stages, evaluated, changes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        check_run(tmp_path, [*stages, *["evaluate"] * evaluated], changes)


def test_in_a_study_it_is_a_matter_of_each_variant(tmp_path, capsys):
    longer = load_recipe("smoke", {"rl.steps": 9})
    before = Study(name="two", seeds=[0], variants={"a": RECIPE, "b.c": RECIPE})
    now = dataclasses.replace(before, variants={"a": RECIPE, "b.c": longer})
    check_study(tmp_path, before, now, {"a": ["pretrain", "midtrain", "rl"], "b.c": ["pretrain"]})
    assert "run: variants.b.c.rl.steps was 8, now it is 9" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"differs is variants\.b\.c\.rl\.steps"):
        check_study(tmp_path, before, now, {"a": ["pretrain"], "b.c": ["pretrain", "midtrain", "rl"]})
    more = dataclasses.replace(before, seeds=[0, 1])
    with pytest.raises(ValueError, match="differs is seeds"):
        check_study(tmp_path, before, more, {"a": ["pretrain"], "b.c": []})
    check_study(tmp_path, before, more, {"a": [], "b.c": []})  # nothing has begun


def test_a_run_goes_on_with_another_last_stage(tmp_path, capsys):
    short = {"pretrain.tokens": 2000, "rl.steps": 1, "evaluate.problems": 1}
    first = dataclasses.replace(load_recipe("smoke", short), midtrain=None, rl=None)
    alone = fr.run(first, tmp_path / "run")
    whole = fr.run(dataclasses.replace(load_recipe("smoke", short), midtrain=None), tmp_path / "run", resume=True)
    assert list(whole["stages"]) == ["pretrain", "rl"]
    assert whole["stages"]["pretrain"] == alone["stages"]["pretrain"]
    assert "run: rl.steps was nothing, now it is 1" in capsys.readouterr().err
    assert Study.load(tmp_path / "run" / "study.toml").variants["smoke"].rl.steps == 1
    assert {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()} == {"pretrain", "rl"}


def test_checkpoints_are_sorted_by_their_step(tmp_path):
    for step in (99_999_999, 100_000_000, 2, 1_000_000_000):
        (tmp_path / f"rl-{step:08d}").mkdir()
    steps = [int(path.name[3:]) for path in kept_checkpoints(tmp_path / "rl")]
    assert steps == [2, 99_999_999, 100_000_000, 1_000_000_000]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_weights_that_are_no_numbers_are_no_bad_input(bad, tmp_path):
    tokenizer = fr.Tokenizer.for_mixtures(RECIPE.mixtures())
    model = fr.Decoder(RECIPE.model.config(len(tokenizer)))
    model.reset_parameters(0)
    with torch.no_grad():
        model.final_norm.fill_(bad)
    log = MetricsLog(tmp_path / "metrics.jsonl")
    with pytest.raises(FloatingPointError, match="rl: the model's weights are not finite"):
        reinforce(model, tokenizer, RECIPE.rl, seed=0, folder=tmp_path / "rl", log=log, stop=StopRequest())
