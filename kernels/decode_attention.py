"""Attention for one new token per sequence, reading a group's shared prefix once for all its members.

    o[n, h] = softmax_u(scale * q[n, h] . k[u]) v[u]   over the tokens u of n's prefix and n's own tokens so far

Letters:    P prefixes of up to L tokens, G sequences of each, N = P * G; H query heads, K key-value heads, D head dim,
            g = H / K.
Numerics:   loads in the input dtype; scores, weights, sums in float32, products with float32 accumulators; what the
            prefix gave is kept in float32. On CPU the definition in the input dtype; float64 in, float64 out.
Traffic:    prefix k and v once per query tile of a group, which is once for G * g <= BLOCK_M; own k and v once; q and o
            once; between the two launches 4 * H * (D + 1) bytes a sequence are written and read.
Source:     online softmax, Milakov and Gimelshein 2018, arXiv:1805.02867; two-level decoding of shared prefixes as in
            Hydragen, Juravsky et al. 2024, arXiv:2402.05099.

The first launch attends to prefixes: the G * g query rows that share one are stacked in tiles, matrix products on
tensor cores. The second goes on from there with each sequence's own tokens: a prefix result (o, lse) is the state of an
online softmax with maximum lse and denominator 1, so merging is going on. There is no gradient: decoding is not trained
through.
"""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch import Tensor

from .attention_backward import match_strides
from .attention_tiles import LOG2_E, at_token, check_head_dim, load_rows, padded_head_dim, store_rows
from .launch import launch
from .triton_support import runs_triton, tl, triton

__all__ = ["decode_attention", "decode_attention_ref"]

# lengths, and strides that contain them: they must not make a variant of a kernel for their value
_LAYOUT_ARGUMENTS = (
    *("num_rows", "max_length", "q_stride_n", "q_stride_h"),
    *(f"{x}_stride_{axis}" for x in "kv" for axis in "nphl"),
)


