"""The pictures of a run of bench/sweeps/sweeps.py, by the name of their file."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from ..harness.charts import Axis, chart
from ..harness.records import OURS, Record, Run
from ..harness.svg_lines import Series

__all__ = ["TITLES", "pictures"]

TITLES = {
    "op": "Cost of a problem and of a verdict by number of operations",
    "attention": "Attention, forward and backward, by context length",
    "context": "A training step by context length",
    "size": "Training and sampling by model size",
    "batch": "Sampling by sequences at once",
    "threads": "Speed-up by threads",
}


def pictures(run: Run) -> dict[str, str]:
    """SVG files of the sweeps in the run."""
    drawn = {"op": _op, "attention": _attention, "context": _context, "size": _size, "batch": _batch}
    found = {name: draw(run) for name, draw in (drawn | {"threads": _threads}).items()}
    return {name: picture for name, picture in found.items() if picture}


Value = Callable[[Record, float], float]
SPREAD = "p20 to p80"


def _us(record: Record, time_s: float) -> float:
    """Microseconds a unit."""
    return 1e6 * time_s / record.work


def _rate(record: Record, time_s: float) -> float:
    return record.work / time_s


def _line(name: str, records: Sequence[Record], x: str, value: Value, style: int) -> Series:
    """Medians with whiskers from the 20th to the 80th percentile."""
    points, spans = [], []
    for record in sorted(records, key=lambda record: float(record.shape[x])):
        low, middle, high = (value(record, float(t)) for t in np.percentile(record.times_s, (20, 50, 80)))
        points.append((float(record.shape[x]), middle))
        spans.append((min(low, high), max(low, high)))
    return Series(name, points, style, False, spans, SPREAD)


def _bound(name: str, records: Sequence[Record], x: str, value: Value, peak: float, style: int) -> Series:
    """What the products alone would take at the machine's peak."""
    ordered = sorted(records, key=lambda record: float(record.shape[x]))
    points = [(float(r.shape[x]), value(r, r.flop / peak)) for r in ordered if r.flop is not None]
    return Series(name, points, style, dashed=True)


def _of(run: Run, what: str, provider: str = OURS, **shape: str) -> list[Record]:
    return [
        record
        for record in run.records
        if (record.suite, record.what, record.provider) == ("sweep", what, provider)
        and all(record.shape.get(name) == value for name, value in shape.items())
    ]


def _note(run: Run, unit: str = "CPU time of one thread") -> str:
    turns = sorted({len(record.times_s) for record in run.records if record.suite == "sweep"})
    spread = f"median of {' or '.join(map(str, turns))} turns, whiskers p20 to p80"
    # what other processes took does not count as CPU time, but they share caches and memory
    load = f", {run.machine['load']:g} processes running when it began" if "load" in run.machine else ""
    where = f"{run.machine['cpu']}, {run.machine['cores']} cores{load}"
    return f"{where}; commit {run.commit}, {run.date[:10]}\n{unit}; {spread}"


def _op(run: Run) -> str:
    lines = []
    for style, (what, name) in enumerate((("problems drawn as text", "drawing a problem"), _VERDICTS)):
        if records := _of(run, f"{what}, by op"):
            line = _line(name, records, "op", _us, style)
            first = min(records, key=lambda record: float(record.shape["op"]))
            each = line.points[0][1] / float(first.shape["characters"])
            sizes = sorted((float(r.shape["op"]), each * float(r.shape["characters"])) for r in records)
            lines += [line, Series("in proportion to the text", sizes, style, dashed=True)]
    y = Axis("CPU microseconds each")
    return _drawn(run, "op", lines, Axis("operations of the problem (op)", at=_all_x(lines)), y)


_VERDICTS = ("verdicts, groups of 16", "grading a completion, 16 of a problem")


