"""RMSNorm: the Triton kernels against the float64 definition, forward and backward."""

import importlib

import pytest
import torch

from fastreason.kernels import rms_norm
from fastreason.kernels.rms_norm import add_rms_norm, add_rms_norm_ref, branch_norm, rms_norm_ref, spread

from .conftest import needs_triton
from .numerics import check_compiled, check_op, relative, value_and_gradients

# rows that fill no tile, one tile and many; widths of a power of two and not; one, and a wide one
SHAPES = [(1, 1), (3, 64), (5, 48), (33, 96), (130, 768), (7, 5000), (2050, 16)]


def data(shape, dtype, device, seed=0):
    g = torch.Generator().manual_seed(seed)
    x, residual, dy, dsum = (torch.randn(shape, generator=g).to(dtype).to(device) for _ in range(4))
    weight = (1 + 0.1 * torch.randn(shape[1], generator=g)).to(dtype).to(device)
    return x, residual, weight, dy, dsum


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-6), (torch.float16, 5e-4), (torch.bfloat16, 8e-3)])
@pytest.mark.parametrize("with_residual", [False, True])
def test_is_its_definition(shape, dtype, tolerance, with_residual, device):
    x, residual, weight, dy, dsum = data(shape, dtype, device)
    if with_residual:
        check_sum_and_norm(x, residual, weight, dy, dsum, tolerance)
        return
    leaves = [x.requires_grad_(), weight.requires_grad_()]
    exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
    ours, truth = rms_norm(*leaves, 1e-6), rms_norm_ref(*exact, 1e-6)
    grads = torch.autograd.grad(ours, leaves, dy)
    true_grads = torch.autograd.grad(truth, exact, dy.double())
    check_values((ours, *grads), (truth, *true_grads), (x, x, weight), tolerance)


@pytest.mark.parametrize("shape", [(1, 1), (5, 48), (130, 768)], ids=str)
@pytest.mark.parametrize("dtype, tolerance", [(torch.float16, 5e-4), (torch.bfloat16, 8e-3)])
def test_a_branch_of_16_bits_on_a_float32_residual(shape, dtype, tolerance, device):
    """As under autocast: the norm and the gradient of the branch have its dtype, everything else is float32."""
    _, residual, weight, _, dsum = data(shape, torch.float32, device)
    x, _, _, dy, _ = data(shape, dtype, device)
    check_sum_and_norm(x, residual, weight, dy, dsum, tolerance)
    total = add_rms_norm(x, residual, weight)[1]
    assert torch.equal(total, x + residual)
    if dtype == torch.bfloat16:  # that of the sum alone, which no norm follows
        (dx,) = torch.autograd.grad(add_rms_norm(x, residual, weight)[1], x, dsum)
        assert torch.equal(dx, dsum.to(dtype))


def check_sum_and_norm(x, residual, weight, dy, dsum, tolerance):
    leaves = [x.requires_grad_(), residual.requires_grad_(), weight.requires_grad_()]
    exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
    # the sum is rounded to the dtype of the residual before it is normalised, so the truth starts from that
    ours, truth = add_rms_norm(*leaves, 1e-6), add_rms_norm_ref(*exact, 1e-6)
    grads = torch.autograd.grad(ours, leaves, (dy, dsum))
    true_grads = torch.autograd.grad(truth, exact, (dy.double(), dsum.double()))
    check_values((*ours, *grads), (*truth, *true_grads), (x, residual, x, residual, weight), tolerance)


def check_values(ours, truth, like, tolerance):
    for a, b, c in zip(ours, truth, like, strict=True):
        assert a.dtype == c.dtype
        assert a.shape == b.shape
        if b.norm() > 1e-3:  # at width 1 the gradient of x is 0 up to eps
            assert relative(a, b) < (1e-6 if a.dtype == torch.float32 else tolerance)
        else:
            assert (a.double() - b).abs().max() < 1e-3


def test_against_transformers(device):
    from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm

    x, _, weight, _, _ = data((9, 64), torch.float32, device)
    theirs = Qwen2RMSNorm(64, eps=1e-6).to(device)
    theirs.weight.data.copy_(weight)
    torch.testing.assert_close(rms_norm(x, weight, 1e-6), theirs(x), atol=2e-6, rtol=2e-6)


def test_gradcheck_of_the_definition():
    x, weight = torch.randn(3, 4, dtype=torch.float64), torch.randn(4, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda x, w: rms_norm_ref(x, w, 1e-6), (x.requires_grad_(), weight.requires_grad_())
    )


@needs_triton
@pytest.mark.parametrize("value", [1e-30, 1e18])
def test_extreme_values_stay_finite(value, device):
    x = torch.full((4, 64), value, device=device)
    out = rms_norm(x, torch.ones(64, device=device), 1e-6)
    assert torch.isfinite(out).all()
    torch.testing.assert_close(out.double(), rms_norm_ref(x.double(), torch.ones(64, device=device).double(), 1e-6))


