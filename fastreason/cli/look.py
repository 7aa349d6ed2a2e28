"""The command `look`: prints samples of a finished evaluation, each step marked with its verdict."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..evaluation.op_ranges import parse_range
from ..runtime.json_files import read_json
from .parser import Parser

_GREEN, _GREY, _RED, _BOLD, _PLAIN = "\033[32m", "\033[90m", "\033[31m", "\033[1m", "\033[0m"
_COLOURS = {"right": _GREEN, "extra": _GREY, "repeated": _GREY}


def look_command(arguments: list[str]) -> int:
    """`fastreason look`; returns the exit status."""
    parser = Parser(
        prog="fastreason look",
        description="Prints samples kept by the evaluations of a run, a study or eval --out. Right steps are green, "
        "extra and repeated ones gray, wrong ones red, and each wrong step names its fault.",
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="a folder with results.json, or that file")
    parser.add_argument("--op", help="only problems of these operations: 7, 2-10 or 3,5,9")
    parser.add_argument("--stage", metavar="NAME", help="only samples after this stage, for example rl")
    parser.add_argument("--failures", action="store_true", help="only samples that are not verified")
    parser.add_argument("--count", type=int, default=5, metavar="N", help="maximum number of samples (default 5)")
    parser.add_argument(
        "--color", choices=("auto", "always", "never"), default="auto", help="auto: on a terminal (default auto)"
    )
    options = parser.parse_args(arguments)
    if options.count < 1:
        raise ValueError(f"--count must be at least 1, got {options.count}")
    ops = None if options.op is None else set(parse_range(options.op))
    coloured = options.color == "always" or (options.color == "auto" and sys.stdout.isatty())
    shown = matching = 0
    for where, trace in _traces(_results(options.folder)):
        if options.stage is not None and options.stage not in where.split():
            continue
        if (ops is not None and trace["op"] not in ops) or (options.failures and trace["verified"]):
            continue
        matching += 1
        if shown < options.count:
            shown += 1
            print(format_sample(where, trace, coloured), end="\n\n")
    print(f"{shown} of {matching} matching samples" if matching else "no matching samples were kept")
    return 0


def _results(path: Path) -> dict[str, Any]:
    file = path / "results.json" if path.is_dir() else path
    if not file.is_file():
        raise ValueError(f"no file {str(file)!r}: the folder of a run, a study or an evaluation holds results.json")
    return read_json(file)


def _traces(results: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields what each sample belongs to, and the sample as kept by `evaluate`."""
    for stage, scores in results.get("stages", {}).items():
        yield from ((stage, trace) for trace in scores.get("traces", []))
    for name, variant in results.get("variants", {}).items():
        for seed, stages in variant["runs"].items():
            for stage, keys in stages.items():
                scores = results.get("scores", {}).get(
                    keys.get("evaluation"), {}
                )  # a single run has them by stage alone
                yield from ((f"{name} seed {seed} {stage}", trace) for trace in scores.get("traces", []))
    yield from (("", trace) for trace in results.get("traces", []))


def format_sample(where: str, trace: Mapping[str, Any], coloured: bool, width: int = 100) -> str:
    """The problem, the completion with one step per line, and the verdict."""
    verdict = "verified" if trace["verified"] else "right answer, not verified" if trace["answer_correct"] else "wrong"
    head = f"{where + ': ' if where else ''}op {trace['op']}, {verdict}"
    lines = [f"{_BOLD}{head}{_PLAIN}" if coloured else head]
    lines += textwrap.wrap(" ".join(trace["prompt"].split()), width)
    return "\n".join([*lines, *_steps(trace, coloured)])


def _steps(trace: Mapping[str, Any], coloured: bool) -> Iterator[str]:
    """Yields the completion, one step per line; offsets of steps are in bytes."""
    data, end = trace["completion"].encode(), 0
    for step in [*trace["steps"], None]:
        begin = len(data) if step is None else step["begin"]
        # the full stop after a step belongs to its line
        if rest := _text(data[end:begin]).removeprefix(".").strip():
            yield f"  {rest}"
        if step is not None:
            end = max(end, step["end"])
            text, status = _text(data[begin : step["end"]]), step["status"]
            mark = "" if status == "right" else f"   <- {status.replace('_', ' ')}"
            colour, plain = (_COLOURS.get(status, _RED), _PLAIN) if coloured else ("", "")
            yield f"  {colour}{text}{mark}{plain}"


def _text(data: bytes) -> str:
    """The text on one line, without control characters: completions are never trusted."""
    text = " ".join(data.decode(errors="replace").split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
