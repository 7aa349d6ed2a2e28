"""Pre-training and mid-training: one loop over the task stream.

    stream -> packed segments -> loss on the solution -> backward -> clip -> step

The state of a stage is its weights, its optimizer and two integers (the step and the index of the next problem), so it
continues after a stop with the same batches as if it had not stopped.

Letters: T tokens of a batch, N of them with a loss.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from . import checkpoint, ops
from .kernels.segments import Segments
from .metrics import Clock, Interrupted, MetricsLog, StopRequest, progress_bar
from .model import Decoder
from .optim import Optimizer, OptimSettings
from .tasks import Mixture, PackedBatch, TaskStream
from .tokenizer import Tokenizer


@dataclass(frozen=True)
class Phase:
    """A part of a stage with a mixture of its own."""

    __pydantic_config__ = {"extra": "forbid"}

    until: float
    """Share of the stage's tokens at which the phase ends; the last phase ends at 1."""
    mixture: list[dict[str, Any]]
    """Parts of a `Mixture`, as for `Mixture.from_dict`."""


@dataclass(frozen=True)
class SupervisedSettings:
    """A pre-training or mid-training stage."""

    __pydantic_config__ = {"extra": "forbid"}

    phases: list[Phase]
    """What is trained on, one phase after the other."""
    tokens: int = 10_000_000
    """Length of the stage: training tokens, prompts included."""
    batch_tokens: int = 3072
    """Tokens of a step."""
    loss_on: Literal["solution", "all"] = "solution"
    """Which tokens have a loss."""
    optim: OptimSettings = field(default_factory=OptimSettings)
    """Optimizer and schedule."""
    save_every_s: float = 30.0
    """Seconds between checkpoints."""

    def __post_init__(self) -> None:
        if self.tokens < 1 or self.batch_tokens < 64:
            raise ValueError(
                f"supervised: need tokens >= 1 and batch_tokens >= 64, got {self.tokens} and {self.batch_tokens}"
            )
        bounds = [phase.until for phase in self.phases]
        if not bounds or bounds != sorted(bounds) or bounds[0] <= 0 or bounds[-1] != 1.0:
            raise ValueError(f"supervised: phases must end at rising shares, the last at 1.0, got {bounds}")

    @property
    def mixtures(self) -> list[Mixture]:
        return [Mixture.from_dict(phase.mixture) for phase in self.phases]


def train(
    name: str,
    model: Decoder,
    tokenizer: Tokenizer,
    settings: SupervisedSettings,
    *,
    seed: int,
    folder: Path,
    log: MetricsLog,
    stop: StopRequest,
) -> dict[str, Any]:
    """Trains `model` in place and leaves the finished checkpoint in `folder`; continues one that is there.

    Returns:
        The progress that the checkpoint holds: step, tokens, seconds, next_index, finished.
    Raises:
        Interrupted: `stop` was requested; the checkpoint continues from here.
        FloatingPointError: the loss is not finite; the last checkpoint is kept.
    """
    optimizer = Optimizer(model, settings.optim)
    progress: dict[str, Any] = {"step": 0, "tokens": 0, "next_index": 0, "seconds": 0.0, "finished": False}
    if found := checkpoint.find_checkpoint(folder):
        progress = checkpoint.load_progress(found)
        model.load_state_dict(checkpoint.load_model(found).state_dict())
        if progress["finished"]:
            return progress
        checkpoint.load_optimizer(found, optimizer)
    log.forget_after(name, progress["step"])
    streams = [TaskStream(mixture, seed=seed, split="train") for mixture in settings.mixtures]
    clock = Clock(progress["seconds"])
    last_save = clock.seconds()
    bar = progress_bar(name, settings.tokens, progress["tokens"])

    while not progress["finished"]:
        done = progress["tokens"] / settings.tokens
        phase = next(i for i, phase in enumerate(settings.phases) if done < phase.until)
        batch = streams[phase].packed(progress["next_index"], 1, settings.batch_tokens, tokenizer, threads=1)
        loss = supervised_loss(model, batch, settings.loss_on)
        loss.backward()
        grad_norm = optimizer.step(done)

        num_tokens = int(batch.lengths.sum())
        progress["step"] += 1
        progress["tokens"] += num_tokens
        progress["next_index"] = batch.next_index
        progress["seconds"] = clock.seconds()
        progress["finished"] = progress["tokens"] >= settings.tokens
        if not math.isfinite(loss.item()):
            raise FloatingPointError(f"{name}: the loss is {loss.item()} at step {progress['step']}")
        if progress["step"] % 10 == 0 or progress["finished"]:
            tokens_per_s = progress["tokens"] / progress["seconds"]
            log.write(name, **_counters(progress), loss=loss.item(), grad_norm=grad_norm, tokens_per_s=tokens_per_s)
            bar.set_postfix_str(f"loss {loss.item():.3f}", refresh=False)
        bar.update(num_tokens)
        if progress["finished"] or stop.requested or clock.seconds() - last_save > settings.save_every_s:
            checkpoint.save_checkpoint(folder, model, tokenizer, None if progress["finished"] else optimizer, progress)
            last_save = clock.seconds()
        if stop.requested:
            bar.close()
            raise Interrupted(name)
    bar.close()
    return progress


def supervised_loss(model: Decoder, batch: PackedBatch, loss_on: str) -> torch.Tensor:
    """Mean cross entropy of the next token over the batch's solution tokens, or over all of its tokens."""
    keep_T = torch.zeros(len(batch.tokens), dtype=torch.bool)
    starts, lengths = torch.from_numpy(batch.starts).long(), torch.from_numpy(batch.lengths).long()
    token_at = torch.arange(int(lengths.sum())) + (starts - (lengths.cumsum(0) - lengths)).repeat_interleave(lengths)
    keep_T[token_at] = True
    tokens_T = torch.from_numpy(batch.tokens)[token_at].long()
    segments = Segments.from_lengths(lengths)
    if loss_on == "solution":
        target_T = torch.from_numpy(batch.loss_mask)[token_at].bool()
    else:
        target_T = torch.ones(len(tokens_T), dtype=torch.bool)
    target_T[segments.start] = False  # nothing precedes the first token of a document
    target_N = target_T.nonzero().squeeze(1)
    hidden = model(tokens_T, segments)
    return ops.cross_entropy(model.logits(hidden[target_N - 1]), tokens_T[target_N])


def _counters(progress: Mapping[str, Any]) -> dict[str, Any]:
    return {key: progress[key] for key in ("step", "tokens", "seconds")}
