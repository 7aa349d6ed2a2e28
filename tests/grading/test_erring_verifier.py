"""Verifiers that err: their rates, their independence of batches, and what a partial check sees."""

from dataclasses import replace

import numpy as np
import pytest

import fastreason as fr
from fastreason.grading.erring_verifier import VerifierErrors
from fastreason.grading.rewards import by_step, reward_function

MIX = fr.Mixture.uniform(op=[2, 3, 5], themes=["symbolic"], max_value=99, max_sentences=6)
NUM = 12_000
STREAM = fr.TaskStream(MIX, seed=3)
TOKENIZER = fr.Tokenizer.for_mixtures([MIX])


@pytest.fixture(scope="module")
def graded():
    """Of each problem a right solution and one with a wrong answer and a wrong last step."""
    problems = STREAM[0:NUM]
    texts = []
    for solution, answer in zip(problems.solutions, problems.answers, strict=True):
        texts += [solution, solution.replace(f"{answer}.", f"{answer + 1}.")]
    return fr.grade(problems, texts)


def share(values):
    return float(np.mean(values))


def near(rate, got):
    """Within four standard deviations of so many draws."""
    return abs(share(got) - rate) <= 4 * np.sqrt(rate * (1 - rate) / len(got)) + 1e-12


@pytest.mark.parametrize("per, every", [("sample", 1), ("step", 1), ("sample", 3), ("step", 2)])
def test_the_stated_rates(graded, per, every):
    ids = np.arange(NUM)
    errors = VerifierErrors(0.1, 0.3, per, every)
    reports = [errors.report(graded, seed, ids) for seed in range(9)]  # 1e5 draws of each kind
    right = np.tile(graded.answer_correct, 9)
    answers = np.concatenate([report.answer_correct for report in reports])
    assert right.sum() > 1e5 and (~right).sum() > 1e5
    assert near(0.1, answers[~right]) and near(0.7, answers[right])
    if per == "step":
        correct, steps = (np.concatenate([v.steps.correct for v in x]) for x in ([graded] * 9, reports))
        assert near(0.1, steps[~correct]) and near(0.7, steps[correct])
    elif every == 1:
        verified = np.concatenate([report.verified for report in reports])
        true = np.tile(graded.verified, 9)
        assert near(0.1, verified[~true]) and near(0.7, verified[true])
        assert reports[0].process_accuracy.tolist() == graded.process_accuracy.tolist()
    # errors of one check say nothing of those of another
    a, b = (report.answer_correct[~graded.answer_correct] for report in reports[:2])
    assert abs(np.corrcoef(a, b)[0, 1]) < 4 / np.sqrt(len(a))


@pytest.mark.parametrize("per", ["sample", "step"])
def test_errors_do_not_depend_on_batch_and_order(graded, per):
    errors = VerifierErrors(0.2, 0.2, per, 2)
    whole = errors.report(graded, 7, np.arange(NUM))
    for places in (np.arange(40, 90), np.arange(60)[::-1].copy()):
        problems = STREAM.batch(places)
        solutions = [
            (s, s.replace(f"{a}.", f"{a + 1}.")) for s, a in zip(problems.solutions, problems.answers, strict=True)
        ]
        part = errors.report(fr.grade(problems, [t for pair in solutions for t in pair], threads=1), 7, places)
        rows = (2 * places[:, None] + [0, 1]).ravel()
        for name in ("answer_correct", "verified", "sound", "process_accuracy"):
            assert getattr(part, name).tolist() == getattr(whole, name)[rows].tolist(), name
        steps = [whole.steps.correct[whole.steps.offsets[r] : whole.steps.offsets[r + 1]] for r in rows]
        assert part.steps.correct.tolist() == np.concatenate(steps).tolist()


def test_verdicts_on_samples_follow_from_those_on_steps(graded):
    erring = VerifierErrors(0.2, 0.2, "step")
    for errors in (erring, replace(erring, every=2), VerifierErrors(every=2)):
        report = errors.report(graded, 1, np.arange(NUM))
        steps, gold = report.steps, report.gold_steps
        for i in range(400):
            found = gold.found[gold.offsets[i] : gold.offsets[i + 1]]
            checked = found[::-1][:: errors.every]
            right = [f >= 0 and bool(steps.correct[steps.offsets[i] + f]) for f in checked]
            assert report.process_accuracy[i] == np.float32(np.mean(right))
            assert report.verified[i] == (all(right) and report.answer_correct[i])
    assert report.verified.sum() == graded.verified.sum()  # the last step is always checked


def test_without_errors_the_definition_is_the_verdict(graded):
    assert VerifierErrors().report(graded, 0, np.arange(NUM)) is graded
    report = VerifierErrors(1e-300, 0.0, "step").report(graded, 0, np.arange(NUM))
    for name in ("answer_correct", "verified", "sound", "process_accuracy"):
        assert getattr(report, name).tolist() == getattr(graded, name).tolist(), name
    empty = fr.grade(STREAM[0:0], [])
    assert len(VerifierErrors(0.5).report(empty, 0, np.arange(0))) == 0


def test_steps_that_are_not_checked_earn_nothing():
    problems = STREAM[0:50]
    tokens, bounds, prompts = STREAM.encoded(0, 50, TOKENIZER)
    rows = [tokens[a + p : b] for a, b, p in zip(bounds[:-1], bounds[1:], prompts, strict=True)]
    padded = np.zeros((50, max(map(len, rows))), np.int32)
    for place, row in enumerate(rows):
        padded[place, : len(row)] = row

    class Samples:
        tokens, lengths = padded, np.array([len(row) for row in rows])

    verdicts = fr.grade(problems, padded, tokenizer=TOKENIZER)
    report = VerifierErrors(every=2).report(verdicts, 0, np.arange(50))
    rewards = reward_function(by_step)(problems, Samples, report)
    num_steps = np.diff(verdicts.steps.offsets)
    assert (~np.isnan(rewards)).sum(1).tolist() == (-(-num_steps // 2) + 1).tolist()
    assert np.nansum(rewards, 1).tolist() == (-(-num_steps // 2) + 1).tolist()
    assert report.steps.checked[report.steps.offsets[1:] - 1].all()


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"false_positive": 1.5}, "verifier: false_positive must be in 0 .. 1, got 1.5"),
        ({"false_negative": float("nan")}, "verifier: false_negative must be in 0 .. 1, got nan"),
        ({"every": 0}, "verifier: every must be at least 1, got 0"),
        ({"per": "token", "false_positive": 0.1}, "per must be one of sample, step, got 'token'"),
        ({"per": "step"}, "per = 'step' has no effect without false_positive or false_negative"),
    ],
)
def test_settings_that_mean_nothing_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        VerifierErrors(**fields)
