"""The command `generate`: problems to a file, to the screen, or one as a picture."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..evaluation.op_ranges import parse_range
from ..runtime.folder_lock import held
from ..tasks.export import FORMATS, show, write, write_graph
from ..tasks.mixture import DEPTHS, MODES, Mixture, available_mixtures
from ..tasks.stream import SPLITS, TaskStream


def generate_command(arguments: list[str]) -> int:
    """`fastreason generate`; returns the exit status."""
    options = _options(arguments)
    stream = TaskStream(_mixture(options), seed=options.seed, split=options.split, split_by=options.split_by)
    if options.graph:
        write_graph(stream, options.graph)
    if options.show:
        print(show(stream, options.show))
    if not (options.graph or options.show):
        _write(stream, options)
    return 0


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="fastreason generate", description="Problems to a file or to the screen.")
    _add_mixture(parser)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--split", choices=SPLITS, default="train")
    parser.add_argument("--split-by", choices=("problem", "graph"), default="problem", help="what splits do not share")
    parser.add_argument(
        "--out", type=Path, metavar="PATH", help="a JSONL file or, else, a folder; what is there is continued"
    )
    parser.add_argument("--format", choices=FORMATS, default="jsonl", help="of what is written (default jsonl)")
    parser.add_argument("--tokenizer", type=Path, metavar="DIR", help="of --format tokens; default: the mixture's own")
    parser.add_argument("--count", type=int, default=1000, help="problems, of all shards together (default 1000)")
    parser.add_argument("--shard", default="0/1", metavar="I/N", help="only problems I, I + N, I + 2 N, ...")
    parser.add_argument("--show", type=int, metavar="N", help="print the first N problems instead")
    parser.add_argument("--graph", type=Path, metavar="FILE.svg", help="draw the graph of the first problem instead")
    return parser.parse_args(arguments)


def _add_mixture(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--mixture",
        metavar="NAME",
        help=f"a mixture by name, instead of --op, --modes and --depths: {', '.join(available_mixtures())}",
    )
    parser.add_argument(
        "--presets", type=Path, metavar="FILE", help="JSON file of mixtures that --mixture names one of"
    )
    parser.add_argument("--op", default="2-10", help="operations: 7, 2-10 or 3,5,9 (default 2-10)")
    parser.add_argument("--themes", nargs="+", default=["zoo"], help="names or .toml files (default zoo)")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=["forward"])
    parser.add_argument("--depths", nargs="+", type=int, choices=DEPTHS, default=[2])
    parser.add_argument("--context", type=int, default=0, help="tokens of padding sentences, for example 8000")


def _mixture(options: argparse.Namespace) -> Mixture:
    if options.presets:
        if not options.mixture:
            raise ValueError("--presets needs --mixture NAME")
        mixture = Mixture.from_presets(options.presets, options.mixture, op=parse_range(options.op))
    elif options.mixture:
        mixture = Mixture.preset(options.mixture)
    else:
        mixture = Mixture.uniform(parse_range(options.op), options.themes, options.modes, options.depths)
    return mixture.replace(context=options.context) if options.context else mixture


def _write(stream: TaskStream, options: argparse.Namespace) -> None:
    if options.out is None:
        raise ValueError("need --out FILE or --show N")
    if options.tokenizer and options.format != "tokens":
        raise ValueError("--tokenizer is of --format tokens only")
    shard, _, num_shards = options.shard.partition("/")
    if not (shard.isdigit() and num_shards.isdigit()):
        raise ValueError(f"--shard must have the form I/N, got {options.shard!r}")
    with _alone(options.out, options.format, f"{shard}-of-{num_shards}"):
        written = write(
            stream,
            options.out,
            options.count,
            options.format,
            shard=int(shard),
            num_shards=int(num_shards),
            tokenizer=options.tokenizer,
        )
    print(f"{options.out}: {written} problems")


@contextmanager
def _alone(out: Path, format: str, shard: str) -> Iterator[None]:
    """No other process writes the same shard to the same place; its lock is inside a folder, beside a file."""
    is_new_or_file = not out.exists() or out.is_file()
    if format == "jsonl" and not (is_new_or_file and out.parent.is_dir()):
        yield  # a device, or nothing that can be written
        return
    place = out.with_name(f".{out.name}.lock") if format == "jsonl" else out / f".lock-{shard}"
    with held(place, f"generate: {out}"):
        yield
