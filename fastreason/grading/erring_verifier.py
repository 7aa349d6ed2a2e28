"""Verifiers that err: the true verdicts with errors of known rates, and with only some of the steps checked.

    reported = right ? u >= false_negative : u < false_positive,    u = uniform(seed, problem, sample, check)

Every verdict that a reward may pay for, of the answer, of a step or of the whole sample, is a check with its own draw.
Draws are counter-based: they depend on nothing but these four numbers, so neither on the batch, its order, the number
of ranks or threads, nor on whether a stage was resumed.

Letters: P prompts, G samples of each, S = P * G.
Source: splitmix64: Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from ..runtime.field_docs import explain_fields
from ..runtime.ranges import COUNT, SHARE, Range, check_settings
from .verdicts import Verdicts

Per = Literal["sample", "step"]

# numbers of the checks that are not of a step, which are numbered 0, 1, ...
_ANSWER, _VERIFIED, _SOUND = -1, -2, -3


@explain_fields
@dataclass(frozen=True)
class VerifierErrors:
    """How the verifier that pays the reward errs."""

    __pydantic_config__ = {"extra": "forbid"}

    false_positive: float = 0.0
    """Probability that a wrong sample or step is reported as right."""
    false_negative: float = 0.0
    """Probability that a right sample or step is reported as wrong."""
    per: Per = "sample"
    """What errs: the verdict on a whole "sample", or that on each written "step" and on the answer, from which those
    on the sample follow."""
    every: int = 1
    """Only every n-th gold step is checked, counted back from the last; nothing is known of the others."""

    def __post_init__(self) -> None:
        check_settings("verifier", self, _RANGES)
        if self.per != "sample" and not (self.false_positive or self.false_negative):
            raise ValueError(f"verifier: per = {self.per!r} has no effect without false_positive or false_negative")

    @property
    def errs(self) -> bool:
        """Whether anything differs from the true verdicts."""
        return self != VerifierErrors()

    def report(self, verdicts: Verdicts, seed: int, problems_P: np.ndarray) -> Verdicts:
        """The verdicts as this verifier reports them.

        With per = "sample", `answer_correct`, `verified` and `sound` of each sample err. With per = "step",
        `answer_correct` and `steps.correct` err, `process_accuracy` and `verified` are computed from them, and `sound`
        errs as a whole; a gold step that was not written is never accepted. All other fields stay those of the true
        verdicts, as do the verdicts of the released scorer.

        Args:
            verdicts: the true ones, of S samples: G for problem 0, then G for problem 1, ...
            seed: of the draws.
            problems_P: int64 [P]: numbers that key the draws of each problem.
        Returns:
            `verdicts` itself if nothing errs. `steps.checked` says which steps were checked.
        """
        if not self.errs or not len(verdicts):
            return verdicts
        group = len(verdicts) // len(problems_P)
        keys_S = _keys(seed, np.repeat(problems_P, group), np.tile(np.arange(group), len(problems_P)))
        steps, gold = verdicts.steps, verdicts.gold_steps
        correct, answer = steps.correct, self._erring(verdicts.answer_correct, keys_S, _ANSWER)
        if self.per == "step":
            number = np.arange(len(correct)) - steps.offsets[steps.completion]
            correct = self._erring(correct, keys_S[steps.completion], number)
        checked_gold = _every(gold.offsets, self.every)
        owner = np.repeat(np.arange(len(verdicts)), np.diff(gold.offsets))
        written = gold.found >= 0
        right = written.copy()
        right[written] = correct[(steps.offsets[owner] + gold.found)[written]]
        num_checked = np.bincount(owner[checked_gold], minlength=len(verdicts))
        num_right = np.bincount(owner[checked_gold & right], minlength=len(verdicts))
        accuracy = np.where(num_checked > 0, num_right / np.maximum(num_checked, 1), verdicts.process_accuracy)
        if self.per == "step":
            verified = answer & (num_right == num_checked) & gold.readable
        else:
            verified = verdicts.answer_correct & (num_right == num_checked) & gold.readable
            verified = self._erring(verified, keys_S, _VERIFIED)
        has_gold = steps.gold_step >= 0
        checked = has_gold.copy()
        checked[has_gold] = checked_gold[(gold.offsets[steps.completion] + steps.gold_step)[has_gold]]
        if self.every == 1:
            checked = np.ones_like(has_gold)
        return replace(
            verdicts,
            answer_correct=answer,
            verified=verified,
            sound=self._erring(verdicts.sound, keys_S, _SOUND),
            process_accuracy=accuracy.astype(np.float32),
            steps=replace(steps, correct=correct, checked=checked),
        )

    def _erring(self, right: np.ndarray, keys: np.ndarray, check: np.ndarray | int) -> np.ndarray:
        """bool, as `right`: one verdict per key, with errors."""
        u = _uniform(_mixed(keys, np.asarray(check)))
        return np.where(right, u >= self.false_negative, u < self.false_positive)


_RANGES: Mapping[str, Range] = {"false_positive": SHARE, "false_negative": SHARE, "every": COUNT}


def _every(offsets: np.ndarray, every: int) -> np.ndarray:
    """bool: whether an item is its list's last, the n-th before it, the 2 n-th before it, ..."""
    sizes = np.diff(offsets)
    from_the_end = np.repeat(offsets[1:], sizes) - 1 - np.arange(sizes.sum())
    return np.asarray(from_the_end % every == 0)


def _keys(seed: int, problems: np.ndarray, samples: np.ndarray) -> np.ndarray:
    # the seed is hashed first: small seeds would only exchange small numbers of problems
    of_seed = _mixed(np.zeros(len(problems), dtype=np.uint64), np.full(len(problems), seed))
    return _mixed(_mixed(of_seed, problems), samples)


def _mixed(state: np.ndarray, word: np.ndarray) -> np.ndarray:
    """uint64: a word taken into a hash, by the finalizer of splitmix64."""
    with np.errstate(over="ignore"):
        x = (state ^ word.astype(np.int64).view(np.uint64)) + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _uniform(bits: np.ndarray) -> np.ndarray:
    """float64 in [0, 1)"""
    return (bits >> np.uint64(11)) * 2.0**-53
