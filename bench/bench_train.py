"""The supervised step of the quickstart's model, beside transformers' on the same documents."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch.profiler import profile

import fastreason as fr
from fastreason.checkpoint import model_to_hf
from fastreason.optim import Optimizer, OptimSettings
from fastreason.supervised import supervised_loss

from .timing import Row, measure

MIXTURE = {"op": [2, 3, 4, 5], "themes": ["symbolic"], "max_value": 199}
BATCH_TOKENS = 3072


def quickstart_model() -> tuple[fr.Decoder, fr.Tokenizer, fr.TaskStream]:
    mixture = fr.Mixture.from_dict(MIXTURE)
    tokenizer = fr.Tokenizer.for_mixtures([mixture])
    model = fr.Decoder(fr.ModelConfig.preset("tiny", vocab_size=len(tokenizer)))
    model.reset_parameters(0)
    return model, tokenizer, fr.TaskStream(mixture, seed=0)


def rows() -> Iterator[Row]:
    model, tokenizer, stream = quickstart_model()
    optimizer = Optimizer(model, OptimSettings(matrix_lr=1e-4, lr=1e-4))
    batch = stream.packed(0, 1, BATCH_TOKENS, tokenizer, threads=1)

    def step() -> float:
        supervised_loss(model, batch, "solution").backward()
        optimizer.step(0.5)
        return float(batch.lengths.sum())

    theirs = _transformers_step(model, batch)
    yield measure("training step, 0.17 M parameters", "tokens/s", step, peer=("transformers", theirs), seconds=6.0)
    yield Row("share of that step outside matrix products", 100 * _share_outside_matmul(step), "%")
    yield Row("matrix products alone, 1024 x 1024", _matmul_rate() / 1e9, "GFLOP/s")


def _transformers_step(model: fr.Decoder, batch: fr.PackedBatch) -> Callable[[], float]:
    """Qwen2ForCausalLM with the same weights on the same documents, padded to the longest, with torch's AdamW."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    hf_config, tensors = model_to_hf(model)
    theirs = Qwen2ForCausalLM(Qwen2Config(**hf_config))
    theirs.load_state_dict(tensors, strict=False)
    theirs.tie_weights()
    optimizer = torch.optim.AdamW(theirs.parameters(), 1e-4, fused=True)
    documents = [slice(s, s + n) for s, n in zip(batch.starts, batch.lengths, strict=True)]
    width = int(batch.lengths.max())
    tokens, labels = np.zeros((2, len(documents), width), dtype=np.int64)
    labels -= 100
    mask = np.zeros_like(tokens)
    for row, where in enumerate(documents):
        length = where.stop - where.start
        tokens[row, :length], mask[row, :length] = batch.tokens[where], 1
        labels[row, :length] = np.where(batch.loss_mask[where], batch.tokens[where], -100)
    inputs = {
        "input_ids": torch.from_numpy(tokens),
        "labels": torch.from_numpy(labels),
        "attention_mask": torch.from_numpy(mask),
    }

    def step() -> float:
        theirs(**inputs).loss.backward()
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return float(batch.lengths.sum())

    return step


def _share_outside_matmul(step: Callable[[], float]) -> float:
    with profile() as profiler:
        for _ in range(5):
            step()
    events = profiler.key_averages()
    total = sum(event.self_cpu_time_total for event in events)
    products = ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm")
    return 1.0 - sum(event.self_cpu_time_total for event in events if event.key in products) / total


def _matmul_rate(size: int = 1024) -> float:
    a, b = torch.randn(2, size, size)

    def work() -> float:
        torch.mm(a, b)
        return 2.0 * size**3

    return measure("", "", work, seconds=1.0).rate
