"""Rotary embedding against its float64 definition, transformers, and its own properties."""

import pytest
import torch

from fastreason.kernels import rope, rope_angles
from fastreason.kernels.rope import rope_ref

from .conftest import needs_triton
from .numerics import check_compiled, check_errors, check_op


def angles(T, D, dtype, device, theta=10000.0):
    # positions of two sequences and a far one
    positions = torch.cat([torch.arange(T // 2), torch.arange(T - T // 2 - 1), torch.tensor([2000])])
    return [table.to(device) for table in rope_angles(positions, D, theta, dtype)]


def random(shape, dtype, device, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype).to(device)


# one token and one head; part of a tile, and several; widths whose half is a power of two and not; the model's 14 heads
@pytest.mark.parametrize("shape", [(1, 1, 2), (17, 3, 64), (5, 14, 64), (9, 2, 72), (3, 1, 768 // 2)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_is_its_definition(shape, dtype, device):
    x, dy = random(shape, dtype, device), random(shape, dtype, device, 1)
    cos, sin = angles(shape[0], shape[2], dtype, device)
    check_errors(lambda x: rope(x, cos, sin), lambda x: rope_ref(x, cos.to(x.dtype), sin.to(x.dtype)), [x], [dy])


def test_against_transformers():
    from transformers.models.qwen2.modeling_qwen2 import apply_rotary_pos_emb

    positions, D, theta = torch.tensor([0, 1, 5, 100, 2000]), 16, 10000.0
    x = torch.randn(5, 3, D, dtype=torch.float64)
    inverse = theta ** -(torch.arange(0, D, 2, dtype=torch.float64) / D)
    angles = torch.cat([positions[:, None] * inverse] * 2, dim=-1)
    theirs, _ = apply_rotary_pos_emb(
        x.transpose(0, 1)[None], x.transpose(0, 1)[None], angles.cos()[None], angles.sin()[None]
    )
    ours = rope(x, *rope_angles(positions, D, theta, torch.float64))
    torch.testing.assert_close(ours, theirs[0].transpose(0, 1), atol=1e-12, rtol=1e-12)


# bases and head dims in use, one head dim that is no power of two
@pytest.mark.parametrize("D, theta", [(64, 1e6), (16, 1000.0), (72, 10000.0), (128, 500000.0)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_angles_have_the_bits_of_transformers(D, theta, dtype):
    from transformers import Qwen2Config
    from transformers.models.qwen2.modeling_qwen2 import Qwen2RotaryEmbedding

    rope_parameters = {"rope_type": "default", "rope_theta": theta}
    config = Qwen2Config(hidden_size=2 * D, num_attention_heads=2, rope_parameters=rope_parameters)
    positions = torch.arange(2048)
    want_cos, want_sin = Qwen2RotaryEmbedding(config)(torch.empty(0, dtype=dtype), positions[None])
    cos, sin = rope_angles(positions, D, theta, dtype)
    assert torch.equal(cos[:, 0], want_cos[0])
    assert torch.equal(sin[:, 0, D // 2 :], want_sin[0, :, D // 2 :])
    assert torch.equal(sin[:, 0, : D // 2], -want_sin[0, :, : D // 2])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_angles_of_positions_are_rows_of_a_table(dtype, device):
    positions = torch.tensor([5, 0, 1999, 5, 63], device=device)
    table = rope_angles(torch.arange(2048, device=device), 64, 10000.0, dtype)
    rows = [whole.index_select(0, positions) for whole in table]
    assert all(map(torch.equal, rows, rope_angles(positions, 64, 10000.0, dtype)))


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_scores_depend_on_distance_alone(dtype, tolerance):
    q, k = torch.randn(2, 1, 1, 8, dtype=dtype, generator=torch.Generator().manual_seed(0))

    def score(a, b):
        (qa,), (kb,) = (rope(x, *rope_angles(torch.tensor([p]), 8, 100.0, dtype)) for x, p in ((q, a), (k, b)))
        return (qa * kb).sum()

    torch.testing.assert_close(score(3, 1), score(53, 51), atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(score(0, 0), (q * k).sum(), atol=tolerance, rtol=tolerance)


def test_gradcheck_and_length():
    x = torch.randn(4, 2, 6, dtype=torch.float64, requires_grad=True)
    tables = rope_angles(torch.arange(4), 6, 100.0, torch.float64)
    assert torch.autograd.gradcheck(lambda x: rope_ref(x, *tables), (x,))
    torch.testing.assert_close(rope(x, *tables).norm(dim=-1), x.norm(dim=-1))


def test_heads_of_a_wider_matrix_rotate_as_if_alone(device):
    """Queries and keys lie beside values, 3 + 2 + 2 heads; tokens are permuted."""
    qkv = random((17, 7, 64), torch.float32, device).requires_grad_()
    cos, sin = angles(17, 64, torch.float32, device)
    out = rope(qkv.split([5, 2], dim=1)[0], cos, sin)
    out.backward(out.detach())
    alone = rope(qkv.detach()[:, :5].contiguous(), cos, sin)
    assert torch.equal(out, alone)
    # the gradient of half the squared length, which a rotation keeps, is x itself
    torch.testing.assert_close(qkv.grad[:, :5], qkv.detach()[:, :5], atol=1e-6, rtol=1e-5)
    assert not qkv.grad[:, 5:].any()
    order = torch.randperm(17, generator=torch.Generator().manual_seed(0)).to(device)
    assert torch.equal(rope(qkv.detach()[order, :5], cos[order], sin[order]), alone[order])


def test_strides_of_any_kind_give_the_same_bits(device):
    x = random((6, 4, 10), torch.float32, device)
    cos, sin = angles(6, 10, torch.float32, device)
    want = rope(x, cos, sin)
    assert torch.equal(rope(x.permute(2, 1, 0).contiguous().permute(2, 1, 0), cos, sin), want)
    assert torch.equal(rope(x.transpose(0, 1).contiguous().transpose(0, 1), cos, sin), want)
    assert rope(x[:0], cos[:0], sin[:0]).shape == (0, 4, 10)


@needs_triton
def test_as_an_operator(device):
    x = random((5, 3, 8), torch.float32, device).requires_grad_()
    cos, sin = angles(5, 8, torch.float32, device)
    check_op(torch.ops.fastreason.rope.default, x, cos, sin, False)
    strided = x.detach().transpose(0, 1).contiguous().transpose(0, 1)
    check_op(torch.ops.fastreason.rope.default, strided, cos, sin, True)
    check_compiled(rope, x, cos, sin)


@pytest.mark.parametrize(
    "x, table, message",
    [
        ((3, 2), (3, 1, 2), r"need x \[T, H, D\] with D even, in 2 \.\. 512, got \(3, 2\)"),
        ((3, 2, 5), (3, 1, 5), "D even"),
        ((3, 2, 4), (2, 1, 4), r"cos and sin must be \(3, 1, 4\) for this x, got \(2, 1, 4\)"),
    ],
)
def test_refuses_bad_shapes(x, table, message):
    with pytest.raises(ValueError, match=message):
        rope(torch.zeros(x), torch.zeros(table), torch.zeros(table))


def test_refuses_tables_that_do_not_fit():
    x, table = torch.zeros(3, 2, 4), torch.zeros(3, 1, 4)
    with pytest.raises(ValueError, match="one floating dtype and device"):
        rope(x, table.double(), table)
    with pytest.raises(ValueError, match="no gradient"):
        rope(x, table.requires_grad_(), table)
