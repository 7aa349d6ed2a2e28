"""Two ranks of reinforcement learning are one process: the same rewards, losses and weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

import fastreason as fr
from fastreason.grading.erring_verifier import VerifierErrors
from fastreason.rl.loop import PolicySettings, reinforce
from fastreason.runtime import distributed
from fastreason.runtime.metrics_log import MetricsLog, without_times
from fastreason.runtime.stop_request import StopRequest
from fastreason.training.optimizer import OptimSettings

from ..ranks import run_on_ranks

PART = {"op": [2, 3], "themes": ["symbolic"], "max_value": 99, "max_sentences": 4}
# an odd number of prompts, so that the ranks have different shares; what differs between ranks and must not matter:
# normalisers by token and by sequence, statistics of the batch, zero-advantage groups, parts of a batch, KL, samples
# that leave
# the loss
RUNS: dict[str, dict[str, Any]] = {
    "grpo": {"prompts": 3},
    "dapo": {"loss": "dapo", "prompts": 3, "kl_coef": 0.05, "epochs": 2, "minibatches": 2, "aggregation": "sequence"},
    "mask": {"prompts": 3, "max_new_tokens": 40, "truncated": "mask", "kl_coef": 0.05, "count_zero_advantage": True},
    "batch": {
        "loss": "reinforce_plus_plus", "prompts": 4, "accumulate": 2, "count_zero_advantage": True, "entropy_coef": 0.01
    },
    "erring": {"prompts": 3, "verifier": VerifierErrors(false_positive=0.3, false_negative=0.3)},
}  # fmt: skip


def reward(problems, samples, verdicts) -> np.ndarray:
    """Depends on the sample alone, whatever rank it is on; some groups have zero advantage."""
    of_tokens = (samples.tokens[:, 0] % 3 == 0).astype(np.float32) * (problems.indices % 4 != 1).repeat(4)
    return of_tokens + verdicts.verified  # nothing is, but by a verifier that errs


def train_all(out: str) -> dict[str, Any]:
    """Lines of metrics and weights of every run in the folder `out`, as this rank sees them."""
    found = {}
    mixture = fr.Mixture.from_dict([PART])
    tokenizer = fr.Tokenizer.for_mixtures([mixture])
    folder = Path(out)
    for name, changes in RUNS.items():
        model = fr.Decoder(fr.ModelConfig(len(tokenizer), 32, 2, 4, 2, 32))
        model.reset_parameters(0)
        optim = OptimSettings(matrices="adamw", matrix_lr=5e-4, lr=5e-4, schedule="linear", warmup=0.0)
        given = {"mixture": [PART], "samples": 4, "steps": 4, "max_new_tokens": 8, "truncated": "keep", "optim": optim}
        log = MetricsLog(folder / f"{name}.jsonl")
        reinforce(
            model, tokenizer, PolicySettings(**(given | changes)), seed=1, folder=folder / name, log=log,
            stop=StopRequest(), reward=reward,
        )  # fmt: skip
        lines = [without_times(line) for line in log.read()] if distributed.is_main() else []
        weights = torch.cat([parameter.detach().flatten() for parameter in model.parameters()]).tolist()
        found[name] = {"lines": lines, "weights": weights, "files": sorted(p.name for p in folder.glob(f"{name}*"))}
    return found


def test_two_ranks_are_one_process(tmp_path):
    for name in ("two", "one"):
        (tmp_path / name).mkdir()
    with_two, other = run_on_ranks(2, __name__, "train_all", str(tmp_path / "two"), out=tmp_path / "out")
    alone = train_all(str(tmp_path / "one"))
    for name in RUNS:
        one, two = alone[name], with_two[name]
        assert other[name]["weights"] == two["weights"]
        assert one["files"] == two["files"]
        np.testing.assert_allclose(two["weights"], one["weights"], atol=1e-5, rtol=0)
        assert len(one["lines"]) == len(two["lines"]) == 4
        for single, both in zip(one["lines"], two["lines"], strict=True):
            assert single.keys() == both.keys()
            for key, value in single.items():
                if isinstance(value, float):
                    assert abs(both[key] - value) <= 1e-5 * max(1.0, abs(value)), (name, key)
                else:
                    assert both[key] == value, (name, key)
        assert any(0 < line["zero_advantage"] < 1 for line in one["lines"])
    erring = alone["erring"]["lines"]
    assert all(line["true_reward"] != line["reward"] and line["verified"] == 0.0 for line in erring)
