"""verl: `compute_score` in the form of its custom reward functions, and rows of its datasets.

    reward.custom_reward_function.path=pkg://fastreason.integrations.verl
    reward.custom_reward_function.name=compute_score
    +reward.custom_reward_function.reward_kwargs.kind=strict

verl removes special tokens from the texts it grades, so `<answer>` must be an ordinary token of the model's tokenizer,
as it is in ours. Its offline `main_eval` needs a number per completion: name `compute_reward` there. verl is not
imported here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

# absolute: verl may load this file by its path, outside the package
from fastreason.integrations.text_reward import RewardFunction, TextReward, as_answer, questions
from fastreason.tasks.stream import ProblemBatch

DATA_SOURCE = "fastreason"


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str | int | dict[str, Any],
    extra_info: dict[str, Any] | None = None,
    *,
    kind: str | RewardFunction = "strict",
    answer_may_end_text: bool = False,
    reward_router_address: str | None = None,
    reward_model_tokenizer: Any = None,
    **settings: Any,
) -> dict[str, float]:
    """The reward of one completion.

    Args:
        data_source: not used.
        solution_str: the completion.
        ground_truth: the gold solution, or a mapping with the key `solution`, as in the released data. For kind outcome
            a bare answer suffices.
        extra_info: its `gold_solution` is used if ground_truth has none or is a bare answer.
        kind: outcome, blended, strict, steps, or a function from `Verdicts` to float [n].
        answer_may_end_text: as for `grade`, if generation stops at `</answer>` and removes it.
        reward_router_address, reward_model_tokenizer: passed by verl beside a reward model; not used.
        settings: keyword arguments of the reward, such as outcome_weight=0.2.
    Returns:
        score, and for verl's logs answer_correct, verified and process_accuracy.
    Raises:
        ValueError: the gold solution is missing or not readable, there is no such kind or setting, or a function
            returns anything but a finite number.
    """
    del data_source
    del reward_router_address, reward_model_tokenizer
    text_reward = TextReward(kind, settings, 1, answer_may_end_text)
    return text_reward.report_one(_gold(ground_truth, extra_info), solution_str)


def compute_reward(data_source: str, solution_str: str, ground_truth: Any, **arguments: Any) -> float:
    """`compute_score` as a number, for verl's offline `main_eval`, which takes the mean of what it returns."""
    return compute_score(data_source, solution_str, ground_truth, **arguments)["score"]


def compute_scores(
    data_sources: Sequence[str],
    solution_strs: Sequence[str],
    ground_truths: Sequence[str | int | dict[str, Any]],
    extra_infos: Sequence[dict[str, Any] | None] | None = None,
    *,
    kind: str | RewardFunction = "strict",
    answer_may_end_text: bool = False,
    **settings: Any,
) -> list[dict[str, float]]:
    """`compute_score` for verl's `BatchRewardManager`: all completions in one call, on all cores.

    The trainer of verl 0.9 cannot select that manager (it is in the legacy registry only); its naive, dapo and gdpo
    managers call `compute_score`.
    """
    del data_sources
    extras = [None] * len(solution_strs) if extra_infos is None else extra_infos
    golds = [_gold(truth, extra, f" {i}") for i, (truth, extra) in enumerate(zip(ground_truths, extras, strict=True))]
    return TextReward(kind, settings, 0, answer_may_end_text).report(golds, solution_strs)


def rows(batch: ProblemBatch) -> list[dict[str, Any]]:
    """Problems as rows for verl's Parquet files, with the gold solution as ground truth."""
    return [
        {
            "data_source": DATA_SOURCE,
            "prompt": [{"role": "user", "content": question}],
            "ability": "reasoning",
            "reward_model": {"style": "rule", "ground_truth": row["solution"]},
            "extra_info": {
                "split": batch.stream.split,
                "index": index,
                **{name: row[name] for name in ("id", "op", "template", "mode", "d")},
            },
        }
        for index, question, row in zip(batch.indices.tolist(), questions(batch), batch.rows(), strict=True)
    ]


def _gold(ground_truth: Any, extra_info: dict[str, Any] | None, number: str = "") -> str | int:
    gold = ground_truth.get("solution") if isinstance(ground_truth, dict) else ground_truth
    is_whole = isinstance(gold, str) and gold and as_answer(gold) == gold
    if not is_whole:
        gold = (extra_info or {}).get("gold_solution") or gold
    if gold == "" or isinstance(gold, bool) or not isinstance(gold, str | int):
        raise ValueError(
            f"verl.compute_score: ground_truth{number} must be the gold solution or a mapping with the key 'solution', "
            f"got {ground_truth!r}"
        )
    return gold
