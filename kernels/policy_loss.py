"""The loss of reinforcement learning on sampled tokens, its gradient and statistics, in one pass over the logits.

    loss = sum_n w[n] (importance[n] term[n] + kl_coef KL[n] - entropy_coef H[n])

of log p = log softmax(logits / T), logp[n] = log p[n, token[n]], ratio[n] = exp(logp[n] - old[n]), advantage A, with

    grpo, dr_grpo, dapo   term = -min(ratio A, clip(ratio, 1 - clip_low, 1 + clip_high) A)
                          and at most -clip_dual A where A < 0
    gspo                  the same with the ratio of the sequence, exp(mean (logp - old) over its tokens)
    cispo                 term = -clip(ratio, 1 - clip_low, 1 + clip_high) A logp, no gradient through the ratio
    reinforce             term = -A logp

    H[n] = - sum_v p log p, exact;   KL[n] to a reference, with b = reference[n] - logp[n]:
    k1 -b,   k2 b^2 / 2,   k3 exp(b) - 1 - b;   or exact, sum_v p (log p - log p_reference), of the reference's logits

grpo, dr_grpo and dapo have one term; they differ in what is given: weights of sequences ("sequence"), of a constant
length ("constant", with advantages that are not divided by the standard deviation) or of tokens ("token", with
clip_high > clip_low); see `token_weights`. gspo takes the importance of a sequence like its ratio: the mean over its
tokens, by their weights. It gives every token the gradient of its own advantage, which for equal advantages and weights
within a sequence is that of the sequence.

A token of weight 0 has no part in anything, even if it holds a NaN or an infinity. A term is 0 where advantage or
importance is 0, however large the ratio. The gradient of a clipped term is 0, of an infinite ratio too.

Letters:    N tokens, V vocabulary, S sequences.
Numerics:   policy_loss_triton.py.
Traffic:    floor N V elements read and N V written (2 N V read with reference logits). One pass up to V = 8,192; of a
            token besides at most 28 bytes read, 11 statistics and logp written, and the statistics read again: 118
            bytes counted without importance, 1.013 at V = 2,200 in bf16. As in cross_entropy, the gradient that arrives
            is folded in by a launch that does nothing where it is 1. gspo, float16 and V > 8,192 take two passes (2
            reads, 1 write). Without gradient one read and no write.
Sources:    GRPO: Shao et al. 2024, arXiv:2402.03300. Dr. GRPO: Liu et al. 2025, arXiv:2503.20783. DAPO: Yu et al. 2025,
            arXiv:2503.14476. CISPO: MiniMax-M1 2025, arXiv:2506.13585. GSPO: Zheng et al. 2025, arXiv:2507.18071,
            section 4.3. Dual clip: Ye et al. 2020, arXiv:1912.09729. k1, k2, k3: Schulman 2020, "Approximating KL
            divergence", joschu.net/blog/kl-approx.html.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from . import cpu_kernels
from .logit_rows import scalars
from .policy_loss_autograd import policy_loss_op
from .policy_loss_triton import NUM_SUMS, STATISTICS
from .triton_support import runs_triton

__all__ = ["KLEstimator", "Kind", "PolicyLoss", "policy_loss", "policy_loss_ref"]

Kind = Literal["grpo", "dr_grpo", "dapo", "gspo", "cispo", "reinforce"]
KLEstimator = Literal["k1", "k2", "k3"]
_TERM: Mapping[str, int] = {"grpo": 0, "dr_grpo": 0, "dapo": 0, "gspo": 0, "cispo": 1, "reinforce": 2}
_LARGE = 1e30  # a clip at infinity; finite, so that its product with an advantage of 0 is 0


@dataclass(frozen=True, eq=False)
class PolicyLoss:
    """The loss, and statistics without gradient, means over tokens by their weights.

    Args:
        loss: scalar with gradient.
        logprobs_N: log-probabilities of the tokens, 0 where the weight is 0; no gradient. Given back as old_logprobs_N
            with the same logits, they make every ratio exactly 1.
        totals_K: sums and maxima in the order of STATISTICS.
    """

    loss: Tensor
    logprobs_N: Tensor
    totals_K: Tensor

    def _mean(self, name: str) -> Tensor:
        weight = self.totals_K[STATISTICS.index("weight")]
        return self.totals_K[STATISTICS.index(name)] / torch.where(weight == 0, 1.0, weight)

    @property
    def entropy(self) -> Tensor:
        """Mean entropy of the tempered distribution, in nats."""
        return self._mean("entropy")

    @property
    def kl(self) -> Tensor:
        """Mean KL to the reference model as in the loss; 0 without a reference."""
        return self._mean("kl")

    @property
    def clip_low_share(self) -> Tensor:
        """Share of tokens whose ratio was clipped from below: a gradient cut (grpo, gspo) or a coefficient raised."""
        return self._mean("clip_low")

    @property
    def clip_high_share(self) -> Tensor:
        """Share of tokens whose ratio was clipped from above."""
        return self._mean("clip_high")

    @property
    def clip_dual_share(self) -> Tensor:
        """Share of tokens of negative advantage whose ratio passed clip_dual."""
        return self._mean("clip_dual")

    @property
    def clip_share(self) -> Tensor:
        """Share of tokens clipped from below or above."""
        return self.clip_low_share + self.clip_high_share

    @property
    def ratio_mean(self) -> Tensor:
        """Mean ratio (of the sequence in gspo)."""
        return self._mean("ratio")

    @property
    def ratio_min(self) -> Tensor:
        """Smallest ratio of a token that counts."""
        return -self.totals_K[STATISTICS.index("max_negative_ratio")]

    @property
    def ratio_max(self) -> Tensor:
        """Largest ratio of a token that counts."""
        return self.totals_K[STATISTICS.index("max_ratio")]

    @property
    def max_logprob_difference(self) -> Tensor:
        """Largest |logp - old| of a token that counts."""
        return self.totals_K[STATISTICS.index("max_logprob_difference")]

    def statistics(self) -> dict[str, float]:
        """All of them by name, with one copy from the device."""
        on_cpu = PolicyLoss(self.loss.detach(), self.logprobs_N, self.totals_K.cpu())
        names = (
            "entropy", "kl", "clip_low_share", "clip_high_share", "clip_dual_share", "ratio_mean", "ratio_min",
            "ratio_max", "max_logprob_difference",
        )  # fmt: skip
        loss = on_cpu.totals_K[STATISTICS.index("loss")].item()
        return {"loss": loss} | {name: getattr(on_cpu, name).item() for name in names}


def policy_loss(
    logits_NV: Tensor,
    tokens_N: Tensor,
    advantages_N: Tensor,
    weights_N: Tensor | None = None,
    *,
    old_logprobs_N: Tensor | None = None,
    importance_N: Tensor | None = None,
    reference_logprobs_N: Tensor | None = None,
    reference_logits_NV: Tensor | None = None,
    sequence_offsets_S: Tensor | None = None,
    kind: Kind = "grpo",
    temperature: float = 1.0,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    clip_dual: float = math.inf,
    kl: KLEstimator = "k3",
    kl_coef: float = 0.0,
    entropy_coef: float = 0.0,
) -> PolicyLoss:
    """The policy loss of N sampled tokens, as in the module docstring. Changing a numeric setting never recompiles.

    Args:
        logits_NV: floating point, of the policy, before the temperature.
        tokens_N: int64 in [0, V), the sampled tokens. Any other value makes the loss infinite on CUDA and is an
            IndexError on CPU.
        advantages_N: float, per token.
        weights_N: float >= 0, weights normalized by the caller (`token_weights`); None: 1 / N. A token with weight 0
            has gradient 0, whatever its logits and the other arguments hold; kernels do not read its logits.
        old_logprobs_N: float, recorded during sampling at the same temperature; None: on-policy, every ratio is 1.
        importance_N: float, factors of the terms (not of KL and entropy), such as a truncated ratio of the trained
            to the sampling engine. gspo: a factor of the sequence, the mean over its tokens by their weights.
        reference_logprobs_N: float, for the KL estimators, at the same temperature.
        reference_logits_NV: dtype and shape of logits, for the exact KL; -inf only where logits are -inf too.
        sequence_offsets_S: int64 [S + 1], for gspo: sequence s is rows offsets[s] .. offsets[s + 1] - 1.
        kind: the term.
        temperature: > 0.
        clip_low, clip_high: >= 0; the ratio is clipped to 1 - clip_low .. 1 + clip_high.
        clip_dual: > 1; the ratio above which negative advantages have no gradient.
        kl: the estimator used with reference log-probabilities.
        kl_coef, entropy_coef: weights of KL and entropy in the loss.
    Raises:
        ValueError: arguments do not match, or a setting is out of range.
        RuntimeError: a second backward through a loss that was computed in one pass.
    """
    vectors = {
        "advantages": advantages_N,
        "weights": weights_N,
        "old_logprobs": old_logprobs_N,
        "importance": importance_N,
        "reference_logprobs": reference_logprobs_N,
    }
    _check_tensors(logits_NV, tokens_N, vectors, reference_logits_NV, sequence_offsets_S, kind)
    _check_settings(kind, temperature, clip_low, clip_high, clip_dual, kl)
    references = () if reference_logits_NV is None else (reference_logits_NV,)
    on_cpu = cpu_kernels.suits(logits_NV, *references, dtypes=cpu_kernels.FLOAT32_OR_BFLOAT16)
    if not on_cpu and not runs_triton(logits_NV):
        return policy_loss_ref(
            logits_NV, tokens_N, advantages_N, weights_N, old_logprobs_N=old_logprobs_N, importance_N=importance_N,
            reference_logprobs_N=reference_logprobs_N, reference_logits_NV=reference_logits_NV,
            sequence_offsets_S=sequence_offsets_S, kind=kind, temperature=temperature, clip_low=clip_low,
            clip_high=clip_high, clip_dual=clip_dual, kl=kl, kl_coef=kl_coef, entropy_coef=entropy_coef,
        )  # fmt: skip
    advantages, weights, old, importance, reference = (
        None if x is None else x.detach().float().contiguous() for x in vectors.values()
    )
    if weights is None:
        weights = torch.full(tokens_N.shape, 1.0 / tokens_N.shape[0], device=logits_NV.device)
    reference_logits = None if reference_logits_NV is None else reference_logits_NV.detach()
    has_reference = reference is not None or reference_logits is not None
    numbers = (
        temperature, clip_low, clip_high, min(clip_dual, _LARGE), kl_coef if has_reference else 0.0, entropy_coef
    )  # fmt: skip
    if on_cpu:
        assert advantages is not None
        given, numbers = (weights, advantages, old, importance, reference), (1.0 / temperature, *numbers[1:])
        return _policy_loss_cpu(
            logits_NV, reference_logits, tokens_N, given, sequence_offsets_S, numbers, _TERM[kind], int(kl[1])
        )  # fmt: skip
    loss, totals, logprobs, _, _ = policy_loss_op(
        logits_NV, reference_logits, tokens_N.contiguous(), weights, old, advantages, importance, reference,
        sequence_offsets_S, scalars(*numbers), _TERM[kind], int(kl[1]),
        torch.is_grad_enabled() and logits_NV.requires_grad,
    )  # fmt: skip
    return PolicyLoss(loss, logprobs, totals)


def _policy_loss_cpu(
    logits: Tensor,
    reference_logits: Tensor | None,
    tokens: Tensor,
    vectors: tuple[Tensor, Tensor, Tensor | None, Tensor | None, Tensor | None],
    offsets: Tensor | None,
    numbers: tuple[float, ...],
    term: int,
    estimator: int,
) -> PolicyLoss:
    """One pass; for the ratio of sequences another one before it, which finds the log-probabilities."""
    weights, advantages, old, importance, reference = vectors
    log_ratio = None
    if offsets is not None and old is not None:
        _, _, logprobs = cpu_kernels.policy_loss(
            logits.detach(), None, tokens, (*vectors, None), numbers, term, estimator
        )  # fmt: skip
        counts = weights != 0
        log_ratio = _sequence_means(torch.where(counts, logprobs - old, 0.0), counts.float(), offsets)
    if offsets is not None and importance is not None:
        importance = _sequence_means(torch.where(weights != 0, importance, 0.0), weights, offsets)
    vectors = (weights, advantages, old, importance, reference)
    loss, totals, logprobs = cpu_kernels.policy_loss(
        logits, reference_logits, tokens, (*vectors, log_ratio), numbers, term, estimator
    )  # fmt: skip
    return PolicyLoss(loss, logprobs, totals)


def policy_loss_ref(
    logits_NV: Tensor,
    tokens_N: Tensor,
    advantages_N: Tensor,
    weights_N: Tensor | None = None,
    *,
    old_logprobs_N: Tensor | None = None,
    importance_N: Tensor | None = None,
    reference_logprobs_N: Tensor | None = None,
    reference_logits_NV: Tensor | None = None,
    sequence_offsets_S: Tensor | None = None,
    kind: Kind = "grpo",
    temperature: float = 1.0,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    clip_dual: float = math.inf,
    kl: KLEstimator = "k3",
    kl_coef: float = 0.0,
    entropy_coef: float = 0.0,
) -> PolicyLoss:
    """The definition, which the tests compare against in float64; CPU runs it where cpu_kernels does not suit.

    Arguments as for `policy_loss`.
    """
    wide = torch.promote_types(logits_NV.dtype, torch.float32)
    advantages, old, importance, reference = (
        None if x is None else x.detach().to(wide)
        for x in (advantages_N, old_logprobs_N, importance_N, reference_logprobs_N)
    )
    assert advantages is not None
    counts = None
    if weights_N is None:
        weights = torch.full_like(advantages, 1.0 / len(tokens_N))
    else:
        weights, counts = weights_N.detach().to(wide), weights_N != 0
        # what a token of weight 0 holds is replaced, because 0 times a NaN is not 0
        tokens_N = torch.where(counts, tokens_N, 0)
        advantages, old, importance, reference = (
            None if x is None else torch.where(counts, x, 0.0) for x in (advantages, old, importance, reference)
        )
        assert advantages is not None
    logprobs_NV = _log_softmax(logits_NV, counts, temperature, wide)
    logprobs_N = logprobs_NV.gather(1, tokens_N[:, None]).squeeze(1)
    if counts is not None and old is not None:
        old = torch.where(counts, old, logprobs_N.detach())

    difference = logprobs_N - (logprobs_N.detach() if old is None else old)
    log_ratio = difference
    if sequence_offsets_S is not None:
        means = _sequence_means(difference.detach(), (weights != 0).to(wide), sequence_offsets_S)
        log_ratio = means + logprobs_N - logprobs_N.detach()
        if importance is not None:
            importance = _sequence_means(importance, weights, sequence_offsets_S)
    if importance is not None:
        advantages = torch.where(importance == 0, 0.0, advantages)
    settings = (_TERM[kind], clip_low, clip_high, min(clip_dual, _LARGE))
    term, clipped = _policy_term(logprobs_N, log_ratio, advantages, *settings)
    if importance is not None:
        term = importance * term

    # statistics alone cost no gradient
    entropy = _entropy(logprobs_NV if entropy_coef != 0 else logprobs_NV.detach())
    divergence = torch.zeros_like(weights)
    if reference is not None:
        divergence = _kl_estimate(reference - (logprobs_N if kl_coef != 0 else logprobs_N.detach()), kl)
    elif reference_logits_NV is not None:
        policy_NV = logprobs_NV if kl_coef != 0 else logprobs_NV.detach()
        divergence = _exact_kl(policy_NV, _log_softmax(reference_logits_NV.detach(), counts, temperature, wide))
    token_loss = term
    if kl_coef != 0:
        token_loss = token_loss + kl_coef * divergence
    if entropy_coef != 0:
        token_loss = token_loss - entropy_coef * entropy
    loss = (weights * token_loss).sum()

    with torch.no_grad():
        ratio = log_ratio.exp()
        sums = [token_loss, entropy, divergence, *clipped, ratio, torch.ones_like(ratio)]
        totals = [(weights * x).sum() for x in sums]
        for x in (ratio, -ratio, difference.abs()):
            totals.append((x if counts is None else torch.where(counts, x, -math.inf)).max())
        assert len(sums) == NUM_SUMS
        logprobs = logprobs_N.detach() if counts is None else torch.where(counts, logprobs_N, 0.0)
        return PolicyLoss(loss, logprobs, torch.stack(totals))


def _log_softmax(logits_NV: Tensor, counts_N: Tensor | None, temperature: float, dtype: torch.dtype) -> Tensor:
    """Of the rows that count; the others are as if their logits were all 0, and get no gradient."""
    logits = logits_NV.to(dtype)
    if counts_N is not None:
        logits = torch.where(counts_N[:, None], logits, 0.0)
    return (logits if temperature == 1.0 else logits / temperature).log_softmax(-1)


def _policy_term(
    logprobs: Tensor, log_ratio: Tensor, advantages: Tensor, term: int, low: float, high: float, dual: float
) -> tuple[Tensor, list[Tensor]]:
    """Terms before importance weights, and which tokens are clipped: from below, from above, by the dual clip.

    A ratio that a term does not depend on is kept out of its graph: the derivative of an infinite one is infinite, and
    0 times that is not 0.
    """
    ratio = log_ratio.detach().exp()
    bounded = ratio.clamp(1.0 - low, 1.0 + high)
    is_low, is_high, is_dual = ratio < 1.0 - low, ratio > 1.0 + high, ratio > dual
    none = advantages == 0
    if term != _TERM["grpo"]:
        if term == _TERM["reinforce"]:
            factor, clipped = advantages, [torch.zeros_like(none)] * 3
        else:
            factor = torch.where(none, 0.0, bounded * advantages)
            clipped = [is_low, is_high, torch.zeros_like(none)]
        return -factor * torch.where(none, 0.0, logprobs), clipped
    clipped = [is_low & (advantages < 0), is_high & (advantages > 0), is_dual & (advantages < 0)]
    constant = torch.where(clipped[2], dual, bounded) * advantages
    held = clipped[0] | clipped[1] | clipped[2]
    moving = torch.where(held | none, 0.0, log_ratio).exp() * advantages
    return -torch.where(held, constant, moving), clipped


def _entropy(logprobs_NV: Tensor) -> Tensor:
    if not logprobs_NV.requires_grad:  # a third of the time on CPU; 0 * -inf of a forbidden token counts 0
        return -logprobs_NV.exp().mul_(logprobs_NV).nansum(-1)
    # for a gradient too, its logarithm is made finite
    finite = logprobs_NV.clamp(min=torch.finfo(logprobs_NV.dtype).min)
    return -(finite.exp() * finite).sum(-1)


def _kl_estimate(b: Tensor, estimator: str) -> Tensor:
    if estimator == "k1":
        return -b
    if estimator == "k2":
        return 0.5 * b.square()
    return b.expm1() - b


def _exact_kl(logprobs_NV: Tensor, reference_NV: Tensor) -> Tensor:
    lowest = torch.finfo(logprobs_NV.dtype).min
    return (logprobs_NV.exp() * (logprobs_NV.clamp(min=lowest) - reference_NV.clamp(min=lowest))).sum(-1)


def _sequence_means(x_N: Tensor, weights_N: Tensor, offsets_S: Tensor) -> Tensor:
    """Weighted mean over the tokens of each sequence, at every one of its rows; 0 where no token has weight."""
    lengths = offsets_S.diff()
    sequence_N = torch.arange(len(lengths), device=x_N.device).repeat_interleave(lengths, output_size=len(x_N))
    zeros = x_N.new_zeros(len(lengths))
    total = zeros.index_add(0, sequence_N, weights_N * x_N)
    weight = zeros.index_add(0, sequence_N, weights_N)
    return (total / torch.where(weight == 0, 1.0, weight))[sequence_N]


def _check_tensors(
    logits: Tensor,
    tokens: Tensor,
    vectors: Mapping[str, Tensor | None],
    reference_logits: Tensor | None,
    offsets: Tensor | None,
    kind: str,
) -> None:
    if logits.ndim != 2 or min(logits.shape) < 1 or tokens.shape != logits.shape[:1]:
        raise ValueError(
            f"policy_loss: need logits [N, V] and tokens [N] with N and V >= 1, "
            f"got {tuple(logits.shape)} and {tuple(tokens.shape)}"
        )
    if not logits.is_floating_point() or tokens.dtype != torch.int64:
        raise ValueError(
            f"policy_loss: logits must be floating point and tokens int64, got {logits.dtype} and {tokens.dtype}"
        )
    for name, x in vectors.items():
        if x is not None and (x.shape != tokens.shape or not x.is_floating_point()):
            raise ValueError(
                f"policy_loss: {name} must be floating point [N] = {tuple(tokens.shape)}, "
                f"got {x.dtype} {tuple(x.shape)}"
            )  # fmt: skip
    others = [tokens, reference_logits, offsets, *vectors.values()]
    if any(x is not None and x.device != logits.device for x in others):
        raise ValueError(f"policy_loss: all tensors must be on the device of the logits, {logits.device}")
    if reference_logits is not None:
        if vectors["reference_logprobs"] is not None:
            raise ValueError(
                "policy_loss: reference logits (exact KL) and reference log-probabilities are mutually exclusive"
            )
        if reference_logits.shape != logits.shape or reference_logits.dtype != logits.dtype:
            raise ValueError(
                f"policy_loss: reference logits must be like the logits, {logits.dtype} {tuple(logits.shape)}, "
                f"got {reference_logits.dtype} {tuple(reference_logits.shape)}"
            )
    if (kind == "gspo") != (offsets is not None):
        raise ValueError("policy_loss: sequence offsets must be given with kind 'gspo' and only with it")
    if offsets is not None and (offsets.ndim != 1 or len(offsets) < 2 or offsets.dtype != torch.int64):
        raise ValueError(
            f"policy_loss: sequence offsets must be int64 [S + 1], got {offsets.dtype} {tuple(offsets.shape)}"
        )  # fmt: skip


def _check_settings(
    kind: str, temperature: float, clip_low: float, clip_high: float, clip_dual: float, kl: str
) -> None:  # fmt: skip
    if kind not in get_args(Kind):
        raise ValueError(f"policy_loss: kind must be one of {', '.join(get_args(Kind))}, got {kind!r}")
    if kl not in get_args(KLEstimator):
        raise ValueError(f"policy_loss: kl must be one of {', '.join(get_args(KLEstimator))}, got {kl!r}")
    if not temperature > 0 or not clip_low >= 0 or not clip_high >= 0 or not clip_dual > 1:
        raise ValueError(
            f"policy_loss: need temperature > 0, clip_low >= 0, clip_high >= 0 and clip_dual > 1, "
            f"got {temperature}, {clip_low}, {clip_high} and {clip_dual}"
        )
