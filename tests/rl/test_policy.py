"""Reinforcement learning: the group layout, zero-advantage groups, a bandit that must be solved, and resuming."""

import numpy as np
import pytest
import torch

import fastreason as fr
from fastreason.kernels import Segments
from fastreason.model.flop import forward_flop
from fastreason.rl.groups import Groups, PackedGroups
from fastreason.rl.loop import PolicySettings, policy_step, reinforce
from fastreason.rl.statistics import pass_flop
from fastreason.runtime.metrics_log import MetricsLog
from fastreason.runtime.stop_request import StopRequest
from fastreason.training.optimizer import OptimSettings

from ..model.test_decoder import random_model

PART = {"op": [2, 3], "themes": ["symbolic"], "max_value": 99, "max_sentences": 4}
MIX = fr.Mixture.from_dict(PART)


@pytest.fixture(scope="module")
def tokenizer():
    return fr.Tokenizer.for_mixtures([MIX])


@pytest.fixture(scope="module")
def model(tokenizer):
    model = random_model(fr.ModelConfig.preset("tiny", vocab_size=len(tokenizer)), torch.float32, seed=4)
    with torch.no_grad():
        model.embedding.weight *= 0.4
    return model


def settings(**changes) -> PolicySettings:
    """Random weights end no sample, so what samples earn is kept."""
    given = {"mixture": [PART], "prompts": 4, "samples": 4, "max_new_tokens": 20, "truncated": "keep"}
    return PolicySettings(**(given | changes))


def sample(model, tokenizer, prompts=4, n=4):
    problems = fr.TaskStream(MIX, seed=2, split="rl")[0:prompts]
    return fr.Rollout(model, tokenizer).generate(problems, n, max_new_tokens=20, seed=1)


def test_the_step_is_the_loss_of_each_sample_alone(model, tokenizer):
    samples = sample(model, tokenizer)
    advantages = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    model.zero_grad()
    result = policy_step(model, samples, advantages, settings())
    assert result is not None
    result.loss.backward()
    ours = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    terms = []
    for row in range(16):
        p = row // 4
        prompt = samples.prompt_tokens[samples.prompt_offsets[p] : samples.prompt_offsets[p + 1]]
        new = samples.tokens[row, : samples.lengths[row]]
        tokens = torch.from_numpy(np.concatenate([prompt, new])).long()
        logits = model.logits(model(tokens, Segments.from_lengths([len(tokens)])))
        at = torch.arange(len(prompt) - 1, len(tokens) - 1)
        logprobs = logits.log_softmax(-1)[at, tokens[at + 1]]
        old = torch.from_numpy(samples.logprobs[row, : samples.lengths[row]])
        ratio, a = (logprobs - old).exp(), advantages[p, row % 4]
        terms.append(torch.minimum(ratio * a, ratio.clamp(0.8, 1.2) * a))
    loss = -torch.cat(terms).mean()
    loss.backward()
    torch.testing.assert_close(result.loss, loss, atol=1e-5, rtol=1e-4)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(ours[name], parameter.grad, atol=2e-5, rtol=2e-3)
    # the samples are the model's own, so every ratio is 1 up to rounding
    assert result.max_logprob_difference < 1e-4
    assert result.clip_share == 0.0


def test_the_same_bits_every_time(model, tokenizer):
    """At a size where torch works in parallel; sums in any order would differ from one time to the next.

    An odd number of groups, so that two threads that share the rows meet inside a group: where both added to the last
    row of its prompt, a quarter of all times differed on a busy machine.
    """
    problems = fr.TaskStream(MIX, seed=2, split="rl")[0:23]
    samples = fr.Rollout(model, tokenizer).generate(problems, 16, max_new_tokens=40, seed=1)
    advantages = torch.randn(23, 16, generator=torch.Generator().manual_seed(0))
    found = []
    for _ in range(6):
        model.zero_grad()
        result = policy_step(model, samples, advantages, settings(prompts=23, samples=16))
        assert result is not None
        result.loss.backward()
        found.append(torch.cat([parameter.grad.flatten() for parameter in model.parameters()]))
    assert all(torch.equal(found[0], again) for again in found[1:])


def test_zero_advantage_groups_are_left_out(model, tokenizer):
    samples = sample(model, tokenizer)
    advantages = torch.zeros(4, 4)
    assert policy_step(model, samples, advantages, settings()) is None
    advantages[2] = torch.tensor([1.0, -1.0, 0.5, -0.5])
    result = policy_step(model, samples, advantages, settings())
    packed = PackedGroups.of(Groups.of(samples, torch.zeros(16)).take(np.array([2])))
    tokens, segments, target = packed.tokens_T, packed.segments, packed.target_N
    assert result is not None
    assert len(target) == samples.lengths[8:12].sum()
    assert len(tokens) == segments.num_tokens == len(target) + np.diff(samples.prompt_offsets)[2]
    expected = torch.from_numpy(np.concatenate([samples.tokens[r, : samples.lengths[r]] for r in range(8, 12)]))
    assert torch.equal(tokens[target], expected.long())


