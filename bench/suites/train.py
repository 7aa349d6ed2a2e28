"""A step of pre-training beside transformers' on the same documents: weights, loss and optimizer are the same.

Every contestant is a process of its own (bench/suites/train_worker.py).
"""

from __future__ import annotations

from collections.abc import Iterator

from ..harness.questions import Question, Settings
from ..harness.records import OURS
from ..harness.worker_process import contestant

# those of bench/suites/train_worker.py by the names they are shown by, and what they need
CONTESTANTS: dict[str, tuple[str, tuple[str, ...]]] = {
    OURS: ("fastreason", ()),
    "transformers Trainer": ("trainer", ("transformers", "accelerate")),
    "transformers": ("lengths", ("transformers",)),
    "torch.compile of transformers": ("lengths-compiled", ("transformers",)),
}
# steps of a turn, and turns
SIZES = {"tiny": (10, 5), "10m": (1, 3)}


def questions(settings: Settings) -> Iterator[Question]:
    for size, (steps, turns) in SIZES.items():
        if settings.quick and size != "tiny":
            continue
        steps = settings.size(steps, 1)
        contestants = {
            name: contestant(
                "bench.suites.train_worker", worker, size, steps=steps, threads=settings.threads, needs=needs
            )
            for name, (worker, needs) in CONTESTANTS.items()
            # at 10m what is compiled is as fast as what is not, and takes a minute to begin
            if size == "tiny" or worker != "lengths-compiled"
        }
        yield Question(
            "training", {"model": size, "op": "2-10"}, "document tokens", contestants,
            turns=turns, turn_s=None, warm=False, peak="matmul",
        )  # fmt: skip
