"""What sampling asks of the host and of a GPU, counted without one, and a model of the time it would take on an H100.

    python -m bench.kernels.decode_step

A step counts as one launch when it is replayed as a graph; decode_operations.py counts what is in it, and
decode_simulation.py how often it runs.

The model of time adds up, for every operation of a step, the largest of: its bytes over a share of the H100's
bandwidth, its multiplications over a share of its peak, and the least time of a kernel in a graph. The assumptions are
`Gpu`, and are printed. None of it is a measurement on a GPU.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

import fastreason as fr
from fastreason.sampling.device_decoding import PREFILL_TOKENS, Size

from ..harness.environment import ROOT
from ..harness.markdown import markdown, put_between_marks, short
from ..harness.records import OURS, Record, Shape
from .decode_operations import DTYPE, PRESET, PROMPT_TOKENS, Operation, counted_prefill, counted_step, meta_decoding
from .decode_simulation import LIMIT, MEAN, PROMPTS, SAMPLES, SLOTS, lengths_of, simulate

__all__ = ["Account", "Gpu", "account", "accounts", "records"]


@dataclass(frozen=True)
class Gpu:
    """An H100 SXM and its host, as assumed.

    Args:
        bytes_per_s, flops_per_s: peaks: device memory, and bfloat16 products without sparsity.
        memory_share, matmul_share: what large kernels reach of them.
        kernel_s: the least time of a kernel in a graph, start and end included.
        replay_s: host time of a graph's replay.
        launch_s: host time of an operation that is launched on its own.
    """

    bytes_per_s: float = 3.35e12
    flops_per_s: float = 989e12
    memory_share: float = 0.7
    matmul_share: float = 0.5
    kernel_s: float = 2.5e-6
    replay_s: float = 30e-6
    launch_s: float = 30e-6


@dataclass(frozen=True)
class Account:
    """Figures of a rollout. Seconds, and tokens per second, are the model's; `scheduler_us` is measured CPU time.

    Args:
        tokens, steps: in all.
        occupancy: share of slots that drew a token that was kept, while samples waited.
        useful_rows: share of the rows of all steps, whatever their width.
        kernels: of a step of all slots.
        launches: of the host a step: a replay, and its share of looks, refills and prompts.
        captures: launches a step for widths that were new, of which each takes two steps launched one by one.
        waits: of the host a step; waits_between_looks: in a step itself.
        scheduler_us: CPU time of the scheduler's Python a step, on this machine.
        host_us: that and the launches, a step; capture_us: of new widths.
        bytes_per_token: that a step moves, of all its kernels; kv_gb_per_step: of these, keys and values.
        step_ms: mean time of a step on the device; prefill_s: of all prompts.
    """

    tokens: int
    steps: int
    occupancy: float
    useful_rows: float
    kernels: int
    launches: float
    captures: float
    waits: float
    waits_between_looks: int
    scheduler_us: float
    host_us: float
    capture_us: float
    bytes_per_token: float
    kv_gb_per_step: float
    step_ms: float
    prefill_s: float
    tokens_per_s: float


def seconds_of(operations: Sequence[Operation], gpu: Gpu, kv_bytes: float = 0.0) -> float:
    """Of operations one after the other; `kv_bytes` are what attention reads in all of them together."""
    bandwidth = gpu.memory_share * gpu.bytes_per_s
    attention = sum(operation.name == "decode_attention" for operation in operations)
    total = 0.0
    for operation in operations:
        read = operation.bytes + (kv_bytes / attention if operation.name == "decode_attention" else 0.0)
        compute = operation.flops / (gpu.matmul_share * gpu.flops_per_s)
        total += max(operation.kernels * gpu.kernel_s, read / bandwidth, compute)
    return total


def account(lengths_PG: np.ndarray, gpu: Gpu, slots: int = SLOTS) -> Account:
    """Counts, simulates, and applies the model."""
    found, config = simulate(lengths_PG, slots), fr.ModelConfig.preset(PRESET)
    decoding = meta_decoding(Size(slots, slots // SAMPLES, PROMPT_TOKENS, LIMIT))
    counted = {width: counted_step(decoding, width) for width in sorted({width for width, *_ in found.steps})}
    prefill = counted_prefill(decoding)
    of_token = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * DTYPE.itemsize
    steps, tokens = found.num_steps, int(lengths_PG.sum())
    decode_s = kv = other = 0.0
    for width, count, own, prefix in found.steps:
        operations, read = counted[width].operations, of_token * (own + prefix) / count
        decode_s += count * seconds_of(operations, gpu, read)
        kv += count * read
        other += count * sum(operation.bytes for operation in operations)
    # a pass has the operations of a full one, and as much work as it has tokens
    prefill_s = found.prefill_tokens / PREFILL_TOKENS * seconds_of(prefill.operations, gpu)
    full = counted[max(counted)]
    alone = sum(found.launches.values()) + found.prefill_passes * prefill.launches
    captures = 2 * sum(counted[width].launches for width in counted)
    # while the host refills and captures, the device has nothing to do
    idle_s = gpu.launch_s * (sum(found.launches.values()) + captures)
    return Account(
        tokens=tokens,
        steps=steps,
        occupancy=found.live / max(1, found.rows),
        useful_rows=tokens / found.all_rows,
        kernels=full.launches,
        launches=1 + alone / steps,
        captures=captures / steps,
        waits=(found.waits + found.prefill_passes) / steps,
        waits_between_looks=full.waits,
        scheduler_us=1e6 * found.host_s / steps,
        host_us=1e6 * (found.host_s / steps + gpu.replay_s + gpu.launch_s * alone / steps),
        capture_us=1e6 * gpu.launch_s * captures / steps,
        bytes_per_token=(kv + other) / tokens,
        kv_gb_per_step=kv / steps / 1e9,
        step_ms=1e3 * decode_s / steps,
        prefill_s=prefill_s,
        tokens_per_s=tokens / (decode_s + prefill_s + idle_s),
    )


def records(name: str, found: Account) -> Iterator[Record]:
    """What can be counted or follows from counts, as figures of which less is better."""
    figures = {
        "kernels a step": found.kernels,
        "launches a step": found.launches,
        "captured launches a step": found.captures,
        "waits a step": found.waits,
        "bytes a token": found.bytes_per_token,
        "percent of slots idle": 100 * (1 - found.occupancy),
        "modeled ns a token (H100)": 1e9 / found.tokens_per_s,
    }
    for unit, figure in figures.items():
        shape: Shape = {"slots": SLOTS, "tokens": found.tokens}
        yield Record("decode", f"{name}: {unit}", OURS, shape, unit, figure, [], "count")


CASES = {
    "geometric": ("geometric", PROMPTS),
    "uniform": ("uniform", PROMPTS),
    "geometric, 4 x": ("geometric", 4 * PROMPTS),
    "uniform, 4 x": ("uniform", 4 * PROMPTS),
}


QUICK = (16, 32)  # prompts and slots


def accounts(gpu: Gpu, quick: bool = False) -> Iterator[tuple[str, Account]]:
    with torch.no_grad():
        simulate(lengths_of("uniform", 2), 8)  # imports what the first use of torch imports
    for name, (kind, prompts) in CASES.items():
        yield (
            name,
            account(lengths_of(kind, QUICK[0]), gpu, QUICK[1]) if quick else account(lengths_of(kind, prompts), gpu),
        )


def table(found: Mapping[str, Account]) -> str:
    def row(name: str, text: Callable[[Account], str]) -> list[str]:
        return [name, *map(text, found.values())]

    rows = [
        row("tokens; steps", lambda a: f"{short(a.tokens)}; {a.steps:,}"),
        row("slots that draw a kept token, while samples wait", lambda a: f"{a.occupancy:.1%}"),
        row("rows of all steps that do", lambda a: f"{a.useful_rows:.1%}"),
        row("kernels of a step", lambda a: str(a.kernels)),
        row("launches of the host a step", lambda a: f"{a.launches:.1f}"),
        row("more for graphs of new widths", lambda a: f"{a.captures:.1f}"),
        row("waits of the host a step", lambda a: f"{a.waits:.2f}"),
        row("of these in a step itself", lambda a: str(a.waits_between_looks)),
        row("host time a step", lambda a: f"{a.host_us:.0f} us"),
        row("of it Python's, measured", lambda a: f"{a.scheduler_us:.0f} us"),
        row("more for graphs of new widths", lambda a: f"{a.capture_us:.0f} us"),
        row("bytes a token", lambda a: f"{a.bytes_per_token / 1e6:.2f} MB"),
        row("keys and values read a step", lambda a: f"{a.kv_gb_per_step:.1f} GB"),
        row("modeled: a step on the device", lambda a: f"{a.step_ms:.2f} ms"),
        row("modeled: tokens per second", lambda a: short(a.tokens_per_s)),
    ]
    return markdown(["", *found], rows)


def assumptions(gpu: Gpu) -> str:
    return f"""\
Assumed of an H100: {gpu.bytes_per_s / 1e12:g} TB/s and {gpu.flops_per_s / 1e12:g} TFLOP/s at their peaks, of which
large kernels reach {gpu.memory_share:.0%} and {gpu.matmul_share:.0%}; at least {1e6 * gpu.kernel_s:g} us for a kernel
of a graph; {1e6 * gpu.replay_s:g} us of host time for a replay, {1e6 * gpu.launch_s:g} us for an operation launched on
its own. {PRESET} in bfloat16, {SLOTS:,} slots, groups of {SAMPLES} samples, prompts of {PROMPT_TOKENS} tokens, at most
{LIMIT:,} new ones. Lengths of samples are geometric with mean {MEAN}, or uniform from 200 to 400; the paper's step has
{PROMPTS:,} groups, 4 x four times as many."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--docs", action="store_true", help="write the table into docs/rollout.md")
    options = parser.parse_args()
    torch.set_num_threads(1)
    gpu = Gpu()
    text = f"{table(dict(accounts(gpu)))}\n\n{assumptions(gpu)}"
    print(text)
    if options.docs:
        put_between_marks(ROOT / "docs" / "rollout.md", "decode", text)


if __name__ == "__main__":
    main()