def decode_attention(
    q_NHD: Tensor,
    prefix_k_PKLD: Tensor,
    prefix_v_PKLD: Tensor,
    prefix_padding_PL: Tensor | None,
    own_k_NKLD: Tensor,
    own_v_NKLD: Tensor,
    *,
    prefix_length_P: Tensor | None = None,
    own_length_N: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """Attention for one new token of each of N = P * G sequences, to its group's prefix and its own tokens so far.

    Runs Triton on CUDA (and under TRITON_INTERPRET=1), otherwise and for float64 the definition. No gradient.

    Args:
        q_NHD: queries; the G sequences of a prefix are adjacent.
        prefix_k_PKLD, prefix_v_PKLD: keys and values of the prefixes, read once for all members of a group.
        prefix_padding_PL: bool, True where a prefix has no token; None without padding, or if lengths are given.
        own_k_NKLD, own_v_NKLD: keys and values of each sequence, including its new token; views of a longer cache are
            read in place.
        prefix_length_P, own_length_N: integers on the device, own lengths at least 1: later tokens are not read. None:
            all tokens. A captured step can be replayed while the lengths on the device grow.
        scale: factor on the scores; default D ** -0.5.
    Returns:
        [N, H, D], the dtype of q.
    Raises:
        ValueError: shapes, dtypes or devices do not match.
    """
    _check(q_NHD, prefix_k_PKLD, prefix_v_PKLD, own_k_NKLD, own_v_NKLD)
    _check_lengths(q_NHD, prefix_k_PKLD, prefix_padding_PL, prefix_length_P, own_length_N)
    scale = q_NHD.shape[-1] ** -0.5 if scale is None else scale
    tensors = (q_NHD, prefix_k_PKLD, prefix_v_PKLD, prefix_padding_PL, own_k_NKLD, own_v_NKLD)
    lengths = (prefix_length_P, own_length_N)
    if not runs_triton(q_NHD):
        return decode_attention_ref(*tensors, *lengths, scale)
    check_head_dim("decode_attention", q_NHD.shape[-1])
    return _decode_op(*tensors, *lengths, scale)


def decode_attention_ref(
    q_NHD: Tensor,
    prefix_k_PKLD: Tensor,
    prefix_v_PKLD: Tensor,
    prefix_padding_PL: Tensor | None,
    own_k_NKLD: Tensor,
    own_v_NKLD: Tensor,
    prefix_length_P: Tensor | None,
    own_length_N: Tensor | None,
    scale: float,
) -> Tensor:
    """The definition: one softmax over the scores of prefix and own tokens side by side."""
    N, H, D = q_NHD.shape
    P, K, L = prefix_k_PKLD.shape[:3]
    q = (q_NHD * scale).view(N, K, H // K, D)
    # [P, K, G * g, D]: all queries of a group against its prefix in one matrix product
    rows = N // P * (H // K)
    grouped = q.view(P, N // P, K, H // K, D).transpose(1, 2).reshape(P, K, rows, D)
    scores_prefix = grouped @ prefix_k_PKLD.transpose(2, 3)
    if prefix_padding_PL is not None:
        scores_prefix = scores_prefix.masked_fill_(prefix_padding_PL[:, None, None], float("-inf"))
    # values that are not seen are cleared: a weight of 0 would not make up for a NaN in unused memory
    if prefix_length_P is not None:
        behind = torch.arange(L, device=q.device) >= prefix_length_P[:, None]
        scores_prefix = scores_prefix.masked_fill_(behind[:, None, None], float("-inf"))
        prefix_v_PKLD = prefix_v_PKLD.masked_fill(behind[:, None, :, None], 0.0)
    scores_own = q @ own_k_NKLD.transpose(2, 3)
    if own_length_N is not None:
        behind = torch.arange(own_k_NKLD.shape[2], device=q.device) >= own_length_N[:, None]
        scores_own = scores_own.masked_fill_(behind[:, None, None], float("-inf"))
        own_v_NKLD = own_v_NKLD.masked_fill(behind[:, None, :, None], 0.0)
    scores_prefix = scores_prefix.view(P, K, N // P, H // K, L).transpose(1, 2).reshape(N, K, H // K, L)
    weights = torch.cat([scores_prefix, scores_own], dim=-1).softmax(-1)
    weights_prefix = weights[..., :L].view(P, N // P, K, H // K, L).transpose(1, 2).reshape(P, K, rows, L)
    o = weights[..., L:] @ own_v_NKLD
    o_prefix = (weights_prefix @ prefix_v_PKLD).view(P, K, N // P, H // K, D).transpose(1, 2)
    return (o + o_prefix.reshape(N, K, H // K, D)).view(N, H, D)


def _check(q: Tensor, prefix_k: Tensor, prefix_v: Tensor, own_k: Tensor, own_v: Tensor) -> None:
    fits = q.ndim == 3 and prefix_k.ndim == 4 and own_k.ndim == 4 and len(own_k) == len(q)
    fits = fits and prefix_k.shape == prefix_v.shape and own_k.shape == own_v.shape
    fits = fits and prefix_k.shape[1::2] == own_k.shape[1::2] and q.shape[2] == own_k.shape[3] and own_k.shape[2] > 0
    if not fits or q.shape[1] % own_k.shape[1] or len(prefix_k) == 0 or len(q) % len(prefix_k):
        shapes = ", ".join(str(tuple(x.shape)) for x in (q, prefix_k, prefix_v, own_k, own_v))
        raise ValueError(
            "decode_attention: need q [N, H, D], prefix k and v [P, K, L, D] and own k and v [N, K, L', D] with N a "
            f"multiple of P, H a multiple of K and L' at least 1, got {shapes}"
        )
    if not q.is_floating_point() or any(x.dtype != q.dtype or x.device != q.device for x in (prefix_k, own_k, own_v)):
        raise ValueError(
            f"decode_attention: q, k and v need one floating dtype and device, got {q.dtype} on {q.device}, "
            f"{prefix_k.dtype} on {prefix_k.device} and {own_k.dtype} on {own_k.device}"
        )


def _check_lengths(
    q: Tensor, prefix_k: Tensor, padding: Tensor | None, prefix_length: Tensor | None, own_length: Tensor | None
) -> None:
    if padding is not None and (padding.dtype != torch.bool or padding.shape != prefix_k.shape[::2]):
        raise ValueError(
            f"decode_attention: prefix_padding must be bool {list(prefix_k.shape[::2])}, "
            f"got {padding.dtype} {tuple(padding.shape)}"
        )
    for name, length, count in (("prefix_length", prefix_length, len(prefix_k)), ("own_length", own_length, len(q))):
        if length is not None and (length.shape != (count,) or length.is_floating_point()):
            raise ValueError(
                f"decode_attention: {name} must be integers [{count}], got {length.dtype} {tuple(length.shape)}"
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
    padding_ptr,  # uint8 [P, max_length], read if HAS_PADDING
    length_ptr,  # [P], read if HAS_LENGTH
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
    num_rows,  # G * GROUP
    max_length,
    scale_log2,
    HAS_PADDING: tl.constexpr,
    HAS_LENGTH: tl.constexpr,
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    # tiles of one prefix next to each other: the second finds its keys and values in the cache; all in the first
    # dimension of the grid, as the others end at 65,535
    tiles = (num_rows + BLOCK_M - 1) // BLOCK_M
    prefix = (tl.program_id(0) // tiles).to(tl.int64)
    kv = tl.program_id(1)
    row = tl.program_id(0) % tiles * BLOCK_M + tl.arange(0, BLOCK_M)
    inside = row < num_rows
    sequence = prefix * (num_rows // GROUP) + row // GROUP
    head = kv * GROUP + row % GROUP
    q = load_rows(q_ptr, sequence * (q_stride_n * 8) + head * (q_stride_h * 8), inside, D, BLOCK_D)
    length = tl.load(length_ptr + prefix).to(tl.int32) if HAS_LENGTH else max_length
    m = tl.full([BLOCK_M], -float("inf"), tl.float32)
    denominator = tl.zeros([BLOCK_M], tl.float32)
    acc = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    k_at = at_token(k_ptr, prefix, kv, k_stride_p, k_stride_h)
    v_at = at_token(v_ptr, prefix, kv, v_stride_p, v_stride_h)
    for first in range(0, length, BLOCK_N):
        key = first + tl.arange(0, BLOCK_N)
        exists = key < length
        sees = exists
        if HAS_PADDING:
            sees = exists & (tl.load(padding_ptr + prefix * max_length + key, mask=exists, other=1) == 0)
        # what is not seen is not loaded either: a weight of 0 would not make up for a NaN in unused memory
        k = load_rows(k_at, key * (k_stride_l * 8), sees, D, BLOCK_D)
        v = load_rows(v_at, key * (v_stride_l * 8), sees, D, BLOCK_D)
        acc, m, denominator = _attend_to_block(q, k, v, acc, m, denominator, scale_log2, sees[None, :])
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
    length_ptr,  # [N], read if HAS_LENGTH
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
    max_length,
    scale_log2,
    HAS_LENGTH: tl.constexpr,
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    sequence = tl.program_id(0).to(tl.int64)
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
    length = tl.load(length_ptr + sequence).to(tl.int32) if HAS_LENGTH else max_length
    k_at = at_token(k_ptr, sequence, kv, k_stride_n, k_stride_h)
    v_at = at_token(v_ptr, sequence, kv, v_stride_n, v_stride_h)
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
    prefix_padding: Tensor | None,
    own_k: Tensor,
    own_v: Tensor,
    prefix_length: Tensor | None,
    own_length: Tensor | None,
    scale: float,
) -> Tensor:
    q, prefix_k, prefix_v, own_k, own_v = (match_strides(x) for x in (q, prefix_k, prefix_v, own_k, own_v))
    (N, H, D), (P, K, L, _) = q.shape, prefix_k.shape
    num_rows, block_d = N // P * (H // K), padded_head_dim(D)
    padding = None if prefix_padding is None else prefix_padding.contiguous().view(torch.uint8)
    shape = dict(D=D, BLOCK_D=block_d, GROUP=H // K)

    def strides(*tensors: Tensor) -> list[int]:
        return [stride // 8 for x in tensors for stride in x.stride()[:-1]]

    def prefix(config: dict[str, int]) -> tuple[Tensor, Tensor]:
        partial = torch.empty(N, H, D, dtype=torch.float32, device=q.device)
        lse = torch.empty(N, H, dtype=torch.float32, device=q.device)
        _prefix_kernel[(triton.cdiv(num_rows, config["BLOCK_M"]) * P, K)](
            q, prefix_k, prefix_v, padding, prefix_length, partial, lse, *strides(q, prefix_k, prefix_v), num_rows, L,
            scale * LOG2_E, padding is not None, prefix_length is not None, **shape, **config,
        )  # fmt: skip
        return partial, lse

    partial, lse = launch("decode_attention_prefix", q, prefix, head_dim=block_d, itemsize=q.itemsize)

    def own(config: dict[str, int]) -> Tensor:
        o = torch.empty(N, H, D, dtype=q.dtype, device=q.device)
        _own_kernel[(N, K)](
            q, own_k, own_v, own_length, partial, lse, o, *strides(q, own_k, own_v), own_k.shape[2], scale * LOG2_E,
            own_length is not None, BLOCK_M=max(16, triton.next_power_of_2(H // K)), **shape, **config,
        )  # fmt: skip
        return o

    return launch("decode_attention_own", q, own, head_dim=block_d, itemsize=q.itemsize)


@_decode_op.register_fake
def _(
    q: Tensor,
    prefix_k: Tensor,
    prefix_v: Tensor,
    prefix_padding: Tensor | None,
    own_k: Tensor,
    own_v: Tensor,
    prefix_length: Tensor | None,
    own_length: Tensor | None,
    scale: float,
) -> Tensor:
    return q.new_empty(q.shape)


def _no_gradient(ctx: Any, grad: Tensor) -> NoReturn:
    raise NotImplementedError("decode_attention has no gradient; train through attention(), decode under no_grad()")


_decode_op.register_autograd(_no_gradient)
