"""What sharing a prompt saves: a group in its own layout, beside the same sequences each with a copy of the prompt."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator

import torch
from fastreason.kernels import Segments
from torch import Tensor

import fastreason as fr
from fastreason import ops

from .timing import Row, rates

PROMPT, RESPONSE, SAMPLES = 200, 100, 8


def rows() -> Iterator[Row]:
    for preset in ("tiny", "10m"):
        model = fr.Decoder(fr.ModelConfig.preset(preset))
        model.reset_parameters(0)
        group, separate = (_training_step(model, *layout(model.config.vocab_size)) for layout in (_group, _separate))
        ours, theirs = _alternating(group, separate, seconds=15.0)
        what = f"forward and backward, {preset}, float32: prompt of {PROMPT}, {SAMPLES} responses of {RESPONSE}"
        peer = ("each with its prompt", statistics.median(theirs))
        yield Row(what, statistics.median(ours), "response tokens/s", (min(ours), max(ours)), peer)


def _alternating(
    ours: Callable[[], float], theirs: Callable[[], float], *, seconds: float, least: int = 5
) -> tuple[list[float], list[float]]:
    """Units a second of both, in turns, so that what else the machine does falls on both."""
    found: tuple[list[float], list[float]] = ([], [])
    begin = time.perf_counter()
    while len(found[0]) < least or time.perf_counter() - begin < seconds:
        for work, into in zip((ours, theirs), found, strict=True):
            into += rates(work, seconds=0.0, least=1)
    return found


def _training_step(
    model: fr.Decoder, tokens_T: Tensor, lengths: Callable[[], Segments], response_N: Tensor
) -> Callable[[], float]:
    """The loss of the response tokens and its gradients; the layout is made anew, as it is for every batch."""

    def step() -> float:
        model.zero_grad()
        hidden = model(tokens_T, lengths())
        # the last token of a sequence predicts nothing; which token is the label does not matter for the time
        ops.cross_entropy(model.logits(hidden[response_N]), tokens_T[response_N]).backward()
        return float(len(response_N))

    return step


def _tokens(vocab_size: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    prompt_M = torch.randint(vocab_size, (PROMPT,), generator=generator)
    return prompt_M, torch.randint(vocab_size, (SAMPLES, RESPONSE), generator=generator)


def _group(vocab_size: int) -> tuple[Tensor, Callable[[], Segments], Tensor]:
    prompt_M, response_GL = _tokens(vocab_size)
    tokens_T = torch.cat([prompt_M, response_GL.flatten()])
    response_lengths = torch.full((1, SAMPLES), RESPONSE)
    return tokens_T, lambda: Segments.from_groups([PROMPT], response_lengths), torch.arange(PROMPT, len(tokens_T))


def _separate(vocab_size: int) -> tuple[Tensor, Callable[[], Segments], Tensor]:
    prompt_M, response_GL = _tokens(vocab_size)
    tokens_GL = torch.cat([prompt_M.expand(SAMPLES, -1), response_GL], dim=1)
    lengths = [PROMPT + RESPONSE] * SAMPLES
    is_response_GL = torch.arange(PROMPT + RESPONSE).expand(SAMPLES, -1) >= PROMPT
    return tokens_GL.flatten(), lambda: Segments.from_lengths(lengths), is_response_GL.flatten().nonzero().squeeze(1)
