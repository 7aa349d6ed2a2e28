"""The scheduler of sampling on a device, at work on samples whose lengths are drawn beforehand: how full its slots are.

`DeviceBatch` is the real one; only the steps of the device are simulated. What its Python takes of this machine's CPU
time is measured on the way.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import fastreason as fr
from fastreason.sampling.continuous_batching import Work
from fastreason.sampling.device_batching import DeviceBatch
from fastreason.sampling.device_decoding import (
    FULL,
    LEAST_WIDTH,
    PREFILL_TOKENS,
    RUNNING,
    STOPPED,
    DeviceDecoding,
    Download,
    Size,
    size_within,
    widths,
)
from fastreason.sampling.stop_sequences import Stopping

from .decode_operations import DTYPE, PRESET, PROMPT_TOKENS, Counting

__all__ = ["LIMIT", "MEAN", "PROMPTS", "SAMPLES", "SLOTS", "Simulated", "lengths_of", "simulate"]

# the paper's step of reinforcement learning: prompts of op 11-14, groups of 6, a limit of 1,024 new tokens
PROMPTS, SAMPLES, LIMIT = 1024, 6, 1024
SLOTS, KV_BYTES = 4096, 40e9
MEAN = 300


@dataclass
class Simulated:
    """What was asked of the device, and the rows that did something.

    Args:
        steps: (width, number of steps, tokens of slots and of prefixes that attention reads in all of them).
        launches: operations that were launched on their own, by what for; waits: of the host.
        live, rows: rows that drew a token that was kept, and all rows that slots were there for, while samples waited;
            all_rows: of all steps, whatever their width.
        host_s: CPU time of the scheduler, without the operations, which count as launches.
    """

    steps: list[tuple[int, int, int, int]] = field(default_factory=list)
    launches: dict[str, int] = field(default_factory=dict)
    waits: int = 0
    prefill_passes: int = 0
    prefill_tokens: int = 0
    live: int = 0
    rows: int = 0
    all_rows: int = 0
    host_s: float = 0.0

    @property
    def num_steps(self) -> int:
        return sum(count for _, count, _, _ in self.steps)


class SimulatedDecoding(DeviceDecoding):
    """Slots of a tiny model on CPU whose samples end at known lengths; the model is not run."""

    def __init__(self, size: Size, lengths_PG: np.ndarray, found: Simulated) -> None:
        config = fr.ModelConfig(vocab_size=16, hidden_size=16, num_hidden_layers=1, num_attention_heads=1,
                                num_key_value_heads=1, intermediate_size=16, max_position_embeddings=4096)  # fmt: skip
        super().__init__(fr.Decoder(config), size, {"seed": 0}, np.array([3]))
        self.lengths_PG, self.found, self.widths = lengths_PG, found, widths(size.slots, LEAST_WIDTH)
        self.length = np.zeros(size.slots, dtype=np.int64)
        self.end = np.zeros(size.slots, dtype=np.int64)
        self.active = np.zeros(0, dtype=np.int64)
        self.num_prefixes, self.waiting, self.idle_s = 0, True, 0.0

    def _count(self, what: str, work: Any, *arguments: Any) -> Any:
        with Counting() as counted:
            out = work(*arguments)
        self.found.launches[what] = self.found.launches.get(what, 0) + counted.launches
        self.idle_s += counted.inside_s
        return out

    def prefill(self, prefixes: np.ndarray, prompts: Sequence[np.ndarray]) -> None:
        total = sum(len(prompt) - 1 for prompt in prompts)
        per_pass = max(1, PREFILL_TOKENS // max(1, len(prompts[0]) - 1))
        self.found.prefill_passes += -(-len(prompts) // per_pass)
        self.found.prefill_tokens += total

    def start(self, slots: np.ndarray, begin: np.ndarray, last_tokens: np.ndarray) -> None:
        self.length[slots], self.end[slots] = 0, self.lengths_PG[begin[1], begin[2]]
        self._count("start", super().start, slots, begin, last_tokens)

    def arrange(self, slots: np.ndarray, prefixes: np.ndarray) -> None:
        self.active, self.num_prefixes = slots, len(np.unique(prefixes))
        self._count("arrange", super().arrange, slots, prefixes)

    def advance(self, steps: int) -> None:
        begin, found = time.process_time(), self.found
        length, end = self.length[self.active], self.end[self.active]
        live = np.minimum(end - length, steps)
        read = live * (length + 1) + live * (live - 1) // 2 + (steps - live) * (end + 1)
        read_prefixes = steps * self.num_prefixes * (self.size.prompt - 1)
        found.steps.append((self.width, steps, int(read.sum()), read_prefixes))
        found.all_rows += self.width * steps
        if self.waiting:
            found.live += int(live.sum())
            found.rows += self.size.slots * steps
        self.length[self.active] = length + live
        self.idle_s += time.process_time() - begin

    def look(self) -> tuple[np.ndarray, np.ndarray]:
        self.found.waits += 1
        self.found.launches["look"] = self.found.launches.get("look", 0) + 1
        status = np.where(self.length < self.end, RUNNING, STOPPED)
        return self.length, np.where((status == STOPPED) & (self.length == LIMIT), FULL, status)

    def fetch(self, slots: np.ndarray, width: int) -> Download:
        self.found.waits += 1
        # two copies to the host as well
        self.found.launches["fetch"] = self.found.launches.get("fetch", 0) + 2
        download: Download = self._count("fetch", super().fetch, slots, width)
        return download


def lengths_of(kind: str, prompts: int) -> np.ndarray:
    """int64 [P, G] with a mean of about 300: geometric, cut at the limit, or uniform between 200 and 400."""
    rng = np.random.default_rng(0)
    if kind == "geometric":
        return np.minimum(rng.geometric(1 / MEAN, (prompts, SAMPLES)), LIMIT)
    return rng.integers(200, 401, (prompts, SAMPLES))


def simulate(lengths_PG: np.ndarray, slots: int = SLOTS) -> Simulated:
    """The rollout of so many prompts in so many slots."""
    found, (P, n) = Simulated(), lengths_PG.shape
    size = size_within(
        KV_BYTES,
        fr.ModelConfig.preset(PRESET),
        DTYPE,
        prompts=P,
        n=n,
        longest=PROMPT_TOKENS,
        capacity=LIMIT,
        most=slots,
    )
    assert size is not None
    words = fr.Tokenizer.for_mixtures([fr.Mixture.uniform(op=[2], themes=["symbolic"])])
    work = Work(
        np.zeros(P * PROMPT_TOKENS, np.int32), np.arange(P + 1) * PROMPT_TOKENS, np.arange(P), np.full(P, LIMIT), n, {},
        Stopping(words), 0,
    )  # fmt: skip
    decoding = SimulatedDecoding(size, lengths_PG, found)
    batch = DeviceBatch(work, decoding)
    begin = time.process_time()
    while not batch.done:
        batch.step()
        decoding.waiting = batch.num_started < P * n
    found.host_s = time.process_time() - begin - decoding.idle_s
    return found
