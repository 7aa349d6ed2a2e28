"""The `datasets` library reads a stream. Needs `make test-integrations`; skipped where the library is absent."""

import itertools
import pickle

import pytest

import fastreason as fr

datasets = pytest.importorskip("datasets", reason="the library datasets is not installed (make test-integrations)")

STREAM = fr.TaskStream(fr.Mixture.uniform(op=[2, 3], themes=["symbolic"]), seed=3)


def take(dataset, count):
    return list(itertools.islice(dataset, count))


def test_a_range_is_a_dataset_in_memory():
    dataset = fr.to_datasets(STREAM, start=5, stop=25)
    assert isinstance(dataset, datasets.Dataset) and dataset.to_list() == STREAM[5:25].rows(prompts=True)
    assert dataset.features["op"].dtype == "int64" and dataset.features["problem"].dtype == "string"


@pytest.mark.parametrize("start", [0, 7])
def test_without_an_end_it_streams_in_order(start):
    dataset = fr.to_datasets(STREAM, start=start)
    assert isinstance(dataset, datasets.IterableDataset)
    assert take(dataset, 600) == STREAM[start : start + 600].rows(prompts=True)


@pytest.mark.parametrize("start", [0, 7])
def test_nodes_divide_it_without_overlap_or_gap(start):
    from datasets.distributed import split_dataset_by_node

    dataset = fr.to_datasets(STREAM, start=start, num_shards=3)
    parts = [take(split_dataset_by_node(dataset, rank=rank, world_size=3), 40) for rank in range(3)]
    for rank, part in enumerate(parts):
        assert part == STREAM[start + rank : start + 120 : 3].rows(prompts=True)


def test_a_shard_of_the_stream_and_a_copy_in_a_process():
    dataset = pickle.loads(pickle.dumps(fr.to_datasets(STREAM.shard(1, 3))))
    assert take(dataset, 50) == STREAM.shard(1, 3)[0:50].rows(prompts=True)


def test_data_loaders_divide_it():
    from torch.utils.data import DataLoader

    loader = DataLoader(
        fr.to_datasets(STREAM, num_shards=2), batch_size=None, num_workers=2, multiprocessing_context="fork"
    )
    assert [row["id"] for row in take(loader, 60)] == [row["id"] for row in STREAM[0:60].rows(prompts=True)]


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than this machine has cores
@pytest.mark.parametrize("num_shards, workers", [(4, 0), (4, 1), (4, 2), (4, 3), (4, 4), (1, 2), (3, 2)])
def test_every_problem_comes_once_whatever_the_number_of_workers(num_shards, workers):
    """In the order of the stream where the workers divide the shards; ahead of it where some have fewer shards."""
    from torch.utils.data import DataLoader

    more = {"multiprocessing_context": "fork"} if workers else {}
    dataset = fr.to_datasets(STREAM, start=7, num_shards=num_shards)
    loader = DataLoader(dataset, batch_size=None, num_workers=workers, **more)
    found = [int(row["id"].split("-")[-2]) for row in take(loader, 120)]
    assert len(set(found)) == 120 and set(range(7, 67)) <= set(found)
    if workers == 0 or num_shards % min(workers, num_shards) == 0:
        assert found == list(range(7, 127))


def test_a_reader_of_several_parts_goes_on_where_it_was():
    dataset = fr.to_datasets(STREAM, num_shards=3)
    rows = iter(dataset)
    first = [next(rows) for _ in range(10)]
    state = dataset.state_dict()
    again = fr.to_datasets(STREAM, num_shards=3)
    again.load_state_dict(state)
    assert first + take(again, 10) == STREAM[0:20].rows(prompts=True)
    assert take(fr.to_datasets(STREAM, num_shards=3).shuffle(seed=1, buffer_size=1), 5) == STREAM[0:5].rows(
        prompts=True
    )


def test_no_problem_is_an_empty_dataset():
    dataset = fr.to_datasets(STREAM, start=5, stop=5)
    assert len(dataset) == 0 and dataset.features["op"].dtype == "int64"


@pytest.mark.parametrize(
    "settings", [{"start": -1}, {"num_shards": 0}, {"start": 3, "stop": 2}, {"start": 0.5}, {"num_shards": True}]
)
def test_numbers_out_of_range_are_errors(settings):
    with pytest.raises(ValueError, match=r"to_datasets: .* must be an integer .*, got"):
        fr.to_datasets(STREAM, **settings)
