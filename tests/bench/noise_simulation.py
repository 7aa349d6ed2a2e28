"""How often noise.py is wrong: simulated runs of the suite on a shared machine, changed nowhere or in one figure.

The machine's level moves from run to run and each figure follows it more or less; a run adds to a figure what no other
figure sees, with heavy tails; turns scatter, and now and then a neighbour holds one up. `CPU` and `WALL` are set after
ten runs of thirteen small operations (this library's, torch's, transformers' and tokenizers') in three minutes on two
virtual cores, both used by other processes: medians of nine turns differed between runs by 2.4 % of CPU time, 1.1 %
behind the drift, and by 23 % of wall time, 5 % behind it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bench.regressions.compare import ALLOWED
from bench.regressions.noise import Change, Figure, changes


@dataclass(frozen=True)
class Noise:
    """Standard deviations of logarithms.

    Args:
        drift: of the machine's level, by run.
        response: of how far figures follow it, around 1.
        run: what a run adds to a figure, the median over figures, which differ by a factor of e ** 0.5; Student's t
            with 4 degrees of freedom.
        turn: of a turn, the median over figures.
        held_up: the chance that a turn takes 20 to 80 % longer.
    """

    drift: float
    response: float
    run: float
    turn: float
    held_up: float = 0.05


CPU = Noise(drift=0.02, response=0.3, run=0.012, turn=0.025)
WALL = Noise(drift=0.2, response=0.2, run=0.02, turn=0.04)


def simulate(
    seed: int,
    noise: Noise = CPU,
    *,
    runs: tuple[int, int] = (1, 1),
    num_figures: int = 40,
    num_peers: int = 12,
    turns: int = 7,
    slower: Mapping[int, float] | None = None,
) -> list[Figure]:
    """Figures of ours, then of peers that took turns with the first; `slower[i]` is a factor in the new runs."""
    rng = np.random.default_rng(seed)
    n, r = num_figures + num_peers, sum(runs)
    group = [*range(num_figures), *range(num_peers)]
    drift_FR = noise.drift * rng.standard_normal(r) * (1 + noise.response * rng.standard_normal(n))[:, None]
    own_F = noise.run * np.exp(0.5 * rng.standard_normal(n))
    run_FR = own_F[:, None] * rng.standard_t(4, size=(n, r)) / np.sqrt(2)
    turn_F = noise.turn * np.exp(0.5 * rng.standard_normal(n))
    x_FRT = (drift_FR + run_FR)[:, :, None] + turn_F[:, None, None] * rng.standard_normal((n, r, turns))
    held_up = rng.random(x_FRT.shape) < noise.held_up
    x_FRT = x_FRT + held_up * np.log(rng.uniform(1.2, 1.8, x_FRT.shape)) + rng.uniform(-12, 0, n)[:, None, None]
    for i, factor in (slower or {}).items():
        x_FRT[i, runs[0] :] += np.log(factor)
    times = np.exp(x_FRT)
    return [
        Figure((group[i],), i >= num_figures, list(times[i, : runs[0]]), list(times[i, runs[0] :])) for i in range(n)
    ]


def rates(noise: Noise, runs: tuple[int, int], seeds: range, factor: float) -> tuple[float, float, float]:
    """Shares of comparisons: a false alarm where nothing changed; the slow figure caught; another one accused.

    The slow figure is one without a peer in even seeds and one with a peer in odd ones.
    """
    false = caught = accused = 0
    for seed in seeds:
        false += bool(_alarms(changes(simulate(seed, noise, runs=runs))[0]))
        slow = 0 if seed % 2 else 20
        alarms = _alarms(changes(simulate(seed, noise, runs=runs, slower={slow: factor}))[0])
        caught += slow in alarms
        accused += bool(alarms - {slow})
    return false / len(seeds), caught / len(seeds), accused / len(seeds)


def _alarms(found: list[Change]) -> set[int]:
    return {i for i, change in enumerate(found) if change.slower_by(ALLOWED)}
