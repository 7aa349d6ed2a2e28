"""From rewards to advantages: baseline, scale, and credit assignment to tokens.

    A = (r - baseline) / scale

A reward belongs to a whole sample, or to the last token of a step. Baselines and scales are taken over all rewards of a
group (or batch), so that the steps of a group are compared with each other.

Letters: P prompts, G samples of each, L tokens; M = G or G L possible rewards in a group.
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
    """Advantages per sample or per token.

    Args:
        rewards: float [P * G], per sample; or [P * G, L], per token, with NaN for tokens without a reward. A sample
            without any reward is left out of baselines and scales, and has advantage 0.
        group_size: G >= 2.
        baseline: "group": the mean of the group's rewards. "leave_one_out": the mean over the other samples of the
            group. "batch": the mean of all rewards. "none": 0.
        scale: "std": the group's standard deviation + eps. "batch": the standard deviation of all differences from the
            baseline + eps. "none": 1. Both standard deviations divide by n - 1.
        credit: for token rewards. "return": a token gets the sum of the advantages of all rewards at or after it;
            "step": only that of the first of them. Tokens after the last reward get 0.
        eps: in the unit of the rewards.
    Returns:
        float32 [P * G] or [P * G, L]; exactly 0 for a group whose rewards are all equal, unless the baseline is "batch"
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
        centred_PM = centred_PM.masked_fill(zero_advantage(rewards_PM, given_PM)[:, None], 0.0)
    if rewards.ndim == 1:
        return centred_PM.flatten()
    return _credited(centred_PM.view_as(rewards), given_PM.view_as(rewards), credit)


def zero_advantage(rewards_PM: Tensor, given_PM: Tensor | None = None) -> Tensor:
    """bool [P]: whether all rewards of a group are equal, or there is at most one: its advantages are 0.

    Args:
        rewards_PM: float, NaN where there is no reward.
        given_PM: bool, where there is a reward; default: where it is not NaN.
    """
    given = ~rewards_PM.isnan() if given_PM is None else given_PM
    low = rewards_PM.masked_fill(~given, torch.inf).amin(1)
    return ~(low < rewards_PM.masked_fill(~given, -torch.inf).amax(1))


def _baseline(rewards_PM: Tensor, given_PM: Tensor, group_size: int, baseline: Baseline) -> Tensor | float:
    """The baseline of each reward; broadcasts to [P, M]."""
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
    """The standard deviation of each group, [P, 1], with n - 1."""
    number = given_PM.sum(1, keepdim=True)
    centred = (x_PM - (x_PM * given_PM).sum(1, keepdim=True) / number.clamp(min=1)) * given_PM
    return (centred.square().sum(1, keepdim=True) / (number - 1).clamp(min=1)).sqrt()


def _batch_mean(x_PM: Tensor, given_PM: Tensor) -> Tensor:
    """The mean of the given rewards over all ranks."""
    total, number = sum_over_ranks(torch.stack([(x_PM * given_PM).double().sum(), given_PM.sum().double()]))
    return (total / number.clamp(min=1.0)).float()


def _credited(centred_NL: Tensor, given_NL: Tensor, credit: Credit) -> Tensor:
    """Assigns the advantages of rewards to the tokens that lead to them."""
    if credit == "return":
        return centred_NL.flip(1).cumsum(1).flip(1)
    length = centred_NL.shape[1]
    at_NL = torch.where(given_NL, torch.arange(length, device=given_NL.device), length)
    next_NL = at_NL.flip(1).cummin(1).values.flip(1)
    return torch.cat([centred_NL, centred_NL.new_zeros(len(centred_NL), 1)], dim=1).gather(1, next_NL)
