"""The graph of a problem: its quantities, and how each is computed from others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["count", "average", "special", "total", "average total"]


@dataclass(frozen=True)
class Quantity:
    """One node of the graph.

    Args:
        name: its name in the texts; a special has the name of its average.
        kind: "count" and "average" are defined by a sentence; "total", "average total" and "special" (a second name of
            an average) are implied by others.
        parents: indices in `ProblemGraph.quantities` of the quantities it is computed from, in text order.
        constant: of the definition, or None.
        times: whether the constant multiplies instead of adding.
        minus: whether it is the first parent minus the second.
        value: None for a distractor, which has no computed value.
        sentence: index of the problem sentence that states it, or None.
        target: whether it is the last step of the solution.
        unknown: in reverse problems, whether it is the quantity asked for.
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
        """Whether the answer depends on it; otherwise it is a distractor."""
        return self.value is not None


@dataclass(frozen=True)
class ProblemGraph:
    """All quantities of a problem, those of the solution first and in its order.

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
        """Builds the graph from the core's data: `nodes` has the fields of `Quantity`, with kind named type."""
        quantities = tuple(
            Quantity(kind=node.pop("type"), parents=tuple(node.pop("parents")), **node) for node in nodes
        )
        sentences = tuple(sentence.rstrip(".") + "." for sentence in problem.split(". "))
        return cls(quantities, sentences, question, answer)

    def definition(self, i: int) -> str:
        """The definition of quantity i in short form: `3 + a + b`, `2 * (a - b)`, `a * b + c * d`.

        Letters stand for the parents, in order.
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
