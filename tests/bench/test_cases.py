"""The list of calls that audit, traffic and bench.gpu share: nothing is left out of it, and its calls are right."""

import importlib
import pkgutil

import pytest
import torch

import fastreason.kernels

pytest.importorskip("triton")

from bench.kernels.budgets import read_budgets
from bench.kernels.operations import MAY_BE_NARROW, OPS, Shape, Unwritten, outputs_of

# float64, and few of everything: what is compared are definitions
SMALL = {"tokens": 6, "length": 4, "own": 3, "members": 2, "width": 8, "ffn": 8, "heads": 4, "kv_heads": 2}
SMALL |= {"head_dim": 8, "vocab": 11, "dtype": torch.float64}


def test_every_public_operation_has_an_entry():
    no_kernel = {"PolicyLoss", "Segments", "group_advantages", "linear", "rope_angles", "sample"}
    no_kernel |= {"sampling_settings", "token_weights"}
    assert set(fastreason.kernels.__all__) - no_kernel <= OPS.keys()


def kernels():
    """Module and name, without _kernel, of everything that is decorated with triton.jit and launched."""
    for module in pkgutil.iter_modules(fastreason.kernels.__path__):
        for name, value in vars(importlib.import_module(f"fastreason.kernels.{module.name}")).items():
            if name.endswith("_kernel") and hasattr(value, "fn"):
                yield f"{value.fn.__module__.rpartition('.')[2]}.{name.strip('_').removesuffix('_kernel')}"


def test_every_kernel_is_audited():
    audited = {key.split("/")[1].split()[0] for key in read_budgets()}
    found = set(kernels())
    assert len(found) > 15
    assert found == audited


@pytest.mark.parametrize("name", OPS)
def test_an_operation_and_its_definition_agree(name):
    call = OPS[name].build(Shape(**SMALL))
    ours = call.forward()
    definition = outputs_of(call.definition(**call.inputs))
    assert len(ours) == len(definition) >= 1
    for a, b in zip(ours, definition, strict=True):
        torch.testing.assert_close(a, b)
    if call.learns:
        gradients = call.backward(ours, call.upstream(ours))
        assert all(torch.isfinite(g).all() for g in gradients)
        assert len(gradients) == len(call.learns)
    assert call.floor[0] > 0


@pytest.mark.parametrize("name", ["attention", "attention_groups", "decode_attention"])
def test_flops_are_those_of_the_visible_pairs(name):
    """Counted the slow way: 4 D for every query head and every key that it sees."""
    call = OPS[name].build(Shape(**SMALL))
    if name == "decode_attention":
        pairs = 6 * (4 + 3)
    elif name == "attention":
        pairs = (1 + 2 + 3 + 4) + (1 + 2)  # documents of 4 and 2
    else:
        pairs = (1 + 2 + 3 + 4) + 2 * (5 + 6 + 7)  # a prompt of 4 and two responses of 3
    assert call.flops[0] == 4 * pairs * 4 * 8


def test_the_same_size_holds_the_same_values():
    assert torch.equal(Shape(4).floats(3, 5), Shape(4).floats(3, 5))
    assert torch.equal(Shape(4).ids(9, 5), Shape(4).ids(9, 5))
    assert Unwritten(4).floats(3, 5).shape == (3, 5)


def test_demands_are_made_of_kernels_that_exist():
    named = set(MAY_BE_NARROW).union(*(op.tensor_cores for op in OPS.values()))
    assert named <= set(kernels())
