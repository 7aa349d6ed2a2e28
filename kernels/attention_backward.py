"""Gradients of attention (kernels/attention.py): one kernel for dq, one for dk and dv.

With p = w[t, h, u] of the head of attention.py, recomputed from lse, and do the gradient of o:

    delta[t, h] = do[t, h] . o[t, h]
    ds[t, h, u] = p * (do[t, h] . v[u] - delta[t, h])
    dq[t, h] = scale * sum_u ds k[u];    dk[u] = scale * sum_{t, h} ds q[t, h];    dv[u] = sum_{t, h} p do[t, h]

Letters:    as in attention.py.
Numerics:   scores, p, ds and all sums in float32; p and ds are rounded to the input dtype where they are multiplied.
            dk and dv of a key tile are summed by one program: over its own segment's rows in order, then over the
            segments it is the prefix of, in the order of the batch. No atomics, so the same bits every time. Sums of
            the columns of gradients, where wanted, are those of what was rounded, in float32, a row for each tile.
Traffic:    dq: q, do, o and lse once, k and v as in forward; writes dq and delta. dk and dv: k and v once, q, do, lse
            and delta of the rows that see a key tile once per tile; writes dk and dv.
Source:     FlashAttention-2, Dao 2023, arXiv:2307.08691, algorithm 2.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .attention_tiles import (
    LAYOUT_ARGUMENTS,
    LOG2_E,
    at_token,
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
from .triton_support import tl, triton

__all__ = ["attention_backward", "match_strides", "num_sums", "write_gradients"]


@triton.jit
def _score_gradient(q, k, v, do, lse, delta, scale_log2, sees, HAS_EDGE: tl.constexpr):
    """ds [rows, keys] of a block of keys. The scale, which is positive, follows the mask: as in forward, it is one
    instruction with the subtraction."""
    s = tl.dot(q, tl.trans(k), input_precision="ieee")
    if HAS_EDGE:
        s = tl.where(sees, s, -float("inf"))
    p = tl.exp2(s * scale_log2 - lse[:, None])
    return p * (tl.dot(do, tl.trans(v), input_precision="ieee") - delta[:, None])


@triton.jit
def _store_rotated_back(ptr, offsets, x, inside, cos_ptr, sin_ptr, token, step, D: tl.constexpr):
    """Rows of tokens token + step: the gradients x of rotated rows, as those of the rows before their rotation. Returns
    the two halves of what it stores."""
    HALF: tl.constexpr = D // 2
    a, b = tl.split(tl.permute(tl.reshape(x, [x.shape[0], 2, HALF]), (0, 2, 1)))
    d, mask = tl.arange(0, HALF)[None, :], inside[:, None]
    # both halves of cos are the same and those of sin differ in sign: one of each is read
    angle = token.to(tl.int64) * D + (step[:, None] * D + d)
    cos = tl.load(cos_ptr + angle, mask=mask, other=0.0).to(tl.float32)
    sin = tl.load(sin_ptr + HALF + angle, mask=mask, other=0.0).to(tl.float32)
    out = ptr + (offsets[:, None] + d)
    first, second = (a * cos + b * sin).to(ptr.dtype.element_ty), (b * cos - a * sin).to(ptr.dtype.element_ty)
    tl.store(out, first, mask=mask)
    tl.store(out + HALF, second, mask=mask)
    return first, second


@triton.jit
def _store_head_sums(sums_ptr, x, of_head, D: tl.constexpr, GROUP: tl.constexpr):
    """The sum of the rows of every query head, a product with the matrix [heads, rows] that says whose each row is."""
    sums = tl.dot(tl.where(of_head, 1.0, 0.0).to(x.dtype), x, input_precision="ieee")
    head, d = tl.arange(0, of_head.shape[0])[:, None], tl.arange(0, x.shape[1])[None, :]
    tl.store(sums_ptr + (head * D + d), sums, mask=head < GROUP)


@triton.jit
def _store_sum(sums_ptr, x, inside):
    """The sum of the rows that are inside."""
    rows = tl.where(inside[:, None], x.to(tl.float32), 0.0)
    tl.store(sums_ptr + tl.arange(0, x.shape[1]), tl.sum(rows, axis=0))


@triton.jit(do_not_specialize=(*LAYOUT_ARGUMENTS, "gradient_stride_t", "key_tiles"))
def _query_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    o_ptr,  # o and do: [T, H, D] contiguous
    do_ptr,
    dq_ptr,  # contiguous, or as dk and dv if ROTATED
    lse_ptr,  # lse and delta: [K, T, GROUP] float32
    delta_ptr,
    cos_ptr,  # of rope.py, read if ROTATED
    sin_ptr,
    sums_ptr,  # [R, H + 2 K, D] float32, written if SUMS
    tiles_ptr,
    q_stride_t,  # strides in units of 8 elements
    q_stride_h,
    k_stride_t,
    k_stride_h,
    v_stride_t,
    v_stride_h,
    gradient_stride_t,
    T,
    key_tiles,
    scale,
    scale_log2,
    ROTATED: tl.constexpr,
    SUMS: tl.constexpr,
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
    width = tl.num_programs(1) * GROUP * D
    o_base = (start + first_position).to(tl.int64) * width + kv * GROUP * D
    o_offsets = step * width + head * D
    do = load_rows(do_ptr + o_base, o_offsets, inside, D, BLOCK_D)
    o = load_rows(o_ptr + o_base, o_offsets, inside, D, BLOCK_D)
    delta = tl.sum(do.to(tl.float32) * o.to(tl.float32), axis=1)
    lse_offsets = (kv.to(tl.int64) * T + start) * GROUP + row
    tl.store(delta_ptr + lse_offsets, delta, mask=inside)
    lse = tl.load(lse_ptr + lse_offsets, mask=inside, other=0.0)
    dq = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    full_prefix, full, edges = count_key_blocks(first_row, length, prefix_length, GROUP, BLOCK_M, BLOCK_N)
    k_offsets = tl.arange(0, BLOCK_N) * (k_stride_t * 8)
    v_offsets = tl.arange(0, BLOCK_N) * (v_stride_t * 8)
    for block in range(full):
        token = full_key_block(block, start, prefix_start, full_prefix, BLOCK_N)
        k = load_full_rows(at_token(k_ptr, token, kv, k_stride_t, k_stride_h), k_offsets, D, BLOCK_D)
        v = load_full_rows(at_token(v_ptr, token, kv, v_stride_t, v_stride_h), v_offsets, D, BLOCK_D)
        ds = _score_gradient(q, k, v, do, lse, delta, scale_log2, True, False)
        dq = tl.dot(ds.to(k.dtype), k, dq, input_precision="ieee")
    for edge in range(edges):
        token, exists, sees = edge_key_block(
            edge, start, length, prefix_start, prefix_length, position, full_prefix, full, BLOCK_N
        )
        k = load_rows(at_token(k_ptr, token, kv, k_stride_t, k_stride_h), k_offsets, exists, D, BLOCK_D)
        v = load_rows(at_token(v_ptr, token, kv, v_stride_t, v_stride_h), v_offsets, exists, D, BLOCK_D)
        ds = _score_gradient(q, k, v, do, lse, delta, scale_log2, sees, True)
        dq = tl.dot(ds.to(k.dtype), k, dq, input_precision="ieee")
    if ROTATED:
        dq_at = at_token(dq_ptr, start + first_position, kv, gradient_stride_t, GROUP * D // 8)
        dq_offsets = step * (gradient_stride_t * 8) + head * D
        a, b = _store_rotated_back(
            dq_at, dq_offsets, dq * scale, inside, cos_ptr, sin_ptr, start + first_position, step, D
        )
        if SUMS:
            # at least what the product takes; rows that are not inside hold zeros
            HEADS: tl.constexpr = 16 if GROUP <= 16 else triton.next_power_of_2(GROUP)
            of_head = head[None, :] == tl.arange(0, HEADS)[:, None]
            tile, all_kv = tl.program_id(0), tl.num_programs(1)
            row_at = sums_ptr + tile.to(tl.int64) * (all_kv * ((GROUP + 2) * D))
            sums_at = row_at + kv * (GROUP * D)
            _store_head_sums(sums_at, a, of_head, D, GROUP)
            _store_head_sums(sums_at + D // 2, b, of_head, D, GROUP)
            if tile >= key_tiles:
                nothing = tl.zeros([D], tl.float32)
                keys_at = row_at + (all_kv * GROUP + kv) * D + tl.arange(0, D)
                tl.store(keys_at, nothing)
                tl.store(keys_at + all_kv * D, nothing)
    else:
        store_rows(dq_ptr + o_base, o_offsets, dq * scale, inside, D, BLOCK_D)


@triton.jit
def _add_rows(
    q_ptr, do_ptr, lse_ptr, delta_ptr, q_stride_t, q_stride_h, k, v, dk, dv, token, first_row, num_rows, kv, T,
    scale_log2, key, D: tl.constexpr, BLOCK_D: tl.constexpr, GROUP: tl.constexpr, BLOCK_M: tl.constexpr,
    HAS_EDGE: tl.constexpr,
):  # fmt: skip
    """Adds to dk and dv the contributions of BLOCK_M rows of the segment at `token`. Rows from num_rows on add 0:
    their q and do are loaded as zeros."""
    row = first_row + tl.arange(0, BLOCK_M)
    inside = row < num_rows
    first_position = first_row // GROUP
    step, head = row // GROUP - first_position, row % GROUP
    q_at = at_token(q_ptr, token + first_position, kv * GROUP, q_stride_t, q_stride_h)
    q = load_rows(q_at, step * (q_stride_t * 8) + head * (q_stride_h * 8), inside, D, BLOCK_D)
    width = tl.num_programs(1) * GROUP * D
    do_at = do_ptr + (token + first_position).to(tl.int64) * width + kv * GROUP * D
    do = load_rows(do_at, step * width + head * D, inside, D, BLOCK_D)
    lse_base = (kv.to(tl.int64) * T + token) * GROUP
    lse = tl.load(lse_ptr + lse_base + row, mask=inside, other=0.0)
    delta = tl.load(delta_ptr + lse_base + row, mask=inside, other=0.0)
    s = tl.dot(k, tl.trans(q), input_precision="ieee")
    if HAS_EDGE:
        s = tl.where(key[:, None] <= (row // GROUP)[None, :], s, -float("inf"))
    p = tl.exp2(s * scale_log2 - lse[None, :])
    dv = tl.dot(p.to(do.dtype), do, dv, input_precision="ieee")
    ds = p * (tl.dot(v, tl.trans(do), input_precision="ieee") - delta[None, :])
    dk = tl.dot(ds.to(q.dtype), q, dk, input_precision="ieee")
    return dk, dv


@triton.jit(do_not_specialize=(*LAYOUT_ARGUMENTS, "gradient_stride_t", "query_tiles"))
def _key_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    do_ptr,  # [T, H, D] contiguous
    lse_ptr,  # lse and delta: [K, T, GROUP] float32
    delta_ptr,
    dk_ptr,  # dk and dv: [T, K, D], contiguous or, if ROTATED, with tokens gradient_stride_t apart
    dv_ptr,
    cos_ptr,  # of rope.py, read if ROTATED
    sin_ptr,
    sums_ptr,  # as above
    tiles_ptr,
    viewers_ptr,
    q_stride_t,  # strides in units of 8 elements
    q_stride_h,
    k_stride_t,
    k_stride_h,
    v_stride_t,
    v_stride_h,
    gradient_stride_t,
    T,
    query_tiles,
    scale,
    scale_log2,
    ROTATED: tl.constexpr,
    SUMS: tl.constexpr,
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    start, first_key, length, first_viewer, last_viewer = load_tile(tiles_ptr)
    kv = tl.program_id(1)
    key = first_key + tl.arange(0, BLOCK_N)
    exists = key < length
    in_tile = tl.arange(0, BLOCK_N)
    k_at = at_token(k_ptr, start + first_key, kv, k_stride_t, k_stride_h)
    v_at = at_token(v_ptr, start + first_key, kv, v_stride_t, v_stride_h)
    k = load_rows(k_at, in_tile * (k_stride_t * 8), exists, D, BLOCK_D)
    v = load_rows(v_at, in_tile * (v_stride_t * 8), exists, D, BLOCK_D)
    dk = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    dv = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    # rows from the first that sees a key of the tile to the first that sees them all, in whole blocks
    EDGE_ROWS: tl.constexpr = (BLOCK_N * GROUP + BLOCK_M - 1) // BLOCK_M * BLOCK_M
    first_row = first_key * GROUP
    num_rows = length * GROUP
    for at in range(first_row, tl.minimum(first_row + EDGE_ROWS, num_rows), BLOCK_M):
        dk, dv = _add_rows(
            q_ptr, do_ptr, lse_ptr, delta_ptr, q_stride_t, q_stride_h, k, v, dk, dv, start, at,
            num_rows, kv, T, scale_log2, key, D, BLOCK_D, GROUP, BLOCK_M, True,
        )  # fmt: skip
    # the segment's other rows, then those of every segment whose prefix it is: they all see the whole tile
    for viewer in range(first_viewer - 1, last_viewer):
        is_own = viewer < first_viewer
        entry = viewers_ptr + 2 * tl.maximum(viewer, 0)
        token = tl.where(is_own, start, tl.load(entry))
        num_rows = tl.where(is_own, length, tl.load(entry + 1)) * GROUP
        for at in range(tl.where(is_own, first_row + EDGE_ROWS, 0), num_rows, BLOCK_M):
            dk, dv = _add_rows(
                q_ptr, do_ptr, lse_ptr, delta_ptr, q_stride_t, q_stride_h, k, v, dk, dv, token, at,
                num_rows, kv, T, scale_log2, key, D, BLOCK_D, GROUP, BLOCK_M, False,
            )  # fmt: skip
    if ROTATED:
        dk_at = at_token(dk_ptr, start + first_key, kv, gradient_stride_t, D // 8)
        dv_at = at_token(dv_ptr, start + first_key, kv, gradient_stride_t, D // 8)
        offsets = in_tile * (gradient_stride_t * 8)
        a, b = _store_rotated_back(dk_at, offsets, dk * scale, exists, cos_ptr, sin_ptr, start + first_key, in_tile, D)
        store_rows(dv_at, offsets, dv, exists, D, BLOCK_D)
        if SUMS:
            tile, all_kv = tl.program_id(0), tl.num_programs(1)
            row_at = sums_ptr + tile.to(tl.int64) * (all_kv * ((GROUP + 2) * D))
            keys_at = row_at + (all_kv * GROUP + kv) * D
            _store_sum(keys_at, a, exists)
            _store_sum(keys_at + D // 2, b, exists)
            _store_sum(keys_at + all_kv * D, dv.to(dv_ptr.dtype.element_ty), exists)
            if tile >= query_tiles:
                for head in tl.static_range(GROUP):
                    tl.store(row_at + (kv * GROUP + head) * D + tl.arange(0, D), tl.zeros([D], tl.float32))
    else:
        width = tl.num_programs(1) * D
        base = (start + first_key).to(tl.int64) * width + kv * D
        store_rows(dk_ptr + base, in_tile * width, dk * scale, exists, D, BLOCK_D)
        store_rows(dv_ptr + base, in_tile * width, dv, exists, D, BLOCK_D)


def match_strides(x: Tensor) -> Tensor:
    """x itself if kernels can read it in place: rows contiguous and aligned to 16 bytes; else a contiguous copy."""
    in_place = x.stride(-1) == 1 and all(stride % 8 == 0 for stride in x.stride()[:-1]) and x.data_ptr() % 16 == 0
    return x if in_place else x.contiguous()


def write_gradients(
    do: Tensor, q: Tensor, k: Tensor, v: Tensor, o: Tensor, lse: Tensor, table: Tensor, scale: float,
    gradients: tuple[Tensor, Tensor, Tensor], angles: tuple[Tensor, Tensor] | None = None,
    sums: Tensor | None = None,
) -> None:  # fmt: skip
    """Writes dq, dk and dv of the tokens of all segments.

    Args:
        do, o: contiguous; q, k, v as `match_strides` has them.
        gradients: where to, contiguous.
        angles: cos and sin of `rope_angles`, if q and k were rotated by them: dq and dk are then those before the
            rotation, and all three parts of one matrix [T, H + 2 K, D]. D is then a power of two, at least 16.
        sums: float32 [R, (H + 2 K) D] with the R of `num_sums`, if wanted of that matrix: row r gets the sums of its
            columns, as they were rounded, over query tile r and key tile r; 0 where there is no such tile.
    """
    (T, H, D), K, (dq, dk, dv), rotated = q.shape, k.shape[1], gradients, angles is not None
    plan, block_d, delta = work_plan(table, q.device), padded_head_dim(D), torch.empty_like(lse)
    cos_sin = (o, o) if angles is None else angles
    strides = [stride // 8 for x in (q, k, v) for stride in x.stride()[:2]]
    facts = {"head_dim": block_d, "itemsize": q.itemsize}
    shape = dict(ROTATED=rotated, SUMS=sums is not None, D=D, BLOCK_D=block_d, GROUP=H // K)
    num_queries, num_keys = (0, 0) if sums is None else _num_tiles(q, table, K)

    def queries(config: dict[str, int]) -> None:
        tiles = plan.query_tiles(config["BLOCK_M"], H // K)
        _query_kernel[(len(tiles), K)](
            q, k, v, o, do, dq, lse, delta, *cos_sin, sums, tiles, *strides, dq.stride(0) // 8, T, num_keys,
            scale, scale * LOG2_E, **shape, **config,
        )  # fmt: skip

    def keys(config: dict[str, int]) -> None:
        key_tiles = plan.key_tiles(config["BLOCK_N"])
        _key_kernel[(len(key_tiles.tiles), K)](
            q, k, v, do, lse, delta, dk, dv, *cos_sin, sums, key_tiles.tiles, key_tiles.viewers, *strides,
            dk.stride(0) // 8, T, num_queries, scale, scale * LOG2_E, **shape, **config,
        )  # fmt: skip

    launch("attention_backward_dq", q, queries, **facts)
    launch("attention_backward_dkv", q, keys, **facts)


def _num_tiles(q: Tensor, table: Tensor, kv_heads: int) -> tuple[int, int]:
    """Query and key tiles of a batch."""
    plan, (_, H, D) = work_plan(table, q.device), q.shape
    facts = {"head_dim": padded_head_dim(D), "itemsize": q.itemsize}
    dq, dkv = (configuration(f"attention_backward_{name}", q, **facts) for name in ("dq", "dkv"))
    return len(plan.query_tiles(dq["BLOCK_M"], H // kv_heads)), len(plan.key_tiles(dkv["BLOCK_N"]).tiles)


def num_sums(q: Tensor, table: Tensor, kv_heads: int) -> int:
    """R, the rows of what `write_gradients` leaves as sums, for queries like q [T, H, D]."""
    return max(_num_tiles(q, table, kv_heads))


@operation("attention_backward")
def attention_backward(
    do: Tensor, q: Tensor, k: Tensor, v: Tensor, o: Tensor, lse: Tensor, table: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """(dq, dk, dv), contiguous, 0 for tokens outside every segment. Arguments as forward takes and returns them."""
    do, o = do.contiguous(), o.contiguous()
    q, k, v = (match_strides(x) for x in (q, k, v))
    empty = torch.empty if work_plan(table, q.device).num_covered == len(q) else torch.zeros
    dq, dk, dv = (empty(x.shape, dtype=x.dtype, device=x.device) for x in (q, k, v))
    write_gradients(do, q, k, v, o, lse, table, scale, (dq, dk, dv))
    return dq, dk, dv


@attention_backward.register_fake
def _(
    do: Tensor, q: Tensor, k: Tensor, v: Tensor, o: Tensor, lse: Tensor, table: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)
