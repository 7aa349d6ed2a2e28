"""Costs against a count of every product, and budgets in each unit."""

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import fastreason as fr
from fastreason.kernels import Segments
from fastreason.model import flop
from fastreason.model.flop import forward_flop, train_flop
from fastreason.training import budget as budgets
from fastreason.training.budget import Budget, account, equal_compute_tokens, matmul_peak, split


@pytest.mark.parametrize("heads, kv_heads, hidden", [(4, 2, 64), (4, 4, 64), (6, 1, 48)])
def test_products_of_the_weights_are_those_that_torch_counts(heads, kv_heads, hidden):
    config = fr.ModelConfig.preset(
        "tiny",
        vocab_size=77,
        hidden_size=hidden,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        intermediate_size=100,
    )
    model = fr.Decoder(config)
    model.reset_parameters(0)
    # documents of one token read one key: attention is 4 * layers * H * D a token, whatever computes it
    tokens, segments = torch.arange(10), Segments.from_lengths([1] * 10)
    linear = {"aten.mm", "aten.addmm"}
    with FlopCounterMode(display=False) as counter:
        model.logits(model(tokens, segments)[:3]).sum().backward()
    counted = sum(n for op, n in counter.get_flop_counts()["Global"].items() if str(op) in linear)
    attention = 3 * 4 * config.num_hidden_layers * hidden * 10
    assert train_flop(config, np.ones(10), num_logits=3) - attention == counted


def test_attention_is_causal_and_within_a_document():
    config = fr.ModelConfig.preset("tiny")
    a_pair = 4 * config.num_hidden_layers * config.hidden_size
    whole, parts = forward_flop(config, 7), forward_flop(config, np.array([4, 3]))
    assert whole - parts == a_pair * (28 - 10 - 6)
    # a response behind a prompt: together they cost what one sequence costs
    assert forward_flop(config, 4) + forward_flop(config, 3, before=4) == whole


def test_the_paper_model_costs_732_mflop_a_token():
    config = fr.ModelConfig.preset("100m")
    weights = flop.block_weights(config) + flop.head_weights(config)
    # norms and biases are all that has no product
    small = 25 * config.hidden_size + 12 * (config.num_attention_heads + 4) * config.head_dim
    assert fr.Decoder(config).num_parameters == weights + small
    assert flop.train_flop_per_token(config) == 6 * weights
    assert flop.train_flop_per_token(config, 2048) / 1e6 == pytest.approx(732.1, abs=0.1)


def test_equal_compute():
    assert equal_compute_tokens(3, 6, 100) == pytest.approx(10 * 3 * 6 * 100 / 6)
    with pytest.raises(ValueError, match="rollouts must be >= 0, got -1"):
        equal_compute_tokens(1, -1, 1)


@pytest.mark.parametrize("unit", budgets.UNITS)
def test_a_budget_counts_its_own_unit(unit):
    limit = Budget(**{unit: 20})
    assert (limit.unit, limit.amount, str(limit)) == (unit, 20.0, f"20 {unit}")
    assert Budget.parse(str(limit)) == limit
    progress = dict.fromkeys(budgets.UNITS, 99) | {unit: 5}
    assert limit.share_done(progress) == 0.25


@pytest.mark.parametrize(
    "given, message",
    [
        ({}, "exactly one of flop, tokens, seconds, samples, got none"),
        ({"flop": 1e9, "tokens": 5}, "got flop, tokens"),
        ({"seconds": 0}, "seconds must be a number > 0, got 0"),
        ({"flop": float("nan")}, "flop must be a number > 0, got nan"),
        ({"tokens": float("inf")}, "tokens must be a number > 0, got inf"),
    ],
)
def test_budgets_that_are_none(given, message):
    with pytest.raises(ValueError, match=message):
        Budget(**given)


@pytest.mark.parametrize("text", ["", "600", "600 hours", "many tokens", "600 seconds long", "inf tokens"])
def test_a_budget_that_cannot_be_read_says_how_to_write_one(text):
    with pytest.raises(ValueError, match="a number and one of flop, tokens, seconds, samples"):
        Budget.parse(text)


def test_a_split_costs_what_the_whole_costs():
    for beta in (0.2, 0.5, 0.9):
        midtrain, rl = split(Budget(flop=1e15), beta)
        assert midtrain.flop + rl.flop == pytest.approx(1e15)
        assert rl.flop == pytest.approx(beta * 1e15)
        midtrain, rl = split(Budget(tokens=1e9), beta)
        # N r L = rl.tokens
        assert midtrain.tokens + equal_compute_tokens(1, 1, rl.tokens) == pytest.approx(1e9)
    assert split(Budget(seconds=60), 0.0) == (Budget(seconds=60), None)
    assert split(Budget(seconds=60), 1.0) == (None, Budget(seconds=60))
    with pytest.raises(ValueError, match=r"beta must be in 0 \.\. 1, got 1.5"):
        split(Budget(flop=1), 1.5)
    with pytest.raises(ValueError, match="give a budget in flop, tokens or seconds"):
        split(Budget(samples=1), 0.5)


def test_the_peak_is_measured_once():
    first = matmul_peak()
    assert first > 1e8
    assert matmul_peak() == first
    rates = account({"tokens": 500, "flop": 3e9, "seconds": 2.0}, peak=3e9)
    assert rates == {"tokens_per_s": 250.0, "flop_per_s": 1.5e9, "peak_percent": 50.0}
