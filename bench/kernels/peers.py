"""The same operations by other libraries, on the same tensors: Liger-Kernel and flash-attn, where they are installed.

Each function returns calls by the name of the library; none where it is absent.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from fastreason.kernels import Segments
from fastreason.kernels.triton_support import INTERPRETED, tl

__all__ = [
    "LIGER",
    "Rival",
    "Rivals",
    "add_rms_norm",
    "attention",
    "cross_entropy",
    "outputs_of",
    "policy_loss",
    "rms_norm",
    "rope",
    "swiglu",
    "upstream_of",
]

LIGER = find_spec("liger_kernel") is not None
FLASH = find_spec("flash_attn") is not None


def outputs_of(result: Any) -> tuple[Tensor, ...]:
    """The tensors with a gradient among what an operation returned: a tensor, a tuple, or an object with a `loss`."""
    if isinstance(result, Tensor):
        return (result,)
    if hasattr(result, "loss"):
        return (result.loss,)
    return tuple(x for x in result if isinstance(x, Tensor) and x.requires_grad)


def upstream_of(outputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Gradients of the outputs; 1 for a loss, as if `backward` were called on it."""
    return tuple(torch.ones_like(x) if x.ndim == 0 else torch.empty_like(x).normal_() for x in outputs)


@dataclass(frozen=True)
class Rival:
    """A call of another library.

    Args:
        run: the operation.
        inputs: its positional arguments.
        learns: which of them get a gradient.
    """

    run: Callable[..., Any]
    inputs: Sequence[Any]
    learns: tuple[int, ...]

    def forward(self) -> tuple[Tensor, ...]:
        for i in self.learns:
            self.inputs[i].requires_grad_()
        return outputs_of(self.run(*self.inputs))

    def backward(self, outputs: tuple[Tensor, ...], upstream: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return torch.autograd.grad(outputs, [self.inputs[i] for i in self.learns], upstream, retain_graph=True)

    upstream = staticmethod(upstream_of)


Rivals = dict[str, Callable[[], Rival]]


def _for_the_interpreter(module: str) -> None:
    """Liger takes rsqrt from libdevice, which the interpreter does not have; Triton's own is the same function."""
    if INTERPRETED:
        importlib.import_module(module).rsqrt = lambda x: tl.math.rsqrt(x)  # type: ignore[attr-defined]


def rms_norm(x: Tensor, weight: Tensor) -> Rivals:
    def liger() -> Rival:
        from liger_kernel.ops import LigerRMSNormFunction

        _for_the_interpreter("liger_kernel.ops.rms_norm")
        return Rival(LigerRMSNormFunction.apply, (x, weight, 1e-6), (0, 1))

    return {"Liger": liger} if LIGER else {}


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor) -> Rivals:
    def liger() -> Rival:
        from liger_kernel.ops import LigerFusedAddRMSNormFunction

        _for_the_interpreter("liger_kernel.ops.fused_add_rms_norm")
        return Rival(LigerFusedAddRMSNormFunction.apply, (x, residual, weight, 1e-6), (0, 1, 2))

    return {"Liger": liger} if LIGER else {}


def attention(q: Tensor, k: Tensor, v: Tensor, segments: Segments) -> Rivals:
    """flash-attn takes packed documents without prefixes."""

    def flash() -> Rival:
        from flash_attn import flash_attn_varlen_func

        borders = torch.cat([segments.start, segments.start[-1:] + segments.length[-1:]]).to(q.device, torch.int32)
        longest = int(segments.length.max())

        def run(q: Tensor, k: Tensor, v: Tensor) -> Any:
            return flash_attn_varlen_func(q, k, v, borders, borders, longest, longest, causal=True)

        return Rival(run, (q, k, v), (0, 1, 2))

    packed = not (segments.prefix >= 0).any() and int(segments.length.sum()) == segments.num_tokens
    return {"flash-attn": flash} if FLASH and packed and q.dtype != torch.float32 else {}


def rope(x_THD: Tensor, num_q_heads: int, cos_T1D: Tensor, sin_T1D: Tensor) -> Rivals:
    """Liger rotates queries and keys in place, stored token by token: [1, T, heads, D]."""

    def liger() -> Rival:
        from liger_kernel.ops import LigerRopeFunction

        # it reads the first half of its tables, with the sign that is in the second half of ours
        cos, sin = cos_T1D.transpose(0, 1), sin_T1D.roll(sin_T1D.shape[-1] // 2, dims=-1).transpose(0, 1).contiguous()

        def run(q: Tensor, k: Tensor) -> Any:
            return LigerRopeFunction.apply(q.transpose(1, 2), k.transpose(1, 2), cos, sin)

        q, k = x_THD[:, :num_q_heads].contiguous()[None], x_THD[:, num_q_heads:].contiguous()[None]
        return Rival(run, (q, k), (0, 1))

    return {"Liger": liger} if LIGER else {}


def swiglu(gate_up: Tensor) -> Rivals:
    def liger() -> Rival:
        from liger_kernel.ops.swiglu import LigerFusedGateUpSiLUMulFunction

        return Rival(LigerFusedGateUpSiLUMulFunction.apply, (gate_up,), (0,))

    return {"Liger": liger} if LIGER else {}


def cross_entropy(logits: Tensor, labels: Tensor) -> Rivals:
    def liger() -> Rival:
        from liger_kernel.ops import LigerCrossEntropyFunction

        # the gradient takes the place of the logits
        return Rival(lambda z, ids: LigerCrossEntropyFunction.apply(z, ids, None)[0], (logits.clone(), labels), (0,))

    return {"Liger": liger} if LIGER else {}


def policy_loss(
    logits_NV: Tensor, tokens_N: Tensor, old_N: Tensor, reference_N: Tensor, advantages_N: Tensor, length: int
) -> Rivals:
    """Liger takes sequences of one padded length, one advantage each, and one row of logits more than tokens."""

    def liger() -> Rival:
        from liger_kernel.ops import GrpoLossFunction

        V = logits_NV.shape[1]
        rows = logits_NV.view(-1, length, V)
        logits = torch.cat([rows, rows[:, -1:]], dim=1)
        old, reference, tokens = (x.view(-1, length) for x in (old_N, reference_N, tokens_N))
        advantages, mask = advantages_N.view(-1, length)[:, 0].contiguous(), torch.ones_like(old)

        def run(logits: Tensor) -> Any:
            # temperature, beta, both clips, gradient in the place of the logits, normalised over all tokens
            settings = (1.0, 0.04, 0.2, 0.2, True, "dapo", None, True)
            return GrpoLossFunction.apply(logits, old, reference, tokens, advantages, mask, *settings)[0]

        return Rival(run, (logits,), (0,))

    return {"Liger": liger} if LIGER else {}
