"""Verdicts of claims, several looks, unseen graphs and extremes, on results whose truth is known."""

import numpy as np
import pytest

from fastreason.studies.claims import (
    CEILING,
    FAILS,
    FLOOR,
    HOLDS,
    NOT_KNOWN,
    UNDECIDED,
    UNFINISHED,
    effects_table,
    judged_claims,
    verdict,
    word_of,
)
from fastreason.studies.recipe import load_recipe
from fastreason.studies.study import Claim, RangePart, Study

SAMPLES = 16
CLAIM = {"name": "c", "text": "t", "range": "edge", "variant": "rl", "against": ["none"]}


def study_of(*claims, seeds=6, ops=(2, 3)):
    recipe = load_recipe("smoke", {"evaluate.samples": SAMPLES, "evaluate.k": [4, SAMPLES]})
    variants = {"none": load_recipe("smoke", {"evaluate.samples": SAMPLES, "evaluate.k": [4, SAMPLES]}), "rl": recipe}
    ranges = {"edge": [RangePart(op=list(ops))]}
    return Study("s", list(range(seeds)), variants, ranges, [Claim(**{**CLAIM, **claim}) for claim in claims])


def results_of(study, before, after, seen=None, stages=("pretrain", "rl"), problems=100):
    """results.json where problems are solved with these chances: {op: chance or [P]} before and after RL.

    Args:
        seen: whether a problem's graph occurred, by kind: {"training": bool [P]}, the same for every op.
    """
    results = {"variants": {}, "scores": {}}
    for variant in study.variants:
        runs = {}
        for seed in study.seeds:
            for i, stage in enumerate(stages):
                rng, chances = np.random.default_rng([seed, i, variant == "rl"]), [before, after][i]
                entry = {"problems": {}}
                for op, chance in (before if variant == "none" else chances).items():
                    verified = rng.binomial(SAMPLES, np.broadcast_to(chance, problems)).tolist()
                    entry["problems"][str(op)] = {"theme": ["symbolic"] * problems, "verified": verified}
                if seen is not None:
                    kinds = {kind: mask for kind, mask in seen.items() if kind == "training" or stage == "rl"}
                    flags = {
                        kind: {str(op): mask.astype(int).tolist() for op in before} for kind, mask in kinds.items()
                    }
                    entry["graphs"] = {kind: {"bound": "exact", "problems": flags[kind]} for kind in kinds}
                results["scores"][f"{variant}-{seed}-{stage}"] = entry
            runs[str(seed)] = {stage: {"evaluation": f"{variant}-{seed}-{stage}"} for stage in stages}
        results["variants"][variant] = {"samples": SAMPLES, "runs": runs}
    return results


def claim(**bound):
    return Claim(**CLAIM, **bound)


@pytest.mark.parametrize(
    "bound, interval, want",
    [
        ({"within": 0.05}, (-0.04, 0.03), HOLDS),
        ({"within": 0.05}, (-0.06, 0.03), UNDECIDED),
        ({"within": 0.05}, (-0.2, 0.2), UNDECIDED),
        ({"within": 0.05}, (0.06, 0.09), FAILS),
        ({"within": 0.05}, (-0.09, -0.06), FAILS),
        ({"at_least": 0.05}, (0.05, 0.2), HOLDS),
        ({"at_least": 0.05}, (0.04, 0.2), UNDECIDED),
        ({"at_most": 0.05}, (0.0, 0.05), HOLDS),
        ({"at_most": 0.05}, (0.06, 0.07), FAILS),
    ],
)
def test_a_verdict_has_three_values(bound, interval, want):
    assert verdict(claim(**bound), interval) == want


def test_words_know_a_margin():
    words = [word_of(interval) for interval in ((-0.009, 0.009), (0.02, 0.1), (-0.1, -0.02), (0.0, 0.05), (-0.1, 0.1))]
    assert words == ["unchanged", "raised", "lowered", "undecided", "undecided"]


@pytest.mark.parametrize(
    "before, after, want",
    [
        (0.0, 0.0, FLOOR),
        (0.0, 0.001, FLOOR),
        (1.0, 1.0, CEILING),
        (1.0, 0.999, CEILING),
        (0.0, 0.2, HOLDS),  # it leaves the floor
        (0.3, 0.3, FAILS),
        (1.0, 0.9, FAILS),
    ],
)
@pytest.mark.parametrize("bound", [{"at_least": 0.04}, {"at_most": 0.04}, {"within": 0.04}], ids=str)
def test_nothing_is_said_at_the_floor_and_at_the_ceiling(before, after, want, bound):
    study = study_of(bound)
    (found,) = judged_claims(study, results_of(study, dict.fromkeys((2, 3), before), dict.fromkeys((2, 3), after)))
    opposite = {HOLDS: FAILS, FAILS: HOLDS}
    if "at_least" not in bound:
        want = FAILS if (bound, before) == ({"within": 0.04}, 1.0) and after == 0.9 else opposite.get(want, want)
    assert found["verdict"] == want
    assert found["scores"]["rl"]["value"] == pytest.approx(after, abs=0.02)


