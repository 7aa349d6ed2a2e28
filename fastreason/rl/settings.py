"""The settings of reinforcement learning, and the definition of each named loss.

A loss consists of a term (kernels/policy_loss.py), the baseline and scale of advantages, the weighting of tokens, and a
clip range. `LOSSES` defines the named ones; a setting of the same name as a part replaces it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from ..grading.erring_verifier import VerifierErrors
from ..grading.rewards import REWARDS, reward_names
from ..kernels.policy_loss import Kind
from ..model.precision import Precision
from ..runtime.field_docs import explain_fields
from ..runtime.ranges import COUNT, POSITIVE, SECONDS_BETWEEN, SHARE, TEMPERATURE, Range, check_settings
from ..tasks.mixture import Mixture
from ..training.budget import Budget
from ..training.optimizer import OptimSettings
from .edge_curriculum import BanditSettings

Baseline = Literal["group", "leave_one_out", "batch", "none"]
Scale = Literal["std", "batch", "none"]
Aggregation = Literal["token", "sequence", "constant"]
Credit = Literal["step", "return"]
Truncated = Literal["zero", "mask", "keep"]
Mismatch = Literal["auto", "ratio", "importance", "ignore"]
LossName = Literal["grpo", "dr_grpo", "dapo", "gspo", "cispo", "rloo", "reinforce_plus_plus", "reinforce"]


@dataclass(frozen=True)
class Loss:
    """The parts of a loss, under the names of the settings that replace them."""

    kind: Kind
    baseline: Baseline
    advantage_scale: Scale
    aggregation: Aggregation
    clip_low: float = 0.2
    clip_high: float = 0.2
    max_draws: int = 1


LOSSES: Mapping[str, Loss] = {
    "grpo": Loss("grpo", "group", "std", "token"),
    "dr_grpo": Loss("dr_grpo", "group", "none", "constant"),
    "dapo": Loss("dapo", "group", "std", "token", clip_high=0.28, max_draws=10),
    "gspo": Loss("gspo", "group", "std", "sequence", clip_low=3e-4, clip_high=4e-4),
    "cispo": Loss("cispo", "group", "std", "token", clip_low=1.0, clip_high=4.0),
    "rloo": Loss("reinforce", "leave_one_out", "none", "constant"),
    "reinforce_plus_plus": Loss("grpo", "batch", "batch", "token"),
    "reinforce": Loss("reinforce", "batch", "none", "constant"),
}

_T = TypeVar("_T")


@explain_fields
@dataclass(frozen=True)
class PolicySettings:
    """Settings of a reinforcement-learning stage."""

    __pydantic_config__ = {"extra": "forbid"}

    mixture: list[dict[str, Any]]
    """Parts of the `Mixture` of prompts, which are drawn from split `rl`."""
    curriculum: str = "fixed"
    """Source of prompts: fixed, the mixture in order; edge, mostly cells that are neither mastered nor out of reach; or
    another name in `fastreason.rl.prompts.CURRICULA`."""
    edge: BanditSettings = field(default_factory=BanditSettings)
    """Settings of curriculum edge."""
    steps: int | None = None
    """Number of steps, each one batch; 200 if `budget` is not given either."""
    budget: str | None = None
    """Length of the stage in another unit, instead of `steps`, for example "1e15 flop", "1e8 tokens" or "600
    seconds"."""
    prompts: int = 32
    """Prompts per step."""
    samples: int = 16
    """Samples per prompt (the group size)."""
    reward: str = "strict"
    """The reward: outcome, blended, strict or steps (see docs/reinforcement.md), one that an installed package adds, or
    "module:function"."""
    outcome_weight: float | None = None
    """Weight of the answer in reward blended; default 0.2."""
    verifier: VerifierErrors = field(default_factory=VerifierErrors)
    """Errors of the verifier that pays the reward; by default none. Metrics show the true verdicts beside it."""
    truncated: Truncated = "zero"
    """What a sample that reaches its length limit earns: at most 0 ("zero"), nothing because it is left out of the loss
    ("mask"), or its reward unchanged ("keep")."""
    credit: Credit | None = None
    """For step or token rewards, which of them a token is credited with: all later ones ("return", the default) or only
    the next one ("step"), under which small models soon learn to write one safe step and stop."""
    loss: LossName = "grpo"
    """The loss, see docs/reinforcement.md. Settings marked * override a part of it."""
    baseline: Baseline | None = None
    """* The mean that is subtracted from a reward: over its group, the other samples of it, the batch, or none."""
    advantage_scale: Scale | None = None
    """* What advantages are divided by: the standard deviation of their group (GRPO), of the batch, or nothing."""
    aggregation: Aggregation | None = None
    """* Weighting of tokens: all tokens equal, all sequences equal, or a sum divided by a constant length."""
    clip_low: float | None = None
    """* Lower clip: the ratio is clipped at 1 - clip_low."""
    clip_high: float | None = None
    """* Upper clip: the ratio is clipped at 1 + clip_high."""
    clip_dual: float | None = None
    """Dual clip: the ratio above which negative advantages have no gradient; > 1, for example 3."""
    max_draws: int | None = None
    """* Dynamic sampling (DAPO): draw `prompts` prompts up to this often, until as many groups have non-zero
    advantage."""
    count_zero_advantage: bool = False
    """Whether zero-advantage groups count in the mean of the loss and take part in KL and entropy."""
    kl_coef: float = 0.0
    """Weight in the loss of the KL to the reference model, the one the stage started from."""
    kl: Literal["k1", "k2", "k3", "exact"] = "k3"
    """Estimator of that KL, or "exact" over the whole vocabulary."""
    entropy_coef: float = 0.0
    """Weight of the entropy bonus in the loss."""
    epochs: int = 1
    """Passes over each batch."""
    minibatches: int = 1
    """Updates per epoch, each on its share of the groups."""
    accumulate: int = 1
    """Number of parts in which an update is computed, to save memory; the update is the same."""
    checkpoint_activations: bool = False
    """Whether blocks compute their activations again in the backward pass, to save memory; the update is the same."""
    precision: Precision = "auto"
    """Dtype of matrix products in sampling and training; weights, gradients, log-probabilities and updates stay
    float32. auto: bfloat16 on a GPU, else float32."""
    mismatch: Mismatch = "auto"
    """What corrects for the difference between the sampler's and the trainer's log-probabilities of a token: the ratio
    and its clip, because the sampler's are the old ones ("ratio"); an importance weight of at most 2, with the
    trainer's own as the old ones ("importance"); or nothing ("ignore"). auto: ratio in float32, importance in
    bfloat16."""
    temperature: float = 1.0
    """Temperature of sampling and of the trained distribution."""
    max_new_tokens: int = 128
    """Maximum number of new tokens per sample."""
    kv_memory_mb: float | None = None
    """Memory for keys and values in sampling, in MB of 10^6 bytes; default: 2048 on CPU, nine tenths of the free on a
    GPU. It decides how many samples are drawn together, and changes none of them."""
    optim: OptimSettings = field(
        default_factory=lambda: OptimSettings(matrices="adamw", matrix_lr=5e-4, lr=5e-4, schedule="constant")
    )
    """Optimizer and schedule."""
    save_every_s: float = 30.0
    """Seconds between checkpoints."""
    keep: int = 1
    """Number of newest checkpoints to keep."""

    def __post_init__(self) -> None:
        check_settings("rl", self, _RANGES)
        if self.steps is not None and self.budget is not None:
            raise ValueError(f"rl: steps and budget exclude each other, got {self.steps} and {self.budget!r}")
        self.limit  # noqa: B018 - a budget that cannot be read is an error here
        self._check_reward()
        self._check_effect()

    def _check_reward(self) -> None:
        known = self.reward in REWARDS or re.fullmatch(r"[\w.]+:[\w.]+", self.reward)
        if not known and self.reward not in reward_names():
            raise ValueError(
                f'rl: reward must be one of {", ".join(reward_names())} or "module:function", got {self.reward!r}'
            )  # fmt: skip
        if self.outcome_weight is not None and self.reward != "blended":
            raise ValueError(f"rl: outcome_weight has no effect with reward {self.reward!r}, only with 'blended'")
        if self.verifier.every > 1 and self.reward == "outcome":
            raise ValueError("rl: verifier.every has no effect with reward 'outcome', which checks no steps")

    def _check_effect(self) -> None:
        """Settings without effect are errors."""
        if self.curriculum != "edge" and self.edge != BanditSettings():
            raise ValueError(f"rl: edge has no effect with curriculum {self.curriculum!r}")
        if self.kl != "k3" and not self.kl_coef:
            raise ValueError(f"rl: kl has no effect without kl_coef; leave it at 'k3' or set kl_coef, got {self.kl!r}")
        kind = self.parts.kind
        if kind == "reinforce":
            for name in ("clip_low", "clip_high"):
                if getattr(self, name) is not None:
                    raise ValueError(f"rl: {name} has no effect with loss {self.loss!r}, which has no ratio")
        if self.clip_dual is not None and kind in ("reinforce", "cispo"):
            raise ValueError(f"rl: clip_dual has no effect with loss {self.loss!r}")
        if self.minibatches > self.prompts:
            raise ValueError(f"rl: minibatches must be at most prompts = {self.prompts}, got {self.minibatches}")

    @property
    def parts(self) -> Loss:
        """The loss, with parts overridden by settings."""

        def part(name: str, own: _T) -> _T:
            return own if getattr(self, name) is None else getattr(self, name)

        loss = LOSSES[self.loss]
        return Loss(
            loss.kind,
            part("baseline", loss.baseline),
            part("advantage_scale", loss.advantage_scale),
            part("aggregation", loss.aggregation),
            part("clip_low", loss.clip_low),
            part("clip_high", loss.clip_high),
            part("max_draws", loss.max_draws),
        )

    @property
    def mixtures(self) -> list[Mixture]:
        """The mixture of prompts."""
        return [Mixture.from_dict(self.mixture)]

    @property
    def on_policy(self) -> bool:
        """Whether each batch is used for a single update, so that the policy being trained is the one that sampled."""
        return self.epochs == self.minibatches == 1

    @property
    def trains_zero_advantage(self) -> bool:
        """Whether zero-advantage groups have a gradient, from KL or entropy."""
        return self.count_zero_advantage and (self.kl_coef != 0 or self.entropy_coef != 0)

    @property
    def limit(self) -> Budget:
        """The length of the stage as a budget; steps are converted to samples, with one draw per step."""
        if self.budget is not None:
            return Budget.parse(self.budget)
        return Budget(samples=(self.steps or 200) * self.prompts * self.samples)

    @property
    def unit(self) -> str:
        """The unit of the length of the stage."""
        return self.limit.unit if self.budget is not None else "step"

    @property
    def length(self) -> float:
        """The length of the stage in `unit`."""
        return self.limit.amount if self.budget is not None else float(self.steps or 200)

    def used(self, progress: Mapping[str, Any]) -> float:
        """How much of `length` is used up according to the counters; a token budget includes prompts."""
        return float(progress["total_tokens" if self.unit == "tokens" else self.unit])

    def share_done(self, progress: Mapping[str, Any]) -> float:
        """Share of the stage that is done, 1 or more at its end."""
        return self.used(progress) / self.length


_RANGES: Mapping[str, Range] = {
    **dict.fromkeys(
        ("steps", "prompts", "max_new_tokens", "keep", "max_draws", "epochs", "minibatches", "accumulate"), COUNT
    ),
    "samples": Range(2, whole=True), "outcome_weight": SHARE, "temperature": TEMPERATURE,
    "clip_low": Range(0, infinite=True), "clip_high": Range(0, infinite=True),
    "kv_memory_mb": POSITIVE, "clip_dual": Range(1, open_low=True), "kl_coef": Range(0), "entropy_coef": Range(0),
    "save_every_s": SECONDS_BETWEEN,
}  # fmt: skip
