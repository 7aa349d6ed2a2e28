"""Pre-training step beside transformers' on the same documents: `python -m bench train`.

Every contestant is a process of its own (train_worker.py); they take turns, round after round. Medians of rounds by the
clock on the wall, and the best of them by CPU time, which other tenants of the machine move less.
"""

from __future__ import annotations

import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import torch

import fastreason as fr
from fastreason import ops

from .timing import Row

MIXTURE = {"op": [2, 3, 4, 5], "themes": ["symbolic"], "max_value": 199}
BATCH_TOKENS = 3072
PEERS = {
    "trainer": "transformers.Trainer",
    "lengths": "transformers, batches of similar length",
    "lengths-compiled": "the same, torch.compile",
    "packed-compiled": "transformers, packed rows, torch.compile",
}
NEEDS = {"trainer": "accelerate"}
ROUNDS = 5
STEPS = {"tiny": 10, "10m": 1}  # a round


def quickstart_model() -> tuple[fr.Decoder, fr.Tokenizer, fr.TaskStream]:
    mixture = fr.Mixture.from_dict(MIXTURE)
    tokenizer = fr.Tokenizer.for_mixtures([mixture])
    model = fr.Decoder(fr.ModelConfig.preset("tiny", vocab_size=len(tokenizer)))
    model.reset_parameters(0)
    return model, tokenizer, fr.TaskStream(mixture, seed=0)


@dataclass
class Contestant:
    """A process that trains when it is told to, and what its rounds gave."""

    name: str
    process: subprocess.Popen[str]
    rounds: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def start(cls, name: str, size: str, threads: int) -> Contestant:
        command = [sys.executable, "-m", "bench.train_worker", name, size, str(threads)]
        pipes: dict[str, Any] = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        return cls(name, subprocess.Popen(command, text=True, **pipes))

    def read(self) -> dict[str, Any]:
        assert self.process.stdout
        for line in self.process.stdout:
            if line.startswith("RESULT "):
                answer: dict[str, Any] = json.loads(line.removeprefix("RESULT "))
                return answer
        raise RuntimeError(f"bench train: {self.name} ended with status {self.process.wait()}; run its module by hand")

    def round(self, steps: int) -> None:
        assert self.process.stdin
        print(steps, file=self.process.stdin, flush=True)
        self.rounds.append(self.read())

    def rates(self, clock: str = "wall_s") -> list[float]:
        """Tokens of documents a second of every round, padding not counted: rounds hold documents of other lengths."""
        return [done["tokens"] / done[clock] for done in self.rounds]

    def best(self, what: str, clock: str) -> float:
        return max(done[what] / done[clock] for done in self.rounds)

    def __enter__(self) -> Contestant:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


def rows() -> Iterator[Row]:
    for threads in (1, 2):
        peaks = peak_rates(threads)
        for name, rate in peaks.items():
            yield Row(f"matrix products alone, {name}, {threads} thread(s)", rate / 1e9, "GFLOP/s")
        for size in STEPS:
            yield from size_rows(size, threads, peaks)


def size_rows(size: str, threads: int, peaks: dict[str, float]) -> Iterator[Row]:
    names = [name for name in PEERS if name not in NEEDS or find_spec(NEEDS[name])]
    for name in set(PEERS) - set(names):
        print(f"<!-- {PEERS[name]} left out: {NEEDS[name]} is not installed -->")
    with ExitStack() as running:
        ours, *theirs = (
            running.enter_context(Contestant.start(name, size, threads)) for name in ["fastreason", *names]
        )
        for contestant in (ours, *theirs):
            contestant.read()
        for _ in range(ROUNDS):
            for contestant in (ours, *theirs):
                contestant.round(STEPS[size])
    yield from comparisons(ours, theirs, f"{size}, op 2-10, {threads} thread(s)")
    clock = "cpu_s" if threads == 1 else "wall_s"
    for product, peak in peaks.items():
        share = 100 * ours.best("flop", clock) / peak
        yield Row(f"useful FLOP/s as a share of {product} alone, {size}, {threads} thread(s)", share, "%")
    waiting = 100 * statistics.median(done["waiting_s"] / done["wall_s"] for done in ours.rounds)
    yield Row(f"waiting for the next batch, {size}, {threads} thread(s)", waiting, "% of the step")


def comparisons(ours: Contestant, theirs: Sequence[Contestant], where: str) -> Iterator[Row]:
    found = ours.rates()
    for peer in theirs:
        yield Row(
            f"training, {where}", statistics.median(found), "document tokens/s", (min(found), max(found)),
            (PEERS[peer.name], statistics.median(peer.rates())),
        )  # fmt: skip
    for peer in theirs:
        yield Row(
            f"the same by CPU time, {where}", ours.best("tokens", "cpu_s"), "document tokens/CPU-s",
            peer=(PEERS[peer.name], peer.best("tokens", "cpu_s")),
        )  # fmt: skip


def peak_rates(threads: int, size: int = 768) -> dict[str, float]:
    """FLOP/s of square products by torch.mm and by what `ops.linear` picks; of one thread by its CPU time."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    clock = time.thread_time if threads == 1 else time.perf_counter
    a, b = torch.ones(2, size, size)
    weight = b.clone().requires_grad_()
    found = {}
    for name, product in (("torch.mm", lambda: torch.mm(a, b)), ("ops.linear", lambda: ops.linear(a, weight))):
        best_s = math.inf
        for _ in range(200):
            start = clock()
            product()
            best_s = min(best_s, clock() - start)
        found[name] = 2.0 * size**3 / best_s
    torch.set_num_threads(before)
    return found
