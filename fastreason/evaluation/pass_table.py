"""From verdicts to a table: counts per problem, and pass@k by op, range, theme and mode.

All results of an evaluation follow from how many samples of each problem pass, so these counts are all that is kept of
half a million samples.

Letters: P problems, K values of k, R resamples, M = 3 K + 1 columns: pass@k at each level, and process accuracy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..grading.failure_kinds import FailureKind
from .op_ranges import op_weights
from .pass_at_k import bootstrap_means, pass_at_ks, percentile_interval

LEVELS = {"verified": "verified", "sound": "sound", "answer": "answer_correct"}
"""The name of each level in results, and of its column among the samples."""

SCORES = np.dtype(
    [
        ("op", np.int32),
        ("problem", np.int64),  # index in the stream of its op, or gold row
        ("theme", np.int32),  # index into a list of names, like mode
        ("mode", np.int32),
        ("samples", np.int64),
        *((name, np.int64) for name in LEVELS),  # number of samples that pass
        ("process_accuracy", np.float64),  # mean over the samples
        ("tokens", np.int64),
        ("stopped", np.int64),  # number of samples that ended before the limit
        ("failures", np.int64, (len(FailureKind),)),
    ]
)
"""One row per problem. Arrays of it can be joined, sorted and sent between processes."""

Entry = dict[str, Any]


def scores_of(columns: Mapping[str, np.ndarray], samples: int) -> np.ndarray:
    """SCORES [P] from columns [P * samples] with one row per sample, those of a problem adjacent."""
    first = {name: columns[name][::samples] for name in ("op", "problem", "theme", "mode")}
    scores = np.zeros(len(first["op"]), dtype=SCORES)
    for name, values in first.items():
        scores[name] = values
    scores["samples"] = samples

    def total(column: np.ndarray) -> np.ndarray:
        return column.reshape(-1, samples).sum(axis=1)

    for name, column in LEVELS.items():
        scores[name] = total(columns[column].astype(np.int64))
    scores["process_accuracy"] = total(columns["process_accuracy"].astype(np.float64)) / samples
    scores["tokens"] = total(columns["length"].astype(np.int64))
    scores["stopped"] = total(columns["stopped"].astype(np.int64))
    kinds = columns["failure"].reshape(-1, samples)
    scores["failures"] = np.stack([(kinds == kind).sum(axis=1) for kind in FailureKind], axis=1)
    return scores


def summarise(
    scores: np.ndarray,
    themes: Sequence[str],
    modes: Sequence[str],
    ks: Sequence[int],
    ranges: Mapping[str, Mapping[str, float]],
    *,
    seed: int = 0,
) -> dict[str, dict[str, Entry]]:
    """pass@k at every level with 95 % intervals, by op, range, theme and mode.

    Args:
        scores: SCORES [P], in any order.
        themes, modes: the names that `scores` has indices of.
        ks: at most the number of samples per problem.
        ranges: weights of ops by range, all of which must be scored. A range is the weighted mean of its ops; its
            interval resamples the problems of each op independently.
        seed: of the resampling.
    Returns:
        {"ops": {OP: entry}, "ranges": {NAME: entry}, "themes": ..., "modes": ...}; docs/evaluation.md describes
        entries.
    """
    scores = scores[np.lexsort((scores["problem"], scores["op"]))]
    weights = {name: op_weights(parts, name) for name, parts in ranges.items()}
    tables: dict[str, dict[str, Entry]] = {"ops": {}, "ranges": {}, "themes": {}, "modes": {}}
    totals: dict[str, Group] = {}
    for op in np.unique(scores["op"]).tolist():
        group = Group.of(scores[scores["op"] == op], ks, [seed, 0, op + 1])
        tables["ops"][str(op)] = group.entry(ks)
        for name, weight_of in weights.items():
            if op in weight_of:
                part = group.scaled(weight_of[op])
                totals[name] = totals[name].plus(part) if name in totals else part
    tables["ranges"] = {name: totals[name].entry(ks) for name in weights}
    for what, names in (("themes", themes), ("modes", modes)):
        column = scores[what.removesuffix("s")]
        for i, name in enumerate(names):
            if (column == i).any():
                tables[what][name] = Group.of(scores[column == i], ks, [seed, 1 + (what == "modes"), i]).entry(ks)
    return tables


@dataclass(frozen=True, eq=False)
class Group:
    """Means over a group of problems, and the same means over resampled problems."""

    problems: int
    samples: int
    mean_M: np.ndarray
    resampled_RM: np.ndarray
    facts: np.ndarray  # shares of failure kinds, mean length, share of samples that ended before the limit

    @classmethod
    def of(cls, scores: np.ndarray, ks: Sequence[int], seed: Sequence[int]) -> Group:
        levels = [pass_at_ks(scores[name], scores["samples"], ks) for name in LEVELS]
        values_PM = np.column_stack([*levels, scores["process_accuracy"]])
        of_samples = np.column_stack([scores["failures"], scores["tokens"], scores["stopped"]])
        facts = (of_samples / scores["samples"][:, None]).mean(axis=0)
        resampled = bootstrap_means(values_PM, seed)
        return cls(len(scores), int(scores["samples"].sum()), values_PM.mean(axis=0), resampled, facts)

    def scaled(self, weight: float) -> Group:
        means = (weight * self.mean_M, weight * self.resampled_RM, weight * self.facts)
        return Group(self.problems, self.samples, *means)

    def plus(self, other: Group) -> Group:
        return Group(
            self.problems + other.problems,
            self.samples + other.samples,
            self.mean_M + other.mean_M,
            self.resampled_RM + other.resampled_RM,
            self.facts + other.facts,
        )

    def entry(self, ks: Sequence[int]) -> Entry:
        low_high = percentile_interval(self.resampled_RM).T
        entry: Entry = {}
        for i, level in enumerate(LEVELS):
            columns = range(i * len(ks), (i + 1) * len(ks))
            entry[level] = {str(k): float(self.mean_M[m]) for k, m in zip(ks, columns, strict=True)}
            entry[f"{level}_interval"] = {str(k): low_high[m].tolist() for k, m in zip(ks, columns, strict=True)}
        entry["process_accuracy"] = float(self.mean_M[-1])
        entry["process_accuracy_interval"] = low_high[-1].tolist()
        kinds = {kind.name: float(share) for kind, share in zip(FailureKind, self.facts, strict=False)}
        entry["failures"] = {name: share for name, share in kinds.items() if share > 0}
        entry["mean_length"], entry["stopped"] = float(self.facts[-2]), float(self.facts[-1])
        return entry | {"problems": self.problems, "samples": self.samples}


def shown_ks(ks: Sequence[int], most: int = 4) -> list[int]:
    """A few of the ks for a table: powers of 2 with a constant ratio, and the largest.

    >>> shown_ks(range(1, 129)), shown_ks([1, 4])
    ([1, 8, 32, 128], [1, 4])
    """
    if len(ks) <= most:
        return list(ks)
    chosen = [k for k in (1, 8, 32) if k in ks and k < max(ks)]
    return [*chosen[: most - 1], max(ks)]


def table(result: Mapping[str, Mapping[str, Entry]]) -> str:
    """A table in percent: verified pass@k with the 95 % interval of the first k, then other measures at that k."""
    ks = shown_ks([int(k) for k in next(iter(result["ops"].values()))["verified"]])
    header = f"{'':18}{'problems':>9}{'verified @' + str(ks[0]):>13}{'95 %':>14}"
    header += "".join(f"{'@' + str(k):>7}" for k in ks[1:]) + f"{'answer':>9}{'sound':>7}{'process':>9}"
    lines = [header]
    for what in ("ops", "ranges", "themes", "modes"):
        entries = result.get(what, {})
        if what in ("themes", "modes") and len(entries) < 2:
            continue
        lines += [_line(f"op {name}" if what == "ops" else name, entry, ks) for name, entry in entries.items()]
    return "\n".join(lines)


def _line(name: str, entry: Entry, ks: Sequence[int]) -> str:
    first = str(ks[0])
    low, high = (100 * bound for bound in entry["verified_interval"][first])
    text = f"{name:18.18}{entry['problems']:>9}{100 * entry['verified'][first]:>13.1f}{f'{low:.1f} - {high:.1f}':>14}"
    text += "".join(f"{100 * entry['verified'][str(k)]:>7.1f}" for k in ks[1:])
    text += f"{100 * entry['answer'][first]:>9.1f}{100 * entry['sound'][first]:>7.1f}"
    return text + f"{100 * entry['process_accuracy']:>9.1f}"


def failure_table(result: Mapping[str, Mapping[str, Entry]]) -> str:
    """A table of the percentage of samples per failure kind and op; "none" are the sound ones."""
    entries = result["ops"]
    kinds = [kind.name for kind in FailureKind if any(kind.name in entry["failures"] for entry in entries.values())]
    width = max(len(kind) for kind in kinds) + 2
    lines = [f"{'% of samples':{width}}" + "".join(f"{'op ' + op:>7}" for op in entries)]
    for kind in kinds:
        shares = "".join(f"{100 * entry['failures'].get(kind, 0.0):>7.1f}" for entry in entries.values())
        lines.append(f"{kind.lower().replace('_', ' '):{width}}{shares}")
    return "\n".join(lines)
