"""How many kinds there are, from a sample in which not all of them came up, and how many a longer sample would show.

    N = S + (n - 1) / n * f1^2 / (2 f2)        Chao1; f1 (f1 - 1) / 2 in place of f1^2 / (2 f2) where f2 = 0

S kinds were seen in n draws, f1 of them once and f2 twice. Chao1 is a lower bound in the mean, whatever the law; it is
near the truth where the kinds that were not seen are about as likely as those seen once, and its interval holds the
truth as often as it says only there.

Sources: estimator: Chao 1984, Scandinavian Journal of Statistics 11. Variance and interval: Chao 1987, Biometrics 43.
Shorter and longer samples: Chao and Jost 2012, Ecology 93, and Colwell et al. 2012, Journal of Plant Ecology 5.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np


class Shown(NamedTuple):
    """What some draws are expected to show."""

    kinds: float
    """Share of all kinds."""
    draws: float
    """Chance that a further draw is of a kind that was shown."""


class Kinds(Protocol):
    """A law of kinds, known or sampled."""

    @property
    def number(self) -> float:
        """How many kinds there are."""
        ...

    @property
    def interval(self) -> tuple[float, float]:
        """95 %."""
        ...

    def shown(self, draws: float) -> Shown:
        """What so many draws show on average."""
        ...


@dataclass(frozen=True, eq=False)
class KnownKinds:
    """All kinds, by their probabilities: float64 [kinds], sum 1."""

    probabilities: np.ndarray

    @property
    def number(self) -> float:
        return float(len(self.probabilities))

    @property
    def interval(self) -> tuple[float, float]:
        return self.number, self.number

    def shown(self, draws: float) -> Shown:
        with np.errstate(divide="ignore"):  # of probability 1: log 0
            seen = -np.expm1(
                draws * np.log1p(-np.minimum(self.probabilities, 1.0)) if draws else 0.0 * self.probabilities
            )
        return Shown(float(seen.mean()), float((self.probabilities * seen).sum()))


@dataclass(frozen=True, eq=False)
class SampledKinds:
    """How often each kind that was seen came up: integers [S] >= 1."""

    counts: np.ndarray

    @property
    def draws(self) -> int:
        """n"""
        return int(self.counts.sum())

    def seen(self, times: int) -> int:
        """How many kinds came up so many times."""
        return int((self.counts == times).sum())

    @property
    def unseen(self) -> float:
        """Kinds that are estimated not to have come up."""
        f1, f2, n = self.seen(1), self.seen(2), self.draws
        return (n - 1) / n * (f1 * f1 / (2.0 * f2) if f2 else f1 * (f1 - 1) / 2.0)

    @property
    def number(self) -> float:
        return len(self.counts) + self.unseen

    @property
    def interval(self) -> tuple[float, float]:
        """Of the logarithm of the unseen kinds, so that no bound is below what was seen."""
        seen, unseen = len(self.counts), self.unseen
        if unseen == 0:
            return float(seen), float(seen)
        factor = math.exp(1.959964 * math.sqrt(math.log1p(self._variance() / unseen**2)))
        return seen + unseen / factor, seen + unseen * factor

    def _variance(self) -> float:
        f1, f2, n = self.seen(1), self.seen(2), self.draws
        a = (n - 1) / n
        if f2:
            ratio = f1 / f2
            return f2 * (a / 2.0 * ratio**2 + a**2 * ratio**3 + a**2 / 4.0 * ratio**4)
        return a * f1 * (f1 - 1) / 2 + a**2 * f1 * (2 * f1 - 1) ** 2 / 4 - a**2 * f1**4 / (4 * self.number)

    def shown(self, draws: float) -> Shown:
        whole = round(draws)
        if whole <= 0:
            return Shown(0.0, 0.0)
        return self._fewer(whole) if whole < self.draws else self._more(draws - self.draws)

    def _fewer(self, draws: int) -> Shown:
        """Exact means over all parts of the sample of so many draws."""
        times, kinds = np.unique(self.counts, return_counts=True)
        n = self.draws
        log_factorial = _log_factorial(np.arange(n + 1))
        # chance that a kind of c sightings is in none of the draws: C(n - c, draws) / C(n, draws)
        left = n - times
        fits = left >= draws
        logs = log_factorial[left] - log_factorial[np.maximum(left - draws, 0)]
        missed = np.where(fits, np.exp(logs - log_factorial[n] + log_factorial[n - draws]), 0.0)
        # and that so are the others of a kind one of whose sightings is a further draw, of the n - 1 others
        logs = logs - log_factorial[n - 1] + log_factorial[n - 1 - draws]
        new = (kinds * times / n * np.where(fits, np.exp(np.minimum(logs, 0.0)), 0.0)).sum()
        return Shown(float((kinds * (1.0 - missed)).sum() / self.number), float(1.0 - new))

    def _more(self, further: float) -> Shown:
        f1, f2, n, unseen = self.seen(1), self.seen(2), self.draws, self.unseen
        if not unseen:
            return Shown(1.0, 1.0)
        found = -unseen * math.expm1(further * math.log1p(-f1 / (n * unseen + f1)))
        rest = (n - 1) * f1 / ((n - 1) * f1 + 2.0 * f2) if f2 else (n - 1) * (f1 - 1) / ((n - 1) * (f1 - 1) + 2.0)
        return Shown((len(self.counts) + found) / self.number, 1.0 - f1 / n * rest ** (further + 1.0))


def _log_factorial(numbers: np.ndarray) -> np.ndarray:
    """log n! of 0, 1, 2, ..."""
    return np.concatenate([[0.0], np.log(numbers[1:]).cumsum()])
