"""The update of reinforcement learning: the loss of groups, and the step over all ranks.

Letters: P prompts, G samples of each, S = P * G samples, L tokens of the longest one; N sampled tokens of all of them,
D hidden size, V vocabulary, K statistics.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from .. import kernels
from ..kernels.linear_loss import chunk_rows
from ..kernels.policy_loss import PolicyLoss
from ..kernels.policy_loss_triton import NUM_SUMS, STATISTICS
from ..model.decoder import Decoder
from ..model.precision import autocast, cast_once, product_dtype
from ..runtime.distributed import sum_over_ranks, world_size
from ..runtime.transfer import send
from ..sampling.rollout import RolloutOutput
from ..training.optimizer import Optimizer
from .groups import Groups, PackedGroups, has_advantage, has_loss, inside
from .settings import Mismatch, PolicySettings

# The largest factor of a token whose log-probability differs between sampler and trainer: truncated importance sampling
_IMPORTANCE_LIMIT = 2.0
# Statistics of an update: the mean difference between sampler and trainer by the weights, then those of the loss
_MEAN_DIFFERENCE, _MAX_DIFFERENCE = 0, 1 + STATISTICS.index("max_logprob_difference")
_NUM_SUMS = 1 + NUM_SUMS


def policy_step(
    model: Decoder, samples: RolloutOutput, advantages_PG: Tensor, settings: PolicySettings
) -> PolicyLoss | None:
    """The loss over the groups of a rollout with non-zero advantages, each prompt computed once; None if there are
    none.

    For custom loops in a single process: call `backward` on the loss, then the optimizer.

    Args:
        model: the policy.
        samples: of P prompts, G each.
        advantages_PG: float [P, G] per sample, or [P * G, L] per token.
        settings: of the loss.
    """
    advantages = advantages_PG if len(advantages_PG) == len(samples.lengths) else advantages_PG.flatten()
    advantages = advantages.cpu()
    groups = Groups.of(samples, advantages)
    which = np.nonzero(has_advantage(groups, advantages))[0]
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
    """The loss of some groups, to call `backward` on; `update` computes loss and gradient in chunks instead.

    Args:
        advantages: float [S], or [S, L] per token.
        share: the groups' share of the batch: of its tokens if `settings.aggregation` is "token", otherwise of its
            samples.
        reference: the frozen reference model of the KL.
    """
    rows = _Rows.of(groups, advantages.cpu(), settings, share, model)
    return rows.loss(model, rows.predictors(model), slice(0, len(rows.tokens_N)), reference, rows.frozen(reference))


@dataclass(frozen=True, eq=False)
class _Rows:
    """The sampled tokens of some groups with the inputs of the loss, in one order, on the device of the weights."""

    packed: PackedGroups
    settings: PolicySettings
    tokens_N: Tensor
    advantages_N: Tensor
    weights_N: Tensor
    sampler_N: Tensor
    trainer_N: Tensor | None
    sources: tuple[Tensor, Tensor, Tensor]
    places_N: Tensor

    @classmethod
    def of(cls, groups: Groups, advantages: Tensor, settings: PolicySettings, share: float, model: Decoder) -> _Rows:
        """Indexing is done on CPU, where the groups are; all results are moved together."""
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
        logprobs = [torch.from_numpy(x)[inside_SL] for x in (groups.logprobs, groups.trainer_logprobs) if x is not None]
        values = [packed.tokens_T[packed.target_N], spread_SL[inside_SL], weights_N, *logprobs]
        if parts.kind != "gspo":
            values = [x[packed.order_N] for x in values]
        places_N = packed.order_N.argsort()
        with autocast(settings.precision, model.embedding.weight):
            sent = model.send(packed.segments, *packed.sources(), places_N, *values)
        (tokens_T, prompt_end_P, before_M, places_N), (tokens_N, spread_N, weights_N, sampler_N, *trainer) = (
            sent[:4],
            sent[4:],
        )
        sources, trainer_N = (tokens_T, prompt_end_P, before_M), trainer[0] if trainer else None
        return cls(packed, settings, tokens_N, spread_N, weights_N, sampler_N, trainer_N, sources, places_N)

    def predictors(self, model: Decoder) -> Tensor:
        """The hidden state from which each token was sampled: [N, D]. With gspo sequences stay contiguous."""
        with autocast(self.settings.precision, model.embedding.weight):
            predictors_ND = self.packed.predictors(model, *self.sources)
        return predictors_ND if self.settings.parts.kind != "gspo" else predictors_ND.index_select(0, self.places_N)

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
        """The loss of the rows in `predictors_ND`; `frozen_ND` has all rows."""
        settings, parts, tokens_N = self.settings, self.settings.parts, self.tokens_N[rows]
        with autocast(settings.precision, model.embedding.weight):
            logits_NV = model.logits(predictors_ND)
            old_N, importance_N = self._old(logits_NV, rows, mismatch_of(settings, model))
            reference_logits, reference_logprobs = None, None
            if reference is not None and frozen_ND is not None:
                with torch.no_grad():
                    reference_logits = reference.logits(frozen_ND[rows])
                    if settings.kl != "exact":
                        tempered = reference_logits.float() / settings.temperature
                        reference_logprobs = tempered.log_softmax(-1).gather(1, tokens_N[:, None]).squeeze(1)
                        reference_logits = None
            return kernels.policy_loss(
                logits_NV,
                tokens_N,
                self.advantages_N[rows],
                self.weights_N[rows],
                old_logprobs_N=old_N,
                importance_N=importance_N,
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

    def _old(self, logits_NV: Tensor, rows: slice, mismatch: Mismatch) -> tuple[Tensor | None, Tensor | None]:
        """Old log-probabilities, None if they are those of the logits, and importance weights, None if all are 1."""
        sampler_N, trainer_N = self.sampler_N[rows], None if self.trainer_N is None else self.trainer_N[rows]
        if mismatch == "ratio" or (trainer_N is None and not self.settings.on_policy):
            return sampler_N, None
        if mismatch == "ignore":
            return trainer_N, None
        own_N = self._logprobs(logits_NV, rows) if trainer_N is None else trainer_N
        return trainer_N, (own_N - sampler_N).exp().clamp(max=_IMPORTANCE_LIMIT)

    @torch.no_grad()
    def _logprobs(self, logits_NV: Tensor, rows: slice) -> Tensor:
        """Of the tokens, the same bits that the loss finds."""
        return kernels.policy_loss(
            logits_NV.detach(), self.tokens_N[rows], self.advantages_N[rows], self.weights_N[rows],
            temperature=self.settings.temperature,
        ).logprobs_N  # fmt: skip

    @torch.no_grad()
    def logprobs(self, model: Decoder) -> Tensor:
        """Log-probabilities of all sampled tokens, on CPU, sample after sample."""
        predictors_ND = self.predictors(model)
        found = []
        for rows in self._pieces(predictors_ND.device, model.config.vocab_size):
            with autocast(self.settings.precision, model.embedding.weight):
                found.append(self._logprobs(model.logits(predictors_ND[rows]), rows))
        joined = torch.cat(found).cpu()
        return joined if self.settings.parts.kind == "gspo" else joined[self.places_N.cpu()]

    def backward(self, model: Decoder, reference: Decoder | None) -> Tensor:
        """Accumulates the gradient of the weights, computing the logits in chunks of rows; returns the statistics [K].

        All logits of a step, and what autograd keeps of them, would be hundreds of megabytes of fresh memory, which on
        CPU takes longer than the matrix products. The gradients of the predictors are collected and propagated through
        the blocks once.
        """
        predictors_ND, frozen_ND = self.predictors(model), self.frozen(reference)
        gradients, totals = [], []
        for rows in self._pieces(predictors_ND.device, model.config.vocab_size):
            piece_ND = predictors_ND[rows].detach().requires_grad_()
            result = self.loss(model, piece_ND, rows, reference, frozen_ND)
            result.loss.backward()
            assert piece_ND.grad is not None
            gradients.append(piece_ND.grad)
            totals.append(self._statistics(result, rows))
        predictors_ND.backward(torch.cat(gradients))
        return _joined(totals)

    def _statistics(self, result: PolicyLoss, rows: slice) -> Tensor:
        """Those of the loss behind the mean difference to the sampler, to which the largest one is taken as well."""
        weights_N = self.weights_N[rows]
        difference_N = torch.where(weights_N != 0, result.logprobs_N - self.sampler_N[rows], 0.0).abs()
        totals_K = torch.cat([(weights_N * difference_N).sum()[None], result.totals_K]).float()
        totals_K[_MAX_DIFFERENCE] = difference_N.max()
        return totals_K

    def _pieces(self, device: torch.device, vocab_size: int) -> list[slice]:
        """Chunks of rows; with gspo divided between sequences."""
        size = chunk_rows(vocab_size, device)
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
        return send([torch.cat([ends.new_zeros(1), ends - rows.start])], self.tokens_N.device)[0]


def _joined(totals: Sequence[Tensor]) -> Tensor:
    """Combines the statistics of parts: sums are added, maxima maximized."""
    table = torch.stack(list(totals))
    return torch.cat([table[:, :_NUM_SUMS].sum(0), table[:, _NUM_SUMS:].amax(0)])


def mismatch_of(settings: PolicySettings, model: Decoder) -> Mismatch:
    """`settings.mismatch`, with auto resolved for the weights of a model."""
    if settings.mismatch != "auto":
        return settings.mismatch
    return "ratio" if product_dtype(settings.precision, model.embedding.weight).itemsize >= 4 else "importance"


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
    """All updates of a batch: `epochs` passes over its `minibatches` parts.

    The groups of all ranks form one batch, and every rank takes the same steps. Zero-advantage groups are left out
    unless they have a gradient from KL or entropy (`settings.trains_zero_advantage`).

    Args:
        groups: this rank's groups.
        advantages: of these groups, [S] or [S, L].
        done: share of the stage that is done, for the learning-rate schedule.
    Returns:
        The statistics of each update, including the gradient norm; empty if no rank has a gradient.
    """
    history, advantages = [], advantages.cpu()
    if not settings.on_policy and mismatch_of(settings, model) != "ratio":
        groups = _with_trainer_logprobs(model, groups, advantages, settings)
    for _ in range(settings.epochs):
        for number in range(settings.minibatches):
            mine = np.nonzero(groups.position % settings.minibatches == number)[0]
            statistics = _accumulate(model, *_part(groups, advantages, mine), settings, reference)
            if statistics is not None:
                _sum_gradients(model)
                statistics["grad_norm"] = optimizer.step(done)
                history.append(statistics)
    return history


def _with_trainer_logprobs(model: Decoder, groups: Groups, advantages: Tensor, settings: PolicySettings) -> Groups:
    """Before the first update of a batch: log-probabilities of the groups that are trained on."""
    found = groups.logprobs.copy()
    trained = _trained(groups, advantages, settings)
    for which in np.array_split(trained, min(settings.accumulate * settings.minibatches, max(1, len(trained)))):
        if len(which):
            part, part_advantages = _part(groups, advantages, which)
            rows = _Rows.of(part, part_advantages, settings, 1.0, model)
            samples = (which[:, None] * groups.group_size + np.arange(groups.group_size)).flatten()
            own = found[samples]
            own[inside(part)] = rows.logprobs(model).numpy()
            found[samples] = own
    return replace(groups, trainer_logprobs=found)


def _trained(groups: Groups, advantages: Tensor, settings: PolicySettings) -> np.ndarray:
    """int64: the groups that have a gradient."""
    trains = has_loss(groups) if settings.trains_zero_advantage else has_advantage(groups, advantages)
    return np.nonzero(trains)[0]


def _part(groups: Groups, advantages: Tensor, which: np.ndarray) -> tuple[Groups, Tensor]:
    if len(which) == len(groups):
        return groups, advantages
    rows = torch.from_numpy(which)[:, None] * groups.group_size + torch.arange(groups.group_size)
    return groups.take(which), advantages[rows.flatten()]


def _accumulate(
    model: Decoder, groups: Groups, advantages: Tensor, settings: PolicySettings, reference: Decoder | None
) -> dict[str, float] | None:
    """Adds this rank's part of an update to the gradient; returns statistics over all ranks, None without gradient."""
    trained = _trained(groups, advantages, settings)
    counted = np.arange(len(groups)) if settings.count_zero_advantage else trained
    total, num_trained = _over_ranks(_amount(groups.take(counted), settings), float(len(trained)))
    if num_trained == 0:
        return None
    totals = torch.zeros(1 + len(STATISTICS), device=model.embedding.weight.device)
    totals[_NUM_SUMS:] = -math.inf
    with ExitStack() as casts:
        for each in (model,) if reference is None else (model, reference):
            casts.enter_context(cast_once(each, settings.precision))
        for which in np.array_split(trained, min(settings.accumulate, len(trained))) if len(trained) else ():
            part, part_advantages = _part(groups, advantages, which)
            share = _amount(part, settings) / total
            rows = _Rows.of(part, part_advantages, settings, share, model)
            totals = _joined([totals, rows.backward(model, reference)])
    return _statistics_over_ranks(totals.cpu())