def run_stage(model, tokenizer, chosen, folder, stop=None, **how):
    return reinforce(
        model,
        tokenizer,
        chosen,
        seed=0,
        folder=folder / "c",
        log=MetricsLog(folder / "metrics.jsonl"),
        stop=stop or StopRequest(),
        **how,
    )


def test_a_stop_and_a_resume_change_no_bit(tmp_path, tokenizer, monkeypatch):
    # every sample earns by its number so that there is something to learn from random weights
    from fastreason.rl import loop
    from fastreason.runtime.stop_request import Interrupted

    monkeypatch.setitem(loop.REWARDS, "strict", lambda v: (np.arange(len(v)) % 3 == 0).astype(np.float32))
    chosen = settings(steps=6, optim=OptimSettings(matrices="adamw", matrix_lr=1e-3, lr=1e-3, schedule="linear"))
    config = fr.ModelConfig.preset("tiny", vocab_size=len(tokenizer), num_hidden_layers=2)

    def fresh(seed=0):
        model = fr.Decoder(config)
        model.reset_parameters(seed)
        return model

    whole, parts, resumed = fresh(), fresh(), fresh(9)
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    run_stage(whole, tokenizer, chosen, tmp_path / "whole")
    stop = StopRequest()
    stop.requested = True
    with pytest.raises(Interrupted):
        run_stage(parts, tokenizer, chosen, tmp_path / "parts", stop)
    progress = run_stage(resumed, tokenizer, chosen, tmp_path / "parts")
    assert progress["step"] == 6
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))
    lines = [MetricsLog(tmp_path / name / "metrics.jsonl").read() for name in ("whole", "parts")]
    assert [line["step"] for line in lines[1]] == [1, 2, 3, 4, 5, 6]
    for key in ("reward", "loss", "entropy", "tokens", "reward_by_op", "mean_length"):
        assert [line[key] for line in lines[0]] == [line[key] for line in lines[1]]


def test_the_flop_of_a_pass_are_those_of_every_sequence(model, tokenizer):
    samples = sample(model, tokenizer)
    prompts, want = np.diff(samples.prompt_offsets), 0.0
    for p, prompt in enumerate(prompts.tolist()):
        want += forward_flop(model.config, prompt, num_logits=1)
        for length in samples.lengths[4 * p : 4 * p + 4]:
            want += forward_flop(model.config, int(length), before=prompt)
    assert pass_flop(model.config, prompts, samples.lengths.reshape(4, 4)) == pytest.approx(want)


def test_a_stage_ends_when_its_budget_is_used(tmp_path, tokenizer, model):
    def stage(name, **changes):
        (tmp_path / name).mkdir()
        copy = fr.Decoder(model.config)
        copy.load_state_dict(model.state_dict())
        return run_stage(copy, tokenizer, settings(max_new_tokens=4, **changes), tmp_path / name)

    whole = stage("steps", steps=4)
    assert (whole["step"], whole["samples"]) == (4, 64)
    line = MetricsLog(tmp_path / "steps" / "metrics.jsonl").read()[-1]
    assert (line["samples"], line["flop"]) == (64, pytest.approx(whole["flop"], rel=1e-5))
    # prompts count in every sample
    assert whole["total_tokens"] > whole["tokens"] + 64
    for unit, used in (("samples", 64), ("tokens", whole["total_tokens"]), ("flop", whole["flop"])):
        half = stage(unit, budget=f"{used / 2} {unit}")
        assert half["finished"]
        assert 1 <= half["step"] <= 3


def test_problems_come_from_the_rl_split(tmp_path, tokenizer, model):
    seen = []
    real = fr.TaskStream.__init__

    def spy(self, mixture, seed=0, split="train"):
        seen.append(split)
        real(self, mixture, seed=seed, split=split)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fr.TaskStream, "__init__", spy)
        run_stage(model, tokenizer, settings(steps=1), tmp_path)
    assert seen == ["rl"]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"steps": 0}, "rl: steps must be at least 1, got 0"),
        ({"samples": 1}, "rl: samples must be at least 2, got 1"),
        ({"temperature": 0.0}, "rl: temperature must be at least 1e-06, got 0.0"),
    ],
)
def test_settings_out_of_range(change, message):
    with pytest.raises(ValueError, match=message):
        settings(**change)
