"""The experience of a step: prompts, their samples, verdicts and rewards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from ..grading.rewards import Reward
from ..grading.verdicts import grade
from ..runtime import distributed
from ..runtime.progress import Clock
from ..sampling.rollout import Rollout, RolloutOutput
from ..tasks.stream import ProblemBatch
from ..text.tokenizer import Tokenizer
from .groups import Groups, counted_rewards
from .prompts import PromptSource
from .settings import PolicySettings
from .statistics import Facts, pass_flop


@dataclass(frozen=True, eq=False)
class Batch:
    """The samples of a step.

    Args:
        problems: of each draw, for all ranks.
        groups: this rank's groups to be trained on.
        facts: about all samples of all ranks, including groups that are not trained on.
        total_tokens, flop: of sampling on this rank; tokens include prompts.
        seconds: of the phases sample and grade.
    """

    problems: list[ProblemBatch]
    groups: Groups
    facts: Facts
    total_tokens: int
    flop: float
    seconds: dict[str, float]


def collect_batch(
    engine: Rollout,
    tokenizer: Tokenizer,
    source: PromptSource,
    reward: Reward,
    settings: PolicySettings,
    seed: int,
    first_draw: int,
) -> Batch:
    """Draws prompts, samples and grades; with dynamic sampling, until enough groups have non-zero advantages."""
    problems: list[ProblemBatch] = []
    facts: list[Facts] = []
    own_groups: list[Groups] = []
    total_tokens, flop, seconds, clock = 0, 0.0, {"sample": 0.0, "grade": 0.0}, Clock()
    max_draws = settings.parts.max_draws
    while len(problems) < max_draws and _num_with_advantage(facts, settings) < settings.prompts:
        started, number = clock.seconds(), first_draw + len(problems)
        drawn = source.draw(number)
        if len(drawn) != settings.prompts:
            raise ValueError(f"rl: a draw must have prompts = {settings.prompts} problems, got {len(drawn)}")
        positions = np.arange(len(drawn))[distributed.share(len(drawn))]
        own = drawn if len(positions) == len(drawn) else drawn.stream.batch(drawn.indices[positions])
        samples = _generate(engine, own, settings, seed, number * settings.prompts + positions)
        sampled = clock.seconds()
        verdicts = grade(own, samples.tokens, tokenizer=tokenizer, finished=samples.finished)
        reported = settings.verifier.report(verdicts, seed, number * settings.prompts + positions)
        rewards, in_loss = counted_rewards(reward(own, samples, reported), samples, settings.truncated)
        true_rewards = rewards
        if reported is not verdicts:
            true_rewards, _ = counted_rewards(reward(own, samples, verdicts), samples, settings.truncated)
        seconds["grade"] += clock.seconds() - sampled
        seconds["sample"] += sampled - started
        facts.append(Facts.gather(samples, verdicts, rewards, true_rewards, settings.samples))
        source.observe(drawn, facts[-1].reward.reshape(len(drawn), -1).astype(np.float32))
        numbers = positions + len(problems) * settings.prompts
        own_groups.append(Groups.of(samples, torch.from_numpy(rewards), numbers, in_loss))
        problems.append(drawn)
        prompt_lengths = np.diff(samples.prompt_offsets)
        total_tokens += samples.num_new_tokens + settings.samples * int(prompt_lengths.sum())
        flop += pass_flop(engine.model.config, prompt_lengths, samples.lengths.reshape(len(own), -1))
    joined = Facts.join(facts)
    groups = _trained(Groups.join(own_groups), joined, settings)
    return Batch(problems, groups, joined, total_tokens, flop, seconds)


def _generate(
    engine: Rollout, problems: ProblemBatch, settings: PolicySettings, seed: int, prompt_ids: np.ndarray
) -> RolloutOutput:
    try:
        return engine.generate(
            problems,
            settings.samples,
            temperature=settings.temperature,
            max_new_tokens=settings.max_new_tokens,
            seed=seed,
            prompt_ids=prompt_ids,
        )
    except ValueError as error:
        if all(weight.isfinite().all() for weight in engine.model.parameters()):
            raise
        raise FloatingPointError(f"rl: the model's weights are not finite ({error})") from error


def _num_with_advantage(facts: Sequence[Facts], settings: PolicySettings) -> int:
    return sum(int((1 - part.zero_advantage).sum()) for part in facts) // settings.samples


def _trained(groups: Groups, facts: Facts, settings: PolicySettings) -> Groups:
    """With dynamic sampling, the first `prompts` groups over all ranks with non-zero advantages, renumbered; else
    all."""
    if settings.parts.max_draws == 1:
        return groups
    kept = np.nonzero(facts.zero_advantage[:: settings.samples] == 0)[0][: settings.prompts]
    mine = np.nonzero(np.isin(groups.position, kept))[0]
    return replace(groups.take(mine), position=np.searchsorted(kept, groups.position[mine]))
