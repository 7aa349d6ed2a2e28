"""Parsing of ops from text, and weighted ranges of ops such as in-distribution, edge and hard."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

PAPER_RANGES: Mapping[str, Mapping[str, float]] = {
    "in-distribution": {"2-4": 0.2, "5-7": 0.3, "8-10": 0.5},
    "edge": {"11-14": 1.0},
    "hard": {"15-20": 1.0},
}
"""The ranges of arXiv 2512.07783; the in-distribution weights are those of its released recipe."""


def parse_range(text: str, name: str = "--op") -> list[int]:
    """Parses integers in the form 7, 2-10 or 3,5,9.

    >>> parse_range("2-4,9")
    [2, 3, 4, 9]
    """
    numbers: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        if not (first.isdigit() and (last or first).isdigit()):
            raise ValueError(f"{name} must have the form 7, 2-10 or 3,5,9, got {text!r}")
        numbers += range(int(first), int(last or first) + 1)
    return numbers


def op_weights(parts: Mapping[str, float], name: str = "range") -> dict[int, float]:
    """The weight of each op, summing to 1; the ops of a part have equal weights.

    Args:
        parts: weights > 0 by ops in the form of `parse_range`.
        name: of the range, for messages.

    >>> op_weights({"2-3": 0.2, "4": 0.8})
    {2: 0.1, 3: 0.1, 4: 0.8}
    """
    total = sum(parts.values())
    if not parts or not all(0 < weight < math.inf for weight in parts.values()):
        raise ValueError(f"{name}: must have a weight > 0 for each of its ops, got {dict(parts)}")
    weights: dict[int, float] = {}
    for text, weight in parts.items():
        ops = parse_range(text, name)
        if not ops:
            raise ValueError(f"{name}: {text!r} contains no op")
        for op in ops:
            weights[op] = weights.get(op, 0.0) + weight / total / len(ops)
    return weights


def covered(ranges: Mapping[str, Mapping[str, float]], ops: Collection[int]) -> dict[str, dict[str, float]]:
    """The ranges whose ops are all among `ops`."""
    return {name: dict(parts) for name, parts in ranges.items() if set(op_weights(parts, name)) <= set(ops)}
