"""Scores by whether a problem's graph was seen: against the definition, problem by problem."""

from dataclasses import replace

import numpy as np
import pytest

import fastreason as fr
from fastreason.evaluation.evaluate import EvaluateSettings, evaluate_sampler, streams_of
from fastreason.evaluation.pass_at_k import pass_at_ks
from fastreason.evaluation.scores import Scores
from fastreason.evaluation.seen_unseen import SeenGraphs

from .test_evaluate import Oracle

PART = {"op": [4, 5, 6], "themes": ["symbolic"], "max_value": 99}
SETTINGS = EvaluateSettings(
    mixture=[PART], problems=40, samples=4, k=[1, 4], traces=0, ranges={"both": {"4": 0.25, "5-6": 0.75}}
)


def some_seen() -> SeenGraphs:
    """The graphs of a few training problems of op 4 and 5: not all of theirs, none of op 6."""
    mixture = fr.Mixture.from_dict(PART | {"op": [4, 5]})
    return SeenGraphs.of(fr.TaskStream(mixture, seed=3).graph_hashes(0, 4))


@pytest.fixture(scope="module")
def found():
    return evaluate_sampler(
        Oracle(), SETTINGS, seen={"training": some_seen(), "rl": SeenGraphs.of(np.zeros(0, np.uint64))}
    )


def by_hand(found, op):
    """(whether seen, pass@1, pass@4) of each problem."""
    seen = set(some_seen().graphs.tolist())
    stream = streams_of(fr.Mixture.from_dict(PART))[op]
    held = np.array([value in seen for value in stream[0:40].graph_hashes.tolist()])
    return held, pass_at_ks(np.array(found["problems"][str(op)]["verified"]), 4, [1, 4])


def test_ops_come_apart_as_their_problems_do(found):
    graphs = found["graphs"]["training"]
    assert graphs["bound"] == "exact"
    for op in (4, 5, 6):
        held, passed = by_hand(found, op)
        assert graphs["problems"][str(op)] == held.astype(int).tolist()
        for part, mask in (("seen", held), ("unseen", ~held)):
            entry = graphs["ops"][str(op)].get(part)
            assert (entry is None) == (not mask.any())
            if entry:
                assert entry["problems"] == mask.sum() and entry["samples"] == 4 * mask.sum()
                assert list(entry["verified"].values()) == pytest.approx(passed[mask].mean(axis=0))
                low, high = entry["verified_interval"]["1"]
                assert low <= entry["verified"]["1"] <= high
    assert {"seen", "unseen"} == set(graphs["ops"]["5"]) and {"unseen"} == set(graphs["ops"]["6"])


def test_the_whole_range_is_the_mean_of_both_by_their_shares(found):
    parts = found["graphs"]["training"]["ranges"]["both"]
    assert parts["seen"]["share"] + parts["unseen"]["share"] == pytest.approx(1.0)
    for level in ("verified", "sound", "answer"):
        for k in ("1", "4"):
            both = sum(entry["share"] * entry[level][k] for entry in parts.values())
            assert both == pytest.approx(found["ranges"]["both"][level][k])
    assert sum(entry["problems"] for entry in parts.values()) == 120


def test_what_was_there_before_stays_as_it_was(found):
    plain = evaluate_sampler(Oracle(), SETTINGS)
    assert "graphs" not in plain
    assert {name: value for name, value in found.items() if name != "graphs"} == plain


def test_nothing_seen_is_all_unseen(found):
    graphs = found["graphs"]["rl"]
    for op in ("4", "5", "6"):
        assert list(graphs["ops"][op]) == ["unseen"]
        assert graphs["ops"][op]["unseen"]["verified"] == pytest.approx(found["ops"][op]["verified"])
    assert list(graphs["ranges"]["both"]) == ["unseen"]


def test_scores_tell_them_by_name(found):
    scores = Scores(found)
    unseen = scores.graphs["training"]["unseen"]
    assert unseen[6].at(4).value == found["ops"]["6"]["verified"]["4"]
    assert unseen["both"].at(1).value == found["graphs"]["training"]["ranges"]["both"]["unseen"]["verified"]["1"]
    assert 6 not in scores.graphs["training"]["seen"]
    assert Scores(evaluate_sampler(Oracle(), replace(SETTINGS, problems=2))).graphs == {}


def test_evaluate_takes_hashes(found):
    scores = fr.evaluate(Oracle(), fr.Mixture.from_dict(PART), problems=40, samples=4, seen=some_seen().graphs[::-1])
    assert (
        scores.graphs["training"]["seen"][5].at(1).value
        == found["graphs"]["training"]["ops"]["5"]["seen"]["verified"]["1"]
    )
    with pytest.raises(ValueError, match=r"seen must be graph hashes, uint64 \[N\], got int64 \[2\]"):
        fr.evaluate(Oracle(), "pretrain", seen=np.array([1, 2]))


def test_sets_join_and_say_what_they_leave_open():
    a, b = SeenGraphs.of(np.array([3, 1, 3], np.uint64)), SeenGraphs(np.array([2, 3], np.uint64), "at least")
    assert SeenGraphs.join([a, b]).graphs.tolist() == [1, 2, 3]
    assert [SeenGraphs.join(parts).bound for parts in ([a], [a, b], [b, replace(a, bound="at most")])] == [
        "exact",
        "at least",
        "about",
    ]
    assert a.holds(np.array([1, 2], np.uint64)).tolist() == [True, False]
