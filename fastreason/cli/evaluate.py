"""The commands `eval` and `edge`."""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, get_args

import torch

from ..evaluation.evaluate import PRESETS, EvaluateSettings, evaluate_sampler, own_folder
from ..evaluation.find_edge import EdgeSettings, edge_mixture, edge_table, find_edge
from ..evaluation.load_sampler import DEVICES, ENGINES, load_sampler
from ..evaluation.op_ranges import covered, parse_range
from ..evaluation.pass_table import failure_table, table
from ..evaluation.sample_files import model_identity
from ..model.precision import Precision
from ..runtime import distributed
from ..runtime.files import check_folder, check_writable, write_json
from ..runtime.json_files import to_json
from ..runtime.machine import describe_machine
from ..runtime.model_names import model_folder, shipped_models
from ..runtime.stop_request import StopRequest
from ..studies.recipe import Recipe, available_recipes, load_recipe
from ..studies.seen_graphs import graphs_of_checkpoint
from ..studies.study import Study
from ..tasks.mixture import DEPTHS, MODES, Mixture
from .parser import Parser

_SAMPLING = ("temperature", "top_k", "top_p", "min_p", "max_new_tokens", "precision", "kv_memory_mb")
_DEFAULT = EvaluateSettings(mixture=[{"op": list(range(2, 11))}], problems=200, samples=32)


