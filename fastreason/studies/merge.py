"""One study from several that differ in their seeds alone, such as runs on machines that share no directory.

Seeds are independent runs, so what joins them is the union of their units and scores; claims and effects are judged
anew over all seeds.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..runtime.files import write_json, write_whole
from .claims import effects_table, judged_claims
from .results import load_results
from .resume import differences
from .study import Study


@dataclass(frozen=True)
class _Part:
    folder: Path
    study: Study
    results: dict[str, Any]


def merge_studies(folders: Sequence[str | Path], out: str | Path) -> Path:
    """Writes study.toml and results.json of the studies in `folders`, as one study with the seeds of all.

    Args:
        folders: at least two directories of finished studies. Their recipes differ in `seeds` alone, no seed occurs
            twice, and they were evaluated on the same problems. Code may differ; both versions are then named.
        out: a new or empty directory.
    Returns:
        out.
    Raises:
        ValueError: a directory is no finished study, or they do not fit together. Nothing is then written.
    """
    out = Path(out)
    if len(folders) < 2:
        raise ValueError(f"merge: need at least two studies, got {len(folders)}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"merge: {out} exists and is not an empty directory; choose another out (--out)")
    parts = [_part(Path(folder)) for folder in folders]
    for part in parts[1:]:
        _check_recipes(parts[0], part)
    _check_seeds(parts)
    _check_problems(parts)
    study = replace(parts[0].study, seeds=[seed for part in parts for seed in part.study.seeds])
    results = _joined(study, [part.results for part in parts])
    if len(versions := results["code"].split(", ")) > 1:
        print(f"merge: the studies were run by different code ({', '.join(versions)})", file=sys.stderr)
    out.mkdir(parents=True, exist_ok=True)
    write_whole(out / "study.toml", study.save)
    write_json(out / "results.json", results)
    return out


def _part(folder: Path) -> _Part:
    study, results = load_results("merge", folder)
    if study.is_run:
        raise ValueError(f"merge: {folder} holds a single run, not a study; run its recipe with --seeds")
    if not results["finished"]:
        raise ValueError(f"merge: {folder} is not finished; continue it with run --resume")
    return _Part(folder, study, results)


def _check_recipes(first: _Part, other: _Part) -> None:
    before, now = ({**part.study.to_dict(), "seeds": []} for part in (first, other))
    for name, old, new in differences(before, now):
        raise ValueError(
            f"merge: {first.folder} and {other.folder} differ in more than their seeds; the first field that does is "
            f"{name}: {old} and {new}"
        )


def _check_seeds(parts: Sequence[_Part]) -> None:
    owner: dict[int, Path] = {}
    for part in parts:
        for seed in part.study.seeds:
            if seed in owner:
                raise ValueError(f"merge: seed {seed} is in {owner[seed]} and in {part.folder}")
            owner[seed] = part.folder


def _check_problems(parts: Sequence[_Part]) -> None:
    """A variant is evaluated on the same problems with every seed, as far as results.json tells: by their themes and
    the prompts of traces. Another version may have drawn others."""
    first: dict[str, tuple[Path, Any, Any]] = {}
    for part in parts:
        for variant, scores in _evaluations(part.results):
            themes = {op: found["theme"] for op, found in scores["problems"].items()}
            prompts = [trace["prompt"] for trace in scores["traces"]]
            folder, *before = first.setdefault(variant, (part.folder, themes, prompts))
            # of a study whose results were shortened there are fewer traces
            if themes != before[0] or any(old != new for old, new in zip(before[1], prompts, strict=False)):
                raise ValueError(
                    f"merge: variant {variant} was evaluated on other problems in {part.folder} than in {folder}"
                )


def _evaluations(results: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for variant, entry in results["variants"].items():
        for stages in entry["runs"].values():
            for keys in stages.values():
                if "evaluation" in keys:
                    yield variant, results["scores"][keys["evaluation"]]


def _joined(study: Study, parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The content of results.json, see `collect`; machine is that of the first."""
    results = {**parts[0], "seeds": study.seeds, "variants": {}, "units": {}, "scores": {}}
    results["code"] = ", ".join(dict.fromkeys(part["code"] for part in parts))
    for name, entry in parts[0]["variants"].items():
        runs = {seed: keys for part in parts for seed, keys in part["variants"][name]["runs"].items()}
        results["variants"][name] = {**entry, "runs": runs}
    for part in parts:
        results["units"] |= part["units"]
        results["scores"] |= part["scores"]
    return results | {"claims": judged_claims(study, results), "effects": effects_table(study, results)}
