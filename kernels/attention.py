"""Causal attention over segments with grouped queries and shared prefixes that are not copied.

    o[t, h] = sum_u w[t, h, u] v[u, h // g],    w[t, h, u] = exp(scale * q[t, h] . k[u, h // g] - lse[t, h])
    lse[t, h] = log sum_u exp(scale * q[t, h] . k[u, h // g])

where u runs over t's prefix and t's own segment up to t itself; g = H / K query heads use one KV head. Backward
is in attention_backward.py.

Letters:    T tokens, H query heads, K key-value heads, D head dim, g = H / K; rectangles of B segments of L padded
            tokens that see S keys; P prefixes.
Numerics:   loads in the input dtype; scores, weights, sums and lse in float32, products with float32 accumulators;
            float32 inputs are multiplied as float32 (no tf32). A row walks its keys in blocks cut from the start of its
            prefix and of its segment, in one fixed order: its bits depend on nothing else in the batch. So it is on CPU
            in float32 (csrc/cpu/attention.h, D a multiple of 16), and in bfloat16 on processors with AMX, where weights
            and gradients of scores are rounded to bfloat16 for their products (csrc/cpu/attention_tiles.h, D a multiple
            of 32, by rope_attention.py alone); on others bfloat16 is computed in float32. Where the definition runs:
            torch's scaled_dot_product_attention in the input dtype, float64 in and out.
Traffic:    q, o and lse once; k and v of what a segment of L tokens sees once per query tile, that is at most
            ceil(g * L / BLOCK_M) times a KV head, whose g query heads are stacked in one tile. On CPU q, k, v and o are
            gathered to and from padded rectangles once, the keys and values of a prefix once more per segment that sees
            it; a mask exists per rectangle, never [T, T].
Source:     FlashAttention-2, Dao 2023, arXiv:2307.08691; online softmax, Milakov and Gimelshein 2018, arXiv:1805.02867.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fastreason.runtime import transfer

from . import cpu_kernels
from .attention_backward import attention_backward, match_strides
from .attention_tiles import (
    LAYOUT_ARGUMENTS,
    LOG2_E,
    at_token,
    check_head_dim,
    count_key_blocks,
    edge_key_block,
    full_key_block,
    load_full_rows,
    load_rows,
    load_tile,
    padded_head_dim,
    store_rows,
    work_plan,
)
from .launch import configuration, launch
from .operation import operation
from .segments import Rectangle, Segments
from .triton_support import runs_triton, tl, triton

__all__ = ["attention", "attention_forward", "attention_ref", "send"]


def attention(q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor, segments: Segments, *, scale: float | None = None) -> Tensor:
    """Attention of every token to its prefix and, causally, to its own segment.

    Runs Triton on CUDA (and under TRITON_INTERPRET=1), csrc/cpu for float32 and bfloat16 on CPU, otherwise the
    definition.

    Args:
        q_THD, k_TKD, v_TKD: floating point, one dtype and device; H a multiple of K. For the kernels D is a multiple
            of 8 up to 128; views whose last dimension is contiguous are read in place.
        segments: the layout, with segments.num_tokens = T.
        scale: factor on the scores; default D ** -0.5.
    Returns:
        [T, H, D], the dtype of q; zeros for tokens outside every segment.
    Raises:
        ValueError: shapes, dtypes or devices do not match.
    """
    _check(q_THD, k_TKD, v_TKD, segments)
    scale = q_THD.shape[-1] ** -0.5 if scale is None else scale
    kinds = cpu_kernels.FLOAT32_OR_BFLOAT16
    if scale > 0 and cpu_kernels.suits(q_THD, k_TKD, v_TKD, widths=q_THD.shape[-1:], dtypes=kinds):
        return cpu_kernels.attention(q_THD, k_TKD, v_TKD, segments, scale)
    if not runs_triton(q_THD):
        return attention_ref(q_THD, k_TKD, v_TKD, segments, scale)
    check_head_dim("attention", q_THD.shape[-1])
    if scale <= 0:  # kernels apply it behind mask and maximum, and need it positive
        q_THD, scale = (-q_THD, -scale) if scale < 0 else (q_THD * 0.0, 1.0)
    return _attention_op(q_THD, k_TKD, v_TKD, segments.table, scale)[0]


def send(
    segments: Segments, tensors: Sequence[Tensor], like: Tensor, *, heads: int, kv_heads: int, head_dim: int
) -> list[Tensor]:
    """Tensors of a batch on the device of `like`, in one transfer with all that attention needs of the layout there.

    Otherwise `attention` copies its lists of tiles when it first meets a batch, and the host waits for each.

    Args:
        segments: the layout; remembers what was sent.
        tensors: on CPU.
        like: of the device and the dtype of queries.
        heads, kv_heads, head_dim: of `attention`, forward and backward.
    """
    device = like.device
    if device.type == "cpu":
        return list(tensors)
    plan, facts = work_plan(segments.table, device), {"head_dim": padded_head_dim(head_dim), "itemsize": like.itemsize}
    forward, dq, dkv = (
        configuration(f"attention_{name}", like, **facts) for name in ("forward", "backward_dq", "backward_dkv")
    )
    lists = plan.cut({(forward["BLOCK_M"], heads // kv_heads), (dq["BLOCK_M"], heads // kv_heads)}, [dkv["BLOCK_N"]])
    positions_T, *sent = transfer.send([segments.positions, *lists.values(), *tensors], device)
    segments.put_positions(positions_T)
    plan.put(dict(zip(lists, sent, strict=False)))
    return sent[len(lists) :]


def attention_ref(q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor, segments: Segments, scale: float) -> Tensor:
    """The definition: one scaled_dot_product_attention per bucket of segments of similar length."""
    if scale <= 0:  # torch hides a key by scale * -inf, which is NaN or +inf here
        q_THD, scale = q_THD * scale, 1.0
    plan = segments.plan
    rectangles = [bucket.rectangle for bucket in plan.buckets]
    queries, keys, values = (_cut(plan.rows.gather(x), rectangles) for x in (q_THD, k_TKD, v_TKD))
    if plan.prefix_rows is not None and plan.prefixes is not None:
        prefix_k, prefix_v = (_cut(plan.prefix_rows.gather(x), [plan.prefixes])[0] for x in (k_TKD, v_TKD))
    outputs = []
    for bucket, q, k, v in zip(plan.buckets, queries, keys, values, strict=True):
        mask = None
        if bucket.prefix is not None and bucket.hidden is not None:
            row = bucket.prefix.to(q.device)
            k = torch.cat([prefix_k.index_select(0, row), k], dim=1)
            v = torch.cat([prefix_v.index_select(0, row), v], dim=1)
            mask = torch.zeros(bucket.hidden.shape, dtype=q.dtype).masked_fill_(bucket.hidden, float("-inf"))
            mask = mask[:, None].to(q.device)
        outputs.append(_attend(q, k, v, mask, scale).flatten(0, 1))
    return plan.rows.scatter(torch.cat(outputs) if len(outputs) > 1 else outputs[0])


def _cut(padded_RHD: Tensor, rectangles: Sequence[Rectangle]) -> list[Tensor]:
    """The rectangles [B, L, H, D]. One split, not a slice each: the gradient of a slice is as large as the whole."""
    parts = padded_RHD.split([rectangle.count * rectangle.length for rectangle in rectangles])
    return [part.unflatten(0, (r.count, r.length)) for part, r in zip(parts, rectangles, strict=True)]


def _attend(q_BLHD: Tensor, k_BSKD: Tensor, v_BSKD: Tensor, mask_B1LS: Tensor | None, scale: float) -> Tensor:
    # a padding row sees itself, so its softmax is finite, and nothing reads it
    o = F.scaled_dot_product_attention(
        q_BLHD.transpose(1, 2),
        k_BSKD.transpose(1, 2),
        v_BSKD.transpose(1, 2),
        attn_mask=mask_B1LS,
        is_causal=mask_B1LS is None,
        scale=scale,
        enable_gqa=q_BLHD.shape[2] != k_BSKD.shape[2],
    )
    return o.transpose(1, 2)


def _check(q: Tensor, k: Tensor, v: Tensor, segments: Segments) -> None:
    fits = q.ndim == 3 and k.ndim == 3 and k.shape == v.shape and k.shape[::2] == q.shape[::2]
    if not fits or q.shape[1] % k.shape[1] or q.shape[0] != segments.num_tokens:
        raise ValueError(
            f"attention: need q [T, H, D], k and v [T, K, D] with T = {segments.num_tokens} and H a multiple of K, "
            f"got {tuple(q.shape)}, {tuple(k.shape)} and {tuple(v.shape)}"
        )
    if not q.is_floating_point() or q.dtype != k.dtype or q.dtype != v.dtype:
        raise ValueError(f"attention: q, k and v need one floating dtype, got {q.dtype}, {k.dtype} and {v.dtype}")
    if q.device != k.device or q.device != v.device:
        raise ValueError(f"attention: q, k and v need one device, got {q.device}, {k.device} and {v.device}")


@triton.jit
def _attend_to_block(q, k, v, acc, m, denominator, scale_log2, sees, HAS_EDGE: tl.constexpr):
    """One step of the online softmax. m: running maximum of q . k; denominator: running sum.

    The scale, which is positive, is applied behind the maximum: there it is one multiplication and subtraction in one
    instruction, with the difference that the exponential needs anyway.
    """
    s = tl.dot(q, tl.trans(k), input_precision="ieee")
    if HAS_EDGE:
        s = tl.where(sees, s, -float("inf"))
    m_new = tl.maximum(m, tl.max(s, axis=1))
    origin = m_new * scale_log2
    p = tl.exp2(s * scale_log2 - origin[:, None])
    shrink = tl.exp2(m * scale_log2 - origin)
    denominator = denominator * shrink + tl.sum(p, axis=1)
    acc = tl.dot(p.to(v.dtype), v, acc * shrink[:, None], input_precision="ieee")
    return acc, m_new, denominator


@triton.jit(do_not_specialize=LAYOUT_ARGUMENTS)
def _forward_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    o_ptr,  # [T, H, D] contiguous
    lse_ptr,  # [K, T, GROUP] float32, to base 2
    tiles_ptr,
    q_stride_t,  # strides in units of 8 elements
    q_stride_h,
    k_stride_t,
    k_stride_h,
    v_stride_t,
    v_stride_h,
    T,
    scale_log2,
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    start, first_row, length, prefix_start, prefix_length = load_tile(tiles_ptr)
    kv = tl.program_id(1)
    row = first_row + tl.arange(0, BLOCK_M)
    position = row // GROUP
    inside = position < length
    first_position = first_row // GROUP
    # within the tile: how far behind its first token, and which head of the KV head
    step, head = position - first_position, row % GROUP
    q_at = at_token(q_ptr, start + first_position, kv * GROUP, q_stride_t, q_stride_h)
    q = load_rows(q_at, step * (q_stride_t * 8) + head * (q_stride_h * 8), inside, D, BLOCK_D)
    m = tl.full([BLOCK_M], -float("inf"), tl.float32)
    denominator = tl.zeros([BLOCK_M], tl.float32)
    acc = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    full_prefix, full, edges = count_key_blocks(first_row, length, prefix_length, GROUP, BLOCK_M, BLOCK_N)
    k_offsets = tl.arange(0, BLOCK_N) * (k_stride_t * 8)
    v_offsets = tl.arange(0, BLOCK_N) * (v_stride_t * 8)
    for block in range(full):
        token = full_key_block(block, start, prefix_start, full_prefix, BLOCK_N)
        k = load_full_rows(at_token(k_ptr, token, kv, k_stride_t, k_stride_h), k_offsets, D, BLOCK_D)
        v = load_full_rows(at_token(v_ptr, token, kv, v_stride_t, v_stride_h), v_offsets, D, BLOCK_D)
        acc, m, denominator = _attend_to_block(q, k, v, acc, m, denominator, scale_log2, True, False)
    # every row sees some key of the first block it meets, so m is finite from there on
    for edge in range(edges):
        token, exists, sees = edge_key_block(
            edge, start, length, prefix_start, prefix_length, position, full_prefix, full, BLOCK_N
        )
        k = load_rows(at_token(k_ptr, token, kv, k_stride_t, k_stride_h), k_offsets, exists, D, BLOCK_D)
        v = load_rows(at_token(v_ptr, token, kv, v_stride_t, v_stride_h), v_offsets, exists, D, BLOCK_D)
        acc, m, denominator = _attend_to_block(q, k, v, acc, m, denominator, scale_log2, sees, True)
    width = tl.num_programs(1) * GROUP * D
    o_at = o_ptr + (start + first_position).to(tl.int64) * width + kv * GROUP * D
    store_rows(o_at, step * width + head * D, acc / denominator[:, None], inside, D, BLOCK_D)
    tl.store(lse_ptr + (kv.to(tl.int64) * T + start) * GROUP + row, m * scale_log2 + tl.log2(denominator), mask=inside)


def attention_forward(q: Tensor, k: Tensor, v: Tensor, table: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """(o, lse [K, T, g] to base 2); both 0 for tokens outside every segment. q, k and v as `match_strides` has them."""
    (T, H, D), K = q.shape, k.shape[1]
    plan = work_plan(table, q.device)
    empty = torch.empty if plan.num_covered == T else torch.zeros
    block_d = padded_head_dim(D)
    o = empty(T, H, D, dtype=q.dtype, device=q.device)
    lse = empty(K, T, H // K, dtype=torch.float32, device=q.device)
    strides = [stride // 8 for x in (q, k, v) for stride in x.stride()[:2]]

    def call(config: dict[str, int]) -> None:
        tiles = plan.query_tiles(config["BLOCK_M"], H // K)
        _forward_kernel[(len(tiles), K)](
            q, k, v, o, lse, tiles, *strides, T, scale * LOG2_E, D=D, BLOCK_D=block_d, GROUP=H // K, **config
        )

    launch("attention_forward", q, call, head_dim=block_d, itemsize=q.itemsize)
    return o, lse


@operation("attention")
def _attention_op(q: Tensor, k: Tensor, v: Tensor, table: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    return attention_forward(match_strides(q), match_strides(k), match_strides(v), table, scale)


@_attention_op.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, table: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    T, H, _ = q.shape
    K = k.shape[1]
    return q.new_empty(q.shape), q.new_empty(K, T, H // K, dtype=torch.float32)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, table, ctx.scale = inputs
    o, lse = output
    ctx.save_for_backward(q, k, v, o, lse, table)
    ctx.mark_non_differentiable(lse)
    ctx.set_materialize_grads(False)  # no zeros for lse


def _backward(ctx: Any, do: Tensor, dlse: None) -> tuple[Tensor, Tensor, Tensor, None, None]:
    q, k, v, o, lse, table = ctx.saved_tensors
    dq, dk, dv = attention_backward(do, q, k, v, o, lse, table, ctx.scale)
    return dq, dk, dv, None, None


_attention_op.register_autograd(_backward, setup_context=_setup_context)
