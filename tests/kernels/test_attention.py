"""Attention over segments: the definition and the kernels against explicit masks, and what must not change a bit."""

import itertools

import pytest
import torch

from fastreason.kernels import Segments, attention
from fastreason.kernels import attention_tiles as plans

from .conftest import needs_triton
from .numerics import check_compiled, check_errors, check_op, relative, value_and_gradients


def by_heads(q, k, v, segments, scale=None):
    """The formula, head by head, with an explicit [T, T] mask, in the dtype of q."""
    (T, H, D), K = q.shape, k.shape[1]
    owner = torch.full((T,), -1)
    for s, (start, length) in enumerate(zip(segments.start.tolist(), segments.length.tolist(), strict=True)):
        owner[start : start + length] = s
    sees = torch.zeros(T, T, dtype=torch.bool)
    for t in range(T):
        if owner[t] >= 0:
            sees[t] = (owner == owner[t]) & (torch.arange(T) <= t)
            prefix = int(segments.prefix[owner[t]])
            if prefix >= 0:
                sees[t] |= owner == prefix
    sees, nothing = sees.to(q.device), (owner < 0).to(q.device)
    heads = []
    for h in range(H):
        kv = h // (H // K)
        scores = (q[:, h] @ k[:, kv].T) * (D**-0.5 if scale is None else scale)
        # a token that sees nothing gets zeros: its row is computed over all and then cleared
        weights = scores.masked_fill(~sees & ~nothing[:, None], float("-inf")).softmax(-1)
        heads.append((weights @ v[:, kv]).masked_fill(nothing[:, None], 0.0))
    return torch.stack(heads, dim=1)


LAYOUTS = {
    "one": Segments.from_lengths([7]),
    "documents": Segments.from_lengths([5, 1, 9, 3, 3, 12]),
    "padding": Segments(torch.tensor([1, 6, 12]), torch.tensor([4, 6, 1]), torch.tensor([-1, -1, -1]), 15),
    "groups": Segments.from_groups([4, 7, 1], torch.tensor([[3, 1, 5], [2, 2, 2], [6, 1, 1]])),
    # a prefix that stands behind its segment, one without any, padding at the end
    "mixed": Segments(
        torch.tensor([0, 3, 5, 9, 12]), torch.tensor([3, 2, 4, 2, 3]), torch.tensor([2, -1, -1, 2, 1]), 16
    ),
}

# lengths of 1 and 17, groups of 1 and of 6, segments of more than one tile of queries and several blocks of keys
LONG_LAYOUTS = {
    "documents": Segments.from_lengths([1, 17, 70]),
    "group of 6": Segments.from_groups([43], torch.tensor([[1, 17, 33, 5, 2, 9]])),
    "groups of 1": Segments.from_groups([17, 1, 40], torch.tensor([[1], [35], [17]])),
}
# (H, K, D): head dims that fill their tile and one that does not; 6, 2 and 1 query heads a KV head
HEADS = [(6, 1, 64), (6, 1, 72), (4, 2, 16), (2, 2, 128)]


def random_qkv(T, H, K, D, dtype=torch.float64, seed=0, device="cpu"):
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(T, heads, D, generator=g, dtype=dtype).to(device) for heads in (H, K, K)]


def cotangent(q, seed=1):
    return torch.randn(q.shape, generator=torch.Generator().manual_seed(seed)).to(q)


def run(segments, q, k, v, do):
    """o, dq, dk, dv."""
    return value_and_gradients(lambda *x: attention(*x, segments), (q, k, v), [do])


# The definition, in float64.


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("heads", [(4, 4), (4, 2), (6, 1)])
@pytest.mark.parametrize("scale", [None, 0.3, -0.2, 0.0])
def test_the_definition_is_its_formula(layout, heads, scale):
    segments = LAYOUTS[layout]
    inputs = random_qkv(segments.num_tokens, *heads, 8)
    do = cotangent(inputs[0])
    ours = value_and_gradients(lambda *x: attention(*x, segments, scale=scale), inputs, [do])
    truth = value_and_gradients(lambda *x: by_heads(*x, segments, scale), inputs, [do])
    for a, b in zip(ours, truth, strict=True):
        torch.testing.assert_close(a, b, atol=1e-11, rtol=1e-11)


def test_gradcheck():
    segments = Segments.from_groups([2, 3], torch.tensor([[2, 1], [1, 2]]))
    inputs = [x.requires_grad_() for x in random_qkv(segments.num_tokens, 2, 1, 2)]
    assert torch.autograd.gradcheck(lambda q, k, v: attention(q, k, v, segments), inputs)


# What follows holds for kernels where they run and for the definition elsewhere.


