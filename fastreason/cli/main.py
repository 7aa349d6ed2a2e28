"""The command line: `fastreason COMMAND ...`, the same as `python -m fastreason COMMAND ...`.

Flags of `run` are the fields of the recipe by their dotted names, so they follow from the dataclasses and their docs.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..evaluation.op_ranges import parse_range

_USAGE = """usage: fastreason COMMAND ...

commands:
  run RECIPE [--out DIR] [--resume] [--dry-run] [--size NAME] [--jobs N] [--shard I/N] [--section.field VALUE ...]
                 train, reinforce and evaluate; RECIPE is a name or a .toml file (run --help lists the names)
  report DIR     write DIR/report.html again from what the run directory holds
  generate --out FILE --count N [--mixture NAME | --op 2-10 ...]
                 problems as JSONL, Parquet or token ids, --show 3 to the screen, --graph FILE.svg as a picture
  eval CHECKPOINT [--preset paper | --op 2-10 --problems N --samples N ...] [--out DIR] [--resume]
                 verified pass@k of any Hugging Face folder, as a table, JSON, and Parquet with a row for each sample
  edge CHECKPOINT [--op 2-20] [--themes NAME ...]
                 which op and theme a model masters, which are at its edge, which out of its reach
  grade --gold FILE --completions FILE [--out FILE]
                 verdicts of completions as JSONL or Parquet, and a table by op and by kind of failure
  themes [learn FILE --out DIR]
                 the themes that ship, or those of a JSONL file as TOML files
  bench [NAME ...] [--compare [FILE]] [--reference DIR]
                 throughput beside peers on the same work, from a checkout (bench --list names the suites)
  info           this machine and the versions of everything the numbers depend on

`fastreason COMMAND --help` says more.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status.

    0; 1 for what went wrong on the way (a disk that is full, a loss that is not finite); 2 for bad input; 130 after
    Ctrl-C, 143 after SIGTERM.
    """
    # Before torch is loaded: its idle threads spin and hold cores that the core's own threads need. Two threads on two
    # cores train `tiny` at 87,000 tokens/s with this and at 66,000 without, one thread at 84,000.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    commands = {"run": _run, "report": _report, "generate": _generate, "grade": _grade}
    commands |= {"eval": _eval, "edge": _edge, "themes": _themes, "bench": _bench, "info": _info}
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
  --dry-run    print stages, tokens, FLOP, time and disk, and the resolved recipe, and stop
  --size NAME  of a recipe that comes in sizes: laptop or paper

of a recipe with variants:
  --jobs N     processes on this machine
  --shard I/N  only part I of N, on one of N machines that share the directory
  --stages DIR where finished stages are looked for and left, for several studies; default OUT/stages
  --seeds 0,1  instead of the recipe's

Every field of the recipe is a flag too; what a variant sets itself stays:"""


def _run(arguments: list[str]) -> int:
    from ..runtime.stop_request import Interrupted, Terminated
    from ..studies.recipe import available_recipes
    from ..studies.study import is_study

    if not arguments or arguments[0].startswith("-"):
        print(f"usage: fastreason run RECIPE [flags]\nrecipes that ship: {', '.join(available_recipes())}")
        return 0 if arguments and arguments[0] in ("-h", "--help") else 2
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for flag in ("--resume", "--dry-run"):
        parser.add_argument(flag, action="store_true")
    for flag in ("--out", "--stages"):
        parser.add_argument(flag, type=Path)
    for flag in ("--size", "--shard", "--seeds"):
        parser.add_argument(flag)
    parser.add_argument("--jobs", type=int)
    options, rest = parser.parse_known_args(arguments[1:])
    try:
        if is_study(arguments[0], options.size):
            return _run_study(arguments[0], options, rest)
        return _run_recipe(arguments[0], options, rest)
    except (Interrupted, KeyboardInterrupt, Terminated) as stopped:
        print("\nstopped; the same command with --resume goes on from here", file=sys.stderr)
        return 143 if isinstance(stopped, Terminated) else 130


