"""Estimates the cost of a run or study before it starts: stages, tokens, FLOP, time and disk space.

FLOP are computed as in `fastreason.model.flop`, for documents as long as the first that each stage would draw, samples
as long as gold solutions, and no zero-advantage groups, which would cost nothing to train: the estimate for
reinforcement learning is an upper bound. Time is FLOP divided by the rates of this model on this machine, measured in a
few seconds on small batches; larger batches are faster, a busy machine is slower.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from ..evaluation.evaluate import EvaluateSettings, streams_of
from ..model.config import ModelConfig
from ..model.decoder import Decoder
from ..model.flop import forward_flop, train_flop, train_flop_per_token
from ..model.precision import product_dtype
from ..rl.loop import PolicySettings
from ..rl.self_settings import SelfSettings
from ..runtime.distributed import chosen_device
from ..runtime.progress import wait_for
from ..sampling.device_decoding import kv_bytes
from ..sampling.rollout import Rollout, kv_budget, sequences_within
from ..tasks.capture_recapture import Kinds
from ..tasks.graph_census import SHOWN_HEADER, format_shown, graphs_of, is_exact, warn_often
from ..tasks.mixture import Cell, Mixture
from ..tasks.stream import TaskStream
from ..text.tokenizer import Tokenizer
from ..training.budget import Budget, matmul_peak
from ..training.row_batches import count_targets
from ..training.supervised import supervised_loss
from ..training.supervised_settings import SupervisedSettings
from .preflight import preflight
from .run_study import parse_shard, part_of
from .stages import NoSettings
from .study import Study
from .work_units import Unit, distinct_units, mixtures_of, study_runs

# number of documents from which lengths are estimated
_DRAWN = 2048
# number of problems from which graphs are counted, and limit of an exact enumeration: about a second for all ops
_DRAWN_GRAPHS = 20_000
_WAYS = 1_000_000


@dataclass(frozen=True)
class Rates:
    """The speed of this model on this machine."""

    peak: float
    """FLOP/s of the fastest matrix product."""
    train: float
    """FLOP/s of forward and backward passes."""
    sample_s: float
    """Seconds per sampled token, excluding the prompt."""
    sequences: int
    """Number of sequences sampled together."""


@dataclass(frozen=True)
class Cost:
    """The cost of one unit of work."""

    what: str
    """Its length, as text."""
    tokens: float
    """Tokens trained on or sampled."""
    flop: float
    seconds: float
    disk_bytes: float
    """Bytes that remain on disk."""
    steps: int
    """Number of updates; 0 for an evaluation."""
    samples: float
    """Number of documents trained on, or samples drawn."""
    problems: Mapping[Cell, float] = field(default_factory=dict)
    """Expected number of documents or prompts by cell; empty for an evaluation."""
    keys_values: str = ""
    """What the keys and values of its samples take, as text; empty where it draws none."""


@dataclass(frozen=True)
class Line:
    """Units that differ only in their seed."""

    kind: str
    used_by: list[str]
    units: int
    cost: Cost

    @cached_property
    def graphs(self) -> list[tuple[int, Kinds, float]]:
        """For each op: its nameless graphs, and the number of problems that the stage draws."""
        problems = self.cost.problems
        return [
            (op, graphs_of(Mixture(of_op), _DRAWN_GRAPHS, _WAYS), sum(of_op.values()))
            for op in sorted({cell.op for cell in problems})
            if (of_op := {cell: number for cell, number in problems.items() if cell.op == op})
        ]


@dataclass(frozen=True)
class Plan:
    """The estimated cost of a study or run."""

    title: str
    parameters: int
    rates: Rates
    threads: int
    jobs: int
    lines: list[Line] = field(default_factory=list)

    @property
    def flop(self) -> float:
        return sum(line.units * line.cost.flop for line in self.lines)

    @property
    def seconds(self) -> float:
        return sum(line.units * line.cost.seconds for line in self.lines)

    @property
    def disk_bytes(self) -> float:
        """Disk space of the results, plus two moments per weight for each training process."""
        kept = sum(line.units * line.cost.disk_bytes for line in self.lines)
        return kept + self.jobs * (8.0 + 4.0) * self.parameters


def plan_study(study: Study, *, jobs: int = 1, shard: str | None = None, rates: Rates | None = None) -> Plan:
    """Plans a study or a shard of it; with `rates` given, nothing is measured."""
    preflight(study.variants, study.seeds)
    runs = part_of(study_runs(study), *parse_shard(shard))
    users: dict[str, list[str]] = {}
    for run in runs:
        for unit in run.units:
            names = users.setdefault(unit.key, [])
            if run.variant not in names:
                names.append(run.variant)
    title = study.name if study.size is None else f"{study.name}, size {study.size}"
    threads_before = torch.get_num_threads()
    torch.set_num_threads(next(iter(study.variants.values())).threads or os.cpu_count() or 1)
    try:
        return _plan(title, distinct_units(runs), users, jobs, rates)
    finally:
        torch.set_num_threads(threads_before)


def _plan(title: str, units: Sequence[Unit], users: dict[str, list[str]], jobs: int, rates: Rates | None) -> Plan:
    config, tokenizer = units[0].model, units[0].tokenizer
    mixture = Mixture.from_dict(next(last for unit in units if (last := mixture_dict(unit))))
    if rates is None:
        rates = measured_rates(config, tokenizer, mixture, chosen_device(units[0].device))
    parameters = Decoder(config).num_parameters
    plan = Plan(title, parameters, rates, torch.get_num_threads(), jobs)
    index: dict[Any, int] = {}
    for unit in units:
        same = (unit.kind, repr(unit.settings), tuple(users[unit.key]), repr(unit.model))
        if same in index:
            line = plan.lines[index[same]]
            plan.lines[index[same]] = Line(line.kind, line.used_by, line.units + 1, line.cost)
        else:
            index[same] = len(plan.lines)
            plan.lines.append(Line(unit.kind, users[unit.key], 1, unit_cost(unit, rates, parameters)))
    return plan


def mixture_dict(unit: Unit) -> list[dict[str, Any]]:
    """The last mixture of a unit, in the form of a recipe; [] if it draws no problems."""
    settings = unit.settings
    if isinstance(settings, NoSettings):
        return []
    return settings.phases[-1].mixture if isinstance(settings, SupervisedSettings) else settings.mixture


def unit_cost(unit: Unit, rates: Rates, parameters: int) -> Cost:
    """The cost of a unit; see the module docstring."""
    if isinstance(unit.settings, NoSettings):
        return Cost("a model as it is", 0.0, 0.0, 0.0, 4.0 * parameters, 0, 0.0)
    if isinstance(unit.settings, SelfSettings):
        return _self_training(unit, unit.settings, rates, parameters)
    if isinstance(unit.settings, SupervisedSettings):
        return _supervised(unit, unit.settings, rates, parameters)
    if isinstance(unit.settings, PolicySettings):
        return _policy(unit, unit.settings, rates, parameters)
    return _evaluation(unit, unit.settings, rates)


def _lengths(unit: Unit, mixture: Mixture, split: Any) -> tuple[np.ndarray, np.ndarray]:
    """Tokens of the prompts and solutions, including the end token, of the first problems of a stream."""
    stream = TaskStream(mixture, seed=unit.seed, split=split)
    _, cu_seqlens, prompts = stream.encoded(0, _DRAWN, unit.tokenizer)
    return prompts.astype(np.int64), np.diff(cu_seqlens) - prompts


def _supervised(unit: Unit, settings: SupervisedSettings, rates: Rates, parameters: int) -> Cost:
    per_token, document, before = 0.0, 0.0, 0.0
    problems: dict[Cell, float] = {}  # of each cell, a token
    for phase, mixture in zip(settings.phases, mixtures_of(settings), strict=True):
        prompts, solutions = _lengths(unit, mixture, "train")
        lengths = prompts + solutions
        targets = solutions.sum() if settings.loss_on == "solution" else lengths.sum() - len(lengths)
        share, before = phase.until - before, phase.until
        per_token += share * train_flop(unit.model, lengths, int(targets)) / lengths.sum()
        document += share * lengths.mean()
        for cell, number in _by_cell(mixture, share / lengths.mean()).items():
            problems[cell] = problems.get(cell, 0.0) + number
    limit = settings.limit
    of_unit = {"tokens": 1.0, "flop": 1.0 / per_token, "samples": document, "seconds": rates.train / per_token}
    tokens = limit.amount * of_unit[limit.unit]
    steps = math.ceil(tokens / settings.batch_tokens)
    what = f"{_count(tokens)} tokens in {steps:,} steps of {settings.batch_tokens:,}"
    flop = tokens * per_token
    problems = {cell: tokens * number for cell, number in problems.items()}
    return Cost(what, tokens, flop, flop / rates.train, 4.0 * parameters, steps, tokens / document, problems)


def _self_training(unit: Unit, settings: SelfSettings, rates: Rates, parameters: int) -> Cost:
    """The cost of sampling, and of training on documents like gold ones with what the budget leaves."""
    flop = tokens = seconds = 0.0
    problems: dict[Cell, float] = {}
    for number in range(settings.rounds):
        mixture = settings.mixtures[settings.phase_of(number)]
        prompts, solutions = _lengths(unit, mixture, "rl")
        solutions = np.minimum(solutions, settings.max_new_tokens)
        prompt_flop = forward_flop(unit.model, prompts, num_logits=len(prompts)) / len(prompts)
        sample_flop = settings.samples * forward_flop(unit.model, solutions, before=prompts) / len(prompts)
        sampled = settings.samples * float(solutions.mean())
        flop += settings.prompts * (prompt_flop + sample_flop)
        tokens += settings.prompts * sampled
        seconds += settings.prompts * (prompt_flop / rates.train + sampled * rates.sample_s)
        for cell, count in _by_cell(mixture, settings.prompts).items():
            problems[cell] = problems.get(cell, 0.0) + count
    limit, taken = settings.limit, {"flop": flop, "seconds": seconds}
    # at least a step of every round
    left = max(limit.amount - taken.get(limit.unit, 0.0), 0.01 * limit.amount)
    rest = replace(settings, tokens=None, budget=str(Budget(**{limit.unit: left})))
    train = _supervised(unit, rest, rates, parameters)
    what = f"{train.what}, on what is kept of {settings.rounds:,} x {settings.prompts:,} x {settings.samples:,} samples"
    total = train.flop + flop, train.seconds + seconds
    longest = max(int(_lengths(unit, mixture, "rl")[0].max()) for mixture in settings.mixtures)
    held = _keys_values(unit, settings, longest, settings.prompts)
    return Cost(what, train.tokens + tokens, *total, train.disk_bytes, train.steps, train.samples, problems, held)


def _by_cell(mixture: Mixture, problems: float) -> dict[Cell, float]:
    """So many problems of a mixture."""
    total = sum(mixture.weights.values())
    return {cell: problems * weight / total for cell, weight in mixture.weights.items()}


def _policy(unit: Unit, settings: PolicySettings, rates: Rates, parameters: int) -> Cost:
    prompts, solutions = _lengths(unit, Mixture.from_dict(settings.mixture), "rl")
    solutions = np.minimum(solutions, settings.max_new_tokens)
    group = settings.samples
    prompt_flop = forward_flop(unit.model, prompts, num_logits=len(prompts)) / len(prompts)
    sample_flop = forward_flop(unit.model, solutions, before=prompts) / len(prompts)
    passes = 3.0 * settings.epochs + (1.0 if settings.kl_coef else 0.0)
    # for one prompt and its samples
    training = passes * (prompt_flop + group * sample_flop)
    sampled = group * float(solutions.mean())
    sampling_s = prompt_flop / rates.train + sampled * rates.sample_s
    of_unit = {
        "samples": 1.0 / group,
        "tokens": 1.0 / (sampled + group * float(prompts.mean())),
        "flop": 1.0 / (training + prompt_flop + group * sample_flop),
        "seconds": 1.0 / (sampling_s + training / rates.train),
    }
    limit = settings.limit
    steps = max(1, math.ceil(limit.amount * of_unit[limit.unit] / settings.prompts - 1e-9))
    num_prompts = steps * settings.prompts
    what = f"{steps:,} steps x {settings.prompts:,} prompts x {group:,} samples, reward {settings.reward}"
    seconds = num_prompts * (sampling_s + training / rates.train)
    flop = num_prompts * (training + prompt_flop + group * sample_flop)
    problems = _by_cell(Mixture.from_dict(settings.mixture), num_prompts)
    held = _keys_values(unit, settings, int(prompts.max()), settings.prompts)
    return Cost(
        what, num_prompts * sampled, flop, seconds, 4.0 * parameters, steps, num_prompts * group, problems, held
    )


def _evaluation(unit: Unit, settings: EvaluateSettings, rates: Rates) -> Cost:
    streams = streams_of(Mixture.from_dict(settings.mixture))
    flop = tokens = seconds = 0.0
    longest = 0
    for stream in streams.values():
        prompts, solutions = _lengths(unit, stream.mixture, "test")
        longest = max(longest, int(prompts.max()))
        solutions = np.minimum(solutions, settings.max_new_tokens)
        prompt_flop = forward_flop(unit.model, prompts, num_logits=len(prompts)) / len(prompts)
        sampled = settings.samples * float(solutions.mean())
        sample_flop = settings.samples * forward_flop(unit.model, solutions, before=prompts) / len(prompts)
        flop += settings.problems * (prompt_flop + sample_flop)
        tokens += settings.problems * sampled
        seconds += settings.problems * (prompt_flop / rates.train + sampled * rates.sample_s)
    problems = settings.problems * len(streams)
    what = f"{problems:,} problems x {settings.samples:,} samples"
    held = _keys_values(unit, settings, longest, problems)
    return Cost(what, tokens, flop, seconds, 64.0 * problems, 0, problems * settings.samples, keys_values=held)


def _keys_values(
    unit: Unit, settings: PolicySettings | SelfSettings | EvaluateSettings, longest: int, prompts: int
) -> str:
    """What keys and values take, and how many samples are drawn at once, for prompts of up to `longest` tokens."""
    config, device = unit.model, torch.device(chosen_device(unit.device))
    dtype = product_dtype(settings.precision, torch.empty(0, device=device))
    longest = min(longest, config.max_position_embeddings - 1)
    capacity = min(settings.max_new_tokens, config.max_position_embeddings - longest)
    budget = kv_budget(settings.kv_memory_mb, config, dtype, device)
    size = sequences_within(
        budget, config, dtype, device, prompts=prompts, n=settings.samples, longest=longest, capacity=capacity
    )
    a_prompt, a_sample = (_bytes(kv_bytes(config, tokens, dtype)) for tokens in (longest, capacity))
    return f"{a_prompt} a prompt, {a_sample} a sample; {size.slots if size else 0:,} at once in {_bytes(budget)}"


def measured_rates(
    config: ModelConfig, tokenizer: Tokenizer, mixture: Mixture, device: torch.device | str = "cpu"
) -> Rates:
    """Measures a model of this shape on this machine; on CPU with torch's current number of threads."""
    model = Decoder(config)
    model.reset_parameters(0)
    model.to(device)
    stream = TaskStream(mixture, seed=0)
    _, cu_seqlens, _ = stream.encoded(0, _DRAWN, tokenizer)
    longest = int(np.diff(cu_seqlens).max())
    # half a second at 1e11 FLOP/s, but at least one document
    tokens = int(max(longest, min(3072, 5e10 / train_flop_per_token(config))))
    batch = stream.packed(0, 1, tokens, tokenizer, threads=1)
    flop = train_flop(config, batch.lengths, count_targets(batch, "solution"))
    small = flop < 5e10

    def step() -> None:
        supervised_loss(model, batch, "solution").backward()
        model.zero_grad(set_to_none=True)
        wait_for(device)

    train = flop / _fastest(step, 3 if small else 1)
    problems, n = (stream[0:16], 16) if small else (stream[0:1], 16)
    short, long = (4, 20) if small else (2, 18)
    engine = Rollout(model, tokenizer)

    def sample(limit: int) -> None:
        engine.generate(problems, n, temperature=1.0, max_new_tokens=limit, seed=0)

    seconds = [_fastest(lambda limit=limit: sample(limit), 3 if small else 1) for limit in (short, long)]
    sequences = n * len(problems)
    # on a busy machine the longer one may appear to take no time
    sample_s = max(seconds[1] - seconds[0], 0.1 * seconds[1]) / (sequences * (long - short))
    return Rates(matmul_peak(device), train, sample_s, sequences)


