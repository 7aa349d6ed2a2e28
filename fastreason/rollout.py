"""Sampling from the policy itself: the same weights and operations that training uses, no second engine.

Prompts are prefilled once and shared by their n samples. Sequences of similar prompt length decode together; prompts
whose samples have all finished leave the batch. A draw is a function of (seed, prompt, sample, position) alone, so a
sample does not depend on what else is in the batch.

Letters: P prompts, G = n samples of each, N = P * G sequences, V vocabulary, L new tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from . import _core
from .kernels.segments import Rows, Segments
from .kv_cache import KVCache, decode_step
from .model import Decoder
from .tasks import ProblemBatch
from .tokenizer import Tokenizer


@dataclass(frozen=True, eq=False)
class RolloutOutput:
    """Samples of P prompts, n each: rows p * n .. p * n + n - 1 belong to prompt p.

    Args:
        tokens: int32 [P * n, L], [PAD] behind the end; the stop token is included.
        lengths: int64 [P * n].
        logprobs: float32 [P * n, L]: log-probability of each token under the sampling distribution, 0 behind the end.
        finished: bool [P * n]: the stop token was reached, not the limit.
        prompt_tokens: int32, all prompts in a row, and prompt_offsets: int64 [P + 1].
    """

    tokens: np.ndarray
    lengths: np.ndarray
    logprobs: np.ndarray
    finished: np.ndarray
    prompt_tokens: np.ndarray
    prompt_offsets: np.ndarray

    @property
    def num_new_tokens(self) -> int:
        return int(self.lengths.sum())


class Rollout:
    """Generates with a model and its tokenizer.

    Args:
        model: used as it is at each call; its weights may change between calls.
        tokenizer: of the prompts; generation stops at its ` </answer>` or [EOS].
        max_sequences: most sequences that decode together.
    """

    def __init__(self, model: Decoder, tokenizer: Tokenizer, *, max_sequences: int = 512) -> None:
        if model.config.vocab_size < len(tokenizer):
            raise ValueError(
                f"Rollout: the tokenizer has {len(tokenizer)} tokens, the model only {model.config.vocab_size}"
            )
        self.model, self.tokenizer, self.max_sequences = model, tokenizer, max_sequences

    @torch.inference_mode()
    def generate(
        self,
        prompts: ProblemBatch | Sequence[str],
        n: int = 1,
        *,
        temperature: float = 1.0,
        max_new_tokens: int = 256,
        seed: int = 0,
        prompt_ids: np.ndarray | None = None,
    ) -> RolloutOutput:
        """n samples of every prompt.

        Args:
            prompts: a batch of problems, or texts.
            n: samples of each prompt.
            temperature: of the softmax; 0 takes the most likely token.
            max_new_tokens: limit of the new tokens; at most what the model's positions leave.
            seed: of the draws.
            prompt_ids: int64 [P]: what stands for the prompt in the draws; default 0 .. P - 1. Give the problem's
                index to get the same samples whatever batch it is in.
        """
        if n < 1 or max_new_tokens < 1 or temperature < 0:
            raise ValueError(
                f"generate: need n >= 1, max_new_tokens >= 1 and temperature >= 0, "
                f"got {n}, {max_new_tokens} and {temperature}"
            )
        if isinstance(prompts, ProblemBatch):
            tokens, offsets = self.tokenizer.core.encode_prompts(prompts.core)
        else:
            tokens, offsets = self.tokenizer.core.encode_batch(list(prompts))
        limit = min(max_new_tokens, self._room(np.diff(offsets)))
        ids = np.arange(len(offsets) - 1) if prompt_ids is None else np.asarray(prompt_ids, dtype=np.int64)
        return self._generate_all(tokens, offsets, n, limit, _Draws(seed, ids, temperature))

    def _room(self, prompt_lengths: np.ndarray) -> int:
        """How many new tokens the model's positions leave."""
        if len(prompt_lengths) == 0 or prompt_lengths.min() == 0:
            raise ValueError("generate: needs at least one prompt, and no empty one")
        positions, longest = self.model.config.max_position_embeddings, int(prompt_lengths.max())
        if longest >= positions:
            raise ValueError(f"generate: a prompt of {longest} tokens leaves no room in {positions} positions")
        return positions - longest

    def _generate_all(
        self, tokens: np.ndarray, offsets: np.ndarray, n: int, limit: int, draws: _Draws
    ) -> RolloutOutput:
        """Chunks of prompts of similar length, put back in the order of the prompts."""
        prompt_lengths = np.diff(offsets)
        P = len(prompt_lengths)
        new_tokens = np.full((P, n, limit), self.tokenizer.pad_id, dtype=np.int32)
        logprobs = np.zeros((P, n, limit), dtype=np.float32)
        new_lengths = np.zeros((P, n), dtype=np.int64)
        order = np.argsort(prompt_lengths, kind="stable")
        per_chunk = max(1, self.max_sequences // n)
        for begin in range(0, P, per_chunk):
            chunk = order[begin : begin + per_chunk]
            flat = np.concatenate([tokens[offsets[p] : offsets[p + 1]] for p in chunk])
            new, logprob, length = self._generate_chunk(flat, prompt_lengths[chunk], n, limit, draws.of(chunk, n))
            new_tokens[chunk, :, : new.shape[1]] = new.reshape(len(chunk), n, -1)
            logprobs[chunk, :, : new.shape[1]] = logprob.reshape(len(chunk), n, -1)
            new_lengths[chunk] = length.reshape(len(chunk), n)
        width, flat_lengths = int(new_lengths.max()), new_lengths.reshape(-1)
        flat_tokens = new_tokens.reshape(P * n, limit)[:, :width]
        last = flat_tokens[np.arange(P * n), flat_lengths - 1]
        return RolloutOutput(
            flat_tokens,
            flat_lengths,
            logprobs.reshape(P * n, limit)[:, :width],
            np.isin(last, self._stop_ids),
            tokens,
            offsets,
        )

    @property
    def _stop_ids(self) -> list[int]:
        return [self.tokenizer.answer_close_id, self.tokenizer.eos_id]

    def _generate_chunk(
        self, prompt_tokens: np.ndarray, prompt_lengths: np.ndarray, n: int, limit: int, draws: _Draws
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Tokens and log-probabilities [N, steps] and lengths [N] of prompts sorted by length."""
        num_sequences = len(prompt_lengths) * n
        tokens = np.full((limit, num_sequences), self.tokenizer.pad_id, dtype=np.int32)
        logprobs = np.zeros((limit, num_sequences), dtype=np.float32)
        lengths = np.zeros(num_sequences, dtype=np.int64)
        segments = Segments.from_lengths(torch.from_numpy(prompt_lengths))
        hidden, cache = self._prefill(torch.from_numpy(prompt_tokens).long(), segments, n, limit)
        alive = np.ones(num_sequences, dtype=bool)  # by sequence of the chunk
        active = np.arange(num_sequences)  # the sequences that are still in the batch
        step = 0
        for step in range(limit):
            chosen, logprob = draws.sample(self.model.logits(hidden), active, step)
            ids = chosen.numpy()
            going = alive[active]
            tokens[step, active[going]] = ids[going]
            logprobs[step, active[going]] = logprob.numpy()[going]
            lengths[active[going]] += 1
            alive[active] = going & ~np.isin(ids, self._stop_ids)
            if not alive.any() or step + 1 == limit:
                break
            group_alive = alive[active].reshape(-1, n).any(1)
            if group_alive.mean() <= 0.75:  # dropping finished prompts costs a copy of the cache
                keep = torch.from_numpy(np.nonzero(group_alive)[0])
                cache = _keep_groups(cache, keep, n)
                members = np.repeat(group_alive, n)
                active, chosen = active[members], chosen[torch.from_numpy(members)]
            hidden = decode_step(self.model, chosen, cache)
        return tokens[: step + 1].T, logprobs[: step + 1].T, lengths

    def _prefill(self, tokens: Tensor, segments: Segments, n: int, limit: int) -> tuple[Tensor, KVCache]:
        """The hidden state behind each prompt, once for every sample [N, hidden], and the cache to go on from."""
        hidden, keys_values = self.model.prefill(tokens, segments)
        rows, (rectangle,) = Rows.build(segments, [torch.arange(len(segments.length))])

        def padded(x: Tensor) -> Tensor:
            x = x[rows.token_of_row].unflatten(0, (rectangle.count, rectangle.length))
            return x.transpose(1, 2).contiguous()

        prefix = [(padded(k), padded(v)) for k, v in keys_values]
        num_kv_heads, head_dim = keys_values[0][0].shape[1:]
        shape = (len(segments.length) * n, num_kv_heads, limit, head_dim)
        own = [(hidden.new_empty(shape), hidden.new_empty(shape)) for _ in keys_values]
        last = hidden[segments.start + segments.length - 1]
        return last.repeat_interleave(n, 0), KVCache(prefix, rectangle.padding, segments.length, own)


def _keep_groups(cache: KVCache, keep: Tensor, n: int) -> KVCache:
    """The cache of the prompts `keep` [P'] and their samples."""
    members = (keep[:, None] * n + torch.arange(n)).flatten()

    def own(x: Tensor) -> Tensor:
        kept = x.new_empty(len(members), *x.shape[1:])
        kept[:, :, : cache.length] = x[members, :, : cache.length]
        return kept

    return KVCache(
        [(k[keep], v[keep]) for k, v in cache.prefix],
        None if cache.prefix_padding is None else cache.prefix_padding[keep],
        cache.prefix_length[keep],
        [(own(k), own(v)) for k, v in cache.own],
        cache.length,
    )


@dataclass(frozen=True)
class _Draws:
    """Counter-based draws: what sequence i gets at a position depends on its prompt and sample numbers alone."""

    seed: int
    prompts: np.ndarray
    temperature: float
    samples: np.ndarray | None = None

    def of(self, chunk: np.ndarray, n: int) -> _Draws:
        """The draws of the prompts `chunk`, n sequences each."""
        return _Draws(self.seed, self.prompts[chunk].repeat(n), self.temperature, np.tile(np.arange(n), len(chunk)))

    def sample(self, logits_NV: Tensor, active: np.ndarray, position: int) -> tuple[Tensor, Tensor]:
        """One token for every active sequence, by inversion of the cumulative distribution, and its log-probability."""
        if self.temperature == 0:
            chosen = logits_NV.argmax(-1)
            return chosen, torch.zeros(len(chosen))
        logprobs = (logits_NV.float() / self.temperature).log_softmax(-1)
        cumulative = logprobs.exp().cumsum(-1)
        assert self.samples is not None
        positions = np.full(len(active), position)
        uniform = torch.from_numpy(_core.uniform(self.seed, self.prompts[active], self.samples[active], positions))
        chosen = torch.searchsorted(cumulative, (uniform * cumulative[:, -1])[:, None]).squeeze(1)
        chosen = chosen.clamp(max=logits_NV.shape[1] - 1)
        return chosen, logprobs.gather(1, chosen[:, None]).squeeze(1)
