"""Numbers that a user hands over are taken as they are or refused: at the shared place, and wherever it is used."""

from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch

import fastreason as fr
from fastreason import _core
from fastreason.runtime.arguments import indices, integer, integers, number

MIX = fr.Mixture.uniform(op=[2, 3], themes=["symbolic"], max_value=99)
STREAM = fr.TaskStream(MIX, seed=1)
TOKENIZER = fr.Tokenizer.for_mixtures([MIX])
NO_INTEGERS = [True, np.True_, 1.0, np.float32(1), Fraction(1), Decimal(1), "1", None, [1], 1j, torch.tensor(1.0)]


@pytest.mark.parametrize("value", [3, np.int8(3), np.uint64(3), np.array(3), torch.tensor(3)], ids=repr)
def test_integers_of_any_kind_are_integers(value):
    found = integer("n", value, 0, 5)
    assert found == 3 and type(found) is int


@pytest.mark.parametrize("value", [*NO_INTEGERS, -1, 6, 2**64], ids=repr)
def test_what_is_no_integer_or_out_of_range_is_named(value):
    with pytest.raises(ValueError, match=r"^n must be an integer in 0 .. 5, got "):
        integer("n", value, 0, 5)


@pytest.mark.parametrize("values", [[1, 2], (1, 2), np.array([1, 2], np.uint8), torch.tensor([1, 2])], ids=repr)
def test_arrays_of_integers_are_int64(values):
    found = integers("ids", values, 0)
    assert found.dtype == np.int64 and found.tolist() == [1, 2]
    assert integers("ids", [], 0).dtype == np.int64


@pytest.mark.parametrize(
    "values",
    [
        [1.0, 2.0],
        [1, True],
        np.array([True, False]),
        [Fraction(1, 2)],
        ["1"],
        [None],
        [[1], [1, 2]],
        [2**64],
        [-1],
        np.array([2**63], np.uint64),
        torch.ones(2),
        torch.ones(2, requires_grad=True),
    ],
    ids=repr,
)
def test_arrays_of_something_else_are_named(values):
    with pytest.raises(ValueError, match=r"^ids must be integers >= 0, got "):
        integers("ids", values, 0)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.1, 1.1, True, "0.5", None, [0.5], 1j], ids=repr)
def test_what_is_no_number_is_named(value):
    with pytest.raises(ValueError, match=r"^share must be a number in 0 .. 1, got "):
        number("share", value, 0, 1)
    with pytest.raises(ValueError, match=r"^share must be a number > 0 and <= 1, got 0"):
        number("share", 0, 0, 1, above_low=True)
    assert number("share", Fraction(1, 2), 0, 1) == number("share", np.float32(0.5), 0, 1) == 0.5


@pytest.mark.parametrize(
    "key, wanted",
    [
        (3, [3]),
        (np.int64(3), [3]),
        ([4, 1], [4, 1]),
        (np.array([4, 1], np.uint16), [4, 1]),
        (torch.tensor([4, 1]), [4, 1]),
        ([], []),
        (np.array([False, True, False, True]), [1, 3]),
        ([True, False, True], [0, 2]),
        (torch.tensor([False, True]), [1]),
        (slice(2, 5), [2, 3, 4]),
        (slice(None, 3), [0, 1, 2]),
        (slice(5, 0, -2), [5, 3, 1]),
        (slice(np.int32(1), np.uint8(2)), [1]),
        (slice(3, 3), []),
        (slice(2**63 - 3, 2**63), [2**63 - 3, 2**63 - 2, 2**63 - 1]),
        (slice(1, 2**63, 2**62), [1, 2**62 + 1]),
    ],
    ids=repr,
)
def test_subscripts_select(key, wanted):
    assert indices("stream", key).tolist() == wanted


@pytest.mark.parametrize(
    "key, message",
    [
        (1.9, "an index must be an integer >= 0, got 1.9"),
        (True, "an index must be an integer >= 0, got True"),
        (-1, "an index must be an integer >= 0, got -1"),
        (2**63, "an index must be an integer >= 0, got 9223372036854775808"),
        ("1", "an index must be an integer >= 0, got '1'"),
        (None, "an index must be an integer >= 0, got None"),
        ([1.9], r"indices must be integers >= 0, got float64 \[1.9\]"),
        ([1, True], "indices must be integers >= 0, got int64"),
        (np.array([2**63], np.uint64), "indices must be integers >= 0, got 9223372036854775808"),
        ([[1, 2]], r"indices must be 1-D, got shape \[1, 2\]"),
        (np.array([[True, False]]), "indices must be integers >= 0, got bool"),
        (slice(0, 5, 0), "the step of a slice must not be 0"),
        (slice(0, 1.5), "the end of a slice must be an integer .*, got 1.5"),
        (slice(True, 2), "the start of a slice must be an integer .*, got True"),
        (slice(0, 2**63 + 1), "the end of a slice"),
        (slice(0, 2**62), "a slice of .* does not fit into memory"),
        (slice(3, None), "a slice needs an end"),
    ],
    ids=repr,
)
def test_other_subscripts_are_named(key, message):
    with pytest.raises(ValueError, match=f"^stream: {message}"):
        indices("stream", key)


