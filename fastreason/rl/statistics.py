"""The metrics of a reinforcement-learning step: rewards by op, verdicts, lengths, ratios, speed.

Letters: P prompts of a step, G samples of each, S = P * G samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch

from ..grading.verdicts import Verdicts
from ..model.config import ModelConfig
from ..model.flop import forward_flop
from ..runtime.distributed import gather_arrays
from ..sampling.rollout import RolloutOutput
from .advantages import zero_advantage


@dataclass(frozen=True, eq=False)
class Facts:
    """Facts about the samples of all ranks, in the order of their prompts; float64 [S] each.

    Args:
        reward: of the sample; the mean of its token rewards, 0 if it is not in the loss.
        true_reward: the same by a verifier without errors.
        answer_correct, verified, sound, finished: 0 or 1, by the true verdicts.
        length: in tokens.
        zero_advantage: 1 where all rewards of its group are equal.
    """

    reward: np.ndarray
    true_reward: np.ndarray
    answer_correct: np.ndarray
    verified: np.ndarray
    sound: np.ndarray
    finished: np.ndarray
    length: np.ndarray
    zero_advantage: np.ndarray

    @classmethod
    def gather(
        cls,
        samples: RolloutOutput,
        verdicts: Verdicts,
        rewards: np.ndarray,
        true_rewards: np.ndarray,
        group_size: int,
    ) -> Facts:
        """Combines the facts of this rank's samples with those of the other ranks."""
        by_group = torch.from_numpy(rewards).reshape(len(rewards) // group_size, -1)
        table = np.stack(
            [
                sample_rewards(rewards),
                sample_rewards(true_rewards),
                verdicts.answer_correct,
                verdicts.verified,
                verdicts.sound,
                samples.finished,
                samples.lengths,
                zero_advantage(by_group).numpy().repeat(group_size),
            ],
            axis=1,
        ).astype(np.float64)
        return cls(*np.concatenate(gather_arrays(table)).T)

    @classmethod
    def join(cls, parts: Sequence[Facts]) -> Facts:
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))


def sample_rewards(rewards: np.ndarray) -> np.ndarray:
    """Rewards per sample [S]: unchanged if they are [S], or the mean of each row of [S, L]; 0 for rows without
    rewards."""
    if rewards.ndim == 1:
        return np.nan_to_num(rewards, nan=0.0)
    return np.nansum(rewards, 1) / np.maximum(1, (~np.isnan(rewards)).sum(1))


def reward_statistics(facts: Facts, ops_S: np.ndarray) -> dict[str, object]:
    """Means over samples. `answer_only` is the share with the right answer but not all steps correct, which an outcome
    reward pays for but should not.
    """
    by_op = {str(op): float(facts.reward[ops_S == op].astype(np.float32).mean()) for op in np.unique(ops_S).tolist()}
    right, verified = float(facts.answer_correct.mean()), float(facts.verified.mean())
    return {
        "reward": float(facts.reward.astype(np.float32).mean()),
        "reward_by_op": by_op,
        "answer_correct": right,
        "verified": verified,
        "answer_only": float((facts.answer_correct * (1 - facts.verified)).mean()),
        "sound": float(facts.sound.mean()),
        "zero_advantage": float(facts.zero_advantage.mean()),
        "mean_length": float(facts.length.mean()),
        "max_length": int(facts.length.max()),
        "finished": float(facts.finished.mean()),
    }


def update_statistics(history: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Means over the updates of a step, and extremes of the ratio over all of them.

    Differences between the log-probabilities of sampler and trainer are taken in the first update, where both use the
    same weights.
    """
    if not history:
        return {}
    line = {name: float(np.mean([update[name] for update in history])) for name in history[0]}
    line["ratio_min"] = min(update["ratio_min"] for update in history)
    line["ratio_max"] = max(update["ratio_max"] for update in history)
    for name in ("max_logprob_difference", "mean_logprob_difference"):
        line[name] = history[0][name]
    return line


def speed_statistics(seconds: Mapping[str, float], new_tokens: int, trained_tokens: int) -> dict[str, float]:
    """Seconds and tokens per second of each phase, and the percentage of time spent on grading."""
    whole = max(sum(seconds.values()), 1e-9)
    return {
        **{f"{phase}_s": value for phase, value in seconds.items()},
        "sample_tokens_per_s": new_tokens / max(seconds["sample"], 1e-9),
        "grade_tokens_per_s": new_tokens / max(seconds["grade"], 1e-9),
        "update_tokens_per_s": trained_tokens / max(seconds["update"], 1e-9),
        "grade_percent": 100.0 * seconds["grade"] / whole,
    }


def pass_flop(config: ModelConfig, prompt_lengths_P: np.ndarray, lengths_PG: np.ndarray) -> float:
    """FLOP of one forward pass over groups: every prompt once, and every sample after it."""
    total = forward_flop(config, prompt_lengths_P, num_logits=len(prompt_lengths_P))
    return total + forward_flop(config, lengths_PG.ravel(), before=prompt_lengths_P.repeat(lengths_PG.shape[1]))
