"""Recipes of any stages: how they are written, what they begin from and share, and that they go on after kills."""

import json
import random
import signal
import tomllib
from dataclasses import replace

import pytest
import torch

import fastreason as fr
from fastreason.rl.self_settings import SelfSettings
from fastreason.runtime.metrics_log import MetricsLog, without_times
from fastreason.studies.dry_run import Rates, plan_study
from fastreason.studies.preflight import preflight
from fastreason.studies.recipe import load_recipe, recipe_from_dict
from fastreason.studies.resume import check_study
from fastreason.studies.stages import seed_of_draw
from fastreason.studies.study import Study, load_study
from fastreason.studies.work_units import distinct_units, study_runs
from fastreason.training.checkpoint import check_files, load_model

from ..kills import kill_at_flush
from ..processes import forked

FIVE = """
stages = [
    { name = "base", kind = "supervised", tokens = 3000, mixture = "easy" },
    { name = "mid", kind = "supervised", tokens = 1000, mixture = "both" },
    { name = "rl", kind = "rl", steps = 2, prompts = 2, samples = 2, max_new_tokens = 8, mixture = "both" },
    { name = "mid-2", like = "mid" },
    { name = "rl-2", like = "rl" },
]
"""
REST = """
name = "any"
threads = 1
model = { num_hidden_layers = 1, hidden_size = 16 }
evaluate = { problems = 2, samples = 2, k = [1, 2], max_new_tokens = 8, mixture = "both" }
[mixtures]
easy = [{ op = [2], themes = ["symbolic"], max_value = 99, max_sentences = 3 }]
both = [{ op = [2, 3], themes = ["symbolic"], max_value = 99, max_sentences = 4 }]
"""
STUDY = """
[[variants]]
name = "all"
[[variants]]
name = "longer"
mid.tokens = 2000
[[variants]]
name = "late"
rl-2.steps = 1
[[variants]]
name = "none"
remove = ["mid", "rl", "mid-2", "rl-2"]
[ranges]
both = [{ op = [2, 3] }]
[[claims]]
name = "rises"
text = "More mid-training, more answers"
range = "both"
variant = "longer"
stage = "mid-2"
against = ["all"]
against_stage = "mid-2"
at_least = 0.05
"""


@pytest.fixture
def write(tmp_path):
    def written(text, name="any.toml"):
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return written


def test_five_stages_are_ten_lines(write):
    recipe = load_recipe(write(FIVE + REST), {"mid.tokens": 500, "rl-2.steps": 3})
    assert recipe.stage_names == ("base", "mid", "rl", "mid-2", "rl-2")
    settings = [stage.settings for stage in recipe.plan]
    # a stage like another follows its changes, and may have its own
    assert [each.limit.amount for each in settings] == [3000, 500, 8, 500, 12]
    assert settings[1] == settings[3] and settings[4] == replace(settings[2], steps=3)
    # another draw of the same split draws other problems
    assert [recipe.draw_of(stage) for stage in recipe.plan] == [0, 1, 0, 2, 1]
    assert len({seed_of_draw(seed, draw) for seed in (0, 1) for draw in range(3)}) == 6
    again = recipe_from_dict(tomllib.loads(write_toml(recipe)))
    assert again == recipe and len(FIVE.strip().splitlines()) < 10


def write_toml(recipe):
    import tomli_w

    return tomli_w.dumps(recipe.to_dict())


def test_the_short_form_is_three_stages():
    recipe = load_recipe("smoke")
    assert [(stage.name, stage.kind) for stage in recipe.plan] == [
        ("pretrain", "supervised"), ("midtrain", "supervised"), ("rl", "rl"),
    ]  # fmt: skip
    assert [recipe.draw_of(stage) for stage in recipe.plan] == [0, 0, 0]
    assert "stages" not in recipe.to_dict()