def test_a_mask_selects_problems_of_streams_and_shards():
    mask = np.array([False, True, False, True])
    assert STREAM[mask].indices.tolist() == [1, 3]
    assert STREAM.shard(1, 3)[mask].indices.tolist() == [4, 10]
    assert STREAM[2**63 - 3 : 2**63].indices.tolist() == [2**63 - 3, 2**63 - 2, 2**63 - 1]
    assert len({row["problem"] for row in STREAM[2**63 - 3 : 2**63].rows()}) == 3


CALLS = {
    "index": lambda: STREAM[1.9],
    "indices": lambda: STREAM.batch(np.array([0.5])),
    "threads": lambda: STREAM.batch([0], threads=1.5),
    "mask as indices": lambda: STREAM.batch(np.array([True, False])),
    "shard index": lambda: STREAM.shard(0, 2)[1.9],
    "shard overflow": lambda: STREAM.shard(0, 4)[2**62],
    "seed": lambda: fr.TaskStream(MIX, seed=1.0),
    "seed true": lambda: fr.TaskStream(MIX, seed=True),
    "packed": lambda: STREAM.packed(0.5, 1, 64, TOKENIZER),
    "packed rows": lambda: STREAM.packed(0, True, 64, TOKENIZER),
    "packed shard": lambda: STREAM.shard(1, 4).packed(2**61, 1, 64, TOKENIZER),
    "batches": lambda: STREAM.batches([0, 0.5], 1, 64, TOKENIZER),
    "encoded": lambda: STREAM.encoded(0, 1.5, TOKENIZER),
    "decode": lambda: TOKENIZER.decode([1.9]),
    "decode overflow": lambda: TOKENIZER.decode([2**32 + 5]),
    "decode bools": lambda: TOKENIZER.decode(np.array([True])),
    "max_value": lambda: fr.Tokenizer.build(["symbolic"], max_value=9.5),
    "graph": lambda: STREAM[0].graph(0.5),
    "circular_distractors": lambda: fr.Cell(op=3, circular_distractors="no"),
    "circular_distractors 0": lambda: fr.Mixture.from_dict({"op": [3], "circular_distractors": 0}),
    "op true": lambda: fr.Cell(op=3, max_sentences=True),
    "op 2.0": lambda: fr.Cell(op=2.0),
    "depth": lambda: fr.Cell(op=3, depth=2.0),
    "theme": lambda: fr.Cell(op=3, theme=None),
    "weight": lambda: fr.Mixture.from_dict({"op": [3], "weight": float("inf")}),
    "weight true": lambda: fr.Mixture.from_dict({"op": [3], "weight": True}),
    "weights": lambda: fr.Mixture({fr.Cell(op=3): float("nan")}),
    "factor": lambda: float("nan") * MIX,
    "op no list": lambda: fr.Mixture.from_dict({"op": 3}),
    "themes no list": lambda: fr.Mixture.from_dict({"op": [3], "themes": "zoo"}),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_what_was_cast_is_refused(call):
    with pytest.raises(ValueError, match=r" must be .*, got "):
        call()


def test_numpy_integers_make_the_same_cell():
    assert fr.Cell(op=np.int64(3), depth=np.int8(2)) == fr.Cell(op=3)
    assert type(fr.Cell(op=np.int64(3)).op) is int


def test_the_stream_ends_at_its_last_problem():
    last = 2**63 - 1
    assert len(STREAM.encoded(last, 1, TOKENIZER)[2]) == 1
    for call in (lambda: STREAM.encoded(last, 2, TOKENIZER), lambda: STREAM.packed(last, 1, 2048, TOKENIZER)):
        with pytest.raises(ValueError, match=r"2\*\*63 - 1"):
            call()


@pytest.mark.parametrize("values", [[0.5], np.array([True]), np.array([2**40]), np.array([2**31], np.uint32)], ids=repr)
def test_the_core_casts_nothing_either(values):
    with pytest.raises(TypeError, match="incompatible function arguments"):
        TOKENIZER.core.decode(values)
    with pytest.raises(TypeError, match="incompatible function arguments"):
        _core.uniform(0, np.array([0.5]), [0], [0])
