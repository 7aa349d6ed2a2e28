"""The linear layer by oneDNN against torch's, and where it is not asked."""

import sys

import pytest
import torch
import torch.nn.functional as F

from fastreason.kernels import linear

from .numerics import check_errors


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# rows that go to oneDNN and rows that do not; out wider and narrower than in; with bias and without
@pytest.mark.parametrize("N, K, M", [(64, 64, 128), (640, 128, 64), (63, 64, 64), (128, 33, 7), (1, 5, 3)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("by_mkl", [True, False])
def test_is_torchs(monkeypatch, N, K, M, bias, by_mkl):
    monkeypatch.setattr(sys.modules["fastreason.kernels.linear"], "_gradients_by_mkl", lambda: by_mkl)
    inputs = [random(N, K), random(M, K, seed=1)] + [random(M, seed=2)] * bias
    check_errors(linear, F.linear, inputs, [random(N, M, seed=3)])


def test_strides_of_any_kind_and_frozen_weights():
    x, w = random(64, 48), random(80, 48, seed=1).requires_grad_()
    wide = torch.cat([x, x], dim=1).requires_grad_()
    torch.testing.assert_close(linear(wide[:, :48], w), F.linear(x, w), atol=1e-5, rtol=1e-5)
    linear(x, w).sum().backward()  # an input without a gradient
    torch.testing.assert_close(w.grad, x.sum(0).expand(80, 48), atol=1e-4, rtol=1e-5)
    frozen = linear(wide, random(16, 96))
    assert torch.equal(frozen, F.linear(wide, random(16, 96)))


def test_other_dtypes_and_autocast_are_torchs():
    x, w = random(64, 48), random(80, 48, seed=1).requires_grad_()
    assert torch.equal(linear(x.double(), w.double()), F.linear(x.double(), w.double()))
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(x, w).dtype == torch.bfloat16
