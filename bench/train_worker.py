"""One contestant of bench_train in a process of its own: `python -m bench.train_worker CONTESTANT SIZE THREADS`.

All train the same weights on the documents of one stream, in order, about as many to a step. The process prints a line
when it is ready, then answers every number of steps it is sent with what they took, as JSON; while another contestant
works it waits. So each has its own allocator, threads and compiled code, and all share the machine's good hours.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
from torch import Tensor

import fastreason as fr
from fastreason import _core
from fastreason.batches import count_targets
from fastreason.budget import train_flop
from fastreason.checkpoint import model_to_hf
from fastreason.optim import Optimizer, OptimSettings
from fastreason.supervised import supervised_loss

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


SIZES = {
    "tiny": Size("tiny", {"op": list(range(2, 11)), "themes": ["symbolic"], "max_value": 199}, 3072, 50),
    "10m": Size("10m", {"op": list(range(2, 11)), "themes": ["zoo"], "max_value": 199}, 4096, 20),
}


@dataclass
class Setting:
    model: fr.Decoder
    tokenizer: fr.Tokenizer
    stream: fr.TaskStream
    size: Size

    @classmethod
    def of(cls, name: str) -> Setting:
        size = SIZES[name]
        mixture = fr.Mixture.from_dict(size.mixture)
        tokenizer = fr.Tokenizer.for_mixtures([mixture])
        # 10m: as large as the paper's 2,200, or what the theme needs
        words = len(tokenizer) if name == "tiny" else max(2200, len(tokenizer))
        model = fr.Decoder(fr.ModelConfig.preset(size.preset, vocab_size=words))
        model.reset_parameters(0)
        return cls(model, tokenizer, fr.TaskStream(mixture, seed=0), size)

    def documents(self) -> Iterator[tuple[np.ndarray, int]]:
        """Token ids of one document after the other, and how many of them are prompt."""
        start = 0
        while True:
            tokens, bounds, prompts = self.stream.encoded(start, 256, self.tokenizer, threads=1)
            for i in range(256):
                yield tokens[bounds[i] : bounds[i + 1]].astype(np.int64), int(prompts[i])
            start += 256


@dataclass
class Work:
    """What some steps did."""

    documents: int = 0
    tokens: int = 0
    """Of the documents, without padding."""
    flop: float = 0.0
    waiting_s: float = 0.0


Step = Callable[[Work], None]


def fastreason_step(setting: Setting) -> Step:
    """The body of `supervised.train`."""
    _core.keep_freed_memory()
    model = setting.model
    optimizer = Optimizer(model, OptimSettings(matrices="adamw", matrix_lr=LR, lr=LR))
    batches = setting.stream.batches(0, 1, setting.size.batch_tokens, setting.tokenizer)

    def step(work: Work) -> None:
        begin = time.perf_counter()
        batch = next(batches)
        work.waiting_s += time.perf_counter() - begin
        supervised_loss(model, batch, "solution").backward()
        optimizer.step(0.5)
        work.documents += len(batch.lengths)
        work.tokens += int(batch.lengths.sum())
        work.flop += train_flop(model.config, batch.lengths, count_targets(batch, "solution"))

    return step


def hf_model(setting: Setting) -> Any:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config, tensors = model_to_hf(setting.model)
    model = Qwen2ForCausalLM(Qwen2Config(**config))
    model.load_state_dict(tensors, strict=False)
    model.tie_weights()
    return model.train()


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


def packed(batch: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """One row of whole documents, as transformers' DataCollatorWithFlattening makes it, up to a round length."""
    ids, labels = (torch.cat([e[name] for e in batch]) for name in ("input_ids", "labels"))
    labels[torch.tensor([0] + [len(e["input_ids"]) for e in batch[:-1]]).cumsum(0)] = -100
    positions = torch.cat([torch.arange(len(e["input_ids"])) for e in batch])
    spare = -len(ids) % 256
    filled = {"input_ids": (ids, 0), "labels": (labels, -100)}
    out = {name: torch.nn.functional.pad(x, (0, spare), value=value)[None] for name, (x, value) in filled.items()}
    return out | {"position_ids": torch.cat([positions, torch.arange(spare)])[None]}


