"""The CPU's own kernels against the float64 definitions, with every instruction set that this processor has."""

import math
from dataclasses import replace

import pytest
import torch

from fastreason import _core
from fastreason.kernels import Segments, attention, cpu_kernels, cross_entropy, policy_loss, rope, swiglu
from fastreason.kernels.attention import attention_ref
from fastreason.kernels.cross_entropy import cross_entropy_ref
from fastreason.kernels.rms_norm import add_rms_norm, add_rms_norm_ref, rms_norm_ref
from fastreason.kernels.rope import rope_angles, rope_ref
from fastreason.kernels.swiglu import swiglu_ref
from fastreason.kernels.triton_support import INTERPRETED

from .numerics import check_errors, value_and_gradients
from .test_policy_loss import batch as policy_batch
from .test_policy_loss import check as check_policy_loss
from .test_policy_loss import loss_and_gradient


@pytest.fixture(params=["baseline", "avx2", "avx512", "amx"], autouse=True)
def isa(request):
    if not _core.cpu.use(request.param):
        pytest.skip(f"this processor has no {request.param}")
    yield request.param
    _core.cpu.use("")


def random(*shape, seed=0, scale=1.0):
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


DOCUMENTS = Segments.from_lengths([1, 17, 64, 100, 3])
LAYOUTS = {
    "documents": DOCUMENTS,
    "padding behind": replace(DOCUMENTS, num_tokens=192),
    "gaps": Segments(torch.tensor([3, 40]), torch.tensor([20, 50]), torch.tensor([-1, -1]), 100),
    "groups": Segments.from_groups([20, 33], torch.tensor([[5, 60, 1], [7, 17, 80]])),
}


# one vector a head and several; GQA and none; a scale that is not the usual
@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("H, K, D", [(4, 2, 16), (5, 1, 64), (2, 2, 96)])
def test_attention_is_its_definition(name, H, K, D):
    segments = LAYOUTS[name]
    T = segments.num_tokens
    inputs = [random(T, heads, D, seed=i) for i, heads in enumerate((H, K, K))]
    check_errors(
        lambda q, k, v: cpu_kernels.attention(q, k, v, segments, 0.3),
        lambda q, k, v: attention_ref(q, k, v, segments, 0.3),
        inputs,
        [random(T, H, D, seed=3)],
    )


def test_attention_reads_views_and_ignores_what_is_outside():
    segments, H, K, D = LAYOUTS["gaps"], 4, 2, 16
    qkv = random(100, (H + 2 * K) * D).unflatten(1, (-1, D))
    views = qkv.split([H, K, K], dim=1)
    y = cpu_kernels.attention(*views, segments, 0.25)
    assert torch.equal(y, cpu_kernels.attention(*(x.contiguous() for x in views), segments, 0.25))
    assert not y[:3].any() and not y[23:40].any() and not y[90:].any()
    qkv[:3], qkv[23:40], qkv[90:] = (float("nan"),) * 3
    assert torch.equal(y, cpu_kernels.attention(*qkv.split([H, K, K], dim=1), segments, 0.25))


def test_a_segment_does_not_depend_on_its_batch_nor_on_threads():
    segments = LAYOUTS["groups"]
    T, before = segments.num_tokens, torch.get_num_threads()
    q, k, v = (random(T, heads, 16, seed=i) for i, heads in enumerate((4, 2, 2)))
    found = {}
    for threads in (1, 3):
        torch.set_num_threads(threads)
        found[threads] = value_and_gradients(
            lambda *x: cpu_kernels.attention(*x, segments, 0.25), (q, k, v), [random(T, 4, 16, seed=9)]
        )
    torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(found[1], found[3], strict=True))
    alone = Segments.from_groups([20], torch.tensor([[5, 60, 1]]))
    n = alone.num_tokens
    assert torch.equal(cpu_kernels.attention(q[:n], k[:n], v[:n], alone, 0.25), found[1][0][:n])


@pytest.mark.parametrize("N, D", [(1, 16), (600, 64), (257, 320)])
def test_rms_norm_is_its_definition(N, D):
    check_errors(
        lambda x, w: cpu_kernels.rms_norm(x, w, 1e-6),
        lambda x, w: rms_norm_ref(x, w, 1e-6),
        [random(N, D), random(D, seed=1)],
        [random(N, D, seed=2)],
    )


