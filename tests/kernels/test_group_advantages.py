"""Advantages within groups and weights of tokens against their formulas."""

import pytest
import torch

from fastreason.kernels import group_advantages, token_weights


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


def test_groups_without_information_have_advantage_exactly_zero():
    """Equal rewards whose mean rounds: a hundred values, many group sizes."""
    generator = torch.Generator().manual_seed(0)
    for size in range(2, 20):
        rewards = torch.rand(100, 1, generator=generator).expand(100, size)
        for scale in ("std", "none"):
            assert not group_advantages(rewards, scale=scale).any()


def test_token_weights():
    lengths = torch.tensor([1, 4, 3])
    assert torch.equal(token_weights(lengths), torch.full((8,), 1 / 8))
    sequence = token_weights(lengths, "sequence")
    for part in sequence.split(lengths.tolist()):
        torch.testing.assert_close(part.sum(), torch.tensor(1 / 3))
    torch.testing.assert_close(token_weights(lengths, "constant", length=10), torch.full((8,), 1 / 30))


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: group_advantages(torch.zeros(3, 1)), r"at least 2 completions, got shape \(3, 1\)"),
        (lambda: group_advantages(torch.zeros(3)), r"must be \[prompts, completions\]"),
        (lambda: group_advantages(torch.zeros(2, 2), scale="max"), "scale must be 'std' or 'none', got 'max'"),
        (lambda: token_weights(torch.zeros(2)), r"lengths must be integers \[S\], got torch.float32 \(2,\)"),
        (lambda: token_weights(torch.ones(2, dtype=torch.int64), "mean"), "'sequence' or 'constant', got 'mean'"),
        (lambda: token_weights(torch.ones(2, dtype=torch.int64), "constant"), "is only for 'constant', got None"),
        (lambda: token_weights(torch.ones(2, dtype=torch.int64), length=5), "got 5 with 'token'"),
    ],
)
def test_refuses_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
