"""pass@k against counting every draw, and what an evaluation returns."""

from itertools import combinations

import numpy as np
import pytest
import torch

import fastreason as fr
from fastreason.evaluate import EvaluateSettings, bootstrap_interval, evaluate, pass_at_k, score

from .test_model import random_model

PART = {"op": [2, 3], "themes": ["symbolic"], "max_value": 99}


@pytest.mark.parametrize("n", [1, 4, 7])
def test_pass_at_k_counts_draws(n):
    for k in range(1, n + 1):
        for correct in range(n + 1):
            samples = [1] * correct + [0] * (n - correct)
            draws = [any(draw) for draw in combinations(samples, k)]
            assert pass_at_k(np.array([correct]), n, k)[0] == pytest.approx(np.mean(draws), abs=1e-12)


def test_pass_at_k_is_unbiased_and_needs_enough_samples():
    rng = np.random.default_rng(0)
    p = 0.15
    estimates = pass_at_k(rng.binomial(8, p, size=200_000), 8, 4)
    assert estimates.mean() == pytest.approx(1 - (1 - p) ** 4, abs=0.003)
    with pytest.raises(ValueError, match=r"k must be in 1 \.\. n = 8, got 9"):
        pass_at_k(np.array([1]), 8, 9)


def test_bootstrap_interval():
    values = np.random.default_rng(1).binomial(1, 0.3, size=400).astype(float)
    low, high = bootstrap_interval(values)
    error = 1.96 * np.sqrt(values.mean() * (1 - values.mean()) / 400)
    assert low == pytest.approx(values.mean() - error, abs=0.01)
    assert high == pytest.approx(values.mean() + error, abs=0.01)
    assert bootstrap_interval(np.ones(5)) == (1.0, 1.0)


def test_score_of_known_verdicts():
    batch = fr.TaskStream(fr.Mixture.from_dict(PART), seed=1, split="test")[0:2]
    gold = [solution.replace(" Answer: ", " </solution> <answer> ") for solution in batch.solutions]
    gold = [text.rstrip(".") + " </answer>" for text in gold]
    verdicts = fr.grade(batch, [gold[0], "nonsense", gold[1], gold[1]])
    result = score(verdicts, 2, [1, 2])
    assert result["verified"] == {"1": 0.75, "2": 1.0}
    assert result["answer"] == {"1": 0.75}
    assert result["process_accuracy"] == pytest.approx(0.75)
    assert result["verified_interval"]["1"] == [0.5, 1.0]


def test_an_evaluation_follows_from_seed_and_model_alone():
    mix = fr.Mixture.from_dict(PART)
    tokenizer = fr.Tokenizer.for_mixtures([mix])
    model = random_model(fr.ModelConfig.preset("tiny", vocab_size=len(tokenizer)), torch.float32, seed=4)
    chosen = EvaluateSettings(mixture=[PART], problems=5, samples=4, k=[1, 4], max_new_tokens=16, traces=2)
    a, b = (evaluate(model, tokenizer, chosen, seed=1) for _ in range(2))
    assert a == b
    assert list(a["ops"]) == ["2", "3"]
    assert a["samples"] == 40
    assert len(a["traces"]) == 4
    for trace in a["traces"]:
        assert trace.keys() == {"op", "prompt", "completion", "gold", "verified", "answer_correct", "steps"}
    for entry in a["ops"].values():
        for value in (*entry["verified"].values(), entry["answer"]["1"], entry["process_accuracy"]):
            assert 0.0 <= value <= 1.0


def test_it_draws_from_the_test_split_only(monkeypatch):
    seen = []
    real = fr.TaskStream.__init__

    def spy(self, mixture, seed=0, split="train"):
        seen.append((seed, split))
        real(self, mixture, seed=seed, split=split)

    monkeypatch.setattr(fr.TaskStream, "__init__", spy)
    tokenizer = fr.Tokenizer.for_mixtures([fr.Mixture.from_dict(PART)])
    model = random_model(fr.ModelConfig.preset("tiny", vocab_size=len(tokenizer)), torch.float32)
    evaluate(model, tokenizer, EvaluateSettings(mixture=[PART], problems=1, samples=1, k=[1], max_new_tokens=2), seed=7)
    assert seen == [(0, "test"), (0, "test")]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"k": [1, 9]}, r"every k must be in 1 \.\. samples = 8, got \[1, 9\]"),
        ({"k": []}, "every k must be"),
        ({"problems": 0}, "problems >= 1"),
    ],
)
def test_settings_out_of_range(change, message):
    with pytest.raises(ValueError, match=message):
        EvaluateSettings(**({"mixture": [PART], "samples": 8, "k": [1]} | change))
