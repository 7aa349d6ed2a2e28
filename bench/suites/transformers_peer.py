"""Our weights in transformers' model, and transformers' own sampling from it: the peers of several suites."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

import fastreason as fr
from fastreason.training.checkpoint import model_to_hf

__all__ = ["hf_model", "hf_sampling"]


def hf_model(model: fr.Decoder) -> Any:
    """A Qwen2ForCausalLM with the same weights, on the CPU, in evaluation mode."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config, tensors = model_to_hf(model)
    theirs = Qwen2ForCausalLM(Qwen2Config(**config))
    theirs.load_state_dict(tensors, strict=False)
    theirs.tie_weights()
    return theirs.eval()


def hf_sampling(
    model: fr.Decoder,
    tokenizer: fr.Tokenizer,
    prompts: Sequence[str],
    samples: int,
    *,
    dtype: torch.dtype = torch.float32,
    **how: Any,
) -> Callable[[], Tensor]:
    """A call of transformers' own loop and cache: prompts padded on the left, all samples of all at once.

    Args:
        dtype: of the weights.
        how: of `generate`: temperature, top_k, top_p, max_new_tokens, ...
    Returns:
        A function that gives int64 [prompts * samples, longest] new tokens, on the device of the model.
    """
    device = model.embedding.weight.device
    theirs = hf_model(model).to(device, dtype)
    ids = [tokenizer.encode(prompt) for prompt in prompts]
    width = max(map(len, ids))
    tokens = torch.full((len(ids), width), tokenizer.pad_id)
    for row, values in zip(tokens, ids, strict=True):
        row[width - len(values) :] = torch.from_numpy(values)
    tokens = tokens.to(device)
    given = dict(attention_mask=(tokens != tokenizer.pad_id).long(), pad_token_id=tokenizer.pad_id)

    def generate() -> Tensor:
        out: Tensor = theirs.generate(tokens, do_sample=True, num_return_sequences=samples, **given, **how)
        return out[:, width:]

    return generate
