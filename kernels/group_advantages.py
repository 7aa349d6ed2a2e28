"""Inputs of the policy loss: advantages within groups, and weights of tokens.

Letters:    P prompts, G completions of each, S sequences, N tokens of all of them.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

__all__ = ["group_advantages", "token_weights"]


def group_advantages(rewards_PG: Tensor, *, scale: Literal["std", "none"] = "std", eps: float = 1e-6) -> Tensor:
    """How much better each completion is than the others for its prompt.

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
    if scale == "std" and len(rewards) > 0:  # torch warns of the deviation of nothing
        centred = centred / (rewards.std(1, keepdim=True) + eps)
    # rounding of the mean, divided by eps, would push on groups that hold no information
    equal = (rewards == rewards[:, :1]).all(1, keepdim=True)
    return centred.masked_fill(equal, 0.0)


def token_weights(
    lengths_S: Tensor, aggregation: Literal["token", "sequence", "constant"] = "token", *, length: int | None = None
) -> Tensor:
    """The weight of each token of S sequences in the policy loss, which is a weighted sum of terms.

        "token"     1 / N                  all tokens equal (DAPO)
        "sequence"  1 / (S length[s])      all sequences equal (GRPO as published, GSPO)
        "constant"  1 / (S length)         a sum over tokens divided by a constant length (Dr. GRPO)

    For a batch in parts, multiply the weights of a part by its share of the tokens or sequences.

    Args:
        lengths_S: int64, tokens of each sequence, at least 1; tokens are ordered by sequence.
        aggregation: one of the three above.
        length: for "constant", the maximum length of a response.
    Returns:
        float32 [N], same device.
    Raises:
        ValueError: lengths are not integers [S], aggregation is unknown, or length is given without "constant".

    >>> token_weights(torch.tensor([1, 2]), "sequence")
    tensor([0.5000, 0.2500, 0.2500])
    """
    if lengths_S.ndim != 1 or lengths_S.is_floating_point():
        raise ValueError(f"token_weights: lengths must be integers [S], got {lengths_S.dtype} {tuple(lengths_S.shape)}")
    if aggregation not in ("token", "sequence", "constant"):
        raise ValueError(
            f"token_weights: aggregation must be 'token', 'sequence' or 'constant', got {aggregation!r}"
        )  # fmt: skip
    if (aggregation == "constant") != (length is not None and length > 0):
        raise ValueError(f"token_weights: length > 0 is only for 'constant', got {length} with {aggregation!r}")
    if aggregation == "token":
        each_S = torch.ones_like(lengths_S) / lengths_S.sum()
    elif aggregation == "sequence":
        each_S = 1.0 / (len(lengths_S) * lengths_S)
    else:
        each_S = torch.full(lengths_S.shape, 1.0 / (len(lengths_S) * float(length or 1)), device=lengths_S.device)
    return each_S.float().repeat_interleave(lengths_S)
