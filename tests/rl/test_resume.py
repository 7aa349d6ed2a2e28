"""kill -9 at random moments of reinforcement learning: the run goes on as if never stopped, to the last bit.

4 kills by default; FASTREASON_KILLS asks for another number.
"""

import os
import random
import shutil
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import fastreason as fr
from fastreason.grading.erring_verifier import VerifierErrors
from fastreason.rl.loop import PolicySettings, reinforce
from fastreason.rl.prompts import FixedMixture
from fastreason.runtime.metrics_log import MetricsLog, without_times
from fastreason.runtime.stop_request import StopRequest
from fastreason.training import checkpoint
from fastreason.training.optimizer import OptimSettings

from ..kills import kill_at_flush
from ..processes import forked

KILLS = int(os.environ.get("FASTREASON_KILLS", "4"))
PART = {"op": [2, 3], "themes": ["symbolic"], "max_sentences": 3, "max_value": 99}
# every step is saved; the reference, a source of prompts that learns, dynamic sampling, several updates and a verifier
# that errs take part
SETTINGS = PolicySettings(
    mixture=[PART],
    loss="dapo",
    max_draws=3,
    steps=8,
    prompts=4,
    samples=4,
    max_new_tokens=6,
    truncated="keep",  # random weights end no sample
    kl_coef=0.05,
    epochs=2,
    minibatches=2,
    optim=OptimSettings(matrices="adamw", matrix_lr=2e-3, lr=2e-3, schedule="linear"),
    save_every_s=0.0,
    keep=2,
    verifier=VerifierErrors(false_positive=0.2),
)


class Moving(FixedMixture):
    """Goes on from where the rewards that it has seen lead to."""

    def __init__(self) -> None:
        super().__init__(SETTINGS, 0)
        self.seen = 0

    def draw(self, step: int) -> fr.ProblemBatch:
        return super().draw(step + 1000 * self.seen)

    def observe(self, problems: fr.ProblemBatch, rewards_PG: np.ndarray) -> None:
        self.seen = (self.seen * 7 + int(rewards_PG.sum())) % 1009

    def state(self) -> dict[str, Any]:
        return {"seen": self.seen}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.seen = state["seen"]


def reward(problems: fr.ProblemBatch, samples: fr.RolloutOutput, verdicts: fr.Verdicts) -> np.ndarray:
    return ((samples.tokens[:, 0] % 4 == 0) | verdicts.verified).astype(np.float32)


def run(folder: Path, kill_at: int) -> None:
    """Trains to the end in this process, which kills itself at the `kill_at`-th flush to disk, if there are so many."""
    kill_at_flush(kill_at)
    tokenizer = fr.Tokenizer.for_mixtures([fr.Mixture.from_dict([PART])])
    model = fr.Decoder(fr.ModelConfig(len(tokenizer), 16, 1, 2, 1, 16))
    # a stage that goes on is given other weights than it began with: neither they nor their reference may matter
    model.reset_parameters(1 if (folder / "c").exists() or (folder / "c.old").exists() else 0)
    log = MetricsLog(folder / "metrics.jsonl")
    reinforce(
        model, tokenizer, SETTINGS, seed=0, folder=folder / "c", log=log, stop=StopRequest(), reward=reward,
        prompts=Moving(),
    )  # fmt: skip


def outcome(folder: Path) -> tuple[list[dict], list[dict], list[bytes]]:
    """Everything that must not depend on kills: metrics and counters without times, and the bytes of all weights."""
    lines = [without_times(line) for line in MetricsLog(folder / "metrics.jsonl").read()]
    places = [folder / "c", *checkpoint.kept_checkpoints(folder / "c"), folder / "c-reference"]
    for place in places:
        checkpoint.check_files(place)
    counters = [without_times(checkpoint.load_progress(place)) for place in places]
    weights = [(place / "model.safetensors").read_bytes() for place in places]
    return lines, counters, weights


def test_reinforcement_learning_that_is_killed_at_random_moments_is_the_unbroken_run(tmp_path):
    (tmp_path / "whole").mkdir()
    started = time.monotonic()
    whole = forked(run, tmp_path / "whole", 0)
    whole.join()
    whole_s = time.monotonic() - started
    assert whole.exitcode == 0
    want = outcome(tmp_path / "whole")
    assert len(want[0]) == 8
    assert len({line["reward"] for line in want[0]}) > 3

    chance, killed, finished, folder = random.Random(0), 0, 0, tmp_path / "parts"
    while killed < KILLS or finished == 0:
        folder.mkdir(exist_ok=True)
        # by turns: somewhere in the flushes of a save, anywhere at all, and, when enough were killed, not
        more = killed < KILLS
        by_flush = more and killed % 2 == 0
        process = forked(run, folder, chance.randint(1, 60) if by_flush else 0)
        if more and not by_flush:
            process.join(chance.uniform(0.0, whole_s / 2))
            process.kill()
        process.join()
        if process.exitcode == -signal.SIGKILL:
            killed += 1
            continue
        assert process.exitcode == 0
        assert outcome(folder) == want
        finished += 1
        shutil.rmtree(folder)