# each head dim, dtype and layout with some of the others; every combination is slow
CASES = [
    (HEADS[0], torch.float32, "documents"),
    (HEADS[1], torch.float32, "group of 6"),
    (HEADS[2], torch.float32, "groups of 1"),
    (HEADS[3], torch.float32, "documents"),
    (HEADS[0], torch.float16, "group of 6"),
    (HEADS[1], torch.float16, "groups of 1"),
    (HEADS[0], torch.bfloat16, "group of 6"),
    (HEADS[2], torch.bfloat16, "documents"),
]
DTYPES = [*itertools.product(HEADS, [torch.float32]), *itertools.product(HEADS[:2], [torch.float16, torch.bfloat16])]
OTHERS = [(*pair, layout) for pair, layout in itertools.product(DTYPES, LONG_LAYOUTS) if (*pair, layout) not in CASES]


@pytest.mark.parametrize(
    "heads, dtype, layout", [*CASES, *(pytest.param(*case, marks=pytest.mark.slow) for case in OTHERS)]
)
def test_errors(layout, heads, dtype, device):
    segments = LONG_LAYOUTS[layout]
    inputs = random_qkv(segments.num_tokens, *heads, dtype, device=device)
    check_errors(lambda *x: attention(*x, segments), lambda *x: by_heads(*x, segments), inputs, [cotangent(inputs[0])])


@pytest.mark.parametrize("layout", ["padding", "mixed"])
@pytest.mark.parametrize("scale, D", [(0.7, 32), (-0.2, 96), (0.0, 8)])
def test_any_layout_and_scale(layout, scale, D, device):
    segments = LAYOUTS[layout]
    inputs = random_qkv(segments.num_tokens, 4, 2, D, torch.float32, device=device)
    check_errors(
        lambda *x: attention(*x, segments, scale=scale),
        lambda *x: by_heads(*x, segments, scale),
        inputs,
        [cotangent(inputs[0])],
    )


def test_large_scores_stay_finite(device):
    q, k, v = random_qkv(20, 2, 1, 16, torch.float32, device=device)
    out = run(Segments.from_lengths([20]), 1e4 * q, 1e4 * k, v, cotangent(q))
    assert all(torch.isfinite(x).all() for x in out)
    # such scores choose one key: every output is a row of v up to the few that are nearly tied
    assert (out[0].abs() <= v.abs().max()).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_a_group_is_its_sequences_one_by_one(dtype, device):
    prompt, responses = 37, [4, 1, 40]
    T = prompt + sum(responses)
    inputs = random_qkv(T, 6, 1, 64, dtype, device=device)
    do = cotangent(inputs[0])
    together = run(Segments.from_groups([prompt], torch.tensor([responses])), *inputs, do)
    # the prompt's own queries are in every sequence, but count once
    alone = [torch.zeros_like(x) for x in together]
    at = prompt
    for number, length in enumerate(responses):
        rows = [*range(prompt), *range(at, at + length)]
        weighted = do[rows].clone()
        weighted[:prompt] *= number == 0
        parts = run(Segments.from_lengths([len(rows)]), *(x[rows] for x in inputs), weighted)
        alone[0][rows] = parts[0]
        for total, part in zip(alone[1:], parts[1:], strict=True):
            total[rows] += part
        at += length
    for a, b in zip(together, alone, strict=True):
        assert relative(a, b) < (1e-14 if dtype == torch.float64 else 1e-6)


def test_what_is_not_seen_has_no_influence(device):
    segments = LAYOUTS["documents"]
    q, k, v = random_qkv(segments.num_tokens, 4, 2, 8, dtype=torch.float32, device=device)
    before = attention(q, k, v, segments)
    v[6:15] = 1e9  # the third document
    after = attention(q, k, v, segments)
    assert torch.equal(before[:6], after[:6])
    assert torch.equal(before[15:], after[15:])


@pytest.mark.parametrize("layout", ["padding", "mixed"])
def test_padding_gets_zeros(layout, device):
    segments = LAYOUTS[layout]
    q, k, v = random_qkv(segments.num_tokens, 2, 2, 8, torch.float32, device=device)
    outside = torch.ones(segments.num_tokens, dtype=torch.bool, device=device)
    outside[tokens_of(segments)] = False
    for x in run(segments, q, k, v, cotangent(q)):
        assert not x[outside].any()
        assert x[~outside].any()


def tokens_of(segments):
    """The tokens of all segments, in their order."""
    pairs = zip(segments.start.tolist(), segments.length.tolist(), strict=True)
    return torch.tensor([t for start, length in pairs for t in range(start, start + length)])


# Bits. The definition's matrix products may round by the shape of the whole; the kernels' must not.


