"""The graphs of what a stage has drawn, against a record of every draw."""

from dataclasses import replace

import numpy as np
import pytest

import fastreason as fr
from fastreason.rl.prompts import stage_prompts
from fastreason.rl.settings import PolicySettings
from fastreason.runtime.stop_request import Interrupted, StopRequest
from fastreason.studies import seen_graphs
from fastreason.studies.seen_graphs import _read, graphs_of_checkpoint, seen_by, stage_graphs
from fastreason.training import supervised
from fastreason.training.supervised import train
from fastreason.training.supervised_settings import Phase, SupervisedSettings

PART = {"op": [4], "themes": ["symbolic"], "max_value": 99}
# three phases, the middle one shorter than a step, so that it is passed over; two rows
SETTINGS = SupervisedSettings(
    phases=[Phase(0.3, [PART]), Phase(0.301, [PART | {"op": [3]}]), Phase(1.0, [PART | {"op": [5, 6]}])],
    tokens=4000,
    batch_tokens=512,
    rows=2,
)


def run(folder, settings=SETTINGS, stop=None):
    tokenizer = fr.Tokenizer.for_mixtures(settings.mixtures)
    model = fr.Decoder(fr.ModelConfig(len(tokenizer), 16, 1, 2, 1, 16))
    model.reset_parameters(0)
    return train("pretrain", model, tokenizer, settings, seed=6, folder=folder / "c", stop=stop)


@pytest.fixture
def drawn(monkeypatch):
    """The graphs of all problems whose tokens were handed to a step."""
    record: set[int] = set()

    class Recording(supervised.RowBatches):
        def draw(self, phase, next_index):
            batch, behind = super().draw(phase, next_index)
            for first, last in zip(next_index, behind, strict=True):
                record.update(self.streams[phase][list(range(first, last, len(next_index)))].graph_hashes.tolist())
            return batch, behind

    monkeypatch.setattr(supervised, "RowBatches", Recording)
    return record


def test_of_a_training_stage_they_are_those_it_was_fed(drawn, tmp_path):
    progress = run(tmp_path)
    seen = stage_graphs(SETTINGS, 6, progress)
    assert seen.bound == "exact"
    assert set(seen.graphs.tolist()) == drawn and len(drawn) > 10
    assert len(progress["phase_starts"]) == 3


def test_a_resumed_stage_has_the_phases_of_an_unbroken_one(tmp_path):
    class AtStep(StopRequest):
        """Asks to stop behind every third step."""

        steps = 0

        def on_any_rank(self):
            self.steps += 1
            return self.steps % 3 == 0

    want = run(tmp_path / "a")
    for _ in range(20):
        try:
            got = run(tmp_path / "b", stop=AtStep())
            break
        except Interrupted:
            pass
    assert got["phase_starts"] == want["phase_starts"] and got["next_index"] == want["next_index"]


def test_a_stage_of_an_earlier_version_is_known_where_it_has_one_phase():
    one = replace(SETTINGS, phases=[Phase(1.0, [PART])])
    old = {"next_index": [10, 7]}  # rows 0, 2, .. 8 and 1, 3, 5
    want = fr.TaskStream(fr.Mixture.from_dict(PART), seed=6)[[0, 1, 2, 3, 4, 5, 6, 8]].graph_hashes
    assert stage_graphs(one, 6, old).graphs.tolist() == sorted(set(want.tolist()))
    assert stage_graphs(SETTINGS, 6, old) is None
    assert seen_by([("pretrain", None), ("rl", stage_graphs(one, 6, old))]).keys() == {"rl"}


def policy(**changes) -> PolicySettings:
    return PolicySettings(mixture=[PART | {"op": [4, 6, 9]}], prompts=8, samples=2, **changes)


def test_of_prompts_they_are_those_that_were_drawn():
    settings = policy()
    source = stage_prompts(settings, 2)
    want = {graph for step in range(5) for graph in source.draw(step).graph_hashes.tolist()}
    seen = stage_graphs(settings, 2, {"draws": 5})
    assert set(seen.graphs.tolist()) == want and seen.bound == "exact"


def test_a_curriculum_is_bounded_from_above():
    settings = policy(curriculum="edge")
    source = stage_prompts(settings, 2)
    drawn: set[int] = set()
    for step in range(5):
        batch = source.draw(step)
        drawn.update(batch.graph_hashes.tolist())
        source.observe(batch, np.tile([0.0, 1.0], (8, 1)) * (batch.ops[:, None] == 9))  # op 9 speaks
    seen = stage_graphs(settings, 2, {"draws": 5})
    assert drawn < set(seen.graphs.tolist()) and seen.bound == "at most"


def test_a_long_stage_is_looked_at_in_parts_and_not_without_end(monkeypatch):
    progress = {"draws": 40}
    whole = stage_graphs(policy(), 2, progress)
    monkeypatch.setattr(seen_graphs, "_CHUNK", 33)
    assert stage_graphs(policy(), 2, progress).graphs.tolist() == whole.graphs.tolist()
    monkeypatch.setattr(seen_graphs, "_MOST", 100)
    part = stage_graphs(policy(), 2, progress)
    assert part.bound == "at least" and set(part.graphs.tolist()) < set(whole.graphs.tolist())


@pytest.mark.parametrize("size", [0, 1, 69, 300])
def test_a_file_that_was_cut_is_drawn_again(tmp_path, size):
    cache = tmp_path / "graphs.npz"
    first = stage_graphs(policy(), 2, {"draws": 3}, cache)
    whole = cache.read_bytes()
    assert size < len(whole)
    cache.write_bytes(whole[:size])
    again = stage_graphs(policy(), 2, {"draws": 3}, cache)
    assert np.array_equal(first.graphs, again.graphs) and first.bound == again.bound
    assert _read(cache) is not None  # and kept again

    (tmp_path / "unit.json").write_text('{"settings": {"prompts": 8, "reward": "strict"}, "before": null}')
    assert set(graphs_of_checkpoint(tmp_path / "checkpoint")) == {"rl"}
    cache.write_bytes(whole[:size])
    assert graphs_of_checkpoint(tmp_path / "checkpoint") == {}


def test_they_are_drawn_once_and_kept(tmp_path, monkeypatch):
    cache = tmp_path / "graphs" / "rl.npz"
    first = stage_graphs(policy(curriculum="edge"), 2, {"draws": 3}, cache)
    monkeypatch.setattr(seen_graphs, "_drawn", None)
    again = stage_graphs(policy(curriculum="edge"), 2, {"draws": 3}, cache)
    assert again.graphs.tolist() == first.graphs.tolist() and again.bound == "at most"
    assert [path.name for path in cache.parent.iterdir()] == ["rl.npz"]
