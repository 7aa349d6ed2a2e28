"""What a step of supervised training hands to a GPU, without one: launches, host time, waits and bytes.

    python -m bench.kernels.step_launches [--preset 100m] [--tokens 65536]

Counted by bench/kernels/launch_counts.py in bfloat16, a step of one part, and what one more part adds. The host time is
the CPU time of a step of a narrow model with as many layers, whose Triton launches end before the driver and whose
matrix products end before they compute, on this machine; a launch by the driver, which is not in it, takes a few
microseconds.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from fastreason.model.config import ModelConfig
from fastreason.model.decoder import Decoder
from fastreason.tasks.packed import PackedBatch
from fastreason.training.parallel import Replica
from fastreason.training.row_batches import count_targets
from fastreason.training.supervised import step_loss
from fastreason.training.supervised_settings import Phase, SupervisedSettings

from ..harness.records import OURS, Record
from .compile_without_gpu import recorded
from .launch_counts import Launches, counted

__all__ = ["count_step", "host_microseconds", "products_of_nothing", "step_records"]

VOCABULARY, LENGTH = 2200, 512
# what a part of 65,536 tokens of `100m` should take at most
TARGETS = {"launches": 250, "host microseconds": 10_000, "waits": 2, "bytes a layer and token": 110_000}


def count_step(model: Decoder, tokens: int, parts: int = 1, length: int = LENGTH) -> Launches:
    """A step of `parts` parts of as many tokens, forward and backward, of a model on the meta device; not its first.

    Args:
        length: of a document.
    """
    batch, settings = _documents(parts * tokens, length), _settings(parts)
    for _ in range(2):
        with counted() as launches:
            step_loss(Replica(model, "ddp"), batch, count_targets(batch, settings.loss_on), settings)
        for parameter in model.parameters():
            parameter.grad = None
    return launches


def host_microseconds(layers: int, turns: int = 5) -> list[float]:
    """CPU time of a step of a narrow model, once for every turn."""
    model = Decoder(ModelConfig.preset("tiny", vocab_size=VOCABULARY, num_hidden_layers=layers))
    model.reset_parameters(0)
    times = []
    with recorded(90, kept=False), products_of_nothing():
        for _ in range(turns + 1):
            begin = time.process_time()
            step_loss(Replica(model, "ddp"), _documents(128, 64), 128, _settings(1))
            times.append(1e6 * (time.process_time() - begin))
            for parameter in model.parameters():
                parameter.grad = None
    return times[1:]  # kernels are compiled in the first


@contextmanager
def products_of_nothing() -> Iterator[None]:
    """Matrix products on CPU only allocate: on a GPU, the host does not compute them."""
    library = torch.library.Library("aten", "IMPL")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="(?s).*Overriding a previously registered kernel")
        library.impl("mm", lambda a, b: a.new_empty((a.shape[0], b.shape[1])), "CPU")
        library.impl("addmm", lambda _, a, b, **__: a.new_empty((a.shape[0], b.shape[1])), "CPU")
    try:
        yield
    finally:
        library._destroy()


def _documents(tokens: int, length: int = LENGTH) -> PackedBatch:
    """Documents of one length, every token of a solution."""
    count = tokens // length
    zeros = np.zeros(tokens, dtype=np.int32)
    starts = (np.arange(count) * length).astype(np.int32)
    lengths = np.full(count, length, dtype=np.int32)
    return PackedBatch(1, tokens, zeros, zeros, np.ones(tokens, dtype=np.uint8), starts, lengths, 0)


def _settings(parts: int) -> SupervisedSettings:
    return SupervisedSettings([Phase(1.0, [{"op": [2]}])], precision="bfloat16", accumulate=parts)


def _on_meta(preset: str) -> Decoder:
    with torch.device("meta"):
        return Decoder(ModelConfig.preset(preset, vocab_size=VOCABULARY))


def step_records(preset: str, tokens: int, turns: int = 5) -> Iterator[Record]:
    """Figures of a step, beside what they should be at most."""
    model = _on_meta(preset)
    launches, layers = count_step(model, tokens), model.config.num_hidden_layers
    figures = {
        "launches": float(launches.total),
        "host microseconds": sorted(host_microseconds(layers, turns))[turns // 2],
        "waits": float(launches.waits),
        "bytes a layer and token": launches.moved.total() / tokens / layers,
    }
    for name, figure in figures.items():
        for provider, amount in ((OURS, figure), ("target", float(TARGETS[name]))):
            yield Record(
                "launches", f"a step of one part: {name}", provider, {"preset": preset, "tokens": tokens}, name, amount,
                [], "count",
            )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="100m", choices=["tiny", "10m", "100m"])
    parser.add_argument("--tokens", type=int, default=65_536)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = _on_meta(options.preset)
    one, two = (count_step(model, options.tokens, parts) for parts in (1, 2))
    layers = model.config.num_hidden_layers
    for name, what in (("Triton", "triton"), ("torch", "torch"), ("matrix products", "products")):
        counts, more = getattr(one, what), getattr(two, what).total() - getattr(one, what).total()
        print(f"{name}: {counts.total()}, one more part {more}: {dict(counts.most_common())}")
    print(f"launches: {one.total}, one more part {two.total - one.total}")
    print(f"copies to the device: {one.to_device}; waits: {one.waits}; of two parts {two.to_device} and {two.waits}")
    kilobytes = {name: round(size / options.tokens / layers / 1e3, 2) for name, size in one.moved.most_common(12)}
    print(f"KB a layer and token: {one.moved.total() / options.tokens / layers / 1e3:.1f}: {kilobytes}")
    times = sorted(host_microseconds(layers))
    print(f"host: {times[len(times) // 2] / 1e3:.1f} ms of CPU time ({times[0] / 1e3:.1f} - {times[-1] / 1e3:.1f})")


if __name__ == "__main__":
    main()
