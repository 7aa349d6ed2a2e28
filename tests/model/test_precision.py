"""Copies of the weights for the parts of a step: what autocast computes, with one cast of each weight."""

from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import fastreason as fr
from fastreason import _core
from fastreason.kernels import Segments
from fastreason.kernels.linear import linear
from fastreason.model.precision import autocast, cast_once


class Casts(TorchDispatchMode):
    """Counts casts between dtypes, by the shape of what is cast."""

    def __init__(self):
        super().__init__()
        self.shapes = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten._to_copy.default:
            self.shapes[tuple(args[0].shape)] += 1
        return func(*args, **(kwargs or {}))


def model(**shape):
    model = fr.Decoder(fr.ModelConfig.preset("tiny", vocab_size=50, num_hidden_layers=2, **shape))
    model.reset_parameters(0)
    with torch.no_grad():  # the projections that are zero, and biases
        for i, parameter in enumerate(model.parameters()):
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(i)))
    return model


def parts_of_a_step(model):
    """Gradients summed over two parts, and the losses."""
    losses = []
    for seed in (0, 1):
        tokens = torch.randint(50, (64,), generator=torch.Generator().manual_seed(seed))
        with autocast("bfloat16", model.embedding.weight):
            logits = model.logits(model(tokens, Segments.from_lengths([40, 24])))
            losses.append(fr.kernels.cross_entropy(logits, tokens.roll(1)))
        losses[-1].backward()
    return torch.stack(losses).detach(), {name: p.grad for name, p in model.named_parameters()}


@pytest.fixture
def no_tiles():
    assert _core.cpu.use("baseline")
    yield
    _core.cpu.use("")


@pytest.mark.parametrize("tied", [True, False])
def test_on_cpu_a_step_has_the_bits_of_autocast_where_there_are_no_tile_registers(tied, no_tiles):
    ours, plain = model(tie_word_embeddings=tied), model(tie_word_embeddings=tied)
    with cast_once(ours, "bfloat16"), Casts() as casts:
        losses, gradients = parts_of_a_step(ours)
    want_losses, want = parts_of_a_step(plain)
    assert torch.equal(losses, want_losses)
    assert all(torch.equal(gradients[name], want[name]) for name in want)
    assert {gradient.dtype for gradient in gradients.values()} == {torch.float32}
    # no weight was cast within, and every gradient once per part
    assert casts.shapes[tuple(ours.blocks[0].down.weight.shape)] == 2 * 2


def test_on_cpu_a_step_has_the_gradients_of_autocast_but_for_their_rounding():
    """Where there are tile registers, gradients of weights are not rounded to bfloat16."""
    ours, plain = model(), model()
    with cast_once(ours, "bfloat16"):
        losses, gradients = parts_of_a_step(ours)
    want_losses, want = parts_of_a_step(plain)
    assert torch.equal(losses, want_losses)
    for name, gradient in gradients.items():
        assert (gradient - want[name]).norm() <= 2**-8 * want[name].norm(), name


def test_copies_are_lent_within_and_are_those_of_the_weights():
    ours, tokens, segments = model(), torch.arange(10), Segments.from_lengths([10])
    for seed in (0, 1):  # a second step has other weights
        ours.reset_parameters(seed)
        with torch.no_grad(), cast_once(ours, "bfloat16"), autocast("bfloat16", ours.embedding.weight):
            assert ours.blocks[0].qkv.narrow[0].dtype == torch.bfloat16
            assert torch.equal(ours.narrow_head, ours.embedding.weight.bfloat16())
            assert ours.logits(ours(tokens, segments)).dtype == torch.bfloat16
        assert ours.narrow_head is ours.blocks[0].qkv.narrow is None
        assert ours.logits(ours(tokens, segments)).dtype == torch.float32


@pytest.mark.parametrize(
    "precision, dtype", [("float32", torch.float32), ("auto", torch.float32), ("bfloat16", torch.float64)]
)
def test_nothing_is_lent_where_products_are_in_the_dtype_of_the_weights(precision, dtype):
    ours = model().to(dtype)
    with cast_once(ours, precision):
        assert ours.narrow_head is ours.blocks[0].qkv.narrow is None


def test_gradients_of_weights_are_written_in_float32_on_a_gpu():
    """On torch's meta device, which answers with shapes and dtypes: no cast of a gradient is left."""
    x, weight, bias = (torch.zeros(size, device="meta") for size in ((8, 4), (6, 4), (6,)))
    leaves = [x.bfloat16().requires_grad_(), weight.requires_grad_(), bias.requires_grad_()]
    with Casts() as casts:
        y = linear(*leaves, narrow=(weight.detach().to(torch.bfloat16), bias.detach().to(torch.bfloat16)))
        y.backward(torch.zeros_like(y))
    assert y.dtype == leaves[0].grad.dtype == torch.bfloat16
    assert weight.grad.dtype == bias.grad.dtype == torch.float32
    assert casts.shapes == {(6, 4): 1, (6,): 1}  # the copies themselves
