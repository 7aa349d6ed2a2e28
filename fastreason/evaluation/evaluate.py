"""Process-verified pass@k of a model: the protocol, and the loop over problems.

Every op gets the same number of problems of the split `test`, each is sampled n times, every sample is graded, and
pass@k for all k <= n follows from the one set of samples. Work goes in parts of some problems, which are the same
whatever process does them: under torchrun ranks share them out, and a stopped evaluation goes on from those on disk.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..grading.failure_kinds import failure_kinds
from ..grading.verdicts import StepStatus
from ..model.decoder import Decoder
from ..runtime import distributed
from ..runtime.field_docs import explain_fields
from ..runtime.json_files import to_json
from ..runtime.progress import progress_bar
from ..runtime.ranges import COUNT, COUNT_OR_ZERO, check_ranges
from ..runtime.stop_request import StopRequest
from ..tasks.mixture import MODES, Mixture
from ..tasks.stream import ProblemBatch, Split, TaskStream
from ..text.tokenizer import Tokenizer
from .op_ranges import PAPER_RANGES, op_weights
from .pass_at_k import bootstrap_interval, pass_at_k
from .pass_table import SCORES, scores_of, summarise
from .sample_files import EvaluationFolder
from .samplers import RolloutSampler, Sampler, Samples, Sampling
from .seen_unseen import SeenGraphs, split_scores

__all__ = ["PRESETS", "EvaluateSettings", "bootstrap_interval", "evaluate", "evaluate_sampler", "pass_at_k"]

# samples of a part: enough for full batches, few enough that memory stays flat and little is lost by a kill
_PART_SAMPLES = 4096


@explain_fields
@dataclass(frozen=True)
class EvaluateSettings:
    """How each stage's model is evaluated, on the split `test`."""

    __pydantic_config__ = {"extra": "forbid"}

    mixture: list[dict[str, Any]]
    """Parts of a `Mixture`; each of its ops gets `problems` problems, whose themes and modes its weights choose."""
    problems: int = 100
    """Problems of each op."""
    samples: int = 32
    """Samples of each problem."""
    k: list[int] = field(default_factory=lambda: [1, 8, 32])
    """pass@k for 1 and these k, none above `samples`."""
    temperature: float = 0.7
    """Of sampling."""
    top_k: int = 0
    """Only the k most likely tokens; 0: all."""
    top_p: float = 1.0
    """Only the most likely tokens that hold this share; 1: all."""
    min_p: float = 0.0
    """Only tokens with at least this share of the most likely one's probability; 0: all."""
    max_new_tokens: int = 256
    """Limit of a sample."""
    traces: int = 3
    """Samples kept for the report."""
    ranges: dict[str, dict[str, float]] = field(default_factory=dict)
    """Weighted means of ops by name, for example {"edge": {"11-14": 1.0}}; a part's ops share its weight evenly."""
    files: bool = False
    """Whether a run keeps the verdict of every sample as Parquet in evaluation/STAGE, from which an evaluation that was
    stopped goes on; needs pyarrow."""

    def __post_init__(self) -> None:
        check_ranges("evaluate", self, {"problems": COUNT, "samples": COUNT, "traces": COUNT_OR_ZERO, "k": COUNT})
        self.sampling  # noqa: B018 - checks its fields
        if not self.k or min(self.k) < 1 or max(self.k) > self.samples:
            raise ValueError(f"evaluate: every k must be in 1 .. samples = {self.samples}, got {self.k}")
        ops = set(Mixture.from_dict(self.mixture).ops) if self.ranges else set()
        for name, parts in self.ranges.items():
            if missing := sorted(set(op_weights(parts, f"evaluate: range {name}")) - ops):
                raise ValueError(f"evaluate: range {name} has op {missing[0]}, which the mixture has not")

    @property
    def sampling(self) -> Sampling:
        return Sampling(self.temperature, self.top_k, self.top_p, self.min_p, self.max_new_tokens)


PRESETS: Mapping[str, EvaluateSettings] = {
    "paper": EvaluateSettings(
        mixture=[{"op": list(range(2, 21)), "themes": ["zoo", "school", "festival"]}],
        problems=200,
        samples=128,
        k=list(range(1, 129)),
        temperature=0.7,
        max_new_tokens=1024,
        ranges={name: dict(parts) for name, parts in PAPER_RANGES.items()},
    )
}
"""Protocols by name. paper: arXiv 2512.07783; generation stops at `</answer>`, as everywhere."""


