"""Runs a recipe: three stages in sequence, each followed by an evaluation, in one directory.

    recipe.toml  metrics.jsonl  results.json  report.html  checkpoints/{pretrain,midtrain,rl}/  graphs/

After any interruption a later call with `resume` continues: finished stages and evaluations are not repeated, and an
unfinished stage continues from its last checkpoint.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from .evaluation.evaluate import evaluate
from .evaluation.seen_unseen import SeenGraphs
from .model.decoder import Decoder
from .reports.run_page import write_report
from .reports.study_page import write_study_report
from .rl.loop import reinforce
from .runtime import distributed
from .runtime.files import read_whole, write_text, write_whole
from .runtime.folder_lock import held
from .runtime.json_files import to_json
from .runtime.machine import describe_machine
from .runtime.metrics_log import MetricsLog
from .runtime.stop_request import Interrupted, StopRequest, Terminated
from .studies.preflight import preflight
from .studies.recipe import Recipe, load_recipe
from .studies.resume import check_run
from .studies.run_study import default_folder, run_study
from .studies.seen_graphs import seen_by, stage_graphs
from .studies.study import Study, is_study, load_study
from .text.tokenizer import Tokenizer
from .training.supervised import train


def run(
    recipe: str | Path | Recipe,
    out: str | Path | None = None,
    *,
    resume: bool = False,
    overrides: Mapping[str, Any] | None = None,
    size: str | None = None,
    **study_options: Any,
) -> dict[str, Any]:
    """Runs a recipe and returns the content of results.json. Under torchrun all ranks work on it; rank 0 writes.

    Args:
        recipe: the name of a recipe that ships, a TOML file, or a `Recipe`.
        out: the run directory; default runs/NAME. It must be new or empty unless `resume` is set.
        resume: continue the run in the directory. Settings of stages that have begun must not have changed; changes to
            other stages are printed.
        overrides: values by dotted name, such as {"rl.steps": 100}; not with a `Recipe`.
        size: for a recipe with sizes: "laptop" or "paper".
        study_options: for a recipe with variants: seeds, and jobs, shard and stages as for `run_variants`.
    Raises:
        ValueError: the recipe is invalid, or the directory belongs to another run.
        Interrupted, KeyboardInterrupt: Ctrl-C; the run can be resumed.
        Terminated: SIGTERM; the run can be resumed. A script that does not catch it exits with 143.
        OSError: the disk is full, or a file cannot be written; the last checkpoint is kept.
        OtherRankFailed: another rank stopped with an error.
    """
    if not isinstance(recipe, Recipe):
        if is_study(recipe, size):
            if int(os.environ.get("WORLD_SIZE", "1")) > 1:
                raise ValueError("run: a study is distributed by jobs and shards, not by torchrun")
            study = load_study(recipe, overrides, size=size, seeds=study_options.pop("seeds", None))
            return run_variants(study, out, resume=resume, **study_options)
        recipe = load_recipe(recipe, overrides, size=size)
    elif overrides:
        raise ValueError("run: overrides require a recipe by name or file; use dataclasses.replace on a Recipe")
    if study_options:
        raise ValueError(
            f"run: {', '.join(study_options)} are for recipes with variants, which {recipe.name} does not have"
        )
    folder = Path(out) if out is not None else Path("runs") / recipe.name
    threads_before = torch.get_num_threads()
    torch.set_num_threads(distributed.cpu_threads(recipe.threads))
    try:
        with distributed.process_group():
            return _run_here(recipe, folder, resume)
    finally:
        torch.set_num_threads(threads_before)


def run_variants(study: Study, out: str | Path | None = None, **options: Any) -> dict[str, Any]:
    """Runs a study with `studies.run_study.run_study`, whose options it takes, and writes the report."""
    folder = Path(out) if out is not None else default_folder(study)
    results = run_study(study, folder, **options)
    write_study_report(folder)
    return results


def _run_here(recipe: Recipe, folder: Path, resume: bool) -> dict[str, Any]:
    """Runs the recipe on this rank."""
    with distributed.together():
        preflight({"run": recipe}, [recipe.seed])
    with StopRequest.watch() as stop, ExitStack() as stack:
        with distributed.together():
            if distributed.is_main():
                stack.enter_context(held(folder / ".lock", f"run: {folder}", stop.request))
                _prepare(folder, recipe, resume)
            log = MetricsLog(folder / "metrics.jsonl", recipe.metrics, recipe.name)
        stack.enter_context(closing(log))
        try:
            return _run_stages(recipe, folder, log, stop)
        except (Interrupted, KeyboardInterrupt):
            if stop.terminated:
                raise Terminated from None
            raise


def _run_stages(recipe: Recipe, folder: Path, log: MetricsLog, stop: StopRequest) -> dict[str, Any]:
    tokenizer = Tokenizer.for_mixtures(recipe.mixtures())
    model = Decoder(recipe.model.config(len(tokenizer)))
    model.reset_parameters(recipe.seed)  # on CPU, so that they are the same everywhere
    model.to(distributed.chosen_device(recipe.device))
    results = _load_results(folder, recipe)
    seen: list[tuple[str, SeenGraphs | None]] = []
    for stage in recipe.stages:
        settings = getattr(recipe, stage)
        place = folder / "checkpoints" / stage
        if stage == "rl":
            progress = reinforce(model, tokenizer, settings, seed=recipe.seed, folder=place, log=log, stop=stop)
        else:
            progress = train(stage, model, tokenizer, settings, seed=recipe.seed, folder=place, log=log, stop=stop)
        cache = folder / "graphs" / f"{stage}.npz" if distributed.is_main() else None
        seen.append((stage, stage_graphs(settings, recipe.seed, progress, cache)))
        if stage in results["stages"]:
            continue
        started = time.perf_counter()
        scores = evaluate(
            model,
            tokenizer,
            replace(recipe.evaluate, ranges=recipe.evaluation_ranges()),
            seed=recipe.seed,
            name=f"eval {stage}",
            stop=stop,
            out=folder / "evaluation" / stage if recipe.evaluate.files else None,
            seen=seen_by(seen),
        )
        results["stages"][stage] = scores
        results["seconds"][stage] = round(progress["seconds"], 3)
        results["tokens"][stage] = progress["tokens"]
        results["evaluation_seconds"][stage] = round(time.perf_counter() - started, 3)
        with distributed.together():
            if distributed.is_main():
                write_text(folder / "results.json", to_json(results, indent=1) + "\n")
                write_report(folder)
    with distributed.together():
        if distributed.is_main() and not (folder / "report.html").exists():
            write_report(folder)
    return results


# by a crash, or by whoever holds the lock
_LEFT = ("recipe.new", "recipe.toml.new", ".lock")


def _prepare(folder: Path, recipe: Recipe, resume: bool) -> None:
    """Creates the directory, or checks that it belongs to this recipe."""
    saved = folder / "recipe.toml"
    if saved.exists():
        if not resume:
            raise ValueError(
                f"run: {folder} holds a run; continue it with resume=True (--resume), or choose another out (--out)"
            )
        check_run(folder, load_recipe(saved), recipe)
    elif folder.exists() and any(not path.name.startswith(_LEFT) for path in folder.iterdir()):
        raise ValueError(f"run: {folder} is not empty and not a run; choose another out (--out)")
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(saved, recipe.save)


def _load_results(folder: Path, recipe: Recipe) -> dict[str, Any]:
    path = folder / "results.json"
    if path.exists():
        try:
            return read_whole(path)
        except ValueError as error:  # after a power failure; everything in it can be recomputed
            print(f"run: {error}; evaluations are repeated", file=sys.stderr)
    return {
        "recipe": recipe.name,
        "seed": recipe.seed,
        "ranges": {"in-distribution": recipe.in_distribution, "edge": recipe.edge},
        "stages": {},
        "seconds": {},
        "tokens": {},
        "evaluation_seconds": {},
        "machine": describe_machine(),
    }
