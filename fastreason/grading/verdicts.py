"""The step verifier: compares completions with gold solutions, step by step.

Definitions (arXiv 2512.07783, section 2). For a gold step v: s(v) = 1 iff a predicted step has its name, its set of
parents and its value. process_accuracy = mean of s over gold steps; verified = process_accuracy is 1 and the completion
ends with exactly one closed answer, which is the gold answer. Extra steps are ignored. `sound` is stricter: nothing
written may be wrong. docs/grading.md says how text is parsed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property, partial
from html import escape
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from .. import _core
from ..runtime.arguments import flags, instance, integers, texts
from ..tasks.stream import ProblemBatch, check_threads
from ..text.tokenizer import Tokenizer
from .marked_steps import marked_text
from .released import released_verdicts

# number of completions shown in a notebook
_SHOWN = 8


class StepStatus(IntEnum):
    """The verifier's judgement of one predicted step.

    If several apply, the first in this order: repeated or extra, undefined variable, wrong parents, unreadable, wrong
    operator, arithmetic slip, wrong value.
    """

    RIGHT = 0
    """Matches its gold step in parents, definition, every intermediate number and value."""
    WRONG_VALUE = 1
    """Defined as in the gold solution and computed as written, but from a wrong value."""
    WRONG_PARENTS = 2
    """Its set of parents differs from that of the gold step."""
    WRONG_OPERATOR = 3
    """The same parents, but a different operator, constant or order of operands."""
    ARITHMETIC_SLIP = 4
    """One of its equalities does not hold."""
    UNDEFINED_VARIABLE = 5
    """It uses a variable that has not been defined."""
    REPEATED = 6
    """A later step has the same name; the later one counts."""
    EXTRA = 7
    """No gold step has this name."""
    UNREADABLE = 8
    """One of its equalities cannot be parsed, for example because of a malformed number, or its value is given twice or
    not at all."""


class Ending(IntEnum):
    """How a completion ends. If several apply, the last in this list."""

    CLOSED = 0
    """One closed answer, followed by nothing but whitespace."""
    NO_ANSWER = 1
    """Neither `<answer>` nor `Answer:` occurs."""
    TEXT_AFTER_ANSWER = 2
    """Something follows the answer."""
    SEVERAL_ANSWERS = 3
    """Another `<answer>` or `Answer:` follows the first."""
    UNFINISHED = 4
    """It reached its length limit, or the answer is not closed."""


@dataclass(frozen=True, eq=False, repr=False)
class Steps:
    """The predicted steps of all completions, concatenated.

    Args:
        offsets: int64 [n + 1]: the steps of completion i are offsets[i] .. offsets[i + 1] - 1.
        status: uint8 [steps], a StepStatus.
        correct: bool [steps]: s(v) of the published measure, whatever the status; at most one step per gold step.
        gold_step: int32 [steps]: the index of the gold step of the same name, -1 if there is none.
        name: uint64 [steps]: a hash of the name; equal names have equal hashes.
        value: float64 [steps]: the value the step gives, with the answer substituted for the unknown; NaN if it gives
            none.
        begin, end: int32 [steps]: span of the step in the completion: characters of a str, bytes of bytes, characters
            of the decoded text for token ids.
        token_begin, token_end: int32 [steps]: the same in tokens; None for texts.
        checked: bool [steps]: whether the verifier looked at the step; None if it looked at all, as `grade` does.
    """

    offsets: np.ndarray
    status: np.ndarray
    correct: np.ndarray
    gold_step: np.ndarray
    name: np.ndarray
    value: np.ndarray
    begin: np.ndarray
    end: np.ndarray
    token_begin: np.ndarray | None = None
    token_end: np.ndarray | None = None
    checked: np.ndarray | None = None

    def __repr__(self) -> str:
        of = f"{len(self.status):,} steps of {len(self.offsets) - 1:,} completions"
        return f"Steps({of}, {self.correct.sum():,} correct)"

    @cached_property
    def completion(self) -> np.ndarray:
        """int64 [steps]: the completion that each step belongs to."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))


@dataclass(frozen=True, eq=False)
class GoldSteps:
    """The gold steps of all completions, concatenated.

    Args:
        offsets: int64 [n + 1]: those of completion i are offsets[i] .. offsets[i + 1] - 1.
        found: int32 [gold steps]: the predicted step with the same name, counted from the completion's first step; -1
            if it is missing.
        answer: float64 [n]: the gold answer for each completion; NaN if it is not readable.
        readable: bool [n]: whether the gold solution has an answer, and steps that all have a value. If not, nothing is
            verified.
    """

    offsets: np.ndarray
    found: np.ndarray
    answer: np.ndarray
    readable: np.ndarray


