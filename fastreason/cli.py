"""The command line: `fastreason run | report | generate | grade | themes | info`, the same as `python -m fastreason`.

Flags of `run` are the fields of the recipe by their dotted names, so they follow from the dataclasses and their docs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_USAGE = """usage: fastreason COMMAND ...

commands:
  run RECIPE [--out DIR] [--resume] [--dry-run] [--section.field VALUE ...]
                 train, reinforce and evaluate; RECIPE is a name or a .toml file (run --help lists the names)
  report DIR     write DIR/report.html again from what the run directory holds
  generate --out FILE --count N [--mixture NAME | --op 2-10 ...]
                 problems as JSONL, Parquet or token ids, --show 3 to the screen, --graph FILE.svg as a picture
  grade --gold FILE --completions FILE [--out FILE]
                 verdicts of completions as JSONL or Parquet, and a table by op and by kind of failure
  themes [learn FILE --out DIR]
                 the themes that ship, or those of a JSONL file as TOML files
  info           this machine and the versions of everything the numbers depend on

`fastreason COMMAND --help` says more.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status.

    0; 1 for what went wrong on the way (a disk that is full, a loss that is not finite); 2 for bad input; 130 after
    Ctrl-C, 143 after SIGTERM.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    commands = {"run": _run, "report": _report, "generate": _generate, "grade": _grade}
    commands |= {"themes": _themes, "info": _info}
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_USAGE, end="")
        return 0
    command, rest = arguments[0], arguments[1:]
    if command not in commands:
        print(f"fastreason: no command {command!r}; there are {', '.join(commands)}", file=sys.stderr)
        return 2
    try:
        return commands[command](rest)
    except (ValueError, ModuleNotFoundError) as error:
        print(f"fastreason {command}: {error}", file=sys.stderr)
        return 2
    except (OSError, FloatingPointError, RuntimeError) as error:
        print(f"fastreason {command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


_RUN_OPTIONS = """Runs a recipe into one directory.

  --out DIR    the run directory; default runs/NAME
  --resume     go on with what is in the directory
  --dry-run    print the resolved recipe and stop

Every field of the recipe is a flag too:"""


def _run(arguments: list[str]) -> int:
    import tomli_w
    import tyro

    from .distributed import is_main, process_group
    from .metrics import Interrupted, Terminated
    from .recipe import Recipe, available_recipes, load_recipe
    from .runner import run

    if not arguments or arguments[0].startswith("-"):
        print(f"usage: fastreason run RECIPE [flags]\nrecipes that ship: {', '.join(available_recipes())}")
        return 0 if arguments and arguments[0] in ("-h", "--help") else 2
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--dry-run", action="store_true")
    options, rest = parser.parse_known_args(arguments[1:])
    recipe = tyro.cli(
        Recipe,
        args=rest,
        default=load_recipe(arguments[0]),
        prog=f"fastreason run {arguments[0]}",
        description=_RUN_OPTIONS,
        config=(tyro.conf.SuppressFixed, tyro.conf.AvoidSubcommands),
    )
    if options.dry_run:
        print(tomli_w.dumps(recipe.to_dict()), end="")
        return 0
    folder = options.out or Path("runs") / recipe.name
    with process_group():
        try:
            results = run(recipe, folder, resume=options.resume)
        except (Interrupted, KeyboardInterrupt, Terminated) as stopped:
            print(f"\nstopped; the same command with --resume goes on from here ({folder})", file=sys.stderr)
            return 143 if isinstance(stopped, Terminated) else 130
        if is_main():
            print(format_results(results))
            print(f"\nreport: {folder / 'report.html'}")
    return 0


def _report(arguments: list[str]) -> int:
    from .report import write_report

    parser = argparse.ArgumentParser(prog="fastreason report", description="Writes DIR/report.html again.")
    parser.add_argument("folder", type=Path, metavar="DIR", help="a run directory")
    print(write_report(parser.parse_args(arguments).folder))
    return 0


def _generate(arguments: list[str]) -> int:
    from .generate import FORMATS, show, write, write_graph
    from .tasks import DEPTHS, MODES, SPLITS, Mixture, TaskStream, available_mixtures

    parser = argparse.ArgumentParser(prog="fastreason generate", description="Problems to a file or to the screen.")
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
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--context", type=int, default=0, help="tokens of padding sentences, for example 8000")
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
    options = parser.parse_args(arguments)
    if options.presets:
        if not options.mixture:
            raise ValueError("--presets needs --mixture NAME")
        mixture = Mixture.from_presets(options.presets, options.mixture, op=parse_range(options.op))
    elif options.mixture:
        mixture = Mixture.preset(options.mixture)
    else:
        mixture = Mixture.uniform(parse_range(options.op), options.themes, options.modes, options.depths)
    if options.context:
        mixture = mixture.replace(context=options.context)
    stream = TaskStream(mixture, seed=options.seed, split=options.split, split_by=options.split_by)
    if options.graph:
        write_graph(stream, options.graph)
    if options.show:
        print(show(stream, options.show))
    if options.graph or options.show:
        return 0
    if options.out is None:
        raise ValueError("need --out FILE or --show N")
    if options.tokenizer and options.format != "tokens":
        raise ValueError("--tokenizer is of --format tokens only")
    shard, _, num_shards = options.shard.partition("/")
    if not (shard.isdigit() and num_shards.isdigit()):
        raise ValueError(f"--shard must have the form I/N, got {options.shard!r}")
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
    return 0


def _grade(arguments: list[str]) -> int:
    from .grade_files import FORMATS, grade_file

    parser = argparse.ArgumentParser(prog="fastreason grade", description="The verdicts of a file of completions.")
    parser.add_argument("--gold", type=Path, required=True, metavar="FILE", help="JSONL in the published schema")
    parser.add_argument(
        "--completions",
        type=Path,
        required=True,
        metavar="FILE",
        help="JSONL: completion or completions, and row or id; a released generation file; or in the order of --gold",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="where the verdicts go; default: only the table")
    parser.add_argument("--format", choices=FORMATS, help="of --out (default by its name, else jsonl)")
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="default 0: all cores")
    options = parser.parse_args(arguments)
    if options.format and options.out is None:
        raise ValueError("--format needs --out FILE")
    if options.threads < 0:
        raise ValueError(f"--threads must be at least 0, got {options.threads}")
    summary = grade_file(options.gold, options.completions, options.out, format=options.format, threads=options.threads)
    print(summary.table())
    return 0


