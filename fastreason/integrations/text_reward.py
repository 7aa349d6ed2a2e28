"""What the adapters share: rewards by name with settings or as functions of a `Verdicts`, and prompts without tags."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..grading import rewards
from ..grading.verdicts import Verdicts, grade_texts
from ..tasks.stream import ProblemBatch

RewardFunction = Callable[..., np.ndarray]
KINDS = ("outcome", "blended", "strict", "steps")


@dataclass(frozen=True)
class TextReward:
    """Completions of any source against gold solutions, one each. Pickles where `kind` does.

    Args:
        kind: one of KINDS, or a function from `Verdicts` to float [n] in [0, 1].
        settings: keyword arguments of that reward, such as {"outcome_weight": 0.2}.
        threads: 0 uses all cores.
    Raises:
        ValueError: no such kind, or settings that it does not have.
    """

    kind: str | RewardFunction = "strict"
    settings: dict[str, Any] = field(default_factory=dict)
    threads: int = 0

    def __post_init__(self) -> None:
        if not callable(self.kind) and self.kind not in KINDS:
            raise ValueError(f"reward: kind must be a function or one of {', '.join(KINDS)}, got {self.kind!r}")
        try:
            inspect.signature(self.function).bind(None, **self.settings)
        except TypeError as error:
            raise ValueError(f"reward: {self.name} cannot take {self.settings}: {error}") from None

    @property
    def name(self) -> str:
        return self.kind if isinstance(self.kind, str) else getattr(self.kind, "__name__", type(self.kind).__name__)

    @property
    def function(self) -> RewardFunction:
        return getattr(rewards, self.kind) if isinstance(self.kind, str) else self.kind

    def score(self, solutions: Sequence[str], completions: Sequence[str]) -> tuple[np.ndarray, Verdicts]:
        """float [n], and the verdicts behind it."""
        verdicts = grade_texts(solutions, completions, threads=self.threads)
        return np.asarray(self.function(verdicts, **self.settings)), verdicts


def questions(batch: ProblemBatch) -> list[str]:
    """Problem and question in the order of the prompts, for chat templates, which bring their own frame."""
    return [prompt.removeprefix("<question> ").removesuffix(" </question> <solution>") for prompt in batch.prompts]
