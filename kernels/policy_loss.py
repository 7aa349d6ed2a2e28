"""The clipped policy-gradient loss of GRPO, with the statistics a trainer logs.

    ratio[n] = exp(logp[n] - old_logp[n]),   logp[n] = log softmax(logits[n] / temperature)[token[n]]
    loss     = - sum_n w[n] min(ratio[n] A[n], clip(ratio[n], 1 - clip_low, 1 + clip_high) A[n]) / sum_n w[n]

Letters:  N response tokens, V vocabulary.
Source:   GRPO: Shao et al. 2024, arXiv:2402.03300; clip range with two ends: DAPO, Yu et al. 2025, arXiv:2503.14476.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["PolicyLoss", "group_advantages", "policy_loss"]


@dataclass(frozen=True, eq=False)
class PolicyLoss:
    """The loss (scalar, with gradient) and statistics over tokens (scalars, without).

    entropy: mean entropy of the tempered distribution, in nats. clip_share: share of tokens whose clipped term is the
    smaller one. max_logprob_difference: largest |logp - old_logp|.
    """

    loss: Tensor
    entropy: Tensor
    clip_share: Tensor
    max_logprob_difference: Tensor


def group_advantages(rewards_PG: Tensor, *, scale: str = "std", eps: float = 1e-6) -> Tensor:
    """How much better each completion did than the others of its prompt.

        adv[p, g] = (r[p, g] - mean_g r[p, g]) / (std_g r[p, g] + eps)

    Args:
        rewards_PG: float [P, G]: P prompts, G >= 2 completions of each. Unitless.
        scale: "std" as above (GRPO; divides by G - 1 inside, as TRL does); "none" omits the division (Dr. GRPO).
        eps: added to the standard deviation, in the unit of the rewards.
    Returns:
        float32 [P, G], same device, no gradient; exactly 0 where all G rewards of a prompt are equal.
    Raises:
        ValueError: rewards are not 2-D, G < 2, or scale is neither.
    Source:
        GRPO: Shao et al. 2024, arXiv:2402.03300, section 4.1. Dr. GRPO: Liu et al. 2025, arXiv:2503.20783.

    >>> group_advantages(torch.tensor([[1.0, 0.0, 0.0, 1.0]]), scale="none")
    tensor([[ 0.5000, -0.5000, -0.5000,  0.5000]])
    """
    if rewards_PG.ndim != 2 or rewards_PG.shape[1] < 2:
        raise ValueError(
            f"group_advantages: rewards must be [prompts, completions] with at least 2 completions, "
            f"got shape {tuple(rewards_PG.shape)}"
        )
    if scale not in ("std", "none"):
        raise ValueError(f"group_advantages: scale must be 'std' or 'none', got {scale!r}")
    rewards = rewards_PG.detach().float()
    centred = rewards - rewards.mean(1, keepdim=True)
    if scale == "std":
        centred = centred / (rewards.std(1, keepdim=True) + eps)
    # rounding of the mean, divided by eps, would push on groups that hold no information
    silent = (rewards == rewards[:, :1]).all(1, keepdim=True)
    return centred.masked_fill(silent, 0.0)


def policy_loss(
    logits_NV: Tensor,
    tokens_N: Tensor,
    old_logprobs_N: Tensor,
    advantages_N: Tensor,
    weights_N: Tensor,
    *,
    temperature: float = 1.0,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
) -> PolicyLoss:
    """The loss of the module's head over N response tokens.

    Args:
        logits_NV: floating point, of the policy, before the temperature.
        tokens_N: int64, the sampled tokens.
        old_logprobs_N: float, their log-probabilities when sampled, at the same temperature.
        advantages_N: float, per token.
        weights_N: float >= 0, at least one of them not 0: how much each token counts.
        temperature: > 0.
        clip_low, clip_high: >= 0; how far the ratio may pull below and above 1.
    """
    if temperature <= 0 or clip_low < 0 or clip_high < 0:
        raise ValueError(
            f"policy_loss: need temperature > 0 and clips >= 0, got {temperature}, {clip_low} and {clip_high}"
        )
    wide = logits_NV.dtype if logits_NV.dtype == torch.float64 else torch.float32
    logprobs_NV = (logits_NV.to(wide) / temperature).log_softmax(-1)
    logprobs_N = logprobs_NV.gather(1, tokens_N[:, None]).squeeze(1)
    ratio_N = (logprobs_N - old_logprobs_N).exp()
    free_N = ratio_N * advantages_N
    clipped_N = ratio_N.clamp(1.0 - clip_low, 1.0 + clip_high) * advantages_N
    loss = -(weights_N * torch.minimum(free_N, clipped_N)).sum() / weights_N.sum()
    with torch.no_grad():
        entropy_N = -(logprobs_NV.exp() * logprobs_NV).sum(-1)
        return PolicyLoss(
            loss,
            (weights_N * entropy_N).sum() / weights_N.sum(),
            (weights_N * (clipped_N < free_N)).sum() / weights_N.sum(),
            (logprobs_N - old_logprobs_N).abs().max(),
        )
