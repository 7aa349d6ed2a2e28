"""Sampling from the policy itself: the weights being trained, in the same process, without a second engine.

A prompt is prefilled once and its n samples share its keys and values. Batching is continuous: a sample that ends gives
its slot to the next one immediately, from the same prompt or another. A prompt is admitted only when there is memory
for it. A draw depends only on (seed, prompt, sample, position) and the logits; in float32 on CPU the logits are
bit-identical in any batch, so a sample does not depend on the batch.

Letters: P prompts, G = n samples of each, N = P * G sequences, V vocabulary, L new tokens.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NoReturn

import numpy as np
import torch

from ..kernels import sampling_settings
from ..model.decoder import Decoder
from ..runtime.arguments import INT64_MAX, integer, integers, listed, number
from ..tasks.stream import ProblemBatch
from ..text.tokenizer import Tokenizer
from .continuous_batching import ContinuousBatch, Decoding, PromptMemory, Rows, Work
from .cpp_backend import CoreDecoder, CoreDecoding, runs_in_core
from .stop_sequences import Stopping
from .torch_backend import TorchDecoding

Stop = Sequence[int | str] | int | str | None


@dataclass(frozen=True, eq=False, repr=False)
class RolloutOutput:
    """Samples of P prompts, n each: rows p * n .. p * n + n - 1 belong to prompt p.

    Args:
        tokens: int32 [P * n, L], [PAD] after the end; the token that ended a sample is included.
        lengths: int64 [P * n], in tokens.
        logprobs: float32 [P * n, L]: log-probability of each token under softmax(logits / temperature), the old
            log-probabilities that training uses (under softmax(logits) at temperature 0); 0 after the end.
        finished: bool [P * n]: the sample reached a stop sequence, not the limit.
        prompt_tokens: int32, all prompts concatenated.
        prompt_offsets: int64 [P + 1]: prompt p is prompt_tokens[prompt_offsets[p] : prompt_offsets[p + 1]].
        sampled_logprobs: float32 [P * n, L]: under the sampling distribution, after top-k, top-p and min-p; 0 at
            temperature 0, and after the end.
        tokenizer: the tokenizer of the ids.
    """

    tokens: np.ndarray
    lengths: np.ndarray
    logprobs: np.ndarray
    finished: np.ndarray
    prompt_tokens: np.ndarray
    prompt_offsets: np.ndarray
    sampled_logprobs: np.ndarray
    tokenizer: Tokenizer | None = None

    def __len__(self) -> int:
        return len(self.lengths)

    def __repr__(self) -> str:
        prompts = len(self.prompt_offsets) - 1
        return (
            f"RolloutOutput({len(self):,} samples of {prompts:,} prompts, {self.num_new_tokens:,} new tokens, "
            f"{int(self.finished.sum()):,} finished)"
        )

    @property
    def texts(self) -> list[str]:
        """The samples as texts, each including the token that ended it. ValueError without a tokenizer."""
        if self.tokenizer is None:
            raise ValueError("RolloutOutput: texts need a tokenizer, but this output has none")
        rows = zip(self.tokens, self.lengths, strict=True)
        return [self.tokenizer.decode(row[:length]) for row, length in rows]

    @property
    def num_new_tokens(self) -> int:
        """Total number of new tokens."""
        return int(self.lengths.sum())

    @property
    def finish_reason(self) -> np.ndarray:
        """str [P * n]: "stop" or "length"."""
        return np.where(self.finished, "stop", "length")


class Rollout:
    """Samples from a model. Threads that call `generate` on one engine take turns.

    Args:
        model: each call uses its current weights, which may change between calls.
        tokenizer: encodes prompts and decodes samples; at most as many tokens as the model.
        max_sequences: maximum number of sequences decoded together.
        kv_memory_mb: memory for keys and values, in MB of 10^6 bytes. If it is too small for all of them, fewer
            sequences are decoded together and prompts wait.
        backend: "cpp" (C++, float32 on CPU), "torch" (any dtype and device), or "auto": cpp if possible.
    Raises:
        ValueError: the model has fewer tokens than the tokenizer, a limit is not positive, or the backend does not
            support the model.
    """

    def __init__(
        self,
        model: Decoder,
        tokenizer: Tokenizer,
        *,
        max_sequences: int = 512,
        kv_memory_mb: float = 2048.0,
        backend: Literal["auto", "cpp", "torch"] = "auto",
    ) -> None:
        if model.config.vocab_size < len(tokenizer):
            raise ValueError(
                f"Rollout: the tokenizer has {len(tokenizer)} tokens, but the model has only {model.config.vocab_size}"
            )
        max_sequences = integer("Rollout: max_sequences", max_sequences, 1)
        kv_memory_mb = number("Rollout: kv_memory_mb", kv_memory_mb, 0, above_low=True)
        if backend not in ("auto", "cpp", "torch"):
            raise ValueError(f'Rollout: backend must be "auto", "cpp" or "torch", got {backend!r}')
        if backend == "cpp" and not runs_in_core(model):
            weight = model.embedding.weight
            raise ValueError(f'Rollout: backend "cpp" needs float32 on CPU, got {weight.dtype} on {weight.device}')
        self.model, self.tokenizer, self.max_sequences = model, tokenizer, max_sequences
        self.kv_memory_mb, self.backend = kv_memory_mb, backend
        self._core: CoreDecoder | None = None
        self._turn = 0
        # guards the decoder; a stream takes it for one step at a time, so that a late request gets an error, not a wait
        self._lock = threading.RLock()

    def __repr__(self) -> str:
        return f"Rollout({self.model!r}, {self.tokenizer!r}, backend={self.backend!r})"

    def check_memory(self, prompt: int, max_new_tokens: int, n: float = math.inf) -> None:
        """Checks that `kv_memory_mb` holds at least one of n samples of a prompt of so many tokens, without computing.

        Raises:
            ValueError: it does not.
        """
        capacity = min(max_new_tokens, self.model.config.max_position_embeddings - prompt)
        of_slot, of_prompt = (TorchDecoding.kv_bytes(self.model, tokens) for tokens in (capacity, prompt))
        if of_slot + of_prompt + of_prompt / n > self.kv_memory_mb * 1e6:
            self._refuse_memory(prompt, capacity, of_slot + 2 * of_prompt)

    def _refuse_memory(self, prompt: int, capacity: int, wanted_bytes: float) -> NoReturn:
        raise ValueError(
            f"generate: kv_memory_mb = {self.kv_memory_mb:g} is not enough for one prompt of {prompt} tokens and "
            f"{capacity} new ones, which need {wanted_bytes / 1e6:.3g}"
        )

    def generate(
        self,
        prompts: ProblemBatch | Sequence[str],
        n: int = 1,
        *,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        stop: Stop = None,
        max_new_tokens: int = 256,
        seed: int = 0,
        prompt_ids: np.ndarray | None = None,
    ) -> RolloutOutput:
        """Draws n samples of every prompt.

        Args:
            prompts: a batch of problems, or texts.
            n: samples of each prompt.
            temperature: divides the logits; 0 always takes the most likely token.
            top_k: keep only the k most likely tokens; 0 keeps all.
            top_p: keep only the smallest set of most likely tokens with at least this probability; 1 keeps all.
            min_p: keep only tokens at least min_p times as likely as the most likely one; 0 keeps all. The filters are
                applied in this order, see `fastreason.kernels.sample`.
            stop: token ids and strings that end a sample; None: the tokenizer's ` </answer>` and [EOS].
            max_new_tokens: maximum number of new tokens; fewer if the model has fewer positions left after a prompt.
            seed: of the random draws.
            prompt_ids: int64 [P]: the prompt ids that key the random draws; default 0 .. P - 1. Pass the problems'
                indices to get the same samples of a problem in any batch.
        Returns:
            RolloutOutput with P * n samples.
        Raises:
            ValueError: a setting is out of range, a prompt is empty or too long for the model, or one sequence does
                not fit into `kv_memory_mb`.
        """
        work = self._work(prompts, n, (temperature, top_k, top_p, min_p), stop, max_new_tokens, seed, prompt_ids)
        with self._lock:
            return _joined(work, dict(self._run(work)), self.tokenizer)

    def stream(
        self,
        prompts: ProblemBatch | Sequence[str],
        n: int = 1,
        *,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        stop: Stop = None,
        max_new_tokens: int = 256,
        seed: int = 0,
        prompt_ids: np.ndarray | None = None,
    ) -> Iterator[tuple[int, RolloutOutput]]:
        """The samples of `generate`, yielded as (p, output of prompt p alone) in the order in which prompts finish.

        The engine computes on demand and serves one iterator at a time: once another `generate` or `stream` has begun,
        in any thread, the next step of this one raises a RuntimeError. Invalid arguments raise before the first sample.
        """
        work = self._work(prompts, n, (temperature, top_k, top_p, min_p), stop, max_new_tokens, seed, prompt_ids)
        return ((p, _joined(_only(work, p), {0: rows}, self.tokenizer)) for p, rows in self._run(work))

    def _work(
        self,
        prompts: ProblemBatch | Sequence[str],
        n: int,
        filters: tuple[float, int, float, float],
        stop: Stop,
        max_new_tokens: int,
        seed: int,
        prompt_ids: np.ndarray | None,
    ) -> Work:
        n = integer("generate: n", n, 1)
        max_new_tokens = integer("generate: max_new_tokens", max_new_tokens, 1)
        temperature, top_k, top_p, min_p = filters
        draw = sampling_settings("generate", seed=seed, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
        stopping = Stopping(self.tokenizer, stop, self.model.config.vocab_size)
        if isinstance(prompts, ProblemBatch):
            tokens, offsets = self.tokenizer.core.encode_prompts(prompts.core)
        else:
            tokens, offsets = self.tokenizer.core.encode_batch(listed("generate: prompts", prompts))
        limits = np.minimum(max_new_tokens, self._room(np.diff(offsets)))
        ids = np.arange(len(limits))
        if prompt_ids is not None:
            ids = integers("generate: prompt_ids", prompt_ids, -INT64_MAX)
        if ids.shape != limits.shape:
            raise ValueError(f"generate: prompt_ids must be int64 [{len(limits)}], got shape {ids.shape}")
        return Work(tokens, offsets, ids, limits, n, draw, stopping, self.tokenizer.pad_id)

    def _room(self, prompt_lengths: np.ndarray) -> np.ndarray:
        """How many positions the model has left after each prompt."""
        if len(prompt_lengths) == 0 or prompt_lengths.min() == 0:
            raise ValueError("generate: prompts must be at least one text, none of them empty")
        positions, longest = self.model.config.max_position_embeddings, int(prompt_lengths.max())
        if longest >= positions:
            raise ValueError(
                f"generate: prompt {int(prompt_lengths.argmax())} has {longest} tokens, which leaves none of the "
                f"model's {positions} positions for new tokens"
            )
        return positions - prompt_lengths

    def _run(self, work: Work) -> Iterator[tuple[int, Rows]]:
        """Releases the lock and leaves inference mode whenever control returns to the consumer."""
        with self._lock:
            self._turn += 1
            turn, slots = self._turn, ContinuousBatch(work, *self._decoding(work))
        while not slots.done:
            with self._lock, torch.inference_mode():
                if turn != self._turn:
                    raise RuntimeError("Rollout: another generate or stream began before this stream ended")
                finished = slots.step()
            yield from finished

    def _decoding(self, work: Work) -> tuple[Decoding, int, PromptMemory]:
        """The decoding backend, the number of slots, and the memory left for prompts."""
        in_core = runs_in_core(self.model) if self.backend == "auto" else self.backend == "cpp"
        if in_core:
            self._core = self._core or CoreDecoder(self.model)
            self._core.load()
        capacity, longest = int(work.limits.max()), int(work.prompt_lengths.max())

        def kv_bytes(tokens: int) -> int:
            if in_core:
                assert self._core is not None
                return CoreDecoding.kv_bytes(self._core, tokens)
            return TorchDecoding.kv_bytes(self.model, tokens)

        # torch keeps a prompt twice, and a copy for each `group` sequences
        group = 1 if in_core else min(work.n, 16, self.max_sequences)
        of_slot = kv_bytes(capacity) + (0 if in_core else kv_bytes(longest) / group)
        of_prompt = kv_bytes(longest)
        budget = self.kv_memory_mb * 1e6
        # as many slots as fit together with their prompts
        fit = int((budget - of_prompt) // (of_slot + of_prompt / work.n))
        slots = min(fit, self.max_sequences, len(work.limits) * -(-work.n // group) * group)
        group = max(1, min(group, slots))
        slots -= slots % group
        if slots < 1:
            self._refuse_memory(longest, capacity, of_slot + 2 * of_prompt)
        memory = PromptMemory(budget - slots * of_slot, kv_bytes)
        if in_core:
            assert self._core is not None
            return CoreDecoding(self._core, slots, capacity), slots, memory
        return TorchDecoding(self.model, slots, group, longest, capacity), slots, memory


def _joined(work: Work, rows: dict[int, Rows], tokenizer: Tokenizer) -> RolloutOutput:
    """The samples of all prompts in order, trimmed to the longest."""
    P, n = len(work.limits), work.n
    width = max(int(rows[p].lengths.max()) for p in range(P))
    joined = Rows.empty(P * n, width, work.pad)
    for p in range(P):
        joined.put(slice(p * n, (p + 1) * n), rows[p], slice(None))
    return RolloutOutput(
        joined.tokens,
        joined.lengths,
        joined.logprobs,
        joined.finished,
        work.tokens,
        work.offsets,
        joined.sampled_logprobs,
        tokenizer,
    )


def _only(work: Work, p: int) -> Work:
    """The part of one prompt."""
    tokens, one = work.prompt(p), slice(p, p + 1)
    return replace(work, tokens=tokens, offsets=np.array([0, len(tokens)]), ids=work.ids[one], limits=work.limits[one])
