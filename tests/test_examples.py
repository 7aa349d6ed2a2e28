"""Every file in examples/ runs, at the smallest size."""

import json
import runpy
import sys
import warnings
from pathlib import Path

import pytest

import fastreason as fr

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs an example in an empty folder; gives what it printed."""

    def run(name: str, *arguments: str) -> str:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return run


def test_read(run, tmp_path):
    text = run("read.py", "--count", "2", "--svg", "graph.svg")
    assert text.count("solution: Define") == 2 and "train-0-1" in text
    assert (tmp_path / "graph.svg").read_text().startswith("<svg")


def test_grade(run):
    text = run("grade.py", "--problems", "20")
    assert "answer right 100.0 %" in text  # the slips are in steps
    assert "'wrong_value'" in text or "'arithmetic_slip'" in text
    assert "right answers from wrong reasoning: 0\n" not in text


def test_grpo(run):
    small = ["--prompts", "2", "--samples", "2", "--new-tokens", "8", "--pretrain-tokens", "100"]
    assert "step 1: reward 0.000" in run("grpo.py", "--steps", "2", *small)


def test_grpo_has_the_gradient_of_the_product():
    """What the example spells out is `policy_step`."""
    import torch

    from fastreason.rl.settings import PolicySettings
    from fastreason.rl.update import policy_step

    mixture = fr.Mixture.uniform(op=[2], themes=["symbolic"], max_value=99)
    tokenizer = fr.Tokenizer.for_mixtures([mixture])
    model = fr.Decoder(fr.ModelConfig.preset("tiny", vocab_size=len(tokenizer), num_hidden_layers=1))
    model.reset_parameters(0)
    samples = fr.Rollout(model, tokenizer).generate(fr.TaskStream(mixture)[0:2], n=3, max_new_tokens=5)
    advantages_PG = torch.tensor([[1.0, -0.5, -0.5], [0.5, -1.0, 0.5]])
    example = runpy.run_path(str(EXAMPLES / "grpo.py"))["loss_of"]
    gradients = []
    for loss in (
        example(model, samples, advantages_PG),
        policy_step(model, samples, advantages_PG, PolicySettings(mixture.to_parts(), samples=3)).loss,
    ):
        model.zero_grad()
        loss.backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in model.parameters()]))
    assert gradients[0].abs().max() > 1e-4
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-6)  # the order of sums differs


def test_own_loop_and_what_it_saves_evaluated(run, tmp_path):
    text = run("own_loop.py", "--steps", "2", "--rows", "1", "--length", "128", "--out", "trained")
    assert "step 1: loss" in text
    small = ["--problems", "2", "--samples", "2", "--new-tokens", "4"]
    problems = ["--op", "2", "3", "--themes", "symbolic", "--max-value", "99"]
    text = run("evaluate.py", "trained", *problems, *small, "--out", "scores.json")
    assert "op 3, verified pass@2: 0.0 %" in text and "out of reach" in text
    assert json.loads((tmp_path / "scores.json").read_text())["samples"] == 8


@pytest.mark.filterwarnings("ignore")  # the warnings of TRL and what it imports are not ours to mend
def test_trl_grpo(run, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("trl", reason="the library trl is not installed (make test-integrations)")
    tokenizer = fr.Tokenizer.build(["symbolic"])
    model = fr.Decoder(fr.ModelConfig.preset("tiny", vocab_size=len(tokenizer), num_hidden_layers=1))
    model.save_pretrained(tmp_path / "model", tokenizer)
    small = ["--steps", "1", "--batch", "4", "--samples", "2", "--new-tokens", "4", "--theme", "symbolic", "--cpu"]
    assert "saved: trained" in run("trl_grpo.py", "model", *small, "--out", "trained")


def test_examples_are_short_enough_to_copy():
    files = sorted(EXAMPLES.glob("*.py"))
    assert len(files) == 6
    for file in files:
        assert 30 <= len(file.read_text().splitlines()) <= 90, file.name
