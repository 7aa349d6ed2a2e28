"""Process-verified pass@k by op, from one set of samples per problem.

    pass@k = mean over problems of 1 - C(n - c, k) / C(n, k),   c of n samples verified

the unbiased estimator. Intervals come from resampling problems.

Source: Chen et al. 2021, arXiv:2107.03374, equation 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .grading import StepStatus, Verdicts, grade
from .metrics import StopRequest, progress_bar
from .model import Decoder
from .rollout import Rollout
from .tasks import Mixture, ProblemBatch, TaskStream
from .tokenizer import Tokenizer


@dataclass(frozen=True)
class EvaluateSettings:
    """How each stage's model is evaluated, on the split `test`."""

    __pydantic_config__ = {"extra": "forbid"}

    mixture: list[dict[str, Any]]
    """Parts of a `Mixture`; its weights do not matter, each of its ops gets `problems` problems."""
    problems: int = 100
    """Problems of each op."""
    samples: int = 32
    """Samples of each problem."""
    k: list[int] = field(default_factory=lambda: [1, 8, 32])
    """pass@k for these k, none above `samples`."""
    temperature: float = 0.7
    """Of sampling."""
    max_new_tokens: int = 256
    """Limit of a sample."""
    traces: int = 3
    """Samples kept for the report."""

    def __post_init__(self) -> None:
        if self.problems < 1 or self.samples < 1 or self.temperature < 0:
            raise ValueError(
                "evaluate: need problems >= 1, samples >= 1, temperature >= 0, "
                f"got {self.problems}, {self.samples}, {self.temperature}"
            )
        if not self.k or min(self.k) < 1 or max(self.k) > self.samples:
            raise ValueError(f"evaluate: every k must be in 1 .. samples = {self.samples}, got {self.k}")


def pass_at_k(num_correct: np.ndarray, n: int, k: int) -> np.ndarray:
    """float64 [P]: the chance that k of the n samples drawn without replacement hold a correct one.

    Args:
        num_correct: integers [P] in 0 .. n.

    >>> pass_at_k(np.array([0, 1, 4]), n=4, k=2).tolist()
    [0.0, 0.5, 1.0]
    """
    if not 1 <= k <= n:
        raise ValueError(f"pass_at_k: k must be in 1 .. n = {n}, got {k}")
    wrong = n - np.asarray(num_correct, dtype=np.float64)[:, None]
    # 1 - prod_{i < k} (n - c - i) / (n - i)
    i = np.arange(k)
    return 1.0 - np.clip((wrong - i) / (n - i), 0.0, 1.0).prod(axis=1)


def bootstrap_interval(values: np.ndarray, seed: int = 0, resamples: int = 2000) -> tuple[float, float]:
    """The 95 % interval of the mean of `values` [P] under resampling of problems."""
    rng = np.random.default_rng(seed)
    means = values[rng.integers(len(values), size=(resamples, len(values)))].mean(axis=1)
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


def evaluate(
    model: Decoder,
    tokenizer: Tokenizer,
    settings: EvaluateSettings,
    *,
    seed: int = 0,
    name: str = "evaluate",
    stop: StopRequest | None = None,
) -> dict[str, Any]:
    """Scores a model on every op of the mixture.

    Returns:
        {"ops": {OP: {"verified": {K: p}, "verified_interval": {K: [low, high]}, "answer": {"1": p},
        "process_accuracy": p}}, "problems": {OP: see `by_problem`}, "traces": [...], "samples": n, "tokens": n}, every
        p in [0, 1].
    """
    mixture = Mixture.from_dict(settings.mixture)
    engine = Rollout(model, tokenizer)
    result: dict[str, Any] = {"ops": {}, "problems": {}, "traces": [], "samples": 0, "tokens": 0}
    bar = progress_bar(name, len(mixture.ops), unit="op")
    for op in mixture.ops:
        if stop is not None and stop.requested:
            bar.close()
            raise KeyboardInterrupt
        cells = {cell: weight for cell, weight in mixture.weights.items() if cell.op == op}
        # one fixed set of problems for every seed, so that runs compare on the same work
        problems = TaskStream(Mixture(cells), seed=0, split="test")[0 : settings.problems]
        samples = engine.generate(
            problems,
            settings.samples,
            temperature=settings.temperature,
            max_new_tokens=settings.max_new_tokens,
            seed=seed,
            prompt_ids=problems.indices,
        )
        verdicts = grade(problems, samples.tokens, tokenizer=tokenizer)
        result["ops"][str(op)] = score(verdicts, settings.samples, settings.k)
        result["problems"][str(op)] = by_problem(problems, verdicts, settings.samples)
        result["traces"].extend(_traces(problems, samples.tokens, verdicts, tokenizer, settings))
        result["samples"] += len(verdicts)
        result["tokens"] += samples.num_new_tokens
        bar.update(1)
    bar.close()
    return result


def by_problem(problems: ProblemBatch, verdicts: Verdicts, samples: int) -> dict[str, Any]:
    """The entry of one op that studies compare problem by problem: lists [P] of the theme, of how many samples are
    verified, sound and right in their answer, and of the mean process accuracy."""
    levels = {"verified": verdicts.verified, "sound": verdicts.sound, "answer": verdicts.answer_correct}
    counts = {name: level.reshape(-1, samples).sum(axis=1).tolist() for name, level in levels.items()}
    process = verdicts.process_accuracy.reshape(-1, samples).mean(axis=1).round(4).tolist()
    return {"theme": [cell.theme for cell in problems.cells], **counts, "process_accuracy": process}


def score(verdicts: Verdicts, samples: int, ks: Sequence[int]) -> dict[str, Any]:
    """The entry of one op in results.json."""
    num_verified = verdicts.verified.reshape(-1, samples).sum(axis=1)
    passed = {str(k): pass_at_k(num_verified, samples, k) for k in ks}
    return {
        "verified": {k: float(values.mean()) for k, values in passed.items()},
        "verified_interval": {k: list(bootstrap_interval(values)) for k, values in passed.items()},
        "answer": {"1": float(verdicts.answer_correct.mean())},
        "process_accuracy": float(verdicts.process_accuracy.mean()),
    }


def _traces(
    problems: ProblemBatch, tokens: np.ndarray, verdicts: Verdicts, tokenizer: Tokenizer, settings: EvaluateSettings
) -> list[dict[str, Any]]:
    """The first sample of the first problems, with its steps marked."""
    traces = []
    for p in range(min(settings.traces, len(problems))):
        row = p * settings.samples
        text = tokenizer.decode(tokens[row][tokens[row] != tokenizer.pad_id])
        first, last = verdicts.steps.offsets[row], verdicts.steps.offsets[row + 1]
        traces.append(
            {
                "op": int(problems.ops[p]),
                "prompt": problems.prompts[p],
                "completion": text,
                "gold": problems.solutions[p],
                "verified": bool(verdicts.verified[row]),
                "answer_correct": bool(verdicts.answer_correct[row]),
                "steps": [
                    {
                        "status": StepStatus(verdicts.steps.status[i]).name.lower(),
                        "begin": int(verdicts.steps.begin[i]),
                        "end": int(verdicts.steps.end[i]),
                    }
                    for i in range(first, last)
                ],
            }
        )
    return traces
