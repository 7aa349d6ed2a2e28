"""The CPU kernels (csrc/cpu) as differentiable functions: one pass over memory where torch takes several.

Each computes the definition of the same name in float32, with products, sums and exponentials in a different order, and
takes float32; all but `rms_norm` also take bfloat16, as linear layers give it under autocast, and round their result.
`add_rms_norm` takes a branch in bfloat16 alone. On processors with tile registers (AMX), `rope_attention` and
`weight_gradient` multiply bfloat16 as it is, with sums in float32.
They run if widths are multiples of 16 (see `suits`); otherwise, for other dtypes and during compiler tracing, the
definitions run. They use torch's number of threads, on which results do not depend.

Letters: T tokens, N rows, D width, H query heads, K key-value heads, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .segments import Segments
from .triton_support import runs_triton

try:
    from fastreason._core import cpu as _kernels
except ImportError:  # this folder on its own, without the compiled core
    _kernels = None

__all__ = ["FLOAT32_OR_BFLOAT16", "attention", "cross_entropy", "policy_loss", "rms_norm", "rope", "suits", "swiglu"]

_LANES = 16  # floats of the widest vector
FLOAT32_OR_BFLOAT16 = (torch.float32, torch.bfloat16)


def suits(
    *tensors: Tensor, widths: tuple[int, ...] = (), dtypes: tuple[torch.dtype, ...] = (torch.float32,)
) -> bool:  # fmt: skip
    """Whether the kernels support these: plain tensors of `dtypes` on CPU, with widths that are multiples of 16."""
    return (
        _kernels is not None
        and not torch.compiler.is_compiling()
        and not any(width % _LANES for width in widths)
        and all(
            x.dtype in dtypes and x.device.type == "cpu" and type(x) in (Tensor, torch.nn.Parameter) for x in tensors
        )
        and not runs_triton(tensors[0])
    )


def _is_bfloat16(x: Tensor) -> bool:
    return x.dtype == torch.bfloat16


def _rows_contiguous(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()


def attention(q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor, segments: Segments, scale: float) -> Tensor:
    wide = (_rows_contiguous(x.float()) for x in (q_THD, k_TKD, v_TKD))
    return _Attention.apply(*wide, segments, scale).to(q_THD.dtype)


def _uncovered_zero(segments: Segments, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """[T, ...] to be written where segments are, zero elsewhere."""
    covered = int(segments.length.sum())
    if covered != int(segments.start[-1] + segments.length[-1]):
        return torch.zeros(segments.num_tokens, *shape, dtype=dtype)
    x = torch.empty(segments.num_tokens, *shape, dtype=dtype)
    x[covered:].zero_()
    return x


def _place(x_THD: Tensor) -> tuple[int, tuple[int, int]]:
    return x_THD.data_ptr(), (x_THD.stride(0), x_THD.stride(1))


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, segments: Segments, scale: float) -> Tensor:
        (T, H, D), K = q.shape, k.shape[1]
        o, lse = _uncovered_zero(segments, H, D), torch.empty(H, T)
        ctx.shape, ctx.segments, ctx.scale = (T, H, H // K, D), segments, scale
        _kernels.attention_forward(
            segments.table.numpy(), *_place(q), *_place(k), *_place(v), o.data_ptr(), lse.data_ptr(),
            ctx.shape, scale, torch.get_num_threads(),
        )  # fmt: skip
        ctx.save_for_backward(q, k, v, o, lse)
        return o

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, do: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        q, k, v, o, lse = ctx.saved_tensors
        do = do.contiguous()
        dq, dk, dv = (_uncovered_zero(ctx.segments, *x.shape[1:]) for x in (q, k, v))
        gradients = tuple(x.data_ptr() for x in (do, o, lse, dq, dk, dv))
        _kernels.attention_backward(
            ctx.segments.table.numpy(), *_place(q), *_place(k), *_place(v), gradients,
            ctx.shape, ctx.scale, torch.get_num_threads(),
        )  # fmt: skip
        return dq, dk, dv, None, None


def rms_norm(x_ND: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    return _RmsNorm.apply(x_ND, weight_D, eps)


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        x, weight = x.contiguous(), weight.contiguous()
        y, rstd = torch.empty_like(x), torch.empty(len(x))
        pointers = (tensor.data_ptr() for tensor in (x, weight, y, rstd))
        _kernels.rms_norm_forward(*pointers, *x.shape, eps, torch.get_num_threads())
        ctx.save_for_backward(x, weight, rstd)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight, rstd = ctx.saved_tensors
        dy, dx, dweight = dy.contiguous(), torch.empty_like(x), torch.empty_like(weight)
        pointers = (tensor.data_ptr() for tensor in (dy, x, weight, rstd, dx, dweight))
        _kernels.rms_norm_backward(*pointers, *x.shape, torch.get_num_threads())
        return dx, dweight, None


def add_rms_norm(x_ND: Tensor, residual_ND: Tensor, weight_D: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """x and the norm in bfloat16, residual and the sum in float32."""
    return _AddRmsNorm.apply(x_ND, residual_ND, weight_D, eps)


class _AddRmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        x, residual, weight = x.contiguous(), residual.contiguous(), weight.contiguous()
        y, total, rstd = torch.empty_like(x), torch.empty_like(residual), torch.empty(len(x))
        pointers = (tensor.data_ptr() for tensor in (x, residual, weight, total, y, rstd))
        _kernels.add_rms_norm_forward16(*pointers, *x.shape, eps, torch.get_num_threads())
        ctx.save_for_backward(total, weight, rstd)
        ctx.set_materialize_grads(False)
        return y, total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor | None, dtotal: Tensor | None) -> tuple[Tensor | None, ...]:
        total, weight, rstd = ctx.saved_tensors
        if dy is None:
            return None if dtotal is None else dtotal.bfloat16(), dtotal, None, None
        dy, dtotal = dy.contiguous(), None if dtotal is None else dtotal.contiguous()
        dresidual, dx, dweight = torch.empty_like(total), torch.empty_like(dy), torch.empty_like(weight)
        pointers = (_address(tensor) for tensor in (dy, dtotal, total, weight, rstd, dresidual, dx, dweight))
        _kernels.add_rms_norm_backward16(*pointers, *total.shape, torch.get_num_threads())
        return dx, dresidual, dweight, None


def swiglu(gate_up: Tensor) -> Tensor:
    return _Swiglu.apply(gate_up)


class _Swiglu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate_up: Tensor) -> Tensor:
        gate_up = gate_up.contiguous()
        width = gate_up.shape[-1] // 2
        y = gate_up.new_empty(*gate_up.shape[:-1], width)
        _kernels.swiglu_forward(
            gate_up.data_ptr(), y.data_ptr(), y.numel() // width, width, _is_bfloat16(y), torch.get_num_threads()
        )
        ctx.save_for_backward(gate_up)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        (gate_up,) = ctx.saved_tensors
        dy, gradient = dy.contiguous(), torch.empty_like(gate_up)
        pointers = (tensor.data_ptr() for tensor in (dy, gate_up, gradient))
        width = dy.shape[-1]
        _kernels.swiglu_backward(*pointers, dy.numel() // width, width, _is_bfloat16(dy), torch.get_num_threads())
        return gradient


def rope(x_THD: Tensor, cos_T1D: Tensor, sin_T1D: Tensor) -> Tensor:
    return _Rope.apply(_rows_contiguous(x_THD), cos_T1D.float(), sin_T1D.float())


def _rotate(x_THD: Tensor, cos: Tensor, sin: Tensor, sign: float, to_THD: Tensor) -> Tensor:
    """Into `to`, whose heads are adjacent; float32 may be rounded to bfloat16."""
    kinds = (_is_bfloat16(x_THD), _is_bfloat16(to_THD))
    _kernels.rope(
        *_place(x_THD), cos.data_ptr(), sin.data_ptr(), to_THD.data_ptr(), to_THD.stride(0), tuple(x_THD.shape), sign,
        kinds, torch.get_num_threads(),
    )  # fmt: skip
    return to_THD


class _Rope(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        cos, sin = cos.contiguous(), sin.contiguous()
        ctx.save_for_backward(cos, sin)
        return _rotate(x, cos, sin, 1.0, x.new_empty(x.shape))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        dy = _rows_contiguous(dy)
        return _rotate(dy, cos, sin, -1.0, dy.new_empty(dy.shape)), None, None


def suits_tiles(*tensors: Tensor, head_dim: int = 32) -> bool:
    """Whether `rope_attention` and `weight_gradient` run: bfloat16 on a CPU with tile registers (AMX)."""
    return suits(*tensors, dtypes=(torch.bfloat16,)) and head_dim % 32 == 0 and _kernels.has_tiles()


def rope_attention(
    qkv_TW: Tensor, cos_T1D: Tensor, sin_T1D: Tensor, segments: Segments, heads: int, kv_heads: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Weights and their gradients are rounded to bfloat16 before they are multiplied, sums are float32."""
    return _RopeAttention.apply(qkv_TW, cos_T1D.float(), sin_T1D.float(), segments, heads, kv_heads)


