"""Rewards of verdicts, float32 [n] in [0, 1]. Any function of a `Verdicts` can take their place.

Source: arXiv 2512.07783, section on process rewards. `by_step` and what a function of its own returns may also give
rewards to single tokens, [n, length]. `silent_groups` and `sibling_agreement` look at groups: n samples of each
problem, one problem after the other.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from .verdicts import Verdicts

if TYPE_CHECKING:
    from ..tasks.stream import ProblemBatch

LARGEST_REWARD = 1e15
"""In absolute value: the squares of larger ones leave float32, in which the statistics of a group are computed."""


class Sampled(Protocol):
    """What rewards look at of a `RolloutOutput`, the tokens of n samples."""

    @property
    def tokens(self) -> np.ndarray:
        """int32 [n, length], padded."""

    @property
    def lengths(self) -> np.ndarray:
        """int64 [n], with the stop token."""


Reward = Callable[["ProblemBatch", Sampled, Verdicts], np.ndarray]
"""What reinforcement learning calls: float [n], or [n, length] with NaN where a token has no reward of its own."""


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


def by_step(problems: ProblemBatch, samples: Sampled, verdicts: Verdicts) -> np.ndarray:
    """A reward for every step, at its last token, and one for the answer, at the last token of the sample.

        1 where the step is correct, or the answer right; 0 where not; NaN at all other tokens

    Returns:
        float32 [n, length]. Where a step ends with the sample, as when the limit cuts it, the answer's reward stands.
    """
    del problems
    steps, length = verdicts.steps, samples.tokens.shape[1]
    assert steps.token_end is not None, "samples are graded as token ids"
    out = np.full((len(verdicts), length), np.nan, dtype=np.float32)
    out[steps.completion, steps.token_end - 1] = steps.correct
    out[np.arange(len(out)), samples.lengths - 1] = outcome(verdicts)
    return out


REWARDS: Mapping[str, Callable[..., np.ndarray]] = {
    "outcome": outcome,
    "blended": blended,
    "strict": strict,
    "steps": by_step,
}
"""Those with a name in recipes."""

REWARDS_OF_SAMPLES = frozenset({"outcome", "blended", "strict"})
"""Those of them that give a number to each sample, and none to its tokens."""


def reward_function(reward: str | Callable[..., np.ndarray], **arguments: Any) -> Reward:
    """A reward as reinforcement learning calls it, with what it returns checked.

    Args:
        reward: a name in REWARDS, "module:function", or a function: of verdicts, or of (problems, samples, verdicts).
        arguments: further ones by name.
    Raises:
        ValueError: there is no such name, module or function, or it takes something else.
    """
    function = _imported(reward) if isinstance(reward, str) and reward not in REWARDS else reward
    if isinstance(function, str):
        function = REWARDS[function]
    name = getattr(function, "__qualname__", repr(function))
    wanted = [
        parameter
        for parameter in inspect.signature(function).parameters.values()
        if parameter.default is parameter.empty and parameter.kind <= parameter.POSITIONAL_OR_KEYWORD
    ]
    if len(wanted) not in (1, 3):
        raise ValueError(
            f"reward {name}: must take the verdicts, or (problems, samples, verdicts), "
            f"got parameters ({', '.join(parameter.name for parameter in wanted)})"
        )
    return partial(_checked, partial(function, **arguments), name, len(wanted))


def import_from(folder: Path) -> None:
    """Has modules of rewards found in this folder, too, behind everything that is installed."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


def _imported(path: str) -> Callable[..., np.ndarray]:
    module, _, name = path.partition(":")
    import_from(Path.cwd())  # an installed command has only its own folder on the path
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f'reward: must be one of {", ".join(REWARDS)} or "module:function" that can be imported, '
            f"got {path!r} ({error})"
        ) from None
    if not callable(function):
        raise ValueError(f"reward: {path!r} is not a function but {type(function).__name__}")
    return function


def _checked(
    function: Callable[..., np.ndarray],
    name: str,
    num_arguments: int,
    problems: ProblemBatch,
    samples: Sampled,
    verdicts: Verdicts,
) -> np.ndarray:
    given = (verdicts,) if num_arguments == 1 else (problems, samples, verdicts)
    return checked_rewards(function(*given), name, len(samples.lengths), samples.tokens.shape[1]).astype(np.float32)


def checked_rewards(returned: Any, name: str, num_samples: int, length: int | None = None) -> np.ndarray:
    """What a reward function returned.

    Args:
        returned: whatever it is.
        name: of the function.
        num_samples, length: one number for each sample is wanted; if there is a length, or for each token.
    Returns:
        float64 [num_samples] or [num_samples, length], NaN only where a token has no reward of its own.
    Raises:
        ValueError: it is something else: no real numbers, of another shape, not finite or beyond LARGEST_REWARD. The
            message names the function and what it returned.
    """
    try:
        found = np.asarray(returned)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"reward {name}: must return an array of numbers, got {returned!r:.80} ({error})") from None
    if found.dtype.kind not in "biuf":
        raise ValueError(f"reward {name}: must return real numbers, got {found.dtype} such as {found.flat[:1]!r:.80}")
    if found.shape != (num_samples,) and (length is None or found.shape != (num_samples, length)):
        of_tokens = "" if length is None else f", or [{num_samples}, {length}] of them for each token"
        raise ValueError(
            f"reward {name}: must return one number for each of the {num_samples} samples{of_tokens}, "
            f"got shape {found.shape}"
        )
    rewards = found.astype(np.float64)
    wrong = np.isinf(rewards) | (np.isnan(rewards) & (rewards.ndim == 1))
    _refuse(wrong, rewards, f"reward {name}: must return finite numbers")
    _refuse(
        np.abs(rewards) > LARGEST_REWARD, rewards, f"reward {name}: must return numbers of at most {LARGEST_REWARD:g}"
    )
    return rewards


def _refuse(wrong: np.ndarray, rewards: np.ndarray, message: str) -> None:
    if wrong.any():
        where = tuple(int(i) for i in np.argwhere(wrong)[0])
        place = f"sample {where[0]}" + (f", token {where[1]}" if len(where) == 2 else "")
        raise ValueError(f"{message}, got {rewards[where]:g} for {place}")


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
