"""The claims of a study and what was found: verdicts, and the effects of all variants.

A claim is looked at once for every k it names. The interval of its difference decides alone, and has three outcomes:

    at least b      holds: the interval is at or above b        does not hold: below b
    at most b       holds: at or below b                        does not hold: above b
    within b        holds: in -b .. b                           does not hold: outside, on one side

otherwise it is undecided. So |b| is the margin of practical equivalence: what counts as no difference, written before
the run. Where no score that is compared can be told from 0, or all from 1, a difference says nothing about the claim
and the verdict is "at the floor" or "at the ceiling".

A study looks several times, and with a chance of 5 % each one of 20 looks errs. Holm's method bounds the chance that
any decided verdict is wrong: p, one minus the largest confidence at which a look is still decided, times the number of
looks with a p at least as large. `over_all` is the verdict that remains then; all looks of the study count.

Source: Holm 1979; regions of practical equivalence: Kruschke 2018.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .effects import CONFIDENCE, Effect, Values, difference, level
from .stages import STAGE_NAMES
from .study import Claim, Study
from .study_scores import StudyScores

HOLDS, FAILS, UNDECIDED, UNFINISHED = "holds", "does not hold", "undecided at this size", "not finished"
FLOOR, CEILING, NOT_KNOWN = "at the floor", "at the ceiling", "no such problem is known"
EXTREME = 0.01
"""A score whose interval over problems comes this close to 0 or 1 cannot be told from it."""

Sides = Sequence[tuple[str, str | None]]


def judged_claims(study: Study, results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The entry "claims" of results.json: one per claim and k."""
    scores = StudyScores(study, results)
    looks = [(claim, *_look(claim, k, study, scores)) for claim in study.claims for k in claim.ks]
    decided = [
        (1.0 - _largest_confidence(claim, effect), i)
        for i, (claim, entry, effect) in enumerate(looks)
        if effect is not None and entry["verdict"] in (HOLDS, FAILS)
    ]
    chance = 0.0
    for rank, (p, i) in enumerate(sorted(decided)):
        chance = max(chance, min(1.0, p * (len(looks) - rank)))
        entry = looks[i][1]
        entry |= {"p": p, "p_over_all": chance}
        if chance > 1.0 - CONFIDENCE:
            entry["over_all"] = UNDECIDED
    return [entry for _, entry, _ in looks]


def _look(claim: Claim, k: int, study: Study, scores: StudyScores) -> tuple[dict[str, Any], Effect | None]:
    """The entry of a claim at one k, and the difference over the seeds with finished runs of all its variants."""
    rule, bound = claim.rule
    entry: dict[str, Any] = {"name": claim.name, "text": claim.text, "verdict": UNFINISHED, "effect": None}
    entry |= {"of": _compared(claim, k), "k": k, "graphs": claim.graphs, "rule": rule, "bound": bound}
    sides: Sides = [(claim.variant, claim.stage), *((other, claim.against_stage) for other in claim.others)]
    found = scores.pairs(sides, claim.range, claim.metric, k)
    finished, effect = len(found) == len(study.seeds), None
    if claim.graphs == "unseen":
        found = {seed: kept for seed in found if (kept := _unseen(found[seed], scores, sides, seed, claim.range))}
        if not all(scores.looked_at_all(name, seed, stage) for seed in found for name, stage in sides):
            entry["of"] += "; not all problems of training were looked at"
    entry["seeds"] = list(found)
    if finished and not found:
        entry["verdict"] = NOT_KNOWN
    if found:
        by_variant = list(zip(*found.values(), strict=True))
        effect, levels = difference(by_variant[0], by_variant[1:]), [level(side) for side in by_variant]
        entry |= {"effect": effect.effect, "interval": list(effect.interval), "by_seed": effect.by_seed}
        entry["scores"] = {name: _plain(side) for (name, _), side in zip(_names(sides), levels, strict=True)}
        entry["problems"] = sum(int((values[0].weights > 0).sum()) for values in found.values()) / len(found)
        if finished:
            entry["verdict"] = extreme(levels) or verdict(claim, effect.interval)
    entry["over_all"] = entry["verdict"]
    return entry, effect


def _names(sides: Sides) -> list[tuple[str, str | None]]:
    """Sides by distinct names: a variant that is compared with itself has its stage behind it."""
    several = len({name for name, _ in sides}) < len(sides)
    return [(f"{name} after {STAGE_NAMES[stage]}" if several and stage else name, stage) for name, stage in sides]