@pytest.mark.parametrize("N, D", [(1, 16), (600, 64), (257, 320)])
def test_add_rms_norm_of_a_branch_in_bfloat16_is_its_definition(N, D):
    x, cotangent = random(N, D).bfloat16(), random(N, D, seed=2)
    residual, weight = random(N, D, seed=1), random(D, seed=3)
    check_errors(
        lambda *given: add_rms_norm(*given, 1e-6),
        lambda *given: add_rms_norm_ref(*given, 1e-6),
        [x, residual, weight],
        [cotangent, random(N, D, seed=4)],
    )
    y, total = add_rms_norm(x, residual, weight, 1e-6)
    assert torch.equal(total, x.float() + residual)
    assert torch.equal(y, cpu_kernels.rms_norm(total, weight, 1e-6).bfloat16())


def test_add_rms_norm_of_which_one_output_alone_is_used():
    inputs = [random(40, 64).bfloat16(), random(40, 64, seed=1), random(64, seed=2)]
    for i in (0, 1):
        leaves = [x.clone().requires_grad_() for x in inputs]
        add_rms_norm(*leaves, 1e-6)[i].float().sum().backward()
        exact = [x.double().requires_grad_() for x in inputs]
        add_rms_norm_ref(*exact, 1e-6)[i].sum().backward()
        for mine, truth in zip(leaves, exact, strict=True):
            assert (mine.grad is None) == (truth.grad is None)
            if truth.grad is not None:
                torch.testing.assert_close(mine.grad.double(), truth.grad, atol=2e-2, rtol=2**-7)


