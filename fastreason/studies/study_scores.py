"""What results.json says of the runs of a study: by stage, by seed, problem by problem."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .effects import Values, values_of
from .study import Study


def scores_by_stage(results: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The results of `evaluate` for the first variant, by stage and finished seed."""
    runs = next(iter(results["variants"].values()))["runs"]
    found: dict[str, list[dict[str, Any]]] = {}
    for keys in runs.values():
        for stage, key in keys.items():
            scores = scores_after(results, stage, key)
            found.setdefault(stage, []).extend([] if scores is None else [scores])
    return found


def scores_after(results: Mapping[str, Any], stage: str, keys: Mapping[str, str]) -> dict[str, Any] | None:
    """The result of `evaluate` after a stage of a run, whose units are `keys`; None if it is not finished."""
    scores: dict[str, Any] | None
    scores = results["stages"].get(stage) if "stages" in results else results["scores"].get(keys.get("evaluation"))
    return scores


def graph_parts(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Verified pass@k of problems with seen and with unseen graphs for the first variant.

    Returns:
        One {"stage", "kind": training or rl, "part": seen or unseen, "bound", "ops": {OP: (problems, {K: share})}} per
        stage, kind and part. Shares are means over the problems of all finished seeds; an op without any is left out.
    """
    rows = []
    for stage, by_seed in scores_by_stage(results).items():
        for kind in ("training", "rl"):
            splits = [scores["graphs"][kind] for scores in by_seed if kind in scores.get("graphs", {})]
            for part in ("seen", "unseen") if splits else ():
                ops = {}
                for op in splits[0]["ops"]:
                    entries = [split["ops"][op][part] for split in splits if part in split["ops"][op]]
                    if problems := sum(entry["problems"] for entry in entries):
                        ops[op] = (problems, _pooled(entries, problems))
                bounds = {split["bound"] for split in splits}
                bound = bounds.pop() if len(bounds) == 1 else "about"
                rows.append({"stage": stage, "kind": kind, "part": part, "bound": bound, "ops": ops})
    return rows


def _pooled(entries: Sequence[Mapping[str, Any]], problems: int) -> dict[str, float]:
    """Verified pass@k over the problems of all entries, `problems` in total."""
    shares = entries[0]["verified"]
    return {k: sum(entry["problems"] * entry["verified"][k] for entry in entries) / problems for k in shares}


class StudyScores:
    """Per-problem values of results.json by variant, seed and stage."""

    def __init__(self, study: Study, results: Mapping[str, Any]) -> None:
        self.study, self.results = study, results

    def entry(self, variant: str, seed: int, stage: str | None = None) -> dict[str, Any] | None:
        """The result of `evaluate` after a stage (None: the last), if finished."""
        keys = self.results["variants"][variant]["runs"][str(seed)]
        stage = stage if stage is not None else list(keys)[-1]
        return scores_after(self.results, stage, keys[stage])

    def entries(self, variant: str, stage: str | None = None) -> list[dict[str, Any]]:
        """`entry` of the seeds that are finished."""
        found = [self.entry(variant, seed, stage) for seed in self.study.seeds]
        return [entry for entry in found if entry is not None]

    def values(
        self, variant: str, seed: int, name: str, metric: str, k: int, stage: str | None = None
    ) -> Values | None:
        """The values of the problems of a range, from `values_of`; None if not finished."""
        scores = self.entry(variant, seed, stage)
        if scores is None:
            return None
        samples = self.results["variants"][variant]["samples"]
        return values_of(scores["problems"], self.study.ranges[name], metric, k, samples)

    def by_seed(self, variant: str, name: str, metric: str, k: int, stage: str | None = None) -> list[Values]:
        """`values` for all finished seeds."""
        by_seed = [self.values(variant, seed, name, metric, k, stage) for seed in self.study.seeds]
        return [values for values in by_seed if values is not None]

    def pairs(self, sides: Sequence[tuple[str, str | None]], name: str, metric: str, k: int) -> dict[int, list[Values]]:
        """The values of each (variant, stage), for the seeds with which all are finished."""
        found = {
            seed: [self.values(variant, seed, name, metric, k, stage) for variant, stage in sides]
            for seed in self.study.seeds
        }
        finished = {seed: [side for side in values if side is not None] for seed, values in found.items()}
        return {seed: values for seed, values in finished.items() if len(values) == len(sides)}

    def unseen(self, variant: str, seed: int, name: str, stage: str | None = None) -> np.ndarray | None:
        """bool [P]: the problems of a range whose graph occurred in no stage up to this one.

        None if not finished, or if it was not recorded which those are.
        """
        scores = self.entry(variant, seed, stage)
        if scores is None or not self._kinds(variant, seed, stage) <= set(scores.get("graphs", ())):
            return None
        ops = [str(op) for part in self.study.ranges[name] for op in part.op]
        seen = [np.concatenate([split["problems"][op] for op in ops]) for split in scores["graphs"].values()]
        return ~np.any(np.array(seen, dtype=bool), axis=0)

    def looked_at_all(self, variant: str, seed: int, stage: str | None = None) -> bool:
        """Whether no training problem was left out when graphs were told apart."""
        splits = (self.entry(variant, seed, stage) or {}).get("graphs", {}).values()
        return all(split["bound"] in ("exact", "at most") for split in splits)

    def _kinds(self, variant: str, seed: int, stage: str | None) -> set[str]:
        """The sets of graphs that an evaluation after this stage should know, as `seen_by` names them."""
        stages = list(self.results["variants"][variant]["runs"][str(seed)])
        stages = stages if stage is None else stages[: stages.index(stage) + 1]
        return {"rl" if name == "rl" else "training" for name in stages}
