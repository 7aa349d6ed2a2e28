"""Every Python block of the README and the docs runs, and every example in a docstring."""

import doctest
import importlib
import os
import re
from pathlib import Path

import pytest

import fastreason

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCKS = [
    pytest.param(block, id=f"{page.name}:{i}")
    for page in PAGES
    for i, block in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.S))
]


SMALLER = {"threads": 1, "pretrain.tokens": 20_000, "midtrain.tokens": 5_000, "evaluate.problems": 2}


@pytest.mark.parametrize("block", BLOCKS)
def test_python_blocks_run(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = fastreason.run
    monkeypatch.setattr(
        fastreason, "run", lambda *names, overrides: run(*names, overrides=SMALLER | overrides)
    )  # of `smoke`
    exec(compile(block, "block", "exec"), {"__name__": "__main__"})


SHOWN = [
    pytest.param(*found, id=f"{page.name}:{i}")
    for page in PAGES
    for i, found in enumerate(
        re.findall(r"```python\n((?:(?!```).)*?)```\n\n```text\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.S)
    )
]


def test_the_readme_shows_a_problem_and_a_verdict_on_its_first_screen():
    first = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()[:40]
    assert any("Define " in line for line in first) and any("ARITHMETIC_SLIP" in line for line in first)


@pytest.mark.parametrize("block, output", SHOWN)
def test_shown_output_is_what_the_block_prints(block, output, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "block", "exec"), {"__name__": "__main__"})
    assert capsys.readouterr().out == output


def modules():
    files = [*(ROOT / "fastreason").rglob("*.py"), *(ROOT / "kernels").rglob("*.py")]
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in files]
    names = [("fastreason." if name.startswith("kernels") else "") + name.removesuffix(".__init__") for name in names]
    # what an adapter adapts to may be absent
    return sorted(name for name in names if name != "fastreason.__main__" and ".integrations." not in name)


@pytest.mark.parametrize("name", modules())
def test_docstring_examples(name):
    module = importlib.import_module(name)
    # what a reader of an example has at hand
    extra = {"torch": importlib.import_module("torch"), "np": importlib.import_module("numpy"), "fr": fastreason}
    if name == "fastreason.kernels.rms_norm" and os.environ.get("TRITON_INTERPRET") == "1":
        return
    result = doctest.testmod(module, extraglobs=extra, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target
