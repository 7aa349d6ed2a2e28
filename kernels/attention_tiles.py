"""How attention cuts a batch: on the host into tiles, one a program; in a kernel into blocks of keys.

A *query tile* is BLOCK_M rows of one segment, row r being query head r % GROUP of a KV head at token r // GROUP: the
GROUP query heads of a KV head share every key they load. A *key tile* is BLOCK_N keys of one segment. Tiles are cut
from the first token of their segment on, so what a segment gets depends on it and its prefix alone.

    query tile: start of its segment, first row, length; start and length of the prefix (0 without one)
    key tile:   start of its segment, first key, length; first and one behind the last of its viewers
    viewer:     start and length of a segment whose prefix the key tile belongs to, in the order of the batch

The lists are made once for a batch and a device; `attention.send` copies them there with the batch. Tiles of a segment,
and segments of a prefix, stand together, because programs that run at the same time then find each other's keys and
rows in the cache (bench/kernels/l2_cache.py counts it); the groups with the longest tile come first, so that the last
programs to start are short.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from .triton_support import next_power_of_2, tl, triton

__all__ = ["LAYOUT_ARGUMENTS", "LOG2_E", "MAX_HEAD_DIM", "KeyTiles", "WorkPlan", "check_head_dim"]
__all__ += ["padded_head_dim", "work_plan"]

MAX_HEAD_DIM = 128  # a row of q, k and v each in the registers and shared memory of one program
LOG2_E = 1.4426950408889634  # kernels use 2 ** x, for which there is an instruction
# of the kernels over segments: arguments that must not make a variant of the kernel for their value
LAYOUT_ARGUMENTS = ("T", "q_stride_t", "q_stride_h", "k_stride_t", "k_stride_h", "v_stride_t", "v_stride_h")


@dataclass(frozen=True, eq=False)
class KeyTiles:
    """int32 on the device: tiles [N, 5] and viewers [C, 2], columns as above; C at least 1."""

    tiles: Tensor
    viewers: Tensor


@dataclass(frozen=True, eq=False)
class WorkPlan:
    """The tiles of one batch on one device; each list is made on first use, unless it was put there before.

    Args:
        table: int64 [3, S]: `Segments.table`, as numpy.
        num_covered: tokens that belong to a segment.
    """

    table: np.ndarray
    device: torch.device
    num_covered: int
    _lists: dict[tuple[str, int, int], Tensor] = field(default_factory=dict)

    def query_tiles(self, block_m: int, group: int) -> Tensor:
        """int32 [N, 5]: tiles of block_m rows, `group` rows a token."""
        if ("queries", block_m, group) not in self._lists:
            self.put({key: x.to(self.device) for key, x in self.cut([(block_m, group)], []).items()})
        return self._lists["queries", block_m, group]

    def key_tiles(self, block_n: int) -> KeyTiles:
        """Tiles of block_n keys."""
        if ("keys", block_n, 1) not in self._lists:
            self.put({key: x.to(self.device) for key, x in self.cut([], [block_n]).items()})
        return KeyTiles(self._lists["keys", block_n, 1], self._lists["viewers", block_n, 1])

    def cut(self, queries: Iterable[tuple[int, int]], keys: Iterable[int]) -> dict[tuple[str, int, int], Tensor]:
        """Lists on CPU, to be handed to `put` where they have been copied to the device.

        Args:
            queries: (block_m, group) of query tiles.
            keys: block_n of key tiles.
        """
        lists = {("queries", *sizes): _cut_queries(self.table, *sizes) for sizes in queries}
        for block_n in keys:
            lists["keys", block_n, 1], lists["viewers", block_n, 1] = _cut_keys(self.table, block_n)
        return {key: torch.from_numpy(x) for key, x in lists.items()}

    def put(self, lists: Mapping[tuple[str, int, int], Tensor]) -> None:
        self._lists.update(lists)


# An operation is handed the table and not the Segments that made it, so its plans hang on the table.
_plans: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def work_plan(table: Tensor, device: torch.device) -> WorkPlan:
    """The plan of a batch, made on the first call with this table and device."""
    of_table: dict[torch.device, WorkPlan] = _plans.setdefault(table, {})
    if device not in of_table:
        values = table.numpy().copy()
        of_table[device] = WorkPlan(values, device, int(values[1].sum()))
    return of_table[device]


def check_head_dim(name: str, D: int) -> None:
    if D % 8 or not 0 < D <= MAX_HEAD_DIM:
        raise ValueError(f"{name}: head dim must be a multiple of 8 up to {MAX_HEAD_DIM}, got {D}")


def padded_head_dim(D: int) -> int:
    """The head dim of tiles: a power of two that matrix products take."""
    return max(16, next_power_of_2(D))


def _cut_queries(table: np.ndarray, block_m: int, group: int) -> np.ndarray:
    start, length, prefix = table
    segment, first_row = _pieces(length * group, block_m)
    has_prefix = prefix >= 0
    prefix_start = np.where(has_prefix, start[prefix], 0)
    prefix_length = np.where(has_prefix, length[prefix], 0)
    keys = prefix_length[segment] + np.minimum(length[segment], (first_row + block_m) // group)
    columns = (start[segment], first_row, length[segment], prefix_start[segment], prefix_length[segment])
    return _in_order(columns, segment, prefix, keys)


def _cut_keys(table: np.ndarray, block_n: int) -> tuple[np.ndarray, np.ndarray]:
    start, length, prefix = table
    segment, first_key = _pieces(length, block_n)
    viewer = np.argsort(prefix, kind="stable")
    viewer = viewer[prefix[viewer] >= 0]
    border = np.searchsorted(prefix[viewer], np.arange(len(start) + 1))
    seen_by = np.concatenate([[0], np.cumsum(length[viewer])])
    queries = length[segment] - first_key + (seen_by[border[1:]] - seen_by[border[:-1]])[segment]
    columns = (start[segment], first_key, length[segment], border[segment], border[segment + 1])
    viewers = np.stack([start[viewer], length[viewer]], axis=1).astype(np.int32)
    # never empty, because an empty tensor has no address to hand to a kernel
    return _in_order(columns, segment, prefix, queries), viewers if len(viewers) else np.zeros((1, 2), np.int32)


def _pieces(size: np.ndarray, block: int) -> tuple[np.ndarray, np.ndarray]:
    """Divides every size into blocks: for each block the index of its size, and its offset within it."""
    count = -(-size // block)
    owner = np.repeat(np.arange(len(size)), count)
    return owner, (np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)) * block


def _in_order(columns: tuple[np.ndarray, ...], segment: np.ndarray, prefix: np.ndarray, work: np.ndarray) -> np.ndarray:
    """The tiles, one a line: by group, the one with the longest tile first, in it by segment, longest first."""
    group = np.where(prefix[segment] >= 0, prefix[segment], segment)
    longest = np.zeros(len(prefix), np.int64)
    np.maximum.at(longest, group, work)
    order = np.lexsort((-work, segment, group, -longest[group]))
    return np.ascontiguousarray(np.stack(columns, axis=1)[order].astype(np.int32))


@triton.jit
def load_rows(ptr, offsets, inside, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """[rows, BLOCK_D], zeros for rows that are not inside and columns from D on."""
    d = tl.arange(0, BLOCK_D)
    mask = inside[:, None] if D == BLOCK_D else inside[:, None] & (d < D)[None, :]
    return tl.load(ptr + (offsets[:, None] + d[None, :]), mask=mask, other=0.0)


@triton.jit
def load_full_rows(ptr, offsets, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """[rows, BLOCK_D], all rows inside."""
    d = tl.arange(0, BLOCK_D)
    if D == BLOCK_D:
        return tl.load(ptr + (offsets[:, None] + d[None, :]))
    return tl.load(ptr + (offsets[:, None] + d[None, :]), mask=(d < D)[None, :], other=0.0)


@triton.jit
def store_rows(ptr, offsets, x, inside, D: tl.constexpr, BLOCK_D: tl.constexpr):
    d = tl.arange(0, BLOCK_D)
    mask = inside[:, None] if D == BLOCK_D else inside[:, None] & (d < D)[None, :]
    tl.store(ptr + (offsets[:, None] + d[None, :]), x.to(ptr.dtype.element_ty), mask=mask)


@triton.jit
def load_tile(tiles_ptr):
    """The five numbers of this program's tile."""
    tile = tiles_ptr + tl.program_id(0) * 5
    return tl.load(tile), tl.load(tile + 1), tl.load(tile + 2), tl.load(tile + 3), tl.load(tile + 4)


