"""`fr.run`: from a recipe's name to its report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from .reports.study_page import write_report
from .runtime.distributed import process_group
from .studies.recipe import Recipe
from .studies.run_study import run_study
from .studies.study import Study, load_study


def run(
    recipe: str | Path | Recipe | Study,
    out: str | Path | None = None,
    *,
    resume: bool = False,
    overrides: Mapping[str, Any] | None = None,
    size: str | None = None,
    seeds: list[int] | None = None,
    jobs: int = 1,
    shard: str | None = None,
    stages: str | Path | None = None,
) -> dict[str, Any]:
    """Runs a recipe and returns the content of results.json. Under torchrun all ranks work on it; rank 0 writes.

    Args:
        recipe: the name of a recipe that ships, a TOML file, a `Recipe` or a `Study`.
        out: the run directory; default runs/NAME. It must be new or empty unless `resume` is set.
        resume: continue the run in the directory. The code and the settings of stages that have begun must not have
            changed; changes to other stages are printed.
        overrides: values by dotted name, such as {"rl.steps": 100}; not with a `Recipe`.
        size: for a recipe with sizes: "laptop" or "paper".
        seeds: one run per seed, in place of the recipe's.
        jobs, shard, stages: how several processes share the work; see `studies.run_study.run_study`.
    Raises:
        ValueError: the recipe is invalid, or the directory belongs to another run.
        Interrupted, KeyboardInterrupt: Ctrl-C; the run can be resumed.
        Terminated: SIGTERM; the run can be resumed. A script that does not catch it exits with 143.
        OSError: the disk is full, or a file cannot be written; the last checkpoint is kept.
        OtherRankFailed: another rank stopped with an error.
        RuntimeError: one of several processes failed; its message is on stderr.
    """
    if isinstance(recipe, str | Path):
        study = load_study(recipe, overrides, size=size, seeds=seeds)
    elif overrides or size is not None:
        raise ValueError("run: overrides require a recipe by name or file; use dataclasses.replace on a Recipe")
    else:
        study = recipe if isinstance(recipe, Study) else Study.of(recipe)
        study = study if seeds is None else replace(study, seeds=seeds)
    with process_group():
        return run_study(study, out, resume=resume, jobs=jobs, shard=shard, stages=stages, write_page=write_report)
