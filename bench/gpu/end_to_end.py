"""A step of training, a step of reinforcement learning and an evaluation, of the quickstart's model and of 100m.

Weights are random, so every sample has its full length. Each item is timed between two waits for the GPU, then done
once more under torch.profiler: how long the GPU was busy, and with what. transformers trains and samples the same
model on the same tokens. In a rehearsal everything is small and runs on the CPU.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

import fastreason as fr
from fastreason.evaluation.evaluate import EvaluateSettings, evaluate_sampler
from fastreason.evaluation.samplers import RolloutSampler, Sampling
from fastreason.model.flop import train_flop
from fastreason.rl.advantages import advantages
from fastreason.rl.loop import Groups, PolicySettings, update
from fastreason.training.optimizer import Optimizer, OptimSettings
from fastreason.training.row_batches import count_targets
from fastreason.training.supervised import supervised_loss

from ..suites.transformers_peer import hf_model, hf_sampling
from .items import Item, Outcome, Place, Skipped

__all__ = ["LIMIT_S", "items"]

LIMIT_S = 240.0

Work = Callable[[], Mapping[str, float]]
NEVER: list[int | str] = []  # no token ends a sample


@dataclass(frozen=True)
class Size:
    """Of a model and of what it is given.

    Args:
        batch_tokens: of a step of training.
        prompts, samples, new_tokens: of a step of reinforcement learning and of an evaluation.
    """

    preset: str
    ops: tuple[int, ...]
    theme: str
    batch_tokens: int
    prompts: int
    samples: int
    new_tokens: int

    @property
    def mixture(self) -> dict[str, Any]:
        return {"op": list(self.ops), "themes": [self.theme], "max_value": 199}


SIZES = {
    "quickstart": Size("tiny", (2, 3, 4, 5), "symbolic", 3072, 32, 16, 128),
    "100m": Size("100m", tuple(range(2, 11)), "zoo", 65536, 64, 16, 256),
}
REHEARSAL = Size("tiny", (2, 3), "symbolic", 256, 2, 2, 4)  # of either model


def items(place: Place) -> Iterator[tuple[str, Item]]:
    works = {"train": train, "rl": reinforce, "evaluate": evaluate}
    peers = {"train, transformers": train_transformers, "sample": sample, "sample, transformers": sample_transformers}
    for name in SIZES:
        for what, build in (works | peers).items():
            yield f"{name}, {what}", partial(step, name, what, build)


def step(name: str, what: str, build: Callable[[Setting, Place], Work], place: Place) -> Outcome:
    if what.endswith("transformers") and find_spec("transformers") is None:
        raise Skipped("transformers is not installed")
    setting = setting_of(REHEARSAL if place.rehearsed else SIZES[name], place.device)
    work = build(setting, place)
    for _ in range(1 if place.rehearsed else 2):
        work()
    place.wait()
    times: list[float] = []
    amounts: list[Mapping[str, float]] = []
    while not times or (len(times) < 20 and sum(times) < 10 and not place.rehearsed):
        begin = time.perf_counter()
        amounts.append(work())
        place.wait()
        times.append(time.perf_counter() - begin)
    median = sorted(range(len(times)), key=times.__getitem__)[len(times) // 2]
    measured: dict[str, Any] = {"seconds": times[median], "steps": len(times), **amounts[median]}
    if place.device == "cuda":
        measured["memory_bytes"] = torch.cuda.max_memory_allocated()
    return Outcome(measured | profile(work, place), vars(setting.size))


def profile(work: Work, place: Place) -> dict[str, Any]:
    """What a GPU did in a call, by kernel."""
    # of a thousand steps of decoding the CPU's part would be millions of events
    kind = torch.profiler.ProfilerActivity
    activities = [kind.CPU] if place.rehearsed else [kind.CUDA]
    begin = time.perf_counter()
    with torch.profiler.profile(activities=activities) as profiler:
        work()
        place.wait()
    return summary(profiler.key_averages(), time.perf_counter() - begin)


def summary(events: Iterable[Any], wall_s: float, most: int = 15) -> dict[str, Any]:
    """Time on the GPU, in all and by kernel. What the CPU did names the same time again, so it is left out."""
    found = [event for event in events if event.device_type.name != "CPU" and not event.is_user_annotation]
    found.sort(key=lambda event: -event.self_device_time_total)
    kernels = [
        {"name": event.key[:100], "calls": event.count, "seconds": event.self_device_time_total / 1e6}
        for event in found[:most]
    ]
    busy_s = sum(event.self_device_time_total for event in found) / 1e6
    launches = sum(event.count for event in found)
    return {"profiled_seconds": wall_s, "busy_seconds": busy_s, "launches": launches, "kernels": kernels}


@dataclass
class Setting:
    size: Size
    model: fr.Decoder
    tokenizer: fr.Tokenizer
    stream: fr.TaskStream


@cache
def setting_of(size: Size, device: str) -> Setting:
    mixture = fr.Mixture.from_dict(size.mixture)
    tokenizer = fr.Tokenizer.for_mixtures([mixture])
    words = len(tokenizer) if size.preset == "tiny" else max(2200, len(tokenizer))
    model = fr.Decoder(fr.ModelConfig.preset(size.preset, vocab_size=words))
    model.reset_parameters(0)
    return Setting(size, model.to(device), tokenizer, fr.TaskStream(mixture, seed=0, split="rl"))


def train(setting: Setting, place: Place) -> Work:
    """A batch of documents, forward and backward, and a step of the optimizer."""
    optimizer = Optimizer(setting.model, OptimSettings(matrices="muon", matrix_lr=1e-4, lr=1e-4))
    batches = setting.stream.batches(0, 1, setting.size.batch_tokens, setting.tokenizer)

    def work() -> Mapping[str, float]:
        batch = next(batches)
        supervised_loss(setting.model, batch, "all", "auto").backward()
        optimizer.step(0.5)
        flop = train_flop(setting.model.config, batch.lengths, count_targets(batch, "all"))
        return {"tokens": float(batch.lengths.sum()), "flop": float(flop)}

    return work


def reinforce(setting: Setting, place: Place) -> Work:
    """Samples, grades and updates. Random weights solve nothing: every other sample is paid, so all groups train."""
    size = setting.size
    optim = OptimSettings(matrices="adamw", matrix_lr=1e-5, lr=1e-5, schedule="constant")
    settings = PolicySettings(mixture=[size.mixture], prompts=size.prompts, samples=size.samples, optim=optim)
    engine, optimizer = fr.Rollout(setting.model, setting.tokenizer), Optimizer(setting.model, optim)

    def work() -> Mapping[str, float]:
        begin = time.perf_counter()
        problems = setting.stream[0 : size.prompts]
        samples = engine.generate(problems, size.samples, max_new_tokens=size.new_tokens, stop=NEVER)
        place.wait()
        sampled = time.perf_counter()
        verdicts = fr.grade(problems, samples.tokens, tokenizer=setting.tokenizer)
        rewards = torch.from_numpy(fr.rewards.strict(verdicts) + np.arange(len(samples)) % 2).float()
        graded = time.perf_counter()
        update(setting.model, optimizer, Groups.of(samples, rewards), advantages(rewards, size.samples), settings, 0.5)
        place.wait()
        phases = {"sampling": sampled - begin, "grading": graded - sampled, "updating": time.perf_counter() - graded}
        return {"tokens": float(samples.num_new_tokens), **phases}

    return work


def evaluate(setting: Setting, place: Place) -> Work:
    size = setting.size
    settings = EvaluateSettings([size.mixture], problems=-(-size.prompts // 8), samples=size.samples, k=[1])
    sampler = RolloutSampler(setting.model, setting.tokenizer, Sampling(max_new_tokens=size.new_tokens))

    def work() -> Mapping[str, float]:
        evaluate_sampler(sampler, settings)
        return {"samples": float(len(size.ops) * settings.problems * size.samples)}

    return work


def sample(setting: Setting, place: Place) -> Work:
    """What `sample, transformers` does: sampling alone."""
    size, engine = setting.size, fr.Rollout(setting.model, setting.tokenizer)

    def work() -> Mapping[str, float]:
        out = engine.generate(
            setting.stream[0 : size.prompts], size.samples, max_new_tokens=size.new_tokens, stop=NEVER
        )
        return {"tokens": float(out.num_new_tokens)}

    return work


def sample_transformers(setting: Setting, place: Place) -> Work:
    size = setting.size
    how: dict[str, Any] = {
        "max_new_tokens": size.new_tokens,
        "min_new_tokens": size.new_tokens,
        "temperature": 1.0,
        "top_k": 0,
    }
    prompts = setting.stream[0 : size.prompts].prompts
    generate = hf_sampling(setting.model, setting.tokenizer, prompts, size.samples, **how)

    def work() -> Mapping[str, float]:
        with torch.autocast(place.device, torch.bfloat16, enabled=not place.rehearsed):
            return {"tokens": float(generate().numel())}

    return work


def train_transformers(setting: Setting, place: Place) -> Work:
    """The same documents, padded to the longest, in bfloat16 with torch's AdamW."""
    theirs = hf_model(setting.model).to(place.device).train()
    optimizer = torch.optim.AdamW(theirs.parameters(), lr=1e-4)
    batches = setting.stream.batches(0, 1, setting.size.batch_tokens, setting.tokenizer)

    def work() -> Mapping[str, float]:
        batch = next(batches)
        documents = [
            torch.from_numpy(batch.tokens.reshape(-1)[start : start + length]).long()
            for start, length in zip(batch.starts.tolist(), batch.lengths.tolist(), strict=True)
        ]
        ids = torch.nn.utils.rnn.pad_sequence(documents, batch_first=True, padding_value=setting.tokenizer.pad_id)
        longest = ids.shape[1]
        mask = torch.arange(longest)[None] < torch.tensor([len(one) for one in documents])[:, None]
        ids, mask = ids.to(place.device), mask.to(place.device)
        with torch.autocast(place.device, torch.bfloat16, enabled=not place.rehearsed):
            logits = theirs(input_ids=ids, attention_mask=mask.long()).logits[:, :-1]
            labels = torch.where(mask, ids, -100)[:, 1:]
            loss = F.cross_entropy(logits.reshape(-1, logits.shape[-1]).float(), labels.reshape(-1))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return {"tokens": float(mask.sum())}

    return work
