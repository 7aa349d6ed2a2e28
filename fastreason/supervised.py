"""Pre-training and mid-training: one loop over the task stream.

    stream -> packed segments -> loss on the solution -> backward -> clip -> step

The state of a stage is its weights, its optimizer and a few counters (step, index of the next problem, what is used of
the budget), so it continues after a stop with the same batches as if it had not stopped.

Letters: T tokens of a batch, N of them with a loss.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F

from . import _core, checkpoint, ops
from .budget import Budget, account, matmul_peak, train_flop
from .kernels.linear import ROW_MULTIPLE
from .kernels.segments import Segments
from .machine import package_version
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
    tokens: int | None = None
    """Length of the stage: training tokens, prompts included. 10 million if `budget` is not given either."""
    budget: str | None = None
    """Length of the stage in another unit, instead of `tokens`: "1e15 flop", "600 seconds" or "20000 samples"."""
    batch_tokens: int = 3072
    """Tokens of a step."""
    accumulate: int = 1
    """Parts of a step that go through the model one after the other, which saves memory; the update is the same."""
    loss_on: Literal["solution", "all"] = "solution"
    """Which tokens have a loss."""
    optim: OptimSettings = field(default_factory=OptimSettings)
    """Optimizer and schedule."""
    save_every_s: float = 30.0
    """Seconds between checkpoints."""
    keep: int = 1
    """Newest checkpoints that stay."""
    validate_every: int = 0
    """Steps between two losses on the split `val`, the same problems each time; 0: never. The best is kept apart."""
    validation_tokens: int = 16_384
    """Tokens of a validation, of the last phase's mixture."""

    def __post_init__(self) -> None:
        if self.tokens is not None and self.budget is not None:
            raise ValueError(f"supervised: give tokens or budget, not both, got {self.tokens} and {self.budget!r}")
        if (self.tokens is not None and self.tokens < 1) or self.batch_tokens < 64:
            raise ValueError(
                f"supervised: need tokens >= 1 and batch_tokens >= 64, got {self.tokens} and {self.batch_tokens}"
            )
        for name, low in (("accumulate", 1), ("keep", 1), ("validate_every", 0), ("validation_tokens", 64)):
            if getattr(self, name) < low:
                raise ValueError(f"supervised: {name} must be at least {low}, got {getattr(self, name)}")
        self.limit  # noqa: B018 - a budget that cannot be read is an error here
        bounds = [phase.until for phase in self.phases]
        if not bounds or bounds != sorted(bounds) or bounds[0] <= 0 or bounds[-1] != 1.0:
            raise ValueError(f"supervised: phases must end at rising shares, the last at 1.0, got {bounds}")

    @property
    def limit(self) -> Budget:
        """When the stage ends."""
        return Budget.parse(self.budget) if self.budget is not None else Budget(tokens=self.tokens or 10_000_000)

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
        The progress that the checkpoint holds: step, tokens, samples, flop, seconds, next_index, best_loss, finished.
    Raises:
        Interrupted: `stop` was requested; the checkpoint continues from here.
        FloatingPointError: the loss or the gradient is not finite. The last checkpoint is kept, and `replay` repeats
            the step from what was saved of it.
        OSError: a checkpoint could not be written; the last one is kept.
    """
    optimizer, limit = Optimizer(model, settings.optim), settings.limit
    progress: dict[str, Any] = {"step": 0, "tokens": 0, "samples": 0, "flop": 0.0, "seconds": 0.0}
    progress |= {"next_index": 0, "best_loss": None, "finished": False}
    if found := checkpoint.find_checkpoint(folder):
        progress |= checkpoint.restore(found, model, optimizer)
        if progress["finished"]:
            return progress
    log.forget_after(name, progress["step"])
    versions = {package: package_version(package) for package in ("fastreason", "torch")}
    facts = {"stage": name, "seed": seed, "settings": asdict(settings), "versions": versions}
    _core.keep_freed_memory()  # a step frees and takes the same blocks again; giving them back in between costs a fifth
    streams = [TaskStream(mixture, seed=seed, split="train") for mixture in settings.mixtures]
    validation = list(validation_batches(settings, tokenizer)) if settings.validate_every else []
    peak = matmul_peak(model.embedding.weight.device, model.embedding.weight.dtype)
    clock = Clock(progress["seconds"])
    last_save = clock.seconds()
    bar = progress_bar(name, limit.amount, progress[limit.unit], unit=limit.unit)

    while not progress["finished"]:
        done = limit.share_done(progress)
        phase = next(i for i, phase in enumerate(settings.phases) if done < phase.until)
        batch = streams[phase].packed(progress["next_index"], 1, settings.batch_tokens, tokenizer, threads=1)
        num_targets = count_targets(batch, settings.loss_on)
        if not num_targets:
            raise ValueError(
                f"{name}: batch_tokens = {settings.batch_tokens} is too short for problem {progress['next_index']}"
            )
        loss = 0.0
        for part in split_batch(batch, settings.accumulate):
            if share := count_targets(part, settings.loss_on) / num_targets:
                part_loss = supervised_loss(model, part, settings.loss_on) * share
                part_loss.backward()
                loss += part_loss.item()
        try:
            grad_norm = optimizer.step(done) if math.isfinite(loss) else math.nan
        except FloatingPointError:
            grad_norm = math.inf
        if not math.isfinite(grad_norm):
            raise _failure(folder, model, tokenizer, facts, progress, phase, loss)

        progress["step"] += 1
        progress["tokens"] += int(batch.lengths.sum())
        progress["samples"] += len(batch.lengths)
        progress["flop"] += train_flop(model.config, batch.lengths, num_targets)
        progress["next_index"] = batch.next_index
        progress["seconds"] = clock.seconds()
        progress["finished"] = limit.share_done(progress) >= 1.0
        line = {"loss": loss, "grad_norm": grad_norm}
        if validation and (progress["step"] % settings.validate_every == 0 or progress["finished"]):
            line["val_loss"] = validation_loss(model, validation, settings.loss_on)
            if line["val_loss"] < (math.inf if progress["best_loss"] is None else progress["best_loss"]):
                progress["best_loss"] = line["val_loss"]
                best = checkpoint.best_checkpoint(folder)
                checkpoint.save_checkpoint(best, model, tokenizer, optimizer, progress, facts=facts)
        if progress["step"] % 10 == 0 or progress["finished"] or "val_loss" in line:
            rates = account(progress, peak)
            log.write(name, **_counters(progress), **line, **rates)
            bar.set_postfix_str(_postfix(loss, rates), refresh=False)
        bar.update(min(progress[limit.unit], limit.amount) - bar.n)
        if progress["finished"] or stop.requested or clock.seconds() - last_save > settings.save_every_s:
            state = None if progress["finished"] else optimizer
            checkpoint.save_checkpoint(folder, model, tokenizer, state, progress, keep=settings.keep, facts=facts)
            last_save = clock.seconds()
        if stop.requested:
            bar.close()
            raise Interrupted(name)
    bar.close()
    return progress


def supervised_loss(model: Decoder, batch: PackedBatch, loss_on: str) -> torch.Tensor:
    """Mean cross entropy of the next token over the batch's solution tokens, or over all of its tokens."""
    starts, lengths = torch.from_numpy(batch.starts).long(), torch.from_numpy(batch.lengths).long()
    token_at = torch.arange(int(lengths.sum())) + (starts - (lengths.cumsum(0) - lengths)).repeat_interleave(lengths)
    tokens_T = torch.from_numpy(batch.tokens)[token_at].long()
    segments = Segments.from_lengths(lengths)
    if loss_on == "solution":
        target_T = torch.from_numpy(batch.loss_mask)[token_at].bool()
    else:
        target_T = torch.ones(len(tokens_T), dtype=torch.bool)
    target_T[segments.start] = False  # nothing precedes the first token of a document
    target_N = target_T.nonzero().squeeze(1)
    labels_N = tokens_T[target_N]
    # padding tokens and rows without a loss, so that products have one of few shapes
    tokens_T, segments = F.pad(tokens_T, (0, -len(tokens_T) % ROW_MULTIPLE)), segments.padded(ROW_MULTIPLE)
    spare = -len(target_N) % ROW_MULTIPLE
    hidden = model(tokens_T, segments)
    logits_NV = model.logits(hidden[F.pad(target_N - 1, (0, spare))])
    return ops.cross_entropy(logits_NV, F.pad(labels_N, (0, spare), value=-100))


