"""The verifier in plain Python: regular expressions, syntax trees and polynomials. Slow, and shares no code with csrc.

`read` is the reading of docs/grading.md that `verified` rests on, for any text. `is_sound` says of a solution that is
written as the format has it whether everything that it prints is right, from the text of the problem and not from a
gold solution.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

from tests import published, symbolic
from tests.published import Polynomial

HEADER = re.compile(
    r"define\s(?P<name>\s*\S.*?)\s(?:as|a)\s+(?:[a-z]+\s+)*(?P<letter>[a-z])\s*;", re.ASCII | re.IGNORECASE | re.DOTALL
)
OPENING = re.compile(r"(?i:<answer>)|Answer:")
BODY_END = re.compile(r"We\s+know\s+[A-Za-z]\s+=", re.ASCII)
CLAUSE = re.compile(r"([A-Za-z])\s*=((?:[^.;]|(?<=\d)\.(?=\d))+)", re.ASCII)
BLANKS = " \t\n\v\f\r"
TAGS = re.compile(r"</?(?:question|solution|answer)>")


# --- verified -------------------------------------------------------------------------------------------------------


@dataclass
class Step:
    name: str
    parents: set[str] = field(default_factory=set)
    value: float | None = None


def read_ending(text: str) -> tuple[str, float | None]:
    """The name of the Ending of a whole text, and the number that its first answer gives."""
    openings = list(OPENING.finditer(text))
    tags = re.findall(r"</?answer>", text, re.IGNORECASE)
    is_open = any(tag[1] != "/" for tag in tags) and tags[-1][1] != "/"
    if not openings:
        return "NO_ANSWER", None
    rest = text[openings[0].end() :]
    if openings[0][0] == "Answer:":
        found = re.match(r"(\s*(?:[^.\n\r]|\.(?=[^ \t-\r]))*\.?)(.*)", rest, re.ASCII | re.DOTALL)
    else:
        found = re.match(r"(.*?)</answer>(.*)", rest, re.IGNORECASE | re.DOTALL)
    content, behind = found.groups() if found else (None, "")
    value = None
    if content is not None and (number := re.fullmatch(r"\s*([-+]?)\s*0*(\d{1,15})\s*\.?\s*", content, re.ASCII)):
        value = float(number[1] + number[2])
    if is_open:
        ending = "UNFINISHED"
    elif len(openings) > 1:
        ending = "SEVERAL_ANSWERS"
    else:
        ending = "TEXT_AFTER_ANSWER" if behind.strip(BLANKS) else "CLOSED"
    return ending, value


def read(text: str) -> tuple[list[Step], float | None]:
    """Steps in the order of the text, a name perhaps more than once, and the answer."""
    answer = read_ending(text)[1]
    text = TAGS.sub("", OPENING.split(text, maxsplit=1)[0])
    steps: list[Step] = []
    names: dict[str, str] = {}  # of the step whose variable a letter is
    values: dict[str, float] = {}  # of letters, wherever they were given
    pending: list[tuple[Step, str]] = []
    headers = list(HEADER.finditer(text))
    for header, following in zip_longest(headers, headers[1:]):
        name = re.split(r"\bdefine\s", header["name"], flags=re.IGNORECASE | re.ASCII)[-1]
        step = Step(re.sub(r"[ \t-\r]+", " ", name.strip(" \t\n\v\f\r.;")))
        variable = header["letter"]
        body = text[header.end() : following.start() if following else len(text)]
        end = BODY_END.search(body)
        body = body[: end.start()] if end else body
        inner: dict[str, set[str]] = {}  # what the letters of this body depend on
        own = None
        for clause in CLAUSE.finditer(body):
            letter, chain = clause[1], clause[2]
            parts = chain.split("=")
            first = next((part for part in parts if part.strip(" \t\n\v\f\r")), "")
            found: set[str] = set()
            for used in re.findall(r"(?<!\w)[A-Za-z](?!\w)", first, re.ASCII):
                found |= inner.get(used) or ({names[used]} if used in names and used not in inner else set())
            value = evaluate(parts[-1], values)
            if letter == variable:
                step.parents |= found
                step.value, own = value, parts[-1]
            else:
                inner[letter] = found
            if value is not None:
                values[letter] = value
        if variable == "x" and re.search(r"(?:^|[.;])\s*we\s+don't\s+know", body, re.ASCII):
            step.value = answer
            if answer is not None:
                values["x"] = answer
        elif step.value is None and own is not None:
            pending.append((step, own))
        names[variable] = step.name
        steps.append(step)
    for step, part in reversed(pending):
        step.value = evaluate(part, values)
    return steps, answer


def evaluate(text: str, values: dict[str, float]) -> float | None:
    """Integers of at most 15 digits, + - * / and parentheses, single letters; None for all else."""
    text = text.strip(BLANKS)
    if not re.fullmatch(r"[0-9A-Za-z+\-*/()\s]+", text, re.ASCII) or re.search(
        r"\*\s*\*|/\s*/|[A-Za-z0-9_]*[A-Za-z]\w|\d[A-Za-z]|(?:^|[-+*/(])\s*[-+]\s*[-+]|(?<!\d)0*[1-9]\d{15}",
        text,
        re.ASCII,
    ):
        return None
    try:
        # leading zeros are no Python, and blanks may be line breaks
        return float(_number(ast.parse(re.sub(r"\s+", " ", re.sub(r"\b0+(?=\d)", "", text)), mode="eval").body, values))
    except (SyntaxError, KeyError, TypeError, ZeroDivisionError):
        return None


def _number(node: ast.expr, values: dict[str, float]) -> float:
    match node:
        case ast.Constant(value=int() as value):
            return value
        case ast.Name(id=name):
            return values[name]
        case ast.UnaryOp(op=op, operand=operand):
            return -_number(operand, values) if isinstance(op, ast.USub) else _number(operand, values)
        case ast.BinOp(left=left, op=op, right=right):
            a, b = _number(left, values), _number(right, values)
            match op:
                case ast.Add():
                    return a + b
                case ast.Sub():
                    return a - b
                case ast.Mult():
                    return a * b
                case ast.Div():
                    return a / b
    raise TypeError(node)


def grade(gold: str, completion: str) -> dict[str, Any]:
    (gold_steps, gold_answer), (steps, answer) = read(gold), read(completion)
    gold_ending, ending = read_ending(gold)[0], read_ending(completion)[0]
    wanted, found = ({step.name: step for step in some} for some in (gold_steps, steps))

    def same(a: float | None, b: float | None) -> bool:
        return a is None and b is None if a is None or b is None else abs(a - b) <= 1e-6

    right = [
        name in found and found[name].parents == step.parents and same(found[name].value, step.value)
        for name, step in wanted.items()
    ]
    answered = gold_ending == ending == "CLOSED" and answer is not None and answer == gold_answer
    return {
        "steps": [step.name for step in steps],
        "ending": ending,
        "answer": answer,
        "answer_correct": answered,
        "process_accuracy": sum(right) / len(right) if right else 0.0,
        "verified": bool(right) and all(right) and answered and all(step.value is not None for step in gold_steps),
        "num_missing": sum(name not in found for name in wanted),
    }


# --- sound ----------------------------------------------------------------------------------------------------------


def is_sound(problem: published.Problem, gold_names: set[str], solution: str) -> bool:
    """Of "Define ... Answer: r." as the format has it but for single signs: whether nothing in it is wrong."""
    try:
        steps, answer, told = published.read_solution(solution)  # checks letters, equalities and the solved equation
        if {step.name for step in steps} != gold_names or told != problem.told:
            return False
        if problem.unknown is None:
            target, _ = published.solve(problem, problem.asked)
            if answer != target or steps[-1].name != problem.asked:
                return False
        return _definitions_agree(problem, solution)
    except (AssertionError, LookupError, TypeError, ValueError, AttributeError, NameError, SyntaxError):
        return False


def _definitions_agree(problem: published.Problem, solution: str) -> bool:
    reverse = solution.startswith(published.INTRO)
    body = solution.rsplit(" Answer: ", 1)[0].removeprefix(published.INTRO).split(" We know ")[0]
    variables: dict[str, tuple[str, Polynomial]] = {}  # name and value of each step's variable
    for text in re.split(r"(?<=\.) (?=Define )", body):
        name, rest = re.fullmatch(r"Define (.+?) as ([A-Za-z]; .+)", text).groups()
        if reverse and rest == published.UNKNOWN:
            if name != problem.unknown:
                return False
            variables["x"] = (name, Polynomial(0, 1))
            continue
        made: dict[str, Any] = {letter: name for letter, (name, _) in variables.items()}
        values = {letter: value for letter, (_, value) in variables.items()}
        for clause in rest[3:-1].split("; "):
            target, first, *others = clause.removeprefix("so ").split(" = ")
            tree = ast.parse(first, mode="eval").body
            if len(others) == 2:  # the definition with its values put in
                put_in = shape(tree, {letter: written(value) for letter, value in values.items()})
                if put_in != shape(ast.parse(others[0], mode="eval").body, {}):
                    return False
            elif len(others) > 2:
                return False
            made[target] = shape(tree, made)
            values[target] = published._evaluate(others[-1] if others else first, values | {"x": Polynomial(0, 1)})
        variable = rest[0]
        if made[variable] != _wanted(problem, name):
            return False
        variables[variable] = (name, values[variable])
    return True


def written(value: Polynomial) -> Any:
    """The shape of a value as it is printed: 7, -3, 2*x + 3."""
    constant, slope = (*value.coefficients, 0, 0)[:2]
    number = constant if constant >= 0 else sum_of([], [-constant])
    if slope == 0:
        return number
    multiple = "x" if abs(slope) == 1 else product_of([abs(slope), "x"])
    terms = [number] if constant else []
    return sum_of([multiple, *terms]) if slope > 0 else sum_of(terms, [multiple])


def _wanted(problem: published.Problem, name: str) -> Any:
    """The definition of a quantity by the problem's sentences."""
    if name.startswith("total "):
        terms = [product_of(parts) for parts in problem.parts(name)]
        return sum_of(terms)
    return _of_quantity(problem.quantities[name])


