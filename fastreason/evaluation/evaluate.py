"""Process-verified pass@k of a model: the protocol, and the loop over problems.

Every op gets the same number of problems from split `test`, each is sampled n times, every sample is graded, and pass@k
for all k <= n is computed from the same samples. Work is divided into parts, which are the same whatever process does
them: under torchrun they are divided among the ranks, and an interrupted evaluation continues from those on disk.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from ..grading.failure_kinds import FailureKind, failure_kinds
from ..grading.verdicts import StepStatus
from ..model.decoder import Decoder
from ..model.precision import Precision
from ..runtime import distributed
from ..runtime.field_docs import explain_fields
from ..runtime.folder_lock import held
from ..runtime.json_files import to_json
from ..runtime.progress import progress_bar
from ..runtime.ranges import COUNT, COUNT_OR_ZERO, check_settings
from ..runtime.stop_request import StopRequest
from ..tasks.mixture import MODES, Mixture
from ..tasks.stream import ProblemBatch, Split, TaskStream
from ..text.tokenizer import Tokenizer
from .op_ranges import PAPER_RANGES, op_weights
from .pass_at_k import bootstrap_interval, pass_at_k
from .pass_table import SCORES, scores_of, summarise
from .sample_files import DrawnSamples, EvaluationFolder
from .samplers import RolloutSampler, Sampler, Samples, Sampling, SamplingInterrupted
from .seen_unseen import SeenGraphs, split_scores

__all__ = ["PRESETS", "EvaluateSettings", "bootstrap_interval", "evaluate", "evaluate_sampler", "pass_at_k"]

# samples per part: enough for full batches, few enough to bound memory and the work lost when killed
_PART_SAMPLES = 4096


@explain_fields
@dataclass(frozen=True)
class EvaluateSettings:
    """Settings of an evaluation, on split `test`."""

    __pydantic_config__ = {"extra": "forbid"}

    mixture: list[dict[str, Any]]
    """Parts of a `Mixture`; each of its ops gets `problems` problems, with themes and modes drawn by weight."""
    problems: int = 100
    """Number of problems per op."""
    samples: int = 32
    """Number of samples per problem."""
    k: list[int] = field(default_factory=lambda: [1, 8, 32])
    """Report pass@k for 1 and these k, at most `samples`."""
    temperature: float = 0.7
    """Sampling temperature; 0 is greedy."""
    top_k: int = 0
    """Keep only the k most likely tokens; 0: all."""
    top_p: float = 1.0
    """Keep only the most likely tokens with at least this total probability; 1: all."""
    min_p: float = 0.0
    """Keep only tokens at least this many times as likely as the most likely one; 0: all."""
    max_new_tokens: int = 256
    """Maximum number of new tokens per sample."""
    precision: Precision = "auto"
    """Dtype of matrix products, keys and values in our decoder. auto: bfloat16 on a GPU, else float32."""
    kv_memory_mb: float | None = None
    """Memory for keys and values in sampling, in MB of 10^6 bytes; default: 2048 on CPU, nine tenths of the free on a
    GPU. It decides how many samples are drawn together, and changes none of them."""
    traces: int = 3
    """Number of samples per op to keep, with their steps, for the report."""
    ranges: dict[str, dict[str, float]] = field(default_factory=dict)
    """Weighted means over ops by name, for example {"edge": {"11-14": 1.0}}; the ops of a part have equal weights."""
    files: bool = False
    """Whether a run keeps the verdict of every sample as Parquet in evaluation/STAGE; needs pyarrow."""

    def __post_init__(self) -> None:
        check_settings("evaluate", self, {"problems": COUNT, "samples": COUNT, "traces": COUNT_OR_ZERO, "k": COUNT})
        self.sampling  # noqa: B018 - checks its fields
        if not self.k or min(self.k) < 1 or max(self.k) > self.samples:
            raise ValueError(f"evaluate: every k must be in 1 .. samples = {self.samples}, got {self.k}")
        ops = set(Mixture.from_dict(self.mixture).ops) if self.ranges else set()
        for name, parts in self.ranges.items():
            if missing := sorted(set(op_weights(parts, f"evaluate: range {name}")) - ops):
                raise ValueError(f"evaluate: range {name} has op {missing[0]}, which is not in the mixture")

    @property
    def sampling(self) -> Sampling:
        return Sampling(**{each.name: getattr(self, each.name) for each in fields(Sampling)})


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
    """The parts in order: easy ops first, whose samples are short."""
    size = max(1, _PART_SAMPLES // settings.samples)
    return [
        Part(op, first, min(size, settings.problems - first))
        for op in Mixture.from_dict(settings.mixture).ops
        for first in range(0, settings.problems, size)
    ]


def streams_of(mixture: Mixture, split: Split = "test") -> dict[int, TaskStream]:
    """The problems of each op: the same set for every seed, so that runs are compared on the same work."""
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
    parquet: bool = True,
    seen: Mapping[str, SeenGraphs] | None = None,
) -> dict[str, Any]:
    """Scores a decoder on every op of the mixture; `fr.evaluate` is the public function.

    Args:
        model, tokenizer: to evaluate.
        settings: of the evaluation.
        seed: of the sampling; the problems are the same for every seed, so that runs are compared on the same work.
        name: shown in the progress bar.
        stop: a signal interrupts sampling immediately, any other request before the next part.
        out: folder for a file per part; parts left there by an evaluation with the same settings are reused. The model
            must be the same, which is not checked here.
        parquet: whether these are Parquet files; otherwise they only serve to resume, see `EvaluationFolder`.
        seen: sets of nameless graphs by name; adds "graphs", the scores of problems in each set and outside it.
    Returns:
        {"ops": {OP: {"verified": {K: p}, "verified_interval": {K: [low, high]}, ...}}, "ranges", "themes", "modes": the
        same by name, "problems": {OP: see `by_problem`}, "traces": [...], "samples": n, "tokens": n}, with every p in
        [0, 1]; docs/evaluation.md describes it. The same on every rank.
    Raises:
        ValueError: the tokenizer does not know all words of the problems, or a prompt is too long for the model.
        KeyboardInterrupt: `stop` was requested, or Ctrl-C; the samples of finished problems are in `out`.
    """
    sampler = RolloutSampler(model, tokenizer, settings.sampling)
    folder = open_folder(out, settings, seed, resume=True, parquet=parquet) if out is not None else None
    return evaluate_sampler(sampler, settings, seed=seed, name=name, stop=stop, folder=folder, seen=seen)


@contextmanager
def own_folder(
    out: str | Path,
    settings: EvaluateSettings,
    seed: int,
    *,
    stop: StopRequest | None = None,
    **how: Any,
) -> Iterator[EvaluationFolder]:
    """`open_folder` for this process, or the processes of this group, alone.

    Args:
        stop: is requested if another process takes over.
    Raises:
        ValueError: another process works there, or as in `open_folder`.
    """
    with ExitStack() as stack:
        with distributed.together():
            if distributed.is_main():
                on_lost = stop.request if stop is not None else _nothing
                stack.enter_context(held(Path(out) / ".lock", f"eval: {out}", on_lost))
        yield open_folder(out, settings, seed, **how)


def _nothing() -> None:
    pass


def open_folder(
    out: str | Path,
    settings: EvaluateSettings,
    seed: int,
    *,
    resume: bool,
    model: Mapping[str, str] | None = None,
    texts: bool = False,
    parquet: bool = True,
) -> EvaluationFolder:
    """The folder of an evaluation, see EvaluationFolder.

    Args:
        model: identifies the model, see `model_identity`.
        texts: whether the files also contain the completions.
        parquet: see EvaluationFolder.
    """
    # what determines the files, but not how they are aggregated
    facts = {k: v for k, v in asdict(settings).items() if k not in ("k", "ranges", "files", "kv_memory_mb")}
    if facts["precision"] == "auto":  # as in folders from before there was a choice
        del facts["precision"]
    identity = {**facts, "seed": seed, "model": dict(model or {}), "texts": texts}
    themes = Mixture.from_dict(settings.mixture).themes
    return EvaluationFolder(out, identity, themes, MODES, resume=resume, parquet=parquet)


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
    """`evaluate` for any `Sampler`; `folder` must belong to the same settings, seed and model."""
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
            drawn = _do(part, streams[part.op], sampler, settings, mixture.themes, seed, folder, stop)
            scores.append(scores_of(drawn.columns, settings.samples))
            traces.append({"op": part.op, "first": part.first, "traces": drawn.traces})
            bar.update(part.count * settings.samples)
    return _results(scores, traces, settings, mixture, seen or {})


def _results(
    scores: list[np.ndarray],
    traces: list[dict[str, Any]],
    settings: EvaluateSettings,
    mixture: Mixture,
    seen: Mapping[str, SeenGraphs],
) -> dict[str, Any]:
    """The results from the parts of all ranks."""
    own = np.concatenate([np.zeros(0, dtype=SCORES), *scores])
    everyone = np.concatenate(distributed.gather_arrays(own))
    written = np.frombuffer(to_json(traces).encode(), dtype=np.uint8)
    parts = [part for text in distributed.gather_arrays(written) for part in json.loads(text.tobytes())]
    parts.sort(key=lambda part: (part["op"], part["first"]))
    ks = sorted({1, *settings.k})  # reports use pass@1
    result: dict[str, Any] = {**summarise(everyone, mixture.themes, MODES, ks, settings.ranges)}
    result["problems"] = by_problem(everyone, mixture.themes)
    if seen:
        result["graphs"] = split_scores(everyone, streams_of(mixture), seen, ks, settings.ranges)
    result["traces"] = [trace for part in parts for trace in part["traces"]]
    result["samples"], result["tokens"] = int(everyone["samples"].sum()), int(everyone["tokens"].sum())
    return result


def by_problem(scores: np.ndarray, themes: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The data that studies compare problem by problem: by op, lists [P] of the theme, of the number of samples that
    are verified, sound and have the right answer, and of the mean process accuracy."""
    lists = {}
    for op in np.unique(scores["op"]).tolist():
        rows = np.sort(scores[scores["op"] == op], order="problem")
        counts = {level: rows[level].tolist() for level in ("verified", "sound", "answer")}
        process = rows["process_accuracy"].round(4).tolist()
        lists[str(op)] = {"theme": [themes[i] for i in rows["theme"]], **counts, "process_accuracy": process}
    return lists


