"""Sampling beside transformers' generate and vLLM: same weights, same prompts, same sampling."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

import fastreason as fr
from fastreason.model.llama_export import save_for_vllm
from fastreason.rl.statistics import pass_flop

from ..harness.questions import Contestant, Done, Question, Settings, Work
from ..harness.records import OURS, Shape
from ..harness.worker_process import contestant as worker
from .transformers_peer import hf_sampling

SOLVED = 2
MIXTURE = {"op": [2, 3, 4, 5], "themes": ["symbolic"], "max_value": 199}
CONFIGS: dict[str, dict[str, Any]] = {
    "0.85 M": dict(
        vocab_size=320,
        hidden_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=384,
        rope_theta=1000.0,
        max_position_embeddings=512,
    ),
    "10 M": vars(fr.ModelConfig.preset("10m")),
}
# left to itself a model that was not trained ends some samples after a few tokens, which is not what is measured
NEVER: list[int | str] = []
SIZES = {"0.85 M": (32, 8, 64), "10 M": (8, 16, 32)}  # prompts, samples of each, tokens of each sample
TURNS = {"0.85 M": 5, "10 M": 4}


def questions(settings: Settings) -> Iterator[Question]:
    for name in CONFIGS:
        if settings.quick and name != "0.85 M":
            continue
        size = settings.size(SIZES[name], (2, 2, 4))
        contestants = {
            OURS: Contestant(partial(sampling, name, size)),
            "transformers generate": Contestant(partial(generating, name, size), needs=("transformers",)),
            "vLLM": in_vllm(name, size, "float32", settings.threads),
        }
        if name == "0.85 M":
            contestants["our torch engine"] = Contestant(partial(sampling, name, size, backend="torch"))
        yield question("sampling", name, size, contestants)
        if name == "10 M":
            narrow = torch.bfloat16
            contestants = {
                OURS: Contestant(partial(sampling, name, size, precision="bfloat16")),
                "transformers generate": Contestant(partial(generating, name, size, narrow), needs=("transformers",)),
                "vLLM": in_vllm(name, size, "bfloat16", settings.threads),
                "our torch engine": Contestant(partial(sampling, name, size, backend="torch", precision="bfloat16")),
            }
            # the peak is that of float32, which these products exceed
            yield replace(question("sampling in bfloat16", name, size, contestants), peak=None)
    size = settings.size(SIZES["0.85 M"], (2, 2, 4))
    filtered = partial(sampling, "0.85 M", size, top_k=50, top_p=0.95, min_p=0.01)
    what = "sampling with top-k 50, top-p 0.95, min-p 0.01"
    yield question(what, "0.85 M", size, {OURS: Contestant(filtered)})
    # an untrained model ends samples at random: with 3 of 320 tokens as stops after 107 tokens on average
    size = (*size[:2], 4 * size[2])
    ending = partial(sampling, "0.85 M", size, max_sequences=128, stop=[20, 21, 22])
    yield question("sampling that ends at random, 128 slots", "0.85 M", size, {OURS: Contestant(ending)})


def question(what: str, name: str, size: tuple[int, int, int], contestants: dict[str, Contestant]) -> Question:
    shape: Shape = {"parameters": name, "prompts": size[0], "samples": size[1], "tokens": size[2]}
    return Question(what, shape, "tokens", contestants, turns=TURNS[name], turn_s=None, peak="matmul")


@cache
def prompts_of_100_tokens(count: int) -> tuple[fr.Tokenizer, list[str]]:
    """Each behind solved problems, so many that it has about 100 tokens."""
    mixture = fr.Mixture.from_dict(MIXTURE)
    stream = fr.TaskStream(mixture, seed=0)
    batch = stream[0 : SOLVED * count]
    solved = [" ".join(batch.documents[SOLVED * i : SOLVED * (i + 1)]) for i in range(count)]
    prompts = stream[SOLVED * count : (SOLVED + 1) * count].prompts
    return fr.Tokenizer.for_mixtures([mixture]), [f"{s} {p}" for s, p in zip(solved, prompts, strict=True)]


@cache
def bench_model(name: str) -> fr.Decoder:
    model = fr.Decoder(fr.ModelConfig(**CONFIGS[name]))
    model.reset_parameters(0)
    return model


def sampling(
    name: str,
    size: tuple[int, int, int],
    stop: list[int | str] = NEVER,
    max_sequences: int = 512,
    backend: Literal["auto", "torch"] = "auto",
    precision: Literal["auto", "bfloat16"] = "auto",
    **how: Any,
) -> Work:
    """Our engine; each prompt is computed once."""
    prompts, samples, new_tokens = size
    model = bench_model(name)
    tokenizer, problems = prompts_of_100_tokens(prompts)
    engine = fr.Rollout(model, tokenizer, backend=backend, precision=precision, max_sequences=max_sequences)

    def sample() -> Done:
        out = engine.generate(problems, samples, max_new_tokens=new_tokens, stop=stop, **how)
        # a sample's last token needs no pass
        lengths_PG = out.lengths.reshape(prompts, samples) - 1
        return Done(float(out.num_new_tokens), pass_flop(model.config, np.diff(out.prompt_offsets), lengths_PG))

    return sample


def in_vllm(name: str, size: tuple[int, int, int], dtype: str, threads: int) -> Contestant:
    """vLLM on an exported folder, in a process of its own environment."""
    prompts, samples, new_tokens = size

    def prepare(folder: Path) -> None:
        tokenizer, problems = prompts_of_100_tokens(prompts)
        save_for_vllm(bench_model(name), folder, tokenizer)
        ids = [tokenizer.encode(problem).tolist() for problem in problems]
        job = {"prompts": ids, "samples": samples, "tokens": new_tokens, "positions": 512}
        (folder / "bench.json").write_text(json.dumps(job), encoding="utf-8")

    return worker("bench.suites.vllm_worker", dtype, threads=threads, python_in="FASTREASON_VLLM", prepare=prepare)


def generating(name: str, size: tuple[int, int, int], dtype: torch.dtype = torch.float32) -> Work:
    """transformers' own loop."""
    prompts, samples, new_tokens = size
    tokenizer, problems = prompts_of_100_tokens(prompts)
    how: dict[str, Any] = dict(dtype=dtype, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=new_tokens)
    generate = hf_sampling(bench_model(name), tokenizer, problems, samples, **how)
    return lambda: float(generate().numel())
