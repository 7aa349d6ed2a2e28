"""Rewards computed from verdicts, float32 [n] in [0, 1]. Any function of a `Verdicts` can be used instead.

Source: arXiv 2512.07783, section on process rewards. `by_step` and custom functions may also return rewards per token,
[n, length]. `zero_advantage_groups` and `sibling_agreement` work on groups: n consecutive samples of each problem.
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

from ..runtime import plugins
from .verdicts import Verdicts

if TYPE_CHECKING:
    from ..tasks.stream import ProblemBatch

LARGEST_REWARD = 1e15
"""Limit on the magnitude: squares of larger rewards overflow float32, in which group statistics are computed."""


class Sampled(Protocol):
    """The part of a `RolloutOutput` that rewards use: the tokens of n samples."""

    @property
    def tokens(self) -> np.ndarray:
        """int32 [n, length], padded."""

    @property
    def lengths(self) -> np.ndarray:
        """int64 [n], including the stop token."""


Reward = Callable[["ProblemBatch", Sampled, Verdicts], np.ndarray]
"""What reinforcement learning calls: returns float [n], or [n, length] with NaN for tokens without a reward."""


def outcome(verdicts: Verdicts) -> np.ndarray:
    """1 where the answer is right, whatever the steps."""
    return verdicts.answer_correct.astype(np.float32)


def blended(verdicts: Verdicts, outcome_weight: float = 0.2) -> np.ndarray:
    """outcome_weight * outcome + (1 - outcome_weight) * process_accuracy"""
    if not 0.0 <= outcome_weight <= 1.0:
        raise ValueError(f"rewards.blended: outcome_weight must be in 0 .. 1, got {outcome_weight}")
    return (outcome_weight * outcome(verdicts) + (1.0 - outcome_weight) * verdicts.process_accuracy).astype(np.float32)


def strict(verdicts: Verdicts) -> np.ndarray:
    """1 where the answer and every gold step are correct."""
    return verdicts.verified.astype(np.float32)


def steps(verdicts: Verdicts) -> np.ndarray:
    """The correct share of the G gold steps plus the answer: (correct steps + answer) / (G + 1)."""
    num_gold = np.diff(verdicts.gold_steps.offsets)
    return ((verdicts.process_accuracy * num_gold + outcome(verdicts)) / (num_gold + 1)).astype(np.float32)


def by_step(problems: ProblemBatch, samples: Sampled, verdicts: Verdicts) -> np.ndarray:
    """A reward for every step, at its last token, and one for the answer, at the last token of the sample.

        1 if the step is correct or the answer right, otherwise 0; NaN at all other tokens, and for unchecked steps

    Returns:
        float32 [n, length]. If a step ends at the last token, as in a truncated sample, that token has the answer's
        reward.
    """
    del problems
    steps, length = verdicts.steps, samples.tokens.shape[1]
    assert steps.token_end is not None, "samples are graded as token ids"
    out = np.full((len(verdicts), length), np.nan, dtype=np.float32)
    out[steps.completion, steps.token_end - 1] = (
        steps.correct if steps.checked is None else np.where(steps.checked, steps.correct, np.nan)
    )
    out[np.arange(len(out)), samples.lengths - 1] = outcome(verdicts)
    return out


REWARDS: Mapping[str, Callable[..., np.ndarray]] = {
    "outcome": outcome,
    "blended": blended,
    "strict": strict,
    "steps": by_step,
}
"""The rewards that recipes can name."""

REWARDS_OF_SAMPLES = frozenset({"outcome", "blended", "strict"})
"""Those of REWARDS that give one number per sample and none to single tokens."""


def reward_names() -> tuple[str, ...]:
    """Those of REWARDS, then those of installed packages (entry points `fastreason.rewards`)."""
    return (*REWARDS, *plugins.plugins(plugins.REWARDS, REWARDS))


def reward_function(reward: str | Callable[..., np.ndarray], **arguments: Any) -> Reward:
    """Wraps a reward for reinforcement learning: a function of (problems, samples, verdicts) whose result is checked.

    Args:
        reward: one of `reward_names`, "module:function", or a function: of verdicts, or of (problems, samples,
            verdicts).
        arguments: additional keyword arguments of the reward.
    Raises:
        ValueError: there is no such name, module or function, or the function has other parameters.
    """
    function = named_reward(reward) if isinstance(reward, str) else reward
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


def named_reward(name: str) -> Callable[..., np.ndarray]:
    """The function of REWARDS, of an installed package or at "module:function"; ValueError as for
    `reward_function`."""
    if name in REWARDS:
        return REWARDS[name]
    if ":" in name:
        return _imported(name)
    added = plugins.plugins(plugins.REWARDS, REWARDS)
    if name not in added:
        raise ValueError(_no_reward(name))
    try:
        function = added[name].load()
    except (ImportError, AttributeError) as error:
        raise plugins.plugin_error(plugins.REWARDS, added[name], error) from None
    return _callable(name, function)


def _no_reward(name: str) -> str:
    return f'reward: must be one of {", ".join(reward_names())} or "module:function" that can be imported, got {name!r}'


def import_from(folder: Path) -> None:
    """Lets reward modules be imported from this folder too, after everything that is installed."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


