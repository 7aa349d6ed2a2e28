"""reasoning-gym: our problems as one of its procedural datasets, under the name `fastreason`.

import reasoning_gym
import fastreason.integrations.reasoning_gym  # registers the name

data = reasoning_gym.create_dataset("fastreason", size=500, seed=42, op=[4, 5, 6], themes=["zoo"])
score = data.score_answer(answer, entry=data[0])
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..tasks.mixture import Mixture
from ..tasks.stream import Split, TaskStream
from .text_reward import RewardFunction, TextReward, as_answer, content_text, questions

try:
    from reasoning_gym.coaching import BaseCurriculum, ScalarAttributeDefinition
    from reasoning_gym.factory import ProceduralDataset, register_dataset
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "fastreason.integrations.reasoning_gym needs reasoning-gym: pip install 'fastreason[reasoning-gym]'"
    ) from error

DATASET_NAME = "fastreason"


@dataclass
class FastreasonConfig:
    """The arguments of `create_dataset("fastreason", ...)`.

    Args:
        size: number of entries.
        seed: of the stream; None draws one at random.
        op: number of operations, or several with equal shares.
        themes, modes, depths: see `Mixture.uniform`.
        split: train, rl, val or test; no two share a problem.
        reward: "outcome" scores only the answer; "blended", "strict", "steps" or a function of a `Verdicts` score the
            steps, so the scored text must be a complete solution, as is then the `answer` of an entry.
        reward_settings: keyword arguments of the reward, such as {"outcome_weight": 0.2}.
    """

    size: int = 500
    seed: int | None = None
    op: int | Sequence[int] = (2, 3, 4, 5, 6, 7, 8, 9, 10)
    themes: Sequence[str] = ("zoo",)
    modes: Sequence[str] = ("forward",)
    depths: Sequence[int] = (2,)
    split: Split = "rl"
    reward: str | RewardFunction = "outcome"
    reward_settings: dict[str, Any] = field(default_factory=dict)

    def validate(self) -> None:
        """Raises ValueError for a value out of range."""
        if self.size < 1:
            raise ValueError(f"fastreason: size must be at least 1, got {self.size}")
        self.mixture()
        self.text_reward()

    def mixture(self) -> Mixture:
        op = [self.op] if isinstance(self.op, int) else self.op
        return Mixture.uniform(op, self.themes, self.modes, self.depths)

    def text_reward(self) -> TextReward:
        return TextReward(self.reward, self.reward_settings, threads=1)


class FastreasonDataset(ProceduralDataset):
    """Entries with question, answer and metadata; metadata["solution"] is the gold solution."""

    def __init__(self, config: FastreasonConfig) -> None:
        super().__init__(config=config, seed=config.seed, size=config.size)
        self.stream = TaskStream(config.mixture(), seed=self.seed, split=config.split)
        self.text_reward = config.text_reward()

    def __getitem__(self, idx: int) -> dict[str, Any]:
        batch = self.stream[idx : idx + 1]
        row, cell = batch.rows()[0], batch.cells[0]
        by_answer = self.text_reward.kind == "outcome"
        return {
            "question": questions(batch)[0],
            "answer": str(batch.answers[0]) if by_answer else row["solution"],
            "metadata": {
                "source_dataset": DATASET_NAME,
                "source_index": idx,
                "id": row["id"],
                "op": cell.op,
                "theme": cell.theme,
                "mode": cell.mode,
                "depth": cell.depth,
                "solution": row["solution"],
                "difficulty": {"op": cell.op},
            },
        }

    def score_answer(self, answer: Any, entry: dict[str, Any]) -> float:
        """The reward of an answer, in [0, 1]; a bare number is an answer without steps, None scores 0.

        Args:
            answer: a text, or a list of parts like the content of a message.
            entry: has the gold solution in its metadata's `solution`, otherwise in its `answer`.
        Raises:
            ValueError: the gold solution is not readable, or the answer is not a text.
        """
        if answer is None:
            return 0.0
        text = as_answer(content_text(answer, "fastreason.score_answer: answer"))
        gold = entry.get("metadata", {}).get("solution") or entry.get("answer")
        return float(self.text_reward.score([gold], [text])[0][0])


class FastreasonCurriculum(BaseCurriculum):
    """One level per number of operations, from 2 to 20."""

    def __init__(self) -> None:
        super().__init__(FastreasonCurriculum.__name__, FastreasonConfig)
        self._define_attributes(
            ScalarAttributeDefinition(
                name="op", field_name="op", levels=list(range(2, 21)), description="Operations of a solution"
            )
        )


register_dataset(DATASET_NAME, FastreasonDataset, FastreasonConfig, FastreasonCurriculum)
