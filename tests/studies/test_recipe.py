"""Recipes: those that ship, overrides, and errors that name the field."""

from pathlib import Path

import pytest

from fastreason.studies import recipe as recipes
from fastreason.studies.recipe import available_recipes, load_recipe, merge, recipe_from_dict
from fastreason.studies.study import Study, load_study
from fastreason.training.budget import Budget


def test_what_ships():
    files = Path(recipes.__file__).with_name("recipes").glob("*.toml")
    assert available_recipes() == tuple(sorted(file.stem for file in files))
    findings = {"finding-1-edge", "finding-2-context", "finding-3-midtrain", "finding-4-process"}
    assert findings | {"quickstart", "smoke"} <= set(available_recipes())


@pytest.mark.parametrize("name", ["quickstart", "smoke"])
def test_recipes_that_ship_survive_a_round_trip(name, tmp_path):
    recipe = load_recipe(name)
    assert recipe.name == name
    recipe.save(tmp_path / "again.toml")
    assert load_recipe(tmp_path / "again.toml") == recipe


@pytest.mark.parametrize("size", ["laptop", "paper"])
@pytest.mark.parametrize("name", [name for name in available_recipes() if name.startswith("finding")])
def test_studies_that_ship_survive_a_round_trip(name, size, tmp_path):
    study = load_study(name, size=size)
    assert (study.name, study.size) == (name, size)
    study.save(tmp_path / "again.toml")
    assert Study.load(tmp_path / "again.toml") == study
    # flags start from what all variants have in common, which has to be a whole recipe
    bases = []
    assert load_study(name, size=size, change=lambda base: bases.append(base) or base) == study
    assert bases[0].rl is not None


def test_a_recipe_may_start_from_another(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        'name = "mine"\nbase = "smoke"\nrl.steps = 3\n[[pretrain.phases]]\nuntil = 1.0\nmixture = "pretrain"\n'
    )
    mine, smoke = load_recipe(path), load_recipe("smoke")
    assert (mine.name, mine.rl.steps, len(mine.pretrain.phases)) == ("mine", 3, 1)
    assert (mine.model, mine.evaluate) == (smoke.model, smoke.evaluate)
    # of a study, its question stays behind: variants and claims
    path.write_text('name = "mine"\nbase = "finding-1-edge"\n[[variants]]\nname = "only"\n')
    study = load_study(path, size="laptop")
    assert (list(study.variants), study.claims, study.about) == (["only"], [], "")
    assert study.ranges == load_study("finding-1-edge", size="laptop").ranges