def _of_quantity(quantity: published.Quantity) -> Any:
    if not quantity.parents:
        return quantity.constant
    base = sum_of(quantity.parents[:1], quantity.parents[1:]) if quantity.minus else sum_of(quantity.parents)
    if quantity.constant is None:
        return base
    return product_of([quantity.constant, base]) if quantity.times else sum_of([quantity.constant, base])


def shape(node: ast.expr, names: dict[str, Any]) -> Any:
    """An expression up to the order and grouping of terms and factors: nested tuples of sorted parts."""
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=name):
            return names.get(name, name)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return sum_of([], [shape(operand, names)])
        case ast.BinOp(left=left, op=op, right=right):
            a, b = shape(left, names), shape(right, names)
            if isinstance(op, ast.Mult):
                return product_of([a, b])
            return sum_of([a, b]) if isinstance(op, ast.Add) else sum_of([a], [b])
    raise ValueError(node)


def sum_of(plus: list[Any], minus: list[Any] | None = None) -> Any:
    positive: list[Any] = []
    negative: list[Any] = []
    for terms, to, other in ((plus, positive, negative), (minus or [], negative, positive)):
        for term in terms:
            is_sum = isinstance(term, tuple) and term[0] == "sum"
            to += term[1] if is_sum else [term]
            other += term[2] if is_sum else []
    if len(positive) == 1 and not negative:
        return positive[0]
    return ("sum", sorted(positive, key=repr), sorted(negative, key=repr))


