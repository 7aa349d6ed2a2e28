"""The command `grade`: verdicts on a file of completions."""

from __future__ import annotations

from pathlib import Path

from .parser import Parser


def grade_command(arguments: list[str]) -> int:
    from ..evaluation.completion_files import Skip
    from ..evaluation.grade_completions import FORMATS, grade_file
    from ..runtime.files import check_writable, write_json

    parser = Parser(
        prog="fastreason grade",
        description="Grades a file of completions: verdicts, and a table by op and failure kind.",
    )
    parser.add_argument("--gold", type=Path, required=True, metavar="FILE", help="JSONL in the published schema")
    parser.add_argument(
        "--completions",
        type=Path,
        required=True,
        metavar="FILE",
        help="JSONL with completion(s), and row or id; a released generation file; or in the order of --gold",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="file for the verdicts; default: print only the table")
    parser.add_argument("--format", choices=FORMATS, help="format of --out; default: from its name, otherwise jsonl")
    parser.add_argument(
        "--answer-may-end-text",
        action="store_true",
        help="the texts were generated with </answer> as a stop string that was removed",
    )
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="0: all cores (default 0)")
    parser.add_argument(
        "--results", type=Path, metavar="FILE.json", help="file for pass@k with intervals, as from eval"
    )
    parser.add_argument(
        "--released", action="store_true", help="also write the released scorer's verdicts (some thousand per second)"
    )
    options = parser.parse_args(arguments)
    if options.format and options.out is None:
        raise ValueError("--format requires --out FILE")
    if options.released and options.out is None:
        raise ValueError("--released requires --out FILE")
    if options.threads < 0:
        raise ValueError(f"--threads must be at least 0, got {options.threads}")
    for flag, path in (("--out", options.out), ("--results", options.results)):
        if path is not None:
            check_writable(flag, path)
    summary = grade_file(
        options.gold,
        options.completions,
        options.out,
        format=options.format,
        answer_may_end_text=options.answer_may_end_text,
        released=options.released,
        threads=options.threads,
    )
    print(summary.table())
    if options.results is not None:
        files = {"gold": str(options.gold), "completions": str(options.completions)}
        write_json(options.results, files | summary.results())
    return 1 if summary.skipped[Skip.UNREADABLE_GOLD] else 0
