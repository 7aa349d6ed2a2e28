"""The step verifier: completions against gold solutions, step by step.

Definitions (arXiv 2512.07783, section 2). For a gold step v: s(v) = 1 iff a predicted step has its name, its set of
parents and its value. process_accuracy = mean of s over gold steps; verified = process_accuracy is 1 and the answer is
the gold answer. Extra steps do not matter. docs/grading.md says how text is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np

from . import _core
from .tasks import ProblemBatch
from .tokenizer import Tokenizer


class StepStatus(IntEnum):
    """What the verifier says of one predicted step."""

    RIGHT = 0
    """A gold step with its parents and its value."""
    WRONG_VALUE = 1
    """Its parents are right, its value is not."""
    WRONG_PARENTS = 2
    """Its set of parents differs from the gold one."""
    REPEATED = 3
    """A later step has the same name; that one counts."""
    EXTRA = 4
    """No gold step has this name."""


@dataclass(frozen=True, eq=False)
class Steps:
    """The predicted steps of all completions, one after the other.

    Args:
        offsets: int64 [n + 1]: the steps of completion i are offsets[i] .. offsets[i + 1] - 1.
        status: uint8 [steps], a StepStatus.
        gold_step: int16 [steps]: the index of the gold step of the same name, -1 if there is none.
        begin, end: int32 [steps]: the bytes of the completion's text (UTF-8) that the step was read from.
    """

    offsets: np.ndarray
    status: np.ndarray
    gold_step: np.ndarray
    begin: np.ndarray
    end: np.ndarray


@dataclass(frozen=True, eq=False)
class Verdicts:
    """What the verifier says of n completions, as arrays.

    Args:
        answer_correct: bool [n]: the answer is the gold answer.
        verified: bool [n]: so it is, and every gold step is right.
        process_accuracy: float32 [n]: the share of gold steps that are right.
        steps: the predicted steps.
    """

    answer_correct: np.ndarray
    verified: np.ndarray
    process_accuracy: np.ndarray
    steps: Steps

    def __len__(self) -> int:
        return len(self.verified)

    @classmethod
    def _from_core(cls, arrays: dict[str, Any]) -> Verdicts:
        steps = Steps(*(arrays["step_" + name] for name in ("offsets", "status", "gold", "begin", "end")))
        return cls(arrays["answer_correct"], arrays["verified"], arrays["process_accuracy"], steps)


def grade(
    batch: ProblemBatch,
    completions: Sequence[str] | Sequence[bytes] | np.ndarray,
    *,
    tokenizer: Tokenizer | None = None,
    threads: int = 0,
) -> Verdicts:
    """Grades n completions of each problem of a batch.

    Args:
        batch: the problems.
        completions: flat, n for problem 0, then n for problem 1, ...: texts that continue the prompt, or integers
            [completions, length], rows that end at their first [EOS] or [PAD].
        tokenizer: whose ids they are; needed for integers only.
        threads: 0 uses all cores; the verdicts are the same for any number.
    Returns:
        Verdicts of len(completions) entries. Any text is graded; none is an error.
    Raises:
        ValueError: the number of completions is no multiple of the number of problems, or a tokenizer is missing.
    """
    if isinstance(completions, np.ndarray):
        if tokenizer is None:
            raise ValueError("grade: token ids need the tokenizer argument")
        if not np.issubdtype(completions.dtype, np.integer):
            raise ValueError(f"grade: token ids must be integers, got {completions.dtype}")
        return Verdicts._from_core(_core.grade_tokens(batch.core, completions, tokenizer.core, threads=threads))
    return Verdicts._from_core(_core.grade_batch(batch.core, list(completions), threads=threads))


def grade_texts(
    gold_solutions: Sequence[str] | Sequence[bytes],
    completions: Sequence[str] | Sequence[bytes],
    *,
    threads: int = 0,
) -> Verdicts:
    """Grades completion i against gold solution i, for any text in the format of GSM-Infinite or the symbolic style.

    >>> gold = "Define red kite in Alder Field as q; so q = 2. Answer: 2."
    >>> grade_texts([gold], ["Define red kite in Alder Field as Z; so Z = 2. Answer: 2."]).verified
    array([ True])
    """
    return Verdicts._from_core(_core.grade_texts(list(gold_solutions), list(completions), threads=threads))
