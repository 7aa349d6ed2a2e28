"""Every public name is there, documented, and costs nothing until it is used."""

import ast
import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest

import fastreason as fr

from .processes import run_in_forks


@pytest.mark.parametrize("name", fr.__all__)
def test_each_name_imports_and_says_what_it_is(name):
    assert getattr(fr, name).__doc__


@pytest.mark.parametrize(
    "names", [fr.__all__[::6], pytest.param(fr.__all__, marks=pytest.mark.slow)], ids=["some", "all"]
)
def test_each_name_is_loaded_first_of_all(names):
    """By an interpreter that has torch, which takes seconds, and nothing of the package."""
    preamble = "import sys, torch; assert not any(name.startswith('fastreason') for name in sys.modules)"
    failures = run_in_forks(preamble, [f"import fastreason as fr; fr.{name}" for name in names])
    assert failures == [""] * len(names)


def test_the_steps_of_a_run_are_public():
    # what a script needs that does by itself what `fr.run` does
    assert {"Recipe", "load_recipe", "train", "Rollout", "RolloutOutput", "reinforce", "pass_at_k"} <= set(fr.__all__)


def test_type_checkers_see_each_name_where_it_is_loaded_from():
    """`from .room.module import Name as Name` under TYPE_CHECKING, for every line of the table and for nothing else."""
    tree = ast.parse(Path(fr.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    imports = [(node.module, each) for node in block.body if isinstance(node, ast.ImportFrom) for each in node.names]
    names = {each.asname: module for module, each in imports if each.asname in fr._HOME}
    modules = {each.asname: ".".join(filter(None, (module, each.name))) for module, each in imports}
    assert names == fr._HOME
    assert {name: place for name, place in modules.items() if name not in names} == fr._MODULES


@pytest.mark.parametrize("name", ["Cell", "ModelConfig", "Recipe", "PolicySettings", "SupervisedSettings"])
def test_help_explains_every_field(name):
    """A sentence under each field, as the source has it."""
    settings = getattr(fr, name)
    for field in dataclasses.fields(settings):
        assert re.search(rf"^    {field.name} \(.*?\): (\* )?\w+", settings.__doc__, re.M), field.name


@pytest.mark.parametrize("name", ["outcome", "blended", "strict", "steps"])
def test_rewards(name):
    assert getattr(fr.rewards, name).__doc__


@pytest.mark.parametrize(
    "name", ["attention", "rms_norm", "policy_loss", "group_advantages", "cross_entropy", "Segments"]
)
def test_kernels(name):
    assert getattr(fr.kernels, name).__doc__


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        fr.nothing  # noqa: B018
    assert "TaskStream" in dir(fr)


def test_importing_the_package_loads_neither_torch_nor_the_core():
    code = "import sys, fastreason; print([m for m in ('torch', 'fastreason._core') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_task_stream_needs_no_torch():
    code = (
        "import sys, fastreason as fr; s = fr.TaskStream(fr.Mixture.uniform(op=[2])); b = s[0:2]; "
        "fr.grade(b, ['x', 'y']); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_no_module_takes_the_place_of_a_name():
    """`import fastreason.x` sets the attribute x of the package, so no file may be called like a public function."""
    code = (
        "import pkgutil, importlib, fastreason as fr\n"
        "for m in pkgutil.iter_modules(fr.__path__):\n"
        "    if m.name != '__main__': importlib.import_module('fastreason.' + m.name)\n"
        "print([n for n in fr._HOME if type(getattr(fr, n)).__name__ == 'module'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
