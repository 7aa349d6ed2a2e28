"""The command `run`: runs a recipe or study."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from ..evaluation.op_ranges import parse_range

_RUN_OPTIONS = """Runs a recipe into one directory.

  --out DIR    the run directory; default runs/NAME
  --resume     continue the run in the directory
  --dry-run    print stages, tokens, FLOP, time, disk space and the complete recipe, and stop
  --size NAME  for a recipe with sizes: laptop or paper

for a recipe with variants:
  --jobs N     number of processes on this machine
  --shard I/N  only part I of N, on one of N machines that share the directory
  --stages DIR folder of finished stages, shared by several studies; default OUT/stages
  --seeds 0,1  replace the seeds of the recipe

Every field of the recipe is a flag too; values set by a variant take precedence:"""


def run_command(arguments: list[str]) -> int:
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
        print("\nstopped; run the same command with --resume to continue", file=sys.stderr)
        return 143 if isinstance(stopped, Terminated) else 130


def _run_recipe(name: str, options: argparse.Namespace, flags: list[str]) -> int:
    import tomli_w

    from ..runner import run
    from ..runtime.distributed import is_main, process_group
    from ..studies.dry_run import format_plan, plan_recipe
    from ..studies.recipe import load_recipe

    for flag in ("jobs", "shard", "stages", "seeds"):
        if getattr(options, flag) is not None:
            raise ValueError(f"--{flag} is for recipes with variants, which {name} does not have")
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
    from ..runner import run_variants
    from ..studies.dry_run import format_plan, plan_study
    from ..studies.recipe import recipe_from_dict
    from ..studies.run_study import default_folder, format_verdicts
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
    results = run_variants(study, folder, resume=options.resume, jobs=options.jobs or 1, **shared)
    print(format_verdicts(results))
    print(f"\nreport: {folder / 'report.html'}")
    return 0


def _with_flags(name: str, recipe: Any, flags: list[str]) -> Any:
    """The recipe with fields replaced by flags."""
    import tyro

    return tyro.cli(
        type(recipe),
        args=flags,
        default=recipe,
        prog=f"fastreason run {name}",
        description=_RUN_OPTIONS,
        config=(tyro.conf.SuppressFixed, tyro.conf.AvoidSubcommands),
    )


def format_results(results: dict[str, Any]) -> str:
    """A table of verified pass@k in percent, one line per stage and k, one column per op."""
    ops = sorted({int(op) for stage in results["stages"].values() for op in stage["ops"]})
    lines = ["verified pass@k, %  " + "".join(f"{'op ' + str(op):>7}" for op in ops)]
    for stage, scores in results["stages"].items():
        for k in next(iter(scores["ops"].values()))["verified"]:
            values = "".join(f"{100 * scores['ops'][str(op)]['verified'][k]:7.1f}" for op in ops)
            lines.append(f"{stage:12} @{k:<6}{values}")
    return "\n".join(lines + _unseen_lines(results, ops))


def _unseen_lines(results: dict[str, Any], ops: list[int]) -> list[str]:
    """The same for the problems whose graph training has not shown, with their number; nothing where there is none."""
    lines = []
    for stage, scores in results["stages"].items():
        of_op = scores.get("graphs", {}).get("training", {"ops": {}})["ops"]
        unseen = {int(op): parts["unseen"] for op, parts in of_op.items() if "unseen" in parts}
        if not unseen:
            continue
        lines.append(
            f"{stage:12} {'n':7}" + "".join(f"{unseen[op]['problems'] if op in unseen else 0:7}" for op in ops)
        )
        for k in next(iter(unseen.values()))["verified"]:
            values = [f"{100 * unseen[op]['verified'][k]:7.1f}" if op in unseen else f"{'-':>7}" for op in ops]
            lines.append(f"{stage:12} @{k:<6}{''.join(values)}")
    return ["", "on the n problems whose graph training has not shown", *lines] if lines else []
