"""Shared by the adapters: rewards by name or as functions of a `Verdicts`, texts of messages, prompts without tags."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..grading import rewards
from ..grading.verdicts import Verdicts, grade_texts
from ..tasks.stream import ProblemBatch

RewardFunction = Callable[..., np.ndarray]
KINDS = ("outcome", "blended", "strict", "steps")
REPORTED = ("answer_correct", "verified", "process_accuracy")
_NUMBER = re.compile(r"\s*[-+]?\d+(\.\d*)?\s*")


@dataclass(frozen=True)
class TextReward:
    """A reward for texts: grades completions from any source against one gold solution each. Can be pickled if `kind`
    can.

    Args:
        kind: one of KINDS, a reward of an installed package, or a function from `Verdicts` to float [n] in [0, 1].
        settings: keyword arguments of the reward, such as {"outcome_weight": 0.2}.
        answer_may_end_text: as for `grade`, for tools that stop at `</answer>` and remove it.
        threads: 0 uses all cores.
    Raises:
        ValueError: there is no such kind, or it does not accept the settings.
    """

    kind: str | RewardFunction = "strict"
    settings: dict[str, Any] = field(default_factory=dict)
    threads: int = 0
    answer_may_end_text: bool = False

    def __post_init__(self) -> None:
        known = callable(self.kind) or self.kind in KINDS
        if not known and self.kind not in (names := rewards.reward_names()):
            raise ValueError(f"reward: kind must be a function or one of {', '.join(names)}, got {self.kind!r}")
        try:
            inspect.signature(self.function).bind(None, **self.settings)
        except TypeError as error:
            raise ValueError(f"reward: {self.name} cannot take {self.settings}: {error}") from None

    @property
    def name(self) -> str:
        return self.kind if isinstance(self.kind, str) else getattr(self.kind, "__name__", type(self.kind).__name__)

    @property
    def function(self) -> RewardFunction:
        if not isinstance(self.kind, str):
            return self.kind
        # a text has no tokens, so "steps" is the share of a sample here
        return rewards.steps if self.kind == "steps" else rewards.named_reward(self.kind)

    def score(self, golds: Sequence[Any], completions: Sequence[str]) -> tuple[np.ndarray, Verdicts]:
        """The rewards, float64 [n], and the verdicts they are based on.

        Args:
            golds: a gold solution for each completion; for kind "outcome" a bare answer, as text or integer, suffices.
            completions: the texts.
        Raises:
            ValueError: a gold solution is not readable, or the reward returns anything but finite numbers [n].
        """
        solutions = [self._solution(gold, i) for i, gold in enumerate(golds)]
        verdicts = grade_texts(
            solutions,
            completions,
            unreadable_gold="mark",
            answer_may_end_text=self.answer_may_end_text,
            threads=self.threads,
        )
        unread = np.isnan(verdicts.gold_steps.answer) if self.kind == "outcome" else ~verdicts.gold_readable
        if unread.any():
            raise self._unreadable(golds, int(unread.argmax()), verdicts)
        returned = self.function(verdicts, **self.settings)
        return rewards.checked_rewards(returned, self.name, len(verdicts)), verdicts

    def report(self, golds: Sequence[Any], completions: Sequence[str]) -> list[dict[str, float]]:
        """Per completion its reward as `score`, with answer_correct, verified and process_accuracy; arguments and
        errors as for `score`.

        >>> TextReward("outcome").report([7], ["Answer: 7."])
        [{'score': 1.0, 'answer_correct': 1.0, 'verified': 0.0, 'process_accuracy': 0.0}]
        """
        rewards, verdicts = self.score(golds, completions)
        columns = {"score": rewards.astype(float).tolist()}
        columns |= {name: getattr(verdicts, name).astype(float).tolist() for name in REPORTED}
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    def report_one(self, gold: Any, completion: str) -> dict[str, float]:
        """`report` of one completion.

        >>> TextReward("outcome").report_one(7, "Answer: 8.")["score"]
        0.0
        """
        return self.report([gold], [completion])[0]

    def _solution(self, gold: Any, i: int) -> str:
        if isinstance(gold, int | np.integer) and not isinstance(gold, bool):
            return as_answer(str(gold))
        if isinstance(gold, str):
            return as_answer(gold)
        raise ValueError(f"reward {self.name}: gold {i} must be a text or an integer, got {gold!r:.80}")

    def _unreadable(self, golds: Sequence[Any], i: int, verdicts: Verdicts) -> ValueError:
        if np.isnan(verdicts.gold_steps.answer[i]):
            return ValueError(f"reward {self.name}: gold {i} has no readable answer: {golds[i]!r:.80}")
        return ValueError(
            f"reward {self.name}: gold {i} has no readable step: {golds[i]!r:.80}; "
            "give the whole gold solution, or use kind 'outcome', which needs only the answer"
        )


def as_answer(text: str) -> str:
    """Turns a bare number into an answer without steps; leaves any other text unchanged."""
    return f"Answer: {text.strip()}" if _NUMBER.fullmatch(text) else text


def content_text(content: Any, where: str) -> str:
    """The text of a message's content, which is a text, None, or a list of text parts.

    Raises:
        ValueError: it is something else; the message begins with `where`.
    """
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    parts = [_part_text(part) for part in content] if isinstance(content, list | tuple) else [None]
    if None in parts:
        raise ValueError(
            f"{where} must be a text or a list of parts {{'type': 'text', 'text': ...}}, got {content!r:.120}"
        )
    return "".join(part for part in parts if part is not None)


def _part_text(part: Any) -> str | None:
    if isinstance(part, str):
        return part
    is_text = isinstance(part, Mapping) and part.get("type", "text") == "text" and isinstance(part.get("text"), str)
    return part["text"] if is_text else None


def questions(batch: ProblemBatch) -> list[str]:
    """Problem and question of each prompt without tags, for chat templates, which add their own."""
    return [without_tags(prompt) for prompt in batch.prompts]


def without_tags(prompt: str) -> str:
    """Problem and question of a prompt.

    >>> without_tags("<question> C ? Ci: 2. C: Ci. </question> <solution>")
    'C ? Ci: 2. C: Ci.'
    """
    return prompt.removeprefix("<question> ").removesuffix(" </question> <solution>")
