"""The graph behind a problem: its quantities, and how each follows from others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["count", "average", "special", "total", "average total"]


@dataclass(frozen=True)
class Quantity:
    """One node.

    Args:
        name: as the texts name it; a special has the name of its average.
        kind: "count" and "average" have sentences of their own; "total", "average total" and "special" (another name of
            an average) follow from others without one.
        parents: places in `ProblemGraph.quantities` of what it follows from, in the order of the texts.
        constant: of the definition, or None.
        times: the constant multiplies rather than adds.
        minus: first parent minus second.
        value: None for a distractor, whose value nobody computes.
        sentence: which sentence of the problem states it, or None.
        target: the last step of the solution.
        unknown: reverse problems: what is asked.
    """

    name: str
    kind: Kind
    parents: tuple[int, ...]
    constant: int | None
    times: bool
    minus: bool
    value: int | None
    sentence: int | None
    target: bool
    unknown: bool

    @property
    def necessary(self) -> bool:
        """Whether the answer depends on it; the others are distractors."""
        return self.value is not None


@dataclass(frozen=True)
class ProblemGraph:
    """Every quantity of a problem, those of the solution first and in its order.

    >>> from fastreason import Mixture, TaskStream
    >>> graph = TaskStream(Mixture.uniform(op=[6], themes=["symbolic"]), seed=1)[0].graph(0)
    >>> [(q.name, [graph.quantities[p].name for p in q.parents], q.value) for q in graph.quantities if q.necessary]
    [('Cu', [], 4), ('Ce', [], 1), ('Ci', ['Cu'], 4), ('C', ['Ce', 'Cu', 'Ci'], 9)]
    """

    quantities: tuple[Quantity, ...]
    sentences: tuple[str, ...]
    question: str
    answer: int

    @classmethod
    def of(cls, nodes: list[dict[str, Any]], problem: str, question: str, answer: int) -> ProblemGraph:
        """From what the core knows of a problem: `nodes` are the fields of `Quantity`, kind under the name of type."""
        quantities = tuple(
            Quantity(kind=node.pop("type"), parents=tuple(node.pop("parents")), **node) for node in nodes
        )
        sentences = tuple(sentence.rstrip(".") + "." for sentence in problem.split(". "))
        return cls(quantities, sentences, question, answer)

    def definition(self, i: int) -> str:
        """How quantity i follows from others, in short: `3 + a + b`, `2 * (a - b)`, `a * b + c * d`.

        The letters stand for the parents in their order.
        """
        quantity = self.quantities[i]
        letters = [chr(ord("a") + k) for k in range(len(quantity.parents))]
        if quantity.kind == "average total":
            return " + ".join(f"{a} * {b}" for a, b in zip(letters[::2], letters[1::2], strict=True))
        base = (" - " if quantity.minus else " + ").join(letters)
        if quantity.constant is None:
            return base
        if not letters:
            return str(quantity.constant)
        if quantity.times:
            return f"{quantity.constant} * ({base})" if len(letters) > 1 else f"{quantity.constant} * {base}"
        return f"{quantity.constant} + {base}"
