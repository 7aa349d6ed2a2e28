"""reasoning-gym serves our problems. Needs `make test-integrations`; skipped where the library is absent."""

import warnings

import pytest

import fastreason as fr

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    reasoning_gym = pytest.importorskip(
        "reasoning_gym", reason="the library reasoning-gym is not installed (make test-integrations)"
    )

from reasoning_gym.composite import CompositeConfig, DatasetSpec
from reasoning_gym.factory import create_curriculum

import fastreason.integrations.reasoning_gym


def dataset(**settings):
    return reasoning_gym.create_dataset(
        "fastreason", **{"size": 20, "seed": 42, "op": [3, 4], "themes": ["zoo", "symbolic"], **settings}
    )


def test_entries_are_problems_of_the_stream():
    data = dataset()
    batch = fr.TaskStream(fr.Mixture.uniform(op=[3, 4], themes=["zoo", "symbolic"]), seed=42, split="rl")[0:20]
    assert len(data) == len(list(data)) == 20
    assert [f"<question> {entry['question']} </question> <solution>" for entry in data] == batch.prompts
    assert [entry["answer"] for entry in data] == [str(answer) for answer in batch.answers]
    facts = [entry["metadata"] for entry in data]
    assert [row["solution"] for row in facts] == batch.solutions
    assert [row["op"] for row in facts] == batch.ops.tolist()
    assert [(row["source_dataset"], row["source_index"]) for row in facts] == [("fastreason", i) for i in range(20)]
    assert list(dataset()) == list(data)
    assert list(dataset(seed=43)) != list(data)
    assert list(dataset(split="test")) != list(data)


@pytest.mark.parametrize("reward", ["outcome", "blended", "strict"])
def test_its_own_answers_earn_1(reward):
    data = dataset(reward=reward)
    assert [data.score_answer(entry["answer"], entry) for entry in data] == [1.0] * 20


@pytest.mark.parametrize(
    "answer, outcome, blended, strict",
    [
        (None, 0, 0, 0),
        ("", 0, 0, 0),
        ("no idea", 0, 0, 0),
        ("7", 1, 0.2, 0),
        (" 7.0 ", 0, 0, 0),  # an integer has no decimal point
        ("8", 0, 0, 0),
        ("<answer> 7 </answer>", 1, 0.2, 0),
        ("Ba: 2. Be: 3 + Ba = 3 + 2 = 5. B: Ba + Be = 2 + 5 = 7. Answer: 7.", 1, 1, 1),
        ("Ba: 2. Be: 3 + Ba = 3 + 2 = 5. B: Ba + Be = 2 + 5 = 8. Answer: 7.", 1, 0.2 + 0.8 * 2 / 3, 0),
    ],
)
def test_scores(answer, outcome, blended, strict):
    gold = "Ba: 2. Be: 3 + Ba = 3 + 2 = 5. B: Ba + Be = 2 + 5 = 7. Answer: 7."
    entry = {"question": "", "answer": "7", "metadata": {"solution": gold}}
    for reward, wanted in (("outcome", outcome), ("blended", blended), ("strict", strict)):
        assert dataset(reward=reward).score_answer(answer, entry) == pytest.approx(wanted, abs=1e-6)
    half = dataset(reward="blended", reward_settings={"outcome_weight": 0.5})
    assert half.score_answer("7", entry) == 0.5


def test_an_answer_in_parts_and_an_entry_without_a_solution():
    gold = "Ba: 2. Be: 3 + Ba = 3 + 2 = 5. B: Ba + Be = 2 + 5 = 7. Answer: 7."
    entry = {"question": "", "answer": "7", "metadata": {"solution": gold}}
    parts = [{"type": "text", "text": gold[:20]}, {"type": "text", "text": gold[20:]}]
    assert dataset(reward="strict").score_answer(parts, entry) == 1.0
    bare = {"question": "", "answer": "7", "metadata": {}}
    assert [dataset().score_answer(answer, bare) for answer in ("7", "8", gold, None)] == [1.0, 0.0, 1.0, 0.0]
    with pytest.raises(ValueError, match="gold 0 has no readable step: '7'"):
        dataset(reward="strict").score_answer(gold, bare)
    with pytest.raises(ValueError, match="gold 0 has no readable answer: 'seven'"):
        dataset().score_answer(gold, {"answer": "seven"})
    with pytest.raises(ValueError, match="answer must be a text or a list of parts"):
        dataset().score_answer(7, entry)


def test_a_part_of_a_composite_and_a_curriculum():
    parts = [DatasetSpec("fastreason", 1.0, {"op": 5}), DatasetSpec("chain_sum", 1.0, {})]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mixed = reasoning_gym.create_dataset("composite", size=30, seed=1, datasets=parts)
        entries = list(mixed)
    ours = [entry for entry in entries if entry["metadata"]["source_dataset"] == "fastreason"]
    assert 0 < len(ours) < 30
    assert all(mixed.score_answer(entry["answer"], entry) == 1.0 for entry in ours)
    assert isinstance(mixed.config, CompositeConfig)
    curriculum = create_curriculum("fastreason")
    curriculum.increment_attr_level("op")
    config = curriculum.generate_configuration({"size": 3, "seed": 1})
    assert [entry["metadata"]["op"] for entry in reasoning_gym.create_dataset("fastreason", **vars(config))] == [3] * 3


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"size": 0}, "fastreason: size must be at least 1, got 0"),
        ({"op": 50}, "op must be an integer in 2 .. 40, got 50"),
        ({"reward": "best"}, "kind must be a function or one of outcome, blended, .*, got 'best'"),
        ({"reward_settings": {"weight": 1}}, "outcome cannot take {'weight': 1}"),
    ],
)
def test_values_out_of_range_are_errors(settings, message):
    with pytest.raises(ValueError, match=message):
        dataset(**settings)
