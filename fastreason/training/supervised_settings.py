"""The settings of a pre-training or mid-training stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ..runtime.field_docs import explain_fields
from ..runtime.ranges import COUNT, COUNT_OR_ZERO, SECONDS_BETWEEN, Range, check_ranges
from ..tasks.mixture import Mixture
from .budget import Budget
from .optimizer import OptimSettings
from .parallel import Parallel


@explain_fields
@dataclass(frozen=True)
class Phase:
    """A part of a stage with a mixture of its own."""

    __pydantic_config__ = {"extra": "forbid"}

    until: float
    """Share of the stage's tokens at which the phase ends; the last phase ends at 1."""
    mixture: list[dict[str, Any]]
    """Parts of a `Mixture`, as for `Mixture.from_dict`."""


@explain_fields
@dataclass(frozen=True)
class SupervisedSettings:
    """A pre-training or mid-training stage."""

    __pydantic_config__ = {"extra": "forbid"}

    phases: list[Phase]
    """What is trained on, one phase after the other."""
    tokens: int | None = None
    """Length of the stage: training tokens, prompts included. 10 million if `budget` is not given either."""
    budget: str | None = None
    """Length of the stage in another unit, instead of `tokens`: "1e15 flop", "600 seconds" or "20000 samples"."""
    batch_tokens: int = 3072
    """Tokens of a step, of all ranks together."""
    rows: int | None = None
    """Packed rows of a step, each of batch_tokens / rows tokens; any number of ranks that divides them trains on the
    same rows. Default: as many as ranks take part when the stage begins."""
    parallel: Parallel = "ddp"
    """How several ranks share the work: whole weights on each (ddp), or a part of them (fsdp)."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """What products are computed in; weights, gradients and updates stay float32. auto: bfloat16 on a GPU."""
    prefetch: int = 2
    """Steps that a thread draws ahead; 0: they are drawn when needed. It changes no result."""
    accumulate: int = 1
    """Parts of a step that go through the model one after the other, which saves memory; the update is the same."""
    loss_on: Literal["solution", "all"] = "solution"
    """Which tokens have a loss."""
    optim: OptimSettings = field(default_factory=OptimSettings)
    """Optimizer and schedule."""
    save_every_s: float = 30.0
    """Seconds between checkpoints."""
    keep: int = 1
    """Newest checkpoints that stay."""
    validate_every: int = 0
    """Steps between two losses on the split `val`, the same problems each time; 0: never. The best is kept apart."""
    validation_tokens: int = 16_384
    """Tokens of a validation, of the last phase's mixture."""

    def __post_init__(self) -> None:
        if self.tokens is not None and self.budget is not None:
            raise ValueError(f"supervised: give tokens or budget, not both, got {self.tokens} and {self.budget!r}")
        check_ranges("supervised", self, _RANGES)
        if self.rows is not None and not 1 <= self.rows <= self.batch_tokens // 64:
            raise ValueError(
                f"supervised: rows must be in 1 .. batch_tokens / 64 = {self.batch_tokens // 64}, got {self.rows}"
            )
        self.limit  # noqa: B018 - a budget that cannot be read is an error here
        bounds = [phase.until for phase in self.phases]
        rising = all(a < b for a, b in zip([0.0, *bounds], bounds, strict=False))
        if not bounds or not rising or bounds[-1] != 1.0:
            raise ValueError(f"supervised: phases must end at rising shares, the last at 1.0, got {bounds}")

    @property
    def limit(self) -> Budget:
        """When the stage ends."""
        return Budget.parse(self.budget) if self.budget is not None else Budget(tokens=self.tokens or 10_000_000)

    @property
    def mixtures(self) -> list[Mixture]:
        return [Mixture.from_dict(phase.mixture) for phase in self.phases]


_RANGES: Mapping[str, Range] = {
    "tokens": COUNT, "batch_tokens": Range(64, whole=True), "rows": COUNT, "prefetch": COUNT_OR_ZERO,
    "accumulate": COUNT, "save_every_s": SECONDS_BETWEEN, "keep": COUNT, "validate_every": COUNT_OR_ZERO,
    "validation_tokens": Range(64, whole=True),
}  # fmt: skip
