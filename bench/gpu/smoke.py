"""Every operation once in bfloat16 and float32 against its definition in float64, the sampler, and decoding.

In a rehearsal the kernels run under Triton's interpreter, and the sampler and the model are those of the CPU.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

import fastreason as fr
from fastreason import _core, cuda, kernels
from fastreason.kernels import Segments
from fastreason.kernels.sample import sample_ref
from fastreason.kernels.triton_support import INTERPRETED

from ..kernels.operations import OPS, Call, Shape
from ..kernels.peers import outputs_of
from .items import Item, Outcome, Place

__all__ = ["items"]

FULL = {"tokens": 2048, "length": 512, "own": 128, "members": 4}
SMALL = {"tokens": 24, "length": 8, "own": 4, "members": 2, "width": 64, "ffn": 48, "heads": 4, "kv_heads": 2}
SMALL |= {"head_dim": 16, "vocab": 70}
FLOAT32_LIMIT = 1e-5
SAMPLING: dict[str, dict[str, Any]] = {
    "plain": {},
    "greedy": {"temperature": 0.0},
    "top-k": {"top_k": 50, "temperature": 0.7},
    "top-p": {"top_p": 0.9},
    "min-p": {"min_p": 0.1},
    "all filters": {"top_k": 100, "top_p": 0.95, "min_p": 0.02, "temperature": 1.3},
}
MIXTURE = {"op": [2, 3], "themes": ["symbolic"], "max_value": 199}
# of a log-probability: 24 tokens through two layers
DECODE_LIMITS = {"float32": 1e-3, "bfloat16": 0.25}


def items(place: Place) -> Iterator[tuple[str, Item]]:
    if INTERPRETED:
        for repairs in ("interpreted_bfloat16", "interpreted_index"):
            importlib.import_module(f"tests.kernels.{repairs}").repair()
    for name in OPS:
        for dtype in (torch.bfloat16, torch.float32):
            yield f"{name}, {str(dtype).removeprefix('torch.')}", partial(operation, name, dtype)
    yield "the CUDA module", cuda_module
    for what, settings in SAMPLING.items():
        yield f"sampler, {what}", partial(sampler, settings)
    for precision in DECODE_LIMITS:
        yield f"decode, {precision}", partial(decode, precision)


def operation(name: str, dtype: torch.dtype, place: Place) -> Outcome:
    """Values and gradients; relative errors, root mean square over all elements."""
    sizes: dict[str, Any] = dict(SMALL if place.rehearsed else FULL)
    call = OPS[name].build(Shape(**sizes, dtype=dtype, device=place.device))
    ours = values(call, call.run)
    exact = values(in_float64(call), call.definition)
    plain = values(call, call.definition)
    errors, failures = [], []
    for i, (mine, truth, other) in enumerate(zip(ours, exact, plain, strict=True)):
        error, allowed = relative(mine, truth), FLOAT32_LIMIT
        if dtype != torch.float32:
            allowed = 2 * relative(other, truth) + 2 * torch.finfo(dtype).eps
        errors.append(error)
        if not error <= allowed:
            failures.append(f"result {i}: relative error {error:.2e} > {allowed:.2e}")
    if failures:
        raise AssertionError(f"{name} in {dtype}: {'; '.join(failures)}")
    return Outcome({"largest relative error": max(errors)}, {"results compared": len(errors)})


def values(call: Call, run: Callable[..., Any]) -> list[Tensor]:
    """Outputs, then gradients; the incoming gradients are the same whatever the dtype."""
    for name in call.learns:
        call.inputs[name].requires_grad_()
    outputs = outputs_of(run(**call.inputs))
    if not call.learns:
        return [x.detach() for x in outputs]
    upstream = [
        Shape(1, device=str(x.device)).floats(*x.shape, dtype=x.dtype) if x.ndim else torch.ones_like(x)
        for x in outputs
    ]
    gradients = torch.autograd.grad(outputs, [call.inputs[name] for name in call.learns], upstream)
    return [*(x.detach() for x in outputs), *gradients]


def in_float64(call: Call) -> Call:
    """The same call of the same numbers."""

    def wide(x: Any) -> Any:
        return x.detach().double() if isinstance(x, Tensor) and x.is_floating_point() else x

    return replace(call, inputs={name: wide(x) for name, x in call.inputs.items()})


def relative(a: Tensor, truth: Tensor) -> float:
    difference, size = (a.double() - truth).norm(), truth.norm()
    return float(difference / size) if size else float(difference)


def cuda_module(place: Place) -> Outcome:
    """Whether sampling on this GPU is the CUDA kernel, and not torch in its place."""
    reason = cuda.why_unavailable()
    if reason and not place.rehearsed:
        raise RuntimeError(f"fastreason.cuda: {reason}")
    return Outcome(notes={"why not": reason} if reason else {})


def sampler(settings: dict[str, Any], place: Place) -> Outcome:
    """Tokens and log-probabilities are those of the definition in every bit."""
    rows = 0
    for vocab, N in ((300, 16), (2200, 8)) if place.rehearsed else ((300, 512), (2200, 512), (151936, 64)):
        for dtype in (torch.float32, torch.bfloat16):
            generator = torch.Generator().manual_seed(vocab)
            logits = (4 * torch.randn(N, vocab, generator=generator)).to(dtype)
            keys = [torch.arange(N), torch.arange(N) % 7, torch.arange(N) + 3]
            found = kernels.sample(
                logits.to(place.device), seed=5, prompts_N=keys[0], samples_N=keys[1], positions_N=keys[2], **settings
            )
            uniform = torch.from_numpy(_core.uniform(5, *(key.numpy() for key in keys)))
            full: dict[str, Any] = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0} | settings
            wanted = sample_ref(logits, uniform, **full)
            for what, a, b in zip(("tokens", "log-probabilities", "full ones"), found, wanted, strict=True):
                differ = int((a.cpu() != b).sum())
                if differ:
                    raise AssertionError(f"{what}: {differ} of {N} rows differ at {vocab} tokens in {dtype}")
            rows += N
    return Outcome(notes={"rows": rows})


def decode(precision: str, place: Place) -> Outcome:
    """What the torch engine said of its tokens, against a forward pass of the CPU in float32."""
    mixture = fr.Mixture.from_dict(MIXTURE)
    tokenizer = fr.Tokenizer.for_mixtures([mixture])
    shape: dict[str, Any] = {"num_hidden_layers": 2, "max_position_embeddings": 512}
    model = fr.Decoder(fr.ModelConfig.preset("tiny", vocab_size=len(tokenizer), **shape))
    model.reset_parameters(0)
    problems, samples, new = (2, 2, 4) if place.rehearsed else (16, 8, 24)
    prompts = fr.TaskStream(mixture, seed=0)[0:problems]
    there = fr.Decoder(model.config).to(place.device)
    there.load_state_dict(model.state_dict())
    engine = fr.Rollout(there, tokenizer, backend="torch", precision=precision)  # type: ignore[arg-type]
    output = engine.generate(prompts, samples, max_new_tokens=new, stop=[])
    worst = 0.0
    for row in range(len(output)):
        begin, end = output.prompt_offsets[row // samples : row // samples + 2]
        worst = max(worst, difference(model, output.prompt_tokens[begin:end].tolist(), output, row))
    if not worst <= DECODE_LIMITS[precision]:
        raise AssertionError(f"a log-probability differs by {worst:.2e} > {DECODE_LIMITS[precision]:g}")
    theirs = fr.Rollout(model, tokenizer).generate(prompts, samples, max_new_tokens=new, stop=[])
    same = float((theirs.tokens == output.tokens).mean())
    return Outcome({"largest difference of a log-probability": worst, "tokens equal to the CPU's": same})


@torch.no_grad()
def difference(model: fr.Decoder, prompt: Sequence[int], output: Any, row: int) -> float:
    own = output.tokens[row, : output.lengths[row]].tolist()
    hidden = model(torch.tensor([*prompt, *own]), Segments.from_lengths([len(prompt) + len(own)]))
    logprobs = model.logits(hidden[len(prompt) - 1 : -1]).double().log_softmax(1)
    wanted = logprobs.gather(1, torch.tensor(own)[:, None]).squeeze(1)
    return float((wanted - torch.from_numpy(output.logprobs[row, : len(own)]).double()).abs().max())
