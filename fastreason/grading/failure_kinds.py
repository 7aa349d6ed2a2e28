"""Why a completion fails: one kind for each, so that shares add up to the whole."""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from .verdicts import StepStatus, Verdicts


class FailureKind(IntEnum):
    """The first of these that holds. Causes stand before what follows from them: a missing step makes parents wrong
    further on, wrong parents make values wrong."""

    NONE = 0
    """Sound: the answer, every gold step and all printed arithmetic are right."""
    NO_ANSWER = 1
    """No number stands where the answer belongs, as in a text that was cut off."""
    NO_STEPS = 2
    """Not one step was found."""
    MISSING_STEP = 3
    """A gold step was not found."""
    UNDEFINED_VARIABLE = 4
    """A step uses a variable before it is defined."""
    WRONG_PARENTS = 5
    """A step is computed from other quantities than in the gold solution."""
    WRONG_OPERATOR = 6
    """A step has other operators, constants or order of operands."""
    ARITHMETIC_SLIP = 7
    """An equality of a step does not hold or cannot be read."""
    WRONG_VALUE = 8
    """A number read from the problem is wrong, or a step is carried out as printed but from a wrong value."""
    WRONG_ANSWER = 9
    """All steps are right, the answer is not."""
    EXTRA_STEP = 10
    """Verified with all gold steps right; a step that is extra or repeated is there, and something printed is wrong."""
    WRONG_EQUATION = 11
    """Verified with all steps right and none too many: the equation of a reverse problem is not solved exactly, or an
    equality stands where no step is."""


# statuses of steps that decide a kind, in the order of the kinds
_BY_STATUS = ("UNDEFINED_VARIABLE", "WRONG_PARENTS", "WRONG_OPERATOR", "ARITHMETIC_SLIP", "WRONG_VALUE")


def failure_kinds(verdicts: Verdicts) -> np.ndarray:
    """The FailureKind of each of n completions: uint8 [n]."""
    num_steps = np.diff(verdicts.steps.offsets)
    found = np.zeros((len(verdicts), len(StepStatus)), dtype=bool)
    found[verdicts.steps.completion, verdicts.steps.status] = True
    holds = {
        FailureKind.NONE: verdicts.sound,
        FailureKind.NO_ANSWER: np.isnan(verdicts.answer),
        FailureKind.NO_STEPS: num_steps == 0,
        FailureKind.MISSING_STEP: verdicts.num_missing > 0,
        **{FailureKind[name]: found[:, StepStatus[name]] for name in _BY_STATUS},
        FailureKind.WRONG_ANSWER: ~verdicts.answer_correct,
        FailureKind.EXTRA_STEP: found[:, StepStatus.EXTRA] | found[:, StepStatus.REPEATED],
    }
    kinds = np.select(list(holds.values()), list(holds), default=FailureKind.WRONG_EQUATION)
    return kinds.astype(np.uint8)
