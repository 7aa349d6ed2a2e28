"""Pre-training and mid-training: one loop over the task stream.

    stream -> packed segments -> loss on the solution -> backward -> clip -> step

The state of a stage is its weights, its optimizer and a few counters (step, next problem of every row, budget used), so
after an interruption it continues with the same batches as without one, on any number of ranks that divides the rows of
a step.

Letters: T tokens of a batch, N of them with a loss.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from .. import _core
from ..kernels.cross_entropy import shares_of
from ..kernels.linear import ROW_MULTIPLE
from ..kernels.logit_rows import unit
from ..kernels.segments import Segments
from ..model.decoder import Decoder
from ..model.precision import Precision, cast_once, product_dtype
from ..runtime import distributed
from ..runtime.arguments import instance, integer, path
from ..runtime.distributed import Device, chosen_device
from ..runtime.machine import package_version
from ..runtime.metrics_log import MetricsLog
from ..runtime.progress import Clock, progress_bar
from ..runtime.stop_request import Interrupted, StopRequest
from ..tasks.mixture import Mixture
from ..tasks.packed import PackedBatch
from ..tasks.stream import TaskStream
from ..text.tokenizer import Tokenizer
from . import checkpoint
from .budget import account, matmul_peak
from .optimizer import Optimizer
from .parallel import Replica
from .row_batches import RowBatches, StepTotals, Traces, check_rows, count_targets, join, split_batch
from .supervised_settings import SupervisedSettings


def train(
    name: str,
    model: Decoder,
    tokenizer: Tokenizer,
    settings: SupervisedSettings,
    *,
    seed: int = 0,
    folder: str | Path,
    log: MetricsLog | str | Path | None = None,
    stop: StopRequest | None = None,
    source: Callable[[int], Traces] | None = None,
) -> dict[str, Any]:
    """Runs a supervised stage: trains `model` in place and leaves its checkpoint in `folder`.

    A checkpoint already in `folder` is continued. Under torchrun all ranks call this with the same arguments; rank 0
    writes.

    Args:
        model: trained on the device of its weights, which are float32.
        tokenizer: of the model.
        settings: of the stage.
        name: of the stage, in the log and the progress bar.
        seed: of the problems.
        folder: for the checkpoints.
        log: a file (metrics.jsonl) to which every few steps append a line of JSON, or an open MetricsLog; None: no log.
        stop: a request to stop after the current step, with a checkpoint; None: runs to the end or to Ctrl-C.
        source: makes batches of other data than the settings' problems, of rows of so many tokens; see
            `fastreason.rl.self_training`.
    Returns:
        The counters in the checkpoint: step, tokens, samples, flop, seconds, next_index (of every row), phase_starts
        (next_index at the start of each phase), best_loss, finished.
    Raises:
        Interrupted: `stop` was requested on any rank; the checkpoint continues from here.
        FloatingPointError: the loss or the gradient is not finite. The last checkpoint is kept, and `replay` repeats
            the step from the saved state.
        ValueError: the rows of a step cannot be divided among the ranks, or are too short for a document.
        OSError: a checkpoint could not be written; the last one is kept.
        OtherRankFailed: rank 0 stopped with an error.
    """
    instance("train: model", model, Decoder)
    instance("train: tokenizer", tokenizer, Tokenizer)
    instance("train: settings", settings, SupervisedSettings)
    seed, folder = integer("train: seed", seed, 0), path("train: folder", folder)
    stop, limit = stop or StopRequest(), settings.limit
    progress: dict[str, Any] = {"step": 0, "tokens": 0, "samples": 0, "flop": 0.0, "seconds": 0.0}
    progress |= {"next_index": list(range(settings.rows or distributed.world_size()))}
    progress |= {"best_loss": None, "finished": False}
    if saved := checkpoint.find_checkpoint(folder, settings.keep):
        progress |= checkpoint.restore(saved, model)
        if progress["finished"]:
            return progress
    else:
        progress["phase_starts"] = []  # what an earlier version began does not know them, and goes on without
    check_rows(len(progress["next_index"]), settings.rows, name)
    replica = Replica(model, settings.parallel)
    replica.trained.checkpoint_activations = settings.checkpoint_activations
    optimizer = Optimizer(replica.trained, settings.optim)
    if saved:
        checkpoint.load_optimizer(saved, optimizer)
    log = MetricsLog.of(log)
    log.forget_after(name, progress["step"])
    versions = {package: package_version(package) for package in ("fastreason", "torch")}
    facts = {"stage": name, "seed": seed, "settings": asdict(settings), "versions": versions}
    length = settings.batch_tokens // len(progress["next_index"])
    _core.keep_freed_memory()  # steps reuse the same blocks; returning them to the system costs a fifth
    streams = [TaskStream(mixture, seed=seed, split="train") for mixture in settings.mixtures]
    traces = None if source is None else source(length)
    if traces is not None:
        progress |= {"round": -1, "sampled": 0} | progress
        if saved:
            traces.restore(checkpoint.load_traces(saved), progress)
    rows = RowBatches(streams, length, tokenizer, settings.prefetch) if traces is None else traces
    how = (settings.loss_on, settings.precision)
    replica.settle(lambda: supervised_loss(replica, streams[0].packed(0, 1, length, tokenizer), *how))
    validation = list(validation_batches(settings, tokenizer, length)) if settings.validate_every else []
    peak = distributed.world_size() * matmul_peak(*compute_in(settings.precision, model))
    clock = Clock(progress["seconds"])
    last_save = progress["seconds"]
    bar = progress_bar(name, limit.amount, progress[limit.unit], unit=limit.unit)

    def save() -> None:
        ends = progress["finished"]
        with distributed.together():
            checkpoint.save_checkpoint(
                folder, model, tokenizer, None if ends else optimizer, progress, keep=settings.keep, facts=facts,
                traces=None if ends or traces is None else traces.tensors(),
            )  # fmt: skip

    with closing(rows), closing(bar):
        while not progress["finished"]:
            done = limit.share_done(progress)
            if traces is not None and traces.is_due(done):
                replica.gather()
                drawn = traces.refill(done)
                if drawn is None:
                    save()
                    raise Interrupted(name)
                progress["flop"] += drawn["flop"]
                progress["sampled"] += drawn["sampled"]
                progress["round"] = drawn["round"] - 1
                # counted to the step that follows, with which a resumed stage draws and writes it again
                log.write(name, step=progress["step"] + 1, tokens=progress["tokens"], **drawn)
                done = limit.share_done(progress)
            phase = next((i for i, each in enumerate(settings.phases) if done < each.until), len(settings.phases) - 1)
            _note_phase(progress, phase)
            batch, next_rows = rows.draw(phase, progress["next_index"])
            total = StepTotals.over_ranks(model.config, batch, next_rows, settings.loss_on)
            if not total.targets:
                first = min(progress["next_index"])
                raise ValueError(f"{name}: rows of {length} tokens (batch_tokens) are too short for problem {first}")
            loss = step_loss(replica, batch, total.targets, settings)
            try:
                grad_norm = optimizer.step(done) if math.isfinite(loss) else math.nan
            except FloatingPointError:
                grad_norm = math.inf
            if not math.isfinite(grad_norm):
                replica.gather()
                raise _failure(folder, model, tokenizer, facts, progress, phase, loss, own=traces is not None)

            progress["step"] += 1
            progress["tokens"] += total.tokens
            progress["samples"] += total.samples
            progress["flop"] += total.flop
            progress["next_index"] = total.next_index
            progress["seconds"] = distributed.from_main(clock.seconds())
            progress["finished"] = limit.share_done(progress) >= 1.0
            stopping = stop.on_any_rank()
            validating = validation and (progress["step"] % settings.validate_every == 0 or progress["finished"])
            saving = progress["finished"] or stopping or progress["seconds"] - last_save > settings.save_every_s
            if validating or saving:
                replica.gather()
            line = {"loss": loss, "grad_norm": grad_norm}
            if validating:
                line["val_loss"] = validation_loss(model, validation, *how)
                if line["val_loss"] < (math.inf if progress["best_loss"] is None else progress["best_loss"]):
                    progress["best_loss"] = line["val_loss"]
                    best = checkpoint.best_checkpoint(folder)
                    with distributed.together():
                        kept = None if traces is None else traces.tensors()
                        checkpoint.save_checkpoint(
                            best, model, tokenizer, optimizer, progress, facts=facts, traces=kept
                        )
            if progress["step"] % 10 == 0 or progress["finished"] or validating:
                rates = account(progress, peak)
                log.write(name, **_counters(progress), **line, **rates)
                bar.set_postfix_str(_postfix(loss, rates), refresh=False)
            bar.update(min(progress[limit.unit], limit.amount) - bar.n)
            if saving:
                save()
                last_save = distributed.from_main(clock.seconds())
            if stopping:
                raise Interrupted(name)
    return progress


def step_loss(replica: Replica[Decoder], batch: PackedBatch, num_targets: int, settings: SupervisedSettings) -> float:
    """Forward and backward pass over this rank's rows, in parts; returns the mean loss over the targets of all ranks.

        loss = sum over ranks and parts of (targets of the part / num_targets) * mean loss of the part

    Afterwards every rank has the gradients of that loss, or its shard of them under FSDP.
    """
    parts = split_batch(batch, settings.accumulate)
    num_parts = distributed.max_over_ranks(len(parts)) if settings.accumulate > 1 else 1
    losses = []
    with cast_once(replica.trained, settings.precision):
        for i in range(num_parts):
            # a rank with fewer parts repeats its last one with weight 0, because FSDP gathers weights from all ranks
            part = parts[min(i, len(parts) - 1)]
            # gradients are averaged over the ranks, so each rank scales its own up first
            targets = count_targets(part, settings.loss_on) * distributed.world_size() if i < len(parts) else 0
            with replica.reducing(i == num_parts - 1):
                part_loss = supervised_loss(replica, part, settings.loss_on, settings.precision)
                if targets != num_targets:
                    part_loss = part_loss * (targets / num_targets)
                part_loss.backward(unit(part_loss))
            losses.append(part_loss.detach())
    # the host waits for the losses once a step
    together = losses[0] if len(losses) == 1 else torch.stack(losses)
    loss = together.cpu().double().view(-1).cumsum(0)[-1:]  # in their order
    return distributed.sum_over_ranks(loss).item() / distributed.world_size()


def supervised_loss(
    model: Decoder | Replica[Decoder], batch: PackedBatch, loss_on: str, precision: Precision = "float32"
) -> torch.Tensor:
    """Mean cross entropy of the next token over the batch's solution tokens, or over all of its tokens.

    Returns:
        float32 scalar; 0 if no token has a loss.
    """
    device, dtype = compute_in(precision, model)
    starts, lengths = torch.from_numpy(batch.starts).long(), torch.from_numpy(batch.lengths).long()
    token_at = torch.arange(int(lengths.sum())) + (starts - (lengths.cumsum(0) - lengths)).repeat_interleave(lengths)
    tokens_T = torch.from_numpy(batch.tokens)[token_at].long()
    segments = Segments.from_lengths(lengths)
    if loss_on == "solution":
        target_T = torch.from_numpy(batch.loss_mask)[token_at].bool()
    else:
        target_T = torch.ones(len(tokens_T), dtype=torch.bool)
    target_T[segments.start] = False  # nothing precedes the first token of a document
    source_N, labels_N = _predictors(tokens_T, target_T, gathers=device.type == "cpu")
    # pad with tokens without a loss, so that matrix products have few distinct shapes
    tokens_T, segments = F.pad(tokens_T, (0, -len(tokens_T) % ROW_MULTIPLE)), segments.padded(ROW_MULTIPLE)
    shares_N = shares_of(labels_N, dtype=torch.promote_types(next(iter(model.parameters())).dtype, torch.float32))
    with torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
        given = (tokens_T, labels_N, shares_N) if source_N is None else (tokens_T, labels_N, shares_N, source_N)
        tokens_T, labels_N, shares_N, *sources = model.send(segments, *given)
        hidden = model(tokens_T, segments, True)
        for rows in sources:
            hidden = hidden.index_select(0, rows)
        return model.cross_entropy(hidden, labels_N, shares_N)


# of the tokens: where more have a loss, logits of all of them cost a GPU less than gathering those hidden states
_NEARLY_ALL = 0.9


def _predictors(
    tokens_T: torch.Tensor, target_T: torch.Tensor, gathers: bool
) -> tuple[torch.Tensor | None, torch.Tensor]:
    """The tokens before the targets, None for all tokens, and what they are to predict, -100 for nothing; their number
    is a multiple of ROW_MULTIPLE.

    Args:
        target_T: bool.
        gathers: whether even if nearly all tokens are targets.
    """
    target_N = target_T.nonzero().squeeze(1)
    if gathers or len(target_N) < _NEARLY_ALL * len(tokens_T):
        spare = -len(target_N) % ROW_MULTIPLE
        return F.pad(target_N - 1, (0, spare)), F.pad(tokens_T[target_N], (0, spare), value=-100)
    labels_T = torch.where(target_T, tokens_T, -100).roll(-1)
    return None, F.pad(labels_T, (0, -len(tokens_T) % ROW_MULTIPLE), value=-100)


def compute_in(precision: Precision, model: Decoder | Replica[Decoder]) -> tuple[torch.device, torch.dtype]:
    """The device of the weights, and the dtype of matrix products there."""
    weight = next(iter(model.parameters()))
    return weight.device, product_dtype(precision, weight)


def validation_batches(settings: SupervisedSettings, tokenizer: Tokenizer, length: int) -> Iterator[PackedBatch]:
    """The first problems of split `val` in rows of `length` tokens, the same for every seed, so that all runs are
    validated on the same text."""
    stream = TaskStream(settings.mixtures[-1], seed=0, split="val")
    index, tokens = 0, 0
    while tokens < settings.validation_tokens:
        batch = stream.packed(index, 1, length, tokenizer, threads=1)
        index, tokens = batch.next_index, tokens + int(batch.lengths.sum())
        yield batch


@torch.no_grad()
def validation_loss(
    model: Decoder, batches: Sequence[PackedBatch], loss_on: str, precision: Precision = "float32"
) -> float:
    """Mean cross entropy over all targets of the batches, which are divided among the ranks."""
    mine = batches[distributed.share(len(batches))]
    counts = [count_targets(batch, loss_on) for batch in mine]
    losses = [supervised_loss(model, batch, loss_on, precision).item() for batch in mine]
    sums = [sum(n * loss for n, loss in zip(counts, losses, strict=True)), sum(counts)]
    total, targets = distributed.sum_over_ranks(torch.tensor(sums, dtype=torch.float64)).tolist()
    return total / targets


def replay(folder: str | Path, device: Device = "auto") -> tuple[Decoder, PackedBatch, torch.Tensor]:
    """Repeats the step at which a stage stopped because of a non-finite loss or gradient.

    Args:
        folder: the one named by the error, NAME-failed.
        device: where to run, as in a recipe.
    Returns:
        The model with the weights before the step and the step's gradients (not clipped), the batch (the rows of all
        ranks), and its loss.
    """
    tokenizer, model = Tokenizer.from_pretrained(folder), checkpoint.load_model(folder)
    model.to(chosen_device(device))
    failed = checkpoint.load_progress(folder)
    stream = TaskStream(Mixture.from_dict(failed["mixture"]), seed=failed["seed"], split="train")
    starts = failed["next_index"]
    length = failed["batch_tokens"] // len(starts)
    batch = join([stream.packed(start, 1, length, tokenizer, step=len(starts), threads=1) for start in starts])
    loss = supervised_loss(model, batch, failed["loss_on"], failed["precision"])
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
    *,
    own: bool = False,
) -> FloatingPointError:
    """Saves the weights before the step and the position of its batch; returns an error that says so, and how to repeat
    the step if its data are not the model's own."""
    settings, place = facts["settings"], folder.with_name(folder.name + "-failed")
    failed = {key: settings[key] for key in ("batch_tokens", "loss_on", "precision")} | {"seed": facts["seed"]}
    failed |= {"mixture": settings["phases"][phase]["mixture"], "next_index": progress["next_index"]}
    what = f"the gradient norm is not finite (loss {loss:.6g})" if math.isfinite(loss) else f"the loss is {loss}"
    message = (
        f"{facts['stage']}: {what} at step {progress['step'] + 1}, whose batch begins at problem "
        f"{min(progress['next_index'])} of phase {phase}"
    )
    try:
        checkpoint.save_checkpoint(place, model, tokenizer, None, {**failed, "step": progress["step"] + 1}, facts=facts)
    except OSError as error:
        return FloatingPointError(f"{message}; it could not be saved: {error}")
    if own:
        return FloatingPointError(f"{message}; the weights before it are in {place}")
    return FloatingPointError(f"{message}; to repeat it: fastreason.training.supervised.replay({str(place)!r})")


def _postfix(loss: float, rates: Mapping[str, float]) -> str:
    return f"loss {loss:.3f}, {rates['tokens_per_s']:,.0f} tokens/s, {rates['peak_percent']:.0f} % of peak"


def _note_phase(progress: dict[str, Any], phase: int) -> None:
    """Where the rows stand as a phase begins, and those before it that were passed over."""
    starts = progress.get("phase_starts", [None] * (phase + 1))
    starts += [list(progress["next_index"])] * (phase + 1 - len(starts))


def _counters(progress: Mapping[str, Any]) -> dict[str, Any]:
    return {key: progress[key] for key in ("step", "tokens", "samples", "flop", "seconds")}
