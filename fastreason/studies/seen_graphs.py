"""Which nameless graphs the stages of a run have seen.

A stage's problems follow from its settings, its seed and where it stands, so nothing is recorded while it trains: its
graphs are drawn again, at some hundred thousand problems a second and core, and kept beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ..evaluation.seen_unseen import SeenGraphs
from ..rl.self_settings import SelfSettings
from ..rl.settings import PolicySettings
from ..runtime.files import read_arrays, read_whole, write_whole
from ..tasks.mixture import Mixture
from ..tasks.stream import TaskStream
from ..training.supervised_settings import SupervisedSettings

Settings = SupervisedSettings | PolicySettings

# problems of a stage that are drawn again: two minutes of two cores
_MOST = 50_000_000
_CHUNK = 1_000_000


def stage_graphs(
    settings: Settings, seed: int, progress: Mapping[str, Any], cache: Path | None = None
) -> SeenGraphs | None:
    """The graphs that a finished stage has drawn problems of.

    Args:
        settings, seed: of the stage.
        progress: as it ended.
        cache: a file in which they are kept, and looked for.
    Returns:
        None where an earlier version ran the stage and did not say where its phases began.
    """
    if cache is not None and (kept := _read(cache)) is not None:
        return kept
    if type(settings) is SupervisedSettings and _phase_starts(settings, progress) is None:
        return None
    seen = _drawn(settings, seed, progress)
    if cache is not None:
        cache.parent.mkdir(parents=True, exist_ok=True)
        write_whole(cache, lambda path: _save(path, seen))
    return seen


def seen_by(stages: Sequence[tuple[str, SeenGraphs | None]]) -> dict[str, SeenGraphs]:
    """Stages by kind as `evaluate` takes them: all supervised training together, the prompts of RL apart."""
    kinds: dict[str, list[SeenGraphs | None]] = {}
    for kind, graphs in stages:
        kinds.setdefault("rl" if kind == "rl" else "training", []).append(graphs)
    return {
        kind: SeenGraphs.join([graphs for graphs in found if graphs is not None])
        for kind, found in kinds.items()
        if None not in found
    }


def graphs_of_checkpoint(checkpoint: Path) -> dict[str, SeenGraphs]:
    """What the model of a run's checkpoint has seen, from the files that its stages left beside it; {} of any other.

    Args:
        checkpoint: RUN/checkpoints/STAGE or RUN/stages/UNIT/checkpoint.
    """
    folder: Path | None = checkpoint.resolve().parent
    found: list[tuple[str, SeenGraphs | None]] = []
    while folder is not None:
        facts, graphs = folder / "unit.json", folder / "graphs.npz"
        if not (facts.is_file() and graphs.is_file()):
            return {}
        unit = read_whole(facts)
        if unit.get("folder") is not None:  # what a model of elsewhere has seen is not known
            return {}
        kind = "rl" if "prompts" in unit["settings"] and "reward" in unit["settings"] else "supervised"
        if (kept := _read(graphs)) is None:
            return {}
        found.append((kind, kept))
        folder = folder.parent / unit["before"] if unit["before"] is not None else None
    return seen_by(found)


def _read(cache: Path) -> SeenGraphs | None:
    """What is kept in a file; None if there is none, or a power failure cut it: it can be drawn again."""
    try:
        kept = read_arrays(cache)
        return SeenGraphs(kept["graphs"], str(kept["bound"]))
    except (OSError, ValueError, KeyError):
        return None


def _save(path: Path, seen: SeenGraphs) -> None:
    with path.open("wb") as file:  # savez would add .npz to another name
        np.savez(file, graphs=seen.graphs, bound=np.array(seen.bound))


def _drawn(settings: Settings, seed: int, progress: Mapping[str, Any]) -> SeenGraphs:
    bound = "exact"
    if isinstance(settings, SelfSettings) or (isinstance(settings, PolicySettings) and settings.curriculum != "fixed"):
        bound = "at most"
    graphs, problems = np.zeros(0, dtype=np.uint64), 0
    for stream, first, step, count in _parts(settings, seed, progress):
        for begin in range(0, count, _CHUNK):
            size = min(_CHUNK, count - begin, _MOST - problems)
            if size <= 0:
                return SeenGraphs(graphs, "at least")
            more = stream.graph_hashes(first + begin * step, size, step=step)
            graphs, problems = np.union1d(graphs, more), problems + size
    return SeenGraphs(graphs, bound)


def _parts(settings: Settings, seed: int, progress: Mapping[str, Any]) -> Iterator[tuple[TaskStream, int, int, int]]:
    """(stream, first, step, count) of the problems of a stage."""
    if isinstance(settings, PolicySettings):
        mixture = Mixture.from_dict(settings.mixture)
        # A curriculum chooses the cell of each problem as it goes; what the problem is in each cell does not depend on
        # the weights, so those of all cells hold those that were drawn.
        mixtures = [mixture] if settings.curriculum == "fixed" else [Mixture({cell: 1.0}) for cell in mixture.weights]
        for each in mixtures:
            yield TaskStream(each, seed=seed, split="rl"), 0, 1, progress["draws"] * settings.prompts
        return
    if isinstance(settings, SelfSettings):  # all prompts, of which those with a kept sample were trained on
        for number in range(progress["round"] + 1):
            stream = TaskStream(settings.mixtures[settings.phase_of(number)], seed=seed, split="rl")
            yield stream, number * settings.prompts, 1, settings.prompts
        return
    starts = _phase_starts(settings, progress)
    assert starts is not None
    for mixture, (begins, ends) in zip(settings.mixtures, pairwise(starts), strict=True):
        stream = TaskStream(mixture, seed=seed, split="train")
        for first, last in zip(begins, ends, strict=True):
            yield stream, first, len(begins), (last - first) // len(begins)


def _phase_starts(settings: SupervisedSettings, progress: Mapping[str, Any]) -> list[list[int]] | None:
    """The first problem of every row, [phases + 1, rows]: of each phase, and behind the last."""
    end = list(progress["next_index"])
    starts = progress.get("phase_starts")
    if starts is None:
        starts = [list(range(len(end)))] if len(settings.phases) == 1 else None
    if starts is None:
        return None
    return [*starts, *[end] * (len(settings.phases) + 1 - len(starts))]
