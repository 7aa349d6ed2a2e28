"""Losses in chunks of rows against the same loss of all logits: values, gradients, statistics, and what is held."""

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fastreason.kernels import cross_entropy, linear, linear_cross_entropy, linear_policy_loss, policy_loss
from fastreason.kernels import linear_loss as module

from .numerics import relative

N, K, V = 23, 16, 40


@pytest.fixture(autouse=True)
def chunks_of_seven_rows(monkeypatch):
    monkeypatch.setattr(module, "_CHUNK_LOGITS", {"cpu": 7 * V, "cuda": 7 * V})


def leaves(device, dtype=torch.float32):
    g = torch.Generator().manual_seed(0)
    hidden, weight = torch.randn(N, K, generator=g), 0.5 * torch.randn(V, K, generator=g)
    return [x.to(device, dtype).requires_grad_() for x in (hidden, weight)], torch.randint(V, (N,), generator=g).to(
        device
    )


def gradients(loss, of):
    return torch.autograd.grad(loss, of)


@pytest.mark.parametrize("with_weights", [False, True])
@pytest.mark.parametrize("z_loss, upstream", [(0.0, 1.0), (0.1, 3.0)])
def test_cross_entropy_is_that_of_all_logits(with_weights, z_loss, upstream, device):
    (hidden, weight), labels = leaves(device)
    labels[3] = labels[-1] = -100
    weights = torch.rand(N, generator=torch.Generator().manual_seed(1)).to(device) if with_weights else None
    ours = linear_cross_entropy(hidden, weight, labels, weights, z_loss=z_loss)
    plain = cross_entropy(linear(hidden, weight), labels, weights, z_loss=z_loss)
    torch.testing.assert_close(ours, plain, atol=1e-6, rtol=1e-6)
    got, want = (gradients(upstream * loss, (hidden, weight)) for loss in (ours, plain))
    assert all(relative(a, b) < 1e-6 for a, b in zip(got, want, strict=True))
    assert not got[0][3].any() and not got[0][-1].any() and got[0][4].any()
    assert linear_cross_entropy(hidden, weight, torch.full_like(labels, -100)) == 0


def test_a_copy_of_16_bits_stands_for_the_weight(device):
    (hidden, weight), labels = leaves(device)
    narrow = weight.detach().bfloat16()
    ours = linear_cross_entropy(hidden, weight, labels, narrow_VK=narrow)
    plain = cross_entropy(linear(hidden, weight, narrow=(narrow, None)), labels)
    torch.testing.assert_close(ours, plain, atol=1e-5, rtol=1e-5)
    got, want = (gradients(loss, (hidden, weight)) for loss in (ours, plain))
    assert [x.dtype for x in got] == [torch.float32, torch.float32]
    assert all(relative(a, b) < 1e-2 for a, b in zip(got, want, strict=True))  # logits and d-logits of 8 bits


