"""An independent Python reading of problems and solutions, slow and plain: the oracle of the generator's tests.

It knows the grammar of docs/tasks.md and shares no code with csrc. Forward problems of depth 2 only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import pairwise


@dataclass
class Quantity:
    """A defined quantity: constant (or None), times or plus, difference or sum, and the parents by name."""

    constant: int | None
    times: bool
    minus: bool
    parents: list[str]


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
    variables: list[str] = field(default_factory=list)


# --- the published style --------------------------------------------------------------------------------------------


def read_published_problem(problem: str, question: str) -> Problem:
    quantities = {}
    assert problem.endswith(".")
    for sentence in problem[:-1].split(". "):
        subject, expression = re.fullmatch(r"The number of (.+?) equals (.+)", sentence).groups()
        assert subject not in quantities
        quantities[subject] = _published_expression(expression)
    if match := re.fullmatch(r"What is the (total .+)\?", question):
        asked = match[1]
    else:
        kind, place = re.fullmatch(r"How many (.+) does (.+) have\?", question).groups()
        asked = f"{kind} in {place}"
    return Problem(quantities, asked)


def _published_expression(text: str) -> Quantity:
    if text.isdigit():
        return Quantity(int(text), False, False, [])
    constant, times = None, False
    if match := re.match(r"(\d+) (plus|times) ", text):
        constant, times = int(match[1]), match[2] == "times"
        text = text[match.end() :]
    if match := re.fullmatch(r"the difference between (.+) and (.+)", text):
        return Quantity(constant, times, True, [_reference(part) for part in match.groups()])
    if text.startswith("the sum of "):
        parts = re.split(r", and | and |, ", text.removeprefix("the sum of "))
        assert len(parts) >= 2
        return Quantity(constant, times, False, [_reference(part) for part in parts])
    return Quantity(constant, times, False, [_reference(text)])


def _reference(text: str) -> str:
    name = text.removeprefix("the ")
    assert name != text
    return name.removeprefix("number of ") if name.startswith("number of ") else name


def read_published_solution(body: str) -> list[Step]:
    """Checks every letter, equality and `so` on the way."""
    steps: list[Step] = []
    variable_of: dict[str, Step] = {}
    letters: set[str] = set()
    for text in re.split(r"(?<=\.) ", body):
        name, variable, rest = re.fullmatch(r"Define (.+) as ([A-Za-z]); (.+)\.", text).groups()
        values: dict[str, int] = {}
        parents: list[str] = []
        has_constant = False
        clauses = rest.split("; ")
        for i, clause in enumerate(clauses):
            is_last = i + 1 == len(clauses)
            assert clause.startswith("so ") == is_last
            target, *parts = clause.removeprefix("so ").split(" = ")
            assert len(target) == 1 and target not in letters
            letters.add(target)
            assert (target == variable) == is_last
            operands = parts[0].split()
            if len(parts) == 1:
                assert operands[0].isdigit()
                has_constant = True
                values[target] = int(operands[0])
                continue
            numbers = []
            for token in operands[::2]:
                if token.isdigit():
                    has_constant = True
                    numbers.append(int(token))
                elif token in values:
                    numbers.append(values[token])
                else:
                    parents.append(variable_of[token].name)
                    numbers.append(variable_of[token].value)
            if len(operands) == 1:
                assert parts[1:] == [str(numbers[0])]
                values[target] = numbers[0]
            else:
                sign = operands[1]
                result = {"+": numbers[0] + numbers[1], "-": numbers[0] - numbers[1], "*": numbers[0] * numbers[1]}[
                    sign
                ]
                assert parts[1:] == [f"{numbers[0]} {sign} {numbers[1]}", str(result)]
                values[target] = result
        step = Step(name, parents, has_constant, values[variable], [c.removeprefix("so ")[0] for c in clauses])
        assert step.name not in {earlier.name for earlier in steps}
        steps.append(step)
        variable_of[variable] = step
    return steps


# --- the symbolic style ---------------------------------------------------------------------------------------------


def read_symbolic_problem(problem: str, question: str) -> Problem:
    quantities = {}
    assert problem.endswith(".")
    for sentence in problem[:-1].split(". "):
        name, expression = sentence.split(": ")
        assert name not in quantities
        quantities[name] = _symbolic_expression(expression)
    return Problem(quantities, re.fullmatch(r"(\w+) \?", question)[1])


def _symbolic_expression(text: str) -> Quantity:
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


def read_symbolic_solution(body: str) -> list[Step]:
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


# --- both -----------------------------------------------------------------------------------------------------------


def is_total(name: str, problem: Problem) -> bool:
    return name not in problem.quantities


def parts_of_total(name: str, problem: Problem) -> set[str]:
    """The counts that a total sums: published "total ... in PLACE", symbolic "B" of "Ba", "Be", ..."""
    if name.startswith("total "):
        place = name.rsplit(" in ", 1)[1]
        return {quantity for quantity in problem.quantities if quantity.endswith(" in " + place)}
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
