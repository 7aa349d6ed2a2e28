"""rope_attention against `rope` and `attention` in float64, and the gradient that backward writes in one matrix."""

import pytest
import torch

from fastreason.kernels import Segments, attention, cpu_kernels, rope, rope_angles, rope_attention
from fastreason.kernels.rope_attention import spread_biases
from fastreason.kernels.triton_support import as_if_on

from .conftest import needs_triton
from .numerics import check_compiled, check_errors, check_op, relative

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


def gradients(qkv, do, segments, heads, bias=None):
    """Of qkv, and of a bias if there is one."""
    H, K, D = heads
    sizes, leaf = {"heads": H, "kv_heads": K}, qkv.clone().requires_grad_()
    rows = None if bias is None else spread_biases([bias], qkv, segments, **sizes)[0]
    cos, sin = angles(segments, D, qkv.dtype, qkv.device)
    o, *_ = rope_attention(leaf, cos, sin, segments, **sizes, bias_RW=rows)
    return torch.autograd.grad(o, [leaf] if bias is None else [leaf, bias], do)


@needs_triton
# more query tiles than key tiles; fewer; halves of the smallest row; more heads than the least that a product takes
@pytest.mark.parametrize(
    "layout, heads",
    [("group", (6, 1, 64)), ("documents", (2, 2, 128)), ("padding", (4, 2, 16)), ("group", (18, 1, 16))],
)
def test_the_gradient_of_a_bias_is_the_sum_of_the_stored_columns(layout, heads, device):
    segments, (H, K, D) = LAYOUTS[layout], heads
    qkv = random(segments.num_tokens, (H + 2 * K) * D, dtype=torch.bfloat16, device=device)
    do = random(segments.num_tokens, H, D, dtype=torch.bfloat16, seed=1, device=device)
    (alone,) = gradients(qkv, do, segments, heads)
    bias = torch.zeros(qkv.shape[1], device=device, requires_grad=True)
    dqkv, dbias = gradients(qkv, do, segments, heads, bias)
    assert torch.equal(dqkv, alone)
    assert dbias.dtype == torch.float32 and relative(dbias, alone.double().sum(0)) < 1e-6
    assert torch.equal(dbias, gradients(qkv, do, segments, heads, bias)[1])


@needs_triton
def test_a_bias_is_summed_where_it_was_added_if_no_kernel_takes_it(device):
    segments, bias = LAYOUTS["group"], torch.zeros(4 * 64, device=device)
    sizes = {"heads": 2, "kv_heads": 1}

    def takes(arch, head_dim, dtype=torch.bfloat16):
        with as_if_on(arch):
            like = torch.empty(0, dtype=dtype, device=device)
            return spread_biases([bias[: 4 * head_dim]], like, segments, **sizes) is not None

    assert takes(90, 64) and takes(80, 64) and takes(120, 64)
    assert not takes(100, 64)  # where it would halve the number of programs
    assert not takes(90, 24) and not takes(90, 64, torch.float32)
    qkv, rows = random(segments.num_tokens, 4 * 64, device=device), torch.zeros(3, 5, device=device)
    with pytest.raises(ValueError, match=r"bias must be one of spread_biases .* got \(3, 5\)"):
        rope_attention(qkv, *angles(segments, 64, qkv.dtype, device), segments, **sizes, bias_RW=rows)


@needs_triton
def test_as_an_operator(device):
    segments = Segments.from_groups([2, 3], torch.tensor([[2, 1], [1, 2]]))
    cos, sin = angles(segments, 16, torch.float32, device)
    qkv = random(segments.num_tokens, 4 * 16, device=device).requires_grad_()
    rows = torch.zeros(len(segments.start), 4 * 16, device=device, requires_grad=True)  # a tile each
    check_op(torch.ops.fastreason.rope_attention.default, qkv, rows, cos, sin, segments.table, 2, 1)
    o, rotated, lse = torch.ops.fastreason.rope_attention(qkv.detach(), None, cos, sin, segments.table, 2, 1)
    saved = (torch.ones_like(o), qkv.detach(), rotated, o, lse, cos, sin)
    check_op(torch.ops.fastreason.rope_attention_backward.default, *saved, segments.table, 2, 1, len(rows))
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
