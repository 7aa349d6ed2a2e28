"""Attention of queries and keys that are rotated first, all in the one matrix that a projection gives.

    (q, k, v) = heads of qkv[t];   o = attention(rope(q), rope(k), v)

of rope.py and attention.py. In place of operators on views of qkv, whose gradients autograd would join by two copies,
backward writes dq, dk and dv side by side into the gradient of qkv, and rotates dq and dk back before it stores them.
Where qkv is the sum of a product and a bias, db[w] = sum_t dqkv[t, w]: what backward adds up of it while it stores dqkv
spares reading dqkv again.

Letters:    T tokens, H query heads, K key-value heads, D head dim; qkv holds (H + 2 K) D columns.
Numerics:   forward has the bits of the two operators. dq and dk are rotated back in float32 before they are rounded. In
            bfloat16 on a CPU with AMX, where D is a multiple of 32, rotated queries and keys are those of `rope`, and
            products take bfloat16 where the operators on CPU compute in float32. A tile's part of db is the sum of
            what it stores, rounded, in float32; parts are added in the order of the tiles.
Traffic:    forward that of both; backward that of attention, and the angles of every row of dq and dk; with a bias 4
            bytes of every column and tile, which for 128 rows of 6 query heads is a tenth of dqkv, written and read.
            Where D is no power of two the halves of a row do not halve its tile, and the two operators run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from . import cpu_kernels
from .attention import attention, attention_forward
from .attention_backward import num_sums, write_gradients
from .attention_tiles import MAX_HEAD_DIM, padded_head_dim, work_plan
from .launch import AUTOTUNE, arch_of
from .operation import operation
from .rope import check_rope, rope, rotate
from .row_sums import spread_rows
from .segments import Segments
from .triton_support import runs_triton

__all__ = ["rope_attention", "rope_attention_ref", "spread_biases"]


def rope_attention_ref(
    qkv_TW: Tensor, cos_T1D: Tensor, sin_T1D: Tensor, segments: Segments, *, heads: int, kv_heads: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The definition, of `rope` and `attention`, which use their own kernels where those apply."""
    qk, v = _heads(qkv_TW, heads, kv_heads).split([heads + kv_heads, kv_heads], dim=1)
    q, k = rope(qk, cos_T1D, sin_T1D).split([heads, kv_heads], dim=1)
    return attention(q, k, v, segments), k.detach(), v.detach()


def spread_biases(
    biases: Sequence[Tensor], like: Tensor, segments: Segments, *, heads: int, kv_heads: int
) -> tuple[Tensor, ...] | None:
    """Biases of several layers as those of `spread_rows`, for `rope_attention`; None where no kernel takes them
    or its sums would cost it more than they spare.

    Args:
        biases: float32 [(heads + 2 kv_heads) D].
        like: of the device and the dtype of qkv. Only one of 16 bits: in float32, dk and dv spill.
        segments, heads, kv_heads: as for `rope_attention`.
    """
    D = biases[0].shape[0] // (heads + 2 * kv_heads)
    # at a head dim of 64 the kernel of dq takes 162 registers on sm_100 and not 128: one program runs and not two
    pays = not 100 <= arch_of(like) < 120 or D > 64
    # tuning tries tiles of other sizes, of which there are other numbers
    if AUTOTUNE or not pays or not _takes(like, D) or like.itemsize != 2:
        return None
    return spread_rows(biases, num_sums(like.new_empty((0, heads, D)), segments.table, kv_heads))


