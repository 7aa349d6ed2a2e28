"""Settings of pre-training and mid-training stages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ..model.precision import Precision
from ..runtime.field_docs import explain_fields
from ..runtime.ranges import COUNT, COUNT_OR_ZERO, SECONDS_BETWEEN, Range, check_settings
from ..tasks.mixture import Mixture
from .budget import Budget
from .optimizer import OptimSettings
from .parallel import Parallel


@explain_fields
@dataclass(frozen=True)
class Phase:
    """A part of a supervised stage with its own mixture."""

    __pydantic_config__ = {"extra": "forbid"}

    until: float
    """Share of the stage's tokens at which the phase ends; the last phase ends at 1."""
    mixture: list[dict[str, Any]]
    """Parts of a `Mixture`, as for `Mixture.from_dict`."""

    def __post_init__(self) -> None:
        check_settings("phase", self, {"until": Range(0, 1, open_low=True)})


@explain_fields
@dataclass(frozen=True)
class SupervisedSettings:
    """Settings of a pre-training or mid-training stage."""

    __pydantic_config__ = {"extra": "forbid"}

    phases: list[Phase]
    """The training data: consecutive phases with a mixture each."""
    tokens: int | None = None
    """Length of the stage in training tokens, prompts included; 10 million if `budget` is not given either."""
    budget: str | None = None
    """Length of the stage in another unit, instead of `tokens`: "1e15 flop", "600 seconds" or "20000 samples"."""
    batch_tokens: int = 3072
    """Tokens per step, over all ranks."""
    rows: int | None = None
    """Packed rows per step, each of batch_tokens / rows tokens; the rows are the same for any number of ranks that
    divides them. Default: the number of ranks when the stage begins."""
    parallel: Parallel = "ddp"
    """How several ranks train: full weights on each (ddp), or a shard of them (fsdp)."""
    precision: Precision = "auto"
    """Dtype of matrix products; weights, gradients and updates stay float32. auto: bfloat16 on a GPU, else float32."""
    prefetch: int = 2
    """Steps drawn ahead by a thread; 0 draws them on demand. Does not affect results."""
    accumulate: int = 1
    """Number of parts in which a step is computed, to save memory; the update is the same."""
    checkpoint_activations: bool = False
    """Whether blocks compute their activations again in the backward pass, to save memory; the update is the same."""
    loss_on: Literal["solution", "all"] = "solution"
    """Which tokens have a loss: those of the solution, or all."""
    optim: OptimSettings = field(default_factory=OptimSettings)
    """Optimizer and schedule."""
    save_every_s: float = 30.0
    """Seconds between checkpoints."""
    keep: int = 1
    """Number of newest checkpoints to keep."""
    validate_every: int = 0
    """Steps between validations on split `val`, always on the same problems; 0: never. Keeps the best checkpoint
    too."""
    validation_tokens: int = 16_384
    """Tokens per validation, from the last phase's mixture."""

    def __post_init__(self) -> None:
        check_settings("supervised", self, _RANGES)
        if self.tokens is not None and self.budget is not None:
            raise ValueError(f"supervised: tokens and budget exclude each other, got {self.tokens} and {self.budget!r}")
        if self.rows is not None and not 1 <= self.rows <= self.batch_tokens // 64:
            raise ValueError(
                f"supervised: rows must be in 1 .. batch_tokens / 64 = {self.batch_tokens // 64}, got {self.rows}"
            )
        self.limit  # noqa: B018 - a budget that cannot be read is an error here
        bounds = [phase.until for phase in self.phases]
        rising = all(a < b for a, b in zip([0.0, *bounds], bounds, strict=False))
        if not bounds or not rising or bounds[-1] != 1.0:
            raise ValueError(f"supervised: phases must end at increasing shares, the last at 1.0, got {bounds}")

    @property
    def limit(self) -> Budget:
        """The length of the stage as a budget."""
        return Budget.parse(self.budget) if self.budget is not None else Budget(tokens=self.tokens or 10_000_000)

    @property
    def mixtures(self) -> list[Mixture]:
        """The mixture of each phase."""
        return [Mixture.from_dict(phase.mixture) for phase in self.phases]


_RANGES: Mapping[str, Range] = {
    "tokens": COUNT, "batch_tokens": Range(64, whole=True), "rows": COUNT, "prefetch": COUNT_OR_ZERO,
    "accumulate": COUNT, "save_every_s": SECONDS_BETWEEN, "keep": COUNT, "validate_every": COUNT_OR_ZERO,
    "validation_tokens": Range(64, whole=True),
}  # fmt: skip
