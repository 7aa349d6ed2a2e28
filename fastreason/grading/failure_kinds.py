"""Why a completion fails: one kind for each, so that shares add up to the whole."""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from .verdicts import Ending, StepStatus, Verdicts


class FailureKind(IntEnum):
    """The first of these that holds. Causes stand before what follows from them: who does not stop, or does not answer,
    shows nothing; a missing step makes parents wrong further on, wrong parents make values wrong."""

    NONE = 0
    """Sound: the answer, every gold step and all printed arithmetic are right, and nothing follows."""
    UNFINISHED = 1
    """It ran into its limit, or ends while an answer is open."""
    SEVERAL_ANSWERS = 2
    """A further answer follows the first one."""
    TEXT_AFTER_ANSWER = 3
    """Something stands behind the answer."""
    NO_ANSWER = 4
    """There is no answer."""
    UNREADABLE_ANSWER = 5
    """What stands where the answer belongs is no number."""
    NO_STEPS = 6
    """Not one step was found."""
    MISSING_STEP = 7
    """A gold step was not found."""
    UNDEFINED_VARIABLE = 8
    """A step uses a variable before it is defined."""
    WRONG_PARENTS = 9
    """A step is computed from other quantities than in the gold solution."""
    UNREADABLE_STEP = 10
    """An equality of a step cannot be read, as where a number is none, or its value is given twice or never."""
    WRONG_OPERATOR = 11
    """A step has other operators, constants or order of operands."""
    ARITHMETIC_SLIP = 12
    """An equality of a step does not hold."""
    WRONG_VALUE = 13
    """A number read from the problem is wrong, or a step is carried out as printed but from a wrong value."""
    WRONG_ANSWER = 14
    """All steps are right, the answer is not."""
    EXTRA_STEP = 15
    """Verified with all gold steps right; a step that is extra or repeated is there, and something printed is wrong."""
    WRONG_EQUATION = 16
    """Verified with all steps right and none too many: the equation of a reverse problem is not solved exactly, or an
    equality stands where no step is."""


# statuses of steps that decide a kind, in the order of the kinds
_BY_STATUS = {
    FailureKind.UNDEFINED_VARIABLE: StepStatus.UNDEFINED_VARIABLE,
    FailureKind.WRONG_PARENTS: StepStatus.WRONG_PARENTS,
    FailureKind.UNREADABLE_STEP: StepStatus.UNREADABLE,
    FailureKind.WRONG_OPERATOR: StepStatus.WRONG_OPERATOR,
    FailureKind.ARITHMETIC_SLIP: StepStatus.ARITHMETIC_SLIP,
    FailureKind.WRONG_VALUE: StepStatus.WRONG_VALUE,
}
_BY_ENDING = {
    FailureKind.UNFINISHED: Ending.UNFINISHED,
    FailureKind.SEVERAL_ANSWERS: Ending.SEVERAL_ANSWERS,
    FailureKind.TEXT_AFTER_ANSWER: Ending.TEXT_AFTER_ANSWER,
    FailureKind.NO_ANSWER: Ending.NO_ANSWER,
}


def failure_kinds(verdicts: Verdicts) -> np.ndarray:
    """The FailureKind of each of n completions: uint8 [n]."""
    num_steps = np.diff(verdicts.steps.offsets)
    found = np.zeros((len(verdicts), len(StepStatus)), dtype=bool)
    found[verdicts.steps.completion, verdicts.steps.status] = True
    holds = {
        FailureKind.NONE: verdicts.sound,
        **{kind: verdicts.ending == ending for kind, ending in _BY_ENDING.items()},
        FailureKind.UNREADABLE_ANSWER: np.isnan(verdicts.answer),
        FailureKind.NO_STEPS: num_steps == 0,
        FailureKind.MISSING_STEP: verdicts.num_missing > 0,
        **{kind: found[:, status] for kind, status in _BY_STATUS.items()},
        FailureKind.WRONG_ANSWER: ~verdicts.answer_correct,
        FailureKind.EXTRA_STEP: found[:, StepStatus.EXTRA] | found[:, StepStatus.REPEATED],
    }
    kinds = np.select(list(holds.values()), list(holds), default=FailureKind.WRONG_EQUATION)
    return kinds.astype(np.uint8)
