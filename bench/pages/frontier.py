"""What a split of compute between stages gives at several levels of compute: a picture, and a surface fitted to it.

    python -m bench.pages.frontier docs/results/question-flop --docs docs/questions.md --out docs/results

The variants of the study are named LEVEL SPLIT, as "1x mid"; their FLOP are those that the stages spent. Writes
NAME-1.svg and NAME-128.svg, verified pass@k at the edge over FLOP with a line a split, and puts the fit between the
marks <!-- frontier --> of a page:

    logit p = a + b x + c x^2 + (d + e x) m + (f + g x) r + h m r

    p      verified pass@k, a mean over the problems of a range, with half a problem more on either side
    x      log10 of FLOP, of the middle level
    m, r   the shares of FLOP that mid-training and RL spent

It is fitted as a logistic regression, by maximum likelihood. An interval of what follows from it has the half-width of
`fastreason.studies.effects`, h^2 = z^2 V + t^2 U / S, in logits of a share or artanh of a difference, so that it stays
where these can be: V over problems drawn again within their ops, U over fits to each of the S seeds alone. The x^2 term
follows three levels and foretells no fourth.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np

from fastreason.reports.charts import Series, line_chart
from fastreason.reports.study_page import judged_again
from fastreason.studies.effects import CONFIDENCE, student_quantile
from fastreason.studies.study import Study
from fastreason.studies.study_scores import StudyScores

from ..harness.markdown import markdown, put_between_marks
from .study_pages import as_file, paired, points_of

_DRAWS, _STEPS = 400, 12
# how a split is called, and its shares of mid-training and RL
_SPLITS = {
    "pre": ("all on pre-training", (0.0, 0.0)),
    "mid": ("20 % on mid-training", (0.2, 0.0)),
    "rl": ("20 % on RL", (0.0, 0.2)),
    "both": ("10 % on each", (0.1, 0.1)),
}


@dataclass(frozen=True)
class Scores:
    """The scores of a range by variant, and where the variants stand."""

    variants: list[str]
    x: np.ndarray
    """float [V]: log10 of FLOP, of the middle level."""
    mid: np.ndarray
    """float [V]: the share of FLOP that mid-training spent."""
    rl: np.ndarray
    """float [V]"""
    values: np.ndarray
    """float [V, S, P], by seed and problem."""
    weights: np.ndarray
    """float [P], of sum 1."""
    cells: np.ndarray
    """int [P]: the op of each problem."""

    def means(self, problems: np.ndarray) -> np.ndarray:
        """float [V, S]: means over these problems, int [P]."""
        weights = self.weights[problems] / self.weights[problems].sum()
        return self.values[:, :, problems] @ weights


def scores_of(study: Study, results: Mapping[str, Any], name: str, k: int) -> Scores:
    """The scores of a study in a range; its middle level is the median of FLOP."""
    scores, variants = StudyScores(study, results), list(study.variants)
    values = [scores.by_seed(variant, name, "verified", k) for variant in variants]
    flop = np.array([_spent(results, variant) for variant in variants])
    total = flop.sum(axis=1)
    first = values[0][0]
    return Scores(
        variants,
        np.log10(total / np.median(total)),
        flop[:, 1] / total,
        flop[:, 2] / total,
        np.array([[seed.values for seed in by_seed] for by_seed in values]),
        first.weights,
        first.cells,
    )


def _spent(results: Mapping[str, Any], variant: str) -> list[float]:
    """FLOP of pre-training, mid-training and RL, means over seeds."""
    runs = results["variants"][variant]["runs"].values()
    stages = [
        [results["units"][run[stage]["unit"]]["flop"] if stage in run else 0.0 for stage in ("pretrain", "mid", "rl")]
        for run in runs
    ]
    return np.mean(stages, axis=0).tolist()


def terms(x: Any, mid: Any, rl: Any) -> np.ndarray:
    """float [..., 8]: the terms of the surface."""
    one = np.ones_like(np.asarray(x, dtype=np.float64) + mid + rl)
    return np.stack([one, x * one, x**2 * one, mid * one, mid * x * one, rl * one, rl * x * one, mid * rl * one], -1)


class Surface:
    """Fits to all seeds, to each seed alone, and to problems that were drawn again."""

    def __init__(self, scores: Scores) -> None:
        self.scores = scores
        self._columns = terms(scores.x, scores.mid, scores.rl)
        problems = np.arange(len(scores.weights))
        whole = scores.means(problems)
        self.fitted = self._fit(whole.mean(axis=1))
        self.by_seed = [self._fit(of_seed) for of_seed in whole.T]
        random = np.random.default_rng(0)
        self.drawn = [self._fit(scores.means(_again(scores.cells, random)).mean(axis=1)) for _ in range(_DRAWS)]

    def _fit(self, shares: np.ndarray) -> np.ndarray:
        """float [8], by Fisher scoring: least squares that are weighted by the variance of each share."""
        count = len(self.scores.weights)
        p, columns = (shares * count + 0.5) / (count + 1), self._columns
        logits = np.log(p / (1 - p))
        for _ in range(_STEPS):
            fitted = np.clip(1 / (1 + np.exp(-logits)), 1e-6, 1 - 1e-6)
            weight = fitted * (1 - fitted)
            target = np.log(fitted / (1 - fitted)) + (p - fitted) / weight
            scale = np.sqrt(weight)
            found = np.linalg.lstsq(columns * scale[:, None], target * scale, rcond=None)[0]
            logits = columns @ found
        return np.asarray(found)

    def at(self, coefficients: np.ndarray, x: float, mid: float, rl: float) -> float:
        """The share that the surface has there."""
        return float(1 / (1 + np.exp(-terms(x, mid, rl) @ coefficients)))

    def share(self, x: float, mid: float, rl: float) -> tuple[float, tuple[float, float]]:
        """The share that the surface has there, and its 95 % interval."""
        value, reach = self._estimate(lambda c: float(terms(x, mid, rl) @ c))
        value, low, high = (1 / (1 + np.exp(-logit)) for logit in (value, value - reach, value + reach))
        return float(value), (float(low), float(high))

    def gain(self, x: float, mid: float, rl: float) -> tuple[float, tuple[float, float]]:
        """What the split gains there over pre-training alone, and its 95 % interval."""
        value, reach = self._estimate(lambda c: math.atanh(self.at(c, x, mid, rl) - self.at(c, x, 0.0, 0.0)))
        return math.tanh(value), (math.tanh(value - reach), math.tanh(value + reach))

    def _estimate(self, of: Callable[[np.ndarray], float]) -> tuple[float, float]:
        """What follows from the coefficients, and the half-width of its 95 % interval."""
        seeds = [of(one) for one in self.by_seed]
        spread = NormalDist().inv_cdf((1 + CONFIDENCE) / 2) ** 2 * float(np.var([of(one) for one in self.drawn]))
        if len(seeds) > 1:
            t = student_quantile(CONFIDENCE, len(seeds) - 1)
            spread += t**2 * float(np.var(seeds, ddof=1)) / len(seeds)
        return of(self.fitted), math.sqrt(spread)

    def error(self) -> float:
        """Root mean square of measured minus fitted shares, over variants."""
        scores = self.scores
        measured = scores.means(np.arange(len(scores.weights))).mean(axis=1)
        at = zip(scores.x, scores.mid, scores.rl, strict=True)
        found = np.array([self.at(self.fitted, *place) for place in at])
        return float(np.sqrt(np.mean((measured - found) ** 2)))


def _again(cells: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """int [P]: problems drawn with replacement, as many of each op as there are."""
    inside = [np.flatnonzero(cells == cell) for cell in np.unique(cells)]
    return np.concatenate([random.choice(where, len(where)) for where in inside])


def fit_table(surface: Surface) -> str:
    """What each split gains over pre-training alone on the surface, in points, by level."""
    found = np.sort(surface.scores.x)
    # what a level spends differs by the last step of its stages
    levels = [float(part.mean()) for part in np.split(found, np.flatnonzero(np.diff(found) > 0.1) + 1)]
    rows, splits = [], list(_SPLITS.values())[1:]
    for x in levels:
        gains = [points_of(*surface.gain(x, *shares), sign="+") for _, shares in splits]
        rows.append([f"{float(f'{10**x:.1g}'):g}x", points_of(*surface.share(x, 0.0, 0.0)), *gains])
    return markdown(["compute", "all on pre-training", *(f"gain of {called}" for called, _ in splits)], rows)


def picture(study: Study, results: Mapping[str, Any], name: str, k: int) -> str:
    """An SVG file: verified pass@k in a range over FLOP, a line a split. Whiskers of all splits but the first are the
    95 % interval of the difference from the first at the same level, which is paired by seed and problem."""
    scores, places = StudyScores(study, results), scores_of(study, results, name, k)
    by_split: dict[str, list[tuple[float, str]]] = {}
    for variant in places.variants:
        flop = sum(_spent(results, variant))
        by_split.setdefault(variant.split(" ", 1)[1], []).append((flop, variant))
    first, series = next(iter(by_split.values())), []
    for style, (split, found) in enumerate(by_split.items()):
        points, intervals = [], []
        for (flop, variant), (_, against) in zip(found, first, strict=True):
            base, values = (scores.by_seed(of, name, "verified", k) for of in (against, variant))
            point, interval = paired(base, values)
            points.append((float(f"{flop:.2g}"), point))
            intervals.append(interval)
        series.append(Series(_SPLITS[split][0], points, style, intervals if style else None))
    what = f"Verified pass@{k} over FLOP, {name}"
    return as_file(line_chart(series, title=what, x_label="FLOP", y_label=f"verified pass@{k}", share=True, log_x=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--docs", type=Path, help="a page with the marks <!-- frontier --> and <!-- /frontier -->")
    parser.add_argument("--range", default="edge", help="name of a range")
    parser.add_argument("--k", type=int, nargs="+", default=[1, 128])
    options = parser.parse_args()
    (study, results), parts = judged_again(options.run), []
    for k in options.k:
        drawn = picture(study, results, options.range, k)
        (options.out / f"{study.name}-{k}.svg").write_text(drawn, encoding="utf-8")
        surface = Surface(scores_of(study, results, options.range, k))
        said = f"pass@{k}, {options.range}, on the fitted surface, in points (it misses the {len(study.variants)} "
        said += f"measured scores by {100 * surface.error():.1f}):"
        parts.append(f"{said}\n\n{fit_table(surface)}")
    if options.docs:
        put_between_marks(options.docs, "frontier", "\n\n".join(parts))


if __name__ == "__main__":
    main()
