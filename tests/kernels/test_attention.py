"""Attention over segments against a dense float64 mask, and decoding against attention."""

import pytest
import torch
from fastreason.kernels import Segments, attention, decode_attention


def dense(q, k, v, segments, scale=None):
    """The definition, token by token: an explicit [T, T] mask in float64."""
    T, H, D = q.shape
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
    k, v = (x.double().repeat_interleave(H // k.shape[1], dim=1) for x in (k, v))
    scores = torch.einsum("thd,uhd->htu", q.double(), k) * (D**-0.5 if scale is None else scale)
    weights = scores.masked_fill(~sees, float("-inf")).softmax(-1).nan_to_num()
    return torch.einsum("htu,uhd->thd", weights, v)


LAYOUTS = {
    "one": Segments.from_lengths([7]),
    "documents": Segments.from_lengths([5, 1, 9, 3, 3, 12]),
    "padding": Segments(torch.tensor([1, 6, 12]), torch.tensor([4, 6, 1]), torch.tensor([-1, -1, -1]), 15),
    "groups": Segments.from_groups([4, 7, 1], torch.tensor([[3, 1, 5], [2, 2, 2], [6, 1, 1]])),
    "mixed": Segments(
        torch.tensor([0, 3, 5, 9, 12]), torch.tensor([3, 2, 4, 2, 3]), torch.tensor([-1, 0, -1, 2, 0]), 16
    ),
}


def random_qkv(T, H, K, D, dtype=torch.float64, seed=0):
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(T, heads, D, generator=g, dtype=dtype) for heads in (H, K, K)]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("heads", [(4, 4), (4, 2), (6, 1)])
@pytest.mark.parametrize("scale", [None, 0.3])
def test_is_its_definition(layout, heads, scale):
    segments = LAYOUTS[layout]
    q, k, v = random_qkv(segments.num_tokens, *heads, 8)
    torch.testing.assert_close(
        attention(q, k, v, segments, scale=scale), dense(q, k, v, segments, scale), atol=1e-12, rtol=1e-12
    )


@pytest.mark.parametrize("layout", ["documents", "groups", "padding"])
def test_float32_error(layout):
    segments = LAYOUTS[layout]
    q, k, v = random_qkv(segments.num_tokens, 4, 2, 16, dtype=torch.float32)
    assert (attention(q, k, v, segments) - dense(q, k, v, segments)).abs().max() < 3e-6


@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradients(layout):
    segments = LAYOUTS[layout]
    inputs = [x.requires_grad_() for x in random_qkv(segments.num_tokens, 4, 2, 4)]
    dy = torch.randn_like(inputs[0])
    ours = torch.autograd.grad(attention(*inputs, segments), inputs, dy)
    truth = torch.autograd.grad(dense(*inputs, segments), inputs, dy)
    for a, b in zip(ours, truth, strict=True):
        torch.testing.assert_close(a, b, atol=1e-11, rtol=1e-11)


def test_gradcheck():
    segments = Segments.from_groups([2, 3], torch.tensor([[2, 1], [1, 2]]))
    inputs = [x.requires_grad_() for x in random_qkv(segments.num_tokens, 2, 1, 2)]
    assert torch.autograd.gradcheck(lambda q, k, v: attention(q, k, v, segments), inputs)


def test_a_group_is_its_sequences_one_by_one():
    prompt, responses = 5, [4, 1, 6]
    q, k, v = random_qkv(prompt + sum(responses), 4, 2, 8)
    together = attention(q, k, v, Segments.from_groups([prompt], torch.tensor([responses])))
    at = prompt
    for length in responses:
        rows = [*range(prompt), *range(at, at + length)]
        alone = attention(q[rows], k[rows], v[rows], Segments.from_lengths([len(rows)]))
        torch.testing.assert_close(together[at : at + length], alone[prompt:], atol=1e-12, rtol=1e-12)
        at += length


def test_what_is_not_seen_has_no_influence():
    segments = LAYOUTS["documents"]
    q, k, v = random_qkv(segments.num_tokens, 4, 2, 8, dtype=torch.float32)
    before = attention(q, k, v, segments)
    v[6:15] = 1e9  # the third document
    after = attention(q, k, v, segments)
    assert torch.equal(before[:6], after[:6])
    assert torch.equal(before[15:], after[15:])


def test_padding_gets_zeros():
    segments = LAYOUTS["padding"]
    out = attention(*random_qkv(segments.num_tokens, 2, 2, 4), segments)
    assert not out[[0, 5, 13, 14]].any()


@pytest.mark.parametrize("prompt_lengths", [[4, 4], [2, 7, 5]])
def test_decoding_continues_attention(prompt_lengths):
    """The last token of each response, decoded against prefix and own keys."""
    G, own, H, K, D = 3, 5, 4, 2, 8
    P = len(prompt_lengths)
    segments = Segments.from_groups(prompt_lengths, torch.full((P, G), own))
    q, k, v = random_qkv(segments.num_tokens, H, K, D)
    longest = max(prompt_lengths)
    prefix_k, prefix_v = torch.randn(2, P, K, longest, D, dtype=torch.float64)
    padding = torch.ones(P, longest, dtype=torch.bool)
    own_k, own_v, last_q, last = [], [], [], []
    for s, (start, length, prefix) in enumerate(
        zip(segments.start.tolist(), segments.length.tolist(), segments.prefix.tolist(), strict=True)
    ):
        rows = slice(start, start + length)
        if prefix < 0:
            p = s // (G + 1)
            prefix_k[p, :, :length], prefix_v[p, :, :length] = k[rows].transpose(0, 1), v[rows].transpose(0, 1)
            padding[p, :length] = False
        else:
            own_k.append(k[rows].transpose(0, 1))
            own_v.append(v[rows].transpose(0, 1))
            last_q.append(q[rows][-1])
            last.append(rows.stop - 1)
    out = decode_attention(
        torch.stack(last_q),
        prefix_k,
        prefix_v,
        padding if padding.any() else None,
        torch.stack(own_k),
        torch.stack(own_v),
    )
    torch.testing.assert_close(out, attention(q, k, v, segments)[last], atol=1e-12, rtol=1e-12)


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
