"""The JSON Schema of recipes: editors accept what we accept, and mark what we refuse by type or name."""

import json
import tomllib
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from fastreason.cli.main import main
from fastreason.studies.recipe import available_recipes
from fastreason.studies.recipe_schema import recipe_schema

RECIPES = Path(__file__).parents[2] / "fastreason" / "studies" / "recipes"
FILES = [*RECIPES.glob("*.toml"), Path(__file__).with_name("tiny.toml")]


@pytest.fixture(scope="module")
def validator():
    schema = recipe_schema()
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def test_every_recipe_that_ships_is_of_the_schema(validator):
    assert {path.stem for path in FILES} == {*available_recipes(), "tiny"}
    for path in FILES:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
        assert not [error.message for error in validator.iter_errors(values)], path.name


@pytest.mark.parametrize(
    "text, message",
    [
        ("rl.stepz = 3", "'stepz' was unexpected"),
        ("rl.steps = 'three'", "'three' is not of type 'integer'"),
        ("rl.loss = 'ppo'", "'ppo' is not one of"),
        ("model.width = 64", "'width' was unexpected"),
        ("sizes.laptop.rl.stepz = 3", "'stepz' was unexpected"),
        ("[[variants]]\nname = 'a'\nrl.stepz = 3", "'stepz' was unexpected"),
        ("[[variants]]\nname = 'a'\nremove = [3]", "3 is not of type 'string'"),
        ("[[variants]]\nname = 'a'\nmid.stepz = 3", "'stepz' was unexpected"),
        ("[[stages]]\nname = 'a'\nkind = 'rl'\nstepz = 3", "'stepz' was unexpected"),
        ("[[stages]]\nname = 'a'\nkind = 'sft'", "'sft' is not one of"),
        ("[[claims]]\nname = 'a'\nmetric = 'luck'", "'luck' is not one of"),
        ("[[pretrain.phases]]\nmixture = [{ op = [2], deepness = [2] }]", "is not valid under any"),
    ],
)
def test_what_is_no_recipe_is_marked(validator, text, message):
    (error,) = validator.iter_errors(tomllib.loads(text))
    assert message in error.message


def test_fields_are_explained(validator):
    """Every one, as editors show the sentence beside the name."""
    properties = [validator.schema["properties"]]
    properties += [each["properties"] for each in validator.schema["$defs"].values() if "properties" in each]
    assert len(properties) > 10
    assert [name for each in properties for name, field in each.items() if "description" not in field] == []


def test_the_schema_is_printed(capsys):
    assert main(["info", "--schema"]) == 0
    assert json.loads(capsys.readouterr().out) == recipe_schema()
    assert main(["info", "--schema", "--mixture", "pretrain"]) == 2
    assert "not allowed with argument --schema" in capsys.readouterr().err
