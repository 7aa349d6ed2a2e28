"""Cross entropy: the Triton kernels against the float64 definition, masks, weights, z-loss, how gradients arrive."""

import math

import pytest
import torch
import torch.nn.functional as F

from fastreason.kernels import cross_entropy, logit_rows
from fastreason.kernels.cross_entropy import cross_entropy_ref, shares_of
from fastreason.kernels.logit_rows import scalars, unit

from .conftest import needs_triton
from .numerics import check_compiled, check_errors, check_op, value_and_gradients

# a tile with a tail of several lanes, of one lane, no tail, one column; odd; the limit of one pass, and past it
SHAPES = [(17, 2200), (3, 2199), (5, 257), (4, 64), (17, 1), (1, 7), (2, 8192), (2, 8193)]


def data(shape, dtype=torch.float32, device="cpu", seed=0):
    g = torch.Generator().manual_seed(seed)
    N, V = shape
    logits = (3.0 * torch.randn(N, V, generator=g)).to(dtype)
    labels, weights = torch.randint(V, (N,), generator=g), 0.5 + torch.rand(N, generator=g)
    return logits.to(device), labels.to(device), weights.to(device)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("z_loss", [0.0, 1e-2])
def test_is_its_definition(shape, dtype, z_loss, device):
    logits, labels, weights = data(shape, dtype, device)
    upstream = torch.tensor(1.0 if z_loss else 0.5, device=device)

    def run(logits):
        return cross_entropy(logits, labels, weights, z_loss=z_loss)

    def definition(logits):
        return cross_entropy_ref(logits, labels, weights, z_loss=z_loss)

    check_errors(run, definition, [logits], [upstream])


@needs_triton
def test_the_vocabulary_of_a_large_model(device):
    logits, labels, weights = data((2, 151_936), torch.float32, device)
    check_errors(
        lambda x: cross_entropy(x, labels, weights, z_loss=1e-3),
        lambda x: cross_entropy_ref(x, labels, weights, z_loss=1e-3),
        [logits],
        [torch.tensor(1.0)],
    )


@pytest.mark.parametrize("z_loss", [0.0, 0.1])
def test_the_definition_is_its_formula(z_loss):
    logits, labels, weights = data((12, 7), torch.float64)
    weights = weights.double()
    logprob = logits.log_softmax(-1)[torch.arange(12), labels]
    terms = -logprob + z_loss * logits.logsumexp(1) ** 2
    torch.testing.assert_close(cross_entropy(logits, labels, z_loss=z_loss), terms.mean())
    want = (terms * weights).sum() / weights.sum()
    torch.testing.assert_close(cross_entropy(logits, labels, weights, z_loss=z_loss), want)
    few, few_labels, few_weights = logits[:3, :4], labels[:3] % 4, weights[:3]
    assert torch.autograd.gradcheck(
        lambda x: cross_entropy_ref(x, few_labels, few_weights, z_loss=z_loss), few.clone().requires_grad_()
    )


@pytest.mark.parametrize("shape", [(6, 257), (6, 8200)], ids=str)
def test_masked_rows_count_for_nothing(shape, device):
    logits, labels, weights = data(shape, torch.float32, device)
    labels[1] = -100
    weights[4] = 0.0
    kept = torch.tensor([0, 2, 3, 5], device=device)
    loss, grad = value_and_gradients(
        lambda x: cross_entropy(x, labels, weights, z_loss=0.01), [logits], [torch.ones(())]
    )
    alone, alone_grad = value_and_gradients(
        lambda x: cross_entropy(x, labels[kept], weights[kept], z_loss=0.01), [logits[kept]], [torch.ones(())]
    )
    torch.testing.assert_close(loss, alone, atol=0, rtol=1e-6)
    torch.testing.assert_close(grad[kept], alone_grad, atol=0, rtol=1e-5)
    assert not grad[[1, 4]].any()
    other = torch.where(labels == -100, 7, labels)
    assert torch.equal(cross_entropy(logits, other, weights, ignore_index=7), cross_entropy(logits, labels, weights))


@pytest.mark.parametrize("V", [257, 8200])
def test_no_row_that_counts_gives_zero(V, device):
    logits, labels, _ = data((3, V), torch.float32, device)
    loss, grad = value_and_gradients(
        lambda x: cross_entropy(x, torch.full_like(labels, -100)), [logits], [torch.ones(())]
    )
    assert loss == 0.0
    assert not grad.any()
    assert cross_entropy(logits[:0], labels[:0]) == 0.0


