"""The trained models that ship: loaded by name, with a card, a recipe and scores that belong together."""

import json
import shutil

import pytest
import torch

import fastreason as fr
from bench.pages.shipped_models import SHIPPED, ship
from fastreason.cli.main import main
from fastreason.model.llama_export import reads_as_is
from fastreason.runtime.model_names import shipped_models
from fastreason.studies.recipe import load_recipe
from fastreason.studies.study import Study

MODELS = shipped_models()


def test_there_is_one():
    assert tuple(sorted(path.name for path in SHIPPED.iterdir())) == MODELS and "tiny-base" in MODELS


@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_loaded_by_its_name_and_solves_what_its_card_says(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model, tokenizer = fr.Decoder.from_pretrained(f"fastreason/{name}"), fr.Tokenizer.from_pretrained(name)
    assert f"{model.num_parameters:,} parameters" in (SHIPPED / name / "README.md").read_text()
    assert reads_as_is(model.config)  # by vLLM too
    recipe = load_recipe(SHIPPED / name / "recipe.toml")
    assert tokenizer == fr.Tokenizer.for_mixtures(recipe.mixtures())
    # the same machine gives the same samples, another nearly: 24 problems of a score of 94 %
    scores = fr.evaluate(name, fr.Mixture.uniform([6], ["symbolic"], max_value=199), problems=24, samples=2)
    recorded = json.loads((SHIPPED / name / "scores.json").read_text())["ops"]["6"]["verified"]["1"]
    assert abs(scores.verified[6].at(1).value - recorded) < 0.1


def test_reinforcement_learning_starts_from_one_and_is_compared_with_it(tmp_path, capsys):
    assert main(["run", "edge-rl", "--dry-run"]) == 0
    assert 'start_from = "fastreason/tiny-base"' in capsys.readouterr().out
    few = {"rl.steps": 1, "rl.prompts": 1, "rl.samples": 2, "evaluate.problems": 1, "evaluate.samples": 1}
    results = fr.run("edge-rl", tmp_path / "run", overrides=few | {"rl.max_new_tokens": 8, "evaluate.k": [1]})
    assert list(results["stages"]) == ["tiny-base", "rl"]
    # evaluated as it is
    before = fr.Decoder.from_pretrained(tmp_path / "run" / "checkpoints" / "tiny-base").state_dict()
    for name, value in fr.Decoder.from_pretrained("tiny-base").state_dict().items():
        assert torch.equal(before[name], value)


@pytest.mark.parametrize("name", MODELS)
def test_its_recipe_is_the_one_that_makes_it_again(name, capsys):
    assert load_recipe(SHIPPED / name / "recipe.toml") == load_recipe(name)
    flags = ["--op", "2", "--problems", "2", "--samples", "2", "--themes", "symbolic"]
    assert main(["eval", name, *flags, "--threads", "1"]) == 0
    assert "op 2" in capsys.readouterr().out


@pytest.mark.parametrize("name", MODELS)
def test_what_a_run_leaves_is_put_in_its_place(name, tmp_path):
    """The files here are what the command writes of the run, to the byte."""
    checkpoint = tmp_path / "run" / "checkpoints" / "pretrain"
    shutil.copytree(SHIPPED / name, checkpoint)
    Study.of(load_recipe(name)).save(tmp_path / "run" / "study.toml")
    scores = json.loads((SHIPPED / name / "scores.json").read_text())
    (tmp_path / "run" / "results.json").write_text(json.dumps({"stages": {"pretrain": scores}}))
    (checkpoint / "state").mkdir()
    (checkpoint / "state" / "progress.json").write_text('{"tokens": 14001253}')
    folder = ship(tmp_path / "run", tmp_path / "shipped")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        path.name: path.read_bytes() for path in (SHIPPED / name).iterdir()
    }


@pytest.mark.parametrize("name", MODELS)
def test_transformers_reads_it(name):
    transformers = pytest.importorskip("transformers")
    words = transformers.AutoTokenizer.from_pretrained(SHIPPED / name)
    prompt = fr.TaskStream(load_recipe(name).mixtures()[0], seed=0)[0:1].prompts[0]
    assert words(prompt)["input_ids"] == fr.Tokenizer.from_pretrained(name).encode(prompt).tolist()
    assert transformers.AutoModelForCausalLM.from_pretrained(SHIPPED / name).num_parameters() > 0
