"""Decoding with torch, any dtype and device: everything that a step needs and changes is in tensors on the device.

A *slot* holds one sample: its tokens, log-probabilities, keys and values. A *prefix* holds the keys and values of a
prompt, once for all of its samples. A sample begins by decoding the last token of its prompt, so a prefix is a prompt
without its last token, and every token of every sample comes from the same step:

    embed the last token, append its keys and values, attend to the prefix and to the slot, draw, note what ends

The host launches steps and reads nothing. On a GPU a step is one CUDA graph per width, captured at its second use. The
host looks when it wants to (device_batching.py), collects what has ended, and starts samples in the free slots.

A step computes `width` rows, of which each names its slot; rows of one prefix stand together and share tiles of
decode_attention. A sample that ended since the host last looked stays in its row: its length no longer grows, and what
it writes lies behind its end. Rows left over belong to slot N and prefix S, which nobody reads.

Letters: N slots of up to C new tokens, S prefixes of up to L tokens, W rows, K key-value heads, D head dim,
V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import kernels
from ..kernels.decode_attention import SequenceTiles, sequences_per_tile, tile_sequences
from ..kernels.segments import Segments
from ..model.config import ModelConfig
from ..model.decoder import Decoder

# rows of the state: new tokens so far, one of the four below, most new tokens, keys of the draws, prefix
LENGTH, STATUS, LIMIT, PROMPT, SAMPLE, PREFIX = range(6)
# FAILED: the logits were no distribution
RUNNING, STOPPED, FULL, FAILED = range(4)

PREFILL_TOKENS = 65_536  # of prompts in one pass: bounds its activations
LEAST_WIDTH = 128  # on a GPU, where fewer rows take no less time, but another graph


def widths(slots: int, least: int) -> list[int]:
    """The numbers of rows that steps have: N and its halves down to `least`, in multiples of 16."""
    found, width = {slots}, slots
    while width > least:
        width = -(-width // 2)
        found.add(min(slots, -(-max(width, least) // 16) * 16))
    return sorted(found)


class Download:
    """Tensors on their way to the host."""

    def __init__(self, *tensors: Tensor) -> None:
        self.event: torch.cuda.Event | None = None
        if not tensors[0].is_cuda:
            self.host = tensors
            return
        self.host = tuple(torch.empty(x.shape, dtype=x.dtype, pin_memory=True) for x in tensors)
        for host, x in zip(self.host, tensors, strict=True):
            host.copy_(x, non_blocking=True)
        self.event = torch.cuda.Event()
        self.event.record(torch.cuda.current_stream(tensors[0].device))

    def wait(self) -> list[np.ndarray]:
        if self.event is not None:
            self.event.synchronize()
        return [x.numpy() for x in self.host]


@dataclass(frozen=True)
class Size:
    """How much is decoded at once.

    Args:
        slots: N; prefixes: S.
        prompt: tokens of the longest prompt, L + 1; capacity: C.
    """

    slots: int
    prefixes: int
    prompt: int
    capacity: int


class DeviceDecoding:
    """Slots and prefixes of one rollout, and the step that advances them.

    Args:
        model: of any dtype and device.
        size: how much is decoded at once.
        draw: keyword arguments of `kernels.sample`: seed, temperature and filters.
        stop_ids: tokens that end a sample.
    """

    def __init__(self, model: Decoder, size: Size, draw: dict[str, Any], stop_ids: np.ndarray) -> None:
        self.model, self.size, self.draw = model, size, draw
        weight, config = model.embedding.weight, model.config
        self.device, (N, S, C) = weight.device, (size.slots, size.prefixes, size.capacity)
        shape = (config.num_key_value_heads, config.head_dim)

        def layers(count: int, room: int) -> Tensor:
            cache = (len(model.blocks), 2, count, shape[0], room, shape[1])
            return torch.empty(cache, dtype=weight.dtype, device=self.device)

        # a sample that has ended at the limit still writes behind its end
        self.prefix_kv, self.own_kv = layers(S + 1, max(1, size.prompt - 1)), layers(N + 1, C + 1)
        self.prefix_length = torch.zeros(S + 1, dtype=torch.int64, device=self.device)
        self.state = torch.zeros(6, N + 1, dtype=torch.int64, device=self.device)
        self.state[STATUS], self.state[PREFIX] = FULL, S
        # the prompt's last token, then the new ones
        self.tokens = torch.zeros(N + 1, C + 2, dtype=torch.int64, device=self.device)
        self.logprobs = torch.zeros(2, N + 1, C + 1, dtype=torch.float32, device=self.device)  # full, sampled
        # by token + 1: the sampler says -1 where it finds no distribution
        ends = np.zeros(config.vocab_size + 1, dtype=np.int64)
        ends[0], ends[stop_ids + 1] = FAILED, STOPPED
        self.status_after = torch.from_numpy(ends).to(self.device)
        positions = torch.arange(size.prompt + C, device=self.device)
        self.cos, self.sin = kernels.rope_angles(positions, config.head_dim, config.rope_theta, weight.dtype)
        self.per_tile = sequences_per_tile(weight, config.num_attention_heads, *shape)
        self.widths = widths(N, 16 if self.device.type == "cpu" else LEAST_WIDTH)
        self.rows = torch.full((N,), N, dtype=torch.int64, device=self.device)
        self.tiles = torch.zeros(self._num_tiles(N), 3, dtype=torch.int32, device=self.device)
        self.width = self.widths[0]
        self.graphs = _Graphs(self.device) if self.device.type == "cuda" else None

    def _num_tiles(self, width: int) -> int:
        """At least as many as `tile_sequences` can make of that many rows: a run per prefix, and one left over."""
        return -(-width // self.per_tile) + min(width, self.size.prefixes + 1)

    def _upload(self, values: np.ndarray) -> Tensor:
        host = torch.from_numpy(values)
        if self.device.type == "cuda":
            host = host.pin_memory()  # kept by torch until it has been copied
        return host.to(self.device, non_blocking=True)

    def prefill(self, prefixes: np.ndarray, prompts: Sequence[np.ndarray]) -> None:
        """Computes prompts into prefixes that are free, in packed passes of PREFILL_TOKENS or one prompt."""
        lengths = np.array([len(prompt) - 1 for prompt in prompts])
        self.prefix_length[self._upload(prefixes)] = self._upload(lengths)
        first = 0
        while first < len(prompts):
            fit = int(np.searchsorted(np.cumsum(lengths[first:]), PREFILL_TOKENS, side="right"))
            last = first + max(1, fit)
            self._prefill(prefixes[first:last], [prompt[:-1] for prompt in prompts[first:last]])
            first = last

    def _prefill(self, prefixes: np.ndarray, texts: list[np.ndarray]) -> None:
        lengths = np.array([len(text) for text in texts])
        if not lengths.any():
            return
        offsets = np.cumsum(lengths) - lengths
        position = np.arange(lengths.sum()) - np.repeat(offsets, lengths)
        tokens, at, position_T = self._upload(
            np.stack([np.concatenate(texts).astype(np.int64), np.repeat(prefixes, lengths), position])
        )
        segments = Segments.from_lengths(lengths[lengths > 0].tolist())
        x, added = self.model.embedding(tokens), None
        cos, sin = self.cos[position_T], self.sin[position_T]
        last = len(self.model.blocks) - 1
        for layer, (block, (keys, values)) in enumerate(zip(self.model.blocks, self.prefix_kv, strict=True)):
            if layer < last:
                x, added, (k, v) = block(x, added, cos, sin, segments)
            else:
                (_, k, v), _ = block.project(x, added, cos, sin)
            keys[at, :, position_T], values[at, :, position_T] = k, v

    def start(self, slots: np.ndarray, begin: np.ndarray, last_tokens: np.ndarray) -> None:
        """Starts samples: `begin` int64 [4, n] are their rows of the state from LIMIT on."""
        fresh = np.zeros((2, len(slots)), dtype=np.int64)  # LENGTH and STATUS
        uploaded = self._upload(np.concatenate([slots[None], last_tokens[None], fresh, begin]))
        self.state[:, uploaded[0]] = uploaded[2:]
        self.tokens[uploaded[0], 0] = uploaded[1]

    def arrange(self, slots: np.ndarray, prefixes: np.ndarray) -> None:
        """Sets the slots that steps advance, and the width of steps."""
        self.width = next(width for width in self.widths if width >= len(slots))
        order = np.argsort(prefixes, kind="stable")
        rows, prefix = (np.full(self.width, x, dtype=np.int64) for x in (self.size.slots, self.size.prefixes))
        rows[: len(slots)], prefix[: len(slots)] = slots[order], prefixes[order]
        table = np.zeros((self._num_tiles(self.width), 3), dtype=np.int32)
        tiles = tile_sequences(prefix, self.per_tile)
        table[: len(tiles)] = tiles
        self.rows[: self.width] = self._upload(rows)
        self.tiles[: len(table)] = self._upload(table)

    def advance(self, steps: int) -> None:
        """Draws so many tokens of every running sample; the host does not wait."""
        for _ in range(steps):
            if self.graphs is None:
                self._step(self.width)
            else:
                self.graphs.run(self.width, self._step)

    def _step(self, width: int) -> None:
        model, rows = self.model, self.rows[:width]
        state = self.state[:, rows]
        length, status = state[LENGTH], state[STATUS]
        tiles = SequenceTiles(self.tiles[: self._num_tiles(width)], self.per_tile)
        own_length = length + 1
        position = self.prefix_length[state[PREFIX]] + length
        x, cos, sin = model.embedding(self.tokens[rows, length]), self.cos[position], self.sin[position]
        added = None
        for block, prefix, own in zip(model.blocks, self.prefix_kv, self.own_kv, strict=True):
            (q, k, v), x = block.project(x, added, cos, sin)
            own[0][rows, :, length], own[1][rows, :, length] = k, v
            attended = kernels.decode_attention(
                q, *prefix, *own, prefix_N=state[PREFIX], prefix_length_P=self.prefix_length, slot_N=rows,
                own_length_N=own_length, tiles=tiles,
            )  # fmt: skip
            x, added = block.mix(x, attended)
        logits = model.logits(model.last_norm(x, added))
        token, sampled, full = kernels.sample(
            logits, prompts_N=state[PROMPT], samples_N=state[SAMPLE], positions_N=length, **self.draw
        )
        self.tokens[rows, own_length] = token.clamp(min=0)  # the next step looks it up, even if it has failed
        self.logprobs[0][rows, length], self.logprobs[1][rows, length] = full, sampled
        running = status == RUNNING
        longer = length + running
        after = self.status_after[token + 1]
        after = torch.where((after == RUNNING) & (longer >= state[LIMIT]), FULL, after)
        self.state[LENGTH, rows] = longer
        self.state[STATUS, rows] = torch.where(running, after, status)

    def look(self) -> tuple[np.ndarray, np.ndarray]:
        """Lengths and status of all slots, after the steps that were launched: the host waits."""
        (found,) = Download(self.state[: STATUS + 1]).wait()
        return found[LENGTH, : self.size.slots], found[STATUS, : self.size.slots]

    def fetch(self, slots: np.ndarray, width: int) -> Download:
        """New tokens int32 [n, width] and log-probabilities float32 [2, n, width] (full, sampled) of some slots."""
        at = self._upload(slots)
        return Download(self.tokens[at, 1 : width + 1].int(), self.logprobs[:, at, :width])

    def recent(self, slots: np.ndarray, first: np.ndarray, width: int) -> np.ndarray:
        """int32 [n, width]: new tokens of some slots from each's `first` on; the host waits."""
        at = self._upload(np.stack([slots, first]))
        column = (1 + at[1][:, None] + torch.arange(width, device=self.device)).clamp(max=self.tokens.shape[1] - 1)
        return Download(self.tokens[at[0][:, None], column].int()).wait()[0]


