"""SwiGLU against its float64 definition, forward and backward."""

import pytest
import torch

from fastreason.kernels import swiglu
from fastreason.kernels.swiglu import swiglu_ref

from .conftest import needs_triton
from .numerics import check_compiled, check_errors, check_op


def random(shape, dtype, device, seed=0, scale=3.0):
    return (scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed))).to(dtype).to(device)


# rows that share a tile, one tile a row, several; widths of any remainder
@pytest.mark.parametrize("shape", [(1, 1), (17, 64), (3, 72), (5, 257), (2, 3, 768), (2, 3072)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_is_its_definition(shape, dtype, device):
    x = random((*shape[:-1], 2 * shape[-1]), dtype, device)
    check_errors(swiglu, swiglu_ref, [x], [random(shape, dtype, device, 1)])


def test_the_definition_is_its_formula():
    x = torch.randn(5, 8, dtype=torch.float64, requires_grad=True)
    gate, up = x[:, :4], x[:, 4:]
    torch.testing.assert_close(swiglu_ref(x), gate / (1 + torch.exp(-gate)) * up)
    assert torch.autograd.gradcheck(swiglu_ref, (x,))


def test_large_gates_saturate(device):
    gate = torch.tensor([[-60.0, -1e4, 1e4, 60.0, 0.0]], device=device)
    x = torch.cat([gate, torch.full_like(gate, 2.0)], dim=1).requires_grad_()
    y = swiglu(x)
    y.sum().backward()
    want = torch.tensor([[0.0, 0.0, 2e4, 120.0, 0.0]], device=device)
    torch.testing.assert_close(y, want)
    torch.testing.assert_close(x.grad[:, :5], torch.tensor([[0.0, 0.0, 2.0, 2.0, 1.0]], device=device))


@needs_triton
def test_rows_do_not_mix_and_strides_do_not_matter(device):
    x, dy = random((17, 2 * 72), torch.float32, device), random((17, 72), torch.float32, device, 1)

    def once(x, dy):
        leaf = x.detach().requires_grad_()
        y = swiglu(leaf)
        y.backward(dy)
        return y.detach(), leaf.grad

    y, grad = once(x, dy)
    order = torch.randperm(17, generator=torch.Generator().manual_seed(0)).to(device)
    for a, b in zip(once(x[order], dy[order]), (y[order], grad[order]), strict=True):
        assert torch.equal(a, b)
    for a, b in zip(once(x.t().contiguous().t(), dy.t().contiguous().t()), (y, grad), strict=True):
        assert torch.equal(a, b)
    assert swiglu(x[:0]).shape == (0, 72)


@needs_triton
def test_as_an_operator(device):
    x = random((2, 3, 16), torch.float32, device).requires_grad_()
    check_op(torch.ops.fastreason.swiglu.default, x)
    check_op(torch.ops.fastreason.swiglu_backward.default, x.detach()[..., :8].contiguous(), x.detach())
    check_compiled(swiglu, x)


@pytest.mark.parametrize(
    "x", [torch.zeros(3, 5), torch.zeros(3, 0), torch.zeros(()), torch.zeros(3, 4, dtype=torch.int32)], ids=str
)
def test_refuses_bad_input(x):
    with pytest.raises(ValueError, match=r"need floating point \[\.\.\., 2 F\] with F >= 1, got"):
        swiglu(x)
