"""The rows of a step: shared out without gap or repetition, the same whether a thread draws them or not."""

import numpy as np
import pytest

import fastreason as fr
from fastreason.training import row_batches
from fastreason.training.row_batches import RowBatches, StepTotals, check_rows, count_targets, join

PART = {"op": [2], "themes": ["symbolic"], "max_sentences": 3, "max_value": 99}
STREAMS = [fr.TaskStream(fr.Mixture.from_dict(PART | {"op": [op]}), seed=3) for op in (2, 3)]
TOKENIZER = fr.Tokenizer.for_mixtures([stream.mixture for stream in STREAMS])


def documents(batch: fr.PackedBatch) -> list[str]:
    return [
        TOKENIZER.decode(batch.tokens[start : start + length])
        for start, length in zip(batch.starts, batch.lengths, strict=True)
    ]


def draw(ahead: int, phases: list[int], rows: int = 3) -> list[tuple[fr.PackedBatch, list[int]]]:
    drawn, next_index = [], list(range(rows))
    source = RowBatches(STREAMS, 200, TOKENIZER, ahead)
    for phase in phases:
        batch, next_index = source.draw(phase, next_index)
        drawn.append((batch, next_index))
    source.close()
    return drawn


def test_rows_hold_every_problem_once():
    steps = draw(0, [0] * 5)
    seen = [text for batch, _ in steps for text in documents(batch)]
    last = steps[-1][1]
    wanted = [i for row in range(3) for i in range(row, last[row], 3)]
    assert sorted(seen) == sorted(TOKENIZER.decode(TOKENIZER.encode(text)) for text in STREAMS[0][wanted].documents)
    assert set(range(min(last))) <= set(wanted)
    assert all(batch.rows == 3 and len(batch.tokens) == 600 for batch, _ in steps)


@pytest.mark.parametrize("ahead", [1, 4])
def test_a_thread_that_draws_ahead_changes_nothing(ahead):
    phases = [0, 0, 0, 1, 1, 0, 1]
    for (batch, next_rows), (other, other_next) in zip(draw(0, phases), draw(ahead, phases), strict=True):
        assert next_rows == other_next
        for name in ("tokens", "positions", "loss_mask", "starts", "lengths"):
            np.testing.assert_array_equal(getattr(batch, name), getattr(other, name))


def test_a_rank_draws_its_rows_alone(monkeypatch):
    whole, after = RowBatches(STREAMS, 200, TOKENIZER, 0).draw(0, [0, 1, 2, 3])
    parts, ends = [], []
    for rank in range(2):
        monkeypatch.setattr(row_batches, "share", lambda n, rank=rank: slice(rank * n // 2, (rank + 1) * n // 2))
        batch, next_rows = RowBatches(STREAMS, 200, TOKENIZER, 2).draw(0, [0, 1, 2, 3])
        parts.append(batch)
        ends.append(next_rows)
    assert [sum(both) for both in zip(*ends, strict=True)] == after
    assert ends[0][2:] == ends[1][:2] == [0, 0]
    assert documents(parts[0]) + documents(parts[1]) == documents(whole)
    assert (join(parts).tokens == whole.tokens).all()
    for loss_on in ("solution", "all"):
        assert sum(count_targets(part, loss_on) for part in parts) == count_targets(whole, loss_on)


def test_totals_of_one_rank_are_those_of_its_batch():
    config = fr.ModelConfig.preset("tiny")
    batch, next_rows = RowBatches(STREAMS, 200, TOKENIZER, 0).draw(0, [0, 1])
    total = StepTotals.over_ranks(config, batch, next_rows, "all")
    assert total.next_index == next_rows
    assert total.tokens == sum(batch.lengths)
    assert total.targets == sum(batch.lengths - 1)
    assert total.samples == len(documents(batch))


def test_rows_that_ranks_do_not_divide_are_refused(monkeypatch):
    monkeypatch.setattr(row_batches, "world_size", lambda: 4)
    check_rows(8, None, "pretrain")
    with pytest.raises(
        ValueError, match=r"pretrain: 6 rows per step cannot be divided evenly among 4 ranks; .*divides 6"
    ):
        check_rows(6, 6, "pretrain")
    with pytest.raises(ValueError, match="pretrain: rows = 4, but the checkpoint was begun with 8 rows per step"):
        check_rows(8, 4, "pretrain")