def count_targets(batch: PackedBatch, loss_on: str) -> int:
    """N: tokens of the batch's documents that have a loss."""
    if loss_on == "all":
        return int(batch.lengths.sum()) - len(batch.lengths)
    counted = np.concatenate([[0], batch.loss_mask.cumsum(dtype=np.int64)])
    inside = counted[batch.starts + batch.lengths] - counted[batch.starts]
    return int(inside.sum()) - int(batch.loss_mask[batch.starts].sum())


def split_batch(batch: PackedBatch, parts: int) -> list[PackedBatch]:
    """The documents of a batch, in order, in `parts` parts of about as many tokens; fewer if there are fewer documents.

    The parts share the batch's arrays, so that nothing is copied.
    """
    if parts == 1:
        return [batch]
    middle = batch.lengths.cumsum() - batch.lengths / 2
    part_of = (middle * parts / batch.lengths.sum()).astype(np.int64)
    return [
        replace(batch, starts=batch.starts[part_of == i], lengths=batch.lengths[part_of == i])
        for i in np.unique(part_of)
    ]


def validation_batches(settings: SupervisedSettings, tokenizer: Tokenizer) -> Iterator[PackedBatch]:
    """The first problems of the split `val`, the same for every seed, so that runs compare on the same text."""
    stream = TaskStream(settings.mixtures[-1], seed=0, split="val")
    index, tokens = 0, 0
    while tokens < settings.validation_tokens:
        batch = stream.packed(index, 1, settings.batch_tokens, tokenizer, threads=1)
        index, tokens = batch.next_index, tokens + int(batch.lengths.sum())
        yield batch