def product_of(factors: list[Any]) -> Any:
    flat: list[Any] = []
    negative = False  # (-2) * x is -(2 * x)
    for factor in factors:
        if isinstance(factor, tuple) and factor[0] == "sum" and not factor[1] and len(factor[2]) == 1:
            negative, factor = not negative, factor[2][0]
        flat += factor[1] if isinstance(factor, tuple) and factor[0] == "product" else [factor]
    product = flat[0] if len(flat) == 1 else ("product", sorted(flat, key=repr))
    return sum_of([], [product]) if negative else product


def is_sound_symbolic(problem: symbolic.Problem, gold_names: set[str], solution: str) -> bool:
    """The same of "Ba: 2. Be: 3 + Ba = 3 + 2 = 5. ... Answer: r."."""
    try:
        body, answer = solution.rsplit(" Answer: ", 1)
        steps = symbolic.read_solution(body.strip())  # checks names and equalities
        if {step.name for step in steps} != gold_names or int(answer.rstrip(".")) != symbolic.solve(problem)[0]:
            return False
        for sentence, step in zip(body.strip()[:-1].split(". "), steps, strict=True):
            first = shape(ast.parse(sentence.split(": ")[1].split(" = ")[0], mode="eval").body, {})
            if first != _wanted_symbolic(problem, step.name):
                return False
        return True
    except (AssertionError, LookupError, TypeError, ValueError, AttributeError, NameError, SyntaxError):
        return False


def _wanted_symbolic(problem: symbolic.Problem, name: str) -> Any:
    if symbolic.is_total(name, problem):
        return sum_of(sorted(symbolic.parts_of_total(name, problem)))
    return _of_quantity(problem.quantities[name])
