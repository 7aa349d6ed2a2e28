"""The released scorer's reading and scores in plain Python: regular expressions and a walk over a syntax tree.

The C++ scorer (csrc/grade/released*.cpp) must agree with this in every field. It is written to be read, not to be fast:
its header expression takes quadratic time, so keep texts short.

Three things the released program does are refused in both, and a step whose number needs one falls back to the last
number written: powers, integers of 2**1024 and more, and characters that are no UTF-8, which read as U+FFFD.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field

HEADER = re.compile(r"Define\s+(.*?)\s+(?:as|a)\s+(?:[A-Za-z]+\s+)*([A-Za-z]);", re.IGNORECASE | re.DOTALL)
ASSIGNMENT = re.compile(r"([A-Za-z])\s*=\s*([^.;]+)")
NUMBER = r"[-+]?\d+(?:\.\d+)?"
TOLERANCE = 1e-6


@dataclass
class Step:
    name: str
    letter: str
    body: str
    value: float | None = None
    parents: set[str] = field(default_factory=set)
    final_parts: list[str] = field(default_factory=list)  # of the assignments to its own letter


@dataclass
class Reading:
    steps: list[Step]
    answer: float | None

    @property
    def by_name(self) -> dict[str, Step]:
        return {step.name: step for step in self.steps}  # the last definition counts


def as_text(text: str | bytes) -> str:
    raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    return raw.decode("utf-8", "replace")


# --- numbers --------------------------------------------------------------------------------------------------------


def evaluate(final_part: str, values: dict[str, float]) -> float | None:
    """Python's value of the expression once its stand-alone letters are replaced by the digits of their values."""

    def digits(match: re.Match[str]) -> str:
        return str(values[match[0]]) if match[0] in values else match[0]

    source = re.sub(r"\b[A-Za-z]\b", digits, final_part).strip()
    if not re.fullmatch(r"[0-9+\-*/().\s]+", source):
        return None
    try:
        return float(number_of(ast.parse(source, mode="eval").body))
    except (SyntaxError, ValueError, ArithmeticError, TypeError, MemoryError, RecursionError):
        return None


def number_of(node: ast.expr) -> int | float:
    match node:
        case ast.Constant(value=int() | float() as value):
            result = value
        case ast.UnaryOp(op=ast.USub()):
            result = -number_of(node.operand)
        case ast.UnaryOp():
            result = number_of(node.operand)
        case ast.BinOp(op=ast.Add() | ast.Sub() | ast.Mult() | ast.Div() | ast.FloorDiv()):
            left, right = number_of(node.left), number_of(node.right)
            match node.op:
                case ast.Add():
                    result = left + right
                case ast.Sub():
                    result = left - right
                case ast.Mult():
                    result = left * right
                case ast.Div():
                    result = left / right
                case _:
                    result = left // right
        case _:
            raise ValueError("a power, a call or a tuple")
    if isinstance(result, int) and abs(result) >= 2**1024:
        raise ValueError("a huge integer")
    return result


def last_number(text: str) -> float | None:
    numbers = re.findall(NUMBER, text)
    return float(numbers[-1]) if numbers else None


# --- reading --------------------------------------------------------------------------------------------------------


def numeric_answer(text: str) -> float | None:
    for pattern, flags in ((rf"<answer>\s*({NUMBER})", re.IGNORECASE), (rf"Answer:\s*({NUMBER})", re.NOFLAG)):
        if match := re.search(pattern, text, flags):
            return float(match[1])
    return None


def tidy_name(name: str) -> str:
    name = " ".join(name.split()).replace("\ufffd", "").strip(" .;")
    return re.split(r"\bDefine\s+", name, flags=re.IGNORECASE)[-1].strip(" .;")


