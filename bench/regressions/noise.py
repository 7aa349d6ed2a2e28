"""Which of many timings changed between two sides of repeated runs, and how far noise alone would have gone.

    x[f, r] = log median over turns of the time a unit of work takes, figure f in run r
    y[f, r] = x[f, r] - drift[r] - w * (what the peers that took turns with f did in run r beyond that)
    change[f] = median_r y[f, new runs] - median_r y[f, base runs],    positive: slower
    band[f] = t(1 - ALPHA; df) * sqrt(v[f] * (c(R_base) / R_base + c(R_new) / R_new) + variance of the drift)

The drift of a run is what all controls share: the peers, which no change of ours can touch, found by median polish; one
for each clock, because a neighbour on the machine doubles wall time and hardly moves CPU time. Where there are fewer
than MIN_CONTROLS of them it is what all figures share, and a slow-down of everything is then not seen; where there are
fewer figures too, nothing is taken out and the band allows for a drift. w is 0, 1/2 or 1, whichever makes the figures
that have peers agree best.

v[f] is the variance of one run's y. Its prior is what the turns of f say (ranks around their median) plus what runs add
to that, pooled over all figures by their median absolute residual, so that the few that did change do not count; runs
that repeat on one side are evidence about f itself, v = (PRIOR_DF * prior + sum of squared residuals) / df.

Letters:    F figures of one clock, R runs of both sides, C controls.
Source:     a prior over variances of many alike measurements: Smyth 2004, doi:10.2202/1544-6115.1027; median polish:
            Tukey 1977, Exploratory Data Analysis, chapter 11; ranks around a median: David and Nagaraja 2003, Order
            Statistics, section 7.1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

__all__ = ["ALPHA", "ALPHA_SINGLE", "MIN_CONTROLS", "Change", "Figure", "changes", "t_quantile"]

Floats = NDArray[np.float64]

ALPHA, ALPHA_SINGLE = 0.005, 0.001
"""Chance that noise passes the band of a figure upwards; the smaller one where a side has a single run, which says
nothing of what its figures do from run to run. An alarm needs more than that, what is allowed beyond the band:
tests/bench/noise_simulation.py simulates how often one of forty figures raises it for nothing."""
MIN_CONTROLS = 4
PRIOR_DF = 8.0
# between runs, one clock: what is assumed where too few figures show it, and the least that is believed
_ASSUMED_SD, _LEAST_SD = 0.03, 0.01
_ASSUMED_DRIFT_SD = 0.1
_FEW = 5
# standard deviation over median absolute deviation, of normal residuals
_MAD = 1.4826


@dataclass(frozen=True)
class Figure:
    """The timings of one key in every run.

    Args:
        group: figures that took turns share it: ours and its peers.
        is_control: a peer: nothing that we change can move it.
        base, new: seconds a unit of work, an array of turns for each run of either side.
    """

    group: tuple[object, ...]
    is_control: bool
    base: Sequence[Floats]
    new: Sequence[Floats]


@dataclass(frozen=True)
class Change:
    """What became of a figure.

    Args:
        change: log of new time over base time, the drift taken out: 0.18 is 20 % slower.
        band: as far as noise alone would move it, but for a chance of ALPHA.
    """

    change: float
    band: float

    def slower_by(self, allowed: float) -> bool:
        """More than the share `allowed` (0.05: 5 %), the band not counted."""
        return self.change - self.band > math.log1p(allowed)

    def faster_by(self, allowed: float) -> bool:
        return self.change + self.band < -math.log1p(allowed)


def changes(figures: Sequence[Figure]) -> tuple[list[Change], Floats]:
    """The change of every figure of one clock with its band, and the drift of every run (base, then new).

    Args:
        figures: all with the same number of runs on either side, at least one.
    Raises:
        ValueError: the numbers of runs differ, or a side has none.
    """
    num_base, num_new = _num_runs(figures)
    is_new_R = np.arange(num_base + num_new) >= num_base
    turns = [[np.log(times) for times in (*figure.base, *figure.new)] for figure in figures]
    x_FR = np.array([[np.median(times) for times in row] for row in turns])
    error_F = np.array([np.median([_median_error(times) for times in row]) for row in turns])
    is_control_F = np.array([figure.is_control for figure in figures])
    shared_FR = x_FR[is_control_F] if is_control_F.sum() >= MIN_CONTROLS else x_FR
    known = len(shared_FR) >= MIN_CONTROLS
    drift_R = _shared(shared_FR) if known else np.zeros(num_base + num_new)
    y_FR = _without_peers(x_FR - drift_R, figures, is_new_R)

    e_FR = _residuals(y_FR, is_control_F, is_new_R)
    between = _between_runs(e_FR, error_F)
    prior_F = between**2 + error_F**2
    repeats = max(num_base + num_new - 2, 0)
    own_F = (e_FR**2).sum(1) if repeats else np.zeros(len(figures))
    v_F = (PRIOR_DF * prior_F + own_F) / (PRIOR_DF + repeats)
    over_runs = _median_factor(num_base) / num_base + _median_factor(num_new) / num_new
    drift_variance = np.median(prior_F) * over_runs * _median_factor(len(shared_FR)) / len(shared_FR)
    drift_variance += 0.0 if known else _ASSUMED_DRIFT_SD**2 * over_runs
    alpha = ALPHA if min(num_base, num_new) > 1 else ALPHA_SINGLE
    band_F = t_quantile(1 - alpha, PRIOR_DF + repeats) * np.sqrt(v_F * over_runs + drift_variance)
    change_F = np.median(y_FR[:, is_new_R], axis=1) - np.median(y_FR[:, ~is_new_R], axis=1)
    return [Change(float(c), float(b)) for c, b in zip(change_F, band_F, strict=True)], drift_R


def _num_runs(figures: Sequence[Figure]) -> tuple[int, int]:
    sizes = {(len(figure.base), len(figure.new)) for figure in figures}
    if len(sizes) != 1 or 0 in min(sizes):
        raise ValueError(f"changes: every figure needs the same runs, at least one a side, got {sorted(sizes)}")
    return sizes.pop()


def _median_error(log_times: Floats) -> float:
    """Standard error of the median of n turns: half the distance of the turns sqrt(n) / 2 ranks to its left and right.

    One turn says nothing: 0. Of normal turns that is within 20 % on average; one that was held up does not count.
    """
    n = len(log_times)
    middle = (n - 1) / 2
    reach = min(math.sqrt(n) / 2, middle)
    low, high = np.interp([middle - reach, middle + reach], np.arange(n), np.sort(log_times))
    return float(high - low) / 2


def _shared(x_FR: Floats, rounds: int = 10) -> Floats:
    """What moves all rows alike, by run, 0 in the median: Tukey's median polish."""
    drift_R = np.zeros(x_FR.shape[1])
    for _ in range(rounds):
        level_F = np.median(x_FR - drift_R, axis=1)
        drift_R = np.median(x_FR - level_F[:, None], axis=0)
    return drift_R - np.median(drift_R)


