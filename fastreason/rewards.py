"""Rewards of verdicts, float32 [n] in [0, 1]. Any function of a `Verdicts` can take their place.

Source: arXiv 2512.07783, section on process rewards. The last functions look at groups: n samples of each problem, one
problem after the other.
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


def steps(verdicts: Verdicts) -> np.ndarray:
    """The share that is right of the G gold steps and the answer: (correct steps + answer) / (G + 1)."""
    num_gold = np.diff(verdicts.gold_steps.offsets)
    return ((verdicts.process_accuracy * num_gold + outcome(verdicts)) / (num_gold + 1)).astype(np.float32)


def silent_groups(rewards: np.ndarray, group_size: int) -> float:
    """The share of groups whose samples all have the same reward, which give a policy no gradient.

    Args:
        rewards: [problems * group_size], the samples of one problem next to each other.
    """
    groups = _in_groups("silent_groups", rewards, group_size)
    return float((groups == groups[:, :1]).all(axis=1).mean()) if len(groups) else 0.0


def sibling_agreement(verdicts: Verdicts, group_size: int) -> np.ndarray:
    """For every step the share of its group's samples that give the same name and value: a signal without gold.

    Args:
        verdicts: of problems * group_size completions, the samples of one problem next to each other.
        group_size: samples of each problem, at least 1.
    Returns:
        float32 [steps] in [0, 1], the step's own sample included; 0 for steps without a value.
    """
    _in_groups("sibling_agreement", verdicts.verified, group_size)
    found = verdicts.steps
    claim = np.stack(
        [(found.completion // group_size).astype(np.uint64), found.name, (found.value + 0.0).view(np.uint64)]
    )
    _, kind = np.unique(claim, axis=1, return_inverse=True)
    kind = kind.reshape(-1)
    once = np.unique(kind * group_size + found.completion % group_size)  # a sample that repeats a step counts once
    samples = np.bincount(once // group_size, minlength=kind.max(initial=-1) + 1)
    return np.where(np.isnan(found.value), 0.0, samples[kind] / group_size).astype(np.float32)


def _in_groups(name: str, values: np.ndarray, group_size: int) -> np.ndarray:
    if group_size < 1 or len(values) % group_size:
        raise ValueError(
            f"rewards.{name}: group_size must be at least 1 and divide the number of samples, "
            f"got {group_size} for {len(values)} samples"
        )
    return values.reshape(-1, group_size)