class _Graphs:
    """One CUDA graph per width. They share memory: what a step leaves lies in tensors that were made before.

    They die with the rollout, and with them what they hold of its settings; so they keep no reference to the step.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.stream = device, torch.cuda.Stream(device)
        self.pool = torch.cuda.graph_pool_handle()
        self.graphs: dict[int, torch.cuda.CUDAGraph | None] = {}

    def run(self, width: int, step: Callable[[int], None]) -> None:
        if width not in self.graphs:
            # as it is: this compiles and loads kernels, which a capture must not do
            step(width)
            self.graphs[width] = None
            return
        graph = self.graphs[width]
        if graph is None:
            graph = self.graphs[width] = self._captured(width, step)
        graph.replay()

    def _captured(self, width: int, step: Callable[[int], None]) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self.stream):
            # thread_local: other threads may go on using CUDA
            graph.capture_begin(pool=self.pool, capture_error_mode="thread_local")
            try:
                step(width)
            finally:
                graph.capture_end()
        torch.cuda.current_stream(self.device).wait_stream(self.stream)
        return graph


def kv_bytes(config: ModelConfig, tokens: int, dtype: torch.dtype) -> int:
    """Bytes of the keys and values of `tokens` tokens."""
    return 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * tokens * dtype.itemsize


def _row_bytes(config: ModelConfig, dtype: torch.dtype) -> int:
    """Bytes that a pass over the model holds for a token at most, without logits."""
    heads = config.num_attention_heads + 2 * config.num_key_value_heads
    width = 6 * config.hidden_size + 4 * heads * config.head_dim + 3 * config.intermediate_size
    return width * dtype.itemsize + 4 * config.num_attention_heads * config.head_dim


def slot_bytes(config: ModelConfig, capacity: int, dtype: torch.dtype) -> int:
    """Bytes of a slot for `capacity` new tokens, and of its row in a step."""
    own = kv_bytes(config, capacity + 1, dtype) + 16 * (capacity + 2)
    return own + _row_bytes(config, dtype) + 3 * config.vocab_size * dtype.itemsize


def size_within(
    budget: float, config: ModelConfig, dtype: torch.dtype, *, prompts: int, n: int, longest: int, capacity: int,
    most: int | None,
) -> Size | None:  # fmt: skip
    """The most slots that fit into `budget` bytes, with prefixes to fill them; None if not even one does.

    n samples of a prompt of which each ends with equal chance at every token occupy their prefix for H_n = 1 + 1/2 +
    ... + 1/n times as long as one of them takes. A quarter more lets prompts be computed ahead, many in a pass.

    Args:
        prompts: in all, of n samples each; longest: tokens of the longest; capacity: most new tokens.
        most: slots at most; None for no other limit than memory and samples.
    """
    of_slot, of_prefix = slot_bytes(config, capacity, dtype), kv_bytes(config, max(1, longest - 1), dtype)
    share = (float((1 / np.arange(1, n + 1)).sum()) + 0.25) / n
    # slot N and prefix S, and a prefix that rounding adds
    budget -= of_slot + 2 * of_prefix
    fit = max(int(budget // (of_slot + share * of_prefix)), int((budget - (prompts - 1) * of_prefix) // of_slot))
    slots = min(fit, prompts * n, most or fit)
    if slots < 1:
        return None
    return Size(slots, min(prompts, int(share * slots) + 1), longest, capacity)


def free_bytes(config: ModelConfig, dtype: torch.dtype, device: torch.device) -> float:
    """What may be taken of a GPU: nine tenths of its free memory, without the activations of prompts."""
    free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return 0.9 * free - PREFILL_TOKENS * _row_bytes(config, dtype)