@needs_triton
def test_a_row_of_zeros_gives_zeros(device):
    x = torch.zeros(3, 64, device=device, requires_grad=True)
    out = rms_norm(x, torch.ones(64, device=device), 1e-6)
    out.sum().backward()
    assert not out.any()
    assert torch.isfinite(x.grad).all()


@needs_triton
def test_the_same_bits_every_time_and_rows_do_not_mix(device):
    x, _, weight, dy, _ = data((70, 96), torch.float32, device)

    def once(rows):
        leaf, w = x[rows].clone().requires_grad_(), weight.clone().requires_grad_()
        out = rms_norm(leaf, w, 1e-6)
        out.backward(dy[rows])
        return out.detach(), leaf.grad, w.grad

    first, again = once(slice(None)), once(slice(None))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    permutation = torch.randperm(70, generator=torch.Generator().manual_seed(0)).to(device)
    permuted = once(permutation)
    assert torch.equal(permuted[0], first[0][permutation])
    assert torch.equal(permuted[1], first[1][permutation])


@needs_triton
def test_rows_that_are_not_contiguous(device):
    x, _, weight, dy, _ = data((8, 64), torch.float32, device)
    strided = x.t().contiguous().t()
    out = rms_norm(strided.requires_grad_(), weight, 1e-6)
    out.backward(dy.t().contiguous().t())
    assert torch.equal(out, rms_norm(x, weight, 1e-6))


@needs_triton
@pytest.mark.parametrize("with_residual", [False, True])
def test_as_an_operator(with_residual, device):
    x, residual, weight, dy, dsum = data((5, 48), torch.float32, device)
    rstd = torch.rand(5, device=device)
    leaves = [a.requires_grad_() for a in (x, residual, weight)]
    if with_residual:
        check_op(torch.ops.fastreason.rms_norm.default, *leaves, 1e-6, None)
        for upstream in (dy, dy.bfloat16()):
            saved = (x.detach(), weight.detach(), rstd)
            check_op(torch.ops.fastreason.rms_norm_backward.default, upstream, dsum, *saved, True)
        check_op(torch.ops.fastreason.rms_norm.default, x.detach().bfloat16(), residual, weight, 1e-6, None)
        check_compiled(add_rms_norm, *leaves)
    else:
        for dtype in (None, torch.bfloat16):
            check_op(torch.ops.fastreason.rms_norm.default, leaves[0], None, leaves[2], 1e-6, dtype)
        strided = x.detach().t().contiguous().t()
        check_op(torch.ops.fastreason.rms_norm.default, strided, None, weight.detach(), 1e-6, None)
        check_op(torch.ops.fastreason.rms_norm_backward.default, dy, None, x.detach(), weight.detach(), rstd, False)
        check_compiled(rms_norm, leaves[0], leaves[2])


@needs_triton
def test_either_output_may_be_used_alone(device):
    x, residual, weight, dy, dsum = data((5, 48), torch.float32, device)
    leaves = [a.requires_grad_() for a in (x, residual, weight)]
    y, total = add_rms_norm(*leaves)
    dx, dresidual = torch.autograd.grad(total, leaves[:2], dsum, retain_graph=True)
    assert torch.equal(dx, dsum)
    assert torch.equal(dresidual, dsum)
    both = torch.autograd.grad((y, total), leaves, (dy, torch.zeros_like(dsum)), retain_graph=True)
    for a, b in zip(torch.autograd.grad(y, leaves, dy), both, strict=True):
        torch.testing.assert_close(a, b, atol=0, rtol=1e-6)


@needs_triton
def test_programs_of_several_tiles(device, monkeypatch):
    """More tiles than programs in both directions, and a last program that is not full."""
    module = importlib.import_module("fastreason.kernels.rms_norm")  # the attribute of that name is the function
    monkeypatch.setattr(module, "_MAX_FORWARD_PROGRAMS", 4)
    monkeypatch.setattr(module, "_MAX_BACKWARD_PROGRAMS", 4)
    x, _, weight, dy, _ = data((19, 2048), torch.float32, device)  # one row a tile at this width
    leaves = [x.requires_grad_(), weight.requires_grad_()]
    exact = [a.detach().double().requires_grad_() for a in leaves]
    ours, truth = rms_norm(*leaves, 1e-6), rms_norm_ref(*exact, 1e-6)
    grads = torch.autograd.grad(ours, leaves, dy)
    true_grads = torch.autograd.grad(truth, exact, dy.double())
    for a, b in zip((ours, *grads), (truth, *true_grads), strict=True):
        assert relative(a, b) < 1e-6


def test_no_rows(device):
    x, weight = torch.zeros(0, 8, device=device, requires_grad=True), torch.ones(8, device=device, requires_grad=True)
    rms_norm(x, weight, 1e-6).sum().backward()
    assert x.grad.shape == (0, 8)
    assert not weight.grad.any()


@pytest.mark.parametrize(
    "x, weight, eps, message",
    [
        ((3, 4), (5,), 1e-6, r"weight \[D\] with D in 1 \.\. 16384, got \(3, 4\) and \(5,\)"),
        ((3, 4, 4), (4,), 1e-6, r"need x \[N, D\]"),
        ((3, 4), (4,), 0.0, "eps must be > 0, got 0.0"),
    ],
)
def test_refuses_bad_input(x, weight, eps, message):
    with pytest.raises(ValueError, match=message):
        rms_norm(torch.zeros(x), torch.zeros(weight), eps)


