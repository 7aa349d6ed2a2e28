"""A step of pre-training beside transformers' on the same documents: weights, loss and optimizer are the same.

Every contestant is a process of its own (bench/train_worker.py).
"""

from __future__ import annotations

from collections.abc import Iterator

from .questions import Question, Settings
from .records import OURS
from .workers import contestant

# the contestants of bench/train_worker.py
PEERS = {
    "transformers Trainer": ("trainer", ("transformers", "accelerate")),
    "transformers": ("lengths", ("transformers",)),
    "torch.compile of transformers": ("lengths-compiled", ("transformers",)),
}
# steps of a turn, and turns
SIZES = {"tiny": (10, 7), "10m": (1, 3)}


def questions(settings: Settings) -> Iterator[Question]:
    for size, (steps, turns) in SIZES.items():
        if settings.quick and size != "tiny":
            continue
        how = {"steps": settings.size(steps, 1), "threads": settings.threads}
        module = "bench.train_worker"
        contestants = {OURS: contestant(module, "fastreason", size, **how)}
        for name, (worker, needs) in PEERS.items():
            contestants[name] = contestant(module, worker, size, needs=needs, **how)
        yield Question(
            "training", {"model": size, "op": "2-10"}, "document tokens", contestants,
            turns=turns, turn_s=None, warm=False, peak="matmul",
        )  # fmt: skip
