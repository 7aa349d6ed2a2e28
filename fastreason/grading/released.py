"""The scorer released with arXiv 2512.07783, bugs included: the scores of its evaluation and of its reward.

For comparison with published numbers: fields of `Verdicts` that are computed on first access, at a few thousand
completions per second. It parses only the published style. docs/grading.md compares it with the verifier.

It differs only on input that could harm the released program: powers, integers of 2**1024 and more, and expressions of
more than 1,000 characters are rejected, and the value of such a step is the last number written. Bytes that are not
UTF-8 are decoded as U+FFFD. The time is linear in the text.
"""

from __future__ import annotations

import ast
import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

TOLERANCE = 1e-6

_NUMBER = r"[-+]?\d+(?:\.\d+)?"
_NUMBERS = re.compile(_NUMBER)
_ASSIGNMENT = re.compile(r"([A-Za-z])\s*=\s*([^.;]+)")
_ALONE = re.compile(r"\b[A-Za-z]\b")
_ARITHMETIC = re.compile(r"[0-9+\-*/().\s]+")
_LONGEST_EXPRESSION = 1000
_PLAIN = re.compile("0|[1-9][0-9]{0,14}")

# `Define\s+(.*?)\s+(?:as|a)\s+(?:[A-Za-z]+\s+)*([A-Za-z]);`, any case, `.` every character, in parts: as one expression
# it takes quadratic time
_DEFINE = re.compile(r"Define\s+", re.IGNORECASE)
_LAST_LETTER = re.compile(r"\s[A-Za-z];", re.IGNORECASE)
_WORDS = re.compile(r"[A-Za-z\s]+", re.IGNORECASE)
_AS = re.compile(r"(?<=\s)(?:as|a)(?=\s)", re.IGNORECASE)


class Header(NamedTuple):
    """A header, "Define NAME as V;", and its span `begin` to `end`."""

    begin: int
    end: int
    name: str
    letter: str


@dataclass
class Step:
    """A parsed step; of several with the same name the last counts."""

    letter: str
    value: float | None = None
    parents: set[str] = field(default_factory=set)
    final_parts: list[str] = field(default_factory=list)  # of the assignments to its own letter


@dataclass(frozen=True)
class Reading:
    """A parsed text: its steps in order, by name, and its answer as a number."""

    steps: list[tuple[str, Step]]
    answer: float | None


@dataclass(frozen=True)
class Score:
    """The released scorer's result for one completion; the lists contain names of steps."""

    missing: list[str]
    extra: list[str]
    wrong_value: list[str]
    wrong_parents: list[str]
    num_gold: int
    num_predicted: int
    answer: float | None
    answer_mismatch: bool
    outcome: float
    """1 if the texts of the answers are equal."""
    has_gold: bool
    """Whether there is any gold text."""

    @property
    def num_wrong(self) -> int:
        return len({*self.wrong_value, *self.wrong_parents}) + len(self.missing)

    @property
    def verified(self) -> bool:
        return self.num_wrong == 0 and not self.answer_mismatch

    @property
    def process_accuracy(self) -> float:
        return 1.0 - self.num_wrong / self.num_gold if self.num_gold else 1.0

    @property
    def penalty(self) -> int:
        extra = min(len(self.extra), max(self.num_gold, 1))
        return len(self.wrong_value) + len(self.wrong_parents) + len(self.missing) + extra + self.answer_mismatch

    @property
    def process_reward(self) -> float:
        return max(0.0, 1.0 - self.penalty / max(self.num_gold, 1)) if self.has_gold else self.outcome


def released_verdicts(
    gold_solutions: Sequence[str | bytes], completions: Sequence[str | bytes]
) -> dict[str, np.ndarray]:
    """The `released_*` fields of `Verdicts`, for n completions of each gold solution."""
    scores = list(score(gold_solutions, completions))
    read = np.array([score.num_gold > 0 for score in scores], dtype=bool)

    def shares(values: list[float]) -> np.ndarray:
        return np.where(read, np.array(values, dtype=np.float32), np.float32(np.nan))

    return {
        "released_verified": np.array([score.verified for score in scores], dtype=bool) & read,
        "released_process_accuracy": shares([score.process_accuracy for score in scores]),
        "released_outcome": np.array([score.outcome for score in scores], dtype=np.float32),
        "released_process_reward": shares([score.process_reward for score in scores]),
    }


