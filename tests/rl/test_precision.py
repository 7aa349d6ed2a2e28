"""Reinforcement learning in bfloat16 on CPU: what is narrow, what is not, and what corrects for the difference."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import fastreason as fr
from fastreason.model.precision import CopyInDtype, product_dtype
from fastreason.rl import loop
from fastreason.rl.groups import Groups
from fastreason.rl.loop import update
from fastreason.rl.update import group_loss
from fastreason.training.optimizer import Optimizer

from .test_loop import adamw, by_number, first_token, flat, metrics, small_model
from .test_policy import MIX, run_stage, sample, settings


@pytest.fixture(scope="module")
def tokenizer():
    return fr.Tokenizer.for_mixtures([MIX])


def test_auto_is_float32_on_cpu_and_bfloat16_on_a_gpu():
    weight = torch.zeros(1)
    assert product_dtype("auto", weight) == product_dtype("float32", weight) == torch.float32
    assert product_dtype("bfloat16", weight) == torch.bfloat16
    on_gpu = SimpleNamespace(dtype=torch.float32, device=torch.device("cuda"))
    assert product_dtype("auto", on_gpu) == torch.bfloat16
    # other weights have no choice
    assert product_dtype("bfloat16", weight.double()) == torch.float64
    assert product_dtype("float32", weight.half()) == torch.float16


@pytest.mark.parametrize("backend", ["cpp", "torch"])
def test_the_sampler_has_a_narrow_copy_of_the_current_weights(tokenizer, backend):
    model = small_model(tokenizer)
    engine = fr.Rollout(model, tokenizer, precision="bfloat16", backend=backend)
    prompts = fr.TaskStream(MIX, seed=0)[0:2]
    settings = {"max_new_tokens": 4, "temperature": 1.0}
    narrow = small_model(tokenizer).to(torch.bfloat16)
    for seed in (0, 1):
        model.reset_parameters(seed)
        narrow.load_state_dict(model.state_dict())
        wanted = fr.Rollout(narrow, tokenizer, backend=backend).generate(prompts, 3, **settings)
        found = engine.generate(prompts, 3, **settings)
        assert np.array_equal(found.tokens, wanted.tokens)
        assert np.array_equal(found.logprobs, wanted.logprobs)
    assert model.embedding.weight.dtype == torch.float32


def test_a_copy_has_no_gradients(tokenizer):
    model = small_model(tokenizer)
    copy = CopyInDtype(model, torch.bfloat16).refresh()
    assert {parameter.dtype for parameter in copy.parameters()} == {torch.bfloat16}
    assert not any(parameter.requires_grad for parameter in copy.parameters())


def test_precisions_that_there_are(tokenizer):
    model = small_model(tokenizer)
    with pytest.raises(ValueError, match="precision must be one of auto, float32, bfloat16, got 'half'"):
        fr.Rollout(model, tokenizer, precision="half")


def test_memory_for_keys_and_values_counts_narrow_ones(tokenizer):
    model = small_model(tokenizer)
    sizes = {}
    for precision in ("float32", "bfloat16"):
        engine = fr.Rollout(model, tokenizer, precision=precision, backend="torch", kv_memory_mb=1e-3)
        with pytest.raises(ValueError, match="which need") as error:
            engine.check_memory(32, 32)
        sizes[precision] = float(str(error.value).split()[-1])
    assert sizes["bfloat16"] == pytest.approx(sizes["float32"] / 2, rel=0.01)


def test_a_bandit_is_solved_in_bfloat16(tmp_path, tokenizer):
    """With the settings that solve it in float32, test_loop.py, up to two thirds of the steps."""
    model = small_model(tokenizer)
    chosen = settings(
        prompts=4, samples=64, max_new_tokens=1, steps=30, optim=adamw(0.01), precision="bfloat16"
    )  # fmt: skip
    run_stage(model, tokenizer, chosen, tmp_path, reward=first_token)
    lines = metrics(tmp_path)
    assert lines[0]["reward"] < 0.05
    assert lines[-1]["reward"] > 0.6
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    # trained from bfloat16 weights, so they are not on its grid
    assert not torch.equal(model.blocks[0].qkv.weight, model.blocks[0].qkv.weight.bfloat16().float())
    trained = [line for line in lines if "loss" in line]
    assert all(line["ratio_min"] == line["ratio_max"] == 1.0 for line in trained)
    assert all(0 < line["mean_logprob_difference"] <= line["max_logprob_difference"] < 0.5 for line in trained)


@pytest.mark.parametrize("mismatch", ["ratio", "importance", "ignore"])
@pytest.mark.parametrize("kind", ["grpo", "gspo"])
@pytest.mark.parametrize("several", [{}, {"epochs": 2}, {"minibatches": 2}])
def test_what_corrects_for_a_sampler_that_differs(tokenizer, mismatch, kind, several):
    """A sampler whose log-probabilities are 0.1 too high, so that each ratio and each weight is exp(-0.1)."""
    samples = sample(small_model(tokenizer), tokenizer)
    given = torch.arange(16).remainder(3).eq(0).float()
    advantages = loop.advantages(given, 4)
    chosen = settings(loss=kind, clip_low=0.5, clip_high=0.5, optim=adamw(0.01), mismatch=mismatch, **several)
    off = replace(samples, logprobs=samples.logprobs + np.float32(0.1))
    model, wanted = small_model(tokenizer), small_model(tokenizer)
    history = update(model, Optimizer(model, chosen.optim), Groups.of(off, given), advantages, chosen, 0.5)
    assert history[0]["max_logprob_difference"] == pytest.approx(0.1, abs=1e-4)
    assert history[0]["mean_logprob_difference"] == pytest.approx(0.1, abs=1e-4)
    ratio = np.exp(-0.1) if mismatch == "ratio" else 1.0
    assert history[0]["ratio_mean"] == pytest.approx(ratio, abs=1e-4)
    # the loss and every gradient are those of the right log-probabilities, times exp(-0.1) unless it is ignored
    factor = 1.0 if mismatch == "ignore" else np.exp(-0.1)
    right = replace(chosen, mismatch="ratio")
    known = update(wanted, Optimizer(wanted, chosen.optim), Groups.of(samples, given), advantages, right, 0.5)
    assert history[0]["loss"] == pytest.approx(factor * known[0]["loss"], abs=1e-4)
    assert history[0]["grad_norm"] == pytest.approx(factor * known[0]["grad_norm"], rel=1e-3)
    if mismatch == "ignore":
        # adamw divides a gradient by its size: near 0 rounding shows
        torch.testing.assert_close(flat(model), flat(wanted), atol=5e-4, rtol=0)


def test_importance_is_bounded_and_of_tokens(tokenizer):
    """A token that the sampler thought far too unlikely counts twice, not exp(5) times."""
    model = small_model(tokenizer)
    samples = sample(model, tokenizer)
    logprobs = samples.logprobs.copy()
    logprobs[:, 0] -= 5.0
    advantages = torch.ones(16)
    losses = {}
    for mismatch in ("ignore", "importance"):
        chosen = settings(mismatch=mismatch)
        losses[mismatch] = group_loss(
            model, Groups.of(replace(samples, logprobs=logprobs), advantages), advantages, chosen
        )
    tokens = int(samples.lengths.sum())
    assert losses["ignore"].loss.item() == pytest.approx(-1.0, abs=1e-4)
    assert losses["importance"].loss.item() == pytest.approx(-(tokens + 16) / tokens, abs=1e-4)


def test_in_float32_nothing_is_corrected(tmp_path, tokenizer):
    """The default on CPU: the sampler's log-probabilities are the old ones, as a ratio of 1 up to rounding shows."""
    for mismatch in ("auto", "ratio"):
        (tmp_path / mismatch).mkdir()
        model = small_model(tokenizer)
        chosen = settings(steps=2, optim=adamw(1e-3), mismatch=mismatch)
        run_stage(model, tokenizer, chosen, tmp_path / mismatch, reward=by_number)
    first, second = ([line["loss"] for line in metrics(tmp_path / name)] for name in ("auto", "ratio"))
    assert first == second
