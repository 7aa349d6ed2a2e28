"""The length of a stage in any unit, and its speed relative to the machine's peak.

FLOP are those of model/flop.py. Letters: P weights used in matrix products, L length.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

from .. import kernels
from ..runtime.arguments import number
from ..runtime.field_docs import explain_fields

UNITS = ("flop", "tokens", "seconds", "samples")


def equal_compute_tokens(prompts: float, rollouts: float, length: float) -> float:
    """The supervised tokens that cost as much as reinforcement learning on N prompts with r samples of L tokens each.

        T_rl = (5 / 3) N r L

    from 10 P FLOP per token of RL (2 P sampling, 2 P reference model, 6 P update) against 6 P of supervised training. L
    counts prompt and response. This is the paper's exchange rate, used to keep studies comparable; what a stage really
    costs here (prompts once, zero-advantage groups left out) is `flop` in metrics.jsonl.

    Source: Zhang et al. 2025, arXiv:2512.07783.

    >>> round(equal_compute_tokens(prompts=1024 * 200, rollouts=6, length=900) / 1e9, 3)
    1.843
    """
    for name, value in (("prompts", prompts), ("rollouts", rollouts), ("length", length)):
        if not value >= 0:
            raise ValueError(f"equal_compute_tokens: {name} must be >= 0, got {value}")
    return 5.0 / 3.0 * prompts * rollouts * length


@explain_fields
@dataclass(frozen=True)
class Budget:
    """The length of a stage, in exactly one unit.

    >>> Budget(tokens=3_000_000)
    Budget('3000000 tokens')
    >>> Budget.parse("600 seconds").share_done({"seconds": 150.0})
    0.25
    """

    flop: float | None = None
    """Floating-point operations, counted as in `model.flop`."""
    tokens: float | None = None
    """Supervised training: tokens trained on. Reinforcement learning: tokens of all samples, including their
    prompts."""
    seconds: float | None = None
    """Wall time, including checkpoints and validation. The only unit that makes a run depend on the machine."""
    samples: float | None = None
    """Supervised training: documents. Reinforcement learning: samples, `prompts * samples` per step."""

    def __post_init__(self) -> None:
        given = [unit for unit in UNITS if getattr(self, unit) is not None]
        if len(given) != 1:
            raise ValueError(f"Budget: give exactly one of {', '.join(UNITS)}, got {', '.join(given) or 'none'}")
        number(f"Budget: {self.unit}", getattr(self, self.unit), 0, above_low=True)

    def __repr__(self) -> str:
        return f"Budget('{self}')"

    def __str__(self) -> str:
        amount = int(self.amount) if self.amount == int(self.amount) and self.amount < 1e12 else self.amount
        return f"{amount} {self.unit}"

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Parses a number and a unit: "1e15 flop", "3000000 tokens", "600 seconds", "20_000 samples"."""
        number, _, unit = text.strip().partition(" ")
        try:
            amount = float(number)
        except ValueError:
            amount = math.nan
        if unit not in UNITS or not math.isfinite(amount):
            raise ValueError(f"budget: must be a number and one of {', '.join(UNITS)} (as '600 seconds'), got {text!r}")
        return cls(**{unit: amount})

    @property
    def unit(self) -> str:
        """flop, tokens, seconds or samples."""
        return next(unit for unit in UNITS if getattr(self, unit) is not None)

    @property
    def amount(self) -> float:
        """The length in `unit`."""
        return float(getattr(self, self.unit))

    def share_done(self, progress: Mapping[str, Any]) -> float:
        """The share of the budget that is used up: the counter of its unit over its amount; 1 or more at the end."""
        return progress[self.unit] / self.amount


def split(budget: Budget, beta: float) -> tuple[Budget | None, Budget | None]:
    """Splits a budget between mid-training and RL; RL gets the share `beta`.

    FLOP and seconds are split directly. Tokens are supervised tokens, of which RL gets (3 / 5) beta by the exchange
    rate of `equal_compute_tokens`. An empty part is None: its stage is left out.

    Raises:
        ValueError: beta is outside 0 .. 1, or the budget is in samples, which have no exchange rate.

    >>> split(Budget(tokens=1e6), 0.3)
    (Budget('700000 tokens'), Budget('180000 tokens'))
    """
    if not 0.0 <= beta <= 1.0:
        raise ValueError(f"split: beta must be in 0 .. 1, got {beta}")
    if budget.unit == "samples":
        raise ValueError(
            "split: samples have no exchange rate between stages; give a budget in flop, tokens or seconds"
        )
    rate = 1.0 / equal_compute_tokens(1, 1, 1) if budget.unit == "tokens" else 1.0
    parts = ((1.0 - beta) * budget.amount, rate * beta * budget.amount)
    midtrain, rl = (Budget(**{budget.unit: round(part, 6)}) if part > 0 else None for part in parts)
    return midtrain, rl


def matmul_peak(device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> float:
    """FLOP/s of the fastest of at least ten square matrix products, measured in a third of a second or more, once per
    process and setting.

    On CPU this uses the faster of the libraries that `kernels.linear` chooses from, with torch's current number of
    threads. A busy machine gives a lower peak, and so a higher share of it.
    """
    return _measured_peak(str(device), dtype, torch.get_num_threads())


@lru_cache(maxsize=8)
def _measured_peak(device: str, dtype: torch.dtype, num_threads: int, time_s: float = 0.3) -> float:
    on_gpu = not device.startswith("cpu")
    size = 4096 if on_gpu else 768
    a, b = (torch.ones(size, size, dtype=dtype, device=device) for _ in range(2))
    weight = b.clone().requires_grad_()
    runs, best_s, end = 0, math.inf, time.perf_counter() + time_s
    while time.perf_counter() < end or runs < 10:  # on a busy machine the first is of no use
        started = time.perf_counter()
        kernels.linear(a, weight) if on_gpu or runs % 2 else torch.mm(a, b)
        runs += 1
        if on_gpu:
            torch.cuda.synchronize(device)
        best_s = min(best_s, time.perf_counter() - started)
    return 2.0 * size**3 / best_s


def account(progress: Mapping[str, Any], peak: float) -> dict[str, float]:
    """The rates of a stage so far, for a line of metrics.jsonl.

    Args:
        progress: counters `tokens`, `flop` and `seconds` of the stage.
        peak: FLOP/s, as from `matmul_peak`.
    Returns:
        tokens_per_s, flop_per_s, and peak_percent: flop_per_s as a percentage of `peak`.
    """
    seconds = max(progress["seconds"], 1e-9)
    flop_per_s = progress["flop"] / seconds
    return {
        "tokens_per_s": progress["tokens"] / seconds,
        "flop_per_s": flop_per_s,
        "peak_percent": 100.0 * flop_per_s / peak,
    }
