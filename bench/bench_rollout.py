"""Sampling beside transformers' generate: same weights, same prompts, same sampling, in turns; and the matmul bound."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator

import torch

import fastreason as fr
from fastreason import _core
from fastreason.checkpoint import model_to_hf

from .timing import Row

PROMPTS, SAMPLES, NEW_TOKENS = 32, 16, 64
SOLVED = 2
MIXTURE = {"op": [2, 3, 4, 5], "themes": ["symbolic"], "max_value": 199}
CONFIGS = {
    "0.85 M parameters": dict(
        vocab_size=320,
        hidden_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=384,
        rope_theta=1000.0,
        max_position_embeddings=512,
    ),
    "10 M parameters": vars(fr.ModelConfig.preset("10m")),
}
# left to itself a model that was not trained ends some samples after a few tokens, which is not what is measured
NEVER: list[int | str] = []


def rows() -> Iterator[Row]:
    mixture = fr.Mixture.from_dict(MIXTURE)
    tokenizer = fr.Tokenizer.for_mixtures([mixture])
    prompts = prompts_of_100_tokens(fr.TaskStream(mixture, seed=0))
    tokens = sum(len(tokenizer.encode(prompt)) for prompt in prompts)
    yield Row(f"tokens of a prompt, mean of {PROMPTS}", tokens / PROMPTS, "tokens")
    for name, config in CONFIGS.items():
        model = fr.Decoder(fr.ModelConfig(**config))
        model.reset_parameters(0)
        yield from _compared(name, model, tokenizer, prompts, tokens)
    yield from _other_settings(tokenizer, prompts)


def prompts_of_100_tokens(stream: fr.TaskStream, count: int = PROMPTS) -> list[str]:
    """Each behind solved problems, so many that it has about 100 tokens."""
    batch = stream[0 : SOLVED * count]
    solved = [" ".join(batch.documents[SOLVED * i : SOLVED * (i + 1)]) for i in range(count)]
    return [f"{s} {p}" for s, p in zip(solved, stream[SOLVED * count : (SOLVED + 1) * count].prompts, strict=True)]


def _compared(
    name: str, model: fr.Decoder, tokenizer: fr.Tokenizer, problems: list[str], prompt_tokens: int
) -> Iterator[Row]:
    engine = fr.Rollout(model, tokenizer)

    def sample() -> float:
        return float(engine.generate(problems, SAMPLES, max_new_tokens=NEW_TOKENS, stop=NEVER).num_new_tokens)

    generate = _transformers_generate(model, tokenizer, problems)
    ours, theirs, products = _in_turns(sample, generate, _matmul, repeats=3)
    peak = statistics.median(products)
    kernel = _core.decode_kernels()[0]
    what = f"sampling, {name} ({kernel}): {PROMPTS} prompts x {SAMPLES} x {NEW_TOKENS}, CPU time"
    peer = ("transformers.generate", statistics.median(theirs))
    yield Row(what, statistics.median(ours), "tokens/s", (min(ours), max(ours)), peer)
    # each prompt once; a sample's first token needs no step; the embedding is a product as the head alone
    new = PROMPTS * SAMPLES * NEW_TOKENS
    matrices = model.num_parameters - model.embedding.weight.numel()
    flop = 2.0 * (matrices * (prompt_tokens + new - PROMPTS * SAMPLES) + model.embedding.weight.numel() * new)
    bound = new / (flop / peak)
    yield Row(f"what torch's matrix products would allow, {name}", bound, "tokens/s")
    yield Row(f"sampling in % of that, {name}", 100 * statistics.median(ours) / bound, "%")


def _other_settings(tokenizer: fr.Tokenizer, problems: list[str]) -> Iterator[Row]:
    """At 0.85 M: filters, torch instead of the core, and samples that end at any length."""
    model = fr.Decoder(fr.ModelConfig(**CONFIGS["0.85 M parameters"]))
    model.reset_parameters(0)
    engines = {"core": fr.Rollout(model, tokenizer), "torch": fr.Rollout(model, tokenizer, backend="torch")}
    few = fr.Rollout(model, tokenizer, max_sequences=128)
    calls: dict[str, Callable[[], fr.RolloutOutput]] = {
        "top-k 50, top-p 0.95, min-p 0.01": lambda: engines["core"].generate(
            problems, SAMPLES, max_new_tokens=NEW_TOKENS, stop=NEVER, top_k=50, top_p=0.95, min_p=0.01
        ),
        "torch instead of the core": lambda: engines["torch"].generate(
            problems, SAMPLES, max_new_tokens=NEW_TOKENS, stop=NEVER
        ),
        # an untrained model ends samples at random: with 3 of 320 tokens as stops after 107 tokens on average
        "128 slots, ends at random, up to 256 tokens": lambda: few.generate(
            problems, SAMPLES, max_new_tokens=256, stop=[20, 21, 22]
        ),
    }
    for what, call in calls.items():
        (rates,) = _in_turns(lambda call=call: float(call().num_new_tokens), repeats=3)  # type: ignore[misc]
        yield Row(f"0.85 M, {what}", statistics.median(rates), "tokens/s", (min(rates), max(rates)))


def _in_turns(*work: Callable[[], float], repeats: int) -> list[list[float]]:
    """Units a second of CPU time of each, one after the other, so that what else the machine does falls on all."""
    found: list[list[float]] = [[] for _ in work]
    for one in work:
        one()
    for _ in range(repeats):
        for one, rates in zip(work, found, strict=True):
            start = time.process_time()
            units = one()
            rates.append(units / (time.process_time() - start))
    return found


def _matmul(size: int = 1024, repeats: int = 5) -> float:
    """FLOP of some square products."""
    a, b = torch.randn(2, size, size)
    for _ in range(repeats):
        torch.mm(a, b)
    return 2.0 * size**3 * repeats


def _transformers_generate(model: fr.Decoder, tokenizer: fr.Tokenizer, problems: list[str]) -> Callable[[], float]:
    """Left-padded prompts, each repeated, sampled with transformers' own loop and cache."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    hf_config, tensors = model_to_hf(model)
    theirs = Qwen2ForCausalLM(Qwen2Config(**hf_config)).eval()
    theirs.load_state_dict(tensors, strict=False)
    theirs.tie_weights()
    ids = [tokenizer.encode(prompt) for prompt in problems]
    width = max(map(len, ids))
    tokens = torch.full((len(ids), width), tokenizer.pad_id)
    for row, values in zip(tokens, ids, strict=True):
        row[width - len(values) :] = torch.from_numpy(values)

    def generate() -> float:
        out = theirs.generate(
            tokens,
            attention_mask=(tokens != tokenizer.pad_id).long(),
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            num_return_sequences=SAMPLES,
            max_new_tokens=NEW_TOKENS,
            pad_token_id=tokenizer.pad_id,
        )
        return float(out[:, width:].numel())

    return generate
