"""Attention for one new token per sequence, reading a shared prefix once for all the sequences that stand together.

    o[n, h] = softmax_u(scale * q[n, h] . k[u]) v[u]   over the tokens u of n's prefix and n's own tokens so far

Letters:    N sequences being decoded; a cache of P prefixes of up to L tokens and one of S slots of up to C tokens;
            H query heads, K key-value heads, D head dim, g = H / K; T tiles of sequences.
Numerics:   loads in the input dtype; scores, weights, sums in float32, products with float32 accumulators; what the
            prefix gave is kept in float32. On CPU the definition in the input dtype; float64 in, float64 out.
Traffic:    prefix k and v once per tile of sequences; own k and v once; q and o once; between the two launches
            4 * H * (D + 1) bytes a sequence are written and read.
Source:     online softmax, Milakov and Gimelshein 2018, arXiv:1805.02867; two-level decoding of shared prefixes as in
            Hydragen, Juravsky et al. 2024, arXiv:2402.05099.

Where a sequence's keys are is data on the device: prefix_N names its prefix, slot_N its slot. So sequences start, end
and change places without any key being moved, and a captured step can be replayed.

The first launch attends to prefixes. A *tile* is a run of sequences with one prefix: their count * g query rows are
stacked, matrix products on tensor cores. The second goes on from there with each sequence's own tokens: a prefix result
(o, lse) is the state of an online softmax with maximum lse and denominator 1, so merging is going on. There is no
gradient: decoding is not trained through.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from .attention_backward import match_strides
from .attention_tiles import LOG2_E, at_token, check_head_dim, load_rows, padded_head_dim, store_rows
from .launch import configuration, launch
from .triton_support import cdiv, next_power_of_2, runs_triton, tl, triton

__all__ = ["SequenceTiles", "decode_attention", "decode_attention_ref", "sequences_per_tile", "tile_sequences"]

# lengths, and strides that contain them: they must not make a variant of a kernel for their value
_LAYOUT_ARGUMENTS = ("blocks", "q_stride_n", "q_stride_h", *(f"{x}_stride_{axis}" for x in "kv" for axis in "nphl"))


@dataclass(frozen=True, eq=False)
class SequenceTiles:
    """Which sequences read a prefix together.

    Args:
        table: int32 [T, 3] on the device: first sequence, number of sequences (0: nothing to do), prefix. Together
            the tiles hold every sequence once.
        most: sequences of a tile.
    """

    table: Tensor
    most: int


def sequences_per_tile(x: Tensor, heads: int, kv_heads: int, head_dim: int) -> int:
    """How many sequences of one prefix fill a tile of the kernel that runs on x."""
    facts = dict(head_dim=padded_head_dim(head_dim), itemsize=min(x.itemsize, 4))
    return max(1, configuration("decode_attention_prefix", x, **facts)["BLOCK_M"] // (heads // kv_heads))


def tile_sequences(prefix_N: np.ndarray, most: int) -> np.ndarray:
    """int32 [T, 3]: the table of `SequenceTiles`, in which neighbours of one prefix share tiles.

    At most ceil(N / most) + runs - 1 tiles, for so many runs of neighbours with one prefix.
    """
    begins = np.flatnonzero(np.diff(prefix_N, prepend=-1))
    counts = np.diff(begins, append=len(prefix_N))
    tiles = -(-counts // most)
    run = np.repeat(np.arange(len(begins)), tiles)
    at = most * (np.arange(len(run)) - np.repeat(np.cumsum(tiles) - tiles, tiles))  # first of the tile in its run
    first = begins[run] + at
    return np.stack([first, np.minimum(most, counts[run] - at), prefix_N[first]], axis=1).astype(np.int32)


def decode_attention(
    q_NHD: Tensor,
    prefix_k_PKLD: Tensor,
    prefix_v_PKLD: Tensor,
    own_k_SKCD: Tensor,
    own_v_SKCD: Tensor,
    *,
    prefix_N: Tensor,
    prefix_length_P: Tensor,
    slot_N: Tensor,
    own_length_N: Tensor,
    tiles: SequenceTiles | None = None,
    scale: float | None = None,
) -> Tensor:
    """Attention for one new token of each of N sequences, to its prefix and its own tokens so far.

    Runs Triton on CUDA (and under TRITON_INTERPRET=1), otherwise and for float64 the definition. No gradient.

    Args:
        q_NHD: queries.
        prefix_k_PKLD, prefix_v_PKLD: keys and values of the prefixes.
        own_k_SKCD, own_v_SKCD: keys and values of the slots, the new token's included.
        prefix_N, slot_N: integers on the device: the prefix and the slot of each sequence.
        prefix_length_P, own_length_N: integers on the device, own lengths at least 1: later tokens are not read.
        tiles: of the sequences; None makes them here from prefix_N, for which the host waits.
        scale: factor on the scores; default D ** -0.5.
    Returns:
        [N, H, D], the dtype of q.
    Raises:
        ValueError: shapes, dtypes or devices do not match.
    """
    _check(q_NHD, prefix_k_PKLD, prefix_v_PKLD, own_k_SKCD, own_v_SKCD)
    (N, H, D), (P, K) = q_NHD.shape, prefix_k_PKLD.shape[:2]
    for name, x, count in (
        ("prefix_N", prefix_N, N), ("slot_N", slot_N, N), ("prefix_length_P", prefix_length_P, P),
        ("own_length_N", own_length_N, N),
    ):  # fmt: skip
        if x.shape != (count,) or x.is_floating_point():
            raise ValueError(f"decode_attention: {name} must be integers [{count}], got {x.dtype} {tuple(x.shape)}")
    scale = D**-0.5 if scale is None else scale
    tensors = (q_NHD, prefix_k_PKLD, prefix_v_PKLD, own_k_SKCD, own_v_SKCD)
    where = (prefix_N, prefix_length_P, slot_N, own_length_N)
    if not runs_triton(q_NHD):
        return decode_attention_ref(*tensors, *where, scale)
    check_head_dim("decode_attention", D)
    if tiles is None:
        most = sequences_per_tile(q_NHD, H, K, D)
        tiles = SequenceTiles(torch.from_numpy(tile_sequences(prefix_N.cpu().numpy(), most)).to(q_NHD.device), most)
    return _decode_op(*tensors, tiles.table, tiles.most, *where[1:], scale)


def decode_attention_ref(
    q_NHD: Tensor,
    prefix_k_PKLD: Tensor,
    prefix_v_PKLD: Tensor,
    own_k_SKCD: Tensor,
    own_v_SKCD: Tensor,
    prefix_N: Tensor,
    prefix_length_P: Tensor,
    slot_N: Tensor,
    own_length_N: Tensor,
    scale: float,
) -> Tensor:
    """The definition: one softmax over the scores of prefix and own tokens side by side."""
    (N, H, D), K = q_NHD.shape, prefix_k_PKLD.shape[1]
    q = (q_NHD * scale).view(N, K, H // K, D)
    parts = (
        (prefix_k_PKLD[prefix_N], prefix_v_PKLD[prefix_N], prefix_length_P[prefix_N]),
        (own_k_SKCD[slot_N], own_v_SKCD[slot_N], own_length_N),
    )
    scores, values = [], []
    for k, v, length_N in parts:
        behind = torch.arange(k.shape[2], device=q.device) >= length_N[:, None]
        scores.append((q @ k.transpose(2, 3)).masked_fill_(behind[:, None, None], float("-inf")))
        # cleared: a weight of 0 would not make up for a NaN in unused memory
        values.append(v.masked_fill_(behind[:, None, :, None], 0.0))
    weights = torch.cat(scores, dim=-1).softmax(-1)
    of_prefix, of_own = weights.split([x.shape[-1] for x in scores], dim=-1)
    return (of_prefix @ values[0] + of_own @ values[1]).view(N, H, D)


def _check(q: Tensor, prefix_k: Tensor, prefix_v: Tensor, own_k: Tensor, own_v: Tensor) -> None:
    fits = q.ndim == 3 and prefix_k.ndim == 4 and own_k.ndim == 4
    fits = fits and prefix_k.shape == prefix_v.shape and own_k.shape == own_v.shape
    fits = fits and prefix_k.shape[1::2] == own_k.shape[1::2] and q.shape[2] == own_k.shape[3] and own_k.shape[2] > 0
    if not fits or q.shape[1] % own_k.shape[1] or len(prefix_k) == 0:
        shapes = ", ".join(str(tuple(x.shape)) for x in (q, prefix_k, prefix_v, own_k, own_v))
        raise ValueError(
            "decode_attention: need q [N, H, D], prefix k and v [P, K, L, D] and own k and v [S, K, C, D] with H a "
            f"multiple of K, P and C at least 1, got {shapes}"
        )
    if not q.is_floating_point() or any(x.dtype != q.dtype or x.device != q.device for x in (prefix_k, own_k, own_v)):
        raise ValueError(
            f"decode_attention: q, k and v need one floating dtype and device, got {q.dtype} on {q.device}, "
            f"{prefix_k.dtype} on {prefix_k.device} and {own_k.dtype} on {own_k.device}"
        )


@triton.jit
def _attend_to_block(q, k, v, acc, m, denominator, scale_log2, sees):
    """One step of the online softmax, in which a row may see nothing yet. m: running maximum of scale * q . k / log(2).

    sees: [1, keys]. A maximum of -inf is replaced by 0, which makes exp2(-inf - m) the 0 that it should be.
    """
    s = tl.dot(q, tl.trans(k), input_precision="ieee") * scale_log2
    s = tl.where(sees, s, -float("inf"))
    m_new = tl.maximum(m, tl.max(s, axis=1))
    m_finite = tl.where(m_new == -float("inf"), 0.0, m_new)
    p = tl.exp2(s - m_finite[:, None])
    shrink = tl.exp2(m - m_finite)
    denominator = denominator * shrink + tl.sum(p, axis=1)
    acc = tl.dot(p.to(v.dtype), v, acc * shrink[:, None], input_precision="ieee")
    return acc, m_new, denominator


@triton.jit(do_not_specialize=_LAYOUT_ARGUMENTS)
def _prefix_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    tiles_ptr,  # int32 [T, 3]: first sequence, number of sequences, prefix
    length_ptr,  # [P]
    partial_ptr,  # [N, H, D] float32
    lse_ptr,  # [N, H] float32, to base 2
    q_stride_n,  # strides in units of 8 elements
    q_stride_h,
    k_stride_p,
    k_stride_h,
    k_stride_l,
    v_stride_p,
    v_stride_h,
    v_stride_l,
    blocks,  # of BLOCK_M rows, in a full tile
    scale_log2,
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    # tiles of one prefix next to each other: the second finds its keys and values in the cache; all in the first
    # dimension of the grid, as the others end at 65,535
    tile = tl.program_id(0) // blocks
    kv = tl.program_id(1)
    first_sequence = tl.load(tiles_ptr + 3 * tile).to(tl.int64)
    num_rows = tl.load(tiles_ptr + 3 * tile + 1) * GROUP
    prefix = tl.load(tiles_ptr + 3 * tile + 2).to(tl.int64)
    first_row = tl.program_id(0) % blocks * BLOCK_M
    row = first_row + tl.arange(0, BLOCK_M)
    inside = row < num_rows
    sequence = first_sequence + row // GROUP
    head = kv * GROUP + row % GROUP
    q = load_rows(q_ptr, sequence * (q_stride_n * 8) + head * (q_stride_h * 8), inside, D, BLOCK_D)
    length = tl.load(length_ptr + prefix).to(tl.int32)
    length = tl.where(first_row < num_rows, length, 0)  # a program without rows has nothing to read
    m = tl.full([BLOCK_M], -float("inf"), tl.float32)
    denominator = tl.zeros([BLOCK_M], tl.float32)
    acc = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    k_at = at_token(k_ptr, prefix, kv, k_stride_p, k_stride_h)
    v_at = at_token(v_ptr, prefix, kv, v_stride_p, v_stride_h)
    for first in range(0, length, BLOCK_N):
        key = first + tl.arange(0, BLOCK_N)
        exists = key < length
        # what is not seen is not loaded either: a weight of 0 would not make up for a NaN in unused memory
        k = load_rows(k_at, key * (k_stride_l * 8), exists, D, BLOCK_D)
        v = load_rows(v_at, key * (v_stride_l * 8), exists, D, BLOCK_D)
        acc, m, denominator = _attend_to_block(q, k, v, acc, m, denominator, scale_log2, exists[None, :])
    # without a key: o = 0 and lse = -inf, which weighs nothing
    denominator = tl.where(denominator == 0.0, 1.0, denominator)
    at = sequence * tl.num_programs(1) * GROUP + head
    store_rows(partial_ptr, at * D, acc / denominator[:, None], inside, D, BLOCK_D)
    tl.store(lse_ptr + at, m + tl.log2(denominator), mask=inside)


@triton.jit(do_not_specialize=_LAYOUT_ARGUMENTS)
def _own_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    slot_ptr,  # [N]
    length_ptr,  # [N]
    partial_ptr,  # [N, H, D] float32
    lse_ptr,  # [N, H] float32, to base 2
    o_ptr,  # [N, H, D]
    q_stride_n,  # strides in units of 8 elements
    q_stride_h,
    k_stride_n,
    k_stride_h,
    k_stride_l,
    v_stride_n,
    v_stride_h,
    v_stride_l,
    scale_log2,
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    sequence = tl.program_id(0).to(tl.int64)
    slot = tl.load(slot_ptr + sequence).to(tl.int64)
    kv = tl.program_id(1)
    member = tl.arange(0, BLOCK_M)
    inside = member < GROUP
    head = kv * GROUP + member
    q_at = at_token(q_ptr, sequence, kv * GROUP, q_stride_n, q_stride_h)
    q = load_rows(q_at, member * (q_stride_h * 8), inside, D, BLOCK_D)
    # the prefix's result is the state to go on from: its lse as the maximum, with a denominator of 1
    at = sequence * tl.num_programs(1) * GROUP + head
    acc = load_rows(partial_ptr, at * D, inside, D, BLOCK_D)
    m = tl.load(lse_ptr + at, mask=inside, other=-float("inf"))
    denominator = tl.full([BLOCK_M], 1.0, tl.float32)
    length = tl.load(length_ptr + sequence).to(tl.int32)
    k_at = at_token(k_ptr, slot, kv, k_stride_n, k_stride_h)
    v_at = at_token(v_ptr, slot, kv, v_stride_n, v_stride_h)
    for first in range(0, length, BLOCK_N):
        key = first + tl.arange(0, BLOCK_N)
        exists = key < length
        k = load_rows(k_at, key * (k_stride_l * 8), exists, D, BLOCK_D)
        v = load_rows(v_at, key * (v_stride_l * 8), exists, D, BLOCK_D)
        acc, m, denominator = _attend_to_block(q, k, v, acc, m, denominator, scale_log2, exists[None, :])
    store_rows(o_ptr, at * D, acc / denominator[:, None], inside, D, BLOCK_D)


@torch.library.custom_op("fastreason::decode_attention", mutates_args=())
def _decode_op(
    q: Tensor,
    prefix_k: Tensor,
    prefix_v: Tensor,
    own_k: Tensor,
    own_v: Tensor,
    tiles: Tensor,
    most: int,
    prefix_length: Tensor,
    slot: Tensor,
    own_length: Tensor,
    scale: float,
) -> Tensor:
    q, prefix_k, prefix_v, own_k, own_v = (match_strides(x) for x in (q, prefix_k, prefix_v, own_k, own_v))
    (N, H, D), K = q.shape, prefix_k.shape[1]
    group, block_d = H // K, padded_head_dim(D)
    shape = dict(D=D, BLOCK_D=block_d, GROUP=group)

    def strides(*tensors: Tensor) -> list[int]:
        return [stride // 8 for x in tensors for stride in x.stride()[:-1]]

    def prefix(config: dict[str, int]) -> tuple[Tensor, Tensor]:
        partial = torch.empty(N, H, D, dtype=torch.float32, device=q.device)
        lse = torch.empty(N, H, dtype=torch.float32, device=q.device)
        blocks = cdiv(most * group, config["BLOCK_M"])
        _prefix_kernel[(len(tiles) * blocks, K)](
            q, prefix_k, prefix_v, tiles, prefix_length, partial, lse, *strides(q, prefix_k, prefix_v), blocks,
            scale * LOG2_E, **shape, **config,
        )  # fmt: skip
        return partial, lse

    partial, lse = launch("decode_attention_prefix", q, prefix, head_dim=block_d, itemsize=q.itemsize)

    def own(config: dict[str, int]) -> Tensor:
        o = torch.empty(N, H, D, dtype=q.dtype, device=q.device)
        _own_kernel[(N, K)](
            q, own_k, own_v, slot, own_length, partial, lse, o, *strides(q, own_k, own_v), scale * LOG2_E,
            BLOCK_M=max(16, next_power_of_2(group)), **shape, **config,
        )  # fmt: skip
        return o

    return launch("decode_attention_own", q, own, head_dim=block_d, itemsize=q.itemsize)


@_decode_op.register_fake
def _(
    q: Tensor,
    prefix_k: Tensor,
    prefix_v: Tensor,
    own_k: Tensor,
    own_v: Tensor,
    tiles: Tensor,
    most: int,
    prefix_length: Tensor,
    slot: Tensor,
    own_length: Tensor,
    scale: float,
) -> Tensor:
    return q.new_empty(q.shape)


def _no_gradient(ctx: Any, grad: Tensor) -> NoReturn:
    raise NotImplementedError("decode_attention has no gradient; train through attention(), decode under no_grad()")


_decode_op.register_autograd(_no_gradient)
