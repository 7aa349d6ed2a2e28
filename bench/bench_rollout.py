"""Sampling and the update of a reinforcement-learning step, beside transformers' generate on the same prompts."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

import fastreason as fr
from fastreason import ops
from fastreason.checkpoint import model_to_hf
from fastreason.policy import PolicySettings, policy_step

from .bench_train import MIXTURE, quickstart_model
from .timing import Row, measure

PROMPTS, SAMPLES, NEW_TOKENS = 32, 16, 40


def rows() -> Iterator[Row]:
    model, tokenizer, stream = quickstart_model()
    problems = stream[0:PROMPTS]
    engine = fr.Rollout(model, tokenizer)

    def sample() -> float:
        return float(engine.generate(problems, SAMPLES, max_new_tokens=NEW_TOKENS).num_new_tokens)

    theirs = _transformers_generate(model, tokenizer, problems)
    yield measure(
        f"sampling, {PROMPTS} prompts x {SAMPLES}", "tokens/s", sample, peer=("transformers", theirs), seconds=6.0
    )
    samples = engine.generate(problems, SAMPLES, max_new_tokens=NEW_TOKENS)
    advantages = ops.group_advantages(torch.rand(PROMPTS, SAMPLES, generator=torch.Generator().manual_seed(0)))
    settings = PolicySettings(mixture=[MIXTURE])

    def update() -> float:
        result = policy_step(model, samples, advantages, settings)
        assert result is not None
        result.loss.backward()
        return float(samples.num_new_tokens)

    yield measure("policy loss and its gradient, sampled tokens", "tokens/s", update, seconds=6.0)


def _transformers_generate(
    model: fr.Decoder, tokenizer: fr.Tokenizer, problems: fr.ProblemBatch
) -> Callable[[], float]:
    """Left-padded prompts, each repeated, sampled with transformers' own loop and cache."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    hf_config, tensors = model_to_hf(model)
    theirs = Qwen2ForCausalLM(Qwen2Config(**hf_config)).eval()
    theirs.load_state_dict(tensors, strict=False)
    theirs.tie_weights()
    ids = [tokenizer.encode(prompt) for prompt in problems.prompts]
    width = max(map(len, ids))
    tokens = torch.full((len(ids), width), tokenizer.pad_id)
    for row, values in zip(tokens, ids, strict=True):
        row[width - len(values) :] = torch.from_numpy(values)

    def generate() -> float:
        out = theirs.generate(
            tokens,
            attention_mask=(tokens != tokenizer.pad_id).long(),
            do_sample=True,
            num_return_sequences=SAMPLES,
            max_new_tokens=NEW_TOKENS,
            eos_token_id=[tokenizer.answer_close_id, tokenizer.eos_id],
            pad_token_id=tokenizer.pad_id,
        )
        return float((out[:, width:] != tokenizer.pad_id).sum())

    return generate
