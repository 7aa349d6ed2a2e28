"""Labels against models whose success is known."""

import json

import numpy as np
import pytest

import fastreason as fr
from fastreason.evaluation.find_edge import EdgeCell, EdgeSettings, edge_mixture, edge_table, find_edge
from fastreason.evaluation.samplers import Samples
from fastreason.runtime.stop_request import StopRequest
from fastreason.tasks.mixture import Cell

from ..ranks import run_on_ranks

MIXTURE = fr.Mixture.uniform(op=range(2, 9), themes=["symbolic"], max_value=99)


class Known:
    """Every problem of an op is solved with a chance of its own: Beta with a mean that falls from 0.97 to 0."""

    MEAN = {2: 0.97, 3: 0.92, 4: 0.6, 5: 0.3, 6: 0.1, 7: 0.0005, 8: 0.0}

    def __init__(self, seed=0) -> None:
        self.seed = seed
        self.samples: dict[int, int] = {}

    def check(self, problems) -> None:
        pass

    def sample(self, problems, n, seed):
        op, mean = int(problems.ops[0]), self.MEAN[int(problems.ops[0])]
        self.samples[op] = self.samples.get(op, 0) + n * len(problems)
        rng = np.random.default_rng([self.seed, seed, op, int(problems.indices[0])])
        chance = rng.beta(4 * mean + 1e-9, 4 * (1 - mean) + 1e-9, len(problems)) if 0 < mean < 1 else np.full(16, mean)
        chance = np.resize(chance, len(problems))
        right = rng.random((len(problems), n)) < chance[:, None]
        texts = [
            s.replace(" Answer: ", " </solution> <answer> ").rstrip(".") + " </answer>" if good else ""
            for s, row in zip(problems.solutions, right, strict=True)
            for good in row
        ]
        return Samples(fr.grade(problems, texts), np.ones(len(texts), np.int64), right.reshape(-1), texts.__getitem__)


def labels(found: list[EdgeCell]) -> dict[int, str]:
    return {entry.cell.op: entry.label for entry in found}


def test_labels_are_the_truth_and_easy_ones_are_cheap():
    sampler = Known()
    found = find_edge(sampler, MIXTURE, EdgeSettings(samples=16))
    want = dict.fromkeys((2, 3), "mastered") | dict.fromkeys((4, 5, 6), "edge") | dict.fromkeys((7, 8), "out of reach")
    assert labels(found) == want
    assert all(entry.decided for entry in found)
    assert sampler.samples[8] < sampler.samples[3]
    for entry in found:
        low, high = entry.pass_1_interval
        assert low <= Known.MEAN[entry.cell.op] <= high
        assert entry.problems * 16 == sampler.samples[entry.cell.op]


def test_decided_labels_are_wrong_less_often_than_they_say():
    # a cell right at a threshold, where errors are most likely; 200 searches with 80 % confidence
    settings = EdgeSettings(samples=4, first=8, problems=64, confidence=0.8, mastered=0.6)
    cell = Cell(op=4, theme="symbolic", max_value=99)
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(200):
        counts = rng.binomial(4, 0.599, size=64)
        looks = [EdgeCell.of(cell, counts[:size], settings) for size in settings.looks()]
        first = next((look for look in looks if look.decided), None)
        wrong += first is not None and first.label != "edge"
    assert wrong / 200 <= 0.2


def test_a_budget_ends_the_search_with_labels_in_doubt():
    sampler = Known()
    settings = EdgeSettings(samples=16, first=4, problems=256, budget=7 * 4 * 16 + 2 * 4 * 16)
    found = find_edge(sampler, MIXTURE, settings)
    assert sum(sampler.samples.values()) <= settings.budget
    doubtful = [entry for entry in found if not entry.decided]
    assert doubtful
    text = edge_table(found, 16)
    assert text.count(" ?") == len(doubtful)
    assert text.splitlines()[1].startswith("op 2 symbolic")
    # the first look is for every cell, whatever the budget
    sampler = Known()
    assert len(find_edge(sampler, MIXTURE, EdgeSettings(samples=16, first=4, budget=1))) == 7
    assert sum(sampler.samples.values()) == 7 * 4 * 16


def test_the_edge_is_a_mixture_of_a_recipe():
    found = find_edge(Known(), MIXTURE, EdgeSettings(samples=16))
    parts = edge_mixture(found)
    assert parts == [
        {"op": [4, 5, 6], "themes": ["symbolic"], "modes": ["forward"], "depths": [2], "max_value": 99, "weight": 3.0}
    ]
    assert fr.Mixture.from_dict(parts).ops == (4, 5, 6)
    entry = json.loads(json.dumps(found[0].to_dict(16)))
    assert (entry["op"], entry["theme"], entry["label"], entry["decided"]) == (2, "symbolic", "mastered", True)
    assert entry["verified"].keys() == {"1", "16"}


def test_it_asks_the_split_val_alone():
    splits = set()

    class Spy(Known):
        def sample(self, problems, n, seed):
            splits.add(problems.stream.split)
            return super().sample(problems, n, seed)

    find_edge(Spy(), fr.Mixture.uniform(op=[2], themes=["symbolic"]), EdgeSettings(samples=2))
    assert splits == {"val"}


def test_a_stop_request_ends_between_two_looks():
    stop = StopRequest()

    class Stopping(Known):
        def sample(self, problems, n, seed):
            stop.requested = True
            return super().sample(problems, n, seed)

    found = find_edge(Stopping(), MIXTURE, EdgeSettings(samples=4, first=2), stop=stop)
    assert {entry.problems for entry in found} == {2}
    with pytest.raises(KeyboardInterrupt):
        find_edge(Known(), MIXTURE, EdgeSettings(samples=4, first=2), stop=stop)


def on_ranks() -> dict:
    sampler = Known()
    found = find_edge(sampler, MIXTURE, EdgeSettings(samples=8, problems=64))
    return {"found": [entry.to_dict(8) for entry in found], "ops": sorted(sampler.samples)}


def test_two_ranks_are_one(tmp_path):
    results = run_on_ranks(2, __name__, "on_ranks", out=tmp_path)
    alone = json.loads(json.dumps(on_ranks()))
    assert results[0]["found"] == results[1]["found"] == alone["found"]
    assert sorted({*results[0]["ops"], *results[1]["ops"]}) == alone["ops"]
    assert results[0]["ops"] != alone["ops"]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"samples": 0}, "samples must be at least 1, got 0"),
        ({"first": 9, "problems": 8}, "first must be at most problems = 8, got 9"),
        ({"reach": 0.9}, "0 < reach <= mastered < 1"),
        ({"confidence": 1.0}, "0 < confidence < 1"),
        ({"budget": -1}, "budget must be at least 0, got -1"),
    ],
)
def test_settings_out_of_range(change, message):
    with pytest.raises(ValueError, match=message):
        EdgeSettings(**change)
