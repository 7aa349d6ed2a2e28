"""Where the prompts of a stage come from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from ..tasks.mixture import Mixture
from ..tasks.stream import ProblemBatch, TaskStream
from .edge_curriculum import EdgeCurriculum
from .settings import PolicySettings


class PromptSource(Protocol):
    """Where the prompts of a stage come from. Every rank has one, is asked the same and told the same.

    What it does may depend on its arguments and on what it was told alone, so that a resumed stage draws what an
    unbroken one would have drawn.
    """

    def draw(self, step: int) -> ProblemBatch:
        """The prompts of the next batch, as many as the settings' `prompts`, from the split `rl`.

        Args:
            step: number of the draw, 0, 1, ...; with dynamic sampling a step of training may take several.
        """
        ...

    def observe(self, problems: ProblemBatch, rewards_PG: np.ndarray) -> None:
        """What the samples of the last draw earned, those of all ranks: float32 [P, G]."""
        ...

    def state(self) -> dict[str, Any]:
        """What it has learnt, as JSON; part of the checkpoint."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """The reverse of `state`."""
        ...


class FixedMixture:
    """The mixture of the settings, problem after problem."""

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
"""What `settings.curriculum` may name: makes a source from the settings and the seed of the stage."""


def stage_prompts(settings: PolicySettings, seed: int) -> PromptSource:
    """The source of prompts that the settings name.

    Raises:
        ValueError: there is no curriculum of this name.
    """
    if settings.curriculum not in CURRICULA:
        raise ValueError(f"rl: curriculum must be one of {', '.join(CURRICULA)}, got {settings.curriculum!r}")
    return CURRICULA[settings.curriculum](settings, seed)
