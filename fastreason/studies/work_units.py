"""The stages of a study as units of work, each named by a hash of everything that determines its result.

    STAGES/pretrain-1f0c2d3e4a5b/   unit.json, metrics.jsonl, checkpoint/, graphs.npz, done.json, owner-0001/
    STAGES/evaluate-77ab01c9d2ee/   unit.json, samples/ if they are kept, done.json, owner-0001/
                                    (samples in unfinished/ until the evaluation is done, if they are not kept)

The hash covers the settings, the seed, the model, the vocabulary, the first problems that the stage draws, the
preceding unit, and the code. So variants, and studies with a common folder, share identical units and nothing else. The
frequency of checkpoints and the number of threads are not included.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import fastreason

from .. import kernels
from ..evaluation.evaluate import EvaluateSettings, evaluate, streams_of
from ..evaluation.seen_unseen import SeenGraphs
from ..model.config import ModelConfig
from ..model.decoder import Decoder
from ..rl.loop import PolicySettings, reinforce
from ..rl.self_settings import SelfSettings
from ..rl.self_training import self_train
from ..runtime import distributed
from ..runtime.files import read_whole, write_text
from ..runtime.json_files import to_json
from ..runtime.machine import describe_machine, package_version
from ..runtime.metrics_log import MetricsLog
from ..runtime.model_names import model_folder
from ..runtime.stop_request import StopRequest
from ..tasks.mixture import Mixture
from ..tasks.stream import TaskStream
from ..text.tokenizer import Tokenizer
from ..training.checkpoint import load_model, load_progress, save_checkpoint
from ..training.supervised import train
from ..training.supervised_settings import SupervisedSettings
from .seen_graphs import seen_by, stage_graphs
from .stages import KINDS, NoSettings, StageSettings, seed_of_draw
from .study import Study

# settings that affect what is kept and shown, but not what is computed
_ASIDE = {"save_every_s", "keep", "traces", "files", "prefetch", "parallel", "checkpoint_activations", "kv_memory_mb"}
# subpackages and modules that only show, select or start; all others may affect results
_NOT_COMPUTING = (
    *("__main__.py", "runner.py", "cli/", "integrations/", "reports/", "studies/"),
    *("tasks/graph_census.py", "tasks/capture_recapture.py", "tasks/graph_svg.py"),
    *("runtime/folder_lock.py", "runtime/machine.py", "runtime/processes.py"),
    "runtime/trackers.py",
)


@dataclass(frozen=True)
class Unit:
    """A stage of some runs of a study, or the evaluation after one."""

    kind: str
    """The name of the stage, or evaluate."""
    settings: StageSettings | EvaluateSettings
    """Settings of the stage."""
    model: ModelConfig
    """Shape of the decoder."""
    seed: int
    """Seed of the stage: that of the run, unless a stage before it has drawn from the same split."""
    tokenizer: Tokenizer
    """Tokenizer of the study."""
    before: Unit | None
    """The unit whose weights it starts from; None: new weights, or those of `folder`."""
    device: distributed.Device = "auto"
    """Device, as in the recipe. The device that auto selects is not part of the name, so that machines can share."""
    run: str = ""
    """Name of the first run that includes it, used by trackers."""
    folder: str | None = None
    """The model that it starts from, if it is not that of a stage."""

    @property
    def title(self) -> str:
        """Name for progress messages."""
        what = self.kind if self.before is None or self.kind != "evaluate" else f"evaluation after {self.before.kind}"
        return f"{self.run}: {what}"

    @property
    def loop(self) -> str:
        """The kind of its stage, or evaluate."""
        if isinstance(self.settings, EvaluateSettings):
            return "evaluate"
        return next(kind for kind, settings in KINDS.items() if type(self.settings) is settings)

    @cached_property
    def determined_by(self) -> dict[str, Any]:
        """The data that the name is a hash of."""
        settings = {name: value for name, value in asdict(self.settings).items() if name not in _ASIDE}
        own = {} if self.folder is None else {"folder": weights_of(self.folder)}
        return own | {
            "kind": self.kind,
            "settings": settings,
            "model": asdict(self.model),
            "seed": self.seed,
            "device": self.device,
            "vocabulary": _digest("\n".join(self.tokenizer.words)),
            "problems": problems_drawn(self.settings, self.seed),
            "before": self.before.key if self.before is not None else None,
            "code": code_version(),
        }

    @cached_property
    def key(self) -> str:
        """KIND-HASH: the name of its folder."""
        return f"{self.kind}-{_digest(to_json(self.determined_by, sort_keys=True))}"

    def outcome(self, stages: Path) -> dict[str, Any] | None:
        """The content of done.json, if the unit is finished."""
        path = stages / self.key / "done.json"
        return read_whole(path) if path.exists() else None


@dataclass(frozen=True)
class Run:
    """A variant with a seed: its stages in order, each followed by its evaluation, if it is evaluated."""

    variant: str
    seed: int
    stages: dict[str, tuple[Unit, Unit | None]]

    @property
    def units(self) -> Iterator[Unit]:
        for stage, evaluation in self.stages.values():
            yield stage
            if evaluation is not None:
                yield evaluation


def study_runs(study: Study) -> list[Run]:
    """All runs, by seed; identical units have equal `key`s."""
    tokenizer = Tokenizer.for_mixtures(study.mixtures())
    return [_run(study, name, seed, tokenizer) for seed in study.seeds for name in study.variants]


def _run(study: Study, variant: str, seed: int, tokenizer: Tokenizer) -> Run:
    recipe = study.variants[variant]
    model = recipe.model.config(len(tokenizer))
    title = study.name if study.is_run else f"{study.name}, {variant}, seed {seed}"
    scored = replace(recipe.evaluate, ranges=recipe.evaluation_ranges())
    stages: dict[str, tuple[Unit, Unit | None]] = {}
    shared = (recipe.device, title)
    for stage in recipe.plan:
        earlier = recipe.stage_before(stage)
        before = None if earlier is None else stages[earlier.name][0]
        folder = str(model_folder(stage.start_from)) if stage.start_from is not None and before is None else None
        drawn = seed_of_draw(seed, recipe.draw_of(stage))
        unit = Unit(stage.name, stage.settings, model, drawn, tokenizer, before, *shared, folder)
        evaluation = Unit("evaluate", scored, model, seed, tokenizer, unit, *shared) if stage.evaluate else None
        stages[stage.name] = (unit, evaluation)
    return Run(variant, seed, stages)


def check_ranges(study: Study) -> None:
    """Checks that the problems of every evaluation include each op and theme of each range.

    Raises:
        ValueError: something is missing; the message names it, before days of training.
    """
    seen: list[EvaluateSettings] = []
    for name, recipe in study.variants.items():
        if recipe.evaluate in seen:
            continue
        seen.append(recipe.evaluate)
        themes = evaluated_themes(recipe.evaluate)
        for title, parts in study.ranges.items():
            for part in parts:
                for op in part.op:
                    if not themes.get(op, set()) & set(part.themes or themes.get(op, set())):
                        of = "" if part.themes is None else f" and themes {', '.join(part.themes)}"
                        raise ValueError(f"ranges: {title}: variant {name} evaluates no problem of op {op}{of}")


def evaluated_themes(settings: EvaluateSettings) -> dict[int, set[str]]:
    """The themes of the problems of each op, as `evaluate` draws them."""
    streams = streams_of(Mixture.from_dict(settings.mixture))
    return {op: {cell.theme for cell in stream[0 : settings.problems].cells} for op, stream in streams.items()}


def distinct_units(runs: list[Run]) -> list[Unit]:
    """All distinct units, each after its predecessor."""
    units: dict[str, Unit] = {}
    for run in runs:
        for unit in run.units:
            units.setdefault(unit.key, unit)
    return list(units.values())


def work(unit: Unit, stages: Path, stop: StopRequest, metrics: list[Any]) -> None:
    """Completes a unit, from its last checkpoint if there is one, and writes `done.json`. All ranks call it.

    Raises:
        Interrupted, KeyboardInterrupt: `stop` was requested; a later call continues.
        FloatingPointError, OSError: see `supervised.train`.
    """
    folder = stages / unit.key
    with distributed.together():
        if distributed.is_main():
            describe_unit(unit, stages)
    model = Decoder(unit.model)
    if unit.folder is not None:
        model.load_state_dict(load_model(unit.folder).state_dict())
    elif unit.before is None:
        model.reset_parameters(unit.seed)
    else:
        model.load_state_dict(load_model(stages / unit.before.key / "checkpoint").state_dict())
    model.to(distributed.chosen_device(unit.device))
    started = time.perf_counter()
    if isinstance(unit.settings, EvaluateSettings):
        kept = unit.settings.files
        samples = folder / ("samples" if kept else "unfinished")
        name = f"eval {unit.before.kind}" if unit.before is not None else "eval"
        seen = _seen(unit, stages)
        scores = evaluate(
            model,
            unit.tokenizer,
            unit.settings,
            seed=unit.seed,
            name=name,
            stop=stop,
            out=samples,
            parquet=kept,
            seen=seen,
        )
        if not kept:
            with distributed.together():
                if distributed.is_main():
                    shutil.rmtree(samples)
        done = {"scores": scores, "seconds": round(time.perf_counter() - started, 3), "tokens": scores["tokens"]}
    elif isinstance(unit.settings, NoSettings):
        done = dict.fromkeys(("seconds", "tokens", "samples", "flop", "step"), 0)
        save_checkpoint(folder / "checkpoint", model, unit.tokenizer, None, done)
    else:
        with closing(MetricsLog(folder / "metrics.jsonl", metrics, unit.run)) as log:
            progress = _train(unit, model, folder / "checkpoint", log, stop)
        done = {name: progress.get(name, 0) for name in ("seconds", "tokens", "samples", "flop", "step")}
    done |= {"machine": describe_machine(), "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")}
    with distributed.together():
        if distributed.is_main():
            write_text(folder / "done.json", to_json(done) + "\n")


def describe_unit(unit: Unit, stages: Path) -> None:
    """Writes what determines a unit to its unit.json, unless it stands there."""
    path, text = stages / unit.key / "unit.json", to_json(unit.determined_by, indent=1) + "\n"
    if not path.exists() or path.read_text(encoding="utf-8", errors="replace") != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)


def _seen(unit: Unit, stages: Path) -> dict[str, SeenGraphs]:
    """The graphs of the stages that the model of an evaluation went through."""
    found: list[tuple[str, SeenGraphs | None]] = []
    before = unit.before
    while before is not None:
        assert not isinstance(before.settings, EvaluateSettings)
        place = stages / before.key
        if not isinstance(before.settings, NoSettings):
            progress = load_progress(place / "checkpoint")
            cache = place / "graphs.npz" if distributed.is_main() else None
            found.append((before.loop, stage_graphs(before.settings, before.seed, progress, cache)))
        if before.folder is not None:
            found += [("supervised", None), ("rl", None)]  # what that model has seen is not known
        before = before.before
    return seen_by(found)


def _train(unit: Unit, model: Decoder, folder: Path, log: MetricsLog, stop: StopRequest) -> dict[str, Any]:
    if isinstance(unit.settings, PolicySettings):
        return reinforce(
            model, unit.tokenizer, unit.settings, seed=unit.seed, folder=folder, log=log, stop=stop, name=unit.kind
        )
    assert isinstance(unit.settings, SupervisedSettings)
    if isinstance(unit.settings, SelfSettings):
        return self_train(
            model, unit.tokenizer, unit.settings, seed=unit.seed, folder=folder, log=log, stop=stop, name=unit.kind
        )
    return train(unit.kind, model, unit.tokenizer, unit.settings, seed=unit.seed, folder=folder, log=log, stop=stop)


def mixtures_of(settings: StageSettings | EvaluateSettings) -> list[Mixture]:
    """The mixtures that a stage draws from."""
    return [Mixture.from_dict(settings.mixture)] if isinstance(settings, EvaluateSettings) else settings.mixtures


def problems_drawn(settings: StageSettings | EvaluateSettings, seed: int) -> str:
    """A hash of the first problems of each mixture, which changes when the distribution does, even in compiled code."""
    text = []
    for mixture in mixtures_of(settings):
        text += TaskStream(mixture, seed=seed, split="train")[0:16].documents
    return _digest("\n".join(text))


@lru_cache
def weights_of(folder: str) -> str:
    """A hash of the weights in a folder."""
    files = sorted(Path(folder).glob("*.safetensors"))
    if not files:
        raise ValueError(f"start_from: there is no stage above and no folder with a model that is called {folder!r}")
    return hashlib.sha256(b"".join(hashlib.sha256(path.read_bytes()).digest() for path in files)).hexdigest()[:12]


@lru_cache
def code_version() -> str:
    """The version of the package, and a hash of its installed modules that can affect results."""
    package, kernels_folder = Path(fastreason.__file__).parent, Path(kernels.__file__).parent
    # kernels/ is inside the package or, in an editable installation, next to it
    files = {path.relative_to(package).as_posix(): path for path in package.rglob("*.py")}
    files |= {f"kernels/{path.relative_to(kernels_folder).as_posix()}": path for path in kernels_folder.rglob("*.py")}
    digest = hashlib.sha256()
    for name in sorted(files):
        if not name.startswith(_NOT_COMPUTING):
            digest.update(name.encode() + b"\0" + files[name].read_bytes())
    return f"{package_version('fastreason')}+{digest.hexdigest()[:12]}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