def _do(
    part: Part,
    stream: TaskStream,
    sampler: Sampler,
    settings: EvaluateSettings,
    themes: Sequence[str],
    seed: int,
    folder: EvaluationFolder | None,
    stop: StopRequest | None,
) -> DrawnSamples:
    """The samples of a part, drawn and graded or read from disk; on Ctrl-C those of finished problems are saved."""
    if folder is not None and folder.has(part.op, part.first):
        return folder.read(part.op, part.first)
    before = folder.read_begun(part.op, part.first) if folder is not None else None
    indices = np.arange(part.first, part.first + part.count)
    if before is not None:
        indices = np.setdiff1d(indices, before.columns["problem"])
    started = time.perf_counter()

    def drawn(problems: ProblemBatch, samples: Samples) -> DrawnSamples:
        texts = None
        if folder is not None and folder.keeps_texts:
            texts = [samples.text(row) for row in range(len(samples.lengths))]
        columns = _columns(problems, samples, settings.samples, themes)
        found = DrawnSamples(
            columns,
            [_trace(problems, samples, columns, p, settings.samples) for p in _shown(problems, settings)],
            round(time.perf_counter() - started, 3),
            texts,
        )
        return found if before is None else before.joined(found)

    if before is not None and len(indices) == 0:
        whole = before
    else:
        problems = stream[indices]
        try:
            with nullcontext() if stop is None else stop.at_once():
                samples = sampler.sample(problems, settings.samples, seed)
        except SamplingInterrupted as stopped:
            if folder is not None:
                folder.write_begun(part.op, part.first, drawn(problems[stopped.places], stopped.samples))
            raise
        whole = drawn(problems, samples)
    if folder is not None:
        folder.write(part.op, part.first, whole)
    return whole


