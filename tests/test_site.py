"""Pages of docs/site that are made from code: nothing public is missing. `make docs` builds the site itself."""

import dataclasses
import importlib
import re
import sys
from pathlib import Path

import pytest

import fastreason as fr
from fastreason.studies.recipe import available_recipes

SITE = Path(__file__).parents[1] / "docs" / "site"


@pytest.fixture
def page(monkeypatch):
    """A module of docs/site, as MkDocs imports it."""
    monkeypatch.syspath_prepend(str(SITE))

    def load(name):
        monkeypatch.delitem(sys.modules, name, raising=False)
        return importlib.import_module(name)

    return load


def test_every_public_name_is_on_a_page(page, monkeypatch):
    api_pages = page("api_pages").api_pages
    pages = "\n".join(api_pages().values())
    for name, module in fr._HOME.items():
        assert f"::: fastreason.{module}.{name}\n" in pages
    for module in fr._MODULES.values():
        assert f"::: fastreason.{module}\n" in pages
    monkeypatch.setattr(fr, "__all__", [*fr.__all__, "new_name"])
    with pytest.raises(RuntimeError, match="no page for new_name"):
        api_pages()


def test_every_field_of_a_recipe_is_explained(page):
    text = page("recipe_pages").fields_page()
    for settings in (fr.Recipe, fr.SupervisedSettings, fr.PolicySettings, fr.OptimSettings, fr.Phase, fr.Cell):
        for field in dataclasses.fields(settings):
            assert re.search(rf"^\| `{field.name}` \| .+ \| .+ \| \w.*\|$|^\| `{field.name}` .*\* ", text, flags=re.M)
    assert not re.search(r"^\| `\w+` .* \|\s+\|$", text, flags=re.M), "a field without a sentence"


def test_every_recipe_that_ships_is_shown(page):
    text = page("recipe_pages").recipes_page()
    assert re.findall(r"^## (.+)$", text, flags=re.M) == list(available_recipes())


def test_every_command_is_shown_with_its_help(page):
    command_line = page("command_line")
    usage = command_line._printed(["--help"])
    commands = re.findall(r"^  ([a-z]+) ", usage, flags=re.M)
    assert {"run", "eval", "grade", "generate", "look"} <= set(commands)
    for command in ("grade", "look"):
        assert "usage" in command_line._printed([command, "--help"])
    with pytest.raises(RuntimeError, match="printed nothing"):
        command_line._printed(["no-such-command"])