def test_a_claim_is_looked_at_once_for_every_k():
    study = study_of({"k": [1, 4], "at_least": 0.15}, {"name": "d", "at_least": 0.15, "k": 16})
    found = judged_claims(study, results_of(study, {2: 0.15, 3: 0.15}, {2: 0.25, 3: 0.25}))
    assert [(entry["name"], entry["k"]) for entry in found] == [("c", 1), ("c", 4), ("d", 16)]
    assert [entry["verdict"] for entry in found] == [FAILS, HOLDS, FAILS]
    assert found[1]["of"] == "verified pass@4, edge: rl against none"
    assert found[2]["p"] < 0.05


def test_many_looks_need_more_of_each():
    """A difference that decides alone does not as one of several that are otherwise open."""
    one, open_ones = {"at_least": 0.15}, [{"name": f"open-{i}", "at_least": 0.2} for i in range(9)]
    found = []
    for claims in ([one], [one, *open_ones]):
        study = study_of(*claims, seeds=3)
        found.append(judged_claims(study, results_of(study, {2: 0.3, 3: 0.3}, {2: 0.5, 3: 0.5}))[0])
    alone, among = found
    assert alone["verdict"] == among["verdict"] == alone["over_all"] == HOLDS
    assert among["over_all"] == UNDECIDED
    assert among["p_over_all"] == pytest.approx(10 * alone["p_over_all"]) == pytest.approx(10 * alone["p"])


def test_holm_shares_the_error_in_steps():
    study = study_of(*[{"name": f"c{i}", "at_least": bound} for i, bound in enumerate((0.0, 0.1, 0.2))], seeds=5)
    found = judged_claims(study, results_of(study, {2: 0.2, 3: 0.2}, {2: 0.5, 3: 0.5}))
    p = [entry["p"] for entry in found]
    assert p == sorted(p)
    want = [3 * p[0], max(3 * p[0], 2 * p[1]), max(3 * p[0], 2 * p[1], p[2])]
    assert [entry["p_over_all"] for entry in found] == pytest.approx(want)
    # p is where the interval stops deciding
    low, _ = found[2]["interval"]
    assert (p[2] < 0.05) == (low >= 0.2)


def test_only_unseen_graphs_count_where_a_claim_says_so():
    """RL raises what it has seen; of the others, those that both sides have not seen."""
    trained, prompted = np.arange(100) < 30, (np.arange(100) >= 20) & (np.arange(100) < 60)
    seen = {"training": trained, "rl": prompted}
    chances = np.where(prompted | trained, 0.8, 0.2)
    study = study_of({"at_least": 0.05}, {"name": "d", "at_least": 0.05, "graphs": "unseen"})
    found = judged_claims(study, results_of(study, {2: 0.2, 3: 0.2}, {2: chances, 3: chances}, seen))
    assert [entry["verdict"] for entry in found] == [HOLDS, FAILS]
    assert [entry["problems"] for entry in found] == [200, 80]
    assert found[1]["of"] == "verified pass@1, edge, unseen graphs: rl against none"
    assert found[1]["scores"]["rl"]["value"] == pytest.approx(0.2, abs=0.03)


def test_unseen_graphs_that_nobody_knows_are_no_verdict():
    study = study_of({"at_least": 0.05, "graphs": "unseen"})
    chances = {2: 0.5, 3: 0.5}
    everything = {"training": np.ones(100, dtype=bool), "rl": np.zeros(100, dtype=bool)}
    for seen in (None, {"training": np.zeros(100, dtype=bool)}, everything):
        (found,) = judged_claims(study, results_of(study, chances, chances, seen))
        assert (found["verdict"], found["effect"], found["seeds"]) == (NOT_KNOWN, None, [])


def test_a_study_that_looked_at_part_of_training_says_so():
    study = study_of({"at_least": 0.05, "graphs": "unseen"})
    nothing = {"training": np.zeros(100, dtype=bool), "rl": np.zeros(100, dtype=bool)}
    results = results_of(study, {2: 0.5, 3: 0.5}, {2: 0.5, 3: 0.5}, nothing)
    for entry in results["scores"].values():
        entry["graphs"]["training"]["bound"] = "at least"
    (found,) = judged_claims(study, results)
    assert found["of"].endswith("; not all problems of training were looked at")


def test_an_unfinished_claim_is_not_judged():
    study = study_of({"at_least": 0.05})
    results = results_of(study, {2: 0.2, 3: 0.2}, {2: 0.6, 3: 0.6})
    del results["scores"]["rl-2-rl"]
    (found,) = judged_claims(study, results)
    assert (found["verdict"], found["over_all"], found["seeds"]) == (UNFINISHED, UNFINISHED, [0, 1, 3, 4, 5])
    assert found["effect"] == pytest.approx(0.4, abs=0.05)


def test_effects_are_a_table():
    study = study_of({"at_least": 0.05})
    results = results_of(study, {2: 0.2, 3: 0.2}, {2: 0.6, 3: 0.6})
    rows = effects_table(study, results)
    assert [(row["variant"], row["k"]) for row in rows] == [(v, k) for v in ("none", "rl") for k in (1, 4, 16)]
    row = rows[3]
    assert (row["range"], row["seeds"]) == ("edge", [0, 1, 2, 3, 4, 5])
    assert row["base"]["value"] == pytest.approx(0.2, abs=0.02) and row["after"]["value"] == pytest.approx(
        0.6, abs=0.02
    )
    assert row["difference"]["value"] == pytest.approx(row["after"]["value"] - row["base"]["value"])
    assert row["difference"]["word"] == "raised"
    assert all(0.0 <= end <= 1.0 for row in rows for side in ("base", "after") for end in row[side]["interval"])