@dataclass(frozen=True, eq=False, repr=False)
class Verdicts:
    """The verifier's results for n completions, as arrays.

    Args:
        ending: uint8 [n], an Ending.
        answer_correct: bool [n]: the ending is CLOSED and the answer equals the gold answer.
        verified: bool [n]: answer_correct, and every gold step is correct.
        sound: bool [n]: verified, and nothing written is wrong: every equality holds, every step is defined as in the
            gold solution in terms of earlier definitions, and the equation of a reverse problem is solved exactly.
        process_accuracy: float32 [n]: the share of gold steps that are correct.
        answer: float64 [n]: the first answer; NaN if there is none, it is not closed, or it is not a number.
        num_missing: int32 [n]: number of gold steps without a predicted step of the same name.
        steps: the predicted steps.
        gold_steps: the gold steps, and which predicted steps match them.
        length: the second dimension of the token ids, None for texts.

    `released_verified` (bool [n]), `released_process_accuracy`, `released_outcome` and `released_process_reward`
    (float32 [n]) are the verdicts of the scorer released with the paper, bugs included, for comparison with published
    numbers. They are computed on first access, in Python, at a few thousand completions a second. That scorer parses
    only the published style: for gold solutions in which it finds no steps, `released_verified` is False, and process
    accuracy and reward are NaN.
    """

    ending: np.ndarray
    answer_correct: np.ndarray
    verified: np.ndarray
    sound: np.ndarray
    process_accuracy: np.ndarray
    answer: np.ndarray
    num_missing: np.ndarray
    steps: Steps
    gold_steps: GoldSteps
    length: int | None = None
    _texts: Callable[[], tuple[list[Any], list[Any]]] | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.verified)

    def __repr__(self) -> str:
        if not len(self):
            return "Verdicts(0 completions)"
        shares = {"answer right": self.answer_correct, "verified": self.verified, "sound": self.sound}
        text = ", ".join(f"{name} {100 * values.mean():.1f} %" for name, values in shares.items())
        return f"Verdicts({len(self):,} completions: {text})"

    def _repr_html_(self) -> str:
        """For notebooks: the first completions, with right steps in green, wrong ones in red and extra ones in gray."""
        shown = range(min(len(self), _SHOWN)) if self._texts is not None else range(0)
        texts = self._texts()[1] if self._texts is not None else []
        rows = "".join(f"<li>{self._marked(i, texts[i])}</li>" for i in shown)
        return f"<div><p>{escape(repr(self))}</p><ol start='0'>{rows}</ol></div>"

    def _marked(self, i: int, text: str | bytes) -> str:
        steps, places = self.steps, range(self.steps.offsets[i], self.steps.offsets[i + 1])
        names = [StepStatus(steps.status[s]).name.lower().replace("_", " ") for s in places]
        spans = [(int(steps.begin[s]), int(steps.end[s]), name) for s, name in zip(places, names, strict=True)]
        level = "verified" if self.verified[i] else "answer right" if self.answer_correct[i] else "not verified"
        return f"{marked_text(text, spans)} <i>({level})</i>"

    @property
    def gold_readable(self) -> np.ndarray:
        """bool [n]: the gold solution has a readable answer and readable steps. If False, the verdict means nothing."""
        return self.gold_steps.readable

    @property
    def released_verified(self) -> np.ndarray:
        """bool [n]: `verified` of the released scorer."""
        return self._released["released_verified"]

    @property
    def released_process_accuracy(self) -> np.ndarray:
        """float32 [n]: process accuracy of the released scorer; NaN if it finds no gold steps."""
        return self._released["released_process_accuracy"]

    @property
    def released_outcome(self) -> np.ndarray:
        """float32 [n]: 1 where the released scorer accepts the answer."""
        return self._released["released_outcome"]

    @property
    def released_process_reward(self) -> np.ndarray:
        """float32 [n]: the process reward of the released scorer; NaN if it finds no gold steps."""
        return self._released["released_process_reward"]

    @cached_property
    def _released(self) -> dict[str, np.ndarray]:
        assert self._texts is not None, "Verdicts come from grade or grade_texts"
        return released_verdicts(*self._texts())

    def token_rewards(
        self, step_rewards: np.ndarray | None = None, *, at: Literal["every", "last"] = "every"
    ) -> np.ndarray:
        """Assigns per-step values, such as rewards or advantages, to the tokens of the steps.

            out[i, t] = step_rewards[s] for the tokens t of step s of completion i, 0 for all others

        Args:
            step_rewards: float [steps], one per step; default 1 for correct steps and 0 for all others.
            at: "every" token of a step gets its value, or only its "last" one. A token shared by two steps belongs to
                the later one.
        Returns:
            float32 [n, length].
        Raises:
            ValueError: texts were graded instead of token ids, or step_rewards has the wrong shape.

        >>> problems = fr.TaskStream(fr.Mixture.uniform(op=[2], themes=["symbolic"]), seed=0)[0:1]
        >>> tokenizer = fr.Tokenizer.build(["symbolic"])
        >>> ids = tokenizer.encode(f" {problems.solutions[0]}")[None]
        >>> fr.grade(problems, ids, tokenizer=tokenizer).token_rewards(at="last")
        array([[0., 1., 0., 0., 0., 0., 1., 0., 0., 0., 0.]], dtype=float32)
        """
        steps = self.steps
        if self.length is None or steps.token_begin is None or steps.token_end is None:
            raise ValueError("token_rewards: texts have no token positions; grade token ids instead")
        values = steps.correct.astype(np.float32) if step_rewards is None else np.asarray(step_rewards, np.float32)
        if values.shape != steps.status.shape:
            raise ValueError(
                f"token_rewards: step_rewards must have shape [{len(steps.status)}], one per step, got {values.shape}"
            )
        out = np.zeros((len(self), self.length), dtype=np.float32)
        row, begin, end = steps.completion * self.length, steps.token_begin, steps.token_end
        if at == "last":
            out.reshape(-1)[row + end - 1] = values
            return out
        size = end - begin
        first = np.cumsum(size) - size  # of each step, among the tokens of all steps
        token = np.arange(size.sum()) + np.repeat(row + begin - first, size)
        out.reshape(-1)[token] = np.repeat(values, size)
        return out

    @classmethod
    def _from_core(
        cls,
        arrays: dict[str, Any],
        texts: Callable[[], tuple[list[Any], list[Any]]],
        length: int | None = None,
    ) -> Verdicts:
        def part(prefix: str) -> dict[str, Any]:
            return {key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)}

        whole = {key: value for key, value in arrays.items() if not key.startswith(("step_", "gold_"))}
        steps = part("step_")
        steps["gold_step"] = steps.pop("gold")
        return cls(
            **whole,
            steps=Steps(**steps),
            gold_steps=GoldSteps(**part("gold_")),
            length=length,
            _texts=texts,
        )