@pytest.mark.parametrize(
    "base, message", [("3", "got 3"), ('"mine.toml"', "got 'mine.toml'"), ('"none"', "must be one of")]
)
def test_a_base_that_is_none_is_refused(base, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text(f"base = {base}")
    with pytest.raises(ValueError, match=message):
        load_recipe("mine.toml")


def test_the_splits_of_a_budget_are_a_study():
    study = load_study(Path(__file__).parents[2] / "docs" / "results" / "budget" / "recipe.toml", size="tiny")
    spent = {
        name: sum(Budget.parse(getattr(recipe, stage).budget).flop for stage in recipe.stage_names)
        for name, recipe in study.variants.items()
    }
    assert spent == dict.fromkeys(["100-0-0", "60-40-0", "60-0-40", "60-30-10", "60-10-30"], 1e13)


def test_sizes_and_mixtures_by_name(tmp_path):
    text = """
    mixtures.own = [{ op = [3], themes = ["symbolic"] }]
    mixtures.other = "rl-op7-10"
    sizes.small.rl.steps = 2
    sizes.small.evaluate.mixture = "evaluate"
    sizes.large.rl.budget = "7 samples"
    rl = { mixture = "own", steps = 5 }
    evaluate = { mixture = "other", samples = 4, k = [1, 4] }
    model = {}
    name = "mine"
    """
    path = tmp_path / "mine.toml"
    path.write_text(text)
    small, large = (load_recipe(path, size=size) for size in ("small", "large"))
    assert small.rl.mixture == [{"op": [3], "themes": ["symbolic"]}]
    assert (small.rl.steps, large.rl.steps, large.rl.budget) == (2, None, "7 samples")
    assert len(small.evaluate.mixture[0]["op"]) == 19
    assert large.evaluate.mixture == [{"op": [7, 8, 9, 10], "themes": ["zoo", "school", "festival"]}]
    assert load_recipe(path, {"rl.steps": 9}, size="large").rl.steps == 9
    with pytest.raises(ValueError, match="has sizes"):
        load_recipe(path)
    with pytest.raises(ValueError, match="size must be one of small, large, got 'tiny'"):
        load_recipe(path, size="tiny")


def test_a_size_may_be_like_another(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("""
    name = "mine"
    rl = { steps = 5, mixture = [{ op = [3], themes = ["symbolic"] }] }
    model = {}
    evaluate = { samples = 1, k = [1], mixture = [{ op = [3], themes = ["symbolic"] }] }
    sizes.large = { like = "middle", rl.budget = "9 samples" }
    sizes.middle = { like = "small", model.preset = "10m", rl.prompts = 3 }
    sizes.small = { model.preset = "1m", rl.prompts = 4, rl.samples = 2 }
    sizes.round = { like = "about" }
    sizes.about = { like = "round" }
    sizes.lost = { like = "tiny" }
    """)
    large = load_recipe(path, size="large")
    assert (large.model.preset, large.rl.prompts, large.rl.samples) == ("10m", 3, 2)
    assert (large.rl.steps, large.rl.budget) == (None, "9 samples")
    assert load_recipe(path, size="small").model.preset == "1m"
    for size, message in {
        "lost": "sizes.lost.like must be one of large, middle, small, round, about, got 'tiny'",
        "round": "sizes.about.like must be one of large, middle, small, lost, got 'round'",
    }.items():
        with pytest.raises(ValueError, match=message):
            load_recipe(path, size=size)


def test_named_tables_are_merged_by_name():
    values = {"variants": [{"name": "a", "x": {"p": 1, "q": 2}}, {"name": "b"}], "seeds": [1, 2]}
    changes = {"variants": [{"name": "a", "x": {"q": 3}}, {"name": "c"}], "seeds": [5]}
    assert merge(values, changes) == {
        "variants": [{"name": "a", "x": {"p": 1, "q": 3}}, {"name": "b"}, {"name": "c"}],
        "seeds": [5],
    }
    assert values["variants"][0]["x"]["q"] == 2


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
    with pytest.raises(ValueError, match="tokens and budget exclude each other"):
        load_recipe("smoke", {"pretrain.budget": "5 seconds", "pretrain.tokens": 5})
    with pytest.raises(ValueError, match="steps and budget exclude each other"):
        load_recipe("smoke", {"rl.budget": "5 seconds", "rl.steps": 5})


def test_stages_are_optional():
    values = load_recipe("smoke").to_dict()
    del values["pretrain"], values["midtrain"]
    assert recipe_from_dict(values).stage_names == ("rl",)


@pytest.mark.parametrize(
    "overrides, message",
    [
        ({"rl.stepz": 1}, "rl.stepz: "),
        ({"rl.steps": 0}, "recipe smoke: rl: steps must be at least 1, got 0$"),
        ({"model.preset": "huge"}, "must be one of tiny, 1m, 10m, 100m, got 'huge'"),
        ({"evaluate.k": [64]}, r"every k must be in 1 \.\. samples"),
        ({"evaluate.mixture": [{"op": [1]}]}, r"op must be an integer in 2 \.\. 40, got 1"),
        (
            {"rl.mixture": [{"op": [3], "themes": ["nowhere"]}]},
            "theme: must be one of festival, .*zoo",
        ),
        ({"pretrain.phases": []}, "phases must end at increasing shares"),
        ({"rl.steps": "many"}, "rl.steps: Input should be a valid integer, .*, got 'many'$"),
        ({"pretrain.optim.lr": [1]}, r"optim.lr: Input should be a valid number, got \[1\]$"),
        ({"evaluate.k": ["a"]}, r"evaluate.k.0: Input should be a valid integer, .*, got 'a'$"),
        ({"metrics": ["mlflow"]}, r"metrics\.0: Input should be 'tensorboard', 'trackio' or 'wandb'"),
        ({"rl.budget": "1 hour"}, "a number and one of flop, tokens, seconds, samples"),
        ({"seed": -1}, r"seed must be in 0 \.\. 2\*\*63 - 1, got -1"),
        ({"threads": -1}, "threads must be at least 0, got -1"),
    ],
)
def test_errors_name_the_field(overrides, message):
    with pytest.raises(ValueError, match=message):
        load_recipe("smoke", overrides)


def test_errors_of_files(tmp_path):
    with pytest.raises(
        ValueError, match=r"must be one of .*finding-1-edge, .*quickstart, .*smoke.* or a \.toml file, got 'nothing'"
    ):
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
