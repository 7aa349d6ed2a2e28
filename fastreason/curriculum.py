"""Which problems reinforcement learning asks for next.

A curriculum draws the prompts of a step and is told their rewards. `FixedCurriculum` is the mixture of the recipe, such
as the op ranges of the paper. `EdgeCurriculum` keeps to the edge of competence as it moves: a group of samples teaches
only if its rewards differ, so every cell of the mixture (op, theme, mode, depth) is an arm of a bandit that pays where
a group is not silent.

    share of groups that speak in cell c ~ Beta(1 + speaking_c, 1 + silent_c)     Thompson sampling, one draw a prompt
    speaking_c, silent_c <- discount * (speaking_c, silent_c) + groups of this step

Discounting forgets what the policy could not do yet. Part of the prompts comes from the mixture as it is, so that no
cell is lost from sight, and part may replay mastered cells, so that they are not forgotten by the policy.

Letters: P prompts of a step, G samples of each, C cells.

Source: edge of competence: arXiv 2512.07783. Discounted Thompson sampling: Raj and Kalyani 2017, arXiv:1707.09727.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Protocol

import numpy as np

from .tasks import Cell, Mixture, ProblemBatch, TaskStream

Kind = Literal["fixed", "edge"]


class Curriculum(Protocol):
    """Draws prompts and learns from their rewards. Under several ranks all of them call it alike, with all rewards."""

    def draw(self, step: int) -> ProblemBatch:
        """The prompts of a step: a function of the arguments, `step`, and what was observed before."""

    def observe(self, problems: ProblemBatch, rewards_PG: np.ndarray) -> None:
        """Rewards [P, G] of drawn prompts."""

    def state(self) -> dict[str, Any]:
        """What later draws depend on, as JSON."""

    def restore(self, state: Mapping[str, Any]) -> None: ...


class FixedCurriculum:
    """Problems step * P .. of one stream.

    Args:
        mixture: which problems.
        prompts: P.
        seed: of the stream.
    """

    def __init__(self, mixture: Mixture, prompts: int, seed: int) -> None:
        self.stream, self.prompts = TaskStream(mixture, seed=seed, split="rl"), prompts

    def draw(self, step: int) -> ProblemBatch:
        return self.stream[step * self.prompts : (step + 1) * self.prompts]

    def observe(self, problems: ProblemBatch, rewards_PG: np.ndarray) -> None:
        pass

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        pass


class EdgeCurriculum:
    """Prompts from the cells whose groups speak.

    Args:
        mixture: the cells, and the weights of exploration.
        prompts: P.
        seed: of the stream and of the draws.
        discount: what a step leaves of earlier counts, in 0 < discount <= 1; 1 never forgets.
        floor: share of the prompts that the mixture chooses.
        replay: share of the prompts that come from mastered cells, while there are some.
        mastered: mean reward from which a cell is mastered.
    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        mixture: Mixture,
        prompts: int,
        seed: int,
        *,
        discount: float = 0.9,
        floor: float = 0.1,
        replay: float = 0.0,
        mastered: float = 0.9,
    ) -> None:
        if not 0 < discount <= 1 or floor < 0 or replay < 0 or floor + replay > 1:
            raise ValueError(
                "curriculum: need discount in 0 < d <= 1, floor >= 0 and replay >= 0 with a sum of at most 1, "
                f"got {discount}, {floor} and {replay}"
            )
        self.mixture, self.prompts, self.seed = mixture, prompts, seed
        self.discount, self.floor, self.replay, self.mastered = discount, floor, replay, mastered
        self.cells: tuple[Cell, ...] = tuple(mixture.weights)
        self._arm_of = {cell: arm for arm, cell in enumerate(self.cells)}
        self._weights = np.array(list(mixture.weights.values())) / sum(mixture.weights.values())
        # speaking groups, silent groups, sum of their mean rewards; all discounted alike
        self.counts_3C = np.zeros((3, len(self.cells)))

    def shares(self, step: int) -> np.ndarray:
        """float64 [C]: how many of the prompts of this step each cell gets, as shares."""
        # counter-based, so that a step draws the same whatever came before
        rng = np.random.Generator(np.random.Philox(key=self.seed, counter=[0, 0, 0, step]))
        speaking, silent, rewards = self.counts_3C
        pays_PC = rng.beta(1.0 + speaking, 1.0 + silent, size=(self.prompts, len(self.cells)))
        thompson = np.bincount(pays_PC.argmax(axis=1), minlength=len(self.cells)) / self.prompts
        groups = speaking + silent
        is_mastered = (groups >= 1.0) & (rewards >= self.mastered * groups)
        replay = self.replay if is_mastered.any() else 0.0
        shares = (1.0 - self.floor - replay) * thompson + self.floor * self._weights
        return shares + replay * is_mastered / max(1, is_mastered.sum())

    def draw(self, step: int) -> ProblemBatch:
        weights = {cell: share for cell, share in zip(self.cells, self.shares(step).tolist(), strict=True) if share > 0}
        # indices go on, so that no problem of a cell comes twice
        stream = TaskStream(Mixture(weights), seed=self.seed, split="rl")
        return stream[step * self.prompts : (step + 1) * self.prompts]

    def observe(self, problems: ProblemBatch, rewards_PG: np.ndarray) -> None:
        """Counts the groups of a step.

        Raises:
            ValueError: rewards are not [P, G] with a row for each problem.
        """
        rewards_PG = np.asarray(rewards_PG, dtype=np.float64)
        if rewards_PG.ndim != 2 or len(rewards_PG) != len(problems) or rewards_PG.shape[1] < 1:
            raise ValueError(f"curriculum: rewards must be [{len(problems)}, samples], got {rewards_PG.shape}")
        arms = np.array([self._arm_of[cell] for cell in problems.cells], dtype=np.int64)
        speaks = (rewards_PG != rewards_PG[:, :1]).any(axis=1)
        new = [np.bincount(arms, w, len(self.cells)) for w in (speaks, ~speaks, rewards_PG.mean(axis=1))]
        self.counts_3C = self.discount * self.counts_3C + np.stack(new)

    def expected(self) -> dict[Cell, float]:
        """The share of groups that speak in each cell, as far as is known; 0.5 where nothing is."""
        speaking, silent, _ = self.counts_3C
        return dict(zip(self.cells, ((1.0 + speaking) / (2.0 + speaking + silent)).tolist(), strict=True))

    def state(self) -> dict[str, Any]:
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


def make_curriculum(kind: Kind, mixture: Mixture, prompts: int, seed: int, **settings: float) -> Curriculum:
    """A curriculum by name; `settings` are further arguments of EdgeCurriculum."""
    if kind == "fixed":
        if settings:
            raise ValueError(f"curriculum: {sorted(settings)[0]} needs curriculum 'edge'")
        return FixedCurriculum(mixture, prompts, seed)
    if kind == "edge":
        return EdgeCurriculum(mixture, prompts, seed, **settings)
    raise ValueError(f"curriculum: must be fixed or edge, got {kind!r}")
