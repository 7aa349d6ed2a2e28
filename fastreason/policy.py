"""Reinforcement learning on verified steps: GRPO, on-policy, in the process that holds the weights.

    prompts -> n samples each -> verdicts -> rewards -> advantages -> policy loss on the group layout -> step

One update a batch, so the policy that is trained is the one that sampled and every ratio is 1 up to rounding; the
largest difference of log-probabilities is measured at each step. Groups whose samples all fare alike carry no gradient
and are left out of the update.

Letters: P prompts, G samples of each, N response tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from . import checkpoint, ops, rewards
from .budget import Budget, forward_flop
from .grading import Verdicts, grade
from .kernels.policy_loss import PolicyLoss
from .kernels.segments import Segments
from .metrics import Clock, Interrupted, MetricsLog, StopRequest, progress_bar
from .model import Decoder, ModelConfig
from .optim import Optimizer, OptimSettings
from .rollout import Rollout, RolloutOutput
from .tasks import Mixture, ProblemBatch, TaskStream
from .tokenizer import Tokenizer

REWARDS: Mapping[str, Callable[[Verdicts], np.ndarray]] = {
    "outcome": rewards.outcome,
    "blended": rewards.blended,
    "strict": rewards.strict,
    "steps": rewards.steps,
}


@dataclass(frozen=True)
class PolicySettings:
    """A reinforcement-learning stage."""

    __pydantic_config__ = {"extra": "forbid"}

    mixture: list[dict[str, Any]]
    """Parts of the `Mixture` of prompts; they come from the split `rl`."""
    steps: int | None = None
    """Updates. 200 if `budget` is not given either."""
    budget: str | None = None
    """Length of the stage in another unit, instead of `steps`: "1e15 flop", "1e8 tokens", "600 seconds" or so."""
    prompts: int = 32
    """Prompts of a step."""
    samples: int = 16
    """Samples of each prompt."""
    reward: Literal["outcome", "blended", "strict"] = "strict"
    """What a sample earns; see fastreason.rewards."""
    advantage_scale: Literal["std", "none"] = "std"
    """Whether advantages are divided by the standard deviation of their group (GRPO) or not (Dr. GRPO)."""
    temperature: float = 1.0
    """Of sampling and of the trained distribution."""
    max_new_tokens: int = 128
    """Limit of a sample."""
    clip_low: float = 0.2
    """How far below 1 the ratio may pull."""
    clip_high: float = 0.2
    """How far above 1 the ratio may pull."""
    optim: OptimSettings = field(
        default_factory=lambda: OptimSettings(matrices="adamw", matrix_lr=5e-4, lr=5e-4, schedule="constant")
    )
    """Optimizer and schedule."""
    save_every_s: float = 30.0
    """Seconds between checkpoints."""
    keep: int = 1
    """Newest checkpoints that stay."""

    def __post_init__(self) -> None:
        if self.steps is not None and self.budget is not None:
            raise ValueError(f"rl: give steps or budget, not both, got {self.steps} and {self.budget!r}")
        for name, low in (("steps", 1), ("prompts", 1), ("samples", 2), ("max_new_tokens", 1), ("keep", 1)):
            value = getattr(self, name)
            if value is not None and value < low:
                raise ValueError(f"rl: {name} must be at least {low}, got {value}")
        self.limit  # noqa: B018 - a budget that cannot be read is an error here
        if self.temperature <= 0:
            raise ValueError(f"rl: temperature must be > 0, got {self.temperature}")

    @property
    def limit(self) -> Budget:
        """When the stage ends; steps count as the samples that they take."""
        if self.budget is not None:
            return Budget.parse(self.budget)
        return Budget(samples=(self.steps or 200) * self.prompts * self.samples)


def reinforce(
    model: Decoder,
    tokenizer: Tokenizer,
    settings: PolicySettings,
    *,
    seed: int,
    folder: Path,
    log: MetricsLog,
    stop: StopRequest,
) -> dict[str, Any]:
    """Trains `model` in place and leaves the finished checkpoint in `folder`; continues one that is there.

    Returns:
        The progress that the checkpoint holds: step, tokens (sampled), total_tokens (with prompts), samples, flop,
        seconds, finished.
    Raises:
        Interrupted: `stop` was requested; the checkpoint continues from here.
    """
    optimizer, limit = Optimizer(model, settings.optim), settings.limit
    progress: dict[str, Any] = {"step": 0, "tokens": 0, "total_tokens": 0, "samples": 0, "flop": 0.0}
    progress |= {"seconds": 0.0, "finished": False}
    if found := checkpoint.find_checkpoint(folder):
        progress |= checkpoint.restore(found, model, optimizer)
        if progress["finished"]:
            return progress
    facts = {"stage": "rl", "seed": seed, "settings": asdict(settings)}
    log.forget_after("rl", progress["step"])
    stream = TaskStream(Mixture.from_dict(settings.mixture), seed=seed, split="rl")
    engine = Rollout(model, tokenizer)
    clock = Clock(progress["seconds"])
    last_save = clock.seconds()
    bar = progress_bar("rl", limit.amount, _used(progress)[limit.unit], unit=limit.unit)

    while not progress["finished"]:
        done = limit.share_done(_used(progress))
        first = progress["step"] * settings.prompts
        started = clock.seconds()
        problems = stream[first : first + settings.prompts]
        samples = engine.generate(
            problems,
            settings.samples,
            temperature=settings.temperature,
            max_new_tokens=settings.max_new_tokens,
            seed=seed,
            prompt_ids=problems.indices,
        )
        sampled = clock.seconds()
        verdicts = grade(problems, samples.tokens, tokenizer=tokenizer)
        rewards_PG = torch.from_numpy(REWARDS[settings.reward](verdicts)).view(-1, settings.samples)
        advantages_PG = ops.group_advantages(rewards_PG, scale=settings.advantage_scale)
        graded = clock.seconds()
        result = policy_step(model, samples, advantages_PG, settings)
        if result is not None:
            result.loss.backward()
            optimizer.step(done)

        progress["step"] += 1
        progress["tokens"] += samples.num_new_tokens
        progress["samples"] += rewards_PG.numel()
        progress["total_tokens"] += _total_tokens(samples)
        progress["flop"] += step_flop(model.config, samples, advantages_PG)
        progress["seconds"] = clock.seconds()
        progress["finished"] = limit.share_done(_used(progress)) >= 1.0
        seconds = {"sample": sampled - started, "grade": graded - sampled, "update": progress["seconds"] - graded}
        log.write("rl", **_statistics(progress, problems, samples, verdicts, rewards_PG, result, seconds))
        bar.set_postfix_str(f"reward {rewards_PG.mean():.3f}", refresh=False)
        bar.update(min(_used(progress)[limit.unit], limit.amount) - bar.n)
        if progress["finished"] or stop.requested or clock.seconds() - last_save > settings.save_every_s:
            state = None if progress["finished"] else optimizer
            checkpoint.save_checkpoint(folder, model, tokenizer, state, progress, keep=settings.keep, facts=facts)
            last_save = clock.seconds()
        if stop.requested:
            bar.close()
            raise Interrupted("rl")
    bar.close()
    return progress


def policy_step(
    model: Decoder, samples: RolloutOutput, advantages_PG: torch.Tensor, settings: PolicySettings
) -> PolicyLoss | None:
    """The loss over the groups that have an advantage at all, each prompt once with its samples; None without one."""
    speaking = advantages_PG.abs().sum(1) > 0
    if not speaking.any():
        return None
    groups = torch.nonzero(speaking).squeeze(1)
    tokens_T, segments, target_N = group_batch(samples, groups.numpy(), settings.samples)
    length_S = segments.length[segments.prefix >= 0]
    hidden = model(tokens_T, segments)
    # The first token of a response is predicted by the last of its prompt, the others by the one before them. The
    # first ones go last, expanded and not indexed: the gradient of an index that repeats is summed in any order.
    is_first_N = segments.start[segments.prefix >= 0].repeat_interleave(length_S) == target_N
    order_N = torch.cat([(~is_first_N).nonzero().squeeze(1), is_first_N.nonzero().squeeze(1)])
    prompt_end_P = (segments.start + segments.length - 1)[segments.prefix < 0]
    behind_prompts = hidden[prompt_end_P][:, None].expand(-1, settings.samples, -1).flatten(0, 1)
    source = torch.cat([hidden[target_N[~is_first_N] - 1], behind_prompts])
    rows = (groups[:, None] * settings.samples + torch.arange(settings.samples)).flatten().numpy()
    inside = np.arange(samples.logprobs.shape[1]) < samples.lengths[rows][:, None]
    return ops.policy_loss(
        model.logits(source),
        tokens_T[target_N[order_N]],
        advantages_PG[groups].flatten().repeat_interleave(length_S)[order_N],
        old_logprobs_N=torch.from_numpy(samples.logprobs[rows][inside])[order_N],
        temperature=settings.temperature,
        clip_low=settings.clip_low,
        clip_high=settings.clip_high,
    )


def group_batch(
    samples: RolloutOutput, groups: np.ndarray, group_size: int
) -> tuple[torch.Tensor, Segments, torch.Tensor]:
    """Prompts and their samples in the group layout.

    Args:
        groups: int64 [P']: which prompts.
        group_size: samples of each.
    Returns:
        int64 tokens [T], their segments, and int64 [N]: where the response tokens stand.
    """
    parts, response_lengths = [], []
    for p in groups.tolist():
        rows = slice(p * group_size, (p + 1) * group_size)
        lengths = samples.lengths[rows]
        parts.append(samples.prompt_tokens[samples.prompt_offsets[p] : samples.prompt_offsets[p + 1]])
        parts.extend(row[:length] for row, length in zip(samples.tokens[rows], lengths, strict=True))
        response_lengths.append(lengths)
    prompt_lengths = np.diff(samples.prompt_offsets)[groups]
    segments = Segments.from_groups(torch.from_numpy(prompt_lengths), torch.from_numpy(np.stack(response_lengths)))
    is_response = (segments.prefix >= 0).repeat_interleave(segments.length)
    return torch.from_numpy(np.concatenate(parts)).long(), segments, is_response.nonzero().squeeze(1)


def _used(progress: Mapping[str, Any]) -> dict[str, Any]:
    """The counters as `Budget` means them for RL: tokens with their prompts."""
    return {**progress, "tokens": progress["total_tokens"]}


def _total_tokens(samples: RolloutOutput) -> int:
    """Tokens of all samples, each with its prompt."""
    group_size = len(samples.lengths) // (len(samples.prompt_offsets) - 1)
    return samples.num_new_tokens + group_size * int(samples.prompt_offsets[-1])


def step_flop(config: ModelConfig, samples: RolloutOutput, advantages_PG: torch.Tensor) -> float:
    """FLOP of a step: every prompt once and every sample once forward; those of the groups that speak trained on."""
    speaking = (advantages_PG.abs().sum(1) > 0).numpy()
    prompts, lengths = np.diff(samples.prompt_offsets), samples.lengths.reshape(len(speaking), -1)
    total = 0.0
    for groups, passes in ((slice(None), 1.0), (speaking, 3.0)):
        before = prompts[groups].repeat(lengths.shape[1])
        total += passes * forward_flop(config, prompts[groups], num_logits=len(prompts[groups]))
        total += passes * forward_flop(config, lengths[groups].ravel(), before=before)
    return total


def _statistics(
    progress: Mapping[str, Any],
    problems: ProblemBatch,
    samples: RolloutOutput,
    verdicts: Verdicts,
    rewards_PG: torch.Tensor,
    result: PolicyLoss | None,
    seconds: Mapping[str, float],
) -> dict[str, Any]:
    """One line of metrics.jsonl."""
    by_op = {str(op): float(rewards_PG[problems.ops == op].mean()) for op in np.unique(problems.ops).tolist()}
    silent = (rewards_PG == rewards_PG[:, :1]).all(1).float().mean()
    line = {
        "step": progress["step"],
        "tokens": progress["tokens"],
        "samples": progress["samples"],
        "flop": progress["flop"],
        "seconds": progress["seconds"],
        "reward": float(rewards_PG.mean()),
        "reward_by_op": by_op,
        "answer_correct": float(verdicts.answer_correct.mean()),
        "verified": float(verdicts.verified.mean()),
        "silent_groups": float(silent),
        "mean_length": float(samples.lengths.mean()),
        "finished": float(samples.finished.mean()),
        **{f"{phase}_s": value for phase, value in seconds.items()},
    }
    if result is not None:
        line |= result.statistics()
    return line
