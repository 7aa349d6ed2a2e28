"""What a step of each stage costs here and in the peer stack: transformers.Trainer, TRL's GRPOTrainer and
transformers.generate, on the same pre-trained weights, problems and shapes, one of ours after each of theirs.

The weights are those of a study's first seed, and learning rates are too small to move them: what samples cost depends
on their lengths, and what an update costs us on how many groups are silent, which random weights get wrong. Seconds are
CPU time of this process on CPU, so that neighbours count little, and the clock on the wall on a GPU.

Letters: P prompts, G samples of each.
"""

from __future__ import annotations

import itertools
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, field, replace
from importlib import import_module
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any, Protocol

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch

import fastreason as fr
from fastreason.evaluation.evaluate import EvaluateSettings, streams_of
from fastreason.evaluation.samplers import RolloutSampler
from fastreason.grading.verdicts import grade
from fastreason.model.flop import train_flop
from fastreason.rl.advantages import advantages
from fastreason.rl.groups import counted_rewards
from fastreason.rl.loop import Groups, PolicySettings, stage_reward, update
from fastreason.rl.statistics import pass_flop
from fastreason.runtime.distributed import chosen_device
from fastreason.studies.recipe import Recipe
from fastreason.tasks.mixture import Mixture
from fastreason.tasks.stream import TaskStream
from fastreason.training.optimizer import Optimizer, OptimSettings
from fastreason.training.parallel import Replica
from fastreason.training.row_batches import count_targets
from fastreason.training.supervised import step_loss
from fastreason.training.supervised_settings import SupervisedSettings

from ..suites.train_worker import Setting, Size, examples, padded
from ..suites.transformers_peer import hf_model, hf_sampling

PEERS = {"supervised": "transformers.Trainer", "rl": "TRL GRPOTrainer", "evaluate": "transformers.generate"}
NEEDS = {"supervised": ("transformers", "accelerate"), "rl": ("trl",), "evaluate": ("transformers",)}
# sequences of one backward pass of TRL: all of a step, or a quarter, which took less time at 256 sequences on CPU
TRL_PARTS = 4
_STILL = 1e-9


@dataclass(frozen=True)
class Compared:
    """A step of a stage, ours and the peer's.

    Args:
        kind: supervised, rl or evaluate.
        unit, work: of one step.
        ours, theirs: seconds of each, in turns; theirs is empty where the peer is not installed.
        flop: of one of ours.
        shape: what was done, in numbers.
        facts: what came of it.
    """

    kind: str
    unit: str
    work: float
    ours: list[float]
    theirs: list[float]
    flop: float
    shape: dict[str, int | float | str]
    facts: dict[str, float] = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        """The peer's median seconds over ours."""
        return statistics.median(self.theirs) / statistics.median(self.ours) if self.theirs else None


def compare(
    recipe: Recipe, model: fr.Decoder, starts: Mapping[str, fr.Decoder], tokenizer: fr.Tokenizer, steps: int
) -> list[Compared]:
    """The kinds of work that a recipe has.

    Args:
        recipe: with pretrain, and with rl if there are `starts`.
        model: pre-trained by it; weights stay as they are, up to rounding.
        starts: by a name, models that reinforcement learning starts from.
        steps: of each, after one that is not counted.
    """
    assert recipe.pretrain is not None
    # TRL prints its log and much else warns
    with warnings.catch_warnings(), redirect_stdout(StringIO()):
        warnings.simplefilter("ignore")
        model.to(chosen_device(recipe.device))
        found = [supervised(recipe.pretrain, model, tokenizer, steps)]
        for name, start in starts.items():
            assert recipe.rl is not None
            found.append(reinforcement(name, recipe.rl, start.to(chosen_device(recipe.device)), tokenizer, steps))
        found.append(evaluation(recipe.evaluate, model, tokenizer, steps))
    return found


def missing(kind: str) -> str | None:
    """Why the peer of a kind of work cannot take part; None if it can."""
    absent = [name for name in NEEDS[kind] if find_spec(name) is None]
    return f"{absent[0]} is not installed" if absent else None


