"""Decoding against its formula sequence by sequence, against attention, and what must not change a bit."""

import pytest
import torch

from fastreason.kernels import Segments, attention, decode_attention

from .conftest import needs_triton
from .numerics import check_op, relative


def by_sequence(q, prefix_k, prefix_v, prefix_lengths, own_k, own_v, own_lengths, scale=None):
    """The formula: one softmax for every sequence and head, over keys put in a row, in the dtype of q."""
    (N, H, D), (P, K) = q.shape, prefix_k.shape[:2]
    rows = []
    for n, h in ((n, h) for n in range(N) for h in range(H)):
        p, kv = n // (N // P), h // (H // K)
        seen = slice(int(prefix_lengths[p])), slice(int(own_lengths[n]))
        k = torch.cat([prefix_k[p, kv, seen[0]], own_k[n, kv, seen[1]]])
        v = torch.cat([prefix_v[p, kv, seen[0]], own_v[n, kv, seen[1]]])
        weights = ((k @ q[n, h]) * (D**-0.5 if scale is None else scale)).softmax(-1)
        rows.append(weights @ v)
    return torch.stack(rows).view(N, H, D)


def data(P, G, H, K, D, L, own, dtype, device, seed=0):
    g = torch.Generator().manual_seed(seed)
    shapes = [(P * G, H, D), (P, K, L, D), (P, K, L, D), (P * G, K, own, D), (P * G, K, own, D)]
    return [torch.randn(shape, generator=g, dtype=dtype).to(device) for shape in shapes]


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
    P, G = shape[:2]
    tensors = data(*shape, L, own, dtype, device)
    lengths = torch.full((P,), L), torch.full((P * G,), own)

    def definition(dtype):
        q, pk, pv, ok, ov = (x.to(dtype) for x in tensors)
        return by_sequence(q, pk, pv, lengths[0], ok, ov, lengths[1])

    q, pk, pv, ok, ov = tensors
    check(decode_attention(q, pk, pv, None, ok, ov), definition, dtype)


@pytest.mark.parametrize("how", ["padding", "lengths"])
@pytest.mark.parametrize("scale", [0.3, -0.2])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_lengths_of_prefixes_and_sequences(how, scale, dtype, device):
    """A prefix of every length up to more than one block, even none; NaN in what is not used of the cache."""
    prefix_lengths = torch.tensor([40, 1, 0, 33, 32])
    P, G, L, longest = len(prefix_lengths), 2, 40, 35
    own_lengths = torch.full((P * G,), 3) if how == "padding" else torch.tensor([1, 35, 32, 33, 2, 3, 4, 17, 31, 30])
    q, pk, pv, ok, ov = data(P, G, 4, 2, 16, L, longest, dtype, device)
    behind = torch.arange(longest) >= own_lengths[:, None]
    for x in (ok, ov):
        x.transpose(1, 2)[behind.to(device)] = float("nan")
    padding = (torch.arange(L) >= prefix_lengths[:, None]).to(device)
    if how == "padding":
        out = decode_attention(q, pk, pv, padding, ok[:, :, :3], ov[:, :, :3], scale=scale)
    else:
        for x in (pk, pv):
            x.transpose(1, 2)[padding] = float("nan")
        on_device = dict(prefix_length_P=prefix_lengths.to(device), own_length_N=own_lengths.int().to(device))
        out = decode_attention(q, pk, pv, None, ok, ov, **on_device, scale=scale)

    def definition(dtype):
        a, b, c, d, e = (x.to(dtype) for x in (q, pk, pv, ok, ov))
        return by_sequence(a, b, c, prefix_lengths, d, e, own_lengths, scale)

    check(out, definition, dtype)


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
    column = torch.arange(longest)
    prompt_rows = (segments.start[is_prompt, None] + column).clamp(max=segments.num_tokens - 1)
    own_rows = segments.start[~is_prompt, None] + torch.arange(own)
    pk, pv = (x[prompt_rows].transpose(1, 2) for x in (k, v))
    ok, ov = (x[own_rows].transpose(1, 2) for x in (k, v))
    padding = (column >= segments.length[is_prompt, None]).to(device)
    out = decode_attention(q[last], pk, pv, padding if padding.any() else None, ok, ov)
    want = attention(q, k, v, segments)[last]
    assert relative(out, want) < (1e-14 if dtype == torch.float64 else 1e-6)


