"""Lengths of the paper's tasks, as the stream draws them: what the tables of docs/scaling.md are reckoned with."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

import fastreason as fr
from fastreason.evaluation.evaluate import PRESETS

BATCH_TOKENS = 524_288
LIMIT = 1024
"""New tokens of a sample."""


@lru_cache
def tokenizer() -> fr.Tokenizer:
    return fr.Tokenizer.for_mixtures([fr.Mixture.from_dict(PRESETS["paper"].mixture)])


def lengths_of(problems: fr.ProblemBatch) -> tuple[np.ndarray, np.ndarray]:
    """Tokens of every prompt and of its gold solution with the answer."""
    core = tokenizer().core
    answers = [d.removeprefix(p) for d, p in zip(problems.documents, problems.prompts, strict=True)]
    return np.diff(core.encode_prompts(problems.core)[1]), np.diff(core.encode_batch(answers)[1])


@lru_cache
def task_lengths(preset: str, prompts: int, samples: int, unfinished: float) -> tuple[np.ndarray, np.ndarray]:
    """Lengths of a draw of prompts, and of samples as long as solutions of problems of the same op are."""
    problems = fr.TaskStream(fr.Mixture.preset(preset), seed=0, split="rl")[0:prompts]
    return _sampled(problems, samples, unfinished)


def op_lengths(op: int, first: int, count: int, samples: int, unfinished: float) -> tuple[np.ndarray, np.ndarray]:
    parts = [part | {"op": [op]} for part in PRESETS["paper"].mixture]
    stream = fr.TaskStream(fr.Mixture.from_dict(parts), seed=0, split="test")
    return _sampled(stream[first : first + max(count, 32)], samples, unfinished, count)


def _sampled(
    problems: fr.ProblemBatch, samples: int, unfinished: float, count: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    prompts_P, solutions_P = lengths_of(problems)
    pools = {op: solutions_P[problems.ops == op] for op in np.unique(problems.ops).tolist()}
    lengths_PG = np.stack([rng.choice(pools[op], samples) for op in problems.ops.tolist()])
    lengths_PG[rng.random(lengths_PG.shape) < unfinished] = LIMIT
    return prompts_P[:count], lengths_PG[:count]


@lru_cache
def imbalance(ranks: int) -> float:
    """Tokens of the fullest rank over the mean, of 16 steps of pre-training: rows hold whole documents."""
    rows = max(256, ranks)
    length, steps = BATCH_TOKENS // rows, 16
    stream = fr.TaskStream(fr.Mixture.preset("pretrain"), seed=0)
    packed = stream.packed(0, rows * steps, length, tokenizer(), threads=1)
    tokens = np.bincount(packed.starts // length, packed.lengths, minlength=rows * steps).reshape(steps, ranks, -1)
    of_ranks = tokens.sum(-1)
    return float((of_ranks.max(1) / of_ranks.mean(1)).mean())