def _shown(problems: ProblemBatch, settings: EvaluateSettings) -> list[int]:
    """Places of the problems that the report shows a sample of."""
    return [p for p, problem in enumerate(problems.indices.tolist()) if problem < settings.traces]


def _columns(problems: ProblemBatch, samples: Samples, n: int, themes: Sequence[str]) -> dict[str, np.ndarray]:
    """COLUMNS of sample_files, one row per sample."""
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


def _informative(columns: Mapping[str, np.ndarray], p: int, n: int) -> int:
    """The row of a sample of problem p: the first of a kind that differs from problem to problem, else the first."""
    rows = slice(p * n, (p + 1) * n)
    right, verified = columns["answer_correct"][rows], columns["verified"][rows]
    unfinished = columns["failure"][rows] == FailureKind.UNFINISHED
    kinds = (verified, right & ~verified, unfinished, ~right & ~unfinished)
    wanted = int(columns["op"][rows.start]) + int(columns["problem"][rows.start])
    return rows.start + int(np.argmax(kinds[wanted % len(kinds)]))


def _trace(
    problems: ProblemBatch, samples: Samples, columns: Mapping[str, np.ndarray], p: int, n: int
) -> dict[str, Any]:
    """A sample of problem p, of n, with the status of its steps."""
    verdicts, row = samples.verdicts, _informative(columns, p, n)
    first, last = verdicts.steps.offsets[row], verdicts.steps.offsets[row + 1]
    return {
        "op": int(problems.ops[p]),
        "prompt": problems.prompts[p],
        "completion": samples.text(row),
        "gold": problems.solutions[p],
        "verified": bool(verdicts.verified[row]),
        "answer_correct": bool(verdicts.answer_correct[row]),
        "failure": FailureKind(columns["failure"][row]).name.lower(),
        "steps": [
            {
                "status": StepStatus(verdicts.steps.status[i]).name.lower(),
                "begin": int(verdicts.steps.begin[i]),
                "end": int(verdicts.steps.end[i]),
            }
            for i in range(first, last)
        ],
    }
