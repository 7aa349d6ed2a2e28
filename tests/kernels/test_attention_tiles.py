"""How kernels cut a batch: every row and every key once, what each tile sees, and in which order."""

import gc
import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fastreason.kernels import Segments, attention, decode_attention
from fastreason.kernels import attention_tiles as plans
from fastreason.kernels.triton_support import INTERPRETED

GROUPS = st.lists(
    st.tuples(st.integers(1, 40), st.lists(st.integers(1, 50), max_size=4), st.integers(0, 3)), min_size=1, max_size=5
)


def batch(groups):
    """Prompts, their responses and padding before each prompt."""
    start, length, prefix, at = [], [], [], 0
    for prompt, responses, padding in groups:
        first, at = len(start), at + padding
        for size in (prompt, *responses):
            start.append(at)
            length.append(size)
            prefix.append(-1 if len(start) - 1 == first else first)
            at += size
    return Segments(*(torch.tensor(x) for x in (start, length, prefix)), at)


def _runs(values, names):
    pairs = itertools.groupby(zip(values, names, strict=True), lambda pair: pair[1])
    return [[value for value, _ in run] for _, run in pairs]


def check_order(segments, tiles, work):
    """Groups stand together, the one with the longest tile first; in them segments, the longest tile first."""
    index = {start: s for s, start in enumerate(segments.start.tolist())}
    owners = [index[tile[0]] for tile in tiles]
    roots = [int(segments.prefix[s]) if segments.prefix[s] >= 0 else s for s in owners]
    for names in (owners, roots):
        runs = [name for name, _ in itertools.groupby(names)]
        assert len(runs) == len(set(runs))
    longest = [max(of_group) for of_group in _runs(work, roots)]
    assert longest == sorted(longest, reverse=True)
    assert all(of_segment == sorted(of_segment, reverse=True) for of_segment in _runs(work, owners))


@given(GROUPS, st.sampled_from([16, 64]), st.sampled_from([1, 5, 6]))
def test_query_tiles_hold_every_row_once_and_know_its_prefix(groups, block_m, group):
    segments = batch(groups)
    plan = plans.work_plan(segments.table, torch.device("cpu"))
    index = {start: s for s, start in enumerate(segments.start.tolist())}
    rows, keys = [], []
    for start, first_row, length, prefix_start, prefix_length in plan.query_tiles(block_m, group).tolist():
        prefix = int(segments.prefix[index[start]])
        assert length == segments.length[index[start]]
        assert prefix_length == (segments.length[prefix] if prefix >= 0 else 0)
        assert prefix < 0 or prefix_start == segments.start[prefix]
        end = min(first_row + block_m, length * group)
        assert first_row % block_m == 0 and first_row < end
        rows += range(start * group + first_row, start * group + end)
        keys.append(prefix_length + min(length, (first_row + block_m) // group))
    tokens = [
        t for s, n in zip(segments.start.tolist(), segments.length.tolist(), strict=True) for t in range(s, s + n)
    ]
    assert sorted(rows) == [t * group + h for t in tokens for h in range(group)]
    check_order(segments, plan.query_tiles(block_m, group).tolist(), keys)
    assert plan.num_covered == len(tokens)


@given(GROUPS, st.sampled_from([16, 64]))
def test_key_tiles_hold_every_key_once_and_know_their_viewers(groups, block_n):
    segments = batch(groups)
    found = plans.work_plan(segments.table, torch.device("cpu")).key_tiles(block_n)
    index = {start: s for s, start in enumerate(segments.start.tolist())}
    keys, queries = [], []
    for start, first_key, length, first, last in found.tiles.tolist():
        s = index[start]
        assert length == segments.length[s]
        keys += range(start + first_key, start + min(first_key + block_n, length))
        want = [
            [int(segments.start[r]), int(segments.length[r])] for r in torch.nonzero(segments.prefix == s).flatten()
        ]
        assert found.viewers[first:last].tolist() == want
        queries.append(length - first_key + sum(size for _, size in want))
    tokens = [
        t for s, n in zip(segments.start.tolist(), segments.length.tolist(), strict=True) for t in range(s, s + n)
    ]
    assert sorted(keys) == tokens
    check_order(segments, found.tiles.tolist(), queries)


def test_plans_are_kept_as_long_as_their_segments():
    segments = Segments.from_lengths([5, 3])
    cpu = torch.device("cpu")
    plan = plans.work_plan(segments.table, cpu)
    assert plans.work_plan(segments.table, cpu) is plan
    assert plan.query_tiles(16, 2) is plan.query_tiles(16, 2)
    assert plan.key_tiles(16).viewers is plan.key_tiles(16).viewers
    kept = len(plans._plans)
    del segments, plan
    gc.collect()
    assert len(plans._plans) < kept


@pytest.mark.skipif(INTERPRETED, reason="what the interpreter decorates cannot be compiled")
def test_no_batch_compiles_a_kernel_again():
    """Every length, number of tokens and cache size runs what was compiled first; Triton likes 1 and 16 apart."""
    pytest.importorskip("triton")
    from bench.kernels.compile_without_gpu import recorded

    H, K, D = 2, 1, 16

    def some(*shape):
        return torch.zeros(shape, dtype=torch.bfloat16)

    with recorded(90) as launches:
        for lengths in ([1], [15], [16, 16], [3, 30]):
            layouts = [Segments.from_lengths(lengths), Segments.from_groups([lengths[0]], torch.tensor([lengths]))]
            for segments in layouts:
                q, k, v = (some(segments.num_tokens, n, D).requires_grad_() for n in (H, K, K))
                attention(q, k, v, segments, scale=1.0 / len(lengths)).sum().backward()
        for L, own, samples in ((1, 1, 1), (16, 16, 2), (33, 5, 3)):
            prefix, cache = some(1, K, L, D), some(samples + 1, K, own, D)
            zeros, lengths = torch.zeros(samples, dtype=torch.int64), torch.full((samples,), own)
            decode_attention(
                some(samples, H, D), prefix, prefix, cache, cache, prefix_N=zeros, prefix_length_P=torch.tensor([L]),
                slot_N=zeros, own_length_N=lengths,
            )  # fmt: skip
    codes = {}
    for launch in launches:
        codes.setdefault(launch.name, set()).add(id(launch.asm))
    assert len(launches) == 8 * 3 + 3 * 2
    assert len(codes) == 5
    assert all(len(code) == 1 for code in codes.values()), {name: len(code) for name, code in codes.items()}