@runtime_checkable
class SampledTokens(Protocol):
    """Samples as token ids, for example a `RolloutOutput`."""

    @property
    def tokens(self) -> np.ndarray: ...
    @property
    def finished(self) -> np.ndarray: ...
    @property
    def tokenizer(self) -> Tokenizer | None: ...


@runtime_checkable
class TokenArray(Protocol):
    """A numpy array or a tensor."""

    def __array__(self) -> np.ndarray: ...


def grade(
    batch: ProblemBatch,
    completions: Sequence[str] | Sequence[bytes] | TokenArray | SampledTokens,
    *,
    tokenizer: Tokenizer | None = None,
    finished: np.ndarray | Sequence[bool] | None = None,
    answer_may_end_text: bool | np.ndarray | Sequence[bool] = False,
    threads: int = 0,
) -> Verdicts:
    """Grades n completions of each problem of a batch.

    Args:
        batch: the problems.
        completions: n for problem 0, then n for problem 1, ...: texts that continue the prompt; or token ids, a numpy
            array or tensor of integers [completions, length], each row ending at its first [EOS] or [PAD]; or the
            output of a `Rollout`, which includes its tokenizer and which samples are finished.
        tokenizer: the tokenizer of the ids; required for token ids only.
        finished: bool [completions]: False for completions that reached their length limit, which are UNFINISHED. By
            default texts are complete, and a row with neither [EOS] nor [PAD] is finished if it ends with `</answer>`.
        answer_may_end_text: True for texts from a tool that stops at `</answer>` and removes it, as most do with stop
            strings: an answer still open at the end of a finished text then counts as closed. One value for all, or
            bool [completions]. Truncation within the number looks the same, so pass `finished` too if it is known.
        threads: 0 uses all cores; the verdicts are the same for any number.
    Returns:
        Verdicts with len(completions) entries. Every text is graded; no text is an error.
    Raises:
        ValueError: the number of completions is not a multiple of the number of problems, a tokenizer is missing, or
            `finished` or `answer_may_end_text` has the wrong length.
    """
    instance("grade: batch", batch, ProblemBatch)
    threads = check_threads(threads)
    if tokenizer is not None:
        instance("grade: tokenizer", tokenizer, Tokenizer)
    if isinstance(completions, SampledTokens):
        tokenizer = completions.tokenizer if tokenizer is None else tokenizer
        finished = completions.finished if finished is None else finished
        completions = completions.tokens
    if isinstance(completions, TokenArray):
        if tokenizer is None:
            raise ValueError("grade: token ids need the tokenizer argument")
        completions = integers("grade: token ids", completions, -(2**31), 2**31 - 1).astype(np.int32, copy=False)
        if completions.ndim != 2:
            raise ValueError(f"grade: token ids must be [completions, length], got shape {list(completions.shape)}")
        ends = _end_arguments(len(completions), finished, answer_may_end_text)
        arrays = _core.grade_tokens(batch.core, completions, tokenizer.core, **ends, threads=threads)
        return Verdicts._from_core(arrays, partial(_decoded, batch, completions, tokenizer), completions.shape[1])
    written: list[str | bytes] = texts("grade: completions", completions)
    ends = _end_arguments(len(written), finished, answer_may_end_text)
    return Verdicts._from_core(
        _core.grade_batch(batch.core, written, **ends, threads=threads), partial(_with_solutions, batch, written)
    )