def _imported(path: str) -> Callable[..., np.ndarray]:
    module, _, name = path.partition(":")
    import_from(Path.cwd())  # an installed command has only the folder of its script on the path
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"{_no_reward(path)} ({error})") from None
    return _callable(path, function)


def _callable(name: str, function: Any) -> Callable[..., np.ndarray]:
    if not callable(function):
        raise ValueError(f"reward: {name!r} must be a function, got {type(function).__name__}")
    checked: Callable[..., np.ndarray] = function
    return checked


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
    """Checks what a reward function returned.

    Args:
        returned: the returned object, of any type.
        name: of the function, for messages.
        num_samples, length: the result must have one number per sample or, if `length` is given, per token.
    Returns:
        float64 [num_samples] or [num_samples, length], NaN only for tokens without a reward.
    Raises:
        ValueError: the result does not consist of real numbers, has the wrong shape, is not finite or exceeds
            LARGEST_REWARD. The message names the function and what it returned.
    """
    try:
        array = np.asarray(returned)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"reward {name}: must return an array of numbers, got {returned!r:.80} ({error})") from None
    if array.dtype.kind not in "biuf":
        raise ValueError(f"reward {name}: must return real numbers, got {array.dtype} such as {array.flat[:1]!r:.80}")
    if array.shape != (num_samples,) and (length is None or array.shape != (num_samples, length)):
        per_token = "" if length is None else f", or an array [{num_samples}, {length}] with one per token"
        raise ValueError(
            f"reward {name}: must return one number for each of the {num_samples} samples{per_token}, "
            f"got shape {array.shape}"
        )
    rewards = array.astype(np.float64)
    wrong = np.isinf(rewards) | (np.isnan(rewards) & (rewards.ndim == 1))
    _refuse(wrong, rewards, f"reward {name}: must return finite numbers")
    too_large = np.abs(rewards) > LARGEST_REWARD
    _refuse(too_large, rewards, f"reward {name}: must return numbers of magnitude at most {LARGEST_REWARD:g}")
    return rewards


def _refuse(wrong: np.ndarray, rewards: np.ndarray, message: str) -> None:
    if wrong.any():
        index = tuple(int(i) for i in np.argwhere(wrong)[0])
        position = f"sample {index[0]}" + (f", token {index[1]}" if len(index) == 2 else "")
        raise ValueError(f"{message}, got {rewards[index]:g} for {position}")


def zero_advantage_groups(rewards: np.ndarray, group_size: int) -> float:
    """The share of zero-advantage groups: all samples have the same reward, so the policy gets no gradient.

    Args:
        rewards: [problems * group_size], the samples of one problem next to each other.
        group_size: samples of each problem, at least 1.
    """
    groups = _in_groups("zero_advantage_groups", rewards, group_size)
    return float((groups == groups[:, :1]).all(axis=1).mean()) if len(groups) else 0.0


def sibling_agreement(verdicts: Verdicts, group_size: int) -> np.ndarray:
    """For every step, the share of its group's samples with the same name and value: a signal that needs no gold.

    Args:
        verdicts: of problems * group_size completions, the samples of one problem next to each other.
        group_size: samples of each problem, at least 1.
    Returns:
        float32 [steps] in [0, 1], the step's own sample included; 0 for steps without a value.
    """
    _in_groups("sibling_agreement", verdicts.verified, group_size)
    steps = verdicts.steps
    claim = np.stack(
        [(steps.completion // group_size).astype(np.uint64), steps.name, (steps.value + 0.0).view(np.uint64)]
    )
    _, kind = np.unique(claim, axis=1, return_inverse=True)
    kind = kind.reshape(-1)
    once = np.unique(kind * group_size + steps.completion % group_size)  # a sample that repeats a step counts once
    samples = np.bincount(once // group_size, minlength=kind.max(initial=-1) + 1)
    return np.where(np.isnan(steps.value), 0.0, samples[kind] / group_size).astype(np.float32)


def _in_groups(name: str, values: np.ndarray, group_size: int) -> np.ndarray:
    if group_size < 1 or len(values) % group_size:
        raise ValueError(
            f"rewards.{name}: group_size must be at least 1 and divide the number of samples, "
            f"got {group_size} for {len(values)} samples"
        )
    return values.reshape(-1, group_size)
