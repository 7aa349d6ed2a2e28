"""Continuous batching for a decoder that stays on the device: the host looks now and then, and refills slots.

Between two looks the device takes k steps on its own. A sample that ends on the way leaves its slot idle until the
look, so k follows what it costs: more than one slot in 16 ended, and k is halved; fewer than one in 32, and it is
doubled. Results are copied while the next steps run.

Letters: P prompts, n samples of each, N slots.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .continuous_batching import Rows, Work
from .device_decoding import FAILED, RUNNING, STOPPED, DeviceDecoding, Download

MOST_STEPS = 32


@dataclass(frozen=True)
class _Ended:
    """Samples that a look found ended: their numbers p * n + s, lengths, whether they stopped, and their rows."""

    samples: np.ndarray
    lengths: np.ndarray
    stopped: np.ndarray
    rows: Download


class DeviceBatch:
    """Runs a `Work` to completion. A freed slot takes the next sample that waits, of whatever prompt.

    Prompts are computed ahead, as many as there are free prefixes, when the samples of those that are there run out.
    """

    def __init__(self, work: Work, decoding: DeviceDecoding) -> None:
        self.work, self.decoding = work, decoding
        size, P = decoding.size, len(work.limits)
        self.sample = np.full(size.slots, -1, dtype=np.int64)  # number of the sample in each slot
        self.length = np.zeros(size.slots, dtype=np.int64)  # at the last look
        self.num_started = self.num_entered = 0  # samples, prompts
        self.prefix = np.zeros(P, dtype=np.int64)
        self.running, self.missing = np.full((2, P), work.n, dtype=np.int64)  # samples not ended, not collected
        self.free_prefixes = list(range(size.prefixes))[::-1]
        self.collected: dict[int, Rows] = {}
        self.ended: _Ended | None = None
        self.steps = 1

    @property
    def done(self) -> bool:
        return not self.missing.any()

    def step(self) -> list[tuple[int, Rows]]:
        """Launches steps and waits for them; returns the prompts that the last look found finished."""
        self._refill()
        active = np.flatnonzero(self.sample >= 0)
        if len(active):
            left = self.work.limits[self.sample[active] // self.work.n] - self.length[active]
            steps = min(self.steps, int(left.max()))
            self.decoding.advance(steps)
        done = self._collect()
        if len(active):
            self._look(active, steps)
        return done

    def _refill(self) -> None:
        """Starts samples in the free slots, and arranges the rows of the next steps."""
        free, n = np.flatnonzero(self.sample < 0), self.work.n
        if len(free) > self.num_entered * n - self.num_started:
            self._enter()
        samples = np.arange(self.num_started, min(self.num_started + len(free), self.num_entered * n))
        if len(samples):
            slots, prompt = free[: len(samples)], samples // n
            self.num_started += len(samples)
            self.sample[slots], self.length[slots] = samples, 0
            begin = np.stack([self.work.limits[prompt], self.work.ids[prompt], samples % n, self.prefix[prompt]])
            self.decoding.start(slots, begin, self.work.tokens[self.work.offsets[prompt + 1] - 1].astype(np.int64))
        active = np.flatnonzero(self.sample >= 0)
        if len(active) and (len(samples) or self.ended is not None):
            self.decoding.arrange(active, self.prefix[self.sample[active] // n])

    def _enter(self) -> None:
        """Computes the next prompts, one for each free prefix."""
        count = min(len(self.free_prefixes), len(self.prefix) - self.num_entered)
        prompts = range(self.num_entered, self.num_entered + count)
        if count:
            self.prefix[prompts] = [self.free_prefixes.pop() for _ in prompts]
            self.decoding.prefill(self.prefix[prompts], [self.work.prompt(p) for p in prompts])
            self.num_entered += count

    def _look(self, active: np.ndarray, steps: int) -> None:
        length, status = (x[active] for x in self.decoding.look())
        if (status == FAILED).any():
            raise ValueError("generate: the logits of a sample hold NaN or infinity, or nothing above -infinity")
        stopped, ended = status == STOPPED, status != RUNNING
        if self.work.stopping.strings:
            self._find_strings(active, length, stopped, ended)
        self.length[active] = length
        number = self.sample[active[ended]]
        self.ended = None
        if len(number):
            rows = self.decoding.fetch(active[ended], int(length[ended].max()))
            self.ended = _Ended(number, length[ended], stopped[ended], rows)
            self.sample[active[ended]] = -1
            prompts, counts = np.unique(number // self.work.n, return_counts=True)
            self.running[prompts] -= counts
            self.free_prefixes += self.prefix[prompts[self.running[prompts] == 0]].tolist()
        if 16 * len(number) > len(active):
            self.steps = max(1, steps // 2)
        elif 32 * len(number) < len(active):
            self.steps = min(MOST_STEPS, 2 * steps)

    def _find_strings(self, slots: np.ndarray, length: np.ndarray, stopped: np.ndarray, ended: np.ndarray) -> None:
        """Ends samples at the first token since the last look that completes a stop string: the device knows only ids.

        What was drawn behind it is dropped; draws are keyed by position, so it changes nothing.
        """
        stopping, before = self.work.stopping, self.length[slots]
        first = np.maximum(before - stopping.reach, 0)
        tokens = self.decoding.recent(slots, first, int((length - first).max()))
        found = np.zeros(len(slots), dtype=bool)
        for new in range(1, int((length - before).max()) + 1):
            open_ = np.flatnonzero(~found & (before + new <= length))
            ends = open_[stopping.ends(tokens, open_, (before - first)[open_] + new)]
            found[ends], length[ends] = True, before[ends] + new
        stopped |= found
        ended |= found

    def _collect(self) -> list[tuple[int, Rows]]:
        """Files what the last look found ended, and returns the prompts that this completes."""
        if self.ended is None:
            return []
        tokens, (full, sampled) = self.ended.rows.wait()
        n, done = self.work.n, []
        of_samples = zip(self.ended.samples.tolist(), self.ended.lengths.tolist(), self.ended.stopped, strict=True)
        for i, (number, length, stopped) in enumerate(of_samples):
            p, s = divmod(number, n)
            if p not in self.collected:
                self.collected[p] = Rows.empty(n, int(self.work.limits[p]), self.work.pad)
            rows = self.collected[p]
            rows.tokens[s, :length], rows.logprobs[s, :length] = tokens[i, :length], full[i, :length]
            rows.sampled_logprobs[s, :length] = sampled[i, :length]
            rows.lengths[s], rows.finished[s] = length, stopped
            self.missing[p] -= 1
            if self.missing[p] == 0:
                done.append((p, self.collected.pop(p)))
        return done
