"""The diffs of CONTRIBUTING.md, each on a copy of the tree: they apply, are clean, and what they touch passes."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
# what a diff may touch or its checks read
COPIED = ["fastreason", "kernels", "bench", "tests", "examples", "csrc", "docs", "pyproject.toml", "CONTRIBUTING.md"]
COPIED += ["README.md", "Makefile", "CMakeLists.txt"]
KERNEL_TESTS = ["tests/bench/test_cases.py", "-k", "squared_relu or every_public_operation"]
# tests of what lists themes, rewards, recipes and operations, besides those that the diffs bring along
NARROW = {
    "theme": ["tests/text/test_theme.py::test_themes_that_ship", "tests/grading/test_gold_traces.py"],
    "reward": ["tests/grading/test_rewards.py"],
    "recipe": ["tests/studies/test_recipe.py::test_what_ships"],
    "kernel": KERNEL_TESTS,
}
# an import of the package is one of the copy, with the compiled modules of this environment
INSTALLED = """
import sys
sys.meta_path[:] = [finder for finder in sys.meta_path if "ScikitBuild" not in type(finder).__name__]
"""


def diffs() -> dict[str, str]:
    """Of each section, what it adds as one patch."""
    sections = re.findall(r"^## Adding a (\w+)\n(.*?)(?=^## |\Z)", PAGE, flags=re.S | re.M)
    return {kind: "".join(re.findall(r"```diff\n(.*?)```", text, flags=re.S)) for kind, text in sections}


def run(*command: str | Path, at: Path, **environment: str) -> str:
    done = subprocess.run(command, cwd=at, capture_output=True, text=True, env=os.environ | environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def copy(tmp_path):
    """The tree as it is, outside of any repository."""
    tree = tmp_path / "tree"
    tree.mkdir()
    unwanted = shutil.ignore_patterns("__pycache__", "*.so", "results", "corpus", "real_runs")
    for name in COPIED:
        source = ROOT / name
        copying = (lambda a, b: shutil.copytree(a, b, ignore=unwanted)) if source.is_dir() else shutil.copyfile
        copying(source, tree / name)
    return tree


def apply(copy: Path, patch: str) -> list[str]:
    """The files that a patch changes; where it was applied to the tree already, it is taken back first."""
    (copy / "example.diff").write_text(patch, encoding="utf-8")
    taken_back = subprocess.run(["git", "apply", "--check", "--reverse", "example.diff"], cwd=copy, capture_output=True)
    if taken_back.returncode == 0:
        run("git", "apply", "--reverse", "example.diff", at=copy)
    run("git", "apply", "example.diff", at=copy)
    return re.findall(r"^\+\+\+ b/(\S+)$", patch, flags=re.M)


def install(copy: Path) -> dict[str, str]:
    """The environment in which `import fastreason` is that of the copy."""
    compiled = Path(sysconfig.get_path("purelib")) / "fastreason"
    for library in compiled.glob("*.so"):
        (copy / "fastreason" / library.name).symlink_to(library)
    (copy / "fastreason" / "kernels").symlink_to(copy / "kernels")
    (copy / "sitecustomize.py").write_text(INSTALLED)
    return {"PYTHONPATH": str(copy)}


def test_all_are_read():
    assert list(diffs()) == list(NARROW)
    assert PAGE.count("```diff") == sum(patch.count("\n+++ b/") for patch in diffs().values()) == 8


@pytest.mark.parametrize("kind", NARROW)
def test_a_diff_applies_is_clean_and_passes(kind, copy):
    changed = apply(copy, diffs()[kind])
    python = [file for file in changed if file.endswith(".py")]
    if python:
        run(sys.executable, "-m", "ruff", "check", *python, at=copy)
        run(sys.executable, "-m", "ruff", "format", "--check", *python, at=copy)
    environment = install(copy)
    typed = [file for file in python if not file.startswith("tests/")]
    if typed:
        # what is imported stands for anything, so that neither torch nor numpy has to be read; `make check` reads all
        loose = ["--follow-imports=skip", "--allow-untyped-decorators", "--allow-subclassing-any", "--cache-dir=mypy"]
        loose += ["--disable-error-code=no-untyped-def", "--no-warn-unused-ignores"]
        run(sys.executable, "-m", "mypy", "--explicit-package-bases", *loose, *typed, at=copy)
    tests = [file for file in changed if file.startswith("tests/")]
    # the interpreter, so that the kernel itself runs
    environment |= {"TRITON_INTERPRET": "1"} if kind == "kernel" else {}
    run(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *NARROW[kind], *tests, at=copy, **environment)


@pytest.mark.slow
@pytest.mark.parametrize("kind", NARROW)
def test_all_checks_and_tests_pass_with_it(kind, tmp_path):
    """In a clone that is set up of its own; minutes each."""
    tree = tmp_path / "tree"
    run("git", "clone", "--quiet", str(ROOT), str(tree), at=tmp_path)
    apply(tree, diffs()[kind])
    run("make", "setup", at=tree)
    if kind == "kernel":
        run(tree / ".venv/bin/python", "-m", "bench.kernels.audit", "squared_relu", "--write", at=tree)
    run("make", "check", "test", at=tree)
