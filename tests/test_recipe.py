"""Recipes: those that ship, overrides, and errors that name the field."""

import pytest

from fastreason.recipe import available_recipes, load_recipe, recipe_from_dict


@pytest.mark.parametrize("name", available_recipes())
def test_recipes_that_ship_survive_a_round_trip(name, tmp_path):
    recipe = load_recipe(name)
    assert recipe.name == name
    recipe.save(tmp_path / "again.toml")
    assert load_recipe(tmp_path / "again.toml") == recipe


def test_overrides_by_dotted_name():
    recipe = load_recipe("smoke", {"rl.steps": 3, "seed": 5, "pretrain.optim.lr": 0.5, "model.hidden_size": 32})
    assert recipe.rl is not None
    assert recipe.pretrain is not None
    assert (recipe.rl.steps, recipe.seed, recipe.pretrain.optim.lr) == (3, 5, 0.5)
    assert recipe.model.config(vocab_size=9).hidden_size == 32
    assert load_recipe("smoke").seed == 0


def test_a_stage_has_one_length():
    recipe = load_recipe("smoke", {"pretrain.budget": "1e12 flop", "rl.budget": "60 seconds"})
    assert (recipe.pretrain.tokens, str(recipe.pretrain.limit)) == (None, "1000000000000.0 flop")
    assert (recipe.rl.steps, recipe.rl.limit.unit) == (None, "seconds")
    assert recipe_from_dict(recipe.to_dict()) == recipe
    assert str(load_recipe("smoke").pretrain.limit) == "250000 tokens"
    assert load_recipe("smoke").rl.limit.samples == 8 * 16 * 8
    with pytest.raises(ValueError, match="give tokens or budget, not both"):
        load_recipe("smoke", {"pretrain.budget": "5 seconds", "pretrain.tokens": 5})
    with pytest.raises(ValueError, match="give steps or budget, not both"):
        load_recipe("smoke", {"rl.budget": "5 seconds", "rl.steps": 5})


def test_stages_are_optional():
    values = load_recipe("smoke").to_dict()
    del values["pretrain"], values["midtrain"]
    assert recipe_from_dict(values).stages == ("rl",)


@pytest.mark.parametrize(
    "overrides, message",
    [
        ({"rl.stepz": 1}, "rl.stepz: "),
        ({"rl.steps": 0}, "rl: rl: steps must be at least 1, got 0|rl: steps must be at least 1, got 0"),
        ({"rl.steps": "many"}, "rl.steps: "),
        ({"model.preset": "huge"}, "must be one of tiny, 10m, 100m, got 'huge'"),
        ({"evaluate.k": [64]}, r"every k must be in 1 \.\. samples"),
        ({"evaluate.mixture": [{"op": [1]}]}, r"op must be an integer in 2 \.\. 40, got 1"),
        (
            {"rl.mixture": [{"op": [3], "themes": ["nowhere"]}]},
            "theme: must be one of festival, school, symbolic, symbolic-b, zoo",
        ),
        ({"pretrain.phases": []}, "phases must end at rising shares"),
        ({"metrics": ["mlflow"]}, r"metrics\.0: Input should be 'tensorboard', 'trackio' or 'wandb'"),
        ({"rl.budget": "1 hour"}, "a number and one of flop, tokens, seconds, samples"),
        ({"seed": -1}, r"need seed in 0 \.\. 2\*\*63 - 1"),
        ({"threads": -1}, "threads >= 0"),
    ],
)
def test_errors_name_the_field(overrides, message):
    with pytest.raises(ValueError, match=message):
        load_recipe("smoke", overrides)


def test_errors_of_files(tmp_path):
    with pytest.raises(ValueError, match=r"must be one of quickstart, smoke or a \.toml file, got 'nothing'"):
        load_recipe("nothing")
    with pytest.raises(ValueError, match=r"no file '.*absent\.toml'"):
        load_recipe(tmp_path / "absent.toml")
    (tmp_path / "broken.toml").write_text("[rl\n")
    with pytest.raises(ValueError, match=r"recipe .*broken\.toml: "):
        load_recipe(tmp_path / "broken.toml")
    with pytest.raises(ValueError, match="at least one of pretrain, midtrain, rl"):
        recipe_from_dict(
            {k: v for k, v in load_recipe("smoke").to_dict().items() if k not in ("pretrain", "midtrain", "rl")}
        )
