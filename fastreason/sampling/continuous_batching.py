"""Continuous batching: assigns samples to slots, from prefill to the last token.

Letters: P prompts, n samples of each, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import kernels
from .cpp_backend import CoreDecoding
from .stop_sequences import Stopping


@dataclass(frozen=True)
class Work:
    """A sampling request.

    Args:
        tokens: int32, all prompts concatenated, and offsets: int64 [P + 1].
        ids: int64 [P]: the prompt ids that key the random draws.
        limits: int64 [P]: maximum number of new tokens.
        n: samples of each prompt.
        draw: keyword arguments of `kernels.sample`: seed, temperature and filters.
        stopping: when a sample ends.
        pad: the token that fills the space after the end.
    """

    tokens: np.ndarray
    offsets: np.ndarray
    ids: np.ndarray
    limits: np.ndarray
    n: int
    draw: dict[str, Any]
    stopping: Stopping
    pad: int

    @property
    def prompt_lengths(self) -> np.ndarray:
        return np.diff(self.offsets)

    def prompt(self, p: int) -> np.ndarray:
        return self.tokens[self.offsets[p] : self.offsets[p + 1]]


@dataclass(frozen=True)
class Rows:
    """Samples: tokens int32, log-probabilities (full, sampled) float32 [rows, width], lengths and finished [rows]."""

    tokens: np.ndarray
    logprobs: np.ndarray
    sampled_logprobs: np.ndarray
    lengths: np.ndarray
    finished: np.ndarray

    @classmethod
    def empty(cls, count: int, width: int, pad: int) -> Rows:
        logprobs, sampled = np.zeros((2, count, width), dtype=np.float32)
        tokens = np.full((count, width), pad, dtype=np.int32)
        return cls(tokens, logprobs, sampled, np.zeros(count, np.int64), np.zeros(count, dtype=bool))

    def put(self, at: slice | np.ndarray, other: Rows, row: slice | np.ndarray) -> None:
        """Copies rows of another, up to the smaller width; anything beyond must be padding."""
        width = min(self.tokens.shape[1], other.tokens.shape[1])
        self.tokens[at, :width] = other.tokens[row, :width]
        self.logprobs[at, :width] = other.logprobs[row, :width]
        self.sampled_logprobs[at, :width] = other.sampled_logprobs[row, :width]
        self.lengths[at], self.finished[at] = other.lengths[row], other.finished[row]


@dataclass
class PromptMemory:
    """Bytes available for the keys and values of prompts."""

    free: float
    size_of: Callable[[int], float]

    def take(self, num_tokens: int) -> bool:
        if self.size_of(num_tokens) > self.free:
            return False
        self.free -= self.size_of(num_tokens)
        return True

    def give(self, num_tokens: int) -> None:
        self.free += self.size_of(num_tokens)


class ContinuousBatch:
    """Runs a `Work` to completion, one token of every running sample per step.

    A freed slot takes the next sample, prompts being processed in order.
    """

    def __init__(self, work: Work, decoding: CoreDecoding, slots: int, memory: PromptMemory) -> None:
        self.work, self.decoding, self.memory = work, decoding, memory
        P = len(work.limits)
        self.running = np.zeros(slots, dtype=bool)
        self.prompt, self.sample, self.length = np.zeros((3, slots), dtype=np.int64)
        self.held = Rows.empty(slots, int(work.limits.max()), work.pad)
        self.numbers = np.zeros(P, dtype=np.int64)  # what `decoding` calls the prompts it holds
        self.first_logits: dict[int, Tensor] = {}  # after prompts that still have samples to start
        self.started, self.ended = np.zeros((2, P), dtype=np.int64)  # number of samples
        self.collected: dict[int, Rows] = {}
        self.num_entered = 0

    @property
    def done(self) -> bool:
        return bool((self.ended == self.work.n).all())

    def step(self) -> list[tuple[int, Rows]]:
        """Draws the next token of every running sample and the first of each new one; returns the finished prompts."""
        old = np.flatnonzero(self.running)
        new = self._enter()
        old = old[np.argsort(self.prompt[old], kind="stable")]  # samples of one prompt are adjacent
        parts = []
        if len(old):
            last = self.held.tokens[old, self.length[old] - 1]
            parts.append(self.decoding.decode(old, self.numbers[self.prompt[old]], self.length[old] - 1, last))
        if len(new):
            parts.append(self._first_logits(self.prompt[new]))
            self.first_logits = {p: x for p, x in self.first_logits.items() if self.started[p] < self.work.n}
        return self._draw(np.concatenate([old, new]), parts[0] if len(parts) == 1 else torch.cat(parts))

    def _enter(self) -> np.ndarray:
        """Starts samples in the free slots, and returns those slots."""
        free, entered = np.flatnonzero(~self.running), []
        fresh: list[int] = []
        while len(free) and (p := self._next_prompt(fresh)) is not None:
            slots = self._start(p, free)
            entered.append(slots)
            free = free[len(slots) :]
        if fresh:
            self._prefill(fresh)
        return np.concatenate(entered) if entered else np.zeros(0, dtype=np.int64)

    def _start(self, p: int, slots: np.ndarray) -> np.ndarray:
        """Starts the next samples of prompt p in some of the free `slots`, and returns those slots."""
        slots = slots[: self.work.n - self.started[p]]
        self.prompt[slots], self.sample[slots] = p, self.started[p] + np.arange(len(slots))
        self.length[slots], self.running[slots] = 0, True
        self.held.tokens[slots] = self.work.pad
        self.held.logprobs[slots], self.held.sampled_logprobs[slots] = 0.0, 0.0
        self.started[p] += len(slots)
        return slots

    def _next_prompt(self, fresh: list[int]) -> int | None:
        """The prompt with samples left to start or, memory permitting, the next one, which is appended to `fresh`."""
        p = self.num_entered
        if p and self.started[p - 1] < self.work.n:
            return p - 1
        if p == len(self.work.limits) or not self.memory.take(len(self.work.prompt(p))):
            return None
        self.num_entered += 1
        fresh.append(p)
        return p

    def _prefill(self, prompts: list[int]) -> None:
        tokens = [self.work.prompt(p) for p in prompts]
        offsets = np.concatenate([[0], np.cumsum([len(t) for t in tokens])])
        self.numbers[prompts], logits = self.decoding.prefill(np.concatenate(tokens), offsets)
        for p, row in zip(prompts, logits, strict=True):
            self.first_logits[p] = row
            self.collected[p] = Rows.empty(self.work.n, int(self.work.limits[p]), self.work.pad)

    def _first_logits(self, prompts: np.ndarray) -> Tensor:
        """[n, V]: the logits after each prompt, from which its samples start."""
        distinct, which = np.unique(prompts, return_inverse=True)
        rows = torch.stack([self.first_logits[p] for p in distinct.tolist()])
        return rows[torch.from_numpy(which).to(rows.device)]

    def _draw(self, slots: np.ndarray, logits: Tensor) -> list[tuple[int, Rows]]:
        """Draws a token for each of `slots` from its logits [n, V], and removes the samples that end."""
        prompts, position = self.prompt[slots], self.length[slots]
        tokens, sampled, full = kernels.sample(
            logits,
            prompts_N=self.work.ids[prompts],
            samples_N=self.sample[slots],
            positions_N=position,
            **self.work.draw,
        )
        self.held.tokens[slots, position] = tokens.cpu().numpy()
        self.held.logprobs[slots, position] = full.cpu().numpy()
        self.held.sampled_logprobs[slots, position] = sampled.cpu().numpy()
        length = position + 1
        self.length[slots] = length
        stopped = self.work.stopping.ends(self.held.tokens, slots, length)
        self.held.lengths[slots], self.held.finished[slots] = length, stopped
        return self._collect(slots[stopped | (length == self.work.limits[prompts])])

    def _collect(self, slots: np.ndarray) -> list[tuple[int, Rows]]:
        """Removes samples that have ended; returns the prompts that this completes."""
        done = []
        self.running[slots] = False
        for p in np.unique(self.prompt[slots]).tolist():
            ended = slots[self.prompt[slots] == p]
            self.collected[p].put(self.sample[ended], self.held, ended)
            self.ended[p] += len(ended)
            if self.ended[p] == self.work.n:
                self.decoding.release(int(self.numbers[p]))
                self.memory.give(len(self.work.prompt(p)))
                done.append((p, self.collected.pop(p)))
        return done
