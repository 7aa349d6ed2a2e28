"""A task folder for lm-evaluation-harness: the problems of `eval`, unique ids, the same verdicts. The harness itself is
run by `python tests/integrations/run_lm_eval.py`, in an environment of its own."""

import importlib.util
import json

import pytest

import fastreason as fr
from fastreason.cli.main import main
from fastreason.evaluation.evaluate import streams_of
from fastreason.integrations.lm_eval import process_results

FLAGS = ["--op", "2-4", "--themes", "symbolic", "zoo", "--problems", "5"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tasks")
    assert main(["export", "lm-eval", *FLAGS, "--name", "arithmetic", "--out", str(folder)]) == 0
    return folder


def rows(folder):
    return [json.loads(line) for line in (folder / "arithmetic.jsonl").read_text().splitlines()]


def test_the_problems_are_those_of_an_evaluation(folder):
    streams = streams_of(fr.Mixture.uniform([2, 3, 4], ["symbolic", "zoo"]))
    prompts = [prompt for stream in streams.values() for prompt in stream[0:5].prompts]
    assert [row["prompt"] for row in rows(folder)] == prompts
    assert len({row["id"] for row in rows(folder)}) == 15
    assert [row["op"] for row in rows(folder)] == [2] * 5 + [3] * 5 + [4] * 5


def test_the_functions_that_the_yaml_names_are_there(folder):
    spec = importlib.util.spec_from_file_location("utils_of_the_task", folder / "utils.py")
    utils = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(utils)
    text = (folder / "arithmetic.yaml").read_text()
    for name in ("problems", "process_results"):
        assert f"!function utils.{name}" in text and callable(getattr(utils, name))


def test_completions_are_graded_without_their_stop(folder):
    row = rows(folder)[3]
    steps, _, answer = row["solution"].rstrip(".").rpartition(" Answer: ")
    solution = f" {steps} </solution> <answer> "
    right = f"{solution}{answer}"
    assert process_results(row, [right]) == {"answer_correct": 1.0, "verified": 1.0, "process_accuracy": 1.0}
    assert process_results(row, [f"{solution}1{answer}"])["answer_correct"] == 0.0
    assert process_results(row, [[right, "nothing"]])["verified"] == 0.5  # `repeats: 2`


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--problems", "0"], "problems must be an integer >= 1, got 0"),
        (["--max-new-tokens", "0"], "max_new_tokens must be an integer >= 1, got 0"),
        (["--name", "a/b"], "name must be at most 100 letters, digits, - and _, got 'a/b'"),
        (["--op", "50"], "op must be an integer in 2 .. 40, got 50"),
    ],
)
def test_export_refuses(tmp_path, capsys, flags, message):
    assert main(["export", "lm-eval", "--out", str(tmp_path / "t"), *flags]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "t").exists()
