"""Samples chosen to inform, with the status of every step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..studies.study import Study
from ..studies.study_scores import StudyScores

Trace = dict[str, Any]


def chosen_samples(study: Study, scores: StudyScores) -> list[Trace]:
    """Of the first finished seed of each variant after its last stage, up to four of an only variant, or one of each:
    a verified one, one whose answer is right without its steps, an unfinished one, and the most frequent failure."""
    shown: list[Trace] = []
    for number, variant in enumerate(study.variants):
        entries = scores.entries(variant)
        found = _informative(entries[0]) if entries else []
        if len(study.variants) > 1:
            # every variant another kind, so that a page shows several
            found = found[number % len(found) :][:1] if found else []
        shown += [{**trace, "variant": variant, "parts": trace_parts(trace)} for trace in found]
    return shown


def _informative(entry: Mapping[str, Any]) -> list[Trace]:
    traces = sorted(entry["traces"], key=lambda trace: -trace["op"])
    kinds: Counter[str] = Counter()
    for op in entry["ops"].values():
        kinds.update({kind.lower(): share for kind, share in op.get("failures", {}).items() if kind.lower() != "none"})
    wanted: list[tuple[str, Callable[[Trace], bool]]] = [
        ("verified", lambda trace: trace["verified"]),
        ("right answer, wrong process", lambda trace: trace["answer_correct"] and not trace["verified"]),
        ("unfinished", _is_unfinished),
    ]
    found: list[Trace] = []
    for what, fits in wanted:
        found += [{**trace, "what": what} for trace in _first(traces, fits, found)]
    for kind, _ in kinds.most_common():
        of_kind = _first(traces, lambda trace, kind=kind: trace.get("failure") == kind, found)  # type: ignore[misc]
        if of_kind:
            name = kind.replace("_", " ")
            return [*found, {**of_kind[0], "what": f"most frequent failure shown: {name}"}]
    wrong = _first(traces, lambda trace: not trace["answer_correct"], found)
    return [*found, *({**trace, "what": "wrong"} for trace in wrong)]


def _first(traces: Sequence[Trace], fits: Callable[[Trace], bool], shown: Sequence[Trace]) -> list[Trace]:
    """The first that fits and is not shown yet, if there is one; the hardest come first."""
    taken = {(trace["prompt"], trace["completion"]) for trace in shown}
    return [trace for trace in traces if fits(trace) and (trace["prompt"], trace["completion"]) not in taken][:1]


def _is_unfinished(trace: Trace) -> bool:
    return bool(trace.get("failure") == "unfinished")


def trace_parts(trace: Mapping[str, Any]) -> list[tuple[str | None, str]]:
    """(status or None, text); offsets of steps count bytes."""
    data, parts, at = trace["completion"].encode(), [], 0
    for step in trace["steps"]:
        parts.append((None, data[at : step["begin"]].decode(errors="replace")))
        parts.append((step["status"], data[step["begin"] : step["end"]].decode(errors="replace")))
        at = step["end"]
    parts.append((None, data[at:].decode(errors="replace")))
    return [(status, text) for status, text in parts if text]
