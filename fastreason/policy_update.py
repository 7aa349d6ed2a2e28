"""The update of reinforcement learning: groups in the packed layout, their loss, and the step over all ranks.

Letters: P prompts, G samples of each, S = P * G samples, L tokens of the longest one; T tokens of a packed batch, N of
them sampled, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from . import ops
from .distributed import sum_over_ranks, world_size
from .kernels.policy_loss import PolicyLoss
from .kernels.policy_loss_kernel import NUM_SUMS, STATISTICS
from .kernels.segments import Segments
from .model import Decoder
from .optim import Optimizer
from .policy_settings import PolicySettings
from .rollout import RolloutOutput


@dataclass(frozen=True, eq=False)
class Groups:
    """Prompts and their samples, as they are trained on.

    Args:
        prompt_tokens: int32, all prompts in a row, and prompt_offsets: int64 [P + 1].
        tokens: int32 [S, L]; lengths: int64 [S].
        logprobs: float32 [S, L], when sampled.
        rewards: float32 [S], or [S, L] with NaN where a token has none.
        place: int64 [P]: the number of each group among those of all ranks.
    """

    prompt_tokens: np.ndarray
    prompt_offsets: np.ndarray
    tokens: np.ndarray
    lengths: np.ndarray
    logprobs: np.ndarray
    rewards: Tensor
    place: np.ndarray

    @classmethod
    def of(cls, samples: RolloutOutput, rewards: Tensor, place: np.ndarray | None = None) -> Groups:
        """All groups of a rollout; the default of `place` is 0 .. P - 1."""
        place = np.arange(len(samples.prompt_offsets) - 1) if place is None else place
        return cls(
            samples.prompt_tokens, samples.prompt_offsets, samples.tokens, samples.lengths, samples.logprobs, rewards,
            place,
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.place)

    @property
    def group_size(self) -> int:
        return len(self.lengths) // len(self) if len(self) else 0

    def take(self, groups: np.ndarray) -> Groups:
        """Some of the groups, by their indices in rising order."""
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
            self.place[groups],
        )

    @classmethod
    def join(cls, parts: Sequence[Groups]) -> Groups:
        """The groups of several draws, one after the other."""
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
            np.concatenate([part.place for part in parts]),
        )


def _widened(rewards_SL: Tensor, width: int) -> Tensor:
    return torch.nn.functional.pad(rewards_SL, (0, width - rewards_SL.shape[1]), value=torch.nan)


@dataclass(frozen=True, eq=False)
class PackedGroups:
    """Groups in the segment layout, and for each sampled token what the loss needs, sample after sample.

    Args:
        tokens_T, segments: prompt 0, its samples, prompt 1, ...
        target_N: int64: where the sampled tokens stand.
        lengths_S: int64: of the samples.
        group_size: G.
    """

    tokens_T: Tensor
    segments: Segments
    target_N: Tensor
    lengths_S: Tensor
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
        return cls(tokens_T, segments, is_sampled_T.nonzero().squeeze(1), lengths_S, groups.group_size)

    @cached_property
    def _is_first_N(self) -> Tensor:
        """Whether a token is the first of its sample."""
        return self.segments.start[self.segments.prefix >= 0].repeat_interleave(self.lengths_S) == self.target_N

    @cached_property
    def order_N(self) -> Tensor:
        """The order in which `logits` returns the tokens: the first ones of all samples last."""
        return torch.cat([(~self._is_first_N).nonzero().squeeze(1), self._is_first_N.nonzero().squeeze(1)])

    def logits(self, model: Decoder) -> Tensor:
        """What predicts each sampled token, [N, V], in the order `order_N`.

        The first token of a sample is predicted by the last of its prompt, the others by the one before them. The
        first ones go last, expanded and not indexed: the gradient of an index that repeats is summed in any order.
        """
        hidden = model(self.tokens_T, self.segments)
        prompt_end_P = (self.segments.start + self.segments.length - 1)[self.segments.prefix < 0]
        behind_prompts = hidden[prompt_end_P][:, None].expand(-1, self.group_size, -1).flatten(0, 1)
        return model.logits(torch.cat([hidden[self.target_N[~self._is_first_N] - 1], behind_prompts]))


def inside(groups: Groups) -> np.ndarray:
    """bool [S, L]: whether a token belongs to its sample."""
    return np.arange(groups.tokens.shape[1]) < groups.lengths[:, None]


def policy_step(
    model: Decoder, samples: RolloutOutput, advantages_PG: Tensor, settings: PolicySettings
) -> PolicyLoss | None:
    """The loss over the groups of a rollout that have an advantage at all, each prompt once; None without one.

    For a loop of your own on one process: `backward` and an optimizer make the update.

    Args:
        advantages_PG: float [P, G] of samples, or [P * G, L] of tokens.
    """
    advantages = advantages_PG if len(advantages_PG) == len(samples.lengths) else advantages_PG.flatten()
    groups = Groups.of(samples, advantages)
    which = np.nonzero(speaking(groups, advantages))[0]
    return group_loss(model, *_part(groups, advantages, which), settings) if len(which) else None


def group_loss(
    model: Decoder,
    groups: Groups,
    advantages: Tensor,
    settings: PolicySettings,
    *,
    share: float = 1.0,
    reference: Decoder | None = None,
) -> PolicyLoss:
    """The loss of some groups.

    Args:
        advantages: float [S], or [S, L] of tokens.
        share: what part of the batch the groups are, in what `settings.aggregation` counts: of its tokens if "token",
            of its samples if not.
        reference: the frozen model that KL is taken to.
    """
    packed, parts = PackedGroups.of(groups), settings.parts
    order_N, lengths_S = packed.order_N, packed.lengths_S
    if parts.kind == "gspo":  # the rows of a sequence stay together
        order_N = torch.arange(len(order_N))
    tokens_N = packed.tokens_T[packed.target_N][order_N]
    inside_SL = torch.from_numpy(inside(groups))
    spread = advantages if advantages.ndim == 2 else advantages[:, None].expand(inside_SL.shape)
    length = settings.max_new_tokens if parts.aggregation == "constant" else None
    weights_N = ops.token_weights(lengths_S, parts.aggregation, length=length) * share

    def logits_of(a_model: Decoder) -> Tensor:
        logits_NV = packed.logits(a_model)
        return logits_NV[packed.order_N.argsort()] if parts.kind == "gspo" else logits_NV

    reference_logits, reference_logprobs = None, None
    if reference is not None:
        with torch.no_grad():
            reference_logits = logits_of(reference)
            if settings.kl != "exact":
                tempered = reference_logits.float() / settings.temperature
                reference_logprobs = tempered.log_softmax(-1).gather(1, tokens_N[:, None]).squeeze(1)
                reference_logits = None
    offsets = torch.cat([lengths_S.new_zeros(1), lengths_S.cumsum(0)]) if parts.kind == "gspo" else None
    return ops.policy_loss(
        logits_of(model),
        tokens_N,
        spread[inside_SL][order_N],
        weights_N[order_N],
        old_logprobs_N=torch.from_numpy(groups.logprobs)[inside_SL][order_N],
        reference_logprobs_N=reference_logprobs,
        reference_logits_NV=reference_logits,
        sequence_offsets_S=offsets,
        kind=parts.kind,
        temperature=settings.temperature,
        clip_low=parts.clip_low,
        clip_high=parts.clip_high,
        clip_dual=settings.clip_dual or math.inf,
        kl=settings.kl if settings.kl != "exact" else "k3",
        kl_coef=settings.kl_coef,
        entropy_coef=settings.entropy_coef,
    )


def update(
    model: Decoder,
    optimizer: Optimizer,
    groups: Groups,
    advantages: Tensor,
    settings: PolicySettings,
    done: float,
    *,
    reference: Decoder | None = None,
) -> list[dict[str, float]]:
    """All updates of a batch: `epochs` times, on each of its `minibatches` parts.

    Every rank brings its own groups; together they are one batch, and every rank makes the same steps. Groups whose
    advantages are all 0 are left out, unless they have a gradient of their own (`settings.trains_silent`).

    Args:
        groups: this rank's, `advantages` [S] or [S, L] too.
        done: share of the stage that is done, for the schedule.
    Returns:
        The statistics of each update, with the norm of its gradient; none where no rank has a gradient.
    """
    history = []
    for _ in range(settings.epochs):
        for number in range(settings.minibatches):
            mine = np.nonzero(groups.place % settings.minibatches == number)[0]
            found = _accumulate(model, *_part(groups, advantages, mine), settings, reference)
            if found is not None:
                _sum_gradients(model)
                found["grad_norm"] = optimizer.step(done)
                history.append(found)
    return history


def _part(groups: Groups, advantages: Tensor, which: np.ndarray) -> tuple[Groups, Tensor]:
    if len(which) == len(groups):
        return groups, advantages
    rows = torch.from_numpy(which)[:, None] * groups.group_size + torch.arange(groups.group_size)
    return groups.take(which), advantages[rows.flatten()]


def _accumulate(
    model: Decoder, groups: Groups, advantages: Tensor, settings: PolicySettings, reference: Decoder | None
) -> dict[str, float] | None:
    """Adds the gradient of this rank's part of an update; the statistics over all ranks, None without a gradient."""
    speaks = speaking(groups, advantages)
    trained = np.arange(len(groups)) if settings.trains_silent else np.nonzero(speaks)[0]
    counted = np.arange(len(groups)) if settings.count_silent else trained
    total, num_trained = _over_ranks(_amount(groups.take(counted), settings), float(len(trained)))
    if num_trained == 0:
        return None
    sums = torch.zeros(len(STATISTICS))
    sums[NUM_SUMS:] = -math.inf
    for which in np.array_split(trained, min(settings.accumulate, len(trained))) if len(trained) else ():
        part, part_advantages = _part(groups, advantages, which)
        share = _amount(part, settings) / total
        result = group_loss(model, part, part_advantages, settings, share=share, reference=reference)
        result.loss.backward()
        totals = result.totals_K.float().cpu()
        sums = torch.cat([sums[:NUM_SUMS] + totals[:NUM_SUMS], sums[NUM_SUMS:].maximum(totals[NUM_SUMS:])])
    return _statistics_over_ranks(sums)


