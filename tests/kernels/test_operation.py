"""Operation: a plain call and the operator of torch.library are the same, and each is taken where it should be."""

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from fastreason.kernels.operation import operation

from .numerics import check_compiled, check_op


@operation("tests_cube")
def cube(x: Tensor, factor: float) -> tuple[Tensor, Tensor]:
    return factor * x * x * x, x.detach().sum()


@cube.register_fake
def _(x: Tensor, factor: float) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), x.new_empty(())


@operation("tests_cube_backward")
def cube_backward(x: Tensor, dy: Tensor, factor: float) -> Tensor:
    return 3 * factor * x * x * dy


@cube_backward.register_fake
def _(x: Tensor, dy: Tensor, factor: float) -> Tensor:
    return torch.empty_like(x)


def setup_context(ctx, inputs, output):
    x, ctx.factor = inputs
    ctx.save_for_backward(x)
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def backward(ctx, dy, dsum):
    assert dsum is None
    return cube_backward(*ctx.saved_tensors, dy, ctx.factor), None


cube.register_autograd(backward, setup_context=setup_context)


def leaf():
    return torch.tensor([1.0, -2.0, 3.0], requires_grad=True)


def test_a_plain_call_is_the_operator(monkeypatch):
    x, y = leaf(), leaf()
    (mine, total), (theirs, _) = cube(x, 2.0), torch.ops.fastreason.tests_cube(y, 2.0)
    assert mine.requires_grad and not total.requires_grad
    assert torch.equal(mine, theirs)
    for out in (mine, theirs):
        out.sum().backward()
    assert torch.equal(x.grad, y.grad) and torch.equal(x.grad, torch.tensor([6.0, 24.0, 54.0]))
    # without the layers of torch.library, with and without a gradient
    for op in (cube, cube_backward):
        monkeypatch.setattr(op, "overload", None)
    cube(x, 2.0)[0].sum().backward()
    with torch.no_grad():
        assert not cube(x, 2.0)[0].requires_grad


def test_what_looks_at_operators_sees_one():
    class Seen(TorchDispatchMode):
        names: list = []

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.names.append(func._schema.name)
            return func(*args, **(kwargs or {}))

    with Seen():
        cube(leaf(), 2.0)
    assert "fastreason::tests_cube" in Seen.names and "aten::mul" not in Seen.names
    with FakeTensorMode() as mode:
        fake = mode.from_tensor(leaf().detach())
    assert type(cube(fake, 2.0)[0]) is type(fake)
    check_op(torch.ops.fastreason.tests_cube.default, leaf(), 2.0)
    check_compiled(lambda x: cube(x, 2.0)[0], leaf())


def test_a_second_derivative_that_does_not_exist_is_refused():
    x = leaf()
    (dx,) = torch.autograd.grad(cube(x, 2.0)[0].sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match=r"tests_cube_backward.*autograd"):
        dx.sum().backward()
