"""The edge of competence as a curriculum: chooses the next prompts of reinforcement learning.

A group of samples gives a gradient only if its rewards differ. Every cell of the mixture (op, theme, mode, depth) is an
arm of a bandit whose payoff is the share of groups with non-zero advantages, so prompts come from cells that the policy
solves sometimes, and follow that edge as it moves.

    payoff of cell c ~ Beta(1 + nonzero_c, 1 + zero_c)                     Thompson sampling, one draw per prompt
    nonzero_c, zero_c <- discount * (nonzero_c, zero_c) + groups of this draw

Discounting forgets what the policy could not do earlier. A share of the prompts is drawn from the mixture as it is, so
that no cell is neglected, and a share may replay mastered cells, so that the policy does not forget them.

Letters: P prompts of a draw, G samples of each, C cells.

Source: edge of competence: arXiv 2512.07783. Discounted Thompson sampling: Raj and Kalyani 2017, arXiv:1707.09727.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..runtime.field_docs import explain_fields
from ..runtime.ranges import SHARE, Range, check_settings
from ..tasks.mixture import Cell, Mixture
from ..tasks.stream import ProblemBatch, TaskStream


@explain_fields
@dataclass(frozen=True)
class BanditSettings:
    """Settings of the edge curriculum."""

    __pydantic_config__ = {"extra": "forbid"}

    discount: float = 0.9
    """Factor on earlier counts at each draw; 1 never forgets."""
    floor: float = 0.1
    """Share of prompts drawn from the mixture as it is."""
    replay: float = 0.0
    """Share of prompts from mastered cells, if there are any."""
    mastered: float = 0.9
    """Mean reward at which a cell counts as mastered."""

    def __post_init__(self) -> None:
        ranges = {"discount": Range(0, 1, open_low=True), "floor": SHARE, "replay": SHARE, "mastered": Range()}
        check_settings("curriculum", self, ranges)
        if self.floor + self.replay > 1:
            raise ValueError(f"curriculum: floor + replay must be at most 1, got {self.floor} and {self.replay}")


class EdgeCurriculum:
    """A `PromptSource` that prefers cells whose groups have non-zero advantages.

    Args:
        mixture: the cells, and their weights for exploration.
        prompts: P, prompts per draw.
        seed: of the stream and of the random draws.
        settings: discount, exploration and replay.
    """

    def __init__(self, mixture: Mixture, prompts: int, seed: int, settings: BanditSettings | None = None) -> None:
        self.mixture, self.prompts, self.seed = mixture, prompts, seed
        self.settings = BanditSettings() if settings is None else settings
        self.cells: tuple[Cell, ...] = tuple(mixture.weights)
        self._arm_of = {cell: arm for arm, cell in enumerate(self.cells)}
        self._weights = np.array(list(mixture.weights.values())) / sum(mixture.weights.values())
        # groups with non-zero and with zero advantage, and the sum of their mean rewards, all discounted
        self.counts_3C = np.zeros((3, len(self.cells)))

    def shares(self, step: int) -> np.ndarray:
        """float64 [C]: the probability that a prompt of this draw comes from each cell; sums to 1."""
        # counter-based: a draw is a function of the seed, its number and the counts
        rng = np.random.Generator(np.random.Philox(key=self.seed, counter=[0, 0, 0, step]))
        nonzero, zero, rewards = self.counts_3C
        pays_PC = rng.beta(1.0 + nonzero, 1.0 + zero, size=(self.prompts, len(self.cells)))
        thompson = np.bincount(pays_PC.argmax(axis=1), minlength=len(self.cells)) / self.prompts
        groups = nonzero + zero
        is_mastered = (groups >= 1.0) & (rewards >= self.settings.mastered * groups)
        replay, floor = self.settings.replay if is_mastered.any() else 0.0, self.settings.floor
        shares = (1.0 - floor - replay) * thompson + floor * self._weights
        return shares + replay * is_mastered / max(1, is_mastered.sum())

    def draw(self, step: int) -> ProblemBatch:
        """The prompts of draw `step`, from split `rl`."""
        weights = {cell: share for cell, share in zip(self.cells, self.shares(step).tolist(), strict=True) if share > 0}
        # indices continue, so that no problem of a cell is repeated
        stream = TaskStream(Mixture(weights), seed=self.seed, split="rl")
        return stream[step * self.prompts : (step + 1) * self.prompts]

    def observe(self, problems: ProblemBatch, rewards_PG: np.ndarray) -> None:
        """Counts the groups of a draw.

        Args:
            problems: of the draw.
            rewards_PG: from all ranks; every rank has its own copy of the curriculum.
        Raises:
            ValueError: rewards are not [P, G] with one row per problem.
        """
        rewards_PG = np.asarray(rewards_PG, dtype=np.float64)
        if rewards_PG.ndim != 2 or len(rewards_PG) != len(problems) or rewards_PG.shape[1] < 1:
            raise ValueError(f"curriculum: rewards must have shape [{len(problems)}, samples], got {rewards_PG.shape}")
        arms = np.array([self._arm_of[cell] for cell in problems.cells], dtype=np.int64)
        differs = (rewards_PG != rewards_PG[:, :1]).any(axis=1)
        new = [np.bincount(arms, w, len(self.cells)) for w in (differs, ~differs, rewards_PG.mean(axis=1))]
        self.counts_3C = self.settings.discount * self.counts_3C + np.stack(new)

    def expected(self) -> dict[Cell, float]:
        """The estimated share of groups with non-zero advantages in each cell; 0.5 without data."""
        nonzero, zero, _ = self.counts_3C
        return dict(zip(self.cells, ((1.0 + nonzero) / (2.0 + nonzero + zero)).tolist(), strict=True))

    def state(self) -> dict[str, Any]:
        """The state that later draws depend on, as JSON."""
        nonzero, zero, rewards = self.counts_3C.tolist()
        return {"nonzero_advantage": nonzero, "zero_advantage": zero, "rewards": rewards}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restores the result of `state()`.

        Raises:
            ValueError: it belongs to another mixture.
        """
        # checkpoints of earlier versions call the counts by the second name
        names = {"nonzero_advantage": "speaking", "zero_advantage": "silent", "rewards": "rewards"}
        counts = np.array([state[new if new in state else old] for new, old in names.items()], dtype=np.float64)
        if counts.shape != self.counts_3C.shape:
            raise ValueError(
                f"curriculum: the state has {counts.shape[1]} cells, but the mixture has {len(self.cells)}"
            )
        self.counts_3C = counts
