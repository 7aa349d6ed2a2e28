"""The settings of self-training: what is sampled, what of it is kept, and those of the supervised loop."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..grading.erring_verifier import VerifierErrors
from ..grading.rewards import Reward, reward_function, reward_names
from ..runtime.field_docs import explain_fields
from ..runtime.ranges import COUNT, POSITIVE, TEMPERATURE, Range, check_settings
from ..training.supervised_settings import SupervisedSettings

LEVELS = ("verified", "sound")
"""Levels that are no rewards."""


@explain_fields
@dataclass(frozen=True)
class SelfSettings(SupervisedSettings):
    """Settings of a self-training stage: those of a supervised stage, whose mixtures are of prompts here, and more."""

    rounds: int = 1
    """Number of times that samples are drawn from the model as it is then, at equal shares of the stage."""
    prompts: int = 256
    """Prompts per round, drawn from split `rl`; no prompt is drawn twice."""
    samples: int = 8
    """Samples per prompt."""
    level: str = "verified"
    """Which samples are kept: verified, sound, or those with a reward of at least `at_least`: the name of a reward of
    reinforcement learning, or "module:function"."""
    at_least: float | None = None
    """The smallest reward that is kept; default 1."""
    most: int | None = None
    """Number of traces of a problem that are kept at most, the first in order; default: all distinct ones."""
    only_edge: bool = False
    """Whether only problems are kept that the model solves sometimes: neither none nor all of their samples pass."""
    temperature: float = 1.0
    """Temperature of sampling."""
    max_new_tokens: int = 128
    """Maximum number of new tokens per sample."""
    kv_memory_mb: float | None = None
    """Memory for keys and values in sampling, in MB of 10^6 bytes; default: 2048 on CPU, nine tenths of the free on a
    GPU. It decides how many samples are drawn together, and changes none of them."""
    verifier: VerifierErrors = field(default_factory=VerifierErrors)
    """Errors of the verifier that decides what is kept; by default none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings("self", self, _SELF_RANGES)
        known = (*LEVELS, *reward_names())
        if self.level not in known and not re.fullmatch(r"[\w.]+:[\w.]+", self.level):
            raise ValueError(
                f'self: level must be one of {", ".join(known)} or "module:function", got {self.level!r}'
            )  # fmt: skip
        if self.at_least is not None and self.level in LEVELS:
            raise ValueError(f"self: at_least has no effect with level {self.level!r}, only with a reward")

    @property
    def reward(self) -> Reward | None:
        """The reward named by `level`; None for verified and sound.

        Raises:
            ValueError: it cannot be imported, or has the wrong parameters.
        """
        return None if self.level in LEVELS else reward_function(self.level)

    def round_at(self, share_done: float) -> int:
        """The round at a share of the stage."""
        return min(int(share_done * self.rounds), self.rounds - 1)

    def phase_of(self, number: int) -> int:
        """The index of the phase, whose mixture its prompts are of, in which a round begins."""
        return next(i for i, phase in enumerate(self.phases) if number / self.rounds < phase.until)


_SELF_RANGES: Mapping[str, Range] = {
    **dict.fromkeys(("rounds", "prompts", "samples", "most", "max_new_tokens"), COUNT),
    "temperature": TEMPERATURE,
    "kv_memory_mb": POSITIVE,
    "at_least": Range(),
}
