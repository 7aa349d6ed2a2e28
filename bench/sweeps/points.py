"""What the scaling plots measure: a function a sweep that yields its points, each with one call of work."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import torch
import torch.nn.functional as F

import fastreason as fr
from fastreason import kernels
from fastreason.kernels import Segments
from fastreason.model.flop import forward_flop, train_flop
from fastreason.training.optimizer import Optimizer, OptimSettings

from ..harness.records import OURS, Shape

__all__ = ["MODELS", "SWEEPS", "Point"]


@dataclass(frozen=True)
class Point:
    """One point of one line.

    Args:
        what, provider, shape, unit, clock: of the record; `what` is the line, `shape` the place on it.
        start: builds what is needed; the work it returns says how many units it did.
        flop_per_unit: of matrix products that a unit needs; None where nothing is multiplied.
        threads: of torch.
    """

    what: str
    shape: Shape
    unit: str
    start: Callable[[], Callable[[], float]]
    provider: str = OURS
    flop_per_unit: float | None = None
    clock: str = "cpu"
    threads: int = 1


# the two presets and steps between them: the fields of ModelConfig from hidden_size to intermediate_size
_BETWEEN = {"0.6m": (128, 3, 4, 2, 320), "3m": (192, 6, 3, 1, 640)}
MODELS = ("tiny", *_BETWEEN, "10m")
PROMPT = 64


@cache
def model_of(name: str) -> fr.Decoder:
    if name in _BETWEEN:
        config = fr.ModelConfig(1000, *_BETWEEN[name])
    else:
        config = fr.ModelConfig.preset(name, max_position_embeddings=2048)
    model = fr.Decoder(config)
    model.reset_parameters(0)
    return model


@cache
def stream_of(op: int) -> fr.TaskStream:
    return fr.TaskStream(fr.Mixture.uniform(op=[op], themes=["zoo"]), seed=0)


def by_op(quick: bool) -> Iterator[Point]:
    """Problems drawn as text, and verdicts of right completions, 16 of each problem."""
    for op in (2, 8, 20) if quick else (2, 4, 6, 8, 10, 12, 14, 16, 18, 20):
        count = 20 if quick else 40_000 // (op + 4)
        characters = round(float(np.mean([len(text) for text in stream_of(op)[0:200].documents])))
        shape: Shape = {"op": op, "characters": characters}
        yield Point("problems drawn as text", shape, "problems", partial(_drawing, op, count))
        yield Point("verdicts, groups of 16", shape, "verdicts", partial(_grading, op, max(count // 16, 1)))


def _drawing(op: int, count: int, threads: int = 1) -> Callable[[], float]:
    indices = np.arange(count)
    return lambda: float(len(stream_of(op).batch(indices, threads=threads)))


def _grading(op: int, count: int, threads: int = 1) -> Callable[[], float]:
    batch = stream_of(op)[0:count]
    pairs = zip(batch.documents, batch.prompts, strict=True)
    texts = [document.removeprefix(prompt).removesuffix("[EOS]") for document, prompt in pairs for _ in range(16)]
    return lambda: float(len(fr.grade(batch, texts, threads=threads)))


def by_context(quick: bool) -> Iterator[Point]:
    """Forward and backward of attention as in 10m, and whole training steps, the same tokens in longer sequences."""
    lengths = (32, 64) if quick else (64, 128, 256, 512, 1024, 2048)
    tokens = lengths[-1]
    for length in lengths:
        shape: Shape = {"length": length}
        # 5 heads of 64: forward and backward, causal
        flop = 3 * 4 * 5 * 64 * (length + 1) / 2
        for provider, start in ((OURS, _attention), ("torch SDPA", _torch_attention)):
            yield Point("attention", shape, "tokens", partial(start, length, tokens), provider, flop)
    for name in ("tiny", "10m"):
        for length in lengths:
            yield _training(name, length, tokens if name == "10m" else 2 * tokens)


def _attention(length: int, tokens: int) -> Callable[[], float]:
    q, k, v = (torch.randn(tokens, heads, 64, requires_grad=True) for heads in (5, 1, 1))
    lengths = [length] * (tokens // length)

    def work() -> float:
        kernels.attention(q, k, v, Segments.from_lengths(lengths)).sum().backward()
        return float(tokens)

    return work


def _torch_attention(length: int, tokens: int) -> Callable[[], float]:
    """Keys and values repeated for every query head, as transformers does for SDPA."""
    q, k, v = (torch.randn(tokens // length, heads, length, 64, requires_grad=True) for heads in (5, 1, 1))

    def work() -> float:
        keys, values = (x.expand(-1, 5, -1, -1) for x in (k, v))
        F.scaled_dot_product_attention(q, keys, values, is_causal=True).sum().backward()
        return float(tokens)

    return work


def _training(name: str, length: int, tokens: int, threads: int = 1, clock: str = "cpu") -> Point:
    lengths = np.full(tokens // length, length)
    model = model_of(name)
    shape: Shape = {"model": name, "parameters": model.num_parameters, "length": length}
    return Point(
        "training step", shape | ({"threads": threads} if clock == "wall" else {}), "tokens",
        partial(_training_step, name, lengths), flop_per_unit=train_flop(model.config, lengths) / tokens,
        clock=clock, threads=threads,
    )  # fmt: skip


def _training_step(name: str, lengths: np.ndarray) -> Callable[[], float]:
    """Loss of every token, gradients, AdamW."""
    model = model_of(name)
    settings = OptimSettings(matrices="adamw", matrix_lr=1e-5, lr=1e-5)
    optimizer = Optimizer(model, settings)
    tokens_T = torch.randint(model.config.vocab_size, (int(lengths.sum()),), generator=torch.Generator().manual_seed(0))

    def step() -> float:
        hidden = model(tokens_T, Segments.from_lengths(lengths.tolist()))
        kernels.cross_entropy(model.logits(hidden), tokens_T).backward()
        optimizer.step(0.5)
        return float(len(tokens_T))

    return step


def by_size(quick: bool) -> Iterator[Point]:
    """Training steps of 2,048 tokens in sequences of 128, and sampling 128 sequences at once."""
    for name in MODELS[:2] if quick else MODELS:
        yield _training(name, 128, 256 if quick else 2048)
        yield _sampling(name, 4 if quick else 128, 4 if quick else 16)


def by_batch(quick: bool) -> Iterator[Point]:
    """Sampling with so many sequences at once, 16 of a prompt where there are as many."""
    for name in ("tiny", "10m"):
        for sequences in (1, 4) if quick else (1, 2, 4, 8, 16, 32, 64, 128, 256):
            if name == "tiny" or sequences <= 128:
                yield _sampling(name, sequences, 4 if quick else 32)


def _sampling(name: str, sequences: int, new_tokens: int, threads: int = 1, clock: str = "cpu") -> Point:
    config = model_of(name).config
    prompts = max(sequences // 16, 1)
    shape: Shape = {"model": name, "parameters": model_of(name).num_parameters, "sequences": sequences}
    # a prompt once, logits of its last token; then every token but a sequence's last is a step
    flop = prompts * forward_flop(config, PROMPT, num_logits=1)
    flop += sequences * forward_flop(config, new_tokens - 1, before=PROMPT)
    return Point(
        "sampling", shape | {"new tokens": new_tokens}, "tokens", partial(_generate, name, sequences, new_tokens),
        flop_per_unit=flop / (sequences * new_tokens), clock=clock, threads=threads,
    )  # fmt: skip


def _generate(name: str, sequences: int, new_tokens: int) -> Callable[[], float]:
    tokenizer = fr.Tokenizer.for_mixtures([fr.Mixture.uniform(op=[2], themes=["symbolic"], max_value=99)])
    engine = fr.Rollout(model_of(name), tokenizer, max_sequences=sequences)
    prompts = max(sequences // 16, 1)
    texts = _prompts(tokenizer, prompts)

    def work() -> float:
        out = engine.generate(texts, sequences // prompts, max_new_tokens=new_tokens, stop=[])
        return float(out.num_new_tokens)

    return work


def _prompts(tokenizer: fr.Tokenizer, count: int) -> list[str]:
    """Of PROMPT tokens each, whatever they say."""
    mixture = fr.Mixture.uniform(op=[10], themes=["symbolic"], max_value=99)
    documents = fr.TaskStream(mixture, seed=0)[0:count].documents
    return [tokenizer.decode(tokenizer.encode(text)[:PROMPT]) for text in documents]


def by_threads(quick: bool) -> Iterator[Point]:
    """The same work on one core and on more, by the clock on the wall."""
    cores = os.cpu_count() or 1
    for threads in [n for n in (1, 2, 4, 8, 16, 32, 64) if n <= max(cores, 2)]:
        shape: Shape = {"op": 8, "threads": threads}
        count = 50 if quick else 6000
        draw, grade = partial(_drawing, 8, count, threads), partial(_grading, 8, count // 10, threads)
        yield Point("problems drawn as text", shape, "problems", draw, clock="wall", threads=threads)
        yield Point("verdicts, groups of 16", shape, "verdicts", grade, clock="wall", threads=threads)
        for name in ("tiny", "10m"):
            yield _training(name, 128, 256 if quick else 2048, threads, "wall")


SWEEPS: dict[str, Callable[[bool], Iterator[Point]]] = {
    "op": by_op,
    "context": by_context,
    "size": by_size,
    "batch": by_batch,
    "threads": by_threads,
}