@pytest.mark.parametrize(
    "old, new, message",
    [
        ('kind = "rl"', 'kind = "sft"', "rl: kind must be one of supervised, rl, self, model, got 'sft'"),
        ('kind = "rl"', 'kind = "model"', "rl: .*steps: Unexpected"),
        ('"supervised", tokens = 3000, mixture = "easy"', '"model"', "base: a stage of kind model needs start_from"),
        ('"mid-2", like = "mid"', '"mid-2", kind = "model", start_from = "mid"', "got the stage 'mid'"),
        ('like = "rl"', 'like = "rl-3"', "rl-2: like must be a stage above it, got 'rl-3'"),
        ("steps = 2,", "stepz = 2,", "stages.2: rl: stepz: Unexpected"),
        ('name = "mid-2"', 'name = "mid"', "two stages 'mid'"),
        ('name = "mid-2"', 'name = "seed"', "be no other field of a recipe, got 'seed'"),
        ('name = "mid-2"', 'name = "rl-best"', "got 'rl-best'"),
        ('like = "rl"', 'like = "rl", evaluate = false', "rl-2: the last stage must be evaluated"),
        ('name = "mid",', 'name = "mid", start_from = "rl",', "mid: start_from must be a stage above it, got 'rl'"),
        ("tokens = 1000,", "tokens = 1000, phases = [],", "either a mixture or phases"),
        ("threads = 1", "threads = 1\n[pretrain]\ntokens = 5", "pretrain"),
    ],
)
def test_what_is_no_list_of_stages_is_refused(old, new, message, write):
    assert old in FIVE + REST
    with pytest.raises(ValueError, match=message):
        load_recipe(write((FIVE + REST).replace(old, new)))


def test_a_model_begins_from_a_stage_or_a_folder(write, tmp_path):
    branch = FIVE.replace('like = "mid"', 'like = "mid", start_from = "base"')
    recipe = load_recipe(write(branch + REST))
    assert [stage.name for stage in recipe.stages_before(recipe.plan[-1])] == ["mid-2", "base"]
    (run,) = study_runs(Study.of(recipe))
    assert run.stages["mid-2"][0].before is run.stages["base"][0]
    assert run.stages["mid-2"][0].seed == run.stages["mid"][0].seed  # neither has seen the other's problems

    tokenizer = fr.Tokenizer.for_mixtures(recipe.mixtures())
    model = fr.Decoder(recipe.model.config(len(tokenizer)))
    model.reset_parameters(7)
    model.save_pretrained(tmp_path / "model", tokenizer)
    one = '{ name = "mid", kind = "supervised", tokens = 1000, mixture = "both", start_from = "FOLDER" }'
    begun = load_recipe(write("stages = [" + one.replace("FOLDER", str(tmp_path / "model")) + "]" + REST))
    preflight({"mine": begun}, [0])
    fr.run(begun, tmp_path / "run")
    (unit, _), *_ = study_runs(Study.of(begun))[0].stages.values()
    model.reset_parameters(8)
    model.save_pretrained(tmp_path / "other", tokenizer)
    other = replace(begun, stages=[replace(begun.stages[0], start_from=str(tmp_path / "other"))])
    assert next(study_runs(Study.of(other))[0].units).key != unit.key
    for change, message in [
        ({"start_from": "nowhere"}, "mid: start_from must be a stage above it or the folder of a model, got 'nowhere'"),
        ({}, "has hidden_size = 16, the recipe 32"),
    ]:
        wrong = replace(begun, stages=[replace(begun.stages[0], **change)], model=replace(begun.model, hidden_size=32))
        with pytest.raises(ValueError, match=message):
            preflight({"mine": wrong}, [0])


