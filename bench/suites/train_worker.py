"""One contestant of bench_train in a process of its own:
`python -m bench.suites.train_worker CONTESTANT SIZE PRECISION THREADS`.

All train the same weights on the documents of one stream, in order, about as many to a step. The work is tokens of
documents, padding not counted. In bfloat16 weights and optimizer stay float32; the peers run under torch.autocast.
bench/harness/worker_process.py says what the process is asked and answers.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
from torch import Tensor

import fastreason as fr
from fastreason import _core
from fastreason.model.flop import train_flop
from fastreason.model.precision import Precision, cast_once
from fastreason.training.optimizer import Optimizer, OptimSettings
from fastreason.training.row_batches import count_targets
from fastreason.training.supervised import supervised_loss

from ..harness.worker_process import Report, rounds_of, serve
from .transformers_peer import hf_model

LR = 1e-4
ROUND_TO = 32  # compiled code is made for shapes; padding to this keeps them few


@dataclass(frozen=True)
class Size:
    """What is trained on: op 2-10 with its real spread of lengths."""

    preset: str
    mixture: dict[str, Any]
    batch_tokens: int
    batch_documents: int
    """Of the peers: what `batch_tokens` hold on average."""
    warm_up: int
    """Steps that are not counted: caches are filled and code is compiled."""


SIZES = {
    "tiny": Size("tiny", {"op": list(range(2, 11)), "themes": ["symbolic"], "max_value": 199}, 3072, 50, warm_up=3),
    "10m": Size("10m", {"op": list(range(2, 11)), "themes": ["zoo"], "max_value": 199}, 4096, 20, warm_up=1),
}


@dataclass
class Setting:
    model: fr.Decoder
    tokenizer: fr.Tokenizer
    stream: fr.TaskStream
    size: Size
    precision: Precision = "float32"

    @classmethod
    def of(cls, name: str, precision: Precision = "float32") -> Setting:
        size = SIZES[name]
        mixture = fr.Mixture.from_dict(size.mixture)
        tokenizer = fr.Tokenizer.for_mixtures([mixture])
        # 10m: as large as the paper's 2,200, or what the theme needs
        words = len(tokenizer) if name == "tiny" else max(2200, len(tokenizer))
        model = fr.Decoder(fr.ModelConfig.preset(size.preset, vocab_size=words))
        model.reset_parameters(0)
        return cls(model, tokenizer, fr.TaskStream(mixture, seed=0), size, precision)

    @property
    def narrow(self) -> bool:
        return self.precision == "bfloat16"

    def documents(self) -> Iterator[tuple[np.ndarray, int]]:
        """Token ids of one document after the other, and how many of them are prompt."""
        start = 0
        while True:
            tokens, bounds, prompts = self.stream.encoded(start, 256, self.tokenizer, threads=1)
            for i in range(256):
                yield tokens[bounds[i] : bounds[i + 1]].astype(np.int64), int(prompts[i])
            start += 256


Step = Callable[[Report], None]


def fastreason_step(setting: Setting) -> Step:
    """The body of `supervised.train`."""
    _core.keep_freed_memory()
    model = setting.model
    optimizer = Optimizer(model, OptimSettings(matrices="adamw", matrix_lr=LR, lr=LR))
    batches = setting.stream.batches(0, 1, setting.size.batch_tokens, setting.tokenizer)

    def step(report: Report) -> None:
        begin = time.perf_counter()
        batch = next(batches)
        waiting_s = time.perf_counter() - begin
        with cast_once(model, setting.precision):
            supervised_loss(model, batch, "solution", setting.precision).backward()
        optimizer.step(0.5)
        flop = train_flop(model.config, batch.lengths, count_targets(batch, "solution"))
        report.add(int(batch.lengths.sum()), flop, waiting=waiting_s)

    return step


def examples(setting: Setting) -> Iterator[dict[str, Tensor]]:
    for ids, prompt in setting.documents():
        tokens = torch.from_numpy(ids)
        yield {"input_ids": tokens, "labels": torch.cat([torch.full((prompt,), -100), tokens[prompt:]])}


def padded(batch: list[dict[str, Tensor]], multiple: int = 1) -> dict[str, Tensor]:
    """The collator: padded to the longest document of the batch."""
    width = -(-max(len(e["input_ids"]) for e in batch) // multiple) * multiple
    out = {"input_ids": torch.zeros(len(batch), width, dtype=torch.int64)}
    out |= {"labels": torch.full((len(batch), width), -100), "attention_mask": torch.zeros(len(batch), width).long()}
    for row, example in enumerate(batch):
        length = len(example["input_ids"])
        for name, values in example.items():
            out[name][row, :length] = values
        out["attention_mask"][row, :length] = 1
    return out


def plain_step(setting: Setting, *, compiled: bool) -> Step:
    """A bare loop around Qwen2ForCausalLM: no Trainer, fused AdamW, batches of similar lengths."""
    _core.keep_freed_memory()
    model = hf_model(setting.model).train()
    optimizer = torch.optim.AdamW(model.parameters(), LR, fused=True)
    call = torch.compile(model, dynamic=True) if compiled else model
    source, size = examples(setting), setting.size.batch_documents

    def batches() -> Iterator[list[dict[str, Tensor]]]:
        while True:
            pool = [next(source) for _ in range(16 * size)]
            pool.sort(key=lambda e: len(e["input_ids"]))
            order = np.random.default_rng(0).permutation(16)
            yield from (pool[i * size : (i + 1) * size] for i in order)

    batch_of = batches()

    def step(report: Report) -> None:
        batch = next(batch_of)
        inputs = padded(batch, ROUND_TO if compiled else 1)
        with torch.autocast("cpu", torch.bfloat16, enabled=setting.narrow):
            loss = call(**inputs, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        report.add(sum(len(example["input_ids"]) for example in batch))

    return step


def run_trainer(setting: Setting) -> None:
    """transformers.Trainer with its defaults, except for the common batch size and no checkpoints or progress bars."""
    from torch.utils.data import IterableDataset
    from transformers import Trainer, TrainerCallback, TrainingArguments

    class Documents(IterableDataset):  # type: ignore[type-arg]
        def __iter__(self) -> Iterator[dict[str, Tensor]]:
            return examples(setting)

    report = Report()

    class Counting(Trainer):
        """Counts what is trained on; the collator, which works ahead, would count other batches."""

        def compute_loss(self, model: Any, inputs: dict[str, Any], *more: Any, **named: Any) -> Any:
            report.add(int(inputs["attention_mask"].sum()))
            return super().compute_loss(model, inputs, *more, **named)

    with TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, per_device_train_batch_size=setting.size.batch_documents, learning_rate=LR,
            max_steps=10**9, save_strategy="no", report_to=[], disable_tqdm=True, use_cpu=True,
            remove_unused_columns=False, dataloader_pin_memory=False, bf16=setting.narrow,
        )  # fmt: skip
        rounds = rounds_of(TrainerCallback, report, setting.size.warm_up)
        trainer = Counting(
            hf_model(setting.model).train(),
            arguments,
            data_collator=padded,
            train_dataset=Documents(),
            callbacks=[rounds],
        )
        trainer.train()


CONTESTANTS: dict[str, Callable[[Setting], Step]] = {
    "fastreason": fastreason_step,
    "lengths": lambda setting: plain_step(setting, compiled=False),
    "lengths-compiled": lambda setting: plain_step(setting, compiled=True),
}


def main() -> None:
    contestant, size, precision, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    setting = Setting.of(size, "bfloat16" if precision == "bfloat16" else "float32")
    if contestant == "trainer":
        run_trainer(setting)
    else:
        serve(CONTESTANTS[contestant](setting), setting.size.warm_up)


if __name__ == "__main__":
    main()
