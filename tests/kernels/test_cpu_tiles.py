"""Products of bfloat16 by tile registers (AMX) against the float64 definitions."""

import pytest
import torch

from fastreason import _core
from fastreason.kernels import Segments, cpu_kernels, linear
from fastreason.kernels.rope import rope_angles
from fastreason.kernels.rope_attention import rope_attention, rope_attention_ref

from .numerics import check_errors, relative, value_and_gradients
from .test_cpu_kernels import LAYOUTS, random

# one tile of queries and several, at its border and beside it, and more than a block of them
LENGTHS = Segments.from_lengths([300, 5, 129, 128, 32, 33, 1])


@pytest.fixture(autouse=True)
def tiles():
    if not _core.cpu.use("amx"):
        pytest.skip("this processor has no tile registers, or Linux does not lend them")
    yield
    _core.cpu.use("")


def attention_of(segments, heads, kv_heads, run=rope_attention):
    def attend(qkv):
        D = qkv.shape[1] // (heads + 2 * kv_heads)
        cos, sin = rope_angles(torch.arange(len(qkv)) % 90, D, 1000.0, torch.bfloat16)
        return run(qkv, cos.to(qkv.dtype), sin.to(qkv.dtype), segments, heads=heads, kv_heads=kv_heads)[0]

    return attend


@pytest.mark.parametrize("name", [*LAYOUTS, "lengths"])
@pytest.mark.parametrize("H, K, D", [(4, 2, 32), (5, 1, 64), (2, 2, 96)])
def test_attention_is_its_definition(name, H, K, D):
    """Within twice the error of torch's attention in bfloat16."""
    segments = LAYOUTS.get(name, LENGTHS)
    T = segments.num_tokens
    qkv = random(T, (H + 2 * K) * D).bfloat16()
    assert cpu_kernels.suits_tiles(qkv, head_dim=D)
    definition = attention_of(segments, H, K, rope_attention_ref)
    check_errors(attention_of(segments, H, K), definition, [qkv], [random(T, H, D, seed=3)])


def test_keys_and_values_are_those_that_a_cache_needs():
    segments, H, K, D = LAYOUTS["groups"], 4, 2, 32
    T = segments.num_tokens
    qkv, (cos, sin) = random(T, (H + 2 * K) * D).bfloat16(), rope_angles(torch.arange(T), D, 1e3, torch.bfloat16)
    mine = rope_attention(qkv, cos, sin, segments, heads=H, kv_heads=K)
    assert _core.cpu.use("baseline")
    theirs = rope_attention(qkv, cos, sin, segments, heads=H, kv_heads=K)
    assert all(torch.equal(a, b) for a, b in zip(mine[1:], theirs[1:], strict=True))


def test_what_is_outside_of_the_segments_is_not_read_and_has_no_gradient():
    segments, H, K, D = LAYOUTS["gaps"], 4, 2, 32
    outside = torch.ones(100, dtype=torch.bool)
    outside[3:23] = outside[40:90] = False
    qkv, cotangent = random(100, (H + 2 * K) * D).bfloat16(), random(100, H, D, seed=1)
    before = value_and_gradients(attention_of(segments, H, K), [qkv], [cotangent])
    qkv[outside], cotangent[outside] = float("nan"), float("nan")
    after = value_and_gradients(attention_of(segments, H, K), [qkv], [cotangent])
    for one, other in zip(before, after, strict=True):
        assert torch.equal(one, other) and not one[outside].any() and one[~outside].any()


def test_a_segment_does_not_depend_on_its_batch_nor_anything_on_threads():
    segments, H, K, D = LAYOUTS["groups"], 4, 2, 32
    T, before = segments.num_tokens, torch.get_num_threads()
    qkv, cotangent = random(T, (H + 2 * K) * D).bfloat16(), random(T, H, D, seed=9)
    dy, x = random(700, 96).bfloat16(), random(700, 400, seed=1).bfloat16()
    found = {}
    for threads in (1, 3):
        torch.set_num_threads(threads)
        found[threads] = value_and_gradients(attention_of(segments, H, K), [qkv], [cotangent])
        found[threads].append(cpu_kernels.weight_gradient(dy, x))
    torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(found[1], found[3], strict=True))
    alone = Segments.from_groups([20], torch.tensor([[5, 60, 1]]))
    n = alone.num_tokens
    assert torch.equal(attention_of(alone, H, K)(qkv[:n]), found[1][0][:n])


# parts of a tile, several chunks of rows, and blocks of the wider operand, which is either
@pytest.mark.parametrize("N, M, K", [(1, 1, 1), (70, 50, 33), (64, 128, 64), (1100, 353, 320), (530, 64, 700)])
def test_weight_gradient_is_its_definition(N, M, K):
    dy, x = random(N, M).bfloat16(), random(N, K, seed=1).bfloat16()
    truth = dy.double().t() @ x.double()
    found = cpu_kernels.weight_gradient(dy, x)
    assert found.dtype == torch.float32
    assert relative(found, truth) <= 1e-6
    # rows that are not adjacent, and columns that are
    wide = torch.cat([dy, dy], dim=1)
    assert torch.equal(cpu_kernels.weight_gradient(wide[:, M:], x), found)
    assert torch.equal(cpu_kernels.weight_gradient(dy.t().contiguous().t(), x), found)


def test_a_linear_layer_with_narrow_weights_sums_its_gradient_in_float32():
    x, weight, dy = (
        random(96, 64).bfloat16(),
        random(80, 64, seed=1).requires_grad_(),
        random(96, 80, seed=2).bfloat16(),
    )
    linear(x, weight, narrow=(weight.detach().bfloat16(), None)).backward(dy)
    assert relative(weight.grad, dy.double().t() @ x.double()) <= 1e-6


def test_what_does_not_suit_goes_elsewhere():
    x = random(4, 32).bfloat16()
    assert cpu_kernels.suits_tiles(x) and not cpu_kernels.suits_tiles(x, head_dim=48)
    assert not cpu_kernels.suits_tiles(x.float()) and not cpu_kernels.suits_tiles(x, x.half())
    assert _core.cpu.use("avx512") and not cpu_kernels.suits_tiles(x)
