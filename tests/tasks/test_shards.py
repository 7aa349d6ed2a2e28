"""Shards of a stream and data loaders: no overlap, no gap, the stream's order, one integer of state."""

import doctest
import itertools
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

import fastreason as fr
from fastreason.integrations import torch_data

STREAM = fr.TaskStream(fr.Mixture.uniform(op=[2, 3], themes=["symbolic", "zoo"]), seed=8, split="rl")
IDS = [row["id"] for row in STREAM[0:120].rows()]


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
def test_shards_together_are_the_stream(world_size):
    parts = [STREAM.shard(rank, world_size)[0:12] for rank in range(world_size)]
    indices = np.stack([part.indices for part in parts])
    np.testing.assert_array_equal(indices.T.reshape(-1), np.arange(12 * world_size))
    for rank, part in enumerate(parts):
        assert part.documents == STREAM[rank : 12 * world_size : world_size].documents


@given(world=st.integers(1, 5), rank=st.integers(0, 4), parts=st.integers(1, 5), part=st.integers(0, 4))
def test_a_shard_of_a_shard_takes_every_nth_of_it(world, rank, parts, part):
    rank, part = rank % world, part % parts
    shard = STREAM.shard(rank, world)
    assert shard.shard(part, parts)[0:4].indices.tolist() == shard[part : 4 * parts : parts].indices.tolist()


def test_a_shard_is_used_like_the_stream():
    shard = STREAM.shard(1, 3)
    assert shard[4].indices.tolist() == [13] and shard[[2, 0]].indices.tolist() == [7, 1]
    assert [row["id"] for row in itertools.islice(shard, 30)] == IDS[1:91:3]
    again = pickle.loads(pickle.dumps(shard))
    assert again[0:5].documents == shard[0:5].documents


def test_shards_pack_all_documents_once_and_go_on_from_one_integer():
    tokenizer = fr.Tokenizer.for_mixtures([STREAM.mixture])
    found = []
    for rank in range(3):
        shard, index = STREAM.shard(rank, 3), 0
        for rows in (1, 2):
            packed = shard.packed(index, rows, 512, tokenizer, threads=2)
            texts = shard[index : packed.next_index].documents
            assert len(texts) == len(packed.starts)
            for text, start, length in zip(texts, packed.starts, packed.lengths, strict=True):
                np.testing.assert_array_equal(packed.tokens[start : start + length], tokenizer.encode(text))
            index = packed.next_index
        found += (np.arange(index) * 3 + rank).tolist()
    assert len(found) == len(set(found))


@pytest.mark.parametrize("rank, world_size", [(-1, 2), (2, 2), (0, 0), (0.5, 2), (True, 2), (0, 2**64)])
def test_a_rank_out_of_range_is_an_error(rank, world_size):
    with pytest.raises(ValueError, match=r"shard: (rank|world_size) must be an integer (in 0 .. 1|>= 1), got"):
        STREAM.shard(rank, world_size)


def test_indices_of_a_shard_are_checked():
    with pytest.raises(ValueError, match=r"shard: indices must be integers in 0 \.\. 2\*\*62 - 1, got -1"):
        STREAM.shard(1, 2)[[-1]]
    with pytest.raises(ValueError, match="shard: a slice needs an end"):
        STREAM.shard(1, 2)[3:]


# --- data loaders ---------------------------------------------------------------------------------------------------


def ids_of(rows):
    return [row["id"] for row in rows]


# torch warns of a thread pool in a forked process; ours are joined at the end of every call
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize(
    "method, batch_size, stop",
    [
        ("fork", 4, 42),
        ("fork", None, 11),
        ("spawn", 4, 42),
        pytest.param("spawn", None, 11, marks=pytest.mark.slow),  # each worker loads torch
    ],
)
def test_two_workers_leave_no_gap_and_no_overlap(method, batch_size, stop):
    dataset = fr.StreamDataset(STREAM, start=3, stop=stop, block=batch_size or 1)
    loader = DataLoader(
        dataset, batch_size=batch_size, num_workers=2, multiprocessing_context=method, collate_fn=collate
    )
    found = list(loader)
    if batch_size:
        assert found == [IDS[i : min(i + batch_size, stop)] for i in range(3, stop, batch_size)]
    else:
        assert found == IDS[3:stop]


def collate(rows):
    """A worker that is spawned gets it by name."""
    return ids_of(rows) if isinstance(rows, list) else rows["id"]


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_every_rank_goes_on_from_the_rows_it_has_used(workers):
    found = []
    for rank in range(2):
        used, mine = 0, []
        for _ in range(2):  # stopped after three batches, then started again with one integer
            dataset = fr.StreamDataset(STREAM.shard(rank, 2), start=used, block=5)
            context = "fork" if workers else None
            loader = DataLoader(
                dataset, batch_size=5, num_workers=workers, multiprocessing_context=context, collate_fn=ids_of
            )
            for batch in itertools.islice(loader, 3):
                mine += batch
                used += len(batch)
        assert mine == IDS[rank : 2 * len(mine) : 2]
        found += mine
    assert sorted(found) == sorted(IDS[:60])


def test_a_loader_without_workers_collates_rows():
    batch = next(iter(DataLoader(fr.StreamDataset(STREAM), batch_size=3)))
    assert batch["id"] == IDS[:3] and batch["op"].tolist() == STREAM[0:3].ops.tolist()


@pytest.mark.parametrize("workers", [0, 2])
def test_no_problem_is_no_batch(workers):
    more = {"multiprocessing_context": "fork"} if workers else {}
    assert list(DataLoader(fr.StreamDataset(STREAM, start=3, stop=3), num_workers=workers, **more)) == []


@pytest.mark.parametrize("settings", [{"start": -1}, {"block": 0}, {"start": 3, "stop": 2}, {"block": 1.5}])
def test_settings_out_of_range_are_errors(settings):
    with pytest.raises(ValueError, match=r"StreamDataset: (start|stop|block) must be an integer >= \d, got"):
        fr.StreamDataset(STREAM, **settings)


def test_the_example_is_right():
    assert doctest.testmod(torch_data).failed == 0