def _unseen(values: list[Values], scores: StudyScores, sides: Sides, seed: int, name: str) -> list[Values]:
    """The problems whose graph occurred in no stage of any side; empty if there are none, or nobody knows."""
    masks = [scores.unseen(variant, seed, name, stage) for variant, stage in sides]
    known = [mask for mask in masks if mask is not None]
    if len(known) < len(masks):
        return []
    counts = known[0]
    for mask in known[1:]:
        counts = counts & mask
    return [kept for side in values if (kept := side.of(counts)) is not None]


def verdict(claim: Claim, interval: tuple[float, float]) -> str:
    """holds, does not hold, or undecided at this size."""
    low, high = interval
    rule, bound = claim.rule
    if rule == "at least":
        return HOLDS if low >= bound else FAILS if high < bound else UNDECIDED
    if rule == "at most":
        return HOLDS if high <= bound else FAILS if low > bound else UNDECIDED
    return HOLDS if -bound <= low and high <= bound else FAILS if low > bound or high < -bound else UNDECIDED


def extreme(levels: Sequence[Effect]) -> str | None:
    """Whether scores are all at the floor, or all at the ceiling."""
    intervals = [score.over_problems() for score in levels]
    if all(low <= EXTREME for low, _ in intervals):
        return FLOOR
    return CEILING if all(high >= 1.0 - EXTREME for _, high in intervals) else None


def _largest_confidence(claim: Claim, effect: Effect) -> float:
    """The largest confidence at which the interval still decides, by bisection; 1 - 1e-9 at most."""
    sure, unsure = 0.0, 1.0 - 1e-9
    for _ in range(40):
        middle = (sure + unsure) / 2.0
        decided = verdict(claim, effect.at(middle)) != UNDECIDED
        sure, unsure = (middle, unsure) if decided else (sure, middle)
    return sure


def _plain(effect: Effect) -> dict[str, Any]:
    return {"value": effect.effect, "interval": list(effect.interval)}


def _compared(claim: Claim, k: int) -> str:
    """verified pass@32, edge: strict against outcome, steps"""
    metric = {"verified": "verified", "answer": "right answer", "sound": "sound", "gap": "right answer minus verified"}
    what = f"{metric[claim.metric]} pass@{k}" if claim.metric in metric else "process accuracy"
    stage = f" after {STAGE_NAMES[claim.stage]}" if claim.stage is not None else ""
    others = ", ".join(claim.against) or "itself"
    others += f" after {STAGE_NAMES[claim.against_stage]}" if claim.against_stage is not None else ""
    unseen = ", unseen graphs" if claim.graphs == "unseen" else ""
    return f"{what}, {claim.range}{unseen}: {claim.variant}{stage} against {others}"


def effects_table(study: Study, results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The entry "effects" of results.json: verified pass@k before and after, and the difference.

    Before is after the first stage of a variant, after is after its last; a variant with one stage has no difference.

    Returns:
        One {"variant", "range", "k", "seeds", "base", "after", "difference": {"value", "interval"}} for each variant,
        range and k of the evaluation; differences also have a "word", see `word_of`.
    """
    scores, rows = StudyScores(study, results), []
    for variant, recipe in study.variants.items():
        stages = list(results["variants"][variant]["runs"][str(study.seeds[0])])
        sides = [(variant, stages[0]), (variant, stages[-1])]
        for name in study.ranges:
            for k in sorted({1, *recipe.evaluate.k}):
                found = scores.pairs(sides, name, "verified", k)
                if not found:
                    continue
                before, after = zip(*found.values(), strict=True)
                row: dict[str, Any] = {"variant": variant, "range": name, "k": k, "seeds": list(found)}
                row |= {"base": _plain(level(before)), "after": _plain(level(after)), "difference": None}
                if len(stages) > 1:
                    row["difference"] = compared(before, after)
                rows.append(row)
    return rows


MARGIN = 0.01
"""Differences below one point count as none in words, where no claim says what counts."""


def compared(before: Sequence[Values], after: Sequence[Values]) -> dict[str, Any]:
    """{"value", "interval", "word"} of what was added, by seed."""
    effect = difference(after, [before])
    where = extreme([level(before), level(after)])
    return _plain(effect) | {"word": where or word_of(effect.interval)}


def word_of(interval: tuple[float, float], margin: float = MARGIN) -> str:
    """raised or lowered by more than the margin, unchanged within it, or undecided."""
    low, high = interval
    if -margin <= low and high <= margin:
        return "unchanged"
    return "raised" if low > margin else "lowered" if high < -margin else "undecided"
