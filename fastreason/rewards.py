"""Rewards of verdicts, float32 [n] in [0, 1]. Any function of a `Verdicts` can take their place.

Source: arXiv 2512.07783, section on process rewards.
"""

from __future__ import annotations

import numpy as np

from .grading import Verdicts


def outcome(verdicts: Verdicts) -> np.ndarray:
    """1 where the answer is right, whatever led to it."""
    return verdicts.answer_correct.astype(np.float32)


def blended(verdicts: Verdicts, outcome_weight: float = 0.2) -> np.ndarray:
    """outcome_weight * outcome + (1 - outcome_weight) * process_accuracy"""
    if not 0.0 <= outcome_weight <= 1.0:
        raise ValueError(f"rewards.blended: outcome_weight must be in 0 .. 1, got {outcome_weight}")
    return (outcome_weight * outcome(verdicts) + (1.0 - outcome_weight) * verdicts.process_accuracy).astype(np.float32)


def strict(verdicts: Verdicts) -> np.ndarray:
    """1 where the answer and every step are right."""
    return verdicts.verified.astype(np.float32)
