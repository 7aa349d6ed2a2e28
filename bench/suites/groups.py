"""What sharing a prompt saves: a group in its own layout, beside the same sequences each with a copy of the prompt."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial

import torch
from torch import Tensor

import fastreason as fr
from fastreason import kernels
from fastreason.kernels import Segments
from fastreason.model.flop import forward_flop

from ..harness.questions import Contestant, Done, Question, Settings, Work
from ..harness.records import OURS, Shape

SIZES = {"tiny": (200, 8, 100), "10m": (200, 8, 100)}  # prompt, samples, response
QUICK = (8, 2, 4)

# tokens, the layout made anew, and which tokens are of responses
Layout = tuple[Tensor, Callable[[], Segments], Tensor]


def questions(settings: Settings) -> Iterator[Question]:
    for preset, full in SIZES.items():
        size = settings.size(full, QUICK)
        contestants = {
            OURS: Contestant(partial(training_step, preset, group, size)),
            "each with its prompt": Contestant(partial(training_step, preset, separate, size)),
        }
        prompt, samples, response = size
        shape: Shape = {"model": preset, "prompt": prompt, "samples": samples, "response": response}
        yield Question(
            "forward and backward of a group", shape, "response tokens", contestants, turn_s=None, peak="matmul",
            turns=7 if preset == "tiny" else 5,
        )  # fmt: skip


@cache
def bench_model(preset: str) -> fr.Decoder:
    model = fr.Decoder(fr.ModelConfig.preset(preset))
    model.reset_parameters(0)
    return model


def training_step(
    preset: str, layout: Callable[[int, tuple[int, int, int]], Layout], size: tuple[int, int, int]
) -> Work:
    """The loss of the response tokens and its gradients; the layout is rebuilt, as for every batch."""
    model = bench_model(preset)
    tokens_T, lengths, response_N = layout(model.config.vocab_size, size)
    prompt, samples, response = size
    # the prompt once: the work that is needed, whoever does more
    needed = forward_flop(model.config, prompt, num_logits=0)
    needed += samples * forward_flop(model.config, response, before=prompt)

    def step() -> Done:
        model.zero_grad()
        hidden = model(tokens_T, lengths())
        # the last token of a sequence predicts nothing; which token is the label does not matter for the time
        kernels.cross_entropy(model.logits(hidden[response_N]), tokens_T[response_N]).backward()
        return Done(float(len(response_N)), 3.0 * needed)

    return step


def tokens(vocab_size: int, size: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    prompt, samples, response = size
    generator = torch.Generator().manual_seed(0)
    prompt_M = torch.randint(vocab_size, (prompt,), generator=generator)
    return prompt_M, torch.randint(vocab_size, (samples, response), generator=generator)


def group(vocab_size: int, size: tuple[int, int, int]) -> Layout:
    prompt, samples, response = size
    prompt_M, response_GL = tokens(vocab_size, size)
    tokens_T = torch.cat([prompt_M, response_GL.flatten()])
    lengths = torch.full((1, samples), response)
    return tokens_T, lambda: Segments.from_groups([prompt], lengths), torch.arange(prompt, len(tokens_T))


def separate(vocab_size: int, size: tuple[int, int, int]) -> Layout:
    prompt, samples, response = size
    prompt_M, response_GL = tokens(vocab_size, size)
    tokens_GL = torch.cat([prompt_M.expand(samples, -1), response_GL], dim=1)
    lengths = [prompt + response] * samples
    is_response_GL = torch.arange(prompt + response).expand(samples, -1) >= prompt
    return tokens_GL.flatten(), lambda: Segments.from_lengths(lengths), is_response_GL.flatten().nonzero().squeeze(1)