@pytest.mark.parametrize("V, dtype", [(40, torch.float32), (8200, torch.float32), (40, torch.float64)])
def test_what_masked_rows_hold_does_not_matter(V, dtype, device):
    """Bitwise: NaN, infinity, or a label that is none, as if there were anything else."""
    logits, labels, weights = data((4, V), torch.float32, device)
    logits, weights = logits.to(dtype), weights.to(dtype)
    weights[1], labels[3] = 0.0, -100

    def run():
        return value_and_gradients(lambda x: cross_entropy(x, labels, weights, z_loss=0.1), [logits], [torch.ones(())])

    wanted = run()
    logits[1], logits[3], labels[1], weights[3] = float("nan"), float("inf"), V, float("nan")
    loss, grad = run()
    assert torch.equal(loss, wanted[0])
    assert torch.equal(grad, wanted[1])
    assert not grad[[1, 3]].any()


@pytest.mark.parametrize("V", [257, 8200])
@pytest.mark.parametrize("lowest", [-1e31, torch.finfo(torch.float32).min])
def test_logits_near_the_lowest_number(V, lowest, device):
    """A row of nothing but masks written as a very low number is uniform; one of them beside others has no weight."""
    logits, labels, _ = data((2, V), torch.float32, device)
    logits[0] = lowest
    logits[1, : V // 2] = lowest
    labels[0], labels[1] = 0, V - 1
    loss, grad = value_and_gradients(lambda x: cross_entropy(x, labels), [logits], [torch.ones(())])
    beside = F.cross_entropy(logits[1:, V // 2 :], labels[1:] - V // 2)
    torch.testing.assert_close(loss, 0.5 * (math.log(V) + beside))
    torch.testing.assert_close(grad[0, 1:], torch.full_like(grad[0, 1:], 0.5 / V))
    assert not grad[1, : V // 2].any()


@pytest.mark.parametrize("V", [257, 8200])
def test_forbidden_tokens(V, device):
    """Logits of -inf: probability and gradient 0."""
    logits, labels, _ = data((3, V), torch.float32, device)
    labels[:] = 0
    logits[:, 5] = -float("inf")
    loss, grad = value_and_gradients(lambda x: cross_entropy(x, labels), [logits], [torch.ones(())])
    rest = torch.cat([logits[:, :5], logits[:, 6:]], dim=1)
    torch.testing.assert_close(loss, F.cross_entropy(rest, labels))
    assert not grad[:, 5].any()


@pytest.mark.parametrize("V", [257, 8200])
def test_adding_to_all_logits_of_a_row_changes_nothing(V, device):
    logits, labels, weights = data((5, V), torch.float32, device)
    shift = torch.tensor([[0.0], [64.0], [-64.0], [512.0], [-4096.0]], device=device)
    logits = (logits * 8).round() / 8  # so that the sum is exact
    first = value_and_gradients(lambda x: cross_entropy(x, labels, weights), [logits], [torch.ones(())])
    second = value_and_gradients(lambda x: cross_entropy(x, labels, weights), [logits + shift], [torch.ones(())])
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a, b, atol=1e-7, rtol=2e-6)


@needs_triton
@pytest.mark.parametrize("V", [257, 8200])
def test_rows_do_not_mix(V, device):
    """Bitwise; also for a vocabulary that is a part of a wider matrix, and for columns that are not adjacent."""
    logits, labels, weights = data((7, V), torch.float32, device)
    weights /= weights.sum()

    def gradient(logits, rows):
        return value_and_gradients(lambda x: cross_entropy(x, labels[rows], z_loss=0.1), [logits], [torch.ones(())])[1]

    first = gradient(logits, slice(None))
    order = torch.randperm(7, generator=torch.Generator().manual_seed(0)).to(device)
    assert torch.equal(gradient(logits[order], order), first[order])
    wide = torch.cat([logits, logits.new_full((7, 23), 1e9)], dim=1)
    leaf = wide.requires_grad_()
    cross_entropy(leaf[:, :V], labels, z_loss=0.1).backward()
    assert torch.equal(leaf.grad[:, :V], first)
    assert torch.equal(gradient(logits.t().contiguous().t(), slice(None)), first)


@needs_triton
def test_backward_scales_by_what_arrives(device):
    logits, labels, _ = data((5, 257), torch.float32, device)

    def gradient(factor):
        leaf = logits.clone().requires_grad_()
        (cross_entropy(leaf, labels) * factor).backward()
        return leaf.grad

    assert torch.equal(gradient(0.25), 0.25 * gradient(1.0))
    assert not gradient(0.0).any()
    leaf = logits.clone().requires_grad_()
    loss = cross_entropy(leaf, labels)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@needs_triton
def test_the_gradient_of_the_loss_alone_is_not_scaled(device, monkeypatch):
    logits, labels, _ = data((5, 257), torch.float32, device)
    leaf, plain = (logits.clone().requires_grad_() for _ in range(2))
    cross_entropy(plain, labels).backward()
    monkeypatch.setattr(logit_rows, "scale_", None)
    loss = cross_entropy(leaf, labels)
    loss.backward(unit(loss), retain_graph=True)
    assert torch.equal(leaf.grad, plain.grad)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward(unit(loss))


@pytest.mark.parametrize("V", [257, 8200])
def test_weights_that_are_shares_are_taken_as_they_are(V, device):
    logits, labels, weights = data((5, V), torch.float32, device)
    labels[2] = -100
    shares = shares_of(labels.cpu(), weights.cpu()).to(device)

    def run(weights, **how):
        return value_and_gradients(lambda x: cross_entropy(x, labels, weights, **how), [logits], [torch.ones(())])

    assert all(map(torch.equal, run(shares, are_shares=True), run(weights)))
    torch.testing.assert_close(run(2.0 * shares, are_shares=True)[0], 2.0 * run(weights)[0])
    for wrong in (None, shares.double()):
        with pytest.raises(ValueError, match=r"shares must be torch\.float32, got"):
            cross_entropy(logits, labels, wrong, are_shares=True)


@needs_triton
def test_a_label_outside_the_vocabulary_is_seen(device):
    logits, labels, _ = data((3, 257), torch.float32, device)
    labels[1] = 257
    assert cross_entropy(logits, labels) == float("inf")
    assert cross_entropy(logits.requires_grad_(), labels) == float("inf")


@needs_triton
@pytest.mark.parametrize("V", [40, 8200])
def test_as_an_operator(V, device):
    logits, labels, weights = data((3, V), torch.float32, device)
    weights /= weights.sum()
    leaf = logits.clone().requires_grad_()
    check_op(torch.ops.fastreason.cross_entropy.default, leaf, labels, weights, scalars(0.1), True)
    check_op(torch.ops.fastreason.cross_entropy.default, logits, labels, weights, scalars(0.0), False)
    rows, upstream = torch.zeros(3, device=device), torch.ones((), device=device)
    check_op(
        torch.ops.fastreason.cross_entropy_backward.default, upstream, logits, labels, weights, rows, rows, scalars(0.1)
    )  # fmt: skip
    check_op(torch.ops.fastreason.scale_.default, logits.clone(), upstream)
    check_compiled(lambda x: cross_entropy(x, labels, weights, z_loss=0.1), leaf)
    check_compiled(lambda x: 0.5 * cross_entropy(x, labels), leaf)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"logits_NV": torch.zeros(3)}, r"logits \[N, V\] with V >= 1 and labels \[N\], got \(3,\) and \(3,\)"),
        ({"logits_NV": torch.zeros(3, 0)}, "V >= 1"),
        ({"labels_N": torch.zeros(2, dtype=torch.int64)}, r"got \(3, 4\) and \(2,\)"),
        ({"labels_N": torch.zeros(3, dtype=torch.int32)}, "labels int64, got torch.float32 and torch.int32"),
        ({"weights_N": torch.zeros(2)}, r"weights must be \[N\] = \(3,\), got \(2,\)"),
        ({"labels_N": torch.zeros(3, dtype=torch.int64, device="meta")}, "on the device of the logits, cpu"),
        ({"z_loss": -1.0}, "z_loss must be >= 0, got -1.0"),
    ],
)
def test_refuses_bad_input(changes, message):
    arguments = {"logits_NV": torch.zeros(3, 4), "labels_N": torch.zeros(3, dtype=torch.int64)} | changes
    with pytest.raises(ValueError, match=message):
        cross_entropy(**arguments)
