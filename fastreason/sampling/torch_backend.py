"""Decoding with torch, any dtype and device: keys and values in tensors of fixed shapes, one step for all sequences.

A *prefix slot* holds a copy of one prompt's keys and values for G sequences, which attend to it in one matrix product.
Sequences of a prefix slot may have different lengths. Slots in use are moved to the front, and steps run on the first
1, 2, 4, ... of them; lengths are rounded up to multiples of 32. So there are few shapes, and every number that changes
from step to step is in a tensor on the device.

Letters: S prefix slots of up to L prompt tokens, N = S * G sequences, K key-value heads, D head dim, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .. import kernels
from ..kernels.segments import Segments
from ..model.decoder import Decoder

_ROOM = 32  # space for tokens is allocated in multiples of this


@dataclass(frozen=True)
class KVCache:
    """Keys and values of N sequences being decoded: shared prefixes, and the tokens of each sequence.

    Args:
        prefix: per layer (keys, values) [S, K, L, D].
        prefix_length_S: int64, at least 1.
        own: per layer (keys, values) [N, K, capacity for new tokens, D].
        own_length_N: int64, number of tokens so far.
    """

    prefix: list[tuple[Tensor, Tensor]]
    prefix_length_S: Tensor
    own: list[tuple[Tensor, Tensor]]
    own_length_N: Tensor


def decode_step(model: Decoder, tokens_N: Tensor, cache: KVCache) -> Tensor:
    """Hidden states of one new token for every sequence: [N, hidden_size].

    Its keys and values are appended to `cache.own`; the caller increments the lengths.
    """
    length_N, added = cache.own_length_N, None
    x = model.embedding(tokens_N)
    positions_N = cache.prefix_length_S.repeat_interleave(len(tokens_N) // len(cache.prefix_length_S)) + length_N
    cos, sin = model.rope_angles(positions_N, x)
    row_N = torch.arange(len(tokens_N), device=x.device)
    for block, (prefix_k, prefix_v), (own_k, own_v) in zip(model.blocks, cache.prefix, cache.own, strict=True):
        (q, k, v), x = block.project(x, added, cos, sin)
        own_k[row_N, :, length_N], own_v[row_N, :, length_N] = k, v
        attended = kernels.decode_attention(
            q,
            prefix_k,
            prefix_v,
            None,
            own_k,
            own_v,
            prefix_length_P=cache.prefix_length_S,
            own_length_N=length_N + 1,
        )
        x, added = block.mix(x, attended)
    return model.last_norm(x, added)


class TorchDecoding:
    """Prompts and sequences of one rollout. Sequence slot i belongs to prefix slot i // group.

    Args:
        model: of any dtype and device.
        slots: N, a multiple of group.
        group: G, sequences per prefix slot.
        prompt_room: tokens of the longest prompt.
        capacity: maximum number of new tokens of a sequence.
    """

    def __init__(self, model: Decoder, slots: int, group: int, prompt_room: int, capacity: int) -> None:
        self.model, self.group, self.num_prefixes = model, group, slots // group
        self.device = model.embedding.weight.device
        config = model.config
        prompt_room, capacity = (-(-x // _ROOM) * _ROOM for x in (prompt_room, capacity))

        def layers(count: int, room: int) -> list[tuple[Tensor, Tensor]]:
            shape = (count, config.num_key_value_heads, room, config.head_dim)
            return [
                (model.embedding.weight.new_zeros(shape), model.embedding.weight.new_zeros(shape)) for _ in model.blocks
            ]

        self.prefix, self.own = layers(self.num_prefixes, prompt_room), layers(slots, capacity)
        self.prefix_length = torch.ones(self.num_prefixes, dtype=torch.int64, device=self.device)
        self.row_of = np.arange(self.num_prefixes)  # the row of each prefix slot in the tensors
        self.prompts: dict[int, list[tuple[Tensor, Tensor]]] = {}
        self.next_prompt = 0

    @staticmethod
    def kv_bytes(model: Decoder, tokens: int, dtype: torch.dtype) -> int:
        """Bytes of the keys and values of `tokens` tokens."""
        config = model.config
        width = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim
        return -(-tokens // _ROOM) * _ROOM * width * dtype.itemsize

    def prefill(self, tokens: np.ndarray, offsets: np.ndarray) -> tuple[list[int], Tensor]:
        """Assigns numbers to the prompts; returns them and the logits [P, V] after each prompt."""
        segments = Segments.from_lengths(np.diff(offsets).tolist())
        hidden, keys_values = self.model.prefill(torch.from_numpy(tokens).long().to(self.device), segments)
        numbers = list(range(self.next_prompt, self.next_prompt + len(offsets) - 1))
        self.next_prompt += len(numbers)
        for number, begin, end in zip(numbers, offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
            self.prompts[number] = [
                (k[begin:end].transpose(0, 1).contiguous(), v[begin:end].transpose(0, 1).contiguous())
                for k, v in keys_values
            ]
        last = (segments.start + segments.length - 1).to(self.device)
        return numbers, self.model.logits(hidden[last])

    def release(self, prompt: int) -> None:
        del self.prompts[prompt]

    def load(self, prefix_slot: int, prompt: int) -> None:
        """Copies a prompt into a prefix slot whose sequences have all ended."""
        row = int(self.row_of[prefix_slot])
        for (k, v), (prompt_k, prompt_v) in zip(self.prefix, self.prompts[prompt], strict=True):
            length = prompt_k.shape[1]
            k[row, :, :length], v[row, :, :length] = prompt_k, prompt_v
            self.prefix_length[row] = length

    def decode(self, slots: np.ndarray, prompts: np.ndarray, lengths: np.ndarray, tokens: np.ndarray) -> Tensor:
        """Logits [n, V] after one more token for each of the sequences `slots`, which have `lengths` tokens so far."""
        width = self._gather(np.unique(slots // self.group))
        rows = self.row_of[slots // self.group] * self.group + slots % self.group
        tokens_N, lengths_N = (torch.zeros(width * self.group, dtype=torch.int64) for _ in range(2))
        tokens_N[rows], lengths_N[rows] = torch.from_numpy(tokens).long(), torch.from_numpy(lengths)
        room = min(-(-(int(lengths.max()) + 1) // _ROOM) * _ROOM, self.own[0][0].shape[2])
        cache = KVCache(
            [(k[:width], v[:width]) for k, v in self.prefix],
            self.prefix_length[:width],
            [(k[: width * self.group, :, :room], v[: width * self.group, :, :room]) for k, v in self.own],
            lengths_N.to(self.device),
        )
        hidden = decode_step(self.model, tokens_N.to(self.device), cache)
        return self.model.logits(hidden[torch.from_numpy(rows).to(self.device)])

    def _gather(self, active: np.ndarray) -> int:
        """Moves the prefix slots in use to the first 1, 2, 4, ... rows, as few as hold them; returns that number."""
        width = min(1 << (len(active) - 1).bit_length(), self.num_prefixes)
        outside = active[self.row_of[active] >= width]
        if len(outside):
            free = np.setdiff1d(np.arange(width), self.row_of[active])[: len(outside)]
            source, target = (
                torch.from_numpy(self.row_of[outside]).to(self.device),
                torch.from_numpy(free).to(self.device),
            )
            self.prefix_length[target] = self.prefix_length[source]
            for tensors, group in ((self.prefix, 1), (self.own, self.group)):
                for pair in tensors:
                    for x in pair:
                        by_prefix = x.view(self.num_prefixes, group, *x.shape[1:])
                        by_prefix[target] = by_prefix[source]
            others = np.argsort(self.row_of)[free]  # the unused slots that were there
            self.row_of[others], self.row_of[outside] = self.row_of[outside], free
        return width