def _fastest(work: Any, times: int) -> float:
    best = math.inf
    for _ in range(times):
        started = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - started)
    return best


def format_plan(plan: Plan) -> str:
    """The plan as a table, followed by its assumptions."""
    lines = [
        f"{plan.title}: a decoder of {plan.parameters:,} parameters",
        "",
        f"{'stage':9} {'times':>5} {'tokens':>9} {'FLOP':>9} {'time':>9} {'disk':>8}  what",
    ]
    for line in plan.lines:
        cost = line.cost
        lines.append(
            f"{line.kind:9} {line.units:5} {_count(cost.tokens):>9} {cost.flop:9.2e} {_time(cost.seconds):>9} "
            f"{_bytes(cost.disk_bytes):>8}  {cost.what}"
        )
        lines.append(f"{'':54} of {', '.join(line.used_by)}")
    lines += _format_graphs(plan.lines)
    kept = [f"keys and values: {line.kind}: {held}" for line in plan.lines if (held := line.cost.keys_values)]
    lines += dict.fromkeys(kept)  # most variants of a study need the same
    rates, jobs = plan.rates, ""
    if plan.jobs > 1:
        jobs = f", about {_time(plan.seconds / plan.jobs)} in {plan.jobs} processes with a core each"
    lines += [
        "",
        f"total: {plan.flop:.2e} FLOP, {_time(plan.seconds)} in one process{jobs}, {_bytes(plan.disk_bytes)} disk",
        "Columns are per unit, `times` is the number of units; stages that variants share run once. Samples are",
        "assumed to be as long as gold solutions, and no group to have zero advantage: RL is an upper bound.",
        f"Time: measured now, on {plan.threads} thread{'s' * (plan.threads > 1)}: {rates.train / 1e9:.1f} GFLOP/s in "
        f"training, {100 * rates.train / rates.peak:.0f} % of a matrix product's {rates.peak / 1e9:.0f},",
        f"and {1 / rates.sample_s:,.0f} sampled tokens/s in {rates.sequences} sequences at once.",
    ]
    return "\n".join(lines)


def _format_graphs(lines: Sequence[Line]) -> list[str]:
    """A table of the graphs that the problems of each stage can have, and how many of them it shows."""
    text = ["", f"{'stage':9} {'op':>4}{'graphs':>12}  " + SHOWN_HEADER]
    for line in lines:
        for op, graphs, problems in line.graphs:
            number = f"{graphs.number:,.0f}" + ("" if is_exact(graphs) else "+")
            text.append(f"{line.kind:9} {op:>4}{number:>12}  {format_shown(graphs, problems)}")
        text += warn_often(line.graphs)
    what = "graphs: of the quantities that an answer depends on, without names and numbers; +: estimated lower bound"
    return [*text, what]


def _count(number: float) -> str:
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {letter}"
    return f"{number:.0f}"


def _time(seconds: float) -> str:
    for size, name in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {name}" if seconds < 100 * size else f"{seconds / size:,.0f} {name}"
    return f"{seconds:.0f} s"


def _bytes(number: float) -> str:
    for size, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if number >= size:
            return f"{number / size:.3g} {name}"
    return f"{number:.0f} B"
