"""From rewards to advantages: what is subtracted, what it is divided by, and which tokens get it.

    A = (r - baseline) / scale

A reward is of a whole sample, or of the tokens where a step ends. Baselines and scales are over all rewards of a group
(or batch), so that the steps of a group are compared with each other.

Letters: P prompts, G samples of each, L tokens; M = G or G L places for a reward in a group.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .. import kernels
from ..runtime.distributed import sum_over_ranks
from .settings import Baseline, Credit, Scale


def advantages(
    rewards: Tensor,
    group_size: int,
    *,
    baseline: Baseline = "group",
    scale: Scale = "std",
    credit: Credit = "return",
    eps: float = 1e-6,
) -> Tensor:
    """Advantages of samples or of tokens.

    Args:
        rewards: float [P * G], of samples; or [P * G, L], of tokens, NaN where a token has no reward of its own. A
            sample without any takes no part in baselines and scales, and has advantage 0.
        group_size: G >= 2.
        baseline: "group": the mean of the group's rewards. "leave_one_out": the mean of those of the other samples.
            "batch": the mean of all. "none": 0.
        scale: "std": the group's standard deviation + eps. "batch": that of all that is left after the baseline.
            "none": 1. Both divide by their number - 1 inside.
        credit: with rewards of tokens, "return": a token has the sum of the advantages of all rewards at it or behind
            it; "step": that of the first of them. Tokens behind the last reward have 0.
        eps: in the unit of the rewards.
    Returns:
        float32 [P * G] or [P * G, L]; of a group whose rewards are all equal exactly 0, unless the baseline is "batch"
        or "none".
    Source:
        leave_one_out: RLOO, Ahmadian et al. 2024, arXiv:2402.14740. batch: REINFORCE++, Hu 2025, arXiv:2501.03262.
        return: GRPO with process supervision, Shao et al. 2024, arXiv:2402.03300, section 4.1.3.

    >>> advantages(torch.tensor([1.0, 0.0, 0.0]), 3, baseline="leave_one_out", scale="none")
    tensor([ 1.0000, -0.5000, -0.5000])
    """
    rewards = rewards.float()
    if rewards.ndim == 1 and baseline == "group" and scale != "batch" and not rewards.isnan().any():
        return kernels.group_advantages(rewards.view(-1, group_size), scale=scale, eps=eps).flatten()
    per_group = group_size * (rewards.shape[1] if rewards.ndim == 2 else 1)
    given_PM = ~rewards.isnan().reshape(len(rewards) // group_size, per_group)
    rewards_PM = rewards.nan_to_num(0.0).view_as(given_PM)
    centred_PM = (rewards_PM - _baseline(rewards_PM, given_PM, group_size, baseline)) * given_PM
    if scale == "std":
        centred_PM = centred_PM / (_deviation(rewards_PM, given_PM) + eps)
    elif scale == "batch":
        around_mean = (centred_PM - _batch_mean(centred_PM, given_PM)) * given_PM
        squares, number = sum_over_ranks(torch.stack([around_mean.square().sum().double(), given_PM.sum().double()]))
        centred_PM = centred_PM / ((squares / (number - 1).clamp(min=1.0)).sqrt().float() + eps)
    if baseline in ("group", "leave_one_out"):
        centred_PM = centred_PM.masked_fill(silent(rewards_PM, given_PM)[:, None], 0.0)
    if rewards.ndim == 1:
        return centred_PM.flatten()
    return _credited(centred_PM.view_as(rewards), given_PM.view_as(rewards), credit)


def silent(rewards_PM: Tensor, given_PM: Tensor | None = None) -> Tensor:
    """bool [P]: whether all rewards of a group are equal, or there is at most one.

    Args:
        rewards_PM: float; NaN where there is none, unless `given_PM` (bool) says so.
    """
    given = ~rewards_PM.isnan() if given_PM is None else given_PM
    low = rewards_PM.masked_fill(~given, torch.inf).amin(1)
    return ~(low < rewards_PM.masked_fill(~given, -torch.inf).amax(1))


def _baseline(rewards_PM: Tensor, given_PM: Tensor, group_size: int, baseline: Baseline) -> Tensor | float:
    """What is subtracted from each reward; broadcasts to [P, M]."""
    if baseline == "none":
        return 0.0
    if baseline == "batch":
        return _batch_mean(rewards_PM, given_PM)
    if baseline == "group":
        return (rewards_PM * given_PM).sum(1, keepdim=True) / given_PM.sum(1, keepdim=True).clamp(min=1)
    by_sample = (len(rewards_PM), group_size, -1)
    own = (rewards_PM * given_PM).view(by_sample).sum(2, keepdim=True)
    number = given_PM.view(by_sample).sum(2, keepdim=True)
    others = (own.sum(1, keepdim=True) - own) / (number.sum(1, keepdim=True) - number).clamp(min=1)
    return others.expand(-1, -1, rewards_PM.shape[1] // group_size).reshape(rewards_PM.shape)


def _deviation(x_PM: Tensor, given_PM: Tensor) -> Tensor:
    """The standard deviation of each group, [P, 1]; divides by the number - 1."""
    number = given_PM.sum(1, keepdim=True)
    centred = (x_PM - (x_PM * given_PM).sum(1, keepdim=True) / number.clamp(min=1)) * given_PM
    return (centred.square().sum(1, keepdim=True) / (number - 1).clamp(min=1)).sqrt()


def _batch_mean(x_PM: Tensor, given_PM: Tensor) -> Tensor:
    """The mean of what is given, on all ranks together."""
    total, number = sum_over_ranks(torch.stack([(x_PM * given_PM).double().sum(), given_PM.sum().double()]))
    return (total / number.clamp(min=1.0)).float()


def _credited(centred_NL: Tensor, given_NL: Tensor, credit: Credit) -> Tensor:
    """Puts the advantages of rewards on the tokens that lead to them."""
    if credit == "return":
        return centred_NL.flip(1).cumsum(1).flip(1)
    length = centred_NL.shape[1]
    at_NL = torch.where(given_NL, torch.arange(length, device=given_NL.device), length)
    next_NL = at_NL.flip(1).cummin(1).values.flip(1)
    return torch.cat([centred_NL, centred_NL.new_zeros(len(centred_NL), 1)], dim=1).gather(1, next_NL)
