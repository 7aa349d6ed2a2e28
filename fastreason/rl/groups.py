"""Groups of samples in reinforcement learning: arrays of prompts and samples, and their packed layout.

Letters: P prompts, G samples of each, S = P * G samples, L tokens of the longest one; T tokens of a packed batch, N of
them sampled, D hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ..kernels.segments import Segments
from ..model.decoder import Decoder
from ..sampling.rollout import RolloutOutput
from .settings import Truncated


@dataclass(frozen=True, eq=False)
class Groups:
    """Prompts and their samples, as training data.

    Args:
        prompt_tokens: int32, all prompts concatenated, and prompt_offsets: int64 [P + 1].
        tokens: int32 [S, L]; lengths: int64 [S].
        logprobs: float32 [S, L], recorded during sampling.
        trainer_logprobs: float32 [S, L], of the same weights in training, where they were computed apart.
        rewards: float32 [S], or [S, L] with NaN for tokens without a reward; NaN for samples that are not in the loss.
        position: int64 [P]: the index of each group among those of all ranks.
        in_loss: bool [S]: whether a sample is in the loss. Of other samples one token is kept, so that groups keep
            their shape; it has weight 0 and is not counted.
    """

    prompt_tokens: np.ndarray
    prompt_offsets: np.ndarray
    tokens: np.ndarray
    lengths: np.ndarray
    logprobs: np.ndarray
    rewards: Tensor
    position: np.ndarray
    in_loss: np.ndarray
    trainer_logprobs: np.ndarray | None = None

    @classmethod
    def of(
        cls,
        samples: RolloutOutput,
        rewards: Tensor,
        position: np.ndarray | None = None,
        in_loss: np.ndarray | None = None,
    ) -> Groups:
        """All groups of a rollout; by default `position` is 0 .. P - 1 and all samples are in the loss."""
        position = np.arange(len(samples.prompt_offsets) - 1) if position is None else position
        in_loss = np.ones(len(samples.lengths), dtype=bool) if in_loss is None else in_loss
        lengths = np.where(in_loss, samples.lengths, 1)
        return cls(
            samples.prompt_tokens, samples.prompt_offsets, samples.tokens, lengths, samples.logprobs, rewards, position,
            in_loss,
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.position)

    @property
    def group_size(self) -> int:
        return len(self.lengths) // len(self) if len(self) else 0

    def take(self, groups: np.ndarray) -> Groups:
        """Selects groups by increasing indices."""
        if len(groups) == len(self):
            return self
        rows = (groups[:, None] * self.group_size + np.arange(self.group_size)).reshape(-1)
        parts = [self.prompt_tokens[self.prompt_offsets[p] : self.prompt_offsets[p + 1]] for p in groups]
        return Groups(
            np.concatenate([self.prompt_tokens[:0], *parts]),
            np.concatenate([[0], np.diff(self.prompt_offsets)[groups].cumsum()]).astype(np.int64),
            self.tokens[rows],
            self.lengths[rows],
            self.logprobs[rows],
            self.rewards[torch.from_numpy(rows)],
            self.position[groups],
            self.in_loss[rows],
            None if self.trainer_logprobs is None else self.trainer_logprobs[rows],
        )

    @classmethod
    def join(cls, parts: Sequence[Groups]) -> Groups:
        """Concatenates the groups of several draws."""
        if len(parts) == 1:
            return parts[0]
        width = max(part.tokens.shape[1] for part in parts)
        lengths = np.concatenate([np.diff(part.prompt_offsets) for part in parts])
        rewards = [part.rewards for part in parts]
        if rewards[0].ndim == 2:
            rewards = [_widened(x, width) for x in rewards]
        return cls(
            np.concatenate([part.prompt_tokens for part in parts]),
            np.concatenate([[0], lengths.cumsum()]).astype(np.int64),
            np.concatenate([np.pad(p.tokens, ((0, 0), (0, width - p.tokens.shape[1]))) for p in parts]),
            np.concatenate([part.lengths for part in parts]),
            np.concatenate([np.pad(p.logprobs, ((0, 0), (0, width - p.logprobs.shape[1]))) for p in parts]),
            torch.cat(rewards),
            np.concatenate([part.position for part in parts]),
            np.concatenate([part.in_loss for part in parts]),
        )


def _widened(rewards_SL: Tensor, width: int) -> Tensor:
    return torch.nn.functional.pad(rewards_SL, (0, width - rewards_SL.shape[1]), value=torch.nan)


@dataclass(frozen=True, eq=False)
class PackedGroups:
    """Groups in the segment layout, with the inputs of the loss for each sampled token; all on CPU.

    Args:
        tokens_T, segments: prompt 0, its samples, prompt 1, ...
        target_N: int64: positions of the sampled tokens in tokens_T.
        lengths_S: int64: lengths of the samples.
        in_loss_S: bool: whether a sample is in the loss.
        group_size: G.
    """

    tokens_T: Tensor
    segments: Segments
    target_N: Tensor
    lengths_S: Tensor
    in_loss_S: Tensor
    group_size: int

    @classmethod
    def of(cls, groups: Groups) -> PackedGroups:
        lengths_S = torch.from_numpy(groups.lengths)
        segments = Segments.from_groups(
            torch.from_numpy(np.diff(groups.prompt_offsets)), lengths_S.view(len(groups), -1)
        )
        is_sampled_T = (segments.prefix >= 0).repeat_interleave(segments.length)
        tokens_T = torch.empty(segments.num_tokens, dtype=torch.int64)
        tokens_T[is_sampled_T] = torch.from_numpy(groups.tokens[inside(groups)]).long()
        tokens_T[~is_sampled_T] = torch.from_numpy(groups.prompt_tokens).long()
        in_loss_S = torch.from_numpy(groups.in_loss)
        return cls(tokens_T, segments, is_sampled_T.nonzero().squeeze(1), lengths_S, in_loss_S, groups.group_size)

    @cached_property
    def _is_first_N(self) -> Tensor:
        """bool [N]: whether a token is the first of its sample."""
        return self.segments.start[self.segments.prefix >= 0].repeat_interleave(self.lengths_S) == self.target_N

    @cached_property
    def order_N(self) -> Tensor:
        """The order of the tokens in `predictors`: the first tokens of all samples come last."""
        return torch.cat([(~self._is_first_N).nonzero().squeeze(1), self._is_first_N.nonzero().squeeze(1)])

    def sources(self) -> tuple[Tensor, Tensor, Tensor]:
        """What `predictors` reads, on CPU: the tokens, where each prompt ends, and what precedes the other tokens."""
        prompt_end_P = (self.segments.start + self.segments.length - 1)[self.segments.prefix < 0]
        return self.tokens_T, prompt_end_P, self.target_N[~self._is_first_N] - 1

    def predictors(self, model: Decoder, tokens_T: Tensor, prompt_end_P: Tensor, before_M: Tensor) -> Tensor:
        """The hidden state that predicts each sampled token, [N, D], in the order `order_N`.

        The first token of a sample is predicted by the last token of its prompt, all others by the preceding token.
        The first tokens come last, by expansion instead of indexing: the gradient of an index with repeats is summed in
        no fixed order.

        Args:
            tokens_T, prompt_end_P, before_M: `sources`, on the device of the weights.
        """
        hidden = model(tokens_T, self.segments)
        behind_prompts = hidden.index_select(0, prompt_end_P)[:, None].expand(-1, self.group_size, -1).flatten(0, 1)
        return torch.cat([hidden.index_select(0, before_M), behind_prompts])


def counted_rewards(rewards: np.ndarray, samples: RolloutOutput, truncated: Truncated) -> tuple[np.ndarray, np.ndarray]:
    """Applies the treatment of truncated samples to rewards; rewards after the end of a sample are dropped.

    Args:
        rewards: float32 [S], or [S, L] with NaN for tokens without a reward.
        samples: the samples that were rewarded.
        truncated: for samples that reached their length limit: "zero" caps all rewards at 0 and gives the last token
            one; "mask" leaves the sample out of the loss; "keep" changes nothing.
    Returns:
        The rewards, NaN for samples that are not in the loss; and bool [S], whether a sample is in the loss.
    """
    rewards, cut = rewards.copy(), ~samples.finished
    if rewards.ndim == 2:
        rewards[np.arange(rewards.shape[1]) >= samples.lengths[:, None]] = np.nan
    if truncated == "zero":
        rewards[cut] = np.minimum(rewards[cut], 0.0)
        if rewards.ndim == 2:
            last = np.nonzero(cut)[0], samples.lengths[cut] - 1
            rewards[last] = np.nan_to_num(rewards[last], nan=0.0)
    elif truncated == "mask":
        rewards[cut] = np.nan
    in_loss = samples.finished if truncated == "mask" else np.ones(len(rewards), dtype=bool)
    return rewards, in_loss


def inside(groups: Groups) -> np.ndarray:
    """bool [S, L]: whether a position is within the length of its sample."""
    return np.arange(groups.tokens.shape[1]) < groups.lengths[:, None]


def has_loss(groups: Groups) -> np.ndarray:
    """bool [P]: whether any sample of a group is in the loss."""
    by_group = groups.in_loss.reshape(len(groups), groups.group_size)  # a rank may have no group
    return np.asarray(by_group.any(axis=1))


def has_advantage(groups: Groups, advantages: Tensor) -> np.ndarray:
    """bool [P]: whether any token of a group has a non-zero advantage."""
    spread = advantages if advantages.ndim == 1 else advantages.where(torch.from_numpy(inside(groups)), 0.0)
    by_group = spread.reshape(len(groups), spread.numel() // max(1, len(groups)))  # a rank may have no group
    return (by_group.abs().sum(1) > 0).numpy()
