"""Every operation of fastreason.kernels as one call worth checking: inputs, floor, peers.

The audit, the traffic table and gpu-check all read `OPS`, so a new operation is one entry here. The model is the one of
docs/kernels.md: width 768, 12 query and 2 key-value heads of 64, feed-forward 3,072, vocabulary 2,200.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from fastreason.kernels import rms_norm, rope, rope_angles, swiglu
from fastreason.kernels.rms_norm import add_rms_norm, add_rms_norm_ref, rms_norm_ref
from fastreason.kernels.rope import rope_ref
from fastreason.kernels.swiglu import swiglu_ref
from torch import Tensor

from . import peers
from .counting import Traffic
from .peers import Rivals, outputs_of, upstream_of

__all__ = ["OPS", "Call", "Op", "Shape"]


@dataclass(frozen=True)
class Shape:
    """Sizes of the model and how many tokens it is given."""

    tokens: int
    width: int = 768
    ffn: int = 3072
    heads: int = 12
    kv_heads: int = 2
    head_dim: int = 64
    vocab: int = 2200
    dtype: torch.dtype = torch.bfloat16
    device: str = "cpu"

    def floats(self, *size: int, dtype: torch.dtype | None = None) -> Tensor:
        """Standard normal values; the same ones for the same size."""
        generator = torch.Generator().manual_seed(sum(size))
        return torch.randn(size, generator=generator).to(dtype or self.dtype).to(self.device)

    def ids(self, limit: int, *size: int) -> Tensor:
        """int64 in [0, limit)."""
        generator = torch.Generator().manual_seed(sum(size))
        return torch.randint(limit, size, generator=generator).to(self.device)


class Unwritten(Shape):
    """A shape whose floating-point tensors hold nothing yet: enough where nothing is computed."""

    def floats(self, *size: int, dtype: torch.dtype | None = None) -> Tensor:
        return torch.empty(size, dtype=dtype or self.dtype, device=self.device)


Function = Callable[..., Any]


@dataclass(frozen=True)
class Call:
    """One operation at one shape.

    Args:
        run: the operation; returns a tensor or a tuple of which those that require a gradient are differentiated.
        inputs: its arguments.
        learns: the names of the inputs that get a gradient.
        definition: the same in plain torch, what eager and torch.compile are timed with.
        floor: (forward, backward) bytes when every operand is moved once. What forward already wrote for backward
            counts in forward.
        flops: (forward, backward) of matrix products; 0 for what only moves memory.
        judge: what else the traffic of forward must satisfy: (a note for the table, failures).
        rivals: the same work by other libraries, by name.
    """

    run: Function
    inputs: dict[str, Any]
    learns: tuple[str, ...]
    definition: Function
    floor: tuple[int, int]
    flops: tuple[int, int] = (0, 0)
    judge: Callable[[Traffic], tuple[str, list[str]]] | None = None
    rivals: Rivals = field(default_factory=dict)

    def forward(self) -> tuple[Tensor, ...]:
        """The outputs that have a gradient, of inputs that are its leaves."""
        for name in self.learns:
            self.inputs[name].requires_grad_()
        return outputs_of(self.run(**self.inputs))

    def backward(self, outputs: tuple[Tensor, ...], upstream: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        leaves = [self.inputs[name] for name in self.learns]
        return torch.autograd.grad(outputs, leaves, upstream, retain_graph=True)

    upstream = staticmethod(upstream_of)


@dataclass(frozen=True)
class Op:
    """What is checked of an operation.

    Args:
        build: makes the call at a shape.
        shapes: the shapes to compile for, by a short name; tokens are set by who uses them.
        dtypes: what to compile for.
        counted_tokens, liger_tokens, timed_tokens: how many to count our traffic and Liger's with (None: as many as
            ours), and to time on a GPU.
        most_traffic: the gate on bytes / floor, forward and backward together.
        most_of_liger: the gate on our bytes over Liger's.
        tensor_cores: names of kernels that must use them in 16-bit types.
    """

    build: Callable[[Shape], Call]
    shapes: dict[str, dict[str, int]] = field(default_factory=lambda: {"": {}})
    dtypes: tuple[torch.dtype, ...] = (torch.bfloat16, torch.float32)
    counted_tokens: int = 512
    liger_tokens: int | None = None
    timed_tokens: int = 131072
    most_traffic: float | None = None
    most_of_liger: float | None = None
    tensor_cores: tuple[str, ...] = ()


def _bytes(*tensors: Tensor) -> int:
    return sum(x.numel() * x.element_size() for x in tensors)


def _rms_norm(shape: Shape) -> Call:
    x, weight = shape.floats(shape.tokens, shape.width), shape.floats(shape.width)
    return Call(
        run=rms_norm,
        inputs={"x_ND": x, "weight_D": weight, "eps": 1e-6},
        learns=("x_ND", "weight_D"),
        definition=rms_norm_ref,
        # x, y and the weight; then dy, x, dx, the weight and its gradient
        floor=(_bytes(x, x, weight), _bytes(x, x, x, weight, weight)),
        rivals=peers.rms_norm(x, weight),
    )


def _add_rms_norm(shape: Shape) -> Call:
    x, weight = shape.floats(shape.tokens, shape.width), shape.floats(shape.width)
    residual = shape.floats(shape.tokens, shape.width)
    return Call(
        run=add_rms_norm,
        inputs={"x_ND": x, "residual_ND": residual, "weight_D": weight, "eps": 1e-6},
        learns=("x_ND", "residual_ND", "weight_D"),
        definition=add_rms_norm_ref,
        # x, residual, s, y and the weight; then dy, ds, s, dx, the weight and its gradient
        floor=(_bytes(x, x, x, x, weight), _bytes(x, x, x, x, weight, weight)),
        rivals=peers.add_rms_norm(x, residual, weight),
    )


def _rope(shape: Shape) -> Call:
    heads = shape.heads + shape.kv_heads
    x = shape.floats(shape.tokens, heads, shape.head_dim)
    positions = torch.arange(shape.tokens, device=shape.device)
    cos, sin = rope_angles(positions, shape.head_dim, 10000.0, shape.dtype)
    return Call(
        run=rope,
        inputs={"x_THD": x, "cos_T1D": cos, "sin_T1D": sin},
        learns=("x_THD",),
        definition=rope_ref,
        # x and y, then dy and dx; the tables are not in the floor
        floor=(_bytes(x, x), _bytes(x, x)),
        rivals=peers.rope(x, shape.heads, cos, sin),
    )


def _swiglu(shape: Shape) -> Call:
    gate_up = shape.floats(shape.tokens, 2 * shape.ffn)
    size = _bytes(gate_up) // 2
    return Call(
        run=swiglu,
        inputs={"gate_up": gate_up},
        learns=("gate_up",),
        definition=swiglu_ref,
        # gate, up and y; then dy, gate, up and their gradients
        floor=(3 * size, 5 * size),
        rivals=peers.swiglu(gate_up),
    )


OPS = {
    "rms_norm": Op(_rms_norm, counted_tokens=16384, liger_tokens=2048, most_traffic=1.05),
    "add_rms_norm": Op(_add_rms_norm, counted_tokens=16384, liger_tokens=2048, most_traffic=1.05),
    "rope": Op(_rope, most_traffic=1.05),
    "swiglu": Op(_swiglu, most_traffic=1.05),
}