def test_refuses_mixed_dtypes():
    with pytest.raises(ValueError, match="one floating dtype and device"):
        rms_norm(torch.zeros(3, 4), torch.zeros(4, dtype=torch.float64), 1e-6)
    with pytest.raises(ValueError, match="residual"):
        add_rms_norm(torch.zeros(3, 4), torch.zeros(2, 4), torch.zeros(4), 1e-6)
    narrow = torch.zeros(3, 4, dtype=torch.bfloat16)  # a float32 branch is not rounded to a narrower stream
    with pytest.raises(ValueError, match=r"x must be like residual, torch\.bfloat16"):
        add_rms_norm(torch.zeros(3, 4), narrow, torch.zeros(4, dtype=torch.bfloat16), 1e-6)


def test_the_norm_of_a_sum_alone_in_16_bits_is_that_in_float32_cast(device):
    """As of the last block, whose sum nothing else reads: no cast changes a bit, backward either."""
    g = torch.Generator().manual_seed(0)
    x, residual, dy = (torch.randn(70, 48, generator=g).to(device) for _ in range(3))
    weight = torch.rand(48, generator=g).to(device)
    inputs = x.bfloat16(), residual, weight
    fused = value_and_gradients(lambda x, r, w: add_rms_norm(x, r, w)[0], inputs, [dy])
    apart = value_and_gradients(lambda x, r, w: rms_norm(x + r, w).bfloat16(), inputs, [dy])
    assert [a.dtype for a in fused] == [torch.bfloat16, torch.bfloat16, torch.float32, torch.float32]
    assert all(map(torch.equal, fused, apart))


@needs_triton
@pytest.mark.parametrize("shape", [(0, 8), (5, 48), (130, 768)], ids=str)
def test_the_norm_that_begins_a_stream_has_the_bits_of_casts_and_an_addition(shape, device):
    x, _, weight, dy, dsum = data(shape, torch.float32, device)
    run = [
        lambda x, w: branch_norm(x, w, 1e-6, torch.bfloat16),
        lambda x, w: (rms_norm(x, w, 1e-6).bfloat16(), x * 1.0),
    ]
    ours, apart = (value_and_gradients(each, (x, weight), [dy, dsum]) for each in run)
    assert [a.dtype for a in ours] == [torch.bfloat16, *[torch.float32] * 3]
    assert all(map(torch.equal, ours, apart))
    leaf = x.clone().requires_grad_()
    y, again = branch_norm(leaf, weight, 1e-6, torch.bfloat16)
    assert torch.equal(torch.autograd.grad(again, leaf, dsum, retain_graph=True)[0], dsum)
    alone = torch.autograd.grad(rms_norm(leaf, weight, 1e-6), leaf, dy.bfloat16().float())[0]
    assert torch.equal(torch.autograd.grad(y, leaf, dy.bfloat16())[0], alone)
    if shape[0]:
        check_compiled(lambda x, w: branch_norm(x, w, 1e-6, torch.bfloat16), leaf, weight.requires_grad_())


@needs_triton
@pytest.mark.parametrize("shape", [(0, 8), (3, 64), (130, 768), (2050, 16)], ids=str)
@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-6), (torch.bfloat16, 8e-3)])
def test_weights_of_two_norms_whose_gradients_are_summed_at_once(shape, dtype, tolerance, device):
    """Programs without tokens, of one tile and of several; the second norm takes the branch and the stream."""
    x, w1, w2, dy, dsum = (a.to(device) for a in inputs_of_two_norms(shape))
    dy = dy.to(dtype)

    def both(x, w1, w2, branch_dtype):
        branch = rms_norm(x, w1) if x.dtype == torch.float32 else rms_norm_ref(x, w1, 1e-6)
        add = add_rms_norm if x.dtype == torch.float32 else lambda *given: add_rms_norm_ref(*given, 1e-6)
        return add(branch.to(branch_dtype), x, w2)

    ours = value_and_gradients(lambda x, a, b: both(x, *spread([a, b]), dtype), (x, w1, w2), [dy, dsum])
    truth = value_and_gradients(
        lambda x, a, b: both(x, a, b, torch.float64), [a.double() for a in (x, w1, w2)], [dy.double(), dsum.double()]
    )
    assert [a.dtype for a in ours] == [dtype, *[torch.float32] * 4]
    if shape[0] == 0:
        assert not ours[3].any() and not ours[4].any() and ours[4].shape == w2.shape
        return
    for a, b in zip(ours, truth, strict=True):
        assert relative(a, b) < tolerance


def inputs_of_two_norms(shape):
    g = torch.Generator().manual_seed(0)
    x, dy, dsum = (torch.randn(shape, generator=g) for _ in range(3))
    w1, w2 = (1 + 0.1 * torch.randn(shape[1], generator=g) for _ in range(2))
    return x, w1, w2, dy, dsum
