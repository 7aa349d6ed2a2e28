"""What a step hands to a GPU, counted on the meta device."""

import pytest
import torch

pytest.importorskip("triton")

from bench.kernels.launch_counts import counted
from bench.kernels.step_launches import count_step, products_of_nothing
from fastreason.kernels import swiglu
from fastreason.kernels.triton_support import INTERPRETED
from fastreason.model import decoder
from fastreason.model.config import ModelConfig
from fastreason.model.decoder import Decoder

pytestmark = pytest.mark.skipif(INTERPRETED, reason="what the interpreter decorates launches otherwise")


def test_launches_copies_and_waits_are_told_apart():
    with counted() as launches:
        x = torch.ones(4, 6, dtype=torch.float16).to("meta")  # one copy
        y = swiglu(x)  # one launch of ours: 48 bytes in, 24 out
        z = y.t().view(3, 4) + 1.0  # views are none
        z.add_(torch.empty_like(z))
        (z @ x).sum().item()  # a product, a sum and a wait
        z.cpu()  # another one
    assert dict(launches.triton) == {"swiglu.forward": 1}
    assert dict(launches.torch) == {"add": 1, "add_": 1, "sum": 1}
    assert dict(launches.products) == {"mm": 1}
    assert (launches.to_device, launches.waits, launches.total) == (1, 2, 5)
    assert launches.moved["swiglu.forward"] == 72
    assert launches.moved["add"] == 48
    assert not torch.ones(2).is_meta and swiglu(torch.ones(2, 4)).shape == (2, 2)  # on CPU again


def test_a_step_casts_weights_once_and_waits_once_whatever_its_parts():
    with torch.device("meta"):
        shallow, deep = (
            Decoder(ModelConfig.preset("tiny", vocab_size=300, num_hidden_layers=layers)) for layers in (1, 3)
        )
    one, more, two = count_step(shallow, 1024), count_step(deep, 1024), count_step(shallow, 1024, 2)
    assert (one.to_device, one.waits) == (1, 1)
    assert (two.to_device, two.waits) == (2, 1)
    assert one.torch["_foreach_copy_"] == two.torch["_foreach_copy_"] == 1
    # gradients of the second part are added all at once, and angles are rows of a table
    assert one.torch["_foreach_add_"] == 0 and two.torch["_foreach_add_"] == 1
    assert two.torch["add_"] == 0 and two.torch["add"] == 2 * one.torch["add"]
    assert two.torch["cos"] == 0
    # of a block: norm and addition twice, rope, attention, SwiGLU; then backward, where attention is two kernels, which
    # rotate back
    assert (more.triton.total() - one.triton.total()) / 2 == 5 + 5
    # four matrices, forward and backward twice each
    assert (more.products.total() - one.products.total()) / 2 == 12
    # the sums for the weights of all norms are one, and those for all biases
    assert more.torch == one.torch
    assert one.triton["row_sums.sum"] == more.triton["row_sums.sum"] == 2


def test_a_loss_takes_its_products_two_sums_and_one_pass():
    """Weights of its rows come with the batch, nothing is gathered where nearly all tokens have a loss, and its
    gradient is scaled where it is not that of the step alone."""
    with torch.device("meta"):
        model = Decoder(ModelConfig.preset("tiny", vocab_size=300, num_hidden_layers=1))
    one, two = count_step(model, 1024), count_step(model, 1024, 2)
    names = ("cross_entropy.one_pass", "logit_rows.reduce", "logit_rows.scale")
    assert [one.triton[name] for name in names] == [1, 1, 0] and two.triton["logit_rows.scale"] == 2
    # copies of the weights, angles, the embedding and its gradient, added to that of the head
    assert dict(one.torch) == {
        "_foreach_copy_": 1, "index_select": 1, "embedding": 1, "embedding_dense_backward": 1, "add": 1,
    }  # fmt: skip


def test_on_several_ranks_no_gradient_of_a_norm_waits_for_the_others(monkeypatch):
    with torch.device("meta"):
        model = Decoder(ModelConfig.preset("tiny", vocab_size=300, num_hidden_layers=2))
    monkeypatch.setattr(decoder, "world_size", lambda: 2)
    launches = count_step(model, 1024)
    # five norms and two biases
    assert launches.triton["row_sums.sum"] == 0 and launches.torch["sum"] == 5 + 2


def test_padding_is_not_cleared():
    """1,022 tokens are padded to a multiple of 64: as many launches as without."""
    with torch.device("meta"):
        model = Decoder(ModelConfig.preset("tiny", vocab_size=300))
    assert count_step(model, 1022, length=511).torch == count_step(model, 1024).torch


def test_products_that_the_host_would_not_compute():
    a, bias = torch.ones(2, 3, dtype=torch.bfloat16), torch.zeros(2, dtype=torch.bfloat16)
    with products_of_nothing():
        assert (a @ a.t()).shape == torch.nn.functional.linear(a, a, bias).shape == (2, 2)
    assert torch.equal(a @ a.t(), torch.full((2, 2), 3.0, dtype=torch.bfloat16))


def test_the_table_of_angles_grows_with_the_longest_document():
    with torch.device("meta"):
        model = Decoder(ModelConfig.preset("tiny", vocab_size=300))
    for length, rows in ((16, 16), (100, 128), (32, 128)):
        count_step(model, 1600, length=length)
        assert model._angles[1].shape[:2] == (2, rows)
