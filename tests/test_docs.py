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
SMALLER = {"threads": 1, "pretrain.tokens": 20_000, "midtrain.tokens": 5_000, "evaluate.problems": 2}
# a Python block, and the output shown below it; "python continued" goes on with the names of the block before
BLOCK = re.compile(r"```python( continued)?\n((?:(?!```).)*?)```(?:\n\n```text\n(.*?)```)?", flags=re.S)


def scripts():
    """Of every page, its blocks with what they print, those that continue one another together."""
    for page in PAGES:
        found: list[list[tuple[str, str]]] = []
        for continued, code, shown in BLOCK.findall(page.read_text(encoding="utf-8")):
            if not continued:
                found.append([])
            found[-1].append((code, shown))
        yield from (pytest.param(script, id=f"{page.name}:{i}") for i, script in enumerate(found))


@pytest.mark.parametrize("script", list(scripts()))
def test_python_blocks_run_and_print_what_is_shown(script, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run = fastreason.run
    monkeypatch.setattr(
        fastreason, "run", lambda *names, overrides: run(*names, overrides=SMALLER | overrides)
    )  # of `smoke`
    names = {"__name__": "__main__"}
    for code, shown in script:
        exec(compile(code, "block", "exec"), names)
        printed = capsys.readouterr().out
        assert not shown or printed == shown


def test_the_readme_shows_a_problem_and_a_verdict_on_its_first_screen():
    first = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()[:40]
    assert any("Define " in line for line in first) and any("ARITHMETIC_SLIP" in line for line in first)


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