class _RopeAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, qkv: Tensor, cos: Tensor, sin: Tensor, segments: Segments, heads: int, kv_heads: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        qkv, cos, sin = qkv.contiguous(), cos.contiguous(), sin.contiguous()
        qk, v = qkv.unflatten(1, (heads + 2 * kv_heads, -1)).split([heads + kv_heads, kv_heads], dim=1)
        T, _, D = qk.shape
        rotated = _rotate(qk, cos, sin, 1.0, torch.empty(qk.shape, dtype=qk.dtype))
        q, k = rotated.split([heads, kv_heads], dim=1)
        o, lse = _uncovered_zero(segments, heads, D, dtype=qkv.dtype), torch.empty(heads, T)
        ctx.shape, ctx.segments = (T, heads, heads // kv_heads, D), segments
        _kernels.attention_forward16(
            segments.table.numpy(), *_place(q), *_place(k), *_place(v), o.data_ptr(), lse.data_ptr(),
            ctx.shape, D**-0.5, torch.get_num_threads(),
        )  # fmt: skip
        ctx.save_for_backward(q, k, v, o, lse, cos, sin)
        k, v = k.detach(), v.detach()
        ctx.mark_non_differentiable(k, v)
        ctx.set_materialize_grads(False)
        return o, k, v

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, do: Tensor, *_: None) -> tuple[Tensor | None, ...]:
        q, k, v, o, lse, cos, sin = ctx.saved_tensors
        (_, H, D), K, do = q.shape, k.shape[1], do.contiguous()
        dqkv = _uncovered_zero(ctx.segments, (H + 2 * K) * D, dtype=q.dtype)
        dq, dk, dv = dqkv.unflatten(1, (-1, D)).split([H, K, K], dim=1)
        wide_dk, wide_dv = (_uncovered_zero(ctx.segments, K, D) for _ in range(2))
        gradients = tuple(x.data_ptr() for x in (do, o, lse, cos, sin, dq, wide_dk, wide_dv))
        _kernels.attention_backward16(
            ctx.segments.table.numpy(), *_place(q), *_place(k), *_place(v), gradients, dq.stride(0),
            ctx.shape, D**-0.5, torch.get_num_threads(),
        )  # fmt: skip
        _rotate(wide_dk, cos, sin, -1.0, dk)
        dv.copy_(wide_dv)
        return dqkv, None, None, None, None, None


