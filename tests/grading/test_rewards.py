"""Rewards, and what groups of samples say."""

import numpy as np
import pytest

import fastreason as fr
from tests.grading.gold import GOLD, SYMBOLIC_GOLD

RIGHT = GOLD
NO_ANSWER = GOLD.replace(" Answer: 7.", "")
LAST_WRONG = GOLD.replace("2 + 5 = 7", "2 + 5 = 8")
ONLY_ANSWER = "Answer: 7."


@pytest.fixture(scope="module")
def verdicts() -> fr.Verdicts:
    return fr.grade_texts([GOLD], [RIGHT, NO_ANSWER, LAST_WRONG, ONLY_ANSWER])


@pytest.mark.parametrize(
    "reward, wanted",
    [
        (fr.rewards.outcome, [1, 0, 1, 1]),
        (fr.rewards.strict, [1, 0, 0, 0]),
        (fr.rewards.blended, [1, 0.8, 0.2 + 0.8 * 2 / 3, 0.2]),
        (lambda v: fr.rewards.blended(v, outcome_weight=0.5), [1, 0.5, 0.5 + 0.5 * 2 / 3, 0.5]),
        (fr.rewards.steps, [1, 3 / 4, 3 / 4, 1 / 4]),
    ],
)
def test_rewards_by_their_formulas(verdicts, reward, wanted):
    got = reward(verdicts)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, wanted, rtol=1e-6)


def test_the_weight_of_a_blend_is_a_share(verdicts):
    with pytest.raises(ValueError, match=r"outcome_weight must be in 0 \.\. 1, got 1\.5"):
        fr.rewards.blended(verdicts, 1.5)


def test_silent_groups_are_those_whose_samples_fare_alike():
    rewards = np.array([1, 1, 1, 0, 0, 0, 0.5, 0.5], np.float32)
    assert fr.rewards.silent_groups(rewards, 2) == 0.75
    assert fr.rewards.silent_groups(rewards, 1) == 1.0
    assert fr.rewards.silent_groups(rewards, 8) == 0.0
    with pytest.raises(ValueError, match="divide the number of samples, got 3 for 8 samples"):
        fr.rewards.silent_groups(rewards, 3)


def test_siblings_agree_on_names_and_values_within_their_group():
    q2, q4 = ("Define red kite in Alder Field as {0}; so {0} = {1}. ".format(*pair) for pair in (("q", 2), ("Z", 4)))
    other = "Define blue kite in Alder Field as q; so q = 2. "
    empty = "Define red kite in Alder Field as q; so q. "
    texts = [q2, q2 + q2, q4, q2 + other, other, q2, empty, empty]
    verdict = fr.grade_texts([GOLD, GOLD], texts)
    got = fr.rewards.sibling_agreement(verdict, 4)
    # group 0: three of four say 2, one says 4, one names the blue kite; group 1 knows nothing of group 0
    np.testing.assert_allclose(got, [0.75, 0.75, 0.75, 0.25, 0.75, 0.25, 0.25, 0.25, 0, 0])
    assert fr.rewards.sibling_agreement(fr.grade_texts([GOLD], ["", ""]), 2).shape == (0,)


def test_any_function_of_verdicts_is_a_reward(verdicts):
    def shorter_is_better(v: fr.Verdicts) -> np.ndarray:
        return v.sound / np.maximum(np.diff(v.steps.offsets), 1)

    np.testing.assert_allclose(shorter_is_better(verdicts), [1 / 3, 0, 0, 0])


def test_the_released_scorer_is_asked_when_its_verdict_is_read(verdicts):
    assert verdicts.released_verified.tolist() == [True, False, False, False]
    np.testing.assert_allclose(verdicts.released_process_accuracy, [1, 1, 2 / 3, 0], rtol=1e-6)
    # the released outcome compares the answer tag alone, which these texts do not have
    np.testing.assert_allclose(verdicts.released_process_reward, [1, 2 / 3, 2 / 3, 0], rtol=1e-6)


def test_the_released_verdicts_of_token_ids_are_those_of_their_text():
    batch = fr.TaskStream(fr.Mixture.uniform(op=[3, 5], themes=["zoo"]), seed=0)[0:6]
    texts = [d.removeprefix(p).removesuffix("[EOS]") for d, p in zip(batch.documents, batch.prompts, strict=True)]
    texts[1] = texts[2]
    tokenizer = fr.Tokenizer.build(["zoo"])
    ids = [tokenizer.encode(text) for text in texts]
    rows = np.full((6, max(map(len, ids)) + 1), tokenizer.eos_id)
    for row, values in zip(rows, ids, strict=True):
        row[: len(values)] = values
    want, got = fr.grade(batch, texts), fr.grade(batch, rows, tokenizer=tokenizer)
    np.testing.assert_array_equal(got.released_verified, want.released_verified)
    np.testing.assert_array_equal(got.released_outcome, want.released_outcome)
    assert got.released_verified.tolist() == [True, False, True, True, True, True]


def test_the_released_scorer_cannot_read_the_symbolic_style():
    verdict = fr.grade_texts([SYMBOLIC_GOLD], [SYMBOLIC_GOLD])
    assert verdict.verified.all()
    assert not verdict.released_verified.any()
    assert np.isnan(verdict.released_process_accuracy).all()
    assert np.isnan(verdict.released_process_reward).all()
