"""A run as one table: the task, our figure, that of every peer, and the share of the machine's peak."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from .markdown import markdown, short
from .records import OURS, Record, Run, question, ratio

__all__ = ["format_run", "format_skipped", "table"]

HEAD = ("what", "ours", "p20 - p80", "% of peak", "peer", "theirs", "ratio", "p20 - p80 of it")


def format_run(run: Run, peaks_age: str = "") -> str:
    """The machine, the table, and what was skipped."""
    versions = ", ".join(f"{name} {version}" for name, version in run.versions.items())
    lines = [f"{run.machine['class']}, {run.threads} thread(s), commit {run.commit}, {run.date}", versions]
    if run.peaks:
        peaks = [f"{name} {rate / 1e9:,.0f} G/s" for name, rate in run.peaks.items()]
        lines.append(f"peaks, measured {peaks_age or 'in this run'}: {', '.join(peaks)}")
    return "\n".join([*lines, "", table(run.records), *format_skipped(run)])


def format_skipped(run: Run) -> list[str]:
    if not run.skipped:
        return []
    lines: dict[tuple[str, str], int] = {}
    for name, reason in run.skipped.items():
        who = (name.partition(", ")[0], reason)
        lines[who] = lines.get(who, 0) + 1
    counted = [f"- {who}{f', {n} questions' if n > 1 else ''}: {why}" for (who, why), n in lines.items()]
    return ["", "skipped:", *counted]


def table(records: Sequence[Record]) -> str:
    """A line for each of our figures and each peer: rates or counts. The ratio is how many times less ours costs."""
    ours = [record for record in records if record.provider == OURS]
    as_budgeted = [record for record in ours if _is_as_budgeted(record, records)]
    text = markdown(HEAD, [row for record in ours if record not in as_budgeted for row in _rows(record, records)])
    return text + (f"\n\n{len(as_budgeted)} counts of kernels equal their budgets." if as_budgeted else "")


def _is_as_budgeted(ours: Record, records: Sequence[Record]) -> bool:
    """Counts that are what they were when the budget was written: nothing to look at."""
    same = [r for r in records if question(r) == question(ours) and r.provider == "budget"]
    return any(budget.work == ours.work for budget in same)


def _rows(ours: Record, records: Sequence[Record]) -> Iterator[list[str]]:
    whole = _whole_of(ours, records)
    sizes = ", ".join(f"{name} {value}" for name, value in ours.shape.items())
    what = f"{ours.suite}: {ours.what}" + (f"; {sizes}" if sizes else "")
    percent = "" if ours.percent_of_peak is None else f"{ours.percent_of_peak:.0f} %"
    if whole is not None:
        # a part of another figure has no rate of its own
        yield [f"{ours.suite}: {ours.what}", _share(ours, whole), "", "", "", "", "", ""]
        return
    head = [what, figure(ours), _spread(ours), percent]
    peers = [record for record in records if record.provider != OURS and question(record) == question(ours)]
    for peer in peers:
        yield [*head, peer.provider, figure(peer), f"{ratio(ours, peer):.3g} x", _spread_of_ratio(ours, peer)]
        head = ["", "", "", ""]
    if not peers:
        yield [*head, "", "", "", ""]


def _whole_of(part: Record, records: Sequence[Record]) -> Record | None:
    """The figure that this one is a part of: "WHAT: PART" beside "WHAT"."""
    what, colon, _ = part.what.rpartition(": ")
    same = (r for r in records if (r.suite, r.what, r.provider, r.shape) == (part.suite, what, OURS, part.shape))
    return next(same, None) if colon else None


def _share(part: Record, whole: Record) -> str:
    return f"{100 * part.cost / whole.cost:.2g} % of it"


def figure(record: Record) -> str:
    """The rate, or the count."""
    if not record.times_s:
        return f"{short(record.work)} {record.unit}"
    return f"{short(1 / record.cost)} {record.unit}/{'CPU-' if record.clock == 'cpu' else ''}s"


def _spread(record: Record) -> str:
    if not record.times_s:
        return ""
    assert record.p20_s and record.p80_s
    return f"{short(record.work / record.p80_s)} - {short(record.work / record.p20_s)}"


def _spread_of_ratio(ours: Record, peer: Record) -> str:
    """Of the ratios turn by turn: what else the machine did fell on both."""
    if not ours.times_s or len(ours.times_s) != len(peer.times_s):
        return ""
    each = (np.array(peer.times_s) / peer.work) / (np.array(ours.times_s) / ours.work)
    low, high = np.percentile(each, [20, 80])
    return f"{low:.3g} - {high:.3g}"
