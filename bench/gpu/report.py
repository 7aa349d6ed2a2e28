"""docs/gpu.md from the results of tools/gpu_day.sh, and what they suggest for kernels/launch.toml.

    python -m bench.gpu.report [--results runs/gpu] [--page docs/gpu.md]

Only lines that a GPU wrote become figures. From a rehearsal the page says which items ran to their end, and
"rehearsal, no GPU" where a figure would stand. Of several lines of one item the last counts.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..harness.environment import ROOT
from ..harness.markdown import markdown, put_between_marks, short
from ..harness.records import OURS

__all__ = ["NO_GPU", "main", "page", "read", "suggestions"]

NO_GPU = "rehearsal, no GPU"
STEPS = ("build", "smoke", "tests", "timings", "end-to-end", "autotune")
Line = Mapping[str, Any]


def read(folder: Path) -> list[dict[str, Any]]:
    """The last line of every item, in the order of steps; those of a GPU alone, if there are any."""
    last: dict[tuple[str, str], dict[str, Any]] = {}
    for step in STEPS:
        path = folder / f"{step}.jsonl"
        for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
            try:
                line = json.loads(text)
            except ValueError:  # half a line, of a process that was killed
                continue
            last[step, line["item"]] = line
    found = list(last.values())
    return [line for line in found if is_measured(line)] or found


def is_measured(line: Line) -> bool:
    """Whether a GPU wrote it. `build` knows none by name."""
    return not line["rehearsed"] and (bool(line.get("gpu")) or line["step"] == "build")


def page(lines: Sequence[Line]) -> str:
    """The Markdown of what was found."""
    if not lines:
        return "No results yet: no figure from a GPU exists."
    parts = [_where(lines), _overview(lines)]
    if any(is_measured(line) and line["measured"] for line in lines):
        parts += [_timings(lines), _end_to_end(lines)]
    parts.append(_failures(lines))
    return "\n\n".join(part for part in parts if part)


def _where(lines: Sequence[Line]) -> str:
    described = next((line for line in lines if "versions" in line), lines[0])
    versions = ", ".join(f"{name} {value}" for name, value in described.get("versions", {}).items() if value)
    commits = ", ".join(sorted({line["commit"] for line in lines}))
    gpus = sorted({line["gpu"] for line in lines if line.get("gpu")})
    if not any(is_measured(line) for line in lines) or not gpus:
        return f"**{NO_GPU[0].upper()}{NO_GPU[1:]}.** No figure from a GPU exists. Gone through with {versions}."
    return f"{', '.join(gpus)}; commit {commits}; {versions}."


def _overview(lines: Sequence[Line]) -> str:
    rows = []
    for step in STEPS:
        mine = [line for line in lines if line["step"] == step]
        counts = [sum(line["status"] == status for line in mine) for status in ("ok", "rehearsed", "skipped", "failed")]
        rows.append([step, *counts, "" if any(is_measured(line) for line in mine) else NO_GPU if mine else "not run"])
    return markdown(["step", "ok", "rehearsed", "skipped", "failed", ""], rows, "<>>>><")


def _figures(lines: Iterable[Line], step: str) -> dict[str, Mapping[str, Any]]:
    return {
        line["item"]: line["measured"]
        for line in lines
        if line["step"] == step and line["status"] == "ok" and is_measured(line) and line["measured"]
    }


def _timings(lines: Sequence[Line]) -> str:
    """Milliseconds of ours and of the others, and our share of what the GPU's own copy or product reaches."""
    found = _figures(lines, "timings")
    peaks = found.pop("peaks", {})
    names = list(dict.fromkeys(item.rpartition(", ")[0] for item in found))
    providers = list(dict.fromkeys(item.rpartition(", ")[2] for item in found))
    rows = []
    for name in names:
        ours = found.get(f"{name}, {OURS}", {})
        times = [found.get(f"{name}, {provider}", {}).get("seconds") for provider in providers]
        cells = ["" if time is None else short(1e3 * time) for time in times]
        rows.append([name, *cells, _share(ours, peaks, "bytes", "copy_gpu"), _share(ours, peaks, "flop", "matmul_gpu")])
    if not rows:
        return ""
    head = ["forward and backward", *(f"{provider}, ms" for provider in providers), "of a copy", "of a product"]
    return markdown(head, rows)


def _share(ours: Mapping[str, Any], peaks: Mapping[str, float], amount: str, peak: str) -> str:
    if not ours.get(amount) or not peaks.get(peak):
        return ""
    return f"{ours[amount] / ours['seconds'] / peaks[peak]:.0%}"


def _end_to_end(lines: Sequence[Line]) -> str:
    rows = []
    for item, figures in _figures(lines, "end-to-end").items():
        work = next((name for name in ("tokens", "samples") if name in figures), None)
        rate = f"{short(figures[work] / figures['seconds'])} {work}/s" if work else ""
        busy = f"{figures['busy_seconds'] / figures['profiled_seconds']:.0%}"
        top = figures["kernels"][0]["name"][:48] if figures["kernels"] else ""
        rows.append([item, short(1e3 * figures["seconds"]), rate, busy, figures["launches"], f"`{top}`"])
    if not rows:
        return ""
    head = ["end to end", "ms", "", "GPU busy", "launches", "most time in"]
    return markdown(head, rows, "<>>>><")


def _failures(lines: Sequence[Line]) -> str:
    failed = [line for line in lines if line["status"] == "failed"]
    rows = [
        f"- {line['step']}, {line['item']}: `{(line.get('error') or 'see its log').splitlines()[-1]}`"
        for line in failed
    ]
    return "\n".join(["Failed:", "", *rows]) if rows else ""


def suggestions(lines: Sequence[Line]) -> str:
    """Entries for kernels/launch.toml, one for each kernel, GPU and condition."""
    measured = [line for line in lines if line["step"] == "autotune" and is_measured(line)]
    entries = [entry for line in measured for entry in line["measured"].get("entries", "").split("\n\n") if entry]
    if not entries:
        return f"kernels/launch.toml: {NO_GPU if lines else 'no results'}, so there is nothing to suggest"
    triton = ", ".join(sorted({line["versions"].get("triton", "?") for line in measured}))
    return f"# kernels/launch.toml, from Triton {triton}\n\n" + "\n\n".join(dict.fromkeys(entries))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=ROOT / "runs" / "gpu")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "gpu.md")
    options = parser.parse_args(arguments)
    lines = read(options.results)
    put_between_marks(options.page, "results", page(lines))
    print(suggestions(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
