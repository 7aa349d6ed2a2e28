"""Samplers: our decoder through `Rollout`, or any causal language model through transformers.

Evaluation and the search for the edge obtain graded samples from a `Sampler`, whatever the model behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ..grading.verdicts import Verdicts, grade
from ..model.decoder import Decoder
from ..model.precision import Precision
from ..runtime.ranges import COUNT, COUNT_OR_ZERO, POSITIVE, SHARE, TEMPERATURE_OR_GREEDY, Range, check_settings
from ..sampling.rollout import Rollout, RolloutOutput
from ..tasks.stream import ProblemBatch
from ..text.tokenizer import Tokenizer
from ..text.tokenizer_json import SPECIALS


@dataclass(frozen=True)
class Sampling:
    """Settings of sampling."""

    temperature: float = 0.7
    """Divides the logits; 0 always takes the most likely token."""
    top_k: int = 0
    """Keep only the k most likely tokens; 0: all."""
    top_p: float = 1.0
    """Keep only the most likely tokens with at least this total probability; 1: all."""
    min_p: float = 0.0
    """Keep only tokens at least this many times as likely as the most likely one; 0: all."""
    max_new_tokens: int = 256
    """Maximum number of new tokens per sample."""
    precision: Precision = "auto"
    """Dtype of matrix products, keys and values. auto: bfloat16 on a GPU, else float32."""
    kv_memory_mb: float | None = None
    """Memory for keys and values, in MB of 10^6 bytes; None: as `Rollout` takes it."""

    def __post_init__(self) -> None:
        check_settings("sampling", self, _RANGES)


_RANGES: Mapping[str, Range] = {
    "temperature": TEMPERATURE_OR_GREEDY, "top_k": COUNT_OR_ZERO, "top_p": Range(0, 1, open_low=True), "min_p": SHARE,
    "max_new_tokens": COUNT, "kv_memory_mb": POSITIVE,
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Samples:
    """n samples of each of P problems, graded: rows p * n .. p * n + n - 1 are those of problem p.

    Args:
        verdicts: of P * n completions.
        lengths: int64 [P * n] in tokens, including the stop token.
        stopped: bool [P * n]: the sample ended before the limit.
        text: gives the completion of a row, without an end token.
    """

    verdicts: Verdicts
    lengths: np.ndarray
    stopped: np.ndarray
    text: Callable[[int], str]


class SamplingInterrupted(KeyboardInterrupt):
    """Ctrl-C while samples were drawn, and what was finished by then.

    Args:
        places: of the finished problems in the batch that was asked for.
        samples: of those.
    """

    def __init__(self, places: Sequence[int], samples: Samples) -> None:
        self.places, self.samples = list(places), samples


class Sampler(Protocol):
    """Draws and grades samples. The samples of a problem are determined by the seed, its op and its index."""

    def check(self, problems: ProblemBatch) -> None:
        """Raises ValueError for problems that the model cannot be sampled on."""

    def sample(self, problems: ProblemBatch, n: int, seed: int) -> Samples:
        """n samples of each problem; SamplingInterrupted, or any other KeyboardInterrupt, ends it early."""
        ...


class RolloutSampler:
    """Our decoder and tokenizer.

    Raises:
        ValueError: the tokenizer has no end token, or more tokens than the model.
    """

    def __init__(self, model: Decoder, tokenizer: Tokenizer, sampling: Sampling) -> None:
        self.engine = Rollout(model, tokenizer, precision=sampling.precision, kv_memory_mb=sampling.kv_memory_mb)
        self.tokenizer, self.sampling = tokenizer, sampling
        self.stop = _stop(tokenizer)

    def check(self, problems: ProblemBatch) -> None:
        tokens, offsets = self.tokenizer.core.encode_prompts(problems.core)
        longest, positions = int(np.diff(offsets).max()), self.engine.model.config.max_position_embeddings
        if longest >= positions:
            raise ValueError(f"evaluate: a prompt has {longest} tokens, but the model has only {positions} positions")
        self.engine.check_memory(longest, self.sampling.max_new_tokens)
        if SPECIALS[0] not in self.tokenizer.words:
            return
        unknown = np.flatnonzero(tokens == self.tokenizer.id_of(SPECIALS[0]))
        if unknown.size:
            problem = int(np.searchsorted(offsets, unknown[0], side="right")) - 1
            cell = problems.cells[problem]
            raise ValueError(
                f"evaluate: the tokenizer does not know every word of theme {cell.theme} with max_value "
                f"{cell.max_value} (op {cell.op}, problem {problems.indices[problem]}); "
                "choose themes and max_value as in training"
            )

    def sample(self, problems: ProblemBatch, n: int, seed: int) -> Samples:
        drawn: dict[int, RolloutOutput] = {}
        try:
            for place, output in self.engine.stream(
                problems,
                n,
                temperature=self.sampling.temperature,
                top_k=self.sampling.top_k,
                top_p=self.sampling.top_p,
                min_p=self.sampling.min_p,
                stop=self.stop,
                max_new_tokens=self.sampling.max_new_tokens,
                seed=seed,
                prompt_ids=sample_ids(problems),
            ):
                drawn[place] = output
        except KeyboardInterrupt:
            if not drawn:
                raise
            places = sorted(drawn)
            finished = self._graded(problems[places], [drawn[place] for place in places])
            raise SamplingInterrupted(places, finished) from None
        return self._graded(problems, [drawn[place] for place in range(len(problems))])

    def _graded(self, problems: ProblemBatch, drawn: Sequence[RolloutOutput]) -> Samples:
        """Of the output of each problem."""
        lengths = np.concatenate([output.lengths for output in drawn])
        ended = np.concatenate([output.finished for output in drawn])
        tokens = np.full((len(lengths), int(lengths.max())), self.tokenizer.pad_id, dtype=np.int32)
        row = 0
        for output in drawn:
            tokens[row : row + len(output), : output.tokens.shape[1]] = output.tokens
            row += len(output)

        def text(row: int) -> str:
            own = tokens[row, : lengths[row]]
            return self.tokenizer.decode(own[:-1] if own[-1] == self.tokenizer.eos_id else own)

        verdicts = grade(problems, tokens, tokenizer=self.tokenizer, finished=ended)
        return Samples(verdicts, lengths, ended, text)


def _stop(tokenizer: Tokenizer) -> list[int | str]:
    """The stop sequences: `</answer>`, which need not be a single token, and the end token."""
    try:
        return [tokenizer.answer_close_id, tokenizer.eos_id]
    except ValueError:
        return ["</answer>", tokenizer.eos_id]


def sample_ids(problems: ProblemBatch) -> np.ndarray:
    """int64 [P]: prompt ids for sampling, from index and op, since the streams of all ops start at 0."""
    return (problems.ops.astype(np.int64) << 32) + problems.indices
