"""What mypy and pyright see of the public names, in the file of a user: right uses pass, each wrong one is an error."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

SETTING = """
import numpy as np
from typing import assert_type
import fastreason as fr

mixture = fr.Mixture.uniform(op=[2, 3], themes=["symbolic"])
stream = fr.TaskStream(mixture, seed=0, split="test")
problems = stream[0:8]
tokenizer = fr.Tokenizer.for_mixtures([mixture])
model = fr.Decoder(fr.ModelConfig.preset("tiny", vocab_size=len(tokenizer)))
samples = fr.Rollout(model, tokenizer).generate(problems, n=4)
verdicts = fr.grade(problems, problems.solutions)
scores = fr.evaluate(model, mixture, tokenizer=tokenizer, problems=4, samples=8)
"""

RIGHT = """
assert_type(stream[0:8], fr.ProblemBatch)
assert_type(problems[0], fr.Problem)
assert_type(problems[2:5], fr.ProblemBatch)
assert_type([problem.answer for problem in problems], list[int])
assert_type(problems.prompts, list[str])
assert_type(fr.Cell(op=2).theme, str)
assert_type(0.5 * mixture + mixture, fr.Mixture)
assert_type(verdicts, fr.Verdicts)
assert_type(samples, fr.RolloutOutput)
assert_type(fr.grade(problems, samples), fr.Verdicts)
assert_type(scores.verified[6].at(8), fr.Estimate)
assert_type(fr.find_edge("a folder", mixture).mixture, fr.Mixture | None)
assert_type(fr.available_themes(), tuple[str, ...])
assert_type(fr.load_recipe("smoke"), fr.Recipe)
assert_type(fr.__version__, str)
print(fr.rewards.strict(verdicts).mean(), fr.pass_at_k(np.array([1]), n=4, k=2), fr.kernels.Segments.from_lengths([3]))
"""

WRONG = """
fr.TaskStream(mixture).nonsense
fr.nonsense
fr.Cell(op="2")
fr.TaskStream(mixture, split="training")
fr.TaskStream([fr.Cell(op=2)])
fr.grade(problems)
fr.Rollout(model)
fr.rewards.strct(verdicts)
fr.ModelConfig(vocabulary=300)
fr.kernels.attention(problems.prompts)
fr.available_themes()[0].nonsense
problems[0].prompts
scores.verified[6].at("8")
fr.evaluate(model, mixture, samples="8")
"""


@pytest.fixture(scope="module")
def user(tmp_path_factory):
    """A folder with the user's file, and beside it the package as it is installed, kernels inside."""
    folder = tmp_path_factory.mktemp("user")
    package = folder / "site" / "fastreason"
    package.mkdir(parents=True)
    for source in [*(ROOT / "fastreason").iterdir(), *(ROOT / "csrc" / "bindings").glob("*.pyi"), ROOT / "kernels"]:
        (package / source.name).symlink_to(source)
    (folder / "user.py").write_text(SETTING + RIGHT + WRONG)
    return folder


def marked_wrong():
    """Numbers of the lines that each have an error."""
    first = (SETTING + RIGHT).count("\n") + 1
    return {first + i for i, line in enumerate(WRONG.split("\n")) if line}


def run(command, folder, **environment):
    done = subprocess.run(command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True)
    assert done.returncode == 1, done.stdout + done.stderr  # errors were found, and nothing worse
    return done.stdout


def test_mypy_accepts_right_uses_and_refuses_wrong_ones(user, pytestconfig):
    cache = pytestconfig.cache.mkdir("user_types")  # a later run need not read torch again
    flags = ["--strict", "--follow-imports=silent", f"--cache-dir={cache}", "--config-file="]
    text = run([sys.executable, "-m", "mypy", *flags, "user.py"], user, MYPYPATH=str(user / "site"))
    assert {int(line) for line in re.findall(r"^user\.py:(\d+): error", text, re.M)} == marked_wrong(), text


def test_pyright_accepts_right_uses_and_refuses_wrong_ones(user):
    """basedpyright is pyright as a wheel, which needs no download when it runs; `standard` is pyright's own mode."""
    settings = {"include": ["user.py"], "extraPaths": ["site"], "typeCheckingMode": "standard"}
    (user / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "basedpyright", "--outputjson", "--pythonpath", sys.executable]
    found = json.loads(run(command, user))["generalDiagnostics"]
    errors = {item["range"]["start"]["line"] + 1 for item in found if item["severity"] == "error"}
    assert errors == marked_wrong(), found