def score(gold_solutions: Sequence[str | bytes], completions: Sequence[str | bytes]) -> Iterator[Score]:
    """One score for each of n completions of gold solution 0, then of gold solution 1, ..."""
    each = len(completions) // max(len(gold_solutions), 1)
    for i, solution in enumerate(gold_solutions):
        solution = _as_text(solution)
        gold, want = read(solution), _gold_answer(solution)
        for completion in completions[i * each : (i + 1) * each]:
            completion = _as_text(completion)
            outcome = float(want != "" and (_tagged_answer(completion) or "").rstrip(".") == want)
            yield _compare(gold, read(completion), outcome, has_gold=bool(solution.strip()))


def _compare(gold: Reading, predicted: Reading, outcome: float, has_gold: bool) -> Score:
    gold_steps, steps = dict(gold.steps), dict(predicted.steps)
    pairs = [(name, gold_steps[name], steps[name]) for name in sorted(gold_steps.keys() & steps.keys())]
    return Score(
        missing=sorted(gold_steps.keys() - steps.keys()),
        extra=sorted(steps.keys() - gold_steps.keys()),
        wrong_value=[name for name, a, b in pairs if _differ(a.value, b.value)],
        wrong_parents=[name for name, a, b in pairs if a.parents != b.parents],
        num_gold=len(gold_steps),
        num_predicted=len(steps),
        answer=predicted.answer,
        answer_mismatch=_differ(gold.answer, predicted.answer),
        outcome=outcome,
        has_gold=has_gold,
    )


def _differ(a: float | None, b: float | None) -> bool:
    return (a is None) != (b is None) or (a is not None and b is not None and abs(a - b) > TOLERANCE)


def _as_text(text: str | bytes) -> str:
    raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    return raw.decode("utf-8", "replace")


# --- parsing --------------------------------------------------------------------------------------------------------


def read(text: str | bytes) -> Reading:
    """Parses the steps and the answer of a text."""
    text = _as_text(text)
    untagged = _without_tags(text).strip()
    found = list(headers(untagged))
    steps: list[tuple[str, Step]] = []
    name_of: dict[str, str] = {}
    values: dict[str, float] = {}
    for header, end in zip(found, [*(header.begin for header in found[1:]), len(untagged)], strict=False):
        name, step = _tidy(header.name), Step(header.letter)
        _read_body(step, untagged[header.end : end].split("Answer:")[0], name_of, values)
        name_of[step.letter] = name
        steps.append((name, step))
    for _, step in steps:
        if step.value is None:
            candidates = (evaluate(part, values) for part in reversed(step.final_parts))
            step.value = next((value for value in candidates if value is not None), values.get(step.letter))
        if step.value is not None:
            values[step.letter] = step.value
    return Reading(steps, _numeric_answer(text))


def headers(text: str) -> Iterator[Header]:
    """Yields the headers of a text: each the first after the previous one, with the shortest name followed by a
    letter."""
    tails = list(_tails(text))
    ends = [blanks_end for _, blanks_end, _ in tails]
    at = 0
    while define := _DEFINE.search(text, at):
        name_begin = define.end()
        if (i := bisect_left(ends, name_begin + 1)) < len(tails):
            blanks, _, letter = tails[i]
            name_end = max(blanks, name_begin)
        elif ends and ends[-1] == name_begin and text[name_begin - 2].isspace():
            # no tail after the spaces, but they end in one: the last of them is its space, and the name is empty
            name_begin = name_end = name_begin - 1
            letter = tails[-1][2]
        else:
            return
        at = letter + 2
        yield Header(define.start(), at, text[name_begin:name_end], text[letter])


def _tails(text: str) -> Iterator[tuple[int, int, int]]:
    """For every "as" or "a" that only words of letters separate from one letter and a semicolon: begin and end of the
    spaces before it, and the position of the letter."""
    for last in _LAST_LETTER.finditer(text):
        letter = last.start() + 1
        begin = text.rfind(";", 0, letter) + 1
        words = _WORDS.match(text[begin:letter][::-1])  # backwards from the letter, up to the first non-word
        begin = letter - (words.end() if words else 0)
        for word in _AS.finditer(text, begin, letter):
            blanks = word.start() - 1
            while blanks > begin and text[blanks - 1].isspace():
                blanks -= 1
            yield blanks, word.start(), letter