def evaluate_command(arguments: list[str]) -> int:
    """`fastreason eval`; returns the exit status."""
    parser = Parser(
        prog="fastreason eval",
        description="Verified pass@k of a model, for k = 1 .. samples. Without --preset or --recipe, a checkpoint "
        "inside a run directory is evaluated with the settings of the run's recipe, and a model that ships with those "
        "of its own.",
    )
    _add_model_flags(parser)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--preset", choices=list(PRESETS), help="paper: op 2-20, 200 problems per op, 128 samples")
    source.add_argument(
        "--recipe",
        metavar="NAME",
        help=f"use the evaluation settings of a recipe: a .toml file or {', '.join(available_recipes())}",
    )
    add_mixture_flags(parser)
    parser.add_argument("--problems", type=int, metavar="N", help="problems per op")
    parser.add_argument("--samples", type=int, metavar="N", help="samples per problem")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for results.json and samples/*.parquet")
    parser.add_argument("--resume", action="store_true", help="continue the evaluation in --out")
    parser.add_argument("--texts", action="store_true", help="also keep the completions in samples/")
    options = parser.parse_args(arguments)
    if options.out is None and (options.resume or options.texts):
        raise ValueError("--resume and --texts require --out DIR")
    with _session(options) as stop, ExitStack() as stack:
        settings = _settings(options)
        if options.out is not None:
            check_folder("--out", options.out)
        keeps_samples = options.out is not None and _keeps_samples(options)
        sampler = load_sampler(options.checkpoint, settings.sampling, options.engine, options.device)
        folder = None
        if keeps_samples:
            how = {"resume": options.resume, "texts": options.texts, "model": model_identity(options.checkpoint)}
            folder = stack.enter_context(own_folder(options.out, settings, options.seed, stop=stop, **how))
        started = time.perf_counter()
        seen, seed = graphs_of_checkpoint(model_folder(options.checkpoint)), options.seed
        try:
            result = evaluate_sampler(sampler, settings, seed=seed, name="eval", stop=stop, folder=folder, seen=seen)
        except KeyboardInterrupt:
            if folder is not None and distributed.is_main():
                print(f"\nstopped; run the same command with --resume to continue ({options.out})", file=sys.stderr)
            return _status(stop)
        if distributed.is_main():
            print(table(result), failure_table(result), *_split_table(result), sep="\n\n")
            speed = f"{result['samples']:,} samples, {result['tokens']:,} tokens, {time.perf_counter() - started:.1f} s"
            print(f"\n{speed}" + (f": {options.out / 'results.json'}" if options.out is not None else ""))
            if options.out is not None:
                seconds = time.perf_counter() - started if folder is None else folder.seconds()
                facts = _facts(options, settings) | {"engine": type(sampler).__name__, "seconds": round(seconds, 3)}
                write_json(options.out / "results.json", {**facts, **result, "machine": describe_machine()})
    return 0


def _split_table(result: dict[str, Any]) -> list[str]:
    """Scores on seen and unseen graphs, of a checkpoint in a run."""
    k = max(map(int, next(iter(result["ops"].values()))["verified"]))
    lines = [f"{'verified %':<30}    @1   @{k:<4} share"]
    for name, split in result.get("graphs", {}).items():
        for kind in ("ranges", "ops"):
            for of, parts in split[kind].items():
                for part, row in parts.items():
                    verified = [f"{100 * row['verified'][str(each)]:6.1f}" for each in (1, k)]
                    share = f"{100 * row['share']:6.1f}" if "share" in row else ""
                    title = f"{'op ' if kind == 'ops' else ''}{of}, {part} in {name}"
                    lines.append(f"{title:<30}{' '.join(verified)} {share}".rstrip())
    return ["\n".join(lines)] if len(lines) > 1 else []


def _keeps_samples(options: argparse.Namespace) -> bool:
    """Whether --out gets samples/ too, from which --resume continues: they are Parquet. Otherwise it is checked."""
    if importlib.util.find_spec("pyarrow") is not None or options.resume or options.texts:
        return True
    if (options.out / "results.json").exists():
        raise ValueError(f"--out {options.out} holds results.json; choose another")
    if distributed.is_main():
        text = "pyarrow is not installed, so --out gets results.json alone, and --resume cannot continue it"
        print(f"{text}: pip install 'fastreason[parquet]'", file=sys.stderr)
    return False


def _status(stop: StopRequest) -> int:
    """The exit status of a command that was asked to stop."""
    return 143 if stop.terminated else 130


def _facts(options: argparse.Namespace, settings: EvaluateSettings | EdgeSettings) -> dict[str, Any]:
    return {"checkpoint": str(options.checkpoint), "settings": asdict(settings), "seed": options.seed}


def edge_command(arguments: list[str]) -> int:
    """`fastreason edge`; returns the exit status."""
    parser = Parser(
        prog="fastreason edge",
        description="Labels every op and theme as mastered, edge or out of reach, by pass@1 and pass@k. Undecided "
        "cells get more problems until they are decided or the budget is used up.",
    )
    _add_model_flags(parser)
    add_mixture_flags(parser)
    known = EdgeSettings()
    parser.add_argument(
        "--samples",
        type=int,
        default=known.samples,
        metavar="K",
        help="samples per problem, the k of pass@k (default %(default)s)",
    )
    parser.add_argument(
        "--mastered",
        type=float,
        default=known.mastered,
        help="a cell is mastered if pass@1 is above this (default %(default)s)",
    )
    parser.add_argument(
        "--reach",
        type=float,
        default=known.reach,
        help="a cell is out of reach if pass@k is below this (default %(default)s)",
    )
    parser.add_argument(
        "--confidence",
        type=float,
        default=known.confidence,
        help="minimum probability that a decided label is right (default %(default)s)",
    )
    parser.add_argument(
        "--first", type=int, default=known.first, metavar="N", help="problems per cell at first (default %(default)s)"
    )
    parser.add_argument(
        "--problems",
        type=int,
        default=known.problems,
        metavar="N",
        help="maximum problems per cell (default %(default)s)",
    )
    parser.add_argument(
        "--budget",
        type=int,
        default=known.budget,
        metavar="N",
        help="maximum samples in total; 0: no limit (default %(default)s)",
    )
    parser.add_argument("--out", type=Path, metavar="FILE.json")
    options = parser.parse_args(arguments)
    chosen = {field.name: getattr(options, field.name) for field in fields(EdgeSettings)}
    settings = EdgeSettings(**chosen)
    if options.out is not None:
        check_writable("--out", options.out)
    with _session(options) as stop:
        base = _base(options)[0]
        sampling = {name: getattr(options, name) for name in _SAMPLING if getattr(options, name) is not None}
        sampler = load_sampler(options.checkpoint, replace(base.sampling, **sampling), options.engine, options.device)
        mixture = Mixture.from_dict(mixture_with_flags(base.mixture, options))
        try:
            found = find_edge(sampler, mixture, settings, seed=options.seed, stop=stop)
        except KeyboardInterrupt:
            return _status(stop)
        if distributed.is_main():
            print(edge_table(found, settings.samples))
            parts = edge_mixture(found)
            if parts:
                lines = "".join(f"\n    {_toml(part)}," for part in parts)
                print(f"\nthe edge as a mixture:\nmixture = [{lines}\n]")
            if options.out is not None:
                cells = [cell.to_dict(settings.samples) for cell in found]
                facts = {**_facts(options, settings), "cells": cells, "edge": parts}
                write_json(options.out, facts | {"machine": describe_machine()})
        return _status(stop) if stop.requested else 0


def _toml(part: dict[str, Any]) -> str:
    """A TOML inline table; these values have the same form in JSON."""
    return "{ " + ", ".join(f"{key} = {to_json(value)}" for key, value in part.items()) + " }"


def _add_model_flags(parser: argparse.ArgumentParser) -> None:
    models = ", ".join(shipped_models())
    text = f"a Hugging Face folder, a model that ships ({models}), or hf://OWNER/NAME"
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help=text)
    parser.add_argument(
        "--engine",
        choices=ENGINES,
        default="auto",
        help="our decoder or transformers; auto: our decoder if it supports the model (default auto)",
    )
    parser.add_argument("--device", choices=DEVICES, default="auto", help="auto: a GPU if there is one (default auto)")
    parser.add_argument("--temperature", type=float)
    parser.add_argument("--top-k", type=int)
    parser.add_argument("--top-p", type=float)
    parser.add_argument("--min-p", type=float)
    parser.add_argument("--max-new-tokens", type=int, metavar="N", help="maximum new tokens per sample")
    parser.add_argument(
        "--precision", choices=get_args(Precision), help="of our decoder; auto: bfloat16 on a GPU, else float32"
    )
    parser.add_argument("--kv-memory-mb", type=float, metavar="MB", help="memory for keys and values of our decoder")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sampling (default 0)")
    parser.add_argument(
        "--threads", type=int, default=0, metavar="N", help="torch threads; 0: torch's default (default 0)"
    )


def add_mixture_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--op", help="operations: 7, 2-10 or 3,5,9")
    parser.add_argument("--themes", nargs="+", help="names or .toml files")
    parser.add_argument("--modes", nargs="+", choices=MODES)
    parser.add_argument("--depths", nargs="+", type=int, choices=DEPTHS)
    parser.add_argument("--max-value", type=int, metavar="N", help="largest value in a problem")


def _settings(options: argparse.Namespace) -> EvaluateSettings:
    """The base settings with flags applied."""
    base, ranges = _base(options)
    changes: dict[str, Any] = {"mixture": mixture_with_flags(base.mixture, options)}
    names = ("problems", "samples", *_SAMPLING)
    changes |= {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    samples = changes.get("samples", base.samples)
    ops = Mixture.from_dict(changes["mixture"]).ops
    kept = covered(ranges, ops)
    if not kept and len(ops) > 1:
        kept = {"all ops": {",".join(map(str, ops)): 1.0}}
    return replace(base, **changes, k=list(range(1, max(1, samples) + 1)), ranges=kept)


def _base(options: argparse.Namespace) -> tuple[EvaluateSettings, dict[str, dict[str, float]]]:
    """The settings of the preset, the recipe, or the run that contains the checkpoint; and ranges."""
    if getattr(options, "preset", None):
        return PRESETS[options.preset], PRESETS[options.preset].ranges
    name = getattr(options, "recipe", None)
    recipe = load_recipe(name) if name is not None else _recipe_of(model_folder(options.checkpoint))
    return (_DEFAULT, {}) if recipe is None else (recipe.evaluate, recipe.evaluation_ranges())


def _recipe_of(checkpoint: Path) -> Recipe | None:
    """That of the run that the checkpoint is of, RUN/checkpoints/STAGE or RUN/stages/UNIT/checkpoint, or the one that a
    model that ships has beside it."""
    if (checkpoint / "recipe.toml").is_file():
        return load_recipe(checkpoint / "recipe.toml")
    for folder in (*checkpoint.absolute().parents[1:2], *checkpoint.resolve().parents[2:3]):
        file = folder / "study.toml"
        if file.is_file() and len(variants := Study.load(file).variants) == 1:
            if distributed.is_main():
                print(f"settings of {file}", file=sys.stderr)
            return next(iter(variants.values()))
    return None


def mixture_with_flags(parts: list[dict[str, Any]], options: argparse.Namespace) -> list[dict[str, Any]]:
    """The parts of a mixture with flags applied."""
    changes: dict[str, Any] = {} if options.op is None else {"op": parse_range(options.op)}
    names = ("themes", "modes", "depths", "max_value")
    changes |= {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    return [{**part, **changes} for part in parts]


@contextmanager
def _session(options: argparse.Namespace) -> Iterator[StopRequest]:
    """Sets up threads, ranks and signal handling of a command."""
    if options.threads < 0 or options.seed < 0:
        raise ValueError(f"--threads and --seed must be at least 0, got {options.threads} and {options.seed}")
    before = torch.get_num_threads()
    torch.set_num_threads(options.threads or before)
    try:
        with distributed.process_group(), StopRequest.watch() as stop:
            yield stop
    finally:
        torch.set_num_threads(before)
