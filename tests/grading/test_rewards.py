"""Rewards, and what groups of samples say."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

import fastreason as fr
from fastreason.integrations import trl, verl
from fastreason.integrations.text_reward import TextReward
from fastreason.rl.advantages import advantages
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


def test_zero_advantage_groups_are_those_whose_samples_fare_alike():
    rewards = np.array([1, 1, 1, 0, 0, 0, 0.5, 0.5], np.float32)
    assert fr.rewards.zero_advantage_groups(rewards, 2) == 0.75
    assert fr.rewards.zero_advantage_groups(rewards, 1) == 1.0
    assert fr.rewards.zero_advantage_groups(rewards, 8) == 0.0
    with pytest.raises(ValueError, match="divide the number of samples, got 3 for 8 samples"):
        fr.rewards.zero_advantage_groups(rewards, 3)


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


NOT_REWARDS = [
    (lambda v: np.full(len(v), np.nan), "must return finite numbers, got nan for sample 0"),
    (lambda v: np.where(np.arange(len(v)) == 1, -np.inf, 0), "must return finite numbers, got -inf for sample 1"),
    # the square of 3e38 is infinite in float32: deviations would be, too, and advantages 0
    (
        lambda v: [0.0, 3e38] * (len(v) // 2),
        r"must return numbers of magnitude at most 1e\+15, got 3e\+38 for sample 1",
    ),
    (lambda v: -1e300 * np.ones(len(v)), r"must return numbers of magnitude at most 1e\+15, got -1e\+300 for sample 0"),
    (lambda v: np.zeros(3), r"must return one number for each of the \d+ samples.*got shape \(3,\)"),
    (lambda v: np.zeros((len(v), 1)), r"must return one number for each of .* got shape \(\d+, 1\)"),
    (lambda v: 1.0, r"must return one number for each of .* got shape \(\)"),
    (lambda v: np.ones(len(v)) * 1j, "must return real numbers, got complex128 such as"),
    (lambda v: ["1.0"] * len(v), "must return real numbers, got <U3 such as"),
    (lambda v: [None] * len(v), "must return real numbers, got object such as"),
    (lambda v: None, "must return real numbers, got object such as"),
    (lambda v: [[0.0]] + [[0.0, 1.0]] * (len(v) - 1), "must return an array of numbers, got"),
    (lambda v: torch.ones(len(v), requires_grad=True), "must return an array of numbers, got"),
]


@pytest.mark.parametrize("function, message", NOT_REWARDS)
def test_what_is_no_reward_is_an_error_that_names_the_function(function, message):
    """In the loop of reinforcement learning and in every adapter: the same check."""
    gold, samples = [GOLD] * 4, SimpleNamespace(lengths=np.ones(4, int), tokens=np.zeros((4, 7), np.int32))
    calls = [
        lambda: fr.rewards.reward_function(function)(None, samples, fr.grade_texts(gold, gold)),
        lambda: trl.reward(function)(gold, gold, solution=gold),
        lambda: verl.compute_scores(gold, gold, gold, kind=function),
        lambda: TextReward(function).score(gold, gold),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=rf"reward \S*<lambda>: {message}"):
            call()


@pytest.mark.parametrize(
    "returned", [np.ones(4, bool), np.arange(4, dtype=np.uint64), [1, 0.5, 0, 1e15], torch.ones(4, dtype=torch.float16)]
)
def test_any_real_numbers_are_rewards(returned):
    samples = SimpleNamespace(lengths=np.ones(4, int), tokens=np.zeros((4, 7), np.int32))
    got = fr.rewards.reward_function(lambda v: returned)(None, samples, fr.grade_texts([GOLD], [GOLD] * 4))
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, np.asarray(returned, np.float32))


def test_the_largest_reward_still_has_an_advantage():
    most = fr.rewards.LARGEST_REWARD
    rewards = torch.tensor([most, -most] * 8)
    for scale in ("std", "batch"):
        for baseline in ("group", "leave_one_out", "batch"):
            got = advantages(rewards, 16, baseline=baseline, scale=scale)
            assert got.isfinite().all()
            assert 0.9 < got[0] < 1.1


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
