"""Runs for tests: small ones written by hand, and whole ones with simulated noise."""

import numpy as np

from bench.harness.records import OURS, Record, Run

from .noise_simulation import CPU, simulate

CLASS = "test-cpu-2c"


def record(what="drawing", provider=OURS, times_s=(0.1, 0.11, 0.12), **more):
    values = dict(
        suite="tasks", what=what, provider=provider, shape={"op": 5}, unit="problems", work=100.0,
        times_s=list(times_s), clock="cpu",
    )  # fmt: skip
    return Record(**(values | more))


def run(records, **more):
    values = dict(
        schema=1,
        date="2026-01-31T12:00:00+00:00",
        machine={"cpu": "Test CPU", "cores": 2, "class": CLASS, "memory_gib": 8.0},
        versions={"fastreason": "0.1.0", "torch": "2.13.0"},
        commit="0123abc",
        threads=1,
        peaks={"matmul_one_core": 1e11, "copy_one_core": 2e10},
        skipped={"trl": "trl is not installed"},
        records=list(records),
    )  # fmt: skip
    return Run(**(values | more))


def simulated_runs(seed, sides=(1, 1), noise=CPU, slower=None, **more):
    """Runs of either side, with the figures of `noise_simulation.simulate`."""
    figures = simulate(seed, noise, runs=sides, slower=slower, **more)
    names = [f"figure {figure.group[0]}" for figure in figures]
    providers = ["a peer" if figure.is_control else OURS for figure in figures]

    def of(times):
        return [
            record(name, provider, np.asarray(times_s).tolist(), work=1.0)
            for name, provider, times_s in zip(names, providers, times, strict=True)
        ]

    base = [run(of([figure.base[i] for figure in figures])) for i in range(sides[0])]
    new = [run(of([figure.new[i] for figure in figures]), commit="89abcde") for i in range(sides[1])]
    return base, new
