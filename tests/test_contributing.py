"""The diffs of CONTRIBUTING.md: they apply to the code as it is, and what they add works."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from fastreason.studies.recipe import load_recipe
from fastreason.text.theme import Theme

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "CONTRIBUTING.md").read_text()
DIFFS = re.findall(r"```diff\n--- (\S+)\n\+\+\+ b/(\S+)\n@@\n(.*?)```", PAGE, flags=re.S)
NEW = {path: re.sub(r"^\+", "", body, flags=re.M) for old, path, body in DIFFS if old == "/dev/null"}


def test_all_are_read():
    assert PAGE.count("```diff") == len(DIFFS) == 7


@pytest.mark.parametrize("old, path, body", DIFFS, ids=[path for _, path, _ in DIFFS])
def test_each_applies(old, path, body):
    if old == "/dev/null":
        assert not (ROOT / path).exists()
        assert all(line.startswith("+") for line in body.splitlines())
    else:
        before = "".join(line[1:] for line in body.splitlines(keepends=True) if line[0] in " -")
        assert (ROOT / path).read_text().count(before) == 1


@pytest.fixture
def patched(tmp_path):
    """A folder with the files that the diffs add."""
    for path, text in NEW.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    return tmp_path


def test_the_theme_and_the_recipe_are_valid(patched):
    theme = Theme.load(str(patched / "fastreason/text/themes/harbour.toml"))
    assert theme.style == "published"
    assert load_recipe(patched / "fastreason/studies/recipes/school.toml").pretrain.tokens == 2_000_000


def test_the_reward_and_the_kernel_pass_their_tests(patched):
    """As parts of the package: the added function in its module, the added file under fastreason.kernels."""
    (reward,) = (body for old, path, body in DIFFS if path == "fastreason/grading/rewards.py")
    added = "".join(line[1:] for line in reward.splitlines(keepends=True) if line.startswith("+"))
    (patched / "conftest.py").write_text(
        "import importlib.util, sys, pytest, torch, fastreason.grading.rewards, fastreason.kernels\n"
        f"exec({added!r}, vars(fastreason.grading.rewards))\n"
        f"spec = importlib.util.spec_from_file_location('fastreason.kernels.squared_relu', "
        f"{str(patched / 'kernels/squared_relu.py')!r})\n"
        "module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(module)\n"
        "@pytest.fixture\n"
        "def device(): return 'cpu'\n"
    )
    (patched / "tests/kernels/numerics.py").write_text((ROOT / "tests/kernels/numerics.py").read_text())
    for folder in ("tests", "tests/kernels", "tests/grading"):
        (patched / folder / "__init__.py").touch()
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", patched, patched / "tests"]
    # the interpreter, so that the kernel itself runs
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=patched,
        env={"TRITON_INTERPRET": "1", "PATH": "/usr/bin:/bin", "HOME": str(patched)},
    )  # fmt: skip
    assert done.returncode == 0 and "4 passed" in done.stdout, done.stdout + done.stderr