def weight_gradient(dy_NM: Tensor, x_NK: Tensor) -> Tensor:
    """dy^T x in float32, of bfloat16: the sum over the rows in their order."""
    dy, x = _rows_contiguous(dy_NM), _rows_contiguous(x_NK)
    dw = torch.empty(dy.shape[1], x.shape[1])
    _kernels.weight_gradient(
        dy.data_ptr(), dy.stride(0), x.data_ptr(), x.stride(0), dw.data_ptr(), (len(dy), *dw.shape),
        torch.get_num_threads(),
    )  # fmt: skip
    return dw


def cross_entropy(logits_NV: Tensor, labels_N: Tensor, shares_N: Tensor, z_loss: float) -> Tensor:
    """The sum of the rows' losses, weighted by their shares."""
    outside = (labels_N < 0) | (labels_N >= logits_NV.shape[1])
    if (outside & (shares_N != 0)).any():
        raise IndexError(f"cross_entropy: labels must be in 0 .. {logits_NV.shape[1] - 1} or ignore_index")
    return _CrossEntropy.apply(_rows_contiguous(logits_NV), labels_N, shares_N, z_loss)


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, shares: Tensor, z_loss: float) -> Tensor:
        N, V = logits.shape
        labels, shares, losses = labels.contiguous(), shares.contiguous(), torch.empty(N)
        gradient = logits.new_empty(N, V) if ctx.needs_input_grad[0] else None
        _kernels.cross_entropy(
            logits.data_ptr(), logits.stride(0), labels.data_ptr(), shares.data_ptr(), z_loss, losses.data_ptr(),
            _address(gradient), N, V, _is_bfloat16(logits), torch.get_num_threads(),
        )  # fmt: skip
        ctx.save_for_backward(gradient)
        return losses.sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        # as from loss.backward(): nothing is multiplied
        return gradient if upstream == 1.0 else gradient * upstream, None, None, None


