"""rope_attention against `rope` and `attention` in float64, and the gradient that backward writes in one matrix."""

import pytest
import torch

from fastreason.kernels import Segments, attention, cpu_kernels, rope, rope_angles, rope_attention

from .conftest import needs_triton
from .numerics import check_compiled, check_errors, check_op

LAYOUTS = {
    "documents": Segments.from_lengths([1, 17, 70]),
    "group": Segments.from_groups([43], torch.tensor([[1, 17, 33]])),
    # tokens before, between and behind segments, of one that is the prefix of another
    "padding": Segments(torch.tensor([1, 6, 40]), torch.tensor([4, 30, 21]), torch.tensor([-1, 2, -1]), 67),
}
# (H, K, D): halves that fill a tile, the smallest of them, and head dims that take the two operators
HEADS = [(6, 1, 64), (4, 2, 16), (2, 2, 128), (6, 1, 72), (4, 2, 8)]


def random(*shape, dtype=torch.float32, device="cpu", seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype).to(device)


def angles(segments, D, dtype, device):
    return [table.to(device) for table in rope_angles(segments.positions, D, 10000.0, dtype)]


def in_steps(qkv, cos, sin, segments, H, K):
    """The same by three operators."""
    qk, v = qkv.unflatten(1, (H + 2 * K, -1)).split([H + K, K], dim=1)
    q, k = rope(qk, cos, sin).split([H, K], dim=1)
    return attention(q, k, v, segments)


CASES = [(heads, torch.float32, layout) for heads, layout in zip(HEADS, [*LAYOUTS, *LAYOUTS], strict=False)]
CASES += [
    (HEADS[0], torch.bfloat16, "group"),
    (HEADS[1], torch.bfloat16, "padding"),
    (HEADS[3], torch.bfloat16, "documents"),
]


@pytest.mark.parametrize("heads, dtype, layout", CASES, ids=str)
def test_errors(heads, dtype, layout, device):
    segments, (H, K, D) = LAYOUTS[layout], heads
    cos, sin = angles(segments, D, dtype, device)
    sizes = {"heads": H, "kv_heads": K}
    check_errors(
        lambda qkv: rope_attention(qkv, cos, sin, segments, **sizes)[0],
        lambda qkv: in_steps(qkv, cos.to(qkv.dtype), sin.to(qkv.dtype), segments, H, K),
        [random(segments.num_tokens, (H + 2 * K) * D, dtype=dtype, device=device)],
        [random(segments.num_tokens, H, D, seed=1, device=device)],
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_forward_has_the_bits_of_its_steps(dtype, device, monkeypatch):
    """On a CPU, where it does not multiply by tile registers."""
    monkeypatch.setattr(cpu_kernels, "suits_tiles", lambda *x, **facts: False)
    segments, (H, K, D) = LAYOUTS["group"], HEADS[0]
    cos, sin = angles(segments, D, dtype, device)
    qkv = random(segments.num_tokens, (H + 2 * K) * D, dtype=dtype, device=device).requires_grad_()
    o, k, v = rope_attention(qkv, cos, sin, segments, heads=H, kv_heads=K)
    assert torch.equal(o, in_steps(qkv, cos, sin, segments, H, K))
    by_head = qkv.detach().unflatten(1, (H + 2 * K, D))
    assert torch.equal(k, rope(by_head[:, H : H + K], cos, sin))
    assert torch.equal(v, by_head[:, H + K :])
    assert o.requires_grad and not k.requires_grad and not v.requires_grad


@pytest.mark.parametrize("D", [16, 24])
def test_padding_has_no_gradient(D, device):
    """Whatever stands there; D of the one operator and of the two."""
    segments = LAYOUTS["padding"]
    outside = torch.ones(segments.num_tokens, dtype=torch.bool)
    for start, length in zip(segments.start.tolist(), segments.length.tolist(), strict=True):
        outside[start : start + length] = False
    qkv = random(segments.num_tokens, 4 * D, device=device)
    qkv[outside.to(device)] = 1e9
    qkv.requires_grad_()
    o, *_ = rope_attention(qkv, *angles(segments, D, torch.float32, device), segments, heads=2, kv_heads=1)
    (dqkv,) = torch.autograd.grad(o, qkv, random(*o.shape, seed=1, device=device))
    assert not o[outside.to(device)].any() and not dqkv[outside.to(device)].any()
    assert dqkv[~outside.to(device)].any(dim=1).all()


@needs_triton
def test_as_an_operator(device):
    segments = Segments.from_groups([2, 3], torch.tensor([[2, 1], [1, 2]]))
    cos, sin = angles(segments, 16, torch.float32, device)
    qkv = random(segments.num_tokens, 4 * 16, device=device).requires_grad_()
    check_op(torch.ops.fastreason.rope_attention.default, qkv, cos, sin, segments.table, 2, 1)
    o, rotated, lse = torch.ops.fastreason.rope_attention(qkv.detach(), cos, sin, segments.table, 2, 1)
    saved = (torch.ones_like(o), qkv.detach(), rotated, o, lse, cos, sin)
    check_op(torch.ops.fastreason.rope_attention_backward.default, *saved, segments.table, 2, 1)
    check_compiled(lambda x: rope_attention(x, cos, sin, segments, heads=2, kv_heads=1)[0], qkv)


@pytest.mark.parametrize(
    "shape, heads, message",
    [
        ((7, 32), (3, 2), "heads must be a multiple of kv_heads >= 1, got 3 and 2"),
        ((7, 32), (2, 0), "heads must be a multiple of kv_heads >= 1, got 2 and 0"),
        ((6, 32), (2, 1), r"need floating point qkv \[T, 4 D\] with T = 7, got torch.float32 \(6, 32\)"),
        ((7, 30), (2, 1), r"need floating point qkv \[T, 4 D\] with T = 7, got torch.float32 \(7, 30\)"),
        ((7, 4, 8), (2, 1), r"need floating point qkv \[T, 4 D\] with T = 7, got torch.float32 \(7, 4, 8\)"),
        ((7, 64), (2, 1), r"rope: cos and sin must be \(7, 1, 16\) for this x"),
    ],
)
def test_bad_input_is_named(shape, heads, message, device):
    segments = Segments.from_lengths([7])
    cos, sin = angles(segments, 8, torch.float32, device)
    with pytest.raises(ValueError, match=message):
        rope_attention(random(*shape, device=device), cos, sin, segments, heads=heads[0], kv_heads=heads[1])