def pieces(lengths, order, padding=0):
    """Where the tokens of segments go when segments stand in `order`, `padding` tokens before each: index lists."""
    begins = list(itertools.accumulate(lengths, initial=0))
    rows, at, new = [], {}, 0
    for s in order:
        new += padding
        at[s] = new
        rows.append((s, range(begins[s], begins[s + 1]), range(new, new + lengths[s])))
        new += lengths[s]
    return rows, at, new + padding


@needs_triton
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("padding", [0, 3])
def test_order_and_padding_change_no_bit(padding, dtype, device):
    """Two groups and two documents, moved about, NaN in between: every token gets the bits it had."""
    lengths, prefixes = [25, 7, 40, 30, 9, 12, 1], [-1, 0, 0, -1, -1, 4, 4]
    inputs = random_qkv(sum(lengths), 6, 1, 16, dtype, device=device)
    inputs.append(cotangent(inputs[0]))

    def arranged(order, padding):
        rows, at, total = pieces(lengths, order, padding)
        moved = [torch.full((total, *x.shape[1:]), float("nan"), dtype=dtype, device=device) for x in inputs]
        for (_, old, new), (x, y) in itertools.product(rows, zip(inputs, moved, strict=True)):
            y[list(new)] = x[list(old)]
        index = {s: i for i, s in enumerate(order)}
        table = torch.tensor([[at[s], lengths[s], index.get(prefixes[s], -1)] for s in order]).T.contiguous()
        outside = torch.ones(total, dtype=torch.bool)
        out = run(Segments(*table, total), *moved)
        back = [torch.empty_like(x) for x in (inputs[0], *inputs[:3])]
        for (_, old, new), (x, y) in itertools.product(rows, zip(back, out, strict=True)):
            x[list(old)] = y[list(new)]
            outside[list(new)] = False
        assert not any(x[outside].any() for x in out)
        return back

    # the members of a group keep their order: their gradients are summed in it
    first, second = arranged(range(7), 0), arranged([3, 4, 5, 0, 1, 6, 2], padding)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@needs_triton
def test_splitting_a_group_changes_no_bit_of_its_members(device):
    prompt, responses = 37, [1, 17, 40, 33]
    borders = [prompt, *(prompt + end for end in itertools.accumulate(responses))]
    inputs = random_qkv(borders[-1], 6, 1, 64, torch.float32, device=device)
    inputs.append(cotangent(inputs[0]))
    whole = run(Segments.from_groups([prompt], torch.tensor([responses])), *inputs)
    rows = [*range(borders[2]), *range(prompt), *range(borders[2], borders[4])]
    split = run(Segments.from_groups([prompt] * 2, torch.tensor([responses]).view(2, 2)), *(x[rows] for x in inputs))
    members = torch.tensor([i for i, t in enumerate(rows) if t >= prompt])
    for a, b in zip(whole, split, strict=True):
        assert torch.equal(a[prompt:], b[members])
    for a, b in zip(whole[:2], split[:2], strict=True):  # the prompt's own queries
        assert torch.equal(a[:prompt], b[:prompt])
    # its keys and values: each half has the gradient of its members, and both have that of the prompt's own queries
    own = run(Segments.from_lengths([prompt]), *(x[:prompt] for x in inputs))
    for a, b, c in zip(whole[2:], split[2:], own[2:], strict=True):
        halves = b[:prompt] + b[borders[2] : borders[2] + prompt]
        assert relative(halves - c, a[:prompt].double()) < 1e-6


@needs_triton
def test_what_follows_a_token_changes_no_bit_of_it(device):
    q, k, v = random_qkv(90, 6, 1, 64, torch.float32, device=device)
    long = attention(q, k, v, Segments.from_groups([40], torch.tensor([[50]])))
    short = attention(q[:53], k[:53], v[:53], Segments.from_groups([40], torch.tensor([[13]])))
    assert torch.equal(long[:53], short)