def _amount(groups: Groups, settings: PolicySettings) -> float:
    """The size of groups in tokens or samples, whichever normalizes the weights of the loss."""
    return float((groups.lengths if settings.parts.aggregation == "token" else groups.in_loss)[groups.in_loss].sum())


def _over_ranks(*numbers: float) -> list[float]:
    return sum_over_ranks(torch.tensor(numbers, dtype=torch.float64)).tolist()


def _statistics_over_ranks(totals_K: Tensor) -> dict[str, float]:
    sums, extremes = totals_K[:_NUM_SUMS].clone(), totals_K[_NUM_SUMS:].clone()
    if world_size() > 1:
        sum_over_ranks(sums)
        dist.all_reduce(extremes, dist.ReduceOp.MAX)
    totals_K = torch.cat([sums[1:], extremes])
    weight = totals_K[STATISTICS.index("weight")].item()
    mean = sums[_MEAN_DIFFERENCE].item() / (weight or 1.0)
    return PolicyLoss(totals_K[0], totals_K[:0], totals_K).statistics() | {"mean_logprob_difference": mean}


def _sum_gradients(model: Decoder) -> None:
    """Sums the gradients over all ranks with one all-reduce of their concatenation."""
    if world_size() == 1:
        return
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    flat = torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in parameters])
    sum_over_ranks(flat)
    for parameter, grad in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        parameter.grad = grad.view_as(parameter)