def _themes(arguments: list[str]) -> int:
    from .learn import learn_file
    from .theme import Theme, available_themes

    if not arguments:
        for name in available_themes():
            theme = Theme.load(name)
            print(f"{name:12} {theme.style:12} {theme.places[0][0]}, {theme.kinds[0][0]}, ...")
        return 0
    parser = argparse.ArgumentParser(prog="fastreason themes", description="The words of a file as themes.")
    parser.add_argument("action", choices=["learn"])
    parser.add_argument("file", type=Path, metavar="FILE", help="JSONL in the published schema")
    parser.add_argument("--out", type=Path, metavar="DIR", required=True, help="where TEMPLATE.toml files go")
    options = parser.parse_args(arguments)
    if not options.file.is_file():
        raise ValueError(f"no file {str(options.file)!r}")
    for path in learn_file(options.file, options.out):
        print(path)
    return 0


def parse_range(text: str) -> list[int]:
    """Integers from 7, 2-10 or 3,5,9.

    >>> parse_range("2-4,9")
    [2, 3, 4, 9]
    """
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        if not (first.isdigit() and (last or first).isdigit()):
            raise ValueError(f"--op must have the form 7, 2-10 or 3,5,9, got {text!r}")
        found += range(int(first), int(last or first) + 1)
    return found


def _info(arguments: list[str]) -> int:
    from .machine import describe_machine

    for name, value in describe_machine().items():
        print(f"{name:12} {value if value is not None else '-'}")
    return 0


def format_results(results: dict[str, Any]) -> str:
    """A table of verified pass@k in percent, one line a stage and k, one column an op."""
    ops = sorted({int(op) for stage in results["stages"].values() for op in stage["ops"]})
    lines = ["verified pass@k, %  " + "".join(f"{'op ' + str(op):>7}" for op in ops)]
    for stage, scores in results["stages"].items():
        for k in next(iter(scores["ops"].values()))["verified"]:
            values = "".join(f"{100 * scores['ops'][str(op)]['verified'][k]:7.1f}" for op in ops)
            lines.append(f"{stage:12} @{k:<6}{values}")
    return "\n".join(lines)
