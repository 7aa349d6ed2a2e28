"""One kind of failure for each completion, the cause before what follows from it."""

import re
from types import SimpleNamespace

import numpy as np
import pytest

import fastreason as fr
from fastreason import Ending, StepStatus
from fastreason.grading.failure_kinds import FailureKind, failure_kinds
from tests.grading.gold import GOLD


class Made(SimpleNamespace):
    """Verdicts of one completion, as far as the kinds look at them."""

    def __len__(self) -> int:
        return len(self.sound)


def made(*statuses: str, sound=False, answer=True, missing=0, has_answer=True, ending="CLOSED") -> Made:
    return Made(
        ending=np.array([Ending[ending]], dtype=np.uint8),
        answer=np.array([7.0 if has_answer else np.nan]),
        sound=np.array([sound]),
        answer_correct=np.array([answer]),
        num_missing=np.array([missing], dtype=np.int32),
        steps=SimpleNamespace(
            offsets=np.array([0, len(statuses)]),
            completion=np.zeros(len(statuses), dtype=np.int64),
            status=np.array([StepStatus[name] for name in statuses], dtype=np.uint8),
        ),
    )


WRONG = ("UNDEFINED_VARIABLE", "WRONG_PARENTS", "UNREADABLE", "WRONG_OPERATOR", "ARITHMETIC_SLIP", "WRONG_VALUE")
KINDS = [{"UNREADABLE": "UNREADABLE_STEP"}.get(status, status) for status in WRONG]


ENDINGS = ("UNFINISHED", "SEVERAL_ANSWERS", "TEXT_AFTER_ANSWER", "NO_ANSWER")


@pytest.mark.parametrize(
    "verdict, kind",
    [
        (made("RIGHT", "EXTRA", sound=True), "NONE"),
        *((made(answer=False, missing=1, has_answer=False, ending=kind), kind) for kind in ENDINGS),
        (made("WRONG_PARENTS", answer=False, missing=1, has_answer=False), "UNREADABLE_ANSWER"),
        (made(answer=True, missing=3), "NO_STEPS"),
        (made("RIGHT", *WRONG, missing=1), "MISSING_STEP"),
        *((made("RIGHT", *WRONG[i:], answer=False), KINDS[i]) for i in range(6)),
        *((made(*reversed(WRONG[i:]), "EXTRA"), KINDS[i]) for i in range(6)),
        (made("RIGHT", "REPEATED", "EXTRA", answer=False), "WRONG_ANSWER"),
        (made("RIGHT", "EXTRA"), "EXTRA_STEP"),
        (made("REPEATED", "RIGHT"), "EXTRA_STEP"),
        (made("RIGHT"), "WRONG_EQUATION"),
    ],
)
def test_the_first_that_holds(verdict, kind):
    assert failure_kinds(verdict).tolist() == [FailureKind[kind]]


# one wrong number, carried on rightly
MISREAD = GOLD.replace("q = 2", "q = 3").replace("3 + 2 = 5", "3 + 3 = 6").replace("2 + 5 = 7", "3 + 6 = 9")
# a value that was used is defined again, rightly
REPAIRED = (
    "Define red kite in Alder Field as q; so q = 4. Define grey owl in Alder Field as B; m = q = 4; so B = 3 + m = 3 + "
    "4 = 7. Define red kite in Alder Field as q; so q = 2. Define total number of birds in Alder Field as T; so T = q "
    "+ B = 2 + 7 = 9. Answer: 9."
)


@pytest.mark.parametrize(
    "old, new, kind",
    [
        ("", "", "NONE"),
        ("Answer", "Define grey owl in Fern Hollow as Z; so Z = 1. Answer", "NONE"),
        ("Answer: 7.", "", "NO_ANSWER"),
        ("Answer: 7.", "<answer> 7", "UNFINISHED"),
        ("Answer: 7.", "Answer: 7. Or", "TEXT_AFTER_ANSWER"),
        ("Answer: 7.", "Answer: 7. Answer: 7.", "SEVERAL_ANSWERS"),
        ("Answer: 7.", "Answer: 7 or 9.", "UNREADABLE_ANSWER"),
        ("so T = q + B = 2 + 5 = 7", "so T = q + B = 2 + 5 = 7 birds", "UNREADABLE_STEP"),
        (GOLD, "Answer: 7.", "NO_STEPS"),
        (GOLD, "", "NO_ANSWER"),
        ("Define red kite in Alder Field as q; so q = 2. ", "", "MISSING_STEP"),
        ("so T = q + B = 2 + 5", "so T = w + B = 2 + 5", "UNDEFINED_VARIABLE"),
        ("so T = q + B = 2 + 5 = 7", "so T = B = 7", "WRONG_PARENTS"),
        ("so T = q + B = 2 + 5 = 7", "so T = q + B + 1 - 1 = 2 + 5 = 7", "WRONG_OPERATOR"),
        ("so T = q + B = 2 + 5 = 7", "so T = q + B = 3 + 5 = 7", "ARITHMETIC_SLIP"),
        ("so T = q + B = 2 + 5 = 7", "so T = q + B = 8", "ARITHMETIC_SLIP"),
        ("so T = q + B = 2 + 5 = 7", "so T = q * B = 2 * 5 = 10", "WRONG_OPERATOR"),
        (GOLD, MISREAD, "WRONG_VALUE"),
        (GOLD, REPAIRED, "WRONG_VALUE"),
        ("so B = 3 + m = 3 + 2 = 5", "so B = 3 + m = 4 + 2 = 5", "ARITHMETIC_SLIP"),
        ("Answer", "Define grey owl in Fern Hollow as Z; so Z = 1 + 1 = 3. Answer", "EXTRA_STEP"),
        ("Answer: 7.", "Answer: 8.", "WRONG_ANSWER"),
    ],
)
def test_kinds_of_texts(old, new, kind):
    text = GOLD.replace(old, new, 1)
    kinds = failure_kinds(fr.grade_texts([GOLD], [text]))
    assert FailureKind(kinds[0]).name == kind


def test_a_reverse_problem_whose_equation_is_not_solved():
    mixture = fr.Mixture.uniform(op=[4, 9], themes=["zoo"], modes=["reverse"])
    gold = fr.TaskStream(mixture, seed=1)[0:40].solutions
    texts = [re.sub(r"(Isolate the term with x: .*? = )", r"\g<1>1", text) for text in gold]
    verdicts = fr.grade_texts(gold, texts)
    assert verdicts.verified.all()
    assert (failure_kinds(verdicts) == FailureKind.WRONG_EQUATION).all()
    assert (failure_kinds(fr.grade_texts(gold, gold)) == FailureKind.NONE).all()


def test_no_completions_and_many():
    assert failure_kinds(fr.grade_texts([], [])).shape == (0,)
    texts = [GOLD, "", GOLD.replace("Answer: 7", "Answer: 8"), "Answer: 7."] * 500
    kinds = failure_kinds(fr.grade_texts([GOLD] * 2000, texts))
    assert kinds.dtype == np.uint8
    wanted = [FailureKind.NONE, FailureKind.NO_ANSWER, FailureKind.WRONG_ANSWER, FailureKind.NO_STEPS]
    assert kinds.tolist() == wanted * 500