@needs_triton
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_other_groups_and_longer_caches_change_no_bit(dtype, device):
    P, G, L, own = 3, 4, 37, 9
    q, pk, pv, ok, ov = data(P, G, 6, 1, 16, L, own, dtype, device)
    want = decode_attention(q, pk, pv, None, ok, ov)
    order = torch.tensor([2, 0, 1], device=device)
    members = (order[:, None] * G + torch.arange(G, device=device)).flatten()
    assert torch.equal(
        decode_attention(q[members], pk[order], pv[order], None, ok[members], ov[members]), want[members]
    )
    # every group split into halves, each with a copy of the prefix
    half = (x.repeat_interleave(2, 0) for x in (pk, pv))
    assert torch.equal(decode_attention(q, *half, None, ok, ov), want)
    # room for more tokens, of which nothing is read
    pk, pv, ok, ov = (torch.nn.functional.pad(x, (0, 0, 0, 50), value=float("nan")) for x in (pk, pv, ok, ov))
    lengths = torch.full((P,), L, device=device), torch.full((P * G,), own, device=device)
    out = decode_attention(q, pk, pv, None, ok, ov, prefix_length_P=lengths[0], own_length_N=lengths[1])
    assert torch.equal(out, want)
    padding = (torch.arange(L + 50, device=device) >= L).expand(P, -1)
    assert torch.equal(decode_attention(q, pk, pv, padding, ok[:, :, :own], ov[:, :, :own]), want)


@needs_triton
def test_opcheck_and_one_graph(device):
    q, pk, pv, ok, ov = data(2, 2, 4, 2, 8, 5, 3, torch.float32, device)
    padding = torch.tensor([[False] * 5, [False] * 3 + [True] * 2], device=device)
    lengths = torch.tensor([5, 3], device=device), torch.tensor([3, 2, 1, 3], device=device)
    op = torch.ops.fastreason.decode_attention.default
    check_op(op, q, pk, pv, padding, ok, ov, None, None, 0.3)
    check_op(op, q, pk, pv, None, ok, ov, *lengths, 0.3)
    torch._dynamo.reset()
    compiled = torch.compile(decode_attention, fullgraph=True, backend="aot_eager")
    for own in (1, 2, 3):
        inputs = (q, pk, pv, padding, ok[:, :, :own], ov[:, :, :own])
        assert torch.equal(compiled(*inputs), decode_attention(*inputs))


@needs_triton
def test_there_is_no_gradient(device):
    q, pk, pv, ok, ov = data(2, 2, 4, 2, 8, 5, 3, torch.float32, device)
    out = decode_attention(q.requires_grad_(), pk, pv, None, ok, ov)
    with pytest.raises(NotImplementedError, match="no gradient; train through attention"):
        out.sum().backward()


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(q=(5, 4, 8)), r"N a multiple of P, H a multiple of K .*got \(5, 4, 8\)"),
        (dict(q=(4, 3, 8)), "H a multiple of K"),
        (dict(q=(4, 4, 16)), r"need q \[N, H, D\]"),
        (dict(pk=(2, 2, 4, 8)), "need q"),
        (dict(ok=(4, 1, 3, 8), ov=(4, 1, 3, 8)), "need q"),
        (dict(ok=(4, 2, 0, 8), ov=(4, 2, 0, 8)), "L' at least 1"),
        (dict(padding=(2, 4)), r"prefix_padding must be bool \[2, 5\], got torch.bool \(2, 4\)"),
        (dict(prefix_length=(3,)), r"prefix_length must be integers \[2\], got torch.int64 \(3,\)"),
        (dict(own_length=(2,)), r"own_length must be integers \[4\], got torch.int64 \(2,\)"),
    ],
)
def test_refuses_shapes_that_do_not_fit(change, message):
    shapes = dict(q=(4, 4, 8), pk=(2, 2, 5, 8), pv=(2, 2, 5, 8), ok=(4, 2, 3, 8), ov=(4, 2, 3, 8)) | change
    q, pk, pv, ok, ov = (torch.zeros(shapes[name]) for name in ("q", "pk", "pv", "ok", "ov"))
    padding = torch.zeros(change["padding"], dtype=torch.bool) if "padding" in change else None
    lengths = {
        f"{name}_{axis}": torch.ones(change[name], dtype=torch.int64)
        for name, axis in (("prefix_length", "P"), ("own_length", "N"))
        if name in change
    }
    with pytest.raises(ValueError, match=message):
        decode_attention(q, pk, pv, padding, ok, ov, **lengths)


def test_refuses_mixed_dtypes_and_lengths_that_are_no_integers():
    q, pk, pv, ok, ov = data(1, 1, 2, 1, 8, 2, 1, torch.float32, "cpu")
    with pytest.raises(ValueError, match=r"one floating dtype and device, got torch.float32 on cpu, torch.float64"):
        decode_attention(q, pk.double(), pv, None, ok, ov)
    with pytest.raises(ValueError, match="prefix_length must be integers"):
        decode_attention(q, pk, pv, None, ok, ov, prefix_length_P=torch.ones(1))


@needs_triton
@pytest.mark.parametrize("D", [12, 136])
def test_refuses_head_dims_that_kernels_lack(D, device):
    q, pk, pv, ok, ov = data(1, 1, 2, 1, D, 2, 1, torch.float32, device)
    with pytest.raises(ValueError, match=f"head dim must be a multiple of 8 up to 128, got {D}"):
        decode_attention(q, pk, pv, None, ok, ov)
