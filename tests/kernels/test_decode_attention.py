"""Decoding against its formula sequence by sequence, against attention, and what must not change a bit."""

import numpy as np
import pytest
import torch

from fastreason.kernels import Segments, attention, decode_attention
from fastreason.kernels.decode_attention import SequenceTiles, tile_sequences

from .conftest import needs_triton
from .numerics import check_op, relative


def by_sequence(q, prefix_k, prefix_v, own_k, own_v, where, scale=None):
    """The formula: one softmax for every sequence and head, over keys put in a row, in the dtype of q."""
    (N, H, D), K = q.shape, prefix_k.shape[1]
    rows = []
    for n, h in ((n, h) for n in range(N) for h in range(H)):
        p, slot, kv = int(where["prefix_N"][n]), int(where["slot_N"][n]), h // (H // K)
        seen = slice(int(where["prefix_length_P"][p])), slice(int(where["own_length_N"][n]))
        k = torch.cat([prefix_k[p, kv, seen[0]], own_k[slot, kv, seen[1]]])
        v = torch.cat([prefix_v[p, kv, seen[0]], own_v[slot, kv, seen[1]]])
        weights = ((k @ q[n, h]) * (D**-0.5 if scale is None else scale)).softmax(-1)
        rows.append(weights @ v)
    return torch.stack(rows).view(N, H, D)


def data(P, G, H, K, D, L, own, dtype, device, seed=0):
    """P * G sequences in as many slots."""
    g = torch.Generator().manual_seed(seed)
    shapes = [(P * G, H, D), (P, K, L, D), (P, K, L, D), (P * G, K, own, D), (P * G, K, own, D)]
    return [torch.randn(shape, generator=g, dtype=dtype).to(device) for shape in shapes]