SETTINGS = {
    "grpo": {"kind": "grpo", "kl_coef": 0.1, "entropy_coef": 0.02, "temperature": 0.7},
    "gspo": {"kind": "gspo", "clip_low": 0.1, "clip_high": 0.1},
    "exact KL": {"kind": "cispo", "kl_coef": 0.1},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_policy_loss_is_that_of_all_logits(name, device):
    (hidden, weight), tokens = leaves(device)
    g = torch.Generator().manual_seed(2)
    random = [torch.randn(N, generator=g).to(device) for _ in range(4)]
    weights = torch.rand(N, generator=g).to(device)
    weights[5] = 0.0
    given = {"old_logprobs_N": random[1] * 0.2 - math.log(V), "importance_N": random[2].abs()} | SETTINGS[name]
    ours, plain = dict(given), dict(given)
    if name == "grpo":
        ours["reference_logprobs_N"] = plain["reference_logprobs_N"] = random[3] * 0.2 - math.log(V)
    if name == "gspo":  # of 10, 2, 6 and 5 tokens: the first alone, the others in chunks of at most 7
        ours["sequence_offsets_S"] = plain["sequence_offsets_S"] = torch.tensor([0, 10, 12, 18, N], device=device)
    if name == "exact KL":
        frozen = leaves(device)[0]
        frozen = [(x + 0.1 * torch.randn(x.shape, generator=g).to(device)).detach() for x in frozen]
        ours |= {"reference_hidden_NK": frozen[0], "reference_weight_VK": frozen[1]}
        plain["reference_logits_NV"] = linear(*frozen)
    ours = linear_policy_loss(hidden, weight, tokens, random[0], weights, **ours)
    plain = policy_loss(linear(hidden, weight), tokens, random[0], weights, **plain)
    for a, b in zip(
        (ours.loss, ours.logprobs_N, ours.totals_K), (plain.loss, plain.logprobs_N, plain.totals_K), strict=True
    ):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
    got, want = (gradients(result.loss, (hidden, weight)) for result in (ours, plain))
    assert all(relative(a, b) < 1e-5 for a, b in zip(got, want, strict=True))
    assert not got[0][5].any() and got[0].any()
    assert not ours.logprobs_N.requires_grad and not ours.totals_K.requires_grad


def test_weights_of_a_policy_loss_are_one_over_n_of_all_rows(device):
    (hidden, weight), tokens = leaves(device)
    advantages = torch.ones(N, device=device)
    loss = linear_policy_loss(hidden, weight, tokens, advantages, kind="reinforce").loss
    torch.testing.assert_close(loss, policy_loss(linear(hidden, weight), tokens, advantages, kind="reinforce").loss)


class Largest(TorchDispatchMode):
    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.elements = max([self.elements, *(x.numel() for x in tree_leaves(result) if isinstance(x, torch.Tensor))])
        return result


@pytest.mark.parametrize("has_gradient", [True, False])
def test_no_tensor_holds_more_than_a_chunk_of_logits(has_gradient):
    (hidden, weight), labels = leaves("cpu")
    with torch.set_grad_enabled(has_gradient), Largest() as largest:
        loss = linear_cross_entropy(hidden, weight, labels)
        if has_gradient:
            loss.backward()
    assert loss.requires_grad == has_gradient
    assert largest.elements <= max(7 * V, V * K) < N * V


def test_one_of_the_two_may_be_frozen(device):
    (hidden, weight), labels = leaves(device)
    both = gradients(linear_cross_entropy(hidden, weight, labels), (hidden, weight))
    for i in range(2):
        given = [x.detach().requires_grad_(i == j) for j, x in enumerate((hidden, weight))]
        torch.testing.assert_close(gradients(linear_cross_entropy(*given, labels), given[i])[0], both[i])


@pytest.mark.parametrize(
    "change, message",
    [
        ({"hidden_NK": torch.zeros(3, 5)}, r"need hidden \[N, K\] and weight \[V, K\] with V >= 1, got \(3, 5\) and"),
        ({"hidden_NK": torch.zeros(3, 4).double()}, "hidden and weight need one floating dtype and device"),
        ({"narrow_VK": torch.zeros(7, 3)}, r"narrow must be like weight, \(7, 4\)"),
    ],
)
def test_refuses_bad_input(change, message):
    given = {"hidden_NK": torch.zeros(3, 4), "weight_VK": torch.zeros(7, 4)} | change
    with pytest.raises(ValueError, match=f"linear_cross_entropy: {message}"):
        linear_cross_entropy(**given, labels_N=torch.zeros(3, dtype=torch.int64))
    with pytest.raises(ValueError, match=f"linear_policy_loss: {message}"):
        linear_policy_loss(**given, tokens_N=torch.zeros(3, dtype=torch.int64), advantages_N=torch.zeros(3))


def test_refuses_what_the_losses_refuse():
    hidden, weight, labels = torch.zeros(3, 4), torch.zeros(7, 4), torch.zeros(3, dtype=torch.int64)
    with pytest.raises(ValueError, match="linear_cross_entropy: z_loss must be >= 0, got -1"):
        linear_cross_entropy(hidden, weight, labels, z_loss=-1)
    with pytest.raises(ValueError, match=r"linear_policy_loss: weights_N must be \[N\] = \(3,\), got \(2,\)"):
        linear_policy_loss(hidden, weight, labels, torch.zeros(3), torch.zeros(2))
    offsets = torch.tensor([0, 2])
    with pytest.raises(ValueError, match="sequence offsets must end at N = 3, got 2"):
        linear_policy_loss(hidden, weight, labels, torch.zeros(3), kind="gspo", sequence_offsets_S=offsets)
    with pytest.raises(ValueError, match="reference_hidden and reference_weight must be given together"):
        linear_policy_loss(hidden, weight, labels, torch.zeros(3), reference_hidden_NK=hidden)
