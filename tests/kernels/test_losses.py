"""Losses and advantages against their formulas in float64."""

import pytest
import torch
from fastreason.kernels import cross_entropy, group_advantages, policy_loss, swiglu


def plain_policy_loss(logits, tokens, old, advantages, weights, temperature, low, high):
    """The formula, one token at a time."""
    total, norm = 0.0, 0.0
    for n in range(len(tokens)):
        z = logits[n].double() / temperature
        logprob = z[tokens[n]] - torch.logsumexp(z, 0)
        ratio = torch.exp(logprob - old[n].double())
        a = advantages[n].double()
        total = total + weights[n].double() * torch.minimum(ratio * a, ratio.clamp(1 - low, 1 + high) * a)
        norm = norm + weights[n].double()
    return -total / norm


def data(n=12, v=7, seed=0):
    g = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, v, generator=g, dtype=torch.float64)
    tokens = torch.randint(v, (n,), generator=g)
    old = logits.log_softmax(-1).gather(1, tokens[:, None]).squeeze(1) + 0.4 * torch.randn(n, generator=g)
    advantages, weights = (
        torch.randn(n, generator=g, dtype=torch.float64),
        torch.rand(n, generator=g, dtype=torch.float64),
    )
    return logits, tokens, old, advantages, weights


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("clips", [(0.2, 0.2), (0.1, 0.3), (0.0, 0.0)])
def test_policy_loss_is_its_formula(temperature, clips):
    logits, tokens, old, advantages, weights = data()
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    result = policy_loss(
        ours, tokens, old, advantages, weights, temperature=temperature, clip_low=clips[0], clip_high=clips[1]
    )
    truth = plain_policy_loss(theirs, tokens, old, advantages, weights, temperature, *clips)
    torch.testing.assert_close(result.loss, truth, atol=1e-12, rtol=1e-12)
    result.loss.backward()
    truth.backward()
    torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-12, rtol=1e-12)


def test_policy_loss_statistics():
    logits, tokens, _, advantages, weights = data()
    logprobs = logits.log_softmax(-1)
    old = logprobs.gather(1, tokens[:, None]).squeeze(1)
    result = policy_loss(logits, tokens, old, advantages, torch.ones(len(tokens)))
    assert result.max_logprob_difference == 0.0
    assert result.clip_share == 0.0
    torch.testing.assert_close(result.entropy, torch.distributions.Categorical(logits=logits).entropy().mean())
    # half of the tokens moved up by more than the clip allows, with an advantage that would move them further
    moved = old.clone()
    moved[:6] -= 1.0
    result = policy_loss(logits, tokens, moved, torch.ones(len(tokens)), torch.ones(len(tokens)))
    assert result.clip_share == 0.5
    assert abs(result.max_logprob_difference - 1.0) < 1e-12
    weights = torch.zeros(len(tokens))
    weights[0] = 2.0
    assert policy_loss(logits, tokens, moved, torch.ones(len(tokens)), weights).clip_share == 1.0


def test_policy_loss_metamorphic():
    logits, tokens, old, advantages, weights = data()
    base = policy_loss(logits, tokens, old, advantages, weights).loss
    shifted = policy_loss(logits + torch.randn(len(tokens), 1), tokens, old, advantages, weights).loss
    torch.testing.assert_close(base, shifted)
    order = torch.randperm(len(tokens))
    permuted = policy_loss(logits[order], tokens[order], old[order], advantages[order], weights[order]).loss
    torch.testing.assert_close(base, permuted)
    leaf = logits.clone().requires_grad_()
    policy_loss(leaf, tokens, old, torch.zeros(len(tokens)), weights).loss.backward()
    assert not leaf.grad.any()


def test_on_the_policys_own_samples_the_gradient_is_reinforce():
    logits, tokens, _, advantages, _ = data()
    leaf = logits.clone().requires_grad_()
    old = logits.log_softmax(-1).gather(1, tokens[:, None]).squeeze(1)
    policy_loss(leaf, tokens, old, advantages, torch.ones(len(tokens))).loss.backward()
    onehot = torch.nn.functional.one_hot(tokens, logits.shape[1])
    reinforce = -(onehot - logits.softmax(-1)) * advantages[:, None] / len(tokens)
    torch.testing.assert_close(leaf.grad, reinforce)


def test_advantages():
    rewards = torch.tensor([[1.0, 0.0, 0.0, 1.0], [0.3, 0.3, 0.3, 0.3], [1.0, 1.0, 1.0, 0.0]])
    out = group_advantages(rewards)
    expected = (rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + 1e-6)
    torch.testing.assert_close(out[[0, 2]], expected[[0, 2]])
    assert not out[1].any()
    assert torch.equal(group_advantages(rewards, scale="none")[0], torch.tensor([0.5, -0.5, -0.5, 0.5]))
    # more reward for all changes nothing; order within a group does not matter
    torch.testing.assert_close(group_advantages(rewards + 2.0), out, atol=1e-5, rtol=1e-5)
    assert torch.equal(group_advantages(rewards.flip(1)), out.flip(1))


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: group_advantages(torch.zeros(3, 1)), r"at least 2 completions, got shape \(3, 1\)"),
        (lambda: group_advantages(torch.zeros(3)), r"must be \[prompts, completions\]"),
        (lambda: group_advantages(torch.zeros(2, 2), scale="max"), "scale must be 'std' or 'none', got 'max'"),
        (lambda: policy_loss(*data(), temperature=0.0), "temperature > 0"),
        (lambda: policy_loss(*data(), clip_low=-0.1), "clips >= 0"),
    ],
)
def test_refuses_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_cross_entropy():
    logits, labels, _, _, weights = data()
    logprob = logits.log_softmax(-1)[torch.arange(len(labels)), labels]
    torch.testing.assert_close(cross_entropy(logits, labels), -logprob.mean())
    torch.testing.assert_close(cross_entropy(logits, labels, weights), -(logprob * weights).sum() / weights.sum())
    leaf = logits.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda z: cross_entropy(z, labels, weights), (leaf,))
    assert cross_entropy(logits.half(), labels).dtype == torch.float32


def test_swiglu():
    x = torch.randn(5, 8, dtype=torch.float64, requires_grad=True)
    gate, up = x[:, :4], x[:, 4:]
    torch.testing.assert_close(swiglu(x), gate / (1 + torch.exp(-gate)) * up)
    assert torch.autograd.gradcheck(swiglu, (x,))
