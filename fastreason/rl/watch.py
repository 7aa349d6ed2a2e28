"""Monitors a reinforcement-learning stage and warns once per symptom of drift: samples that no longer end, lengths
that grow to the limit or collapse, an entropy near 0.

Each of RULES compares the mean of the last WINDOW steps that have a value with that of the first WINDOW.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

WINDOW = 5
"""Number of steps in a mean."""


@dataclass(frozen=True)
class Rule:
    """A condition on a field of metrics.jsonl that triggers a warning.

    Args:
        field: name of the field.
        broken: the condition, of (mean of the first steps, mean of the last steps, max_new_tokens).
        says: the text of the warning.
    """

    field: str
    broken: Callable[[float, float, float], bool]
    says: str


RULES: Mapping[str, Rule] = {
    "finished": Rule(
        "finished", lambda first, last, limit: last < first - 0.2, "fewer samples finish before the limit"
    ),
    "entropy": Rule(
        "entropy", lambda first, last, limit: last < 0.1 * first, "samples of a prompt are nearly identical"
    ),
    "length at the limit": Rule(
        "mean_length",
        lambda first, last, limit: first < 0.75 * limit and last >= 0.9 * limit,
        "samples reach max_new_tokens",
    ),
    "true reward": Rule(
        "true_reward", lambda first, last, limit: last < first - 0.1, "a verifier without errors would pay less"
    ),
    "length": Rule("mean_length", lambda first, last, limit: last < 0.5 * first, "samples stop early"),
}


class Watch:
    """Checks every step of a stage against RULES.

    Args:
        max_new_tokens: of the stage.
        state: from the checkpoint of an earlier part of the stage.
    """

    def __init__(self, max_new_tokens: int, state: Mapping[str, Any] | None = None) -> None:
        self.limit = float(max_new_tokens)
        state = state or {}
        self.first: dict[str, list[float]] = {key: list(values) for key, values in state.get("first", {}).items()}
        self.last: dict[str, list[float]] = {key: list(values) for key, values in state.get("last", {}).items()}
        self.told: list[str] = list(state.get("told", []))

    def state(self) -> dict[str, Any]:
        return {"first": self.first, "last": self.last, "told": self.told}

    def look(self, line: Mapping[str, Any]) -> list[str]:
        """The warnings of a step; each rule warns at most once per stage.

        Args:
            line: of metrics.jsonl. A step without an update has no entropy and does not count towards it.
        """
        for field in {rule.field for rule in RULES.values()} & line.keys():
            first, last = self.first.setdefault(field, []), self.last.setdefault(field, [])
            if len(first) < WINDOW:
                first.append(line[field])
            self.last[field] = [*last, line[field]][-WINDOW:]
        warnings = []
        for name, rule in RULES.items():
            if name in self.told or len(self.first.get(rule.field, [])) < WINDOW:
                continue
            first_mean, last_mean = (sum(values[rule.field]) / WINDOW for values in (self.first, self.last))
            if rule.broken(first_mean, last_mean, self.limit):
                self.told.append(name)
                went = f"{rule.field} went from {first_mean:.3g} to {last_mean:.3g}"
                warnings.append(f"{name}: {rule.says}; {went} (means of {WINDOW} steps)")
        return warnings
