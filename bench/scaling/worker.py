"""Steps of the real loops on one rank or several, timed: what `bench.scaling.page` starts, alone or by torchrun.

    python -m bench.scaling.worker FOLDER CASE ...

Each rank runs the cases one after the other in the folder, which is empty; rank 0 writes {CASE: what it took} to its
found.json. Cases: ddp, fsdp, rl, and links, which times exchanges alone.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import fastreason as fr
from fastreason.rl.loop import PolicySettings, reinforce
from fastreason.runtime import distributed
from fastreason.runtime.json_files import to_json
from fastreason.runtime.metrics_log import MetricsLog
from fastreason.runtime.stop_request import StopRequest
from fastreason.training.optimizer import OptimSettings
from fastreason.training.parallel import Parallel
from fastreason.training.supervised import train
from fastreason.training.supervised_settings import Phase, SupervisedSettings

from ..suites.rl_worker import speaking_reward

MIXTURE = {"op": [2, 3, 4, 5], "themes": ["zoo"]}
# about 1.1 M parameters: a step of a second or less on a core, and gradients of some MB
SIZE: dict[str, Any] = dict(
    hidden_size=128, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2, intermediate_size=384
)
BATCH_TOKENS, ROWS = 4096, 4
PROMPTS, SAMPLES, NEW_TOKENS = 8, 8, 64
STEPS = 7
OPTIM = OptimSettings(matrices="adamw", matrix_lr=1e-4, lr=1e-4, schedule="constant", warmup=0.0)


@dataclass(frozen=True)
class Setting:
    """The model that is timed, its tokenizer and its problems."""

    model: fr.Decoder
    tokenizer: fr.Tokenizer
    stream: fr.TaskStream

    @classmethod
    def make(cls) -> Setting:
        mixture = fr.Mixture.from_dict([MIXTURE])
        tokenizer = fr.Tokenizer.for_mixtures([mixture])
        model = fr.Decoder(fr.ModelConfig(len(tokenizer), **SIZE))
        model.reset_parameters(0)
        return cls(model, tokenizer, fr.TaskStream(mixture, seed=0))


class StepClock(StopRequest):
    """Notes when each step ends: every loop asks then, all ranks together, whether to stop."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: list[tuple[float, float]] = []

    def on_any_rank(self) -> bool:
        asked = super().on_any_rank()
        self.ends.append((time.perf_counter(), time.process_time()))
        return asked

    def steps(self) -> dict[str, list[float]]:
        """Seconds of every step but the first, which warms up: by the clock, and of this rank's CPU."""
        wall_s, cpu_s = np.diff(self.ends, axis=0).T.tolist()
        return {"wall_s": wall_s, "cpu_s": cpu_s}


def supervised_steps(folder: Path, parallel: Parallel) -> dict[str, Any]:
    setting, clock = Setting.make(), StepClock()
    settings = SupervisedSettings(
        phases=[Phase(1.0, [MIXTURE])], tokens=(STEPS - 1) * BATCH_TOKENS, batch_tokens=BATCH_TOKENS, rows=ROWS,
        parallel=parallel, save_every_s=1e9, loss_on="all", optim=OPTIM,
    )  # fmt: skip
    progress = train(
        "pretrain", setting.model, setting.tokenizer, settings, seed=0, folder=folder / parallel,
        log=MetricsLog(folder / "metrics.jsonl"), stop=clock,
    )  # fmt: skip
    return {**clock.steps(), "tokens": progress["tokens"] / progress["step"]}


def rl_steps(folder: Path) -> dict[str, Any]:
    """An untrained model never ends a sample, so every one has NEW_TOKENS tokens."""
    setting, clock = Setting.make(), StepClock()
    settings = PolicySettings(
        mixture=[MIXTURE], prompts=PROMPTS, samples=SAMPLES, steps=STEPS, max_new_tokens=NEW_TOKENS, truncated="keep",
        save_every_s=1e9, optim=OPTIM,
    )  # fmt: skip

    def reward(verdicts: fr.Verdicts) -> np.ndarray:
        return speaking_reward(fr.rewards.strict(verdicts))

    progress = reinforce(
        setting.model, setting.tokenizer, settings, seed=0, folder=folder / "rl",
        log=MetricsLog(folder / "metrics.jsonl"), stop=clock, reward=reward,
    )  # fmt: skip
    sampled, prompts = progress["tokens"], progress["total_tokens"] - progress["tokens"]
    of_all = PROMPTS * SAMPLES * STEPS
    return {**clock.steps(), "sample_tokens": sampled / of_all, "prompt_tokens": prompts / of_all}


def exchanges(_: Path) -> dict[str, float]:
    """Seconds of an all-reduce of one number and of 16 MB, and of a gather of the latter: medians."""
    number, large = torch.zeros(1, dtype=torch.float64), torch.zeros(4_000_000)
    parts = [torch.zeros(len(large) // distributed.world_size()) for _ in range(distributed.world_size())]
    return {
        "small_s": _median(lambda: distributed.sum_over_ranks(number), 50),
        "reduce_s": _median(lambda: distributed.sum_over_ranks(large), 9),
        "gather_s": _median(lambda: torch.distributed.all_gather(parts, parts[0]), 9),
        "size_bytes": 4.0 * len(large),
    }


def _median(work: Callable[[], Any], repeats: int) -> float:
    found = []
    for _ in range(repeats + 1):
        distributed.barrier()
        begin = time.perf_counter()
        work()
        found.append(time.perf_counter() - begin)
    return statistics.median(found[1:])


CASES: dict[str, Callable[[Path], dict[str, Any]]] = {
    "ddp": lambda folder: supervised_steps(folder, "ddp"),
    "fsdp": lambda folder: supervised_steps(folder, "fsdp"),
    "rl": rl_steps,
    "links": exchanges,
}


def main() -> None:
    folder, names = Path(sys.argv[1]), sys.argv[2:]
    torch.set_num_threads(1)
    with distributed.process_group():
        found = {name: CASES[name](folder) for name in names}
        if distributed.is_main():
            (folder / "found.json").write_text(to_json(found), encoding="utf-8")


if __name__ == "__main__":
    main()