def speaking(groups: Groups, advantages: Tensor) -> np.ndarray:
    """bool [P]: whether any token of a group has an advantage."""
    spread = advantages if advantages.ndim == 1 else advantages.where(torch.from_numpy(inside(groups)), 0.0)
    by_group = spread.reshape(len(groups), spread.numel() // max(1, len(groups)))  # a rank may have no group
    return (by_group.abs().sum(1) > 0).numpy()


def _amount(groups: Groups, settings: PolicySettings) -> float:
    """How much groups count: tokens or samples, as the weights of the loss are normalised."""
    return float(groups.lengths.sum() if settings.parts.aggregation == "token" else len(groups.lengths))


def _over_ranks(*numbers: float) -> list[float]:
    return sum_over_ranks(torch.tensor(numbers, dtype=torch.float64)).tolist()


def _statistics_over_ranks(totals_K: Tensor) -> dict[str, float]:
    sums, extremes = totals_K[:NUM_SUMS].clone(), totals_K[NUM_SUMS:].clone()
    if world_size() > 1:
        sum_over_ranks(sums)
        dist.all_reduce(extremes, dist.ReduceOp.MAX)
    totals_K = torch.cat([sums, extremes])
    return PolicyLoss(totals_K[0], totals_K[:0], totals_K).statistics()


def _sum_gradients(model: Decoder) -> None:
    """Every rank gets the sum of the gradients; one all-reduce over all of them in a row."""
    if world_size() == 1:
        return
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    flat = torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in parameters])
    sum_over_ranks(flat)
    for parameter, grad in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        parameter.grad = grad.view_as(parameter)
