"""Reinforcement learning on verified steps, in the process that holds the weights.

    prompts -> n samples each -> verdicts -> rewards -> advantages -> policy loss on the group layout -> step

By default there is one update per batch, so the policy being trained is the one that sampled and every ratio is 1 up to
rounding; the largest difference in log-probability is measured at each step. Zero-advantage groups have no gradient and
are left out of the update.

Related files: settings.py, grading/rewards.py, advantages.py, update.py (losses and updates), statistics.py (metrics of
a step), watch.py (warnings). Under torchrun every rank samples, grades and trains on its share of the prompts, and all
ranks take the step that a single process would take.

Letters: P prompts, G samples of each, S = P * G samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..grading.rewards import REWARDS, REWARDS_OF_SAMPLES, Reward, reward_function
from ..model.decoder import Decoder
from ..model.precision import product_dtype
from ..runtime import distributed
from ..runtime.arguments import instance, integer, path
from ..runtime.metrics_log import MetricsLog
from ..runtime.progress import Clock, progress_bar, tell, wait_for
from ..runtime.stop_request import Interrupted, StopRequest
from ..sampling.rollout import Rollout
from ..text.tokenizer import Tokenizer
from ..training import checkpoint
from ..training.optimizer import Optimizer
from .advantages import advantages
from .experience import Batch, collect_batch
from .groups import Groups, has_advantage, has_loss
from .prompts import CURRICULA, FixedMixture, PromptSource, stage_prompts
from .settings import LOSSES, PolicySettings
from .statistics import (
    pass_flop,
    reward_statistics,
    speed_statistics,
    update_statistics,
)
from .update import group_loss, policy_step, update
from .watch import Watch

__all__ = [
    "CURRICULA", "LOSSES", "REWARDS", "FixedMixture", "Groups", "PolicySettings", "PromptSource", "group_loss",
    "policy_step", "reinforce", "update",
]  # fmt: skip

# largest plausible difference between the log-probabilities of sampling and training; observed: 4e-5
_LARGEST_DIFFERENCE: Mapping[torch.dtype, float] = {torch.float64: 1e-3, torch.float32: 1e-2}


def reinforce(
    model: Decoder,
    tokenizer: Tokenizer,
    settings: PolicySettings,
    *,
    seed: int = 0,
    folder: str | Path,
    log: MetricsLog | str | Path | None = None,
    stop: StopRequest | None = None,
    reward: Callable[..., np.ndarray] | None = None,
    prompts: PromptSource | None = None,
    name: str = "rl",
) -> dict[str, Any]:
    """Runs a reinforcement-learning stage: trains `model` in place and leaves its checkpoint in `folder`.

    A checkpoint already in `folder` is continued.

    Args:
        model: the policy; sampling and updates run on the device of its weights.
        tokenizer: of the model.
        settings: of the stage.
        seed: of prompts and samples.
        folder: for the checkpoints.
        log: a file (metrics.jsonl) to which each step appends a line of JSON, or an open MetricsLog; None: no log.
        stop: a request to stop after the current step, with a checkpoint; None: runs to the end or to Ctrl-C.
        reward: replaces `settings.reward`: a function of the verdicts, or of (problems, samples, verdicts), that
            returns float [S], or [S, L] for tokens; see `fr.rewards`.
        prompts: replaces `settings.curriculum`.
        name: of the stage, in the log and the progress bar.
    Returns:
        The counters in the checkpoint: step, tokens (sampled), total_tokens (with prompts), samples, flop, seconds,
        draws, curriculum, watch, finished.
    Raises:
        Interrupted: `stop` was requested; the checkpoint continues from here.
        ValueError: settings, reward or prompts do not fit the model or the checkpoint.
        FloatingPointError: the weights are not finite.
    """
    instance("reinforce: model", model, Decoder)
    instance("reinforce: tokenizer", tokenizer, Tokenizer)
    instance("reinforce: settings", settings, PolicySettings)
    seed, folder = integer("reinforce: seed", seed, 0), path("reinforce: folder", folder)
    stop = stop or StopRequest()
    reward_of = stage_reward(settings) if reward is None else reward_function(reward)
    source = stage_prompts(settings, seed) if prompts is None else prompts
    progress: dict[str, Any] = {"step": 0, "tokens": 0, "total_tokens": 0, "samples": 0, "flop": 0.0}
    progress |= {"seconds": 0.0, "draws": 0, "curriculum": {}, "watch": {}, "finished": False}
    optimizer, saved = Optimizer(model, settings.optim), checkpoint.find_checkpoint(folder, settings.keep)
    if saved:
        progress |= checkpoint.restore(saved, model, optimizer)
        if progress["finished"]:
            return progress
        source.restore(progress["curriculum"])
    model.checkpoint_activations = settings.checkpoint_activations
    reference = _reference(model, tokenizer, folder, saved is not None) if settings.kl_coef else None
    facts = {"stage": name, "seed": seed, "settings": asdict(settings)}
    engine = Rollout(model, tokenizer, precision=settings.precision, kv_memory_mb=settings.kv_memory_mb)
    watch = Watch(settings.max_new_tokens, progress["watch"])
    log = MetricsLog.of(log)
    log.forget_after(name, progress["step"])
    clock = Clock(progress["seconds"])
    last_save = progress["seconds"]
    bar = progress_bar(name, settings.length, settings.used(progress), unit=settings.unit)

    while not progress["finished"]:
        done = settings.share_done(progress)
        batch = collect_batch(engine, tokenizer, source, reward_of, settings, seed, progress["draws"])
        begin = clock.seconds()
        advantages_S = _advantages(batch.groups, settings)
        history = update(model, optimizer, batch.groups, advantages_S, settings, done, reference=reference)
        _check_on_policy(model, settings, history)
        wait_for(
            model.embedding.weight.device
        )  # once per step; sampling ends with a copy, which synchronizes by itself
        seconds = {**batch.seconds, "update": clock.seconds() - begin}

        cost = _update_cost(model, batch.groups, advantages_S, settings)
        stopping, trained = _advance(progress, batch, cost, clock, stop)
        progress["curriculum"] = source.state()
        progress["finished"] = settings.share_done(progress) >= 1.0
        line = _line(progress, batch, history, seconds, trained)
        if settings.verifier.errs:
            line["true_reward"] = float(batch.facts.true_reward.mean())
        warnings = watch.look(line)
        progress["watch"] = watch.state()
        log.write(name, **line, **({"warnings": warnings} if warnings else {}))
        for warning in warnings:
            tell(f"{name}: warning at step {progress['step']}: {warning}")
        bar.set_postfix_str(f"reward {batch.facts.reward.mean():.3f}", refresh=False)
        bar.update(min(settings.used(progress), settings.length) - bar.n)
        if progress["finished"] or stopping or progress["seconds"] - last_save > settings.save_every_s:
            state = None if progress["finished"] else optimizer
            with distributed.together():
                checkpoint.save_checkpoint(folder, model, tokenizer, state, progress, keep=settings.keep, facts=facts)
            last_save = progress["seconds"]
        if stopping:
            bar.close()
            raise Interrupted(name)
    bar.close()
    return progress


def stage_reward(settings: PolicySettings) -> Reward:
    """The reward named by the settings.

    Raises:
        ValueError: it cannot be imported, has the wrong parameters, or `credit` is set with a reward of whole samples.
    """
    if settings.credit is not None and settings.reward in REWARDS_OF_SAMPLES:
        raise ValueError(f"rl: credit has no effect with reward {settings.reward!r}, which is of whole samples")
    weight = {"outcome_weight": settings.outcome_weight} if settings.outcome_weight is not None else {}
    return reward_function(settings.reward, **weight)


def _advantages(groups: Groups, settings: PolicySettings) -> torch.Tensor:
    parts = settings.parts
    return advantages(
        groups.rewards,
        settings.samples,
        baseline=parts.baseline,
        scale=parts.advantage_scale,
        credit=settings.credit or "return",
    )


def _check_on_policy(model: Decoder, settings: PolicySettings, history: Sequence[Mapping[str, float]]) -> None:
    """In float32 a large difference between sampler and trainer is a bug; in bfloat16 it may come from rounding alone,
    and `mismatch` corrects for it."""
    if history and settings.on_policy:
        difference = history[0]["max_logprob_difference"]
        limit = _LARGEST_DIFFERENCE.get(product_dtype(settings.precision, model.embedding.weight), math.inf)
        assert difference <= limit, f"log-probabilities of sampler and trainer differ by {difference}"


def _update_cost(
    model: Decoder, groups: Groups, advantages_S: torch.Tensor, settings: PolicySettings
) -> tuple[float, int, int]:
    """This rank's updates: FLOP (three passes, and one of the reference model), sampled tokens trained on, groups."""
    trains = has_loss(groups) if settings.trains_zero_advantage else has_advantage(groups, advantages_S)
    trained = groups.take(np.nonzero(trains)[0])
    if not len(trained):
        return 0.0, 0, 0
    lengths_PG = trained.lengths.reshape(len(trained), -1)
    passes = settings.epochs * (4 if settings.kl_coef else 3)
    flop = passes * pass_flop(model.config, np.diff(trained.prompt_offsets), lengths_PG)
    return flop, settings.epochs * int(trained.lengths[trained.in_loss].sum()), len(trained)