@pytest.mark.parametrize("shape", [(1, 32), (70, 320), (2, 3, 64)])
def test_swiglu_is_its_definition(shape):
    cotangent = random(*shape[:-1], shape[-1] // 2, seed=1)
    check_errors(cpu_kernels.swiglu, swiglu_ref, [random(*shape, scale=3.0)], [cotangent])


# halves of one vector, of less and of several; heads of a wider matrix
@pytest.mark.parametrize("D", [2, 10, 16, 64, 96])
def test_rope_is_its_definition(D):
    cos, sin = rope_angles(torch.arange(70) * 7, D, 1000.0, torch.float32)
    check_errors(
        lambda x: cpu_kernels.rope(x[:, :6], cos, sin),
        lambda x: rope_ref(x[:, :6], cos.to(x.dtype), sin.to(x.dtype)),
        [random(70, 8, D)],
        [random(70, 6, D, seed=1)],
    )


# widths below, at and above whole vectors
@pytest.mark.parametrize("V", [1, 16, 283, 2200])
@pytest.mark.parametrize("z_loss", [0.0, 0.1])
def test_cross_entropy_is_its_definition(V, z_loss):
    labels, weights = torch.randint(0, V, (70,), generator=torch.Generator().manual_seed(1)), random(70, seed=2).abs()
    labels[3], weights[5] = -100, 0.0
    logits = random(70, V, scale=4.0)
    check_errors(
        lambda x: cross_entropy(x, labels, weights, z_loss=z_loss),
        lambda x: cross_entropy_ref(x, labels, weights.to(x.dtype), z_loss=z_loss),
        [logits],
        [torch.tensor(0.7)],
    )


def test_bfloat16_is_float32_rounded_at_the_end():
    """What linear layers give under autocast: read as it is, computed in float32, rounded once."""
    segments = LAYOUTS["groups"]
    T = segments.num_tokens
    cos, sin = rope_angles(torch.arange(T), 16, 1000.0, torch.bfloat16)
    labels = torch.randint(0, 283, (T,), generator=torch.Generator().manual_seed(1))
    attended = [random(T, heads, 16, seed=i) for i, heads in enumerate((4, 2, 2))]
    for run, inputs, cotangent in [
        (lambda *x: attention(*x, segments, scale=0.25), attended, random(T, 4, 16, seed=9)),
        (lambda x: rope(x, cos.to(x.dtype), sin.to(x.dtype)), [random(T, 6, 16)], random(T, 6, 16, seed=1)),
        (swiglu, [random(T, 96, scale=3.0)], random(T, 48, seed=1)),
        (lambda x: cross_entropy(x, labels, z_loss=0.1), [random(T, 283, scale=4.0)], torch.tensor(1.0)),
    ]:
        half, cotangent = [x.bfloat16() for x in inputs], cotangent.bfloat16().float()
        narrow = value_and_gradients(run, half, [cotangent])
        wide = value_and_gradients(run, [x.float() for x in half], [cotangent])
        assert narrow[0].dtype == (torch.float32 if cotangent.ndim == 0 else torch.bfloat16)
        for mine, exact in zip(narrow, wide, strict=True):
            assert torch.equal(mine, exact.to(mine.dtype))


def test_bfloat16_keeps_what_is_not_finite_and_rounds_ties_to_even():
    inf, nan = float("inf"), float("nan")
    # silu is x itself for a large gate: rounding of gate * up
    gate_up = torch.full((1, 64), 64.0).bfloat16()
    gate_up[0, :4] = torch.tensor([inf, nan, 2.0**127, 65.0])
    gate_up[0, 32:36] = torch.tensor([1.0, 1.0, 64.0, 1.0078125])
    y = swiglu(gate_up)[0]
    assert y[0] == inf and y[1].isnan() and y[2] == inf
    assert y[3] == torch.tensor(65.0 * 1.0078125).bfloat16()


POLICY_SHAPES = [(5, 1), (9, 16), (70, 283), (9, 2200)]


@pytest.mark.parametrize("N, V", POLICY_SHAPES)
@pytest.mark.parametrize("references", ["", "logprobs", "logits"])
def test_policy_loss_is_its_definition(N, V, references):
    """Gradient with and without entropy bonus; a masked row; every instruction set."""
    b = policy_batch(N, V)
    b.weights[2] = 0.0
    for entropy_coef in (0.0, 0.05):
        check_policy_loss(b, references=references, entropy_coef=entropy_coef, clip_dual=1.3)


@pytest.mark.parametrize("kind", ["grpo", "gspo", "cispo", "reinforce"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_policy_loss_of_every_kind_and_precision(kind, dtype):
    b = policy_batch(40, 283, dtype)
    # bfloat16: sums are those of float32, only the gradient is rounded: by at most half its unit of 2^-7
    check_policy_loss(b, kind=kind, references="logits", limit=1e-6 if dtype == torch.float32 else 2**-8)


def test_policy_loss_does_not_depend_on_threads():
    b, before, found = policy_batch(500, 283), torch.get_num_threads(), []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        result, gradient = loss_and_gradient(policy_loss, b, references="logits", entropy_coef=0.1)
        found.append((result.totals_K, result.logprobs_N, gradient))
    torch.set_num_threads(before)
    assert all(torch.equal(one, three) for one, three in zip(*found, strict=True))


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_policy_loss_of_logits_that_are_not_finite_is_seen(value):
    b = policy_batch(4, 40)
    b.logits[1, 7] = value
    result, gradient = loss_and_gradient(policy_loss, b, entropy_coef=0.1)
    assert result.loss.isnan() and result.ratio_max.isnan()
    assert gradient[1].isnan().all() and gradient[[0, 2, 3]].isfinite().all()


def test_policy_loss_of_a_token_outside_the_vocabulary_is_an_error_where_it_counts():
    b = policy_batch(4, 40)
    b.tokens[1] = 40
    with pytest.raises(IndexError, match=r"policy_loss: tokens must be in 0 \.\. 39 where the weight is not 0"):
        loss_and_gradient(policy_loss, b)
    b.weights[1] = 0.0
    assert not loss_and_gradient(policy_loss, b)[1][1].any()


def test_a_loss_of_logits_that_are_not_finite_is_not_a_number():
    logits = random(4, 40)
    logits[2, 7] = float("nan")
    assert cross_entropy(logits, torch.zeros(4, dtype=torch.int64)).isnan()
    q = random(8, 2, 16)
    q[3] = float("inf")
    assert cpu_kernels.attention(q, q, q, Segments.from_lengths([8]), 1.0).isnan().any()


def test_a_label_that_is_no_token_is_an_error():
    with pytest.raises(IndexError, match=r"labels must be in 0 \.\. 39 or ignore_index"):
        cpu_kernels.cross_entropy(random(4, 40), torch.tensor([0, 40, 1, 2]), torch.full((4,), 0.25), 0.0)


def test_what_does_not_suit_runs_the_definition():
    x = random(4, 32)
    assert cpu_kernels.suits(x, widths=(16,)) is not INTERPRETED
    assert (
        not cpu_kernels.suits(x, widths=(24,))
        and not cpu_kernels.suits(x.double(), dtypes=cpu_kernels.FLOAT32_OR_BFLOAT16)
        and not cpu_kernels.suits(x.bfloat16())
    )