@needs_triton
def test_the_same_bits_every_time(device):
    segments = LONG_LAYOUTS["group of 6"]
    q, k, v = random_qkv(segments.num_tokens, 6, 1, 16, torch.float32, device=device)
    first, again = (run(segments, q, k, v, cotangent(q)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@needs_triton
def test_views_are_read_in_place_or_copied(device):
    """q, k and v as slices of one projection, and with strides that no 128-bit access could take."""
    segments = LAYOUTS["documents"]
    T, H, K, D = segments.num_tokens, 2, 1, 8
    qkv = torch.randn(T, H + 2 * K, D, generator=torch.Generator().manual_seed(0)).to(device)
    do = torch.randn(T, H, D, generator=torch.Generator().manual_seed(1)).to(device)
    by_head = do.transpose(0, 1).contiguous().transpose(0, 1)

    def found(change, do):
        """o and the gradient of qkv, with q, k and v cut from change(qkv)."""
        leaf = qkv.clone().requires_grad_()
        q, k, v = change(leaf).split([H, K, K], dim=1)
        o = attention(q, k, v, segments)
        return o, *torch.autograd.grad(o, leaf, do)

    want = value_and_gradients(lambda *x: attention(*x, segments), qkv.split([H, K, K], dim=1), [do])
    want = [want[0], torch.cat(want[1:], dim=1)]
    for number, change in enumerate(
        (
            lambda x: x,
            lambda x: torch.nn.functional.pad(x, (0, 1))[..., :-1],  # rows of 9 floats
            lambda x: torch.nn.functional.pad(x.flatten(1), (1, 7))[:, 1:-7].unflatten(
                1, (-1, D)
            ),  # at 4 bytes behind 16
            lambda x: torch.stack([x, x], dim=-1)[..., 0],  # every second float
            lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),  # by head
        )
    ):
        gradient = do if number % 2 else by_head
        assert all(torch.equal(a, b) for a, b in zip(want, found(change, gradient), strict=True))


# As an operation of torch.


@needs_triton
def test_opcheck(device):
    segments = Segments.from_groups([2, 3], torch.tensor([[2, 1], [1, 2]]))
    q, k, v = (x.requires_grad_() for x in random_qkv(segments.num_tokens, 2, 1, 8, torch.float32, device=device))
    check_op(torch.ops.fastreason.attention.default, q, k, v, segments.table, 0.3)
    o, lse = torch.ops.fastreason.attention(q.detach(), k.detach(), v.detach(), segments.table, 0.3)
    inputs = [x.detach() for x in (torch.ones_like(o), q, k, v, o, lse)]
    check_op(torch.ops.fastreason.attention_backward.default, *inputs, segments.table, 0.3)


@needs_triton
def test_one_graph_for_every_batch(device):
    """No graph break, and a compiled function takes other batches, whose plans it has never seen."""
    segments = LAYOUTS["groups"]
    q, k, v = (x.requires_grad_() for x in random_qkv(segments.num_tokens, 2, 1, 8, torch.float32, device=device))
    check_compiled(lambda q, k, v: attention(q, k, v, segments), q, k, v)
    torch._dynamo.reset()
    compiled = torch.compile(attention, fullgraph=True, backend="eager")
    for layout in LAYOUTS.values():
        q, k, v = random_qkv(layout.num_tokens, 2, 1, 8, torch.float32, device=device)
        assert torch.equal(compiled(q, k, v, layout), attention(q, k, v, layout))


@needs_triton
@pytest.mark.parametrize("compiled", [False, True])
def test_the_plan_is_made_once_for_all_layers(compiled, device, monkeypatch):
    calls = []
    for name in ("_cut_queries", "_cut_keys"):
        cut = getattr(plans, name)
        monkeypatch.setattr(plans, name, lambda *x, cut=cut, name=name: calls.append(name) or cut(*x))
    segments = Segments.from_lengths([5, 3])

    def layers(q, k, v):
        for _ in range(3):
            q = attention(q, k, v, segments)
        return q

    if compiled:
        torch._dynamo.reset()
        layers = torch.compile(layers, fullgraph=True, backend="aot_eager")
    inputs = [x.requires_grad_() for x in random_qkv(8, 2, 2, 8, torch.float32, device=device)]
    layers(*inputs).sum().backward()
    # forward and dq have tiles of one size in the float32 table, so they share a list
    assert sorted(calls) == ["_cut_keys", "_cut_queries"]


@pytest.mark.parametrize(
    "q, k, dtype, message",
    [
        ((7, 4, 8), (7, 3, 8), torch.float32, "H a multiple of K"),
        ((6, 4, 8), (6, 2, 8), torch.float32, "with T = 7"),
        ((7, 4, 8), (7, 2, 4), torch.float32, r"got \(7, 4, 8\), \(7, 2, 4\)"),
        ((7, 4, 8), (7, 2, 8), torch.int64, "one floating dtype"),
    ],
)
def test_refuses_shapes_that_do_not_fit(q, k, dtype, message):
    x, y = torch.zeros(q, dtype=dtype), torch.zeros(k, dtype=dtype)
    with pytest.raises(ValueError, match=message):
        attention(x, y, y, LAYOUTS["one"])


def test_refuses_two_devices():
    x = torch.zeros(7, 2, 8)
    with pytest.raises(ValueError, match="need one device, got cpu, meta and cpu"):
        attention(x, x.to("meta"), x, LAYOUTS["one"])


@needs_triton
@pytest.mark.parametrize("D", [12, 136])
def test_refuses_head_dims_that_kernels_lack(D, device):
    x = torch.zeros(7, 2, D, device=device)
    with pytest.raises(ValueError, match=f"head dim must be a multiple of 8 up to 128, got {D}"):
        attention(x, x, x, LAYOUTS["one"])