def together(P, G, L, own, device="cpu"):
    """G sequences of each prefix next to each other, each in the slot of its number, everything full."""
    lengths = torch.full((P,), L, device=device), torch.full((P * G,), own, device=device)
    N = torch.arange(P * G, device=device)
    return dict(prefix_N=N // G, slot_N=N, prefix_length_P=lengths[0], own_length_N=lengths[1])


def check(ours, definition, dtype):
    """`definition` is called with a dtype. The rules of numerics.check_errors, without gradients."""
    truth = definition(torch.float64)
    if dtype == torch.float64:
        torch.testing.assert_close(ours, truth, atol=1e-12, rtol=1e-12)
    elif dtype == torch.float32:
        assert relative(ours, truth) <= 1e-6
    else:
        assert relative(ours, truth) <= 2 * relative(definition(dtype), truth) + 2 * torch.finfo(dtype).eps
    assert ours.dtype == dtype


# (P, G, H, K, D): groups of 1 and of 6 and one of more rows than a tile, 6 and 1 query heads a KV head, every head dim
SHAPES = [(2, 1, 6, 1, 64), (2, 6, 12, 2, 72), (1, 25, 6, 1, 16), (3, 2, 2, 2, 128), (1, 3, 3, 1, 32)]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("L, own", [(1, 1), (70, 17), (0, 3)])
def test_is_its_formula(shape, L, own, dtype, device):
    tensors, where = data(*shape, L, own, dtype, device), together(*shape[:2], L, own, device)

    def definition(dtype):
        return by_sequence(*(x.to(dtype) for x in tensors), where)

    check(decode_attention(*tensors, **where), definition, dtype)


@pytest.mark.parametrize("heads", [(4, 2), (70, 1)], ids=["4:2", "70:1"])
@pytest.mark.parametrize("scale", [0.3, -0.2])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_any_prefix_slot_and_length(heads, scale, dtype, device):
    """Prefixes of every length up to more than one block, even none, in any order; more slots than sequences; NaN in
    what is not used of either cache. 70 query heads of a KV head are more rows than a block."""
    g = torch.Generator().manual_seed(1)
    prefix_lengths = torch.tensor([40, 1, 0, 33, 32])
    own_lengths = torch.tensor([1, 35, 32, 33, 2, 3, 4, 17, 31, 30, 5])
    P, N, S, (H, K), D, L, C = len(prefix_lengths), len(own_lengths), 14, heads, 16, 40, 35
    q = torch.randn(N, H, D, generator=g, dtype=dtype).to(device)
    pk, pv = torch.randn(2, P, K, L, D, generator=g, dtype=dtype).to(device)
    ok, ov = torch.randn(2, S, K, C, D, generator=g, dtype=dtype).to(device)
    prefix_N, slot_N = torch.tensor([3, 3, 3, 0, 2, 2, 4, 1, 3, 0, 0]), torch.randperm(S, generator=g)[:N]
    used = torch.zeros(S, dtype=torch.int64).index_put((slot_N,), own_lengths)
    for x, length in ((pk, prefix_lengths), (pv, prefix_lengths), (ok, used), (ov, used)):
        x.transpose(1, 2)[(torch.arange(x.shape[2]) >= length[:, None]).to(device)] = float("nan")
    where = dict(prefix_N=prefix_N, slot_N=slot_N.int(), prefix_length_P=prefix_lengths, own_length_N=own_lengths.int())
    where = {name: x.to(device) for name, x in where.items()}

    def definition(dtype):
        return by_sequence(*(x.to(dtype) for x in (q, pk, pv, ok, ov)), where, scale)

    check(decode_attention(q, pk, pv, ok, ov, **where, scale=scale), definition, dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("prompt_lengths", [[4, 4], [2, 37, 5]])
def test_decoding_continues_attention(prompt_lengths, dtype, device):
    """The last token of each response, decoded against prefix and own keys."""
    G, own, H, K, D = 3, 5, 4, 2, 8
    P, longest = len(prompt_lengths), max(prompt_lengths)
    segments = Segments.from_groups(prompt_lengths, torch.full((P, G), own))
    g = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(segments.num_tokens, n, D, generator=g, dtype=dtype).to(device) for n in (H, K, K))
    is_prompt = segments.prefix < 0
    last = (segments.start + segments.length - 1)[~is_prompt]
    prompt_rows = (segments.start[is_prompt, None] + torch.arange(longest)).clamp(max=segments.num_tokens - 1)
    own_rows = segments.start[~is_prompt, None] + torch.arange(own)
    caches = [x[rows].transpose(1, 2) for rows in (prompt_rows, own_rows) for x in (k, v)]
    where = together(P, G, longest, own, device) | dict(prefix_length_P=torch.tensor(prompt_lengths, device=device))
    out = decode_attention(q[last], *caches, **where)
    want = attention(q, k, v, segments)[last]
    assert relative(out, want) < (1e-14 if dtype == torch.float64 else 1e-6)


def test_tiles_hold_every_sequence_once():
    rng = np.random.default_rng(0)
    for N, prefixes, most in ((1, 1, 1), (50, 4, 3), (50, 50, 10), (64, 1, 10)):
        prefix_N = np.sort(rng.integers(prefixes, size=N))
        table = tile_sequences(prefix_N, most)
        covered = np.concatenate([np.arange(first, first + count) for first, count, _ in table])
        assert np.array_equal(covered, np.arange(N))
        assert all((prefix_N[first : first + count] == p).all() and 1 <= count <= most for first, count, p in table)
        assert len(table) <= -(-N // most) + len(set(prefix_N)) - 1


@needs_triton
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_other_sequences_tiles_and_longer_caches_change_no_bit(dtype, device):
    P, G, L, own = 3, 4, 37, 9
    q, pk, pv, ok, ov = data(P, G, 6, 1, 16, L, own, dtype, device)
    where = together(P, G, L, own, device)
    want = decode_attention(q, pk, pv, ok, ov, **where)
    # in another order, every sequence with another neighbour
    order = torch.randperm(P * G, generator=torch.Generator().manual_seed(0)).to(device)
    moved = where | {name: where[name][order] for name in ("prefix_N", "slot_N", "own_length_N")}
    assert torch.equal(decode_attention(q[order], pk, pv, ok, ov, **moved), want[order])
    # with empty tiles between, as a table of fixed length has them
    table = torch.from_numpy(tile_sequences(where["prefix_N"].cpu().numpy(), 3))
    tiles = SequenceTiles(torch.cat([table[:2], torch.zeros_like(table), table[2:]]).to(device), 3)
    assert torch.equal(decode_attention(q, pk, pv, ok, ov, **where, tiles=tiles), want)
    # room for more tokens, of which nothing is read
    longer = (torch.nn.functional.pad(x, (0, 0, 0, 50), value=float("nan")) for x in (pk, pv, ok, ov))
    assert torch.equal(decode_attention(q, *longer, **where), want)


@needs_triton
def test_opcheck_and_one_graph(device):
    tensors, where = data(2, 2, 4, 2, 8, 5, 3, torch.float32, device), together(2, 2, 5, 3, device)
    tiles = SequenceTiles(torch.tensor([[0, 2, 0], [2, 2, 1]], dtype=torch.int32, device=device), 8)
    lengths = where["prefix_length_P"], where["slot_N"], where["own_length_N"]
    op = torch.ops.fastreason.decode_attention.default
    check_op(op, *tensors, tiles.table, tiles.most, *lengths, 0.3)
    torch._dynamo.reset()
    compiled = torch.compile(decode_attention, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(*tensors, **where, tiles=tiles), decode_attention(*tensors, **where, tiles=tiles))


@needs_triton
def test_there_is_no_gradient(device):
    q, *caches = data(2, 2, 4, 2, 8, 5, 3, torch.float32, device)
    out = decode_attention(q.requires_grad_(), *caches, **together(2, 2, 5, 3, device))
    with pytest.raises(NotImplementedError, match="no gradient; train through attention"):
        out.sum().backward()


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(q=(4, 3, 8)), "H a multiple of K"),
        (dict(q=(4, 4, 16)), r"need q \[N, H, D\]"),
        (dict(pk=(2, 2, 4, 8)), "need q"),
        (dict(ok=(4, 1, 3, 8), ov=(4, 1, 3, 8)), "need q"),
        (dict(ok=(4, 2, 0, 8), ov=(4, 2, 0, 8)), "P and C at least 1"),
        (dict(prefix_length_P=(3,)), r"prefix_length_P must be integers \[2\], got torch.int64 \(3,\)"),
        (dict(own_length_N=(2,)), r"own_length_N must be integers \[4\], got torch.int64 \(2,\)"),
        (dict(slot_N=(3,)), r"slot_N must be integers \[4\]"),
        (dict(prefix_N=(2, 2)), r"prefix_N must be integers \[4\], got torch.int64 \(2, 2\)"),
    ],
)
def test_refuses_shapes_that_do_not_fit(change, message):
    shapes = dict(q=(4, 4, 8), pk=(2, 2, 5, 8), pv=(2, 2, 5, 8), ok=(4, 2, 3, 8), ov=(4, 2, 3, 8))
    tensors = [torch.zeros(change.get(name, shape)) for name, shape in shapes.items()]
    where = together(2, 2, 5, 3)
    where |= {name: torch.ones(change[name], dtype=torch.int64) for name in where if name in change}
    with pytest.raises(ValueError, match=message):
        decode_attention(*tensors, **where)


def test_refuses_mixed_dtypes_and_lengths_that_are_no_integers():
    q, pk, pv, ok, ov = data(1, 1, 2, 1, 8, 2, 1, torch.float32, "cpu")
    where = together(1, 1, 2, 1)
    with pytest.raises(ValueError, match=r"one floating dtype and device, got torch.float32 on cpu, torch.float64"):
        decode_attention(q, pk.double(), pv, ok, ov, **where)
    with pytest.raises(ValueError, match="prefix_length_P must be integers"):
        decode_attention(q, pk, pv, ok, ov, **where | dict(prefix_length_P=torch.ones(1)))


@needs_triton
@pytest.mark.parametrize("D", [12, 136])
def test_refuses_head_dims_that_kernels_lack(D, device):
    tensors = data(1, 1, 2, 1, D, 2, 1, torch.float32, device)
    with pytest.raises(ValueError, match=f"head dim must be a multiple of 8 up to 128, got {D}"):
        decode_attention(*tensors, **together(1, 1, 2, 1, device))
