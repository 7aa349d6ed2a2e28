"""An independent Python reading of the published style, forward and reverse, depth 2 and 3: slow and plain.

It knows the grammar of docs/tasks.md, checks every letter and every equality on its way, and shares no code with csrc.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

INTRO = "The question is difficult, so we use equations to solve it. "
# totals of what each count has on average; all others are totals of counts
SECOND_LEVEL = {
    "keepers",
    "instructors",
    "prizes",
    "newborn animal children",
    "movie nominations",
    "teachers from all schools",
}
UNKNOWN = "x; we don't know its value yet but will find it out later."


class Polynomial:
    """Integer polynomials in x, by their coefficients from the constant up."""

    def __init__(self, *coefficients: int) -> None:
        self.coefficients = list(coefficients)
        while self.coefficients and self.coefficients[-1] == 0:
            self.coefficients.pop()

    def __add__(self, other: Polynomial | int) -> Polynomial:
        a, b = self.coefficients, _polynomial(other).coefficients
        size = max(len(a), len(b))
        return Polynomial(*((a[i] if i < len(a) else 0) + (b[i] if i < len(b) else 0) for i in range(size)))

    def __neg__(self) -> Polynomial:
        return Polynomial(*(-c for c in self.coefficients))

    def __sub__(self, other: Polynomial | int) -> Polynomial:
        return self + -_polynomial(other)

    def __mul__(self, other: Polynomial | int) -> Polynomial:
        out = Polynomial()
        for i, c in enumerate(_polynomial(other).coefficients):
            out += Polynomial(*[0] * i, *(c * a for a in self.coefficients))
        return out

    def __pow__(self, exponent: int) -> Polynomial:
        return self if exponent == 1 else self * self ** (exponent - 1)

    def __radd__(self, other: int) -> Polynomial:
        return self + other

    def __rsub__(self, other: int) -> Polynomial:
        return -self + other

    __rmul__ = __mul__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Polynomial | int) and self.coefficients == _polynomial(other).coefficients

    __hash__ = None  # type: ignore[assignment]

    def at(self, x: int) -> int:
        return sum(c * x**i for i, c in enumerate(self.coefficients))


def _polynomial(value: Polynomial | int) -> Polynomial:
    return value if isinstance(value, Polynomial) else Polynomial(value)


@dataclass
class Quantity:
    """A defined quantity: constant (or None), times or plus, difference or sum, and the parents by name."""

    constant: int | None
    times: bool
    minus: bool
    parents: list[str]


@dataclass
class Problem:
    """What a problem's text says; `told` and `unknown` are None in forward problems."""

    quantities: dict[str, Quantity]
    asked: str
    unknown: str | None = None
    told: tuple[str, int] | None = None
    sentences: int = 0

    @property
    def names(self) -> set[str]:
        return set(self.quantities) | ({self.unknown} if self.unknown else set())

    def parts(self, total: str) -> list[tuple[str, ...]]:
        """What a total sums: counts, or products (count, average) where it is over what each count has."""
        noun, place = re.fullmatch(r"total number of (.+?) in (.+)", total).groups()
        here = sorted(name for name in self.names if name.endswith(" in " + place))
        averages = [name for name in here if name.startswith("average ")]
        if noun in SECOND_LEVEL:
            return [(re.fullmatch(r"average number of .+? per (.+)", name)[1], name) for name in averages]
        return [(name,) for name in here if name not in averages]


@dataclass
class Step:
    """One step of a solution as written; `value` is a polynomial in the unknown."""

    name: str
    value: Polynomial
    parents: list[str] = field(default_factory=list)
    has_constant: bool = False
    variables: list[str] = field(default_factory=list)

    @property
    def operations(self) -> int:
        """What the step adds to op: its distinct operands, a constant (or being the unknown) counting one."""
        return len(set(self.parents)) + self.has_constant


# --- problems -------------------------------------------------------------------------------------------------------


def read_problem(problem: str, question: str) -> Problem:
    read = Problem({}, _asked(question))
    said: list[tuple[str, str]] = []
    assert problem.endswith(".")
    sentences = problem[:-1].split(". ")
    read.sentences = len(sentences)
    for sentence in sentences:
        if (match := re.fullmatch(r"The number of (.+) exists, and its number is greater than 0", sentence)) or (
            match := re.fullmatch(r"The (average .+) is greater than 0", sentence)
        ):
            read.unknown = match[1]
        else:
            subject, expression = re.fullmatch(r"The (.+?) equals (.+)", sentence).groups()
            said.append((_name(subject), expression))
    subjects = [subject for subject, _ in said]
    for subject, expression in said:
        is_told = subject.startswith("total ") or (subjects.count(subject) == 2 and expression.isdigit())
        if is_told:
            assert read.unknown is not None
            assert read.told is None
            read.told = subject, int(expression)
        else:
            assert subject not in read.quantities
            read.quantities[subject] = _expression(expression)
    assert (read.unknown is None) == (read.told is None)
    assert read.unknown in (None, read.asked)
    return read


def _asked(question: str) -> str:
    if match := re.fullmatch(r"What is the (.+)\?", question):
        return match[1]
    kind, place = re.fullmatch(r"How many (.+) does (.+) have\?", question).groups()
    return f"{kind} in {place}"


def _name(reference: str) -> str:
    return reference.removeprefix("number of ")


