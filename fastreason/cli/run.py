"""The command `run`: runs a recipe."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..evaluation.op_ranges import parse_range
from .parser import Parser

_RUN_OPTIONS = """usage: fastreason run RECIPE [options] [--section.field VALUE ...]

Runs a recipe, a name or a .toml file, into one directory.

  --out DIR    the run directory; default runs/NAME
  --resume     continue the run in the directory
  --dry-run    print stages, tokens, FLOP, time, disk space and the complete recipe, and stop
  --size NAME  for a recipe with sizes: laptop, server or paper
  --seeds 0,1  one run per seed, in place of the recipe's
  --compute X  for a study that splits a budget between stages: the budget, such as "1e14 flop"
  --jobs N     number of processes on this machine, which share variants and seeds
  --shard I/N  only part I of N, on one of N machines that share the directory
  --stages DIR folder of finished stages, shared by several studies; default OUT/stages
  --no-STAGE   leave out a stage: --no-pretrain, --no-midtrain or --no-rl

Every field of the recipe is a flag too; a list is several values, or one with commas; what begins with [ or { is JSON.
Values set by a variant take precedence.
"""


def run_command(arguments: list[str]) -> int:
    from ..runtime.stop_request import Interrupted, Terminated

    if not arguments or arguments[0] in ("-h", "--help"):
        from ..studies.recipe import available_recipes
        from .recipe_flags import flags_help

        print(_RUN_OPTIONS)
        print(flags_help(most=20))
        print(f"\nrecipes that ship: {', '.join(available_recipes())}")
        return 0 if arguments else 2
    if arguments[0].startswith("-"):
        raise ValueError(f"the recipe comes first, got {arguments[0]}: fastreason run RECIPE [flags]")
    parser = Parser(add_help=False)
    for flag in ("--resume", "--dry-run", "--help", "-h"):
        parser.add_argument(flag, action="store_true")
    for flag in ("--out", "--stages"):
        parser.add_argument(flag, type=Path)
    for flag in ("--size", "--shard", "--seeds", "--compute"):
        parser.add_argument(flag)
    parser.add_argument("--jobs", type=int, default=1)
    options, flags = parser.parse_known_args(arguments[1:])
    try:
        return _run(arguments[0], options, flags)
    except (Interrupted, KeyboardInterrupt, Terminated) as stopped:
        print("\nstopped; run the same command with --resume to continue", file=sys.stderr)
        return 143 if isinstance(stopped, Terminated) else 130


def _run(name: str, options: argparse.Namespace, flags: list[str]) -> int:
    import tomli_w

    from ..runner import run
    from ..runtime.distributed import is_main, process_group
    from ..studies.dry_run import format_plan, plan_study
    from ..studies.recipe import read_recipe
    from ..studies.run_study import default_folder, format_results
    from ..studies.study import load_study
    from .recipe_flags import flags_help, parse_recipe_flags

    seeds = None if options.seeds is None else parse_range(options.seeds, "--seeds")
    if options.help or options.h:
        (recipe, *_) = load_study(name, size=options.size).variants.values()
        print(_RUN_OPTIONS.replace("RECIPE", name, 1))
        print(flags_help(recipe))
        return 0
    stages = read_recipe(name, size=options.size).get("stages", [])
    changes = parse_recipe_flags(flags, [stage["name"] for stage in stages if "name" in stage])
    if options.compute is not None:
        changes["compute"] = options.compute
    study = load_study(name, changes, size=options.size, seeds=seeds)
    if len(study.variants) > 1 and (left_out := [stage for stage, value in changes.items() if value is None]):
        raise ValueError(f"--no-{left_out[0]} is for a recipe without variants, which say `remove` themselves")
    if options.dry_run:
        plan = format_plan(plan_study(study, jobs=options.jobs, shard=options.shard))
        if len(study.variants) == 1:  # also TOML
            (recipe,) = study.variants.values()
            plan = "\n".join([tomli_w.dumps(recipe.to_dict()), *("# " + line for line in plan.splitlines())])
        print(plan)
        return 0
    folder = options.out or default_folder(study)
    shared = {"jobs": options.jobs, "shard": options.shard, "stages": options.stages}
    with process_group():
        results = run(study, folder, resume=options.resume, **shared)
        if is_main():
            print(format_results(results))
            print(f"\nreport: {folder / 'report.html'}")
    return 0