def _advance(
    progress: dict[str, Any], batch: Batch, cost: tuple[float, int, int], clock: Clock, stop: StopRequest
) -> tuple[bool, tuple[int, int]]:
    """Advances the counters, identically on every rank.

    Returns:
        Whether any rank was asked to stop; the tokens and groups that all ranks trained on.
    """
    flop, tokens, groups = cost
    seconds = clock.seconds() if distributed.is_main() else 0.0
    own = [batch.total_tokens, batch.flop + flop, seconds, tokens, groups]
    of_all = distributed.sum_over_ranks(torch.tensor(own, dtype=torch.float64)).tolist()
    progress["step"] += 1
    progress["draws"] += len(batch.problems)
    progress["tokens"] += int(batch.facts.length.sum())
    progress["samples"] += len(batch.facts.length)
    progress["total_tokens"] += int(of_all[0])
    progress["flop"] += of_all[1]
    progress["seconds"] = of_all[2]
    return stop.on_any_rank(), (int(of_all[3]), int(of_all[4]))


def _line(
    progress: Mapping[str, Any],
    batch: Batch,
    history: Sequence[Mapping[str, float]],
    seconds: Mapping[str, float],
    trained: tuple[int, int],
) -> dict[str, Any]:
    """A line of metrics.jsonl; `trained` holds numbers of tokens and groups."""
    samples = len(batch.facts.length) // sum(map(len, batch.problems))
    ops_S = np.concatenate([problems.ops for problems in batch.problems]).repeat(samples)
    return {
        **{key: progress[key] for key in ("step", "tokens", "samples", "flop", "seconds", "draws")},
        **reward_statistics(batch.facts, ops_S),
        "trained_groups": trained[1],
        **speed_statistics(seconds, int(batch.facts.length.sum()), trained[0]),
        **update_statistics(history),
    }


def _reference(model: Decoder, tokenizer: Tokenizer, folder: Path, goes_on: bool) -> Decoder:
    """The frozen reference model of the KL: the model the stage started from, saved next to its checkpoint.

    Raises:
        ValueError: the stage is being resumed, but its reference model is missing.
    """
    path = folder.with_name(folder.name + "-reference")
    with distributed.together():
        if not goes_on:
            checkpoint.save_checkpoint(path, model, tokenizer, None, {"step": 0})
    if checkpoint.find_checkpoint(path) is None:
        raise ValueError(
            f"rl: {folder} cannot be resumed: its reference model {path} is missing; restore it, or start again"
        )
    weight = model.embedding.weight
    return checkpoint.load_model(path).to(weight.device, weight.dtype).requires_grad_(False)