def supervised(settings: SupervisedSettings, model: fr.Decoder, tokenizer: fr.Tokenizer, steps: int) -> Compared:
    """Steps on the last phase's documents; seconds are scaled to `batch_tokens` tokens, padding not counted."""
    mixture = settings.phases[-1].mixture
    stream = TaskStream(Mixture.from_dict(mixture), seed=1, split="train")
    bounds = stream.encoded(0, 2048, tokenizer)[1]
    documents = max(1, round(settings.batch_tokens / float(np.diff(bounds).mean())))
    rows = settings.rows or 1
    batches = stream.batches(0, rows, settings.batch_tokens // rows, tokenizer)
    replica, optimizer = Replica(model, settings.parallel), Optimizer(model, _still(settings.optim))
    flop: list[float] = []

    def our_step() -> float:
        batch = next(batches)
        targets = count_targets(batch, settings.loss_on)
        step_loss(replica, batch, targets, settings)
        optimizer.step(0.5)
        tokens = int(batch.lengths.sum())
        flop.append(train_flop(model.config, batch.lengths, targets) * settings.batch_tokens / tokens)
        return tokens / settings.batch_tokens

    setting = Setting(model, tokenizer, stream, Size("", {}, settings.batch_tokens, documents, warm_up=0))
    ours, theirs = _in_turns(our_step, _trainer(setting, settings.loss_on), steps, missing("supervised"))
    shape: dict[str, int | float | str] = {"batch_tokens": settings.batch_tokens, "documents": documents}
    work = float(settings.batch_tokens)
    return Compared("supervised", "tokens", work, ours, theirs, statistics.median(flop), shape)


def reinforcement(
    name: str, settings: PolicySettings, model: fr.Decoder, tokenizer: fr.Tokenizer, steps: int
) -> Compared:
    """Steps that sample, grade and update; each has its own prompts, the same for both."""
    stream = TaskStream(Mixture.from_dict(settings.mixture), seed=1, split="rl")
    engine, optimizer = fr.Rollout(model, tokenizer), Optimizer(model, _still(settings.optim))
    reward_of, turn = stage_reward(settings), itertools.count()
    flop: list[float] = []
    lengths: list[float] = []
    silent: list[float] = []

    def our_step() -> float:
        first = next(turn) * settings.prompts
        problems = stream[first : first + settings.prompts]
        samples = engine.generate(
            problems, settings.samples, temperature=settings.temperature, max_new_tokens=settings.max_new_tokens
        )
        verdicts = grade(problems, samples.tokens, tokenizer=tokenizer)
        counted, in_loss = counted_rewards(reward_of(problems, samples, verdicts), samples, settings.truncated)
        rewards = torch.from_numpy(counted)
        groups = Groups.of(samples, rewards, in_loss=in_loss)
        update(model, optimizer, groups, advantages(rewards, settings.samples), settings, 0.5)
        lengths.append(float(samples.lengths.mean()))
        silent.append(float((groups.rewards.reshape(settings.prompts, -1).std(1) == 0).float().mean()))
        counts = samples.lengths.reshape(settings.prompts, settings.samples)
        # of sampling, and of an update that leaves no group out
        flop.append(4.0 * pass_flop(model.config, np.diff(samples.prompt_offsets), counts))
        return 1.0

    ours, theirs = _in_turns(our_step, _grpo(settings, model, tokenizer, stream), steps, missing("rl"))
    shape: dict[str, int | float | str] = {"prompts": settings.prompts, "samples": settings.samples}
    shape |= {"max_new_tokens": settings.max_new_tokens, "start": name}
    facts = {"mean_length": statistics.mean(lengths), "silent_groups": statistics.mean(silent)}
    return Compared("rl", "steps", 1.0, ours, theirs, statistics.median(flop), shape, facts)


def evaluation(
    settings: EvaluateSettings, model: fr.Decoder, tokenizer: fr.Tokenizer, steps: int, per_op: int = 1
) -> Compared:
    """Samples of some problems of every op, graded; the same problems in every step."""
    problems = [stream[0:per_op] for stream in streams_of(Mixture.from_dict(settings.mixture)).values()]
    sampler = RolloutSampler(model, tokenizer, settings.sampling)

    def our_step() -> float:
        for batch in problems:
            sampler.sample(batch, settings.samples, 0)
        return 1.0

    def their_steps(between: Between, count: int) -> None:
        generate = _generate(settings, model, tokenizer, [prompt for batch in problems for prompt in batch.prompts])
        for _ in range(count):
            tokens = generate()
            for i, batch in enumerate(problems):
                rows = tokens[i * per_op * settings.samples : (i + 1) * per_op * settings.samples]
                grade(batch, rows, tokenizer=tokenizer)
            between()

    ours, theirs = _in_turns(our_step, their_steps, steps, missing("evaluate"))
    shape: dict[str, int | float | str] = {"problems": per_op * len(problems), "samples": settings.samples}
    return Compared("evaluate", "problems", float(per_op * len(problems)), ours, theirs, 0.0, shape)


def _still(optim: OptimSettings) -> OptimSettings:
    return replace(optim, matrix_lr=_STILL, lr=_STILL)


class Between(Protocol):
    """Called behind each of a peer's steps: times it, then makes one of ours."""

    def __call__(self, scale: float = 1.0) -> None:
        """`scale` is how large the peer's step was."""
        ...


Peer = Callable[[Between, int], None]
"""Makes so many steps of the peer's, with a call behind each."""


def _in_turns(
    our_step: Callable[[], float], peer: Peer, steps: int, absent: str | None
) -> tuple[list[float], list[float]]:
    """Seconds of our steps and of the peer's, the first of either not counted; `our_step` returns how large it was."""
    on_gpu = torch.cuda.is_available()
    ours: list[float] = []
    theirs: list[float] = []

    def clock() -> float:
        if on_gpu:
            torch.cuda.synchronize()
        return time.perf_counter() if on_gpu else time.process_time()

    def ours_now() -> None:
        begin = clock()
        scale = our_step()
        ours.append((clock() - begin) / scale)

    if absent is not None:
        for _ in range(steps + 1):
            ours_now()
        return ours[1:], []
    begun = [clock()]

    def between(scale: float = 1.0) -> None:
        theirs.append((clock() - begun[0]) / scale)
        ours_now()
        begun[0] = clock()

    peer(between, steps + 1)
    return ours[1:], theirs[1:]


def _trainer(setting: Setting, loss_on: str) -> Peer:
    """transformers.Trainer as it comes: AdamW, documents in their order, padded to the longest of a batch."""

    def run(between: Between, count: int) -> None:
        from torch.utils.data import IterableDataset
        from transformers import Trainer, TrainerCallback, TrainingArguments

        counted = [0]

        class Documents(IterableDataset):  # type: ignore[type-arg]
            def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
                for example in examples(setting):
                    yield example if loss_on == "solution" else example | {"labels": example["input_ids"].clone()}

        class Counting(Trainer):
            def compute_loss(self, model: Any, inputs: dict[str, Any], *more: Any, **named: Any) -> Any:
                counted[0] = int(inputs["attention_mask"].sum())
                return super().compute_loss(model, inputs, *more, **named)

        class Interleave(TrainerCallback):
            def on_step_end(self, *_: Any, **__: Any) -> None:
                between(counted[0] / setting.size.batch_tokens)

        with tempfile.TemporaryDirectory() as folder:
            arguments = TrainingArguments(
                output_dir=folder, per_device_train_batch_size=setting.size.batch_documents, learning_rate=_STILL,
                max_steps=count, save_strategy="no", report_to=[], disable_tqdm=True, use_cpu=_on_cpu(),
                bf16=not _on_cpu(), remove_unused_columns=False, dataloader_pin_memory=False,
            )  # fmt: skip
            Counting(
                hf_model(setting.model).train(),
                arguments,
                data_collator=padded,
                train_dataset=Documents(),
                callbacks=[Interleave()],
            ).train()

    return run


def _grpo(settings: PolicySettings, model: fr.Decoder, tokenizer: fr.Tokenizer, stream: TaskStream) -> Peer:
    """TRL's GRPOTrainer with the library's reward; all else as it comes."""

    def run(between: Between, count: int) -> None:
        import transformers

        from fastreason.integrations.trl import prompts, reward

        trl: Any = import_module("trl")
        transformers.logging.set_verbosity_error()

        class Interleave(transformers.TrainerCallback):
            def on_step_end(self, *_: Any, **__: Any) -> None:
                between()

        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(Path(folder) / "model", tokenizer)
            sequences = settings.prompts * settings.samples
            parts = TRL_PARTS if sequences % (TRL_PARTS * settings.samples) == 0 else 1
            config = trl.GRPOConfig(
                output_dir=folder, per_device_train_batch_size=sequences // parts, gradient_accumulation_steps=parts,
                num_generations=settings.samples, max_completion_length=settings.max_new_tokens, max_steps=count,
                beta=settings.kl_coef, temperature=settings.temperature, learning_rate=_STILL, use_cpu=_on_cpu(),
                bf16=not _on_cpu(), save_strategy="no", report_to=[], disable_tqdm=True, shuffle_dataset=False,
                gradient_checkpointing=False,
            )  # fmt: skip
            trainer = trl.GRPOTrainer(
                str(Path(folder) / "model"), reward(settings.reward, tokenizer=tokenizer, threads=1), config,
                prompts(stream, stop=settings.prompts * count), callbacks=[Interleave()],
                processing_class=transformers.PreTrainedTokenizerFast.from_pretrained(Path(folder) / "model"),
            )  # fmt: skip
            trainer.train()

    return run


def _generate(
    settings: EvaluateSettings, model: fr.Decoder, tokenizer: fr.Tokenizer, prompts: list[str]
) -> Callable[[], np.ndarray]:
    """transformers' own loop; int32 [P * G, L] new tokens."""
    generate = hf_sampling(
        model, tokenizer, prompts, settings.samples, temperature=settings.temperature, top_k=settings.top_k,
        top_p=settings.top_p, max_new_tokens=settings.max_new_tokens,
        eos_token_id=[tokenizer.answer_close_id, tokenizer.eos_id],
    )  # fmt: skip
    return lambda: generate().to("cpu", torch.int32).numpy()


def _on_cpu() -> bool:
    return not torch.cuda.is_available()
