"""How kernels are compared with their float64 definitions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Run = Callable[..., Tensor | tuple[Tensor, ...]]


def relative(a: Tensor, truth: Tensor) -> float:
    """Relative error, root mean square over all elements."""
    truth = truth.detach().double()
    return float((a.detach().double() - truth).norm() / truth.norm())


def value_and_gradients(run: Run, inputs: Sequence[Tensor], cotangents: Sequence[Tensor]) -> list[Tensor]:
    """Outputs of run(*inputs), then the gradients of those inputs that are floating point."""
    leaves = [x.detach().clone().requires_grad_() if x.is_floating_point() else x for x in inputs]
    outputs = run(*leaves)
    outputs = (outputs,) if isinstance(outputs, Tensor) else outputs
    pairs = [(o, g.to(o.dtype)) for o, g in zip(outputs, cotangents, strict=True)]
    wanted = [x for x in leaves if x.requires_grad]
    gradients = torch.autograd.grad([o for o, _ in pairs], wanted, [g for _, g in pairs])
    return [*(o.detach() for o in outputs), *gradients]


def check_errors(run: Run, definition: Run, inputs: Sequence[Tensor], cotangents: Sequence[Tensor]) -> None:
    """Values and gradients of `run` against `definition` in float64.

    float32: relative error at most 1e-6 (worst seen, interpreted: 3e-7). Half precision: at most twice that of the
    definition in the same precision plus 2 units in the last place.
    """
    dtype = next(x.dtype for x in inputs if x.is_floating_point())
    ours = value_and_gradients(run, inputs, cotangents)
    truth = value_and_gradients(definition, [x.double() if x.is_floating_point() else x for x in inputs], cotangents)
    eager = value_and_gradients(definition, inputs, cotangents)
    for mine, exact, other in zip(ours, truth, eager, strict=True):
        assert mine.shape == exact.shape
        assert mine.dtype == other.dtype
        if not exact.any():
            assert not mine.any()
        elif dtype == torch.float32:
            assert relative(mine, exact) <= 1e-6
        else:
            assert relative(mine, exact) <= 2 * relative(other, exact) + 2 * torch.finfo(dtype).eps


def check_compiled(run: Callable[..., Any], *inputs: Any, exact: bool = True) -> None:
    """One graph, backward included, and the same bits as without compilation.

    `exact` False: the same to rounding, for what has a kernel on CPU, where compilers see the definition.
    """
    torch._dynamo.reset()
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    found = []
    for call in (run, compiled):
        leaves = [x.detach().clone().requires_grad_(x.requires_grad) if isinstance(x, Tensor) else x for x in inputs]
        out = call(*leaves)
        out = (out,) if isinstance(out, Tensor) else tuple(out)
        differentiable = [o for o in out if o.requires_grad]
        wanted = [x for x in leaves if isinstance(x, Tensor) and x.requires_grad]
        found.append([*out, *torch.autograd.grad([o.sum() for o in differentiable], wanted)])
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b) if exact else torch.allclose(a, b, rtol=1e-5, atol=1e-7)


def check_op(op: Any, *inputs: Any) -> None:
    """Every check of torch.library.opcheck: schema, autograd registration, fake tensors, tracing of symbolic shapes."""
    result = torch.library.opcheck(op, inputs, raise_exception=True)
    assert set(result.values()) == {"SUCCESS"}