@dataclass(frozen=True)
class Part:
    """Problems first .. first + count - 1 of an op."""

    op: int
    first: int
    count: int


def parts_of(settings: EvaluateSettings) -> list[Part]:
    """The work in its order: easy ops first, whose samples are short."""
    size = max(1, _PART_SAMPLES // settings.samples)
    return [
        Part(op, first, min(size, settings.problems - first))
        for op in Mixture.from_dict(settings.mixture).ops
        for first in range(0, settings.problems, size)
    ]


def streams_of(mixture: Mixture, split: Split = "test") -> dict[int, TaskStream]:
    """The problems of each op: one fixed set for every seed, so that runs compare on the same work."""
    cells = mixture.weights.items()
    return {
        op: TaskStream(Mixture({cell: weight for cell, weight in cells if cell.op == op}), seed=0, split=split)
        for op in mixture.ops
    }


def evaluate(
    model: Decoder,
    tokenizer: Tokenizer,
    settings: EvaluateSettings,
    *,
    seed: int = 0,
    name: str = "evaluate",
    stop: StopRequest | None = None,
    out: str | Path | None = None,
    seen: Mapping[str, SeenGraphs] | None = None,
) -> dict[str, Any]:
    """Scores a decoder on every op of the mixture.

    Args:
        seed: of the sampling; the problems are the same for every seed, so that runs compare on the same work.
        name: shown while it goes.
        stop: ends the loop between two parts.
        out: folder for a Parquet file of each part; what an evaluation of the same settings left there is not done
            again. The model must be the same: this is not checked here.
        seen: sets of nameless graphs by name; the scores of problems of these graphs and of others come apart, too.
    Returns:
        {"ops": {OP: {"verified": {K: p}, "verified_interval": {K: [low, high]}, ...}}, "ranges", "themes", "modes": the
        same by name, "problems": {OP: see `by_problem`}, "traces": [...], "samples": n, "tokens": n}, every p in
        [0, 1]; docs/evaluation.md has all of it.
        The same on every rank.
    Raises:
        ValueError: the tokenizer does not know words of the problems, or a prompt is too long for the model.
        KeyboardInterrupt: `stop` was requested.
    """
    sampler = RolloutSampler(model, tokenizer, settings.sampling)
    folder = open_folder(out, settings, seed, resume=True) if out is not None else None
    return evaluate_sampler(sampler, settings, seed=seed, name=name, stop=stop, folder=folder, seen=seen)


def open_folder(
    out: str | Path,
    settings: EvaluateSettings,
    seed: int,
    *,
    resume: bool,
    model: Mapping[str, str] | None = None,
    texts: bool = False,
) -> EvaluationFolder:
    """The folder of an evaluation; see EvaluationFolder.

    Args:
        model: what identifies it, such as `model_identity`.
        texts: whether the files hold the completions, too.
    """
    # what decides the files, and not how they are summed up
    facts = {k: v for k, v in asdict(settings).items() if k not in ("k", "ranges", "files")}
    identity = {**facts, "seed": seed, "model": dict(model or {}), "texts": texts}
    return EvaluationFolder(out, identity, Mixture.from_dict(settings.mixture).themes, MODES, resume=resume)


def evaluate_sampler(
    sampler: Sampler,
    settings: EvaluateSettings,
    *,
    seed: int = 0,
    name: str = "evaluate",
    stop: StopRequest | None = None,
    folder: EvaluationFolder | None = None,
    seen: Mapping[str, SeenGraphs] | None = None,
) -> dict[str, Any]:
    """`evaluate` for anything that answers; `folder` is of the same settings, seed and model."""
    mixture, parts = Mixture.from_dict(settings.mixture), parts_of(settings)
    streams = streams_of(mixture)
    for stream in streams.values():
        sampler.check(stream[0 : settings.problems])
    mine = parts[distributed.rank() :: distributed.world_size()]
    scores, traces = [], []
    total = sum(part.count for part in mine) * settings.samples
    with progress_bar(name, total, unit="sample") as bar:
        for part in mine:
            if stop is not None and stop.requested:
                raise KeyboardInterrupt
            columns, notes = _do(part, streams[part.op], sampler, settings, mixture.themes, seed, folder)
            scores.append(scores_of(columns, settings.samples))
            traces.append({"op": part.op, "first": part.first, "traces": notes["traces"]})
            bar.update(part.count * settings.samples)
    return _results(scores, traces, settings, mixture, seen or {})


def _results(
    scores: list[np.ndarray],
    traces: list[dict[str, Any]],
    settings: EvaluateSettings,
    mixture: Mixture,
    seen: Mapping[str, SeenGraphs],
) -> dict[str, Any]:
    """From what every rank has done."""
    own = np.concatenate([np.zeros(0, dtype=SCORES), *scores])
    everyone = np.concatenate(distributed.gather_arrays(own))
    written = np.frombuffer(to_json(traces).encode(), dtype=np.uint8)
    found = [part for text in distributed.gather_arrays(written) for part in json.loads(text.tobytes())]
    found.sort(key=lambda part: (part["op"], part["first"]))
    ks = sorted({1, *settings.k})  # pass@1 is what reports speak of
    result: dict[str, Any] = {**summarise(everyone, mixture.themes, MODES, ks, settings.ranges)}
    result["problems"] = by_problem(everyone, mixture.themes)
    if seen:
        result["graphs"] = split_scores(everyone, streams_of(mixture), seen, ks, settings.ranges)
    result["traces"] = [trace for part in found for trace in part["traces"]]
    result["samples"], result["tokens"] = int(everyone["samples"].sum()), int(everyone["tokens"].sum())
    return result


def by_problem(scores: np.ndarray, themes: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What studies compare problem by problem: by op, lists [P] of the theme, of how many samples are verified, sound
    and right in their answer, and of the mean process accuracy."""
    found = {}
    for op in np.unique(scores["op"]).tolist():
        rows = np.sort(scores[scores["op"] == op], order="problem")
        counts = {level: rows[level].tolist() for level in ("verified", "sound", "answer")}
        process = rows["process_accuracy"].round(4).tolist()
        found[str(op)] = {"theme": [themes[i] for i in rows["theme"]], **counts, "process_accuracy": process}
    return found


def _do(
    part: Part,
    stream: TaskStream,
    sampler: Sampler,
    settings: EvaluateSettings,
    themes: Sequence[str],
    seed: int,
    folder: EvaluationFolder | None,
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The columns of a part, and its traces: sampled and graded, or read."""
    if folder is not None and folder.has(part.op, part.first):
        return folder.read(part.op, part.first)
    started = time.perf_counter()
    problems = stream[part.first : part.first + part.count]
    samples = sampler.sample(problems, settings.samples, seed)
    columns = _columns(problems, samples, settings.samples, themes)
    shown = max(0, min(part.count, settings.traces - part.first))
    notes = {
        "traces": [_trace(problems, samples, p, p * settings.samples) for p in range(shown)],
        "seconds": round(time.perf_counter() - started, 3),
    }
    if folder is not None:
        texts = [samples.text(row) for row in range(len(samples.lengths))] if folder.keeps_texts else None
        folder.write(part.op, part.first, columns, notes, texts)
    return columns, notes


def _columns(problems: ProblemBatch, samples: Samples, n: int, themes: Sequence[str]) -> dict[str, np.ndarray]:
    """COLUMNS of evaluate_files, a row for each sample."""
    cells = problems.cells
    facts = {
        "op": problems.ops,
        "problem": problems.indices,
        "theme": np.array([themes.index(cell.theme) for cell in cells]),
        "mode": np.array([MODES.index(cell.mode) for cell in cells]),
        "depth": np.array([cell.depth for cell in cells]),
    }
    verdicts = samples.verdicts
    return {
        **{name: values.repeat(n) for name, values in facts.items()},
        "sample": np.tile(np.arange(n), len(cells)),
        **{name: getattr(verdicts, name) for name in ("answer_correct", "verified", "sound", "process_accuracy")},
        "length": samples.lengths,
        "stopped": samples.stopped,
        "failure": failure_kinds(verdicts),
    }


def _trace(problems: ProblemBatch, samples: Samples, p: int, row: int) -> dict[str, Any]:
    """A sample of problem p, with its steps marked."""
    verdicts = samples.verdicts
    first, last = verdicts.steps.offsets[row], verdicts.steps.offsets[row + 1]
    return {
        "op": int(problems.ops[p]),
        "prompt": problems.prompts[p],
        "completion": samples.text(row),
        "gold": problems.solutions[p],
        "verified": bool(verdicts.verified[row]),
        "answer_correct": bool(verdicts.answer_correct[row]),
        "steps": [
            {
                "status": StepStatus(verdicts.steps.status[i]).name.lower(),
                "begin": int(verdicts.steps.begin[i]),
                "end": int(verdicts.steps.end[i]),
            }
            for i in range(first, last)
        ],
    }
