"""Sums over the rows of several matrices, and the weights whose gradients they are."""

import pytest
import torch

from fastreason.kernels.row_sums import spread_rows, sum_rows
from fastreason.kernels.triton_support import runs_triton

from .numerics import check_op, relative


# one element; no multiple of a tile either way; several tiles both ways, of more matrices than one
@pytest.mark.parametrize("n, R, W", [(1, 1, 1), (3, 70, 33), (12, 300, 96)])
def test_sums(n, R, W, device):
    x = torch.randn(n, R, W, generator=torch.Generator().manual_seed(0)).to(device)
    sums = sum_rows(list(x))
    assert sums.shape == (n, W) and relative(sums, x.double().sum(1)) < 1e-6
    assert torch.equal(sums, sum_rows([each.t().contiguous().t() for each in x]))
    if runs_triton(x):
        check_op(torch.ops.fastreason.row_sums.default, list(x))


def test_weights_that_are_repeated_get_the_sums_of_their_rows(device):
    weights = [torch.rand(5, device=device, requires_grad=True) for _ in range(3)]
    spread = spread_rows(weights, 70)
    assert all(torch.equal(rows, w.expand(70, -1)) for rows, w in zip(spread, weights, strict=True))
    upstream = [torch.randn(70, 5, device=device) for _ in weights]
    gradients = torch.autograd.grad(spread, weights, upstream)
    for gradient, rows in zip(gradients, upstream, strict=True):
        assert relative(gradient, rows.double().sum(0)) < 1e-6
    # of one that nothing depends on, 0
    assert not torch.autograd.grad(spread_rows(weights, 70)[0], weights, upstream[0])[1].any()
