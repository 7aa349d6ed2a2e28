"""The step verifier: completions against gold solutions, step by step.

Definitions (arXiv 2512.07783, section 2). For a gold step v: s(v) = 1 iff a predicted step has its name, its set of
parents and its value. process_accuracy = mean of s over gold steps; verified = process_accuracy is 1 and the completion
ends with its one answer, which is the gold answer. Extra steps do not matter. `sound` is stricter: nothing that is
printed may be wrong. docs/grading.md says how text is read.
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
from ..runtime.arguments import integers, listed
from ..tasks.stream import ProblemBatch
from ..text.tokenizer import Tokenizer
from .marked_steps import marked_text
from .released import released_verdicts

# completions that a notebook shows
_SHOWN = 8


class StepStatus(IntEnum):
    """What the verifier says of one predicted step.

    Where several things are wrong: repeated or extra, undefined variable, wrong parents, unreadable, wrong operator,
    arithmetic slip, wrong value, in this order.
    """

    RIGHT = 0
    """A gold step: its parents, its definition, every number on the way and its value."""
    WRONG_VALUE = 1
    """Defined as in the gold solution and carried out as printed, but from a wrong value."""
    WRONG_PARENTS = 2
    """Its set of parents differs from the gold one."""
    WRONG_OPERATOR = 3
    """The same parents, but another operator, constant or order of operands."""
    ARITHMETIC_SLIP = 4
    """One of its equalities does not hold."""
    UNDEFINED_VARIABLE = 5
    """It uses a variable that nothing before it defines."""
    REPEATED = 6
    """A later step has the same name; that one counts."""
    EXTRA = 7
    """No gold step has this name."""
    UNREADABLE = 8
    """One of its equalities cannot be read, as where a number is none, or its value is given twice or never."""


class Ending(IntEnum):
    """How a completion ends. Where several hold, the last of this list that does."""

    CLOSED = 0
    """With one answer that is closed, and nothing but white space behind it."""
    NO_ANSWER = 1
    """There is neither `<answer>` nor `Answer:`."""
    TEXT_AFTER_ANSWER = 2
    """Something stands behind the answer."""
    SEVERAL_ANSWERS = 3
    """A further `<answer>` or `Answer:` follows the first one."""
    UNFINISHED = 4
    """At its limit, or while an answer is open."""


@dataclass(frozen=True, eq=False, repr=False)
class Steps:
    """The predicted steps of all completions, one after the other.

    Args:
        offsets: int64 [n + 1]: the steps of completion i are offsets[i] .. offsets[i + 1] - 1.
        status: uint8 [steps], a StepStatus.
        correct: bool [steps]: s(v) of the published measure, whatever its status; at most one step a gold step.
        gold_step: int32 [steps]: the index of the gold step of the same name, -1 if there is none.
        name: uint64 [steps]: a hash of the name; equal names have equal ones.
        value: float64 [steps]: what the step gives, with the unknown put at the answer; not a number if nothing.
        begin, end: int32 [steps]: where the step stands in the completion: characters of a str, bytes of bytes,
            characters of the decoded text of token ids.
        token_begin, token_end: int32 [steps]: the same in tokens; None for texts.
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

    def __repr__(self) -> str:
        of = f"{len(self.status):,} steps of {len(self.offsets) - 1:,} completions"
        return f"Steps({of}, {self.correct.sum():,} correct)"

    @cached_property
    def completion(self) -> np.ndarray:
        """int64 [steps]: the completion that each step belongs to."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))


@dataclass(frozen=True, eq=False)
class GoldSteps:
    """The gold steps of all completions, one after the other.

    Args:
        offsets: int64 [n + 1]: those of completion i are offsets[i] .. offsets[i + 1] - 1.
        found: int32 [gold steps]: the predicted step with the same name, counted from the completion's first, -1 if it
            is missing.
        answer: float64 [n]: the gold answer of each completion; not a number if none can be read.
        readable: bool [n]: the gold solution has an answer, and steps that all have a value. If not, nothing is
            verified.
    """

    offsets: np.ndarray
    found: np.ndarray
    answer: np.ndarray
    readable: np.ndarray


@dataclass(frozen=True, eq=False, repr=False)
class Verdicts:
    """What the verifier says of n completions, as arrays.

    Args:
        ending: uint8 [n], an Ending.
        answer_correct: bool [n]: the ending is CLOSED, and the answer is the gold answer.
        verified: bool [n]: so it is, and every gold step is correct.
        sound: bool [n]: verified, and nothing that is printed is wrong: every equality holds, every step is defined as
            in the gold solution from what was defined before, and the equation of a reverse problem is solved exactly.
        process_accuracy: float32 [n]: the share of gold steps that are correct.
        answer: float64 [n]: the first answer; not a number if there is none, it is open, or what stands there is none.
        num_missing: int32 [n]: gold steps without a step of their name.
        steps: the predicted steps.
        gold_steps: which gold steps they are.
        length: the second dimension of the token ids, None for texts.

    `released_verified` (bool [n]), `released_process_accuracy`, `released_outcome` and `released_process_reward`
    (float32 [n]) are the verdicts of the scorer that was released with the paper, defects included, for statements
    about published numbers. They are computed, in Python, when first asked for: a few thousand completions a second.
    That scorer reads the published style alone: of gold solutions in which it finds no step the first is False, process
    accuracy and reward are not a number.
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
        """For notebooks: the first completions, their steps green where right, red where wrong, grey where extra."""
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
        """bool [n]: the gold solution has an answer and steps that can be read. Where not, the verdicts say nothing."""
        return self.gold_steps.readable

    @property
    def released_verified(self) -> np.ndarray:
        return self._released["released_verified"]

    @property
    def released_process_accuracy(self) -> np.ndarray:
        return self._released["released_process_accuracy"]

    @property
    def released_outcome(self) -> np.ndarray:
        return self._released["released_outcome"]

    @property
    def released_process_reward(self) -> np.ndarray:
        return self._released["released_process_reward"]

    @cached_property
    def _released(self) -> dict[str, np.ndarray]:
        assert self._texts is not None, "Verdicts come from grade or grade_texts"
        return released_verdicts(*self._texts())

    def token_rewards(
        self, step_rewards: np.ndarray | None = None, *, at: Literal["every", "last"] = "every"
    ) -> np.ndarray:
        """What each step earns, put on the tokens that wrote it: per-token rewards or advantages.

            out[i, t] = step_rewards[s] for the tokens t of step s of completion i, 0 for all others

        Args:
            step_rewards: float [steps], one for each of `steps`; default 1 for correct steps and 0 for others.
            at: "every" token of a step gets its reward, or its "last" one alone. A token that two steps share belongs
                to the later one.
        Returns:
            float32 [n, length].
        Raises:
            ValueError: the verdicts are of texts, or step_rewards has another shape.

        >>> problems = fr.TaskStream(fr.Mixture.uniform(op=[2], themes=["symbolic"]), seed=0)[0:1]
        >>> tokenizer = fr.Tokenizer.build(["symbolic"])
        >>> ids = tokenizer.encode(f" {problems.solutions[0]}")[None]
        >>> fr.grade(problems, ids, tokenizer=tokenizer).token_rewards(at="last")
        array([[0., 1., 0., 0., 0., 0., 1., 0., 0., 0., 0.]], dtype=float32)
        """
        steps = self.steps
        if self.length is None or steps.token_begin is None or steps.token_end is None:
            raise ValueError("token_rewards: these are verdicts of texts; grade token ids to know where tokens are")
        values = steps.correct.astype(np.float32) if step_rewards is None else np.asarray(step_rewards, np.float32)
        if values.shape != steps.status.shape:
            raise ValueError(
                f"token_rewards: step_rewards must be [{len(steps.status)}], one for each step, got {values.shape}"
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
    """Samples as token ids, such as a `RolloutOutput`."""

    @property
    def tokens(self) -> np.ndarray: ...
    @property
    def finished(self) -> np.ndarray: ...
    @property
    def tokenizer(self) -> Tokenizer | None: ...


@runtime_checkable
class TokenArray(Protocol):
    """An array or a tensor."""

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
        completions: flat, n for problem 0, then n for problem 1, ...: texts that continue the prompt; or integers
            [completions, length] of numpy or torch, rows that end at their first [EOS] or [PAD]; or the output of a
            `Rollout`, which knows its tokenizer and which samples are finished.
        tokenizer: whose ids they are; needed for integers only.
        finished: bool [completions]: False where a completion ran into its limit, so that it is UNFINISHED. Default:
            texts are whole, and a row without [EOS] and [PAD] is finished if it ends with `</answer>`.
        answer_may_end_text: True for texts whose tool stops at `</answer>` and cuts it off, as most do with stop
            strings: an answer that is open where a finished text ends is closed. One for all, or bool [completions]. A
            text that ran into its limit within the number looks the same: give `finished` too where it is known.
        threads: 0 uses all cores; the verdicts are the same for any number.
    Returns:
        Verdicts of len(completions) entries. Any text is graded; none is an error.
    Raises:
        ValueError: the number of completions is no multiple of the number of problems, a tokenizer is missing, or
            `finished` or `answer_may_end_text` has another length.
    """
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
        ends = _ends(len(completions), finished, answer_may_end_text)
        arrays = _core.grade_tokens(batch.core, completions, tokenizer.core, **ends, threads=threads)
        return Verdicts._from_core(arrays, partial(_decoded, batch, completions, tokenizer), completions.shape[1])
    texts: list[str | bytes] = listed("grade: completions", completions)
    ends = _ends(len(texts), finished, answer_may_end_text)
    return Verdicts._from_core(
        _core.grade_batch(batch.core, texts, **ends, threads=threads), partial(_with_solutions, batch, texts)
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
        gold_solutions: what completions are compared with.
        completions: flat, n for gold solution 0, then n for gold solution 1, ...
        unreadable_gold: a gold solution in which no answer or no step can be read is an "error"; or "mark" leaves it to
            the caller, who finds its completions where `gold_readable` of the verdicts is False.
        finished, answer_may_end_text: see `grade`.
        threads: 0 uses all cores.
    Raises:
        ValueError: a gold solution cannot be read, or completions do not go with the gold solutions in number.

    >>> gold = "Define red kite in Alder Field as q; so q = 2. Answer: 2."
    >>> grade_texts([gold], ["Define red kite in Alder Field as Z; so Z = 2. Answer: 2."]).verified
    array([ True])
    """
    gold: list[str | bytes] = listed("grade_texts: gold_solutions", gold_solutions)
    texts: list[str | bytes] = listed("grade_texts: completions", completions)
    if unreadable_gold not in ("error", "mark"):
        raise ValueError(f'grade_texts: unreadable_gold must be "error" or "mark", got {unreadable_gold!r}')
    verdicts = Verdicts._from_core(
        _core.grade_texts(gold, texts, **_ends(len(texts), finished, answer_may_end_text), threads=threads),
        partial(_as_they_are, gold, texts),
    )
    if unreadable_gold == "error" and not verdicts.gold_readable.all():
        first = int(verdicts.gold_readable.argmin())
        index = first * len(gold) // len(texts)
        what = "answer" if np.isnan(verdicts.gold_steps.answer[first]) else "step"
        raise ValueError(f"grade_texts: gold_solutions[{index}] has no {what} that can be read: {gold[index]!r:.80}")
    return verdicts


def _ends(
    n: int,
    finished: np.ndarray | Sequence[bool] | None,
    answer_may_end_text: bool | np.ndarray | Sequence[bool],
) -> dict[str, np.ndarray | None]:
    """What the core takes of the ends of n completions."""
    may_be_open = np.asarray(answer_may_end_text, dtype=bool)
    return {
        "finished": None if finished is None else np.asarray(finished, dtype=bool),
        "answer_may_end_text": np.full(n, may_be_open) if may_be_open.ndim == 0 else may_be_open,
    }


# What the released scorer is given, made when it is asked. Functions of the module, so that verdicts of texts pickle.


def _as_they_are(gold: list[Any], texts: list[Any]) -> tuple[list[Any], list[Any]]:
    return gold, texts


def _with_solutions(batch: ProblemBatch, texts: list[Any]) -> tuple[list[Any], list[Any]]:
    return batch.solutions, texts


def _decoded(batch: ProblemBatch, tokens: np.ndarray, tokenizer: Tokenizer) -> tuple[list[Any], list[Any]]:
    ends = (tokens == tokenizer.eos_id) | (tokens == tokenizer.pad_id)
    lengths = np.where(ends.any(axis=1), ends.argmax(axis=1), tokens.shape[1])
    return batch.solutions, [tokenizer.decode(row[:n]) for row, n in zip(tokens, lengths, strict=True)]
