"""An independent Python reading of the symbolic style, slow and plain; it shares no code with csrc."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

from tests.published import Quantity


@dataclass
class Problem:
    """What a problem's text says."""

    quantities: dict[str, Quantity]
    asked: str


@dataclass
class Step:
    """One step of a solution as written: name, parents and value."""

    name: str
    parents: list[str]
    has_constant: bool
    value: int


def read_problem(problem: str, question: str) -> Problem:
    quantities = {}
    assert problem.endswith(".")
    for sentence in problem[:-1].split(". "):
        name, expression = sentence.split(": ")
        assert name not in quantities
        quantities[name] = read_expression(expression)
    return Problem(quantities, re.fullmatch(r"(\w+) \?", question)[1])


def read_expression(text: str) -> Quantity:
    if text.isdigit():
        return Quantity(int(text), False, False, [])
    constant, times = None, False
    if match := re.match(r"(\d+) ([+*]) ", text):
        constant, times = int(match[1]), match[2] == "*"
        text = text[match.end() :]
    text = text.removeprefix("( ").removesuffix(" )")
    tokens = text.split()
    minus = "-" in tokens
    assert not minus or len(tokens) == 3
    return Quantity(constant, times, minus, tokens[::2])


def read_solution(body: str) -> list[Step]:
    """Checks every equality: each part must have the value of the one before it."""
    steps: list[Step] = []
    value_of: dict[str, int] = {}
    assert body.endswith(".")
    for sentence in body[:-1].split(". "):
        name, chain = sentence.split(": ")
        assert name not in value_of
        parts = chain.split(" = ")
        names = re.findall(r"[A-Za-z]+", parts[0])
        first = re.sub(r"[A-Za-z]+", lambda match: str(value_of[match[0]]), parts[0])
        assert parts[1:2] in ([], [first])
        results = {_arithmetic(part) for part in parts[1:] or parts}
        assert len(results) == 1
        for earlier, later in pairwise(parts[1:]):
            assert len(re.findall(r"\d+", later)) == len(re.findall(r"\d+", earlier)) - 1  # one operation a part
        value_of[name] = results.pop()
        assert parts[-1] == str(value_of[name])
        steps.append(Step(name, names, re.search(r"\d", parts[0]) is not None, value_of[name]))
    return steps


def _arithmetic(text: str) -> int:
    assert re.fullmatch(r"[0-9+*() -]+", text)
    return eval(text)  # digits and operators alone, by the line above


def is_total(name: str, problem: Problem) -> bool:
    return name not in problem.quantities


def parts_of_total(name: str, problem: Problem) -> set[str]:
    """The counts that a total sums: "B" is the total of "Ba", "Be", ..."""
    return {quantity for quantity in problem.quantities if quantity[:-1] == name}


def solve(problem: Problem) -> tuple[int, set[str]]:
    """The answer from the problem's text alone, and the quantities that it depends on."""
    values: dict[str, int] = {}

    def value(name: str) -> int:
        if name not in values:
            if is_total(name, problem):
                values[name] = sum(value(part) for part in parts_of_total(name, problem))
            else:
                quantity = problem.quantities[name]
                operands = [value(parent) for parent in quantity.parents]
                base = operands[0] - operands[1] if quantity.minus else sum(operands)
                if quantity.constant is not None:
                    base = quantity.constant * base if quantity.times else quantity.constant + base
                values[name] = base
        return values[name]

    return value(problem.asked), set(values)


def count_operations(steps: list[Step]) -> int:
    """op by its definition: the incoming edges of the solution's graph, a constant being one."""
    return sum(len(set(step.parents)) + step.has_constant for step in steps)
