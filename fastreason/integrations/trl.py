"""TRL: prompts and a reward for its `GRPOTrainer`.

    from fastreason.integrations.trl import prompts, reward

    trainer = GRPOTrainer(model, reward_funcs=reward("strict"), train_dataset=prompts(stream, stop=200_000), ...)

TRL is not imported here: it calls what `reward` returns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..tasks.stream import StreamShard, TaskStream
from ..text.tokenizer import Tokenizer
from .datasets import to_datasets
from .text_reward import REPORTED, RewardFunction, TextReward, content_text, without_tags

if TYPE_CHECKING:
    import datasets


def reward(
    kind: str | RewardFunction = "strict",
    *,
    column: str = "solution",
    tokenizer: Tokenizer | None = None,
    answer_may_end_text: bool = False,
    threads: int = 0,
    **settings: Any,
) -> Callable[..., list[float]]:
    """Creates a reward function for `GRPOTrainer`, for plain and conversational completions.

    In addition to the reward it logs the shares of samples with a right answer and of verified ones, and the mean share
    of correct steps, so that a run shows when answers get ahead of reasoning.

    Args:
        kind: outcome, blended, strict, steps, or a function from `Verdicts` to float [n].
        column: the dataset's column of gold solutions; for kind outcome bare answers suffice.
        tokenizer: if given, completions are read from their token ids. TRL removes special tokens from its texts, so if
            `<answer>` is one, as in the released tokenizer, the texts contain no answer.
        answer_may_end_text: as for `grade`, if generation stops at `</answer>` and removes it.
        threads: 0 uses all cores.
        settings: keyword arguments of the reward, such as outcome_weight=0.2.
    Raises:
        ValueError: there is no such kind or setting; or, when the reward is called, the dataset lacks the column, a
            gold solution is not readable, completions are neither texts nor messages of text, or a function returns
            anything but finite numbers [n].
    """
    return _Reward(TextReward(kind, settings, threads, answer_may_end_text), column, tokenizer)


def prompts(
    stream: TaskStream | StreamShard,
    *,
    start: int = 0,
    stop: int | None = None,
    num_shards: int = 1,
    conversational: bool = False,
) -> datasets.Dataset | datasets.IterableDataset:
    """Problems as a dataset with the columns prompt and solution in addition to those of the published schema.

    Args:
        stream, start, stop, num_shards: as for `fr.to_datasets`.
        conversational: whether a prompt is a single user message instead of `<question> ... </question> <solution>`.
    """
    rows = to_datasets(stream, start=start, stop=stop, num_shards=num_shards)
    return rows.map(_as_message) if conversational else rows


@dataclass(frozen=True)
class _Reward:
    """A class, not a closure, because TRL requires rewards that can be pickled."""

    text_reward: TextReward
    column: str
    tokenizer: Tokenizer | None

    @property
    def __name__(self) -> str:  # the name in TRL's logs
        return f"fastreason_{self.text_reward.name}"

    def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        *,
        completion_ids: Sequence[Sequence[int]] | None = None,
        log_metric: Callable[[str, float], None] | None = None,
        **columns: Any,
    ) -> list[float]:
        if self.column not in columns:
            raise ValueError(f"trl.reward: the dataset has no column {self.column!r}; there are {', '.join(columns)}")
        if self.tokenizer is None:
            texts = [_text(completion, i) for i, completion in enumerate(completions)]
        elif completion_ids is None:
            raise ValueError("trl.reward: tokenizer requires completion_ids, which this version of TRL does not pass")
        else:
            texts = [_decoded(ids, self.tokenizer) for ids in completion_ids]
        rewards, verdicts = self.text_reward.score(columns[self.column], texts)
        if log_metric is not None and len(verdicts):
            for name in REPORTED:
                log_metric(name, float(getattr(verdicts, name).mean()))
        return rewards.tolist()


def _decoded(ids: Sequence[int], tokenizer: Tokenizer) -> str:
    """The text up to the end token."""
    ends = (i for i, token in enumerate(ids) if token in (tokenizer.eos_id, tokenizer.pad_id))
    return tokenizer.decode(ids[: next(ends, len(ids))])


def _text(completion: Any, i: int) -> str:
    """The model's output: a text, or the concatenated contents of messages."""
    if isinstance(completion, str):
        return completion
    messages = [completion] if isinstance(completion, Mapping) else completion
    if not isinstance(messages, Sequence) or not all(isinstance(message, Mapping) for message in messages):
        raise ValueError(f"trl.reward: completion {i} must be a text or a list of messages, got {completion!r:.120}")
    return "".join(
        content_text(message.get("content"), f"trl.reward: content of completion {i}") for message in messages
    )


def _as_message(row: dict[str, Any]) -> dict[str, Any]:
    return {"prompt": [{"role": "user", "content": without_tags(row["prompt"])}]}