def _without_peers(y_FR: Floats, figures: Sequence[Figure], is_new_R: NDArray[np.bool_]) -> Floats:
    """Subtracts from each of our figures the change of the peers that alternated with it in the same run."""
    rows: dict[tuple[object, ...], list[int]] = {}
    for i, figure in enumerate(figures):
        if figure.is_control:
            rows.setdefault(figure.group, []).append(i)
    own = [i for i, figure in enumerate(figures) if not figure.is_control and figure.group in rows]
    if len(own) < _FEW:
        return y_FR
    beyond_FR = y_FR - np.median(y_FR, axis=1, keepdims=True)
    peers = np.array([beyond_FR[rows[figures[i].group]].mean(0) for i in own])

    def spread(weight: float) -> float:
        e = _residuals(y_FR[own] - weight * peers, np.zeros(len(own), dtype=bool), is_new_R)
        return float(np.median(np.abs(e[:, e.any(0)]))) if e.any() else 0.0

    weight = min((0.0, 0.5, 1.0), key=spread)
    out_FR = y_FR.copy()
    out_FR[own] -= weight * peers
    return out_FR


def _residuals(y_FR: Floats, is_control_F: NDArray[np.bool_], is_new_R: NDArray[np.bool_]) -> Floats:
    """Of one run around its side's median, in the scale of one run; 0 where a side has one run.

    With one run on both sides: the change of a figure around the median change of its kind, so that a change of all of
    ours is no residual, as if half of it were either run's.
    """
    out_FR = np.zeros_like(y_FR)
    for side in (is_new_R, ~is_new_R):
        n = int(side.sum())
        if n > 1:
            part = y_FR[:, side]
            out_FR[:, side] = (part - np.median(part, axis=1, keepdims=True)) * math.sqrt(n / (n - 1))
    if len(is_new_R) == 2:
        change_F = y_FR[:, is_new_R][:, 0] - y_FR[:, ~is_new_R][:, 0]
        for kind in (is_control_F, ~is_control_F):
            if kind.any():
                out_FR[kind] = ((change_F[kind] - np.median(change_F[kind])) / math.sqrt(2))[:, None]
    return out_FR


def _between_runs(e_FR: Floats, error_F: Floats) -> float:
    """Standard deviation that runs add to what turns show, pooled over all figures."""
    if len(e_FR) < _FEW:
        return _ASSUMED_SD
    used_R = e_FR.any(0)
    scale = _MAD * float(np.median(np.abs(e_FR[:, used_R]))) if used_R.any() else 0.0
    return max(math.sqrt(max(scale**2 - float(np.median(error_F**2)), 0.0)), _LEAST_SD)


def _median_factor(n: int) -> float:
    """Variance of the median of n over that of their mean, at most."""
    return math.pi / 2 if n > 2 else 1.0


def t_quantile(p: float, df: float) -> float:
    """Quantile of Student's t, Fisher's expansion in 1 / df; within 1 % for df >= 8 and p <= 0.9999.

    Source: Abramowitz and Stegun 1964, 26.7.5.

    >>> round(t_quantile(0.999, 8), 1), round(t_quantile(0.975, 30), 3)
    (4.5, 2.042)
    """
    z = NormalDist().inv_cdf(p)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / df ** (i + 1) for i, term in enumerate(terms))
