"""Samples that run into their limit: what they earn, whether they are in the loss, and that everything agrees on it."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import fastreason as fr
from fastreason.rl import loop as policy
from fastreason.rl.groups import counted_rewards
from fastreason.rl.loop import Groups, update
from fastreason.rl.statistics import pass_flop
from fastreason.runtime.metrics_log import MetricsLog
from fastreason.runtime.stop_request import Interrupted, StopRequest
from fastreason.training.optimizer import Optimizer

from .test_loop import adamw, flat, metrics, small_model
from .test_policy import MIX, run_stage, settings

nan = np.nan
# the second and third samples are cut off
SAMPLES = SimpleNamespace(
    tokens=np.zeros((3, 4), np.int32), lengths=np.array([2, 4, 4]), finished=np.array([True, False, False])
)
OF_SAMPLES = [0.5, 0.75, -1.0]
# of tokens: what stands behind the end of the first sample, and a cut sample without a reward
OF_TOKENS = [[0.0, 1.0, 7.0, nan], [nan, 1.0, nan, -0.5], [nan] * 4]


@pytest.fixture(scope="module")
def tokenizer():
    return fr.Tokenizer.for_mixtures([MIX])


def say_which_ended(monkeypatch, ended):
    """Random weights end when they please: the rollout says of every group which of its samples ended."""
    real = fr.Rollout.generate

    def generate(self, *args, **kwargs):
        out = real(self, *args, **kwargs)
        return replace(out, finished=np.resize(ended, len(out.lengths)))

    monkeypatch.setattr(fr.Rollout, "generate", generate)


@pytest.mark.parametrize(
    "truncated, of_samples, of_tokens",
    [
        # a penalty stays a penalty: to be cut off is never better than to end
        ("zero", [0.5, 0.0, -1.0], [[0, 1, nan, nan], [nan, 0, nan, -0.5], [nan, nan, nan, 0]]),
        ("mask", [0.5, nan, nan], [[0, 1, nan, nan], [nan] * 4, [nan] * 4]),
        ("keep", OF_SAMPLES, [[0, 1, nan, nan], *OF_TOKENS[1:]]),
    ],
)
def test_what_a_sample_earns(truncated, of_samples, of_tokens):
    for given, want in ((OF_SAMPLES, of_samples), (OF_TOKENS, of_tokens)):
        before = np.array(given, np.float32)
        got, in_loss = counted_rewards(before, SAMPLES, truncated)
        np.testing.assert_array_equal(got, np.array(want, np.float32))
        np.testing.assert_array_equal(before, np.array(given, np.float32))
        assert in_loss.tolist() == [True, truncated != "mask", truncated != "mask"]


def test_a_group_is_compared_with_its_samples_in_the_loss_alone():
    got = policy.advantages(torch.tensor([1.0, nan, 0.0, nan, 1.0, nan, nan, nan]), 4)
    torch.testing.assert_close(got, torch.tensor([0.5, 0, -0.5, 0, 0, 0, 0, 0]) / (0.5**0.5 + 1e-6))
    of_others = policy.advantages(torch.tensor([1.0, nan, 0.0]), 3, baseline="leave_one_out", scale="none")
    assert of_others.tolist() == [1.0, 0.0, -1.0]


@pytest.mark.parametrize("reward", ["strict", "blended", "outcome", "steps", lambda v: np.arange(len(v)) % 2])
@pytest.mark.parametrize("truncated", ["zero", "mask"])
def test_without_an_end_there_is_nothing_to_learn(tmp_path, tokenizer, monkeypatch, truncated, reward):
    """Whatever the reward, named or a function, no weight moves; what was sampled is counted all the same."""
    say_which_ended(monkeypatch, [False])
    how = {"reward": reward} if callable(reward) else {}
    named = {} if how else {"reward": reward}
    model = small_model(tokenizer)
    before = flat(model).clone()
    chosen = settings(steps=1, max_new_tokens=6, truncated=truncated, **named)
    progress = run_stage(model, tokenizer, chosen, tmp_path, **how)
    (line,) = metrics(tmp_path)
    assert line["finished"] == 0.0
    assert line["reward"] == 0.0
    assert line["zero_advantage"] == 1.0
    assert progress["tokens"] == 16 * line["mean_length"] > 16
    assert torch.equal(flat(model), before)


def first_tokens(samples):
    return (samples.tokens[:, 0] % 3).astype(np.float32)


def run_some_cut(monkeypatch, tokenizer, folder, truncated, stop=None, **changes):
    """Every fourth sample is cut off."""
    say_which_ended(monkeypatch, [True, False, True, True])
    folder.mkdir(exist_ok=True)
    model, seen = small_model(tokenizer), []

    def reward(problems, samples, verdicts):
        seen.append(samples)
        return first_tokens(samples)

    chosen = settings(truncated=truncated, max_new_tokens=6, optim=adamw(1e-3), **changes)
    progress = run_stage(model, tokenizer, chosen, folder, stop, reward=reward)
    return model, seen, progress


def test_a_masked_step_is_the_update_of_the_samples_that_ended(tmp_path, tokenizer, monkeypatch):
    """Groups by hand, with other samples instead of the cut ones: the same weights, FLOP without them."""
    model, (samples,), progress = run_some_cut(monkeypatch, tokenizer, tmp_path, "mask", steps=1)
    ended = samples.finished
    by_hand, chosen = small_model(tokenizer), settings(max_new_tokens=6, optim=adamw(1e-3))
    rewards = torch.from_numpy(np.where(ended, first_tokens(samples), nan)).float()
    groups = Groups.of(samples, rewards, in_loss=ended)
    groups.tokens[~ended] = tokenizer.pad_id
    given = policy.advantages(rewards, 4)
    update(by_hand, Optimizer(by_hand, chosen.optim), groups, given, chosen, 0.0)
    assert torch.equal(flat(model), flat(by_hand))
    nonzero = given.view(4, 4).abs().sum(1).numpy() > 0
    prompts, lengths = np.diff(samples.prompt_offsets), np.where(ended, samples.lengths, 1).reshape(4, 4)
    flop = pass_flop(model.config, prompts, samples.lengths.reshape(4, 4))
    flop += 3 * pass_flop(model.config, prompts[nonzero], lengths[nonzero])
    assert progress["flop"] == pytest.approx(flop)
    (line,) = metrics(tmp_path)
    assert line["reward"] == pytest.approx(np.where(ended, first_tokens(samples), 0).mean(), rel=1e-5)
    assert line["finished"] == 0.75
    assert line["trained_groups"] == nonzero.sum() > 0


@pytest.mark.parametrize("truncated", ["zero", "mask"])
def test_a_stop_in_the_middle_changes_no_bit(tmp_path, tokenizer, monkeypatch, truncated):
    changes = {"steps": 3, "loss": "dapo", "kl_coef": 0.05, "count_zero_advantage": True, "minibatches": 2}
    whole, _, _ = run_some_cut(monkeypatch, tokenizer, tmp_path / "whole", truncated, **changes)
    stop = StopRequest()
    stop.requested = True
    with pytest.raises(Interrupted):
        run_some_cut(monkeypatch, tokenizer, tmp_path / "parts", truncated, stop, **changes)
    parts, _, progress = run_some_cut(monkeypatch, tokenizer, tmp_path / "parts", truncated, **changes)
    assert progress["step"] == 3
    assert torch.equal(flat(whole), flat(parts))
    lines = [MetricsLog(tmp_path / name / "metrics.jsonl").read() for name in ("whole", "parts")]
    for key in ("reward", "finished", "flop", "kl", "zero_advantage"):
        assert [line[key] for line in lines[0]] == [line[key] for line in lines[1]]


def test_groups_of_which_nothing_is_in_the_loss_have_no_kl_either(tmp_path, tokenizer, monkeypatch):
    """A KL acts on zero-advantage groups that count; there is nothing for it to act on."""
    say_which_ended(monkeypatch, [False])
    model = small_model(tokenizer)
    before = flat(model).clone()
    chosen = settings(
        steps=2, max_new_tokens=2, truncated="mask", count_zero_advantage=True, kl_coef=1.0, entropy_coef=0.1
    )
    run_stage(model, tokenizer, chosen, tmp_path)
    assert torch.equal(flat(model), before)
    assert [line["trained_groups"] for line in metrics(tmp_path)] == [0, 0]


def test_other_values_are_an_error():
    with pytest.raises(ValueError, match="rl: truncated must be one of zero, mask, keep, got 'drop'"):
        settings(truncated="drop")
