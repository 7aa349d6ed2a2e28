"""The edge of competence as a curriculum: which problems reinforcement learning asks for next.

A group of samples teaches only if its rewards differ. Every cell of the mixture (op, theme, mode, depth) is an arm of a
bandit that pays where a group is not silent, so prompts come from where the policy is neither sure nor lost, and follow
that edge as it moves.

    share of groups that speak in cell c ~ Beta(1 + speaking_c, 1 + silent_c)     Thompson sampling, one draw a prompt
    speaking_c, silent_c <- discount * (speaking_c, silent_c) + groups of this draw

Discounting forgets what the policy could not do yet. Part of the prompts comes from the mixture as it is, so that no
cell is lost from sight, and part may replay mastered cells, so that they are not forgotten by the policy.

Letters: P prompts of a draw, G samples of each, C cells.

Source: edge of competence: arXiv 2512.07783. Discounted Thompson sampling: Raj and Kalyani 2017, arXiv:1707.09727.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..runtime.field_docs import explain_fields
from ..runtime.ranges import SHARE, Range, check_ranges
from ..tasks.mixture import Cell, Mixture
from ..tasks.stream import ProblemBatch, TaskStream


@explain_fields
@dataclass(frozen=True)
class BanditSettings:
    """How the edge is kept to."""

    __pydantic_config__ = {"extra": "forbid"}

    discount: float = 0.9
    """What a draw leaves of earlier counts; 1 never forgets."""
    floor: float = 0.1
    """Share of the prompts that the mixture chooses."""
    replay: float = 0.0
    """Share of the prompts that come from mastered cells, while there are some."""
    mastered: float = 0.9
    """Mean reward from which a cell is mastered."""

    def __post_init__(self) -> None:
        ranges = {"discount": Range(0, 1, open_low=True), "floor": SHARE, "replay": SHARE, "mastered": Range()}
        check_ranges("curriculum", self, ranges)
        if self.floor + self.replay > 1:
            raise ValueError(f"curriculum: floor + replay must be at most 1, got {self.floor} and {self.replay}")


class EdgeCurriculum:
    """Prompts from the cells whose groups speak: a `policy.PromptSource`.

    Args:
        mixture: the cells, and the weights of exploration.
        prompts: P.
        seed: of the stream and of the draws.
    """

    def __init__(self, mixture: Mixture, prompts: int, seed: int, settings: BanditSettings | None = None) -> None:
        self.mixture, self.prompts, self.seed = mixture, prompts, seed
        self.settings = BanditSettings() if settings is None else settings
        self.cells: tuple[Cell, ...] = tuple(mixture.weights)
        self._arm_of = {cell: arm for arm, cell in enumerate(self.cells)}
        self._weights = np.array(list(mixture.weights.values())) / sum(mixture.weights.values())
        # speaking groups, silent groups, sum of their mean rewards; all discounted alike
        self.counts_3C = np.zeros((3, len(self.cells)))

    def shares(self, step: int) -> np.ndarray:
        """float64 [C]: the chance of each cell to be the next prompt of this draw, sum 1."""
        # counter-based: a draw is a function of the seed, its number and the counts
        rng = np.random.Generator(np.random.Philox(key=self.seed, counter=[0, 0, 0, step]))
        speaking, silent, rewards = self.counts_3C
        pays_PC = rng.beta(1.0 + speaking, 1.0 + silent, size=(self.prompts, len(self.cells)))
        thompson = np.bincount(pays_PC.argmax(axis=1), minlength=len(self.cells)) / self.prompts
        groups = speaking + silent
        is_mastered = (groups >= 1.0) & (rewards >= self.settings.mastered * groups)
        replay, floor = self.settings.replay if is_mastered.any() else 0.0, self.settings.floor
        shares = (1.0 - floor - replay) * thompson + floor * self._weights
        return shares + replay * is_mastered / max(1, is_mastered.sum())

    def draw(self, step: int) -> ProblemBatch:
        """The prompts of draw `step`, from the split `rl`."""
        weights = {cell: share for cell, share in zip(self.cells, self.shares(step).tolist(), strict=True) if share > 0}
        # indices go on, so that no problem of a cell comes twice
        stream = TaskStream(Mixture(weights), seed=self.seed, split="rl")
        return stream[step * self.prompts : (step + 1) * self.prompts]

    def observe(self, problems: ProblemBatch, rewards_PG: np.ndarray) -> None:
        """Counts the groups of a draw.

        Args:
            rewards_PG: of all ranks, which all have a curriculum of their own.
        Raises:
            ValueError: rewards are not [P, G] with a row for each problem.
        """
        rewards_PG = np.asarray(rewards_PG, dtype=np.float64)
        if rewards_PG.ndim != 2 or len(rewards_PG) != len(problems) or rewards_PG.shape[1] < 1:
            raise ValueError(f"curriculum: rewards must be [{len(problems)}, samples], got {rewards_PG.shape}")
        arms = np.array([self._arm_of[cell] for cell in problems.cells], dtype=np.int64)
        speaks = (rewards_PG != rewards_PG[:, :1]).any(axis=1)
        new = [np.bincount(arms, w, len(self.cells)) for w in (speaks, ~speaks, rewards_PG.mean(axis=1))]
        self.counts_3C = self.settings.discount * self.counts_3C + np.stack(new)

    def expected(self) -> dict[Cell, float]:
        """The share of groups that speak in each cell, as far as is known; 0.5 where nothing is."""
        speaking, silent, _ = self.counts_3C
        return dict(zip(self.cells, ((1.0 + speaking) / (2.0 + speaking + silent)).tolist(), strict=True))

    def state(self) -> dict[str, Any]:
        """What later draws depend on, as JSON."""
        speaking, silent, rewards = self.counts_3C.tolist()
        return {"speaking": speaking, "silent": silent, "rewards": rewards}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from `state()`.

        Raises:
            ValueError: it is of another mixture.
        """
        counts = np.array([state[name] for name in ("speaking", "silent", "rewards")], dtype=np.float64)
        if counts.shape != self.counts_3C.shape:
            raise ValueError(f"curriculum: the state is of {counts.shape[1]} cells, the mixture has {len(self.cells)}")
        self.counts_3C = counts