def read_step(step: Step, name_of: dict[str, str], values: dict[str, float]) -> None:
    inner: dict[str, set[str]] = {}  # parents of the intermediates of this step
    for assignment in ASSIGNMENT.finditer(step.body):
        target, expression = assignment[1], assignment[2]
        final_part = expression.split("=")[-1].strip()
        parents: set[str] = set()
        for letter in re.findall("[A-Za-z]", expression):
            parents |= inner.get(letter, set()) | ({name_of[letter]} if letter in name_of else set())
        if target == step.letter:
            step.parents |= parents
            step.final_parts.append(final_part)
        else:
            inner[target] = inner.get(target, set()) | parents
        value = evaluate(final_part, values)
        if value is None:
            value = last_number(assignment[0])
        if value is not None:
            values[target] = value
            if target == step.letter:
                step.value = value
    if step.value is None:
        step.value = last_number(step.body)
        if step.value is not None:
            values[step.letter] = step.value


def read(text: str | bytes) -> Reading:
    text = as_text(text)
    untagged = re.sub("<[^>]+>", "", text).strip()
    headers = list(HEADER.finditer(untagged))
    starts = [header.start() for header in headers] + [len(untagged)]
    steps, name_of, values = [], {}, {}
    for header, end in zip(headers, starts[1:], strict=True):
        body = untagged[header.end() : end].split("Answer:")[0]
        step = Step(tidy_name(header[1]), header[2], body)
        read_step(step, name_of, values)
        name_of[step.letter] = step.name
        steps.append(step)
    for step in steps:
        if step.value is None:
            candidates = (evaluate(part, values) for part in reversed(step.final_parts))
            step.value = next((value for value in candidates if value is not None), values.get(step.letter))
        if step.value is not None:
            values[step.letter] = step.value
    return Reading(steps, numeric_answer(text))


# --- the two scores -------------------------------------------------------------------------------------------------


def tagged_answer(text: str) -> str | None:
    if match := re.search("<answer>(.*?)</answer>", text, re.DOTALL | re.IGNORECASE):
        return match[1].strip()
    # the place is found in the text in lower case and used in the text: they differ behind U+0130
    at = text.lower().rfind("<answer>")
    return None if at < 0 else re.split("[<\n]", text[at + len("<answer>") :])[0].strip()


def gold_answer(solution: str) -> str:
    answer = tagged_answer(solution)
    if answer is None:
        match = re.search(r"Answer:\s*(.*)", solution, re.IGNORECASE)
        answer = match[1].strip().split("<")[0].strip() if match else ""
    return answer.rstrip(".").strip().rstrip(".")


def differ(a: float | None, b: float | None) -> bool:
    return (a is None) != (b is None) or (a is not None and b is not None and abs(a - b) > TOLERANCE)


def score(solution: str | bytes, completion: str | bytes) -> dict[str, object]:
    gold, predicted = read(solution), read(completion)
    solution, completion = as_text(solution), as_text(completion)
    gold_steps, steps = gold.by_name, predicted.by_name
    pairs = [(name, gold_steps[name], steps[name]) for name in sorted(gold_steps.keys() & steps.keys())]
    report = {
        "missing": sorted(gold_steps.keys() - steps.keys()),
        "extra": sorted(steps.keys() - gold_steps.keys()),
        "wrong_value": [name for name, a, b in pairs if differ(a.value, b.value)],
        "wrong_parents": [name for name, a, b in pairs if a.parents != b.parents],
    }
    missing, extra, wrong_value, wrong_parents = report.values()
    num_gold, answer_mismatch = len(gold_steps), differ(gold.answer, predicted.answer)
    wrong = len(set(wrong_value) | set(wrong_parents)) + len(missing)
    penalty = len(wrong_value) + len(wrong_parents) + len(missing) + min(len(extra), max(num_gold, 1)) + answer_mismatch
    want = gold_answer(solution)
    outcome = float(want != "" and (tagged_answer(completion) or "").rstrip(".") == want)
    process_reward = max(0.0, 1.0 - penalty / max(num_gold, 1)) if solution.strip() else outcome
    return report | {
        "num_gold": num_gold,
        "num_predicted": len(steps),
        "answer": predicted.answer,
        "answer_mismatch": answer_mismatch,
        "verified": wrong == 0 and not answer_mismatch,
        "process_accuracy": 1.0 - wrong / num_gold if num_gold else 1.0,
        "outcome": outcome,
        "penalty": penalty,
        "process_reward": process_reward,
    }
