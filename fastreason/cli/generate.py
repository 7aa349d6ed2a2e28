"""The command `generate`: writes problems to a file, prints them, or draws the graph of one."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..evaluation.op_ranges import parse_range
from ..runtime.files import check_writable
from ..tasks.export import FORMATS, show, write, write_graph
from ..tasks.mixture import DEPTHS, MODES, Mixture, available_mixtures
from ..tasks.stream import SPLITS, TaskStream
from .parser import Parser


def generate_command(arguments: list[str]) -> int:
    """`fastreason generate`; returns the exit status."""
    options = _options(arguments)
    if options.show is not None and options.show < 1:
        raise ValueError(f"--show must be at least 1, got {options.show}")
    if options.graph is not None and options.graph.suffix.lower() != ".svg":
        raise ValueError(f"--graph must be a file FILE.svg, got {options.graph}")
    for flag, path in (
        ("--graph", options.graph),
        ("--out", options.out if options.format in (None, "jsonl") else None),
    ):
        if path is not None and not path.is_dir():  # of a folder `_format` says more
            check_writable(flag, path)
    stream = TaskStream(_mixture(options), seed=options.seed, split=options.split, split_by=options.split_by)
    if options.graph:
        write_graph(stream, options.graph)
    if options.show:
        print(show(stream, options.show))
    if not (options.graph or options.show):
        _write(stream, options)
    return 0


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = Parser(
        prog="fastreason generate", description="Writes problems to a file, prints them, or draws the graph of one."
    )
    _add_mixture(parser)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--split", choices=SPLITS, default="train")
    parser.add_argument(
        "--split-by",
        choices=("problem", "graph"),
        default="problem",
        help="what no two splits share: problems, or graphs (default problem)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="PATH",
        help="a JSONL file or, for other formats, a folder; an existing one is continued",
    )
    parser.add_argument(
        "--format", choices=FORMATS, help="output format; default: from the name of --out, otherwise jsonl"
    )
    parser.add_argument(
        "--tokenizer",
        type=Path,
        metavar="DIR",
        help="tokenizer for --format tokens; default: the closed vocabulary of the mixture",
    )
    parser.add_argument("--count", type=int, default=1000, help="number of problems over all shards (default 1000)")
    parser.add_argument("--shard", default="0/1", metavar="I/N", help="only problems I, I + N, I + 2 N, ...")
    parser.add_argument("--show", type=int, metavar="N", help="print the first N problems instead of writing a file")
    parser.add_argument(
        "--graph", type=Path, metavar="FILE.svg", help="draw the graph of the first problem instead of writing a file"
    )
    return parser.parse_args(arguments)


def _add_mixture(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--mixture",
        metavar="NAME",
        help=f"a named mixture instead of --op, --modes and --depths: {', '.join(available_mixtures())}",
    )
    parser.add_argument(
        "--presets", type=Path, metavar="FILE", help="JSON file of mixtures from which --mixture selects one"
    )
    parser.add_argument("--op", help="operations: 7, 2-10 or 3,5,9 (default 2-10)")
    parser.add_argument("--themes", nargs="+", help="names or .toml files (default zoo)")
    parser.add_argument("--modes", nargs="+", choices=MODES, help="default forward")
    parser.add_argument("--depths", nargs="+", type=int, choices=DEPTHS, help="default 2")
    parser.add_argument("--max-value", type=int, metavar="N", help="largest value in a problem")
    parser.add_argument("--context", type=int, metavar="N", help="tokens of padding, for example 8000 (default 0)")


def _mixture(options: argparse.Namespace) -> Mixture:
    ops = parse_range("2-10" if options.op is None else options.op)
    if options.presets and not options.mixture:
        raise ValueError("--presets requires --mixture NAME")
    if options.mixture:
        # with --presets, --op applies to entries that specify no ops
        own = ("themes", "modes", "depths") if options.presets else ("op", "themes", "modes", "depths")
        if given := [name for name in own if getattr(options, name) is not None]:
            raise ValueError(f"--mixture {options.mixture} defines its own {given[0]}; omit --{given[0]} or --mixture")
    if options.presets:
        mixture = Mixture.from_presets(options.presets, options.mixture, op=ops)
    elif options.mixture:
        mixture = Mixture.preset(options.mixture)
    else:
        mixture = Mixture.uniform(ops, options.themes or ["zoo"], options.modes or ["forward"], options.depths or [2])
    changes = {name: value for name in ("max_value", "context") if (value := getattr(options, name)) is not None}
    return mixture.replace(**changes) if changes else mixture


def _format(options: argparse.Namespace) -> str:
    """The requested format, or the one implied by the name of --out."""
    if options.format:
        return str(options.format)
    suffix = options.out.suffix.lower()
    if options.out.is_dir():
        raise ValueError(f"--out {options.out} is a folder; use --format parquet or tokens, or name a file")
    if suffix in ("", ".jsonl", ".json"):
        return "jsonl"
    if suffix == ".parquet":
        return "parquet"
    raise ValueError(
        f"--out {options.out}: the suffix {suffix!r} matches none of the formats {', '.join(FORMATS)}; give --format"
    )


def _write(stream: TaskStream, options: argparse.Namespace) -> None:
    if options.out is None:
        raise ValueError("one of --out PATH, --show N or --graph FILE.svg is required")
    if options.tokenizer and options.format != "tokens":
        raise ValueError("--tokenizer is only for --format tokens")
    format = _format(options)
    shard, _, num_shards = options.shard.partition("/")
    if not (shard.isdigit() and num_shards.isdigit()):
        raise ValueError(f"--shard must have the form I/N, got {options.shard!r}")
    written = write(
        stream,
        options.out,
        options.count,
        format,
        shard=int(shard),
        num_shards=int(num_shards),
        tokenizer=options.tokenizer,
    )
    print(f"{options.out}: {written} problems")