def policy_loss(
    logits_NV: Tensor,
    reference_logits_NV: Tensor | None,
    tokens_N: Tensor,
    vectors: tuple[Tensor | None, ...],
    numbers: tuple[float, ...],
    kind: int,
    estimator: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """(loss, statistics [K], log-probabilities [N]), the loss with gradient; rows of weight 0 are not read.

    Args:
        logits_NV, reference_logits_NV: float32 or bfloat16, both the same.
        vectors: float32 [N], contiguous: weights, advantages, and where they are given old, importance, reference and
            log-ratios (else those of the tokens).
        numbers: 1 / temperature, clip_low, clip_high, clip_dual, kl_coef, entropy_coef.
    """
    outside = (tokens_N < 0) | (tokens_N >= logits_NV.shape[1])
    if outside.any() and (outside & (vectors[0] != 0)).any():
        raise IndexError(f"policy_loss: tokens must be in 0 .. {logits_NV.shape[1] - 1} where the weight is not 0")
    reference = None if reference_logits_NV is None else _rows_contiguous(reference_logits_NV)
    logits = _rows_contiguous(logits_NV)
    return _PolicyLoss.apply(logits, reference, tokens_N.contiguous(), vectors, numbers, kind, estimator)


class _PolicyLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, reference: Tensor | None, tokens: Tensor, vectors: tuple[Tensor | None, ...],
        numbers: tuple[float, ...], kind: int, estimator: int,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        logprobs = torch.empty(len(logits))
        gradient = logits.new_empty(logits.shape) if ctx.needs_input_grad[0] else None
        matrices = (logits, reference, gradient)
        strides = (logits.stride(0), 0 if reference is None else reference.stride(0))
        totals = _kernels.policy_loss(
            [_address(x) for x in matrices], (*logits.shape, *strides), _is_bfloat16(logits),
            [_address(x) for x in (tokens, *vectors, logprobs)], kind, estimator, numbers, torch.get_num_threads(),
        )  # fmt: skip
        totals_K = torch.tensor(totals, dtype=torch.float32)
        ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(totals_K, logprobs)
        ctx.set_materialize_grads(False)
        return totals_K[0].clone(), totals_K, logprobs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor, *_: None) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient if upstream == 1.0 else gradient * upstream, *(None for _ in range(6))


def _address(x: Tensor | None) -> int:
    return 0 if x is None else x.data_ptr()
