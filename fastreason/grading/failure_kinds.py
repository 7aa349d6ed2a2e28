"""Why a completion fails: exactly one kind per completion, so that shares add up to 1."""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from .verdicts import Ending, StepStatus, Verdicts


class FailureKind(IntEnum):
    """The first of these that applies. Causes come before their consequences: a completion that does not stop, or has
    no answer, shows nothing; a missing step makes later parents wrong, and wrong parents make values wrong."""

    NONE = 0
    """Sound: the answer, every gold step and all arithmetic are right, and nothing follows the answer."""
    UNFINISHED = 1
    """It reached its length limit, or the answer is not closed."""
    SEVERAL_ANSWERS = 2
    """Another answer follows the first."""
    TEXT_AFTER_ANSWER = 3
    """Something follows the answer."""
    NO_ANSWER = 4
    """There is no answer."""
    UNREADABLE_ANSWER = 5
    """The answer is not a number."""
    NO_STEPS = 6
    """It contains no steps."""
    MISSING_STEP = 7
    """A gold step is missing."""
    UNDEFINED_VARIABLE = 8
    """A step uses a variable before it is defined."""
    WRONG_PARENTS = 9
    """A step is computed from different quantities than in the gold solution."""
    UNREADABLE_STEP = 10
    """An equality of a step cannot be parsed, or its value is given twice or not at all."""
    WRONG_OPERATOR = 11
    """A step has different operators, constants or order of operands."""
    ARITHMETIC_SLIP = 12
    """An equality of a step does not hold."""
    WRONG_VALUE = 13
    """A constant of the problem is wrong, or a step is computed as written but from a wrong value."""
    WRONG_ANSWER = 14
    """All steps are right, but the answer is not."""
    EXTRA_STEP = 15
    """Verified with all gold steps right, but there are extra or repeated steps, and something written is wrong."""
    WRONG_EQUATION = 16
    """Verified with all steps right and none extra, but the equation of a reverse problem is not solved exactly, or an
    equality appears outside a step."""


# the step statuses that decide a kind, in the order of the kinds
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
    has_status = np.zeros((len(verdicts), len(StepStatus)), dtype=bool)
    has_status[verdicts.steps.completion, verdicts.steps.status] = True
    holds = {
        FailureKind.NONE: verdicts.sound,
        **{kind: verdicts.ending == ending for kind, ending in _BY_ENDING.items()},
        FailureKind.UNREADABLE_ANSWER: np.isnan(verdicts.answer),
        FailureKind.NO_STEPS: num_steps == 0,
        FailureKind.MISSING_STEP: verdicts.num_missing > 0,
        **{kind: has_status[:, status] for kind, status in _BY_STATUS.items()},
        FailureKind.WRONG_ANSWER: ~verdicts.answer_correct,
        FailureKind.EXTRA_STEP: has_status[:, StepStatus.EXTRA] | has_status[:, StepStatus.REPEATED],
    }
    kinds = np.select(list(holds.values()), list(holds), default=FailureKind.WRONG_EQUATION)
    return kinds.astype(np.uint8)
