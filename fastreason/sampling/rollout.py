"""Sampling from the policy itself: the weights being trained, in the same process, without a second engine.

A prompt is prefilled once and its n samples share its keys and values. Batching is continuous: a sample that ends gives
its slot to the next one, from the same prompt or another. A prompt is admitted only when there is memory for it. A draw
depends only on (seed, prompt, sample, position) and the logits; in float32 and bfloat16 on CPU the logits are
bit-identical in any batch, so a sample does not depend on the batch.

Letters: P prompts, G = n samples of each, N = P * G sequences, V vocabulary, L new tokens.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NoReturn, get_args

import numpy as np
import torch

from ..kernels import sampling_settings
from ..model.config import ModelConfig
from ..model.decoder import Decoder
from ..model.precision import CopyInDtype, Precision, product_dtype
from ..runtime.arguments import INT64_MAX, instance, integer, integers, number, texts
from ..tasks.stream import ProblemBatch
from ..text.tokenizer import Tokenizer
from .continuous_batching import ContinuousBatch, PromptMemory, Rows, Work
from .cpp_backend import CoreDecoder, CoreDecoding, runs_in_core
from .device_batching import DeviceBatch
from .device_decoding import DeviceDecoding, Size, free_bytes, kv_bytes, size_within, slot_bytes
from .stop_sequences import Stopping

Stop = Sequence[int | str] | int | str | None

# where a limit is not given and the device does not set one
_CPU_KV_MEMORY_MB = 2048.0
_CPU_SEQUENCES = 512


def kv_budget(kv_memory_mb: float | None, config: ModelConfig, dtype: torch.dtype, device: torch.device) -> float:
    """Bytes for keys and values on a device; without `kv_memory_mb`, what is free on a GPU."""
    if kv_memory_mb is not None:
        return kv_memory_mb * 1e6
    return free_bytes(config, dtype, device) if device.type == "cuda" else _CPU_KV_MEMORY_MB * 1e6


def sequences_within(
    budget: float, config: ModelConfig, dtype: torch.dtype, device: torch.device, *, prompts: int, n: int, longest: int,
    capacity: int, most: int | None = None,
) -> Size | None:  # fmt: skip
    """`size_within` with the limit of the device where `most` does not give one."""
    return size_within(
        budget, config, dtype, prompts=prompts, n=n, longest=longest, capacity=capacity,
        most=most or (None if device.type == "cuda" else _CPU_SEQUENCES),
    )  # fmt: skip


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
        max_sequences: maximum number of sequences decoded together; None: 512 on CPU, on a GPU as many as fit.
        kv_memory_mb: memory for keys and values, in MB of 10^6 bytes; None: 2048 on CPU, on a GPU nine tenths of what
            is free at each call. If it is too small for all of them, fewer sequences are decoded together and prompts
            wait.
        backend: "cpp" (C++, float32 or bfloat16 on CPU), "torch" (any dtype and device), or "auto": cpp if possible.
        precision: of matrix products, keys and values, for a model with float32 weights: "float32", "bfloat16", or
            "auto": bfloat16 on a GPU. In bfloat16 each call rounds a copy of the current weights.
    Raises:
        ValueError: the model has fewer tokens than the tokenizer, a limit is not positive, or the backend does not
            support the model.
    """

    def __init__(
        self,
        model: Decoder,
        tokenizer: Tokenizer,
        *,
        max_sequences: int | None = None,
        kv_memory_mb: float | None = None,
        backend: Literal["auto", "cpp", "torch"] = "auto",
        precision: Precision = "auto",
    ) -> None:
        instance("Rollout: model", model, Decoder)
        instance("Rollout: tokenizer", tokenizer, Tokenizer)
        if model.config.vocab_size < len(tokenizer):
            raise ValueError(
                f"Rollout: the tokenizer has {len(tokenizer)} tokens, but the model has only {model.config.vocab_size}"
            )
        if max_sequences is not None:
            max_sequences = integer("Rollout: max_sequences", max_sequences, 1)
        if kv_memory_mb is not None:
            kv_memory_mb = number("Rollout: kv_memory_mb", kv_memory_mb, 0, above_low=True)
        if backend not in ("auto", "cpp", "torch"):
            raise ValueError(f'Rollout: backend must be "auto", "cpp" or "torch", got {backend!r}')
        if precision not in get_args(Precision):
            raise ValueError(f"Rollout: precision must be one of {', '.join(get_args(Precision))}, got {precision!r}")
        weight = model.embedding.weight
        dtype = product_dtype(precision, weight)
        if backend == "cpp" and not runs_in_core(model, dtype):
            raise ValueError(f'Rollout: backend "cpp" needs float32 or bfloat16 on CPU, got {dtype} on {weight.device}')
        self.model, self.tokenizer, self.max_sequences = model, tokenizer, max_sequences
        self.dtype = dtype
        self.kv_memory_mb, self.backend = kv_memory_mb, backend
        self._core: CoreDecoder | None = None
        self._copy: CopyInDtype | None = None  # for torch
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
        config = self.model.config
        capacity = min(max_new_tokens, config.max_position_embeddings - prompt)
        of_slot, of_prompt = (kv_bytes(config, tokens, self.dtype) for tokens in (capacity, prompt))
        if of_slot + of_prompt + of_prompt / n > self._budget():
            self._refuse_memory(prompt, capacity, of_slot + 2 * of_prompt)

    def _budget(self) -> float:
        """Bytes for keys and values."""
        return kv_budget(self.kv_memory_mb, self.model.config, self.dtype, self.model.embedding.weight.device)

    def _refuse_memory(self, prompt: int, capacity: int, wanted_bytes: float) -> NoReturn:
        raise ValueError(
            f"generate: kv_memory_mb = {self._budget() / 1e6:g} is not enough for one prompt of {prompt} tokens and "
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
            tokens, offsets = self.tokenizer.core.encode_batch(texts("generate: prompts", prompts))
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
        with self._lock, torch.inference_mode():
            self._turn += 1
            turn, batch = self._turn, self._batch(work)
        while not batch.done:
            with self._lock, torch.inference_mode():
                if turn != self._turn:
                    raise RuntimeError("Rollout: another generate or stream began before this stream ended")
                finished = batch.step()
            yield from finished

    def _batch(self, work: Work) -> ContinuousBatch | DeviceBatch:
        if runs_in_core(self.model, self.dtype) if self.backend == "auto" else self.backend == "cpp":
            return self._in_core(work)
        model = self.model
        if self.dtype != model.embedding.weight.dtype:
            self._copy = self._copy or CopyInDtype(model, self.dtype)
            model = self._copy.refresh()
        size = self._size(work, model)
        return DeviceBatch(work, DeviceDecoding(model, size, work.draw, work.stopping.ids))

    def _size(self, work: Work, model: Decoder) -> Size:
        """Slots and prefixes on the model's device."""
        capacity, longest = int(work.limits.max()), int(work.prompt_lengths.max())
        size = sequences_within(
            self._budget(), model.config, self.dtype, model.embedding.weight.device, prompts=len(work.limits), n=work.n,
            longest=longest, capacity=capacity, most=self.max_sequences,
        )  # fmt: skip
        if size is None:
            of_slot, of_prompt = (
                slot_bytes(model.config, capacity, self.dtype),
                kv_bytes(model.config, longest, self.dtype),
            )
            self._refuse_memory(longest, capacity, 2 * (of_slot + of_prompt))
        return size

    def _in_core(self, work: Work) -> ContinuousBatch:
        """In C++, with as many slots as fit together with their prompts."""
        self._core = core = self._core or CoreDecoder(self.model, dtype=self.dtype)
        core.load()
        capacity, longest = int(work.limits.max()), int(work.prompt_lengths.max())
        of_slot, of_prompt = (CoreDecoding.kv_bytes(core, tokens) for tokens in (capacity, longest))
        budget = self._budget()
        fit = int((budget - of_prompt) // (of_slot + of_prompt / work.n))
        slots = min(fit, self.max_sequences or _CPU_SEQUENCES, len(work.limits) * work.n)
        if slots < 1:
            self._refuse_memory(longest, capacity, of_slot + 2 * of_prompt)
        memory = PromptMemory(budget - slots * of_slot, lambda tokens: CoreDecoding.kv_bytes(core, tokens))
        return ContinuousBatch(work, CoreDecoding(core, slots, capacity), slots, memory)


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