def test_a_model_that_exists_is_evaluated_and_begun_from_as_it_is(write, tmp_path):
    recipe = load_recipe(write(FIVE + REST))
    tokenizer = fr.Tokenizer.for_mixtures(recipe.mixtures())
    model = fr.Decoder(recipe.model.config(len(tokenizer)))
    model.reset_parameters(7)
    model.save_pretrained(tmp_path / "model", tokenizer)
    as_it_is = f'stages = [{{ name = "given", kind = "model", start_from = "{tmp_path / "model"}" }}, '
    rl = FIVE[FIVE.index('{ name = "rl"') : FIVE.index('{ name = "mid-2"')]
    begun = load_recipe(write(as_it_is + rl + "]" + REST))
    plan = plan_study(Study.of(begun), rates=Rates(1e9, 1e9, 1e-4, 1))
    assert [(line.kind, line.cost.flop == 0) for line in plan.lines] == [
        ("given", True), ("evaluate", False), ("rl", False),
    ]  # fmt: skip
    results = fr.run(begun, tmp_path / "run")
    kept = load_model(tmp_path / "run" / "checkpoints" / "given").state_dict()
    assert all(torch.equal(kept[name], weights) for name, weights in model.state_dict().items())
    assert set(results["stages"]) == {"given", "rl"} and results["tokens"]["given"] == 0
    assert not any("graphs" in scores for scores in results["stages"].values())  # what it was trained on is not known
    # RL draws what it draws where it begins from the folder itself
    alone = load_recipe(write("stages = [" + rl.replace(" },", f', start_from = "{tmp_path / "model"}" }}]') + REST))
    fr.run(alone, tmp_path / "alone")
    ends = [load_model(tmp_path / run / "checkpoints" / "rl").state_dict() for run in ("run", "alone")]
    assert all(torch.equal(a, b) for a, b in zip(*(end.values() for end in ends), strict=True))


def test_variants_vary_stages_by_name_and_share_beginnings(write):
    study = load_study(write(FIVE + REST + STUDY))
    assert [recipe.stage_names[-1] for recipe in study.variants.values()] == ["rl-2", "rl-2", "rl-2", "base"]
    runs = {run.variant: run for run in study_runs(study)}
    keys = {name: [unit.key for unit, _ in run.stages.values()] for name, run in runs.items()}
    assert len({of[0] for of in keys.values()}) == 1
    assert keys["all"][:4] == keys["late"][:4] and keys["all"][4] != keys["late"][4]
    assert set(keys["all"][1:]).isdisjoint(keys["longer"])
    assert len(distinct_units(list(runs.values()))) == 2 * (1 + 4 + 4 + 1)
    (run,) = study_runs(replace(study, variants={"all": study.variants["all"]}, claims=[]))
    assert [name for name, (_, evaluation) in run.stages.items() if evaluation is None] == []

    plan = plan_study(study, rates=Rates(1e9, 1e9, 1e-4, 16))
    assert [line.kind for line in plan.lines if line.kind != "evaluate"][:3] == ["base", "mid", "rl"]
    with pytest.raises(ValueError, match="remove must be of base, mid, rl, mid-2, rl-2, got 'sft'"):
        load_study(write(FIVE + REST + STUDY.replace('["mid", "rl",', '["sft", "rl",')))
    with pytest.raises(ValueError, match="variant all has no stage 'mid-3'"):
        load_study(write(FIVE + REST + STUDY.replace('against_stage = "mid-2"', 'against_stage = "mid-3"')))


def test_a_stage_that_has_not_begun_may_change(write, tmp_path, capsys):
    before = Study.of(load_recipe(write(FIVE + REST)))
    (name,) = before.variants
    for changes, begun, refused in [
        ({"rl-2.steps": 5}, ["base", "mid", "rl", "mid-2"], None),
        ({"mid-2.tokens": 5}, ["base", "mid", "rl"], None),
        ({"rl-2.steps": 5}, ["base", "mid", "rl", "mid-2", "rl-2"], "rl-2.steps"),
        ({"mid.tokens": 5}, ["base", "mid"], "mid.tokens"),
        ({"rl-2.start_from": "base"}, ["base", "mid", "rl", "mid-2"], None),
        ({"rl-2.start_from": "base"}, ["base", "mid", "rl", "mid-2", "rl-2"], "rl-2.start_from"),
    ]:
        now = Study.of(load_recipe(write(FIVE + REST), changes))
        if refused is None:
            check_study(tmp_path, before, now, {name: begun})
            assert f"run: {next(iter(changes))} was " in capsys.readouterr().err
        else:
            with pytest.raises(ValueError, match=f"first field that differs is {refused}"):
                check_study(tmp_path, before, now, {name: begun})
    # a branch does not depend on what it does not begin from
    branch = FIVE.replace('like = "mid"', 'like = "mid", start_from = "base"')
    before, now = (Study.of(load_recipe(write(branch + REST), {"rl.steps": steps})) for steps in (2, 5))
    check_study(tmp_path, before, now, {name: ["base", "mid", "mid-2"]})
    with pytest.raises(ValueError, match=r"differs is rl\.steps"):
        check_study(tmp_path, before, now, {name: ["base", "mid", "rl"]})
    saved = Study.of(load_recipe(write(FIVE + REST)))
    saved.save(tmp_path / "study.toml")
    assert Study.load(tmp_path / "study.toml") == saved


