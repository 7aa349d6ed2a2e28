"""Prompt sources: where the prompts of a stage come from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from ..tasks.mixture import Mixture
from ..tasks.stream import ProblemBatch, TaskStream
from .edge_curriculum import EdgeCurriculum
from .settings import PolicySettings


class PromptSource(Protocol):
    """Where the prompts of a stage come from. Every rank has its own copy, which receives the same calls.

    It may depend only on its constructor arguments and on these calls, so that a resumed stage draws the same prompts
    as an uninterrupted one.
    """

    def draw(self, step: int) -> ProblemBatch:
        """The prompts of the next draw, as many as the settings' `prompts`, from split `rl`.

        Args:
            step: number of the draw: 0, 1, ...; with dynamic sampling a training step may need several draws.
        """
        ...

    def observe(self, problems: ProblemBatch, rewards_PG: np.ndarray) -> None:
        """Receives the rewards of the last draw from all ranks: float32 [P, G]."""
        ...

    def state(self) -> dict[str, Any]:
        """The state as JSON, saved in the checkpoint."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restores the result of `state`."""
        ...


class FixedMixture:
    """The problems of the settings' mixture, in order."""

    def __init__(self, settings: PolicySettings, seed: int) -> None:
        self.stream = TaskStream(Mixture.from_dict(settings.mixture), seed=seed, split="rl")
        self.prompts = settings.prompts

    def draw(self, step: int) -> ProblemBatch:
        return self.stream[step * self.prompts : (step + 1) * self.prompts]

    def observe(self, problems: ProblemBatch, rewards_PG: np.ndarray) -> None:
        pass

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        pass


def _edge(settings: PolicySettings, seed: int) -> PromptSource:
    return EdgeCurriculum(Mixture.from_dict(settings.mixture), settings.prompts, seed, settings.edge)


CURRICULA: dict[str, Callable[[PolicySettings, int], PromptSource]] = {"fixed": FixedMixture, "edge": _edge}
"""The names for `settings.curriculum`; each creates a source from the settings and the seed of the stage."""


def stage_prompts(settings: PolicySettings, seed: int) -> PromptSource:
    """The prompt source named by the settings.

    Raises:
        ValueError: there is no curriculum of this name.
    """
    if settings.curriculum not in CURRICULA:
        raise ValueError(f"rl: curriculum must be one of {', '.join(CURRICULA)}, got {settings.curriculum!r}")
    return CURRICULA[settings.curriculum](settings, seed)