@torch.no_grad()
def validation_loss(model: Decoder, batches: Sequence[PackedBatch], loss_on: str) -> float:
    """Mean cross entropy over all targets of the batches."""
    counts = [count_targets(batch, loss_on) for batch in batches]
    losses = [supervised_loss(model, batch, loss_on).item() for batch in batches]
    return sum(n * loss for n, loss in zip(counts, losses, strict=True)) / sum(counts)


def replay(folder: str | Path) -> tuple[Decoder, PackedBatch, torch.Tensor]:
    """Repeats the step at which a stage stopped because a number was not finite.

    Args:
        folder: what the error named.
    Returns:
        The model with the weights before the step and the gradients of it (not clipped), the batch, and its loss.
    """
    tokenizer, model = Tokenizer.from_pretrained(folder), checkpoint.load_model(folder)
    failed = checkpoint.load_progress(folder)
    stream = TaskStream(Mixture.from_dict(failed["mixture"]), seed=failed["seed"], split="train")
    batch = stream.packed(failed["next_index"], 1, failed["batch_tokens"], tokenizer, threads=1)
    loss = supervised_loss(model, batch, failed["loss_on"])
    loss.backward()
    return model, batch, loss.detach()


def _failure(
    folder: Path,
    model: Decoder,
    tokenizer: Tokenizer,
    facts: Mapping[str, Any],
    progress: Mapping[str, Any],
    phase: int,
    loss: float,
) -> FloatingPointError:
    """Saves the weights before the step and where its batch begins; returns the error that says so."""
    settings, place = facts["settings"], folder.with_name(folder.name + "-failed")
    failed = {key: settings[key] for key in ("batch_tokens", "loss_on")} | {"seed": facts["seed"]}
    failed |= {"mixture": settings["phases"][phase]["mixture"], "next_index": progress["next_index"]}
    what = (
        f"the norm of the gradients is not finite (loss {loss:.6g})" if math.isfinite(loss) else f"the loss is {loss}"
    )
    message = (
        f"{facts['stage']}: {what} at step {progress['step'] + 1}, whose batch begins at problem "
        f"{progress['next_index']} of phase {phase}"
    )
    try:
        checkpoint.save_checkpoint(place, model, tokenizer, None, {**failed, "step": progress["step"] + 1}, facts=facts)
    except OSError as error:
        return FloatingPointError(f"{message}; it could not be saved: {error}")
    return FloatingPointError(f"{message}; to repeat it: fastreason.supervised.replay({str(place)!r})")


def _postfix(loss: float, rates: Mapping[str, float]) -> str:
    return f"loss {loss:.3f}, {rates['tokens_per_s']:,.0f} tokens/s, {rates['peak_percent']:.0f} % of peak"


def _counters(progress: Mapping[str, Any]) -> dict[str, Any]:
    return {key: progress[key] for key in ("step", "tokens", "samples", "flop", "seconds")}
