"""What the phases of training, sampling, grading and drawing take on one core of this machine, and the same real steps
on one rank and on two: the measured side of `bench.scaling.page`.
"""

from __future__ import annotations

import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

import fastreason as fr
from bench.scaling.collectives_model import Links, all_reduce_bytes
from bench.scaling.step_model import Phases
from fastreason import _core
from fastreason.evaluation.evaluate import PRESETS
from fastreason.rl.groups import Groups
from fastreason.rl.settings import PolicySettings
from fastreason.rl.update import group_loss
from fastreason.runtime.machine import describe_machine
from fastreason.training.optimizer import Optimizer
from fastreason.training.supervised import supervised_loss

from ..suites.grade import golden
from .worker import BATCH_TOKENS, MIXTURE, NEW_TOKENS, OPTIM, PROMPTS, ROWS, SAMPLES, Setting

ROOT = Path(__file__).parents[2]
_FILE_BYTES = 64_000_000
_NEVER: list[int | str] = []  # no token ends a sample


def measure() -> dict[str, Any]:
    """Everything that is measured here, as JSON: `phases` and `links` of this machine, `host` of the paper's tasks on
    one core, and the steps of `ranks`."""
    torch.set_num_threads(1)
    setting = Setting.make()
    found = {str(n): _ranks(n) for n in (1, 2)}
    return {
        "machine": describe_machine(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "load": os.getloadavg()[0],
        "phases": asdict(phases_of(setting)),
        "host": host_rates(),
        "links": asdict(links_of(found["2"].pop("links"))),
        "ranks": found,
    }


def phases_of(setting: Setting) -> Phases:
    """One core, by its CPU time, which other work on the machine moves least; the disk by the clock."""
    model, tokenizer, stream = setting.model, setting.tokenizer, setting.stream
    _core.keep_freed_memory()  # as training does
    optimizer = Optimizer(model, OPTIM)
    rows = stream.packed(0, ROWS, BATCH_TOKENS // ROWS, tokenizer, threads=1)
    one = stream.packed(0, 1, int(rows.lengths[0]), tokenizer, threads=1)

    def train_on(batch: fr.PackedBatch) -> float:
        model.zero_grad(set_to_none=True)
        supervised_loss(model, batch, "all").backward()
        return float(batch.lengths.sum())

    def optimize() -> float:
        train_on(one)
        begin = time.process_time()
        optimizer.step(0.5)
        return time.process_time() - begin

    token_s = _seconds(lambda: train_on(rows))
    pass_s = _seconds(lambda: train_on(one), units=1.0)
    optimize()
    optimizer_s = statistics.median(optimize() for _ in range(9))
    problems = stream[0:PROMPTS]
    samples = fr.Rollout(model, tokenizer).generate(problems, SAMPLES, max_new_tokens=NEW_TOKENS)
    groups = Groups.of(samples, torch.zeros(PROMPTS * SAMPLES))
    advantages = torch.ones(PROMPTS * SAMPLES)
    settings = PolicySettings(mixture=[MIXTURE], optim=OPTIM)

    def update() -> float:
        model.zero_grad(set_to_none=True)
        group_loss(model, groups, advantages, settings).loss.backward()
        return float(len(samples.prompt_tokens) + samples.num_new_tokens)

    step_s, one_more_s = _decoding(setting)
    write, hashed = _disk()
    host = host_rates(MIXTURE)
    return Phases(
        token_s, pass_s, optimizer_s, _seconds(update), step_s, one_more_s, 1 / host["verdicts_per_s"],
        1 / host["packed_tokens_per_s"], 1 / host["problems_per_s"], write, hashed,
    )  # fmt: skip


def host_rates(part: dict[str, Any] | None = None) -> dict[str, float]:
    """Problems, packed tokens and verdicts a second of one core; default: on the paper's tasks."""
    parts = PRESETS["paper"].mixture if part is None else [part]
    mixture = fr.Mixture.from_dict(parts) if part else fr.Mixture.preset("pretrain")
    tokenizer = fr.Tokenizer.for_mixtures([mixture])
    stream = fr.TaskStream(mixture, seed=0)
    problems = fr.TaskStream(mixture if part else fr.Mixture.preset("rl-op11-14"), seed=0, split="rl")[0:200]
    tokens, offsets = tokenizer.core.encode_batch(golden(problems))
    answers = np.full((len(problems), int(np.diff(offsets).max())), tokenizer.pad_id, dtype=np.int32)
    for row, begin, end in zip(answers, offsets[:-1], offsets[1:], strict=True):
        row[: end - begin] = tokens[begin:end]
    completions = answers.repeat(16, axis=0)

    def draw() -> float:
        return float(len(stream.batch(np.arange(4000), threads=1)))

    def pack() -> float:
        return float(stream.packed(0, 64, 2048, tokenizer, threads=1).lengths.sum())

    def grade() -> float:
        verdicts = fr.grade(problems, completions, tokenizer=tokenizer, threads=1)
        assert verdicts.verified.all()
        return float(len(completions))

    works = {"problems_per_s": draw, "packed_tokens_per_s": pack, "verdicts_per_s": grade}
    return {name: 1 / _seconds(work, repeats=9) for name, work in works.items()}


def links_of(found: dict[str, float]) -> Links:
    """Gloo between two processes of this machine, from an all-reduce of one number and of 16 MB."""
    latency_s = found["small_s"] / 2
    rate = all_reduce_bytes(found["size_bytes"], 2) / max(found["reduce_s"] - found["small_s"], 1e-9)
    return Links(
        per_node=2, node_bytes_per_s=rate, network_bytes_per_s=rate, share=1.0, node_latency_s=latency_s,
        network_latency_s=latency_s, host_bytes_per_s=rate, host_latency_s=latency_s, tree=False,
    )  # fmt: skip


def _decoding(setting: Setting) -> tuple[float, float]:
    """Seconds of a step for all sequences together, and of each: from few and from many that never end."""
    engine, problems = fr.Rollout(setting.model, setting.tokenizer), setting.stream[0:PROMPTS]

    def sampled(count: int, tokens: int) -> float:
        engine.generate(problems, count, max_new_tokens=tokens, stop=_NEVER)
        return float(tokens - 1)

    few, many = 1, 2 * SAMPLES
    prompts_s = [_seconds(lambda n=n: sampled(n, 1), units=1.0) for n in (few, many)]  # type: ignore[misc]
    whole_s = [_seconds(lambda n=n: sampled(n, NEW_TOKENS), units=1.0) for n in (few, many)]  # type: ignore[misc]
    steps_s = [(whole - prompts) / (NEW_TOKENS - 1) for whole, prompts in zip(whole_s, prompts_s, strict=True)]
    one_more_s = max((steps_s[1] - steps_s[0]) / ((many - few) * PROMPTS), 1e-9)
    return max(steps_s[0] - few * PROMPTS * one_more_s, 1e-9), one_more_s


def _disk() -> tuple[float, float]:
    """Bytes a second of a file written and flushed, and of its SHA-256."""
    data = os.urandom(_FILE_BYTES)
    with tempfile.NamedTemporaryFile(dir=ROOT / "build") as file:

        def write() -> float:
            file.seek(0)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            return float(len(data))

        def hashed() -> float:
            hashlib.sha256(data).digest()
            return float(len(data))

        return 1 / _seconds(write, repeats=3, clock=time.perf_counter), 1 / _seconds(hashed, repeats=3)


def _seconds(
    work: Callable[[], float],
    *,
    units: float | None = None,
    repeats: int = 5,
    clock: Callable[[], float] = time.process_time,
) -> float:
    """Time per unit: the median over calls, without the first. `work` returns its number of units."""
    found = []
    for _ in range(repeats + 1):
        begin = clock()
        done = work()
        found.append((clock() - begin) / (done if units is None else units))
    return statistics.median(found[1:])


def _ranks(number: int) -> dict[str, Any]:
    """What `bench.scaling.worker` took on so many ranks, with one thread each."""
    cases = ["ddp", "rl"] if number == 1 else ["links", "ddp", "fsdp", "rl"]
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={number}"] if number > 1 else []
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, *launch, "-m", "bench.scaling.worker", folder, *cases]
        done = subprocess.run(
            command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=600
        )
        if done.returncode:
            raise RuntimeError(f"bench scaling: {number} ranks failed:\n{done.stderr[-3000:]}")
        found: dict[str, Any] = json.loads((Path(folder) / "found.json").read_text(encoding="utf-8"))
    return found


def _commit() -> str:
    """Short, with "-dirty" if files differ from it; "unknown" outside a checkout."""
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--exclude=*"], cwd=ROOT, capture_output=True, text=True
    )
    return done.stdout.strip() or "unknown"
