"""A whole step of reinforcement learning (sample, grade, update) beside TRL's GRPOTrainer.

Every contestant is a process of its own (bench/suites/rl_worker.py). TRL takes all samples of a step in one backward
pass, and once in four as well, which gives the same gradient and may be faster.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..harness.questions import Question, Settings
from ..harness.records import OURS, Shape
from ..harness.worker_process import contestant

NEEDS = ("trl", "datasets", "accelerate")
# those of bench/suites/rl_worker.py by the names they are shown by, and what they need
CONTESTANTS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    (OURS, "fastreason", ()),
    ("TRL GRPOTrainer", "trl", NEEDS),
    ("TRL GRPOTrainer, 4 parts", "trl-parts", NEEDS),
)
TURNS = 4
# prompts, samples of each and tokens of each sample: as in bench/suites/rl_worker.py, which this module does not load
SHAPE = {"full": {"prompts": 8, "samples": 8, "tokens": 64}, "quick": {"prompts": 2, "samples": 4, "tokens": 8}}


def questions(settings: Settings) -> Iterator[Question]:
    size = settings.size("full", "quick")
    for name, kl_coef in (("on-policy, no reference", "0.0"), ("KL to a reference", "0.04")):
        contestants = {
            provider: contestant("bench.suites.rl_worker", worker, size, kl_coef, threads=settings.threads, needs=needs)
            for provider, worker, needs in CONTESTANTS
            if worker != "trl-parts" or kl_coef == "0.0"
        }
        shape: Shape = {"parameters": "0.89 M", **SHAPE[size]}
        yield Question(
            f"a step of reinforcement learning, {name}", shape, "steps", contestants,
            turns=TURNS, turn_s=None, warm=False, peak="matmul",
        )  # fmt: skip
