"""The update of reinforcement learning: the loss of groups, and the step over all ranks.

Letters: P prompts, G samples of each, S = P * G samples, L tokens of the longest one; N sampled tokens of all of them,
D hidden size, V vocabulary, K statistics.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from .. import kernels
from ..kernels.policy_loss import PolicyLoss
from ..kernels.policy_loss_triton import NUM_SUMS, STATISTICS
from ..model.decoder import Decoder
from ..runtime.distributed import sum_over_ranks, world_size
from ..sampling.rollout import RolloutOutput
from ..training.optimizer import Optimizer
from .groups import Groups, PackedGroups, has_loss, inside, speaking
from .settings import PolicySettings

# 16 MB in float32. The loss of 256 x 62 tokens at V = 2,353: 0.44 s of CPU in pieces, 0.73 s all at once
_PIECE_LOGITS = 2**22


def policy_step(
    model: Decoder, samples: RolloutOutput, advantages_PG: Tensor, settings: PolicySettings
) -> PolicyLoss | None:
    """The loss over the groups of a rollout that have an advantage at all, each prompt once; None without one.

    For a loop of your own on one process: `backward` and an optimizer make the update.

    Args:
        advantages_PG: float [P, G] of samples, or [P * G, L] of tokens.
    """
    advantages = advantages_PG if len(advantages_PG) == len(samples.lengths) else advantages_PG.flatten()
    advantages = advantages.cpu()
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
    """The loss of some groups, for a `backward` of your own; `update` does both in pieces.

    Args:
        advantages: float [S], or [S, L] of tokens.
        share: what part of the batch the groups are, in what `settings.aggregation` counts: of its tokens if "token",
            of its samples if not.
        reference: the frozen model that KL is taken to.
    """
    rows = _Rows.of(groups, advantages.cpu(), settings, share, model.embedding.weight.device)
    return rows.loss(model, rows.predictors(model), slice(0, len(rows.tokens_N)), reference, rows.frozen(reference))


@dataclass(frozen=True, eq=False)
class _Rows:
    """The sampled tokens of some groups, and what the loss needs of each, in one order where the weights lie."""

    packed: PackedGroups
    settings: PolicySettings
    tokens_N: Tensor
    advantages_N: Tensor
    weights_N: Tensor
    old_N: Tensor

    @classmethod
    def of(
        cls, groups: Groups, advantages: Tensor, settings: PolicySettings, share: float, device: torch.device
    ) -> _Rows:
        """Index work is done on CPU, where the groups lie, and each result is moved once."""
        packed, parts = PackedGroups.of(groups), settings.parts
        length = settings.max_new_tokens if parts.aggregation == "constant" else None
        weights_N = torch.zeros(len(packed.target_N))
        counted_N = packed.in_loss_S.repeat_interleave(packed.lengths_S)
        weights_N[counted_N] = kernels.token_weights(
            packed.lengths_S[packed.in_loss_S], parts.aggregation, length=length
        )
        weights_N *= share
        inside_SL = torch.from_numpy(inside(groups))
        spread_SL = advantages if advantages.ndim == 2 else advantages[:, None].expand(inside_SL.shape)
        old_N = torch.from_numpy(groups.logprobs)[inside_SL]
        values = [packed.tokens_T[packed.target_N], spread_SL[inside_SL], weights_N, old_N]
        if parts.kind != "gspo":
            values = [x[packed.order_N] for x in values]
        return cls(packed, settings, *(x.to(device) for x in values))

    def predictors(self, model: Decoder) -> Tensor:
        """The hidden state behind which each token was sampled: [N, D]. In gspo a sequence stays together."""
        predictors_ND = self.packed.predictors(model)
        if self.settings.parts.kind != "gspo":
            return predictors_ND
        return predictors_ND[self.packed.order_N.argsort().to(predictors_ND.device)]

    @torch.no_grad()
    def frozen(self, reference: Decoder | None) -> Tensor | None:
        return None if reference is None else self.predictors(reference)

    def loss(
        self,
        model: Decoder,
        predictors_ND: Tensor,
        rows: slice,
        reference: Decoder | None,
        frozen_ND: Tensor | None,
    ) -> PolicyLoss:
        """Of the rows that `predictors_ND` holds; `frozen_ND` holds all."""
        settings, parts, tokens_N = self.settings, self.settings.parts, self.tokens_N[rows]
        reference_logits, reference_logprobs = None, None
        if reference is not None and frozen_ND is not None:
            with torch.no_grad():
                reference_logits = reference.logits(frozen_ND[rows])
                if settings.kl != "exact":
                    tempered = reference_logits.float() / settings.temperature
                    reference_logprobs = tempered.log_softmax(-1).gather(1, tokens_N[:, None]).squeeze(1)
                    reference_logits = None
        return kernels.policy_loss(
            model.logits(predictors_ND),
            tokens_N,
            self.advantages_N[rows],
            self.weights_N[rows],
            old_logprobs_N=self.old_N[rows],
            reference_logprobs_N=reference_logprobs,
            reference_logits_NV=reference_logits,
            sequence_offsets_S=self._offsets(rows) if parts.kind == "gspo" else None,
            kind=parts.kind,
            temperature=settings.temperature,
            clip_low=parts.clip_low,
            clip_high=parts.clip_high,
            clip_dual=settings.clip_dual or math.inf,
            kl=settings.kl if settings.kl != "exact" else "k3",
            kl_coef=settings.kl_coef,
            entropy_coef=settings.entropy_coef,
        )

    def backward(self, model: Decoder, reference: Decoder | None) -> Tensor:
        """Adds the gradient to the weights', piece by piece of the rows behind the blocks; the statistics [K].

        A step's logits and what autograd keeps of them would be hundreds of megabytes of fresh memory; on CPU that
        takes longer than the products. The gradients by the predictors are kept, and go through the blocks once.
        """
        predictors_ND, frozen_ND = self.predictors(model), self.frozen(reference)
        gradients, totals = [], []
        for rows in self._pieces(predictors_ND.device, model.config.vocab_size):
            piece_ND = predictors_ND[rows].detach().requires_grad_()
            result = self.loss(model, piece_ND, rows, reference, frozen_ND)
            result.loss.backward()
            assert piece_ND.grad is not None
            gradients.append(piece_ND.grad)
            totals.append(result.totals_K.float().cpu())
        predictors_ND.backward(torch.cat(gradients))
        return _joined(totals)

    def _pieces(self, device: torch.device, vocab_size: int) -> list[slice]:
        """Of `_PIECE_LOGITS` logits on CPU; in gspo cut between sequences."""
        size = max(1, _PIECE_LOGITS // vocab_size) if device.type == "cpu" else len(self.tokens_N)
        ends = self.packed.lengths_S.cumsum(0)
        if self.settings.parts.kind != "gspo":
            ends = torch.arange(1, len(self.tokens_N) + 1)
        block = (ends - 1) // size
        is_last = torch.cat([block[1:] > block[:-1], torch.ones(1, dtype=torch.bool)])
        borders = [0, *ends[is_last].tolist()]
        return [slice(begin, end) for begin, end in pairwise(borders)]

    def _offsets(self, rows: slice) -> Tensor:
        ends = self.packed.lengths_S.cumsum(0)
        ends = ends[(ends > rows.start) & (ends <= rows.stop)]
        return torch.cat([ends.new_zeros(1), ends - rows.start]).to(self.tokens_N.device)


def _joined(totals: Sequence[Tensor]) -> Tensor:
    """Statistics of parts as those of the whole: sums are added, of maxima the largest counts."""
    table = torch.stack(list(totals))
    return torch.cat([table[:, :NUM_SUMS].sum(0), table[:, NUM_SUMS:].amax(0)])


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
    history, advantages = [], advantages.cpu()
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
    trained = np.nonzero(has_loss(groups) if settings.trains_silent else speaks)[0]
    counted = np.arange(len(groups)) if settings.count_silent else trained
    total, num_trained = _over_ranks(_amount(groups.take(counted), settings), float(len(trained)))
    if num_trained == 0:
        return None
    totals = torch.zeros(len(STATISTICS))
    totals[NUM_SUMS:] = -math.inf
    for which in np.array_split(trained, min(settings.accumulate, len(trained))) if len(trained) else ():
        part, part_advantages = _part(groups, advantages, which)
        share = _amount(part, settings) / total
        rows = _Rows.of(part, part_advantages, settings, share, model.embedding.weight.device)
        totals = _joined([totals, rows.backward(model, reference)])
    return _statistics_over_ranks(totals)


def _amount(groups: Groups, settings: PolicySettings) -> float:
    """How much groups count: tokens or samples, as the weights of the loss are normalised."""
    return float((groups.lengths if settings.parts.aggregation == "token" else groups.in_loss)[groups.in_loss].sum())


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