def rope_attention(
    qkv_TW: Tensor,
    cos_T1D: Tensor,
    sin_T1D: Tensor,
    segments: Segments,
    *,
    heads: int,
    kv_heads: int,
    bias_RW: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Attention within the segments, of rotated queries and keys.

    Args:
        qkv_TW: floating point [T, (heads + 2 kv_heads) D]: queries, keys and values of a token, head by head.
        cos_T1D, sin_T1D: of `rope_angles`, dtype of qkv, no gradient.
        segments: the layout, with segments.num_tokens = T.
        heads, kv_heads: H, a multiple of K.
        bias_RW: one of `spread_biases`, if the gradient of a bias that is already part of qkv is to be computed here,
            and not where it was added.
    Returns:
        The output [T, H, D], zeros for tokens outside every segment; and for a cache, without gradient, the rotated
        keys and the values [T, K, D].
    Raises:
        ValueError: shapes, dtypes or devices do not fit.
    """
    _check(qkv_TW, segments, heads, kv_heads)
    all_heads = _heads(qkv_TW, heads, kv_heads)
    D = all_heads.shape[2]
    if cpu_kernels.suits_tiles(qkv_TW, cos_T1D, sin_T1D, head_dim=D):
        check_rope(all_heads, cos_T1D, sin_T1D)
        return cpu_kernels.rope_attention(qkv_TW, cos_T1D, sin_T1D, segments, heads, kv_heads)
    if bias_RW is not None and (not _takes(qkv_TW, D) or bias_RW.shape[1:] != qkv_TW.shape[1:]):
        raise ValueError(
            f"rope_attention: bias must be one of spread_biases for {qkv_TW.dtype} {tuple(qkv_TW.shape)} on "
            f"{qkv_TW.device}, got {tuple(bias_RW.shape)}"
        )
    if not _takes(qkv_TW, D):
        return rope_attention_ref(qkv_TW, cos_T1D, sin_T1D, segments, heads=heads, kv_heads=kv_heads)
    check_rope(all_heads, cos_T1D, sin_T1D)
    o, rotated, _ = _rope_attention_op(qkv_TW, bias_RW, cos_T1D, sin_T1D, segments.table, heads, kv_heads)
    return o, rotated[:, heads:], all_heads[:, heads + kv_heads :].detach()


def _check(qkv: Tensor, segments: Segments, heads: int, kv_heads: int) -> None:
    if not 1 <= kv_heads <= heads or heads % kv_heads:
        raise ValueError(f"rope_attention: heads must be a multiple of kv_heads >= 1, got {heads} and {kv_heads}")
    num_heads = heads + 2 * kv_heads
    if qkv.ndim != 2 or len(qkv) != segments.num_tokens or qkv.shape[1] % num_heads or not qkv.is_floating_point():
        raise ValueError(
            f"rope_attention: need floating point qkv [T, {num_heads} D] with T = {segments.num_tokens}, got "
            f"{qkv.dtype} {tuple(qkv.shape)}"
        )


def _takes(qkv: Tensor, D: int) -> bool:
    return runs_triton(qkv) and D <= MAX_HEAD_DIM and padded_head_dim(D) == D


def _heads(qkv: Tensor, heads: int, kv_heads: int) -> Tensor:
    return qkv.unflatten(1, (heads + 2 * kv_heads, -1))


def _scale(head_dim: int) -> float:
    return float(head_dim**-0.5)


@operation("rope_attention")
def _rope_attention_op(
    qkv: Tensor, bias: Tensor | None, cos: Tensor, sin: Tensor, table: Tensor, heads: int, kv_heads: int
) -> tuple[Tensor, Tensor, Tensor]:
    """(o, rotated queries and keys [T, H + K, D], lse); the bias is there for its gradient."""
    all_heads, rotates = _heads(qkv.contiguous(), heads, kv_heads), heads + kv_heads
    T, _, D = all_heads.shape
    rotated = torch.empty((T, rotates, D), dtype=qkv.dtype, device=qkv.device)
    rotate(all_heads[:, :rotates], cos.contiguous(), sin.contiguous(), rotated, False)
    o, lse = attention_forward(rotated[:, :heads], rotated[:, heads:], all_heads[:, rotates:], table, _scale(D))
    return o, rotated, lse


@_rope_attention_op.register_fake
def _(
    qkv: Tensor, bias: Tensor | None, cos: Tensor, sin: Tensor, table: Tensor, heads: int, kv_heads: int
) -> tuple[Tensor, Tensor, Tensor]:
    T, D = qkv.shape[0], qkv.shape[1] // (heads + 2 * kv_heads)
    lse = qkv.new_empty((kv_heads, T, heads // kv_heads), dtype=torch.float32)
    return qkv.new_empty((T, heads, D)), qkv.new_empty((T, heads + kv_heads, D)), lse


@operation("rope_attention_backward")
def _backward_op(
    do: Tensor, qkv: Tensor, rotated: Tensor, o: Tensor, lse: Tensor, cos: Tensor, sin: Tensor, table: Tensor,
    heads: int, kv_heads: int, bias_rows: int,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The gradient of qkv, 0 for tokens outside every segment, and that of a bias of so many rows."""
    do, o, cos, sin = (x.contiguous() for x in (do, o, cos, sin))
    empty_like = torch.empty_like if work_plan(table, qkv.device).num_covered == len(qkv) else torch.zeros_like
    dqkv = empty_like(qkv, memory_format=torch.contiguous_format)
    D, ends = o.shape[2], (heads, heads + kv_heads)
    dq, dk, dv = _heads(dqkv, heads, kv_heads).tensor_split(ends, dim=1)
    v = _heads(qkv.contiguous(), heads, kv_heads)[:, ends[1] :]
    q, k = rotated[:, :heads], rotated[:, heads:]
    sums = torch.empty((bias_rows, qkv.shape[1]), dtype=torch.float32, device=qkv.device)
    given = sums if bias_rows else None
    write_gradients(do, q, k, v, o, lse, table, _scale(D), (dq, dk, dv), (cos, sin), given)
    return dqkv, sums


@_backward_op.register_fake
def _(
    do: Tensor, qkv: Tensor, rotated: Tensor, o: Tensor, lse: Tensor, cos: Tensor, sin: Tensor, table: Tensor,
    heads: int, kv_heads: int, bias_rows: int,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    return qkv.new_empty(qkv.shape), qkv.new_empty((bias_rows, qkv.shape[1]), dtype=torch.float32)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    qkv, bias, cos, sin, table, ctx.heads, ctx.kv_heads = inputs
    ctx.bias_rows = 0 if bias is None else len(bias)
    o, rotated, lse = output
    ctx.save_for_backward(qkv, rotated, o, lse, cos, sin, table)
    ctx.mark_non_differentiable(rotated, lse)
    ctx.set_materialize_grads(False)  # no zeros for those two


def _backward(ctx: Any, do: Tensor, *_: None) -> tuple[Tensor | None, ...]:
    dqkv, sums = _backward_op(do, *ctx.saved_tensors, ctx.heads, ctx.kv_heads, ctx.bias_rows)
    return dqkv, sums if ctx.bias_rows else None, None, None, None, None, None


_rope_attention_op.register_autograd(_backward, setup_context=_setup_context)