def _read_body(step: Step, body: str, name_of: dict[str, str], values: dict[str, float]) -> None:
    inner: dict[str, set[str]] = {}  # parents of the intermediate results of this step
    for assignment in _ASSIGNMENT.finditer(body):
        target, expression = assignment[1], assignment[2]
        final_part = expression.split("=")[-1].strip()
        parents: set[str] = set()
        for letter in set(re.findall("[A-Za-z]", expression)):
            parents |= inner.get(letter, set()) | ({name_of[letter]} if letter in name_of else set())
        if target == step.letter:
            step.parents |= parents
            step.final_parts.append(final_part)
        else:
            inner[target] = inner.get(target, set()) | parents
        value = evaluate(final_part, values)
        if value is None:
            value = _last_number(assignment[0])
        if value is not None:
            values[target] = value
            if target == step.letter:
                step.value = value
    if step.value is None:
        step.value = _last_number(body)
        if step.value is not None:
            values[step.letter] = step.value


def _without_tags(text: str) -> str:
    """Removes everything from "<" to ">", except "<>". There can be no tag after the last ">"."""
    end = text.rfind(">") + 1
    return re.sub("<[^>]+>", "", text[:end]) + text[end:]


def _tidy(name: str) -> str:
    name = " ".join(name.split()).replace("\ufffd", "").strip(" .;")
    return re.split(r"\bDefine\s+", name, flags=re.IGNORECASE)[-1].strip(" .;")


# --- answers --------------------------------------------------------------------------------------------------------


def _numeric_answer(text: str) -> float | None:
    for pattern, flags in ((rf"<answer>\s*({_NUMBER})", re.IGNORECASE), (rf"Answer:\s*({_NUMBER})", re.NOFLAG)):
        if match := re.search(pattern, text, flags):
            return float(match[1])
    return None


def _tagged_answer(text: str) -> str | None:
    begin = re.search("<answer>", text, re.IGNORECASE)
    if begin and (end := re.compile("</answer>", re.IGNORECASE).search(text, begin.end())):
        return text[begin.end() : end.start()].strip()
    # the position is found in the lower-case text and used in the original; they differ after U+0130
    at = text.lower().rfind("<answer>")
    return None if at < 0 else re.split("[<\n]", text[at + len("<answer>") :], maxsplit=1)[0].strip()


def _gold_answer(solution: str) -> str:
    answer = _tagged_answer(solution)
    if answer is None:
        match = re.search(r"Answer:\s*(.*)", solution, re.IGNORECASE)
        answer = match[1].strip().split("<")[0].strip() if match else ""
    return answer.rstrip(".").strip().rstrip(".")


# --- numbers --------------------------------------------------------------------------------------------------------


def _last_number(text: str) -> float | None:
    numbers = _NUMBERS.findall(text)
    return float(numbers[-1]) if numbers else None


def evaluate(expression: str, values: dict[str, float]) -> float | None:
    """The value in Python of an expression whose stand-alone letters are replaced by the digits of their values."""
    if _PLAIN.fullmatch(expression):  # most are
        return float(expression)
    if len(expression) > _LONGEST_EXPRESSION:
        return None
    source = _ALONE.sub(lambda match: str(values.get(match[0], match[0])), expression).strip()
    if len(source) > _LONGEST_EXPRESSION or not _ARITHMETIC.fullmatch(source):
        return None
    try:
        return float(_number_of(ast.parse(source, mode="eval").body))
    except (SyntaxError, ValueError, ArithmeticError, TypeError, MemoryError, RecursionError):
        return None


def _number_of(tree: ast.expr) -> int | float:
    """Its value; ValueError for a power, a call, a tuple or a huge integer."""
    values: dict[ast.AST, int | float] = {}
    for node in reversed(list(ast.walk(tree))):  # operands before the expressions that use them
        match node:
            case ast.Constant(value=int() | float() as number):
                values[node] = number
            case ast.UnaryOp(op=op, operand=operand):
                values[node] = -values[operand] if isinstance(op, ast.USub) else values[operand]
            case ast.BinOp(left=left, op=op, right=right):
                values[node] = _combined(values[left], op, values[right])
            case ast.expr():
                raise ValueError("a call or a tuple")
        number = values.get(node, 0)
        if isinstance(number, int) and abs(number) >= 2**1024:
            raise ValueError("a huge integer")
    return values[tree]


def _combined(left: int | float, op: ast.operator, right: int | float) -> int | float:
    match op:
        case ast.Add():
            return left + right
        case ast.Sub():
            return left - right
        case ast.Mult():
            return left * right
        case ast.Div():
            return left / right
        case ast.FloorDiv():
            return left // right
    raise ValueError("a power")
