"""The tables of a report: what stages added, progress, cost, facts, seen and unseen graphs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from ..model.decoder import Decoder
from ..studies.claims import compared
from ..studies.effects import level
from ..studies.stages import STAGE_NAMES
from ..studies.study import Study
from ..studies.study_scores import StudyScores, graph_parts
from ..text.tokenizer import Tokenizer
from .figures import ks_shown


def gains(study: Study, scores: StudyScores) -> list[dict[str, Any]]:
    """After each stage of an only variant: verified pass@k of each range, and what the stage added, at k = 1 and the
    largest k."""
    ((variant, recipe),) = study.variants.items()
    rows: list[dict[str, Any]] = []
    for stage, before in [
        (stage.name, next((each.name for each in recipe.stages_before(stage) if each.evaluate), None))
        for stage in recipe.plan
        if stage.evaluate
    ]:
        cells = []
        for name in study.ranges:
            for k in ks_shown(study):
                found = scores.pairs([(variant, before or stage), (variant, stage)], name, "verified", k)
                if found:
                    was, after = zip(*found.values(), strict=True)
                    cell: dict[str, Any] = {"range": name, "k": k, "level": level(after)}
                    cells.append(cell | ({"added": compared(was, after)} if before is not None else {}))
        if cells:
            rows.append({"stage": STAGE_NAMES[stage], "cells": cells})
    return rows


def effects(study: Study, results: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The rows of results.json's effects that have a difference: those at k = 1 and the largest k, and all."""
    rows = [row for row in results["effects"] if row["difference"] is not None]
    return {"shown": [row for row in rows if row["k"] in ks_shown(study)], "all": rows}


def progress(results: Mapping[str, Any]) -> dict[str, Any] | None:
    """How far an unfinished study is: units by variant and seed, and seconds of one process for what is left.

    Returns:
        {"rows": [(variant, {seed: (finished, all)})], "done", "all", "seconds": None until each kind has finished once}
    """
    if results["finished"]:
        return None
    rows, every = [], dict.fromkeys(_keys(results))
    for name, variant in results["variants"].items():
        counts = {}
        for seed, run in variant["runs"].items():
            keys = [key for stage in run.values() for key in stage.values()]
            counts[seed] = (sum(key in results["units"] for key in keys), len(keys))
        rows.append((name, counts))
    seconds: dict[str, list[float]] = {}
    for unit in results["units"].values():
        seconds.setdefault(unit["kind"], []).append(unit["seconds"])
    left = [key.rpartition("-")[0] for key in every if key not in results["units"]]
    known = all(kind in seconds for kind in left)
    estimate = sum(sum(seconds[kind]) / len(seconds[kind]) for kind in left) if known else None
    return {"rows": rows, "done": len(results["units"]), "all": len(every), "seconds": estimate}


def _keys(results: Mapping[str, Any]) -> Iterator[str]:
    """The units of all runs; shared ones occur several times."""
    for variant in results["variants"].values():
        for run in variant["runs"].values():
            for stage in run.values():
                yield from stage.values()


def account(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The cost of the stages, by kind."""
    rows = []
    kinds = dict.fromkeys([*STAGE_NAMES, *(unit["kind"] for unit in results["units"].values())])
    for kind in [*(kind for kind in kinds if kind != "evaluate"), "evaluate"]:
        name = "evaluation" if kind == "evaluate" else STAGE_NAMES[kind]
        units = [unit for unit in results["units"].values() if unit["kind"] == kind]
        if units:
            total = {column: sum(unit.get(column, 0) for unit in units) for column in ("seconds", "tokens", "flop")}
            rate = total["tokens"] / total["seconds"] if total["seconds"] else 0.0
            flop_rate = total["flop"] / total["seconds"] if total["seconds"] else 0.0
            rows.append({"stage": name, "units": len(units), **total, "tokens_per_s": rate, "flop_per_s": flop_rate})
    return rows


def saved(results: Mapping[str, Any]) -> dict[str, float]:
    """Seconds that the runs took, and would have taken without sharing stages."""
    seconds = {key: unit["seconds"] for key, unit in results["units"].items()}
    return {"taken": sum(seconds.values()), "apart": sum(seconds.get(key, 0.0) for key in _keys(results))}


def facts(study: Study, results: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a reader needs to know to judge or repeat the numbers."""
    machine = results["machine"]
    where = ", ".join(str(part) for part in (machine["cpu"], machine.get("gpu")) if part)
    dates = sorted(unit["date"] for unit in results["units"].values() if "date" in unit)
    rows = [("parameters", f"{_parameters(study):,}")]
    rows += [("date", dates[-1])] if dates else []
    rows += [("code", f"fastreason {results['code']}"), ("machine", f"{where}, {machine.get('cores')} cores")]
    return [*rows, ("software", f"torch {machine['torch']}, Python {machine['python']}")]


def _parameters(study: Study) -> int:
    """Of the largest model."""
    words = len(Tokenizer.for_mixtures(study.mixtures()))
    with torch.device("meta"):
        return max(Decoder(recipe.model.config(words)).num_parameters for recipe in study.variants.values())


def graph_rows(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Of an only variant: verified pass@largest k and the number of problems by op, for seen and for unseen graphs, of
    the stages and kinds that have both."""
    rows = graph_parts(results)
    both = {(row["stage"], row["kind"]) for row in rows if row["part"] == "seen" and row["ops"]}
    both &= {(row["stage"], row["kind"]) for row in rows if row["part"] == "unseen" and row["ops"]}
    rows = [row for row in rows if (row["stage"], row["kind"]) in both]
    ops = sorted({op for row in rows for op in row["ops"]}, key=int)
    return [{**row, "cells": {op: _largest_k(row["ops"].get(op)) for op in ops}} for row in rows]


def _largest_k(found: tuple[int, dict[str, float]] | None) -> tuple[str, float, int] | None:
    """(k, share, problems)"""
    if found is None:
        return None
    k = max(found[1], key=int)
    return k, found[1][k], found[0]


def warnings(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the watch of reinforcement learning said, run by run in the order of the steps."""
    return [
        {"variant": name, "seed": seed, "stage": STAGE_NAMES[stage], **warning}
        for name, variant in results["variants"].items()
        for seed, run in variant["runs"].items()
        for stage, keys in run.items()
        for warning in results["units"].get(keys["unit"], {}).get("warnings", ())
    ]