@triton.jit
def at_token(ptr, token, head, stride_t, stride_h):
    """The address of one head of one token. Strides come in units of 8 elements, which tells the compiler that rows are
    aligned for 128-bit accesses at every head dim, without a variant of the kernel for every stride. Token numbers are
    int32, addresses int64: T * H * D passes 2**31 at 2.8 M tokens of width 768. Within a tile, offsets are int32."""
    return ptr + (token.to(tl.int64) * (stride_t * 8) + head * (stride_h * 8))


@triton.jit
def count_key_blocks(
    first_row, length, prefix_length, GROUP: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr
):
    """What a query tile sees, in blocks of keys in the order of the walk: (full ones of the prefix, full ones, edges).

    Full blocks are seen whole by every row: those of the prefix, then those of the segment itself. Edges need a mask:
    the rest of the prefix (0 or 1), then the blocks of the segment that some row sees in part.
    """
    full_prefix = prefix_length // BLOCK_N
    full_own = (first_row // GROUP + 1) // BLOCK_N
    end = tl.minimum(length, (first_row + BLOCK_M - 1) // GROUP + 1)
    edges = (prefix_length - full_prefix * BLOCK_N + BLOCK_N - 1) // BLOCK_N
    edges += (end - full_own * BLOCK_N + BLOCK_N - 1) // BLOCK_N
    return full_prefix, full_prefix + full_own, edges


@triton.jit
def full_key_block(block, start, prefix_start, full_prefix, BLOCK_N: tl.constexpr):
    """The first token of full block number `block`."""
    return tl.where(block < full_prefix, prefix_start + block * BLOCK_N, start + (block - full_prefix) * BLOCK_N)


@triton.jit
def edge_key_block(
    edge, start, length, prefix_start, prefix_length, position, full_prefix, full, BLOCK_N: tl.constexpr
):
    """Of edge number `edge`: (first token, [BLOCK_N] which keys exist, [rows, BLOCK_N] which of them a row sees)."""
    own = edge - (prefix_length - full_prefix * BLOCK_N + BLOCK_N - 1) // BLOCK_N
    is_own = own >= 0
    first = tl.where(is_own, (full - full_prefix + own) * BLOCK_N, full_prefix * BLOCK_N)
    key = first + tl.arange(0, BLOCK_N)
    exists = key < tl.where(is_own, length, prefix_length)
    sees = key[None, :] <= tl.where(is_own, position, prefix_length - 1)[:, None]
    return tl.where(is_own, start, prefix_start) + first, exists, sees
