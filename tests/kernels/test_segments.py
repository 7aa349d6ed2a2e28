"""The segments layout: positions, refusals, and the plan of padded rectangles."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fastreason.kernels import Segments


def test_positions_count_on_from_the_prefix():
    segments = Segments.from_groups([3, 2], torch.tensor([[2, 1], [1, 2]]))
    assert segments.length.tolist() == [3, 2, 1, 2, 1, 2]
    assert segments.prefix.tolist() == [-1, 0, 0, -1, 3, 3]
    assert segments.positions.tolist() == [0, 1, 2, 3, 4, 3, 0, 1, 2, 2, 3]


def test_padding_has_position_zero():
    segments = Segments(torch.tensor([1, 4]), torch.tensor([2, 1]), torch.tensor([-1, -1]), 6)
    assert segments.positions.tolist() == [0, 0, 1, 0, 0, 0]


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64], ids=str)
def test_borders_of_documents(dtype):
    borders = torch.tensor([2, 5, 6, 10], dtype=dtype)
    segments = Segments.from_cu_seqlens(borders)
    assert (segments.start.tolist(), segments.length.tolist()) == ([2, 5, 6], [3, 1, 4])
    assert segments.prefix.tolist() == [-1, -1, -1]
    assert segments.num_tokens == 10
    assert Segments.from_cu_seqlens(borders, num_tokens=12).num_tokens == 12
    assert torch.equal(Segments.from_cu_seqlens(torch.tensor([0, 3, 5])).table, Segments.from_lengths([3, 2]).table)


def test_a_document_of_no_token_has_no_segment():
    borders = torch.tensor([0, 0, 3, 3, 3, 5, 5])
    assert torch.equal(Segments.from_cu_seqlens(borders).table, Segments.from_lengths([3, 2]).table)


def test_positions_are_copied_once():
    segments = Segments.from_groups([3, 2], torch.tensor([[2, 1], [1, 2]]))
    assert segments.positions_on(torch.device("cpu")) is segments.positions
    copied = segments.positions_on(torch.device("meta"))
    assert copied.is_meta and copied.shape == segments.positions.shape
    assert segments.positions_on(torch.device("meta")) is copied
    assert segments.table.tolist() == [x.tolist() for x in (segments.start, segments.length, segments.prefix)]


@given(
    st.lists(st.tuples(st.integers(1, 9), st.lists(st.integers(1, 12), min_size=0, max_size=4)), min_size=1, max_size=6)
)
def test_the_plan_holds_every_token_once_and_every_prefix(groups):
    length, prefix = [], []
    for prompt, responses in groups:
        first = len(length)
        length += [prompt, *responses]
        prefix += [-1, *[first] * len(responses)]
    lengths = torch.tensor(length)
    segments = Segments(lengths.cumsum(0) - lengths, lengths, torch.tensor(prefix), int(lengths.sum()))
    plan = segments.plan
    tokens = torch.arange(segments.num_tokens)
    assert torch.equal(plan.rows.scatter(plan.rows.gather(tokens)), tokens)
    assert plan.rows.covers_all
    assert sum(bucket.rectangle.count for bucket in plan.buckets) == len(length)
    if not any(responses for _, responses in groups):
        assert plan.prefix_rows is None
        return
    assert plan.prefixes is not None
    for bucket in plan.buckets:
        if bucket.prefix is None:
            continue
        # what a segment's prefix row holds is what its prefix says
        first_token = plan.rows.token_of_row[bucket.rectangle.rows].view(bucket.rectangle.count, -1)[:, 0].contiguous()
        of_token = torch.searchsorted(segments.start, first_token, right=True) - 1
        row_start = plan.prefix_rows.token_of_row.view(plan.prefixes.count, -1)[:, 0]
        assert torch.equal(row_start[bucket.prefix], segments.start[segments.prefix[of_token]])


def test_gradients_of_padding_rows_are_dropped():
    segments = Segments(torch.tensor([0, 3]), torch.tensor([2, 4]), torch.tensor([-1, -1]), 7)
    x = torch.randn(7, 2, dtype=torch.float64, requires_grad=True)
    rows = segments.plan.rows
    rows.gather(x).sum().backward()
    inside = torch.ones(7, 1, dtype=torch.float64)
    inside[2] = 0.0  # token 2 belongs to no segment
    assert torch.equal(x.grad, inside.expand(7, 2))


@pytest.mark.parametrize(
    "start, length, prefix, num_tokens, message",
    [
        ([0, 2], [3, 2], [-1, -1], 5, "must be in order and not overlap"),
        ([2, 0], [2, 2], [-1, -1], 5, "must be in order"),
        ([0], [6], [-1], 5, r"within 0 \.\. 5"),
        ([0], [0], [-1], 5, "at least one token"),
        ([], [], [], 5, "at least one segment"),
        ([0, 2], [2, 2], [-1, 2], 5, "prefix must be -1 or an index below 2"),
        ([0, 2, 4], [2, 2, 1], [-1, 0, 1], 5, "must not have a prefix itself"),
    ],
)
def test_refuses_what_is_no_layout(start, length, prefix, num_tokens, message):
    tensors = [torch.tensor(values, dtype=torch.int64) for values in (start, length, prefix)]
    with pytest.raises(ValueError, match=message):
        Segments(*tensors, num_tokens)


def test_refuses_other_dtypes_and_shapes():
    with pytest.raises(ValueError, match=r"length must be int64 \[1\], got torch.int32"):
        Segments(torch.tensor([0]), torch.tensor([1], dtype=torch.int32), torch.tensor([-1]), 1)
    with pytest.raises(ValueError, match=r"need lengths \[P\] and \[P, G\]"):
        Segments.from_groups([1, 2], torch.tensor([[1, 2]]))


@pytest.mark.parametrize(
    "borders, message",
    [
        (torch.tensor([0.0, 3.0]), r"need int32 or int64 \[S \+ 1\] .* got torch.float32 \(2,\)"),
        (torch.tensor([0]), r"with S >= 1, got torch.int64 \(1,\)"),
        (torch.tensor([[0, 3]]), r"got torch.int64 \(1, 2\)"),
        (torch.tensor([3, 3, 3]), "at least one token"),
        (torch.tensor([0, 4, 3]), "at least one token"),
    ],
)
def test_refuses_borders_of_nothing(borders, message):
    with pytest.raises(ValueError, match=message):
        Segments.from_cu_seqlens(borders)


def test_padding_is_a_segment_of_its_own():
    segments = Segments.from_groups([30], torch.tensor([[40]]))
    padded = segments.padded(64)
    assert padded.num_tokens == 128
    assert padded.table.tolist() == [[0, 30, 70], [30, 40, 58], [-1, 0, -1]]
    assert torch.equal(padded.positions, torch.cat([segments.positions, torch.arange(58)]))
    assert padded.padded(64) is padded