def plain_step(setting: Setting, *, pack: bool, compiled: bool) -> Step:
    """A bare loop around Qwen2ForCausalLM: no Trainer, fused AdamW, batches of similar lengths or packed rows."""
    _core.keep_freed_memory()
    model = hf_model(setting)
    optimizer = torch.optim.AdamW(model.parameters(), LR, fused=True)
    call = torch.compile(model, dynamic=True) if compiled else model
    source, size = examples(setting), setting.size.batch_documents

    def batches() -> Iterator[list[dict[str, Tensor]]]:
        while True:
            pool = [next(source) for _ in range(16 * size)]
            if not pack:
                pool.sort(key=lambda e: len(e["input_ids"]))
            order = np.random.default_rng(0).permutation(16)
            yield from (pool[i * size : (i + 1) * size] for i in order)

    batch_of = batches()

    def step(work: Work) -> None:
        batch = next(batch_of)
        inputs = packed(batch) if pack else padded(batch, ROUND_TO if compiled else 1)
        call(**inputs, use_cache=False).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        work.documents += len(batch)
        work.tokens += sum(len(example["input_ids"]) for example in batch)

    return step


def run_trainer(setting: Setting) -> None:
    """transformers.Trainer as it comes; the batch size is everybody's, checkpoints and progress bars are off."""
    from torch.utils.data import IterableDataset
    from transformers import Trainer, TrainerCallback, TrainingArguments

    class Documents(IterableDataset):  # type: ignore[type-arg]
        def __iter__(self) -> Iterator[dict[str, Tensor]]:
            return examples(setting)

    class Rounds(TrainerCallback):
        """Lets the trainer go on for as many steps as were asked for."""

        left = 3  # not counted, as with the others

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            if not self.left:
                self.left = next(orders)
                counted.documents = counted.tokens = 0
                start_clock()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.left -= 1
            if not self.left and asked[0]:
                report(counted)
            elif not self.left:
                say({"ready": True})

    counted = Work()

    class Counting(Trainer):
        """Counts what is trained on; the collator, which works ahead, would count other batches."""

        def compute_loss(self, model: Any, inputs: dict[str, Any], *more: Any, **named: Any) -> Any:
            counted.documents += len(inputs["input_ids"])
            counted.tokens += int(inputs["attention_mask"].sum())
            return super().compute_loss(model, inputs, *more, **named)

    arguments = TrainingArguments(
        output_dir="build/bench_trainer", per_device_train_batch_size=setting.size.batch_documents, learning_rate=LR,
        max_steps=10**9, save_strategy="no", report_to=[], disable_tqdm=True, use_cpu=True,
        remove_unused_columns=False, dataloader_pin_memory=False,
    )  # fmt: skip
    asked = [0]
    orders = read_orders(asked)
    trainer = Counting(
        hf_model(setting), arguments, data_collator=padded, train_dataset=Documents(), callbacks=[Rounds()]
    )
    trainer.train()


def say(message: dict[str, Any]) -> None:
    print("RESULT " + json.dumps(message), flush=True)


def read_orders(asked: list[int]) -> Iterator[int]:
    for line in sys.stdin:
        asked[0] = int(line)
        yield asked[0]
    os._exit(0)  # the bench is done with this contestant


_began = [0.0, 0.0]


def start_clock() -> None:
    _began[:] = time.perf_counter(), time.process_time()


def report(work: Work) -> None:
    wall_s, cpu_s = time.perf_counter() - _began[0], time.process_time() - _began[1]
    say(asdict(work) | {"wall_s": wall_s, "cpu_s": cpu_s})


CONTESTANTS: dict[str, Callable[[Setting], Step]] = {
    "fastreason": fastreason_step,
    "lengths": lambda setting: plain_step(setting, pack=False, compiled=False),
    "lengths-compiled": lambda setting: plain_step(setting, pack=False, compiled=True),
    "packed-compiled": lambda setting: plain_step(setting, pack=True, compiled=True),
}


def main() -> None:
    contestant, size, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    setting = Setting.of(size)
    if contestant == "trainer":
        run_trainer(setting)
        return
    step = CONTESTANTS[contestant](setting)
    for _ in range(3):  # compiles
        step(Work())
    say({"ready": True})
    for steps in read_orders([0]):
        work = Work()
        start_clock()
        for _ in range(steps):
            step(work)
        report(work)


if __name__ == "__main__":
    main()