def _run_recipe(name: str, options: argparse.Namespace, flags: list[str]) -> int:
    import tomli_w

    from ..runner import run
    from ..runtime.distributed import is_main, process_group
    from ..studies.dry_run import format_plan, plan_recipe
    from ..studies.recipe import load_recipe

    for flag in ("jobs", "shard", "stages", "seeds"):
        if getattr(options, flag) is not None:
            raise ValueError(f"--{flag} is for recipes with variants, which {name} has not")
    recipe = _with_flags(name, load_recipe(name, size=options.size), flags)
    if options.dry_run:
        print(tomli_w.dumps(recipe.to_dict()))
        print("\n".join("# " + line for line in format_plan(plan_recipe(recipe)).splitlines()))
        return 0
    folder = options.out or Path("runs") / recipe.name
    with process_group():
        results = run(recipe, folder, resume=options.resume)
        if is_main():
            print(format_results(results))
            print(f"\nreport: {folder / 'report.html'}")
    return 0


def _run_study(name: str, options: argparse.Namespace, flags: list[str]) -> int:
    from ..studies.dry_run import format_plan, plan_study
    from ..studies.recipe import recipe_from_dict
    from ..studies.run_study import default_folder, format_verdicts, run_study
    from ..studies.study import load_study, study_base

    seeds = None if options.seeds is None else parse_range(options.seeds, "--seeds")
    overrides = {}
    if flags:
        base = recipe_from_dict(study_base(name, options.size), source=name)
        before, after = base.to_dict(), _with_flags(name, base, flags).to_dict()
        overrides = {section: value for section, value in after.items() if value != before.get(section)}
    study = load_study(name, overrides, size=options.size, seeds=seeds)
    if options.dry_run:
        print(format_plan(plan_study(study, jobs=options.jobs or 1, shard=options.shard)))
        return 0
    folder = options.out or default_folder(study)
    shared = {"shard": options.shard, "stages": options.stages}
    results = run_study(study, folder, resume=options.resume, jobs=options.jobs or 1, **shared)
    print(format_verdicts(results))
    print(f"\nreport: {folder / 'report.html'}")
    return 0


def _with_flags(name: str, recipe: Any, flags: list[str]) -> Any:
    """The recipe with the fields that flags replace."""
    import tyro

    return tyro.cli(
        type(recipe),
        args=flags,
        default=recipe,
        prog=f"fastreason run {name}",
        description=_RUN_OPTIONS,
        config=(tyro.conf.SuppressFixed, tyro.conf.AvoidSubcommands),
    )


def _report(arguments: list[str]) -> int:
    from ..reports.run_page import write_report

    parser = argparse.ArgumentParser(prog="fastreason report", description="Writes DIR/report.html again.")
    parser.add_argument("folder", type=Path, metavar="DIR", help="a run directory")
    print(write_report(parser.parse_args(arguments).folder))
    return 0


def _generate(arguments: list[str]) -> int:
    from .generate import generate_command

    return generate_command(arguments)


def _eval(arguments: list[str]) -> int:
    from .evaluate import evaluate_command

    return evaluate_command(arguments)


def _edge(arguments: list[str]) -> int:
    from .evaluate import edge_command

    return edge_command(arguments)


def _grade(arguments: list[str]) -> int:
    from ..evaluation.completion_files import Skip
    from ..evaluation.grade_completions import FORMATS, grade_file
    from ..runtime.files import write_json

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
    parser.add_argument(
        "--answer-may-end-text",
        action="store_true",
        help="the tool that made the texts cut off the </answer> at which it stopped",
    )
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="default 0: all cores")
    parser.add_argument("--results", type=Path, metavar="FILE.json", help="pass@k with intervals, as eval writes them")
    options = parser.parse_args(arguments)
    if options.format and options.out is None:
        raise ValueError("--format needs --out FILE")
    if options.threads < 0:
        raise ValueError(f"--threads must be at least 0, got {options.threads}")
    summary = grade_file(
        options.gold,
        options.completions,
        options.out,
        format=options.format,
        answer_may_end_text=options.answer_may_end_text,
        threads=options.threads,
    )
    print(summary.table())
    if options.results is not None:
        files = {"gold": str(options.gold), "completions": str(options.completions)}
        write_json(options.results, files | summary.results())
    return 1 if summary.skipped[Skip.UNREADABLE_GOLD] else 0


def _themes(arguments: list[str]) -> int:
    from ..text.theme import Theme, available_themes
    from ..text.theme_from_data import learn_file

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


def _bench(arguments: list[str]) -> int:
    from .bench import bench_command

    return bench_command(arguments)


def _info(arguments: list[str]) -> int:
    from ..runtime.machine import describe_machine

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
