"""A task folder for lm-evaluation-harness: the problems of `eval`, unique ids, the same verdicts. The harness itself is
run by `make test-lm-eval`, in an environment of its own."""

import importlib.util
import json
import os
import subprocess

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


@pytest.mark.skipif("FASTREASON_LM_EVAL" not in os.environ, reason="needs lm_eval in an environment: make test-lm-eval")
def test_the_harness_gives_the_verdicts_of_eval(tmp_path):
    """lm_eval itself, in the environment of the Python that the variable names, which has fastreason too."""
    flags = ["--op", "6,8", "--themes", "symbolic", "--max-value", "199", "--problems", "10"]
    assert main(["export", "lm-eval", *flags, "--out", str(tmp_path / "tasks")]) == 0
    assert main(["export", "vllm", "tiny-base", "--out", str(tmp_path / "model")]) == 0
    model = f"pretrained={tmp_path / 'model'},dtype=float32"
    command = [os.environ["FASTREASON_LM_EVAL"], "-m", "lm_eval", "run", "--model", "hf", "--model_args", model]
    command += [
        "--tasks",
        "fastreason",
        "--include_path",
        str(tmp_path / "tasks"),
        "--output_path",
        str(tmp_path / "o"),
    ]
    command += ["--device", "cpu", "--batch_size", "20"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    (file,) = (tmp_path / "o").rglob("results_*.json")
    theirs = json.loads(file.read_text())["results"]["fastreason"]
    mixture = fr.Mixture.uniform([6, 8], ["symbolic"], max_value=199)
    ours = fr.evaluate("tiny-base", mixture, problems=10, samples=1, temperature=0.0, ranges={"all": {"6,8": 1.0}})
    row = ours.result["ranges"]["all"]
    assert theirs["verified,none"] == pytest.approx(row["verified"]["1"])
    assert theirs["answer_correct,none"] == pytest.approx(row["answer"]["1"])
    assert theirs["process_accuracy,none"] == pytest.approx(row["process_accuracy"], abs=1e-3)
