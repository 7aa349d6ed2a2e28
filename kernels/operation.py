"""Operators of torch that eager code enters by the shortest way.

`torch.library` wraps an operator in several Python functions, in forward and in backward, and dispatches it twice: more
host time than a launch takes. Compilers, tensor subclasses, modes and transforms of functions need all that. A plain
call runs the same implementation, and the same gradient in an autograd.Function.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

__all__ = ["Operation", "operation"]


class Operation:
    """The operator fastreason::NAME, which changes none of its arguments.

    Args:
        name: NAME.
        run: its implementation, annotated as `torch.library.custom_op` reads it.
    """

    def __init__(self, name: str, run: Callable[..., Any]) -> None:
        self.name, self.run = name, run
        self.registered = torch.library.custom_op(f"fastreason::{name}", run, mutates_args=())
        self.overload = getattr(torch.ops.fastreason, name).default
        self.function: Any = None

    def register_fake(self, fake: Callable[..., Any]) -> Callable[..., Any]:
        """Shapes and dtypes of what it returns."""
        return self.registered.register_fake(fake)

    def register_autograd(self, backward: Callable[..., Any], *, setup_context: Callable[..., None]) -> None:
        """Its gradient, as `torch.library` takes it."""
        self.registered.register_autograd(backward, setup_context=setup_context)
        run = self.run

        def forward(ctx: Any, *given: Any) -> Any:
            output = run(*given)
            setup_context(ctx, given, output)
            return output

        members = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
        self.function = type(self.name, (torch.autograd.Function,), members)

    def __call__(self, *given: Any) -> Any:
        tensors = [x for x in given if isinstance(x, Tensor)]
        if torch.compiler.is_compiling() or not _plain(tensors):
            return self.overload(*given)
        if not torch.is_grad_enabled() or not any(x.requires_grad for x in tensors):
            return self.run(*given)
        # an operator without a gradient says so where one is asked of it
        return (self.overload if self.function is None else self.function.apply)(*given)


def operation(name: str) -> Callable[[Callable[..., Any]], Operation]:
    """Makes a function an `Operation`."""
    return lambda run: Operation(name, run)


def _plain(tensors: list[Tensor]) -> bool:
    """Whether nothing but a tensor's device decides what an operator does with these."""
    return (
        all(type(x) is Tensor or type(x) is Parameter for x in tensors)
        and torch._C._len_torch_dispatch_stack() == 0
        and not torch._C._are_functorch_transforms_active()
    )
