"""A step of pre-training beside transformers' on the same documents: weights, loss and optimizer are the same.

Every contestant is a process of its own (bench/suites/train_worker.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from ..harness.questions import Contestant, Question, Settings
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


# at 10m what is compiled is as fast as what is not, and takes a minute to begin
COMPILED = "lengths-compiled"
PRECISIONS = ("float32", "bfloat16")


def questions(settings: Settings) -> Iterator[Question]:
    for size, (steps, turns) in SIZES.items():
        if settings.quick and size != "tiny":
            continue
        for precision in PRECISIONS:
            start = partial(_worker, settings, size, settings.size(steps, 1))
            contestants = {
                name: start(what, precision, needs)
                for name, (what, needs) in CONTESTANTS.items()
                if size == "tiny" or what != COMPILED
            }
            narrow = precision == "bfloat16"
            if narrow:
                contestants["ours in float32"] = start("fastreason", "float32", ())
            yield Question(
                "training in bfloat16" if narrow else "training", {"model": size, "op": "2-10"}, "document tokens",
                contestants, turns=turns, turn_s=None, warm=False,
                # the peak is that of float32, which products in bfloat16 exceed
                peak=None if narrow else "matmul",
            )  # fmt: skip


def _worker(settings: Settings, size: str, steps: int, name: str, precision: str, needs: tuple[str, ...]) -> Contestant:
    return contestant(
        "bench.suites.train_worker", name, size, precision, steps=steps, threads=settings.threads, needs=needs
    )