def grade_texts(
    gold_solutions: Sequence[str] | Sequence[bytes],
    completions: Sequence[str] | Sequence[bytes],
    *,
    unreadable_gold: Literal["error", "mark"] = "error",
    finished: np.ndarray | Sequence[bool] | None = None,
    answer_may_end_text: bool | np.ndarray | Sequence[bool] = False,
    threads: int = 0,
) -> Verdicts:
    """Grades n completions of each gold solution, for any text in the format of GSM-Infinite or the symbolic style.

    Args:
        gold_solutions: the texts that completions are compared with.
        completions: n for gold solution 0, then n for gold solution 1, ...
        unreadable_gold: what to do about a gold solution without a readable answer or step: raise an "error", or "mark"
            its completions, for which `gold_readable` of the verdicts is then False.
        finished, answer_may_end_text: see `grade`.
        threads: 0 uses all cores.
    Raises:
        ValueError: a gold solution is not readable, or the number of completions is not a multiple of the number of
            gold solutions.

    >>> gold = "Define red kite in Alder Field as q; so q = 2. Answer: 2."
    >>> grade_texts([gold], ["Define red kite in Alder Field as Z; so Z = 2. Answer: 2."]).verified
    array([ True])
    """
    threads = check_threads(threads)
    gold: list[str | bytes] = texts("grade_texts: gold_solutions", gold_solutions)
    written: list[str | bytes] = texts("grade_texts: completions", completions)
    if unreadable_gold not in ("error", "mark"):
        raise ValueError(f'grade_texts: unreadable_gold must be "error" or "mark", got {unreadable_gold!r}')
    verdicts = Verdicts._from_core(
        _core.grade_texts(
            gold, written, **_end_arguments(len(written), finished, answer_may_end_text), threads=threads
        ),
        partial(_unchanged, gold, written),
    )
    if unreadable_gold == "error" and not verdicts.gold_readable.all():
        first = int(verdicts.gold_readable.argmin())
        index = first * len(gold) // len(written)
        what = "answer" if np.isnan(verdicts.gold_steps.answer[first]) else "step"
        raise ValueError(f"grade_texts: gold_solutions[{index}] has no readable {what}: {gold[index]!r:.80}")
    return verdicts


def _end_arguments(
    n: int,
    finished: np.ndarray | Sequence[bool] | None,
    answer_may_end_text: bool | np.ndarray | Sequence[bool],
) -> dict[str, np.ndarray | None]:
    """The arguments of the core that say how n completions end."""
    may_be_open = flags("answer_may_end_text", answer_may_end_text)
    return {
        "finished": None if finished is None else flags("finished", finished),
        "answer_may_end_text": np.full(n, may_be_open) if may_be_open.ndim == 0 else may_be_open,
    }


# The input of the released scorer, built on demand. Module-level functions, so that verdicts can be pickled.


def _unchanged(gold: list[Any], texts: list[Any]) -> tuple[list[Any], list[Any]]:
    return gold, texts


def _with_solutions(batch: ProblemBatch, texts: list[Any]) -> tuple[list[Any], list[Any]]:
    return batch.solutions, texts


def _decoded(batch: ProblemBatch, tokens: np.ndarray, tokenizer: Tokenizer) -> tuple[list[Any], list[Any]]:
    ends = (tokens == tokenizer.eos_id) | (tokens == tokenizer.pad_id)
    lengths = np.where(ends.any(axis=1), ends.argmax(axis=1), tokens.shape[1])
    return batch.solutions, [tokenizer.decode(row[:n]) for row, n in zip(tokens, lengths, strict=True)]