def _attention(run: Run) -> str:
    lines, what = [], "attention, by context"
    for style, (provider, name) in enumerate(((OURS, "fastreason"), ("torch SDPA", "torch SDPA, keys repeated"))):
        if records := _of(run, what, provider):
            lines.append(_line(name, records, "length", _us, style))
    if (records := _of(run, what)) and _peak(run):
        lines.append(_bound("matrix products at the machine's peak", records, "length", _us, _peak(run), 0))
    x = Axis("tokens of a sequence; 5 query heads and 1 key-value head of 64", log=True, at=_all_x(lines))
    return _drawn(run, "attention", lines, x, Axis("CPU microseconds a token", log=True))


def _context(run: Run) -> str:
    lines = _by_model(run, "training step, by context", "length", _us)
    x = Axis("tokens of a sequence", log=True, at=_all_x(lines))
    return _drawn(run, "context", lines, x, Axis("CPU microseconds a token", log=True))


def _batch(run: Run) -> str:
    lines = _by_model(run, "sampling, by batch", "sequences", _rate)
    x = Axis("sequences at once", log=True, at=_all_x(lines))
    return _drawn(run, "batch", lines, x, Axis("tokens a CPU second", log=True))


def _by_model(run: Run, what: str, x: str, value: Value) -> list[Series]:
    lines = []
    for style, model in enumerate(("tiny", "10m")):
        if records := _of(run, what, model=model):
            lines.append(_line(_model_name(records[0]), records, x, value, style))
            if _peak(run):
                lines.append(_bound("its products at the machine's peak", records, x, value, _peak(run), style))
    return lines


def _model_name(record: Record) -> str:
    return f"{record.shape['model']}, {float(record.shape['parameters']) / 1e6:.2g} M parameters"


def _size(run: Run) -> str:
    lines = []
    for style, (what, name) in enumerate((("training step, by size", "training"), ("sampling, by size", "sampling"))):
        if records := _of(run, what):
            lines.append(_line(name, records, "parameters", _rate, style))
            if _peak(run):
                bound = f"products of {name} at the machine's peak"
                lines.append(_bound(bound, records, "parameters", _rate, _peak(run), style))
    return _drawn(run, "size", lines, Axis("parameters", log=True), Axis("tokens a CPU second", log=True))


def _threads(run: Run) -> str:
    """Speedup over one thread, from alternating turns, so that other load affects both."""
    lines = []
    for style, (name, what, shape) in enumerate(_THREADED):
        by_threads = {int(record.shape["threads"]): record for record in _of(run, f"{what}, by threads", OURS, **shape)}
        if 1 not in by_threads:
            continue
        one = np.array(by_threads[1].times_s) / by_threads[1].work
        ratios = {n: one / (np.array(record.times_s) / record.work) for n, record in sorted(by_threads.items())}
        spans = [tuple(np.percentile(ratio, (20, 80)).tolist()) for ratio in ratios.values()]
        medians = [(float(n), float(np.median(ratio))) for n, ratio in ratios.items()]
        lines.append(Series(name, medians, style, False, spans, SPREAD))
    if lines:
        lines.append(Series("as many times as threads", [(x, x) for x in _all_x(lines)], 0, dashed=True))
    x, y = Axis("threads", at=_all_x(lines)), Axis("times as fast as one thread, wall clock")
    return _drawn(run, "threads", lines, x, y, "wall time")


_THREADED: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("drawing problems", "problems drawn as text", {}),
    ("grading", "verdicts, groups of 16", {}),
    ("training tiny", "training step", {"model": "tiny"}),
    ("training 10m", "training step", {"model": "10m"}),
)


def _peak(run: Run) -> float:
    """FLOP/s of one core, 0 where it was not measured."""
    peak = run.peaks.get("matmul_one_core", 0.0)
    return peak if math.isfinite(peak) else 0.0


def _all_x(lines: Sequence[Series]) -> list[float]:
    return sorted({x for line in lines for x, _ in line.points})


def _drawn(
    run: Run, name: str, lines: Sequence[Series], x: Axis, y: Axis, clock: str = "CPU time of one thread"
) -> str:
    return chart(lines, x, y, title=TITLES[name], note=_note(run, clock)) if lines else ""