SELF = """
stages = [
    { name = "base", kind = "supervised", tokens = 1500, batch_tokens = 256, save_every_s = 0.0, mixture = "easy" },
    { name = "own", like = "base", kind = "self", tokens = 600, mixture = "both", level = "outcome", at_least = 0.0 },
    { name = "rl", kind = "rl", steps = 2, mixture = "both", save_every_s = 0.0, kl_coef = 0.1, evaluate = false },
    { name = "mid", like = "base", tokens = 500, mixture = "both", evaluate = false },
    { name = "rl-2", like = "rl" },
    { name = "own-2", like = "own", start_from = "rl" },
    { name = "mid-2", like = "mid", tokens = 400, evaluate = true },
]
own = { rounds = 2, prompts = 2, samples = 2, max_new_tokens = 8 }
"""
OF_RL = """
[rl]
prompts = 2
samples = 2
max_new_tokens = 8
truncated = "keep" # random weights end no sample
verifier.false_positive = 0.5
optim.warmup = 0.0
"""


def run_seven(path, folder, kill_at):
    kill_at_flush(kill_at)
    fr.run(load_recipe(path), folder, resume=True)


def outcome(folder):
    """Everything that must not depend on kills."""
    results = json.loads((folder / "results.json").read_text())
    weights = {}
    for place in sorted((folder / "checkpoints").iterdir()):
        check_files(place)
        weights[place.name] = (place / "model.safetensors").read_bytes()
    lines = [without_times(line) for line in MetricsLog(folder / "metrics.jsonl").read()]
    scores = {name: of["problems"] for name, of in results["stages"].items()}
    return weights, lines, scores, {name: unit["flop"] for name, unit in results["units"].items() if "flop" in unit}


def test_seven_stages_that_are_killed_are_the_unbroken_run(write, tmp_path):
    path, chance = write(SELF + REST + OF_RL), random.Random(0)
    recipe = load_recipe(path)
    assert isinstance(recipe.plan[1].settings, SelfSettings) and len(recipe.plan) == 7
    whole = forked(run_seven, path, tmp_path / "whole", 0)
    whole.join()
    assert whole.exitcode == 0
    want = outcome(tmp_path / "whole")
    assert want[0].keys() == {*recipe.stage_names, "rl-reference", "rl-2-reference"}
    assert list(want[2]) == ["base", "own", "rl-2", "own-2", "mid-2"]
    assert [line["round"] for line in want[1] if "round" in line] == [1, 2, 1, 2]
    assert want[0]["rl-reference"] == want[0]["own"] and len({*want[0].values()}) == 7  # of rl-2 it is mid
    killed = 0
    while True:
        process = forked(run_seven, path, tmp_path / "parts", chance.randint(20, 120))
        process.join()
        if process.exitcode != -signal.SIGKILL:
            break
        killed += 1
    assert process.exitcode == 0 and killed >= 3
    assert outcome(tmp_path / "parts") == want
    assert not list((tmp_path / "parts").rglob("traces.safetensors"))  # nothing is left of a stage that ended