def _expression(text: str) -> Quantity:
    if text.isdigit():
        return Quantity(int(text), False, False, [])
    constant, times = None, False
    if match := re.match(r"(\d+) (plus|times) ", text):
        constant, times = int(match[1]), match[2] == "times"
        text = text[match.end() :]
    minus = text.startswith("the difference between ")
    if minus:
        parts = text.removeprefix("the difference between ").split(" and ")
        assert len(parts) == 2
    elif text.startswith("the sum of "):
        parts = re.split(r", and | and |, ", text.removeprefix("the sum of "))
        assert len(parts) >= 2
    else:
        parts = [text]
    assert all(part.startswith("the ") for part in parts)
    return Quantity(constant, times, minus, [_name(part.removeprefix("the ")) for part in parts])


def solve(problem: Problem, target: str, unknown: int | None = None) -> tuple[int, set[str]]:
    """The value of `target` from the problem's text alone, and the named quantities that it depends on."""
    values: dict[str, int] = {} if problem.unknown is None or unknown is None else {problem.unknown: unknown}
    needed: set[str] = set()

    def value(name: str) -> int:
        needed.add(name)
        if name not in values:
            if name.startswith("total "):
                products = [[value(part) for part in parts] for parts in problem.parts(name)]
                values[name] = sum(parts[0] * (parts[1] if len(parts) == 2 else 1) for parts in products)
            else:
                quantity = problem.quantities[name]
                operands = [value(parent) for parent in quantity.parents]
                base = operands[0] - operands[1] if quantity.minus else sum(operands)
                if quantity.constant is not None:
                    base = quantity.constant * base if quantity.times else quantity.constant + base
                values[name] = base
        return values[name]

    return value(target), needed


# --- solutions ------------------------------------------------------------------------------------------------------


def read_solution(solution: str) -> tuple[list[Step], int, tuple[str, int] | None]:
    """Steps, the answer, and in reverse mode what is known: (name of the target, its value)."""
    reverse = solution.startswith(INTRO)
    body, answer = solution.rsplit(" Answer: ", 1)
    assert answer.endswith(".")
    tail = None
    if reverse:
        body, tail = body.removeprefix(INTRO).split(" We know ")
    steps: list[Step] = []
    step_of: dict[str, Step] = {}
    for text in re.split(r"(?<=\.) (?=Define )", body):
        name, rest = re.fullmatch(r"Define (.+?) as ([A-Za-z]; .+)", text).groups()
        if reverse and rest == UNKNOWN:
            step = Step(name, Polynomial(0, 1), has_constant=True, variables=["x"])
        else:
            step = _read_step(name, rest, step_of, reverse)
        assert step.name not in {earlier.name for earlier in steps}
        steps.append(step)
        step_of[step.variables[-1]] = step
    letters = [letter for step in steps for letter in step.variables]
    assert len(letters) == len(set(letters))
    assert not reverse or letters.count("x") == 1
    assert not (reverse and "X" in letters)
    if tail is None:
        assert steps[-1].value == int(answer[:-1])
        return steps, int(answer[:-1]), None
    return steps, int(answer[:-1]), _read_tail(tail, steps[-1], int(answer[:-1]))


def _read_step(name: str, rest: str, step_of: dict[str, Step], reverse: bool) -> Step:
    variable, body = rest[0], rest[3:]
    assert body.endswith(".")
    step = Step(name, Polynomial())
    local: dict[str, Polynomial] = {}
    clauses = body[:-1].split("; ")
    products = sum(re.search(r"^[A-Za-z] = [A-Za-z] \* [A-Za-z]", clause) is not None for clause in clauses)
    for i, clause in enumerate(clauses):
        # a total of two or more products is the one step without "so"
        assert clause.startswith("so ") == (i + 1 == len(clauses) and products < 2)
        target, first, *others = clause.removeprefix("so ").split(" = ")
        assert len(target) == 1
        for token in re.findall(r"[A-Za-z]|\d+", first):
            if token.isdigit():
                step.has_constant = True
            elif token not in local:
                step.parents.append(step_of[token].name)
        known = {letter: earlier.value for letter, earlier in step_of.items()} | local
        value = _evaluate(first, known)
        for other in others:
            assert _evaluate(other, {"x": Polynomial(0, 1)} if reverse else {}) == value
        local[target] = value
        step.variables.append(target)
        step.value = value
    assert step.variables[-1] == variable
    return step


def _evaluate(text: str, known: dict[str, Polynomial]) -> Polynomial:
    assert re.fullmatch(r"[A-Za-z0-9+*() -]+", text)
    assert not re.search(r"[A-Za-z]{2}", text)
    return _polynomial(eval(text, {"__builtins__": {}}, known))  # single letters, digits and operators alone


def _read_tail(tail: str, target: Step, answer: int) -> tuple[str, int]:
    """The solving of a * x + b = v, whose every line must follow."""
    equation = re.match(r"([A-Za-z]) = (\d+), so we have (.+?) = (\d+) and", tail)
    letter, told, polynomial = equation[1], int(equation[2]), equation[3]
    assert letter == target.variables[-1]
    assert _evaluate(polynomial, {"x": Polynomial(0, 1)}) == target.value
    b, a = target.value.coefficients
    shifted = re.search(r"Move all terms to one side: (.+?) = 0\.", tail)[1]
    assert _evaluate(shifted, {"x": Polynomial(0, 1)}) == target.value - told
    assert a * answer + b == told
    assert tail == (
        f"{letter} = {told}, so we have {polynomial} = {told} and we solve it through the following steps: "
        f"Simplifying the equation: {polynomial} = {told}. Move all terms to one side: {shifted} = 0. "
        f"Isolate the term with x: {a}*x = {told - b}. Divide both sides by {a}: x = {told - b} / {a}. "
        f"Solution: x = {answer}."
    )
    return target.name, told
