"""What sampling asks of the host and of a GPU, counted without one, and a model of the time it would take on an H100.

    python -m bench.kernels.decode_step

Launches: a step, a pass over prompts and the work of a look run on tensors without values (torch's `meta` device, or
those of a tiny model), where a dispatch mode counts the operations that are kernels or copies on a GPU. A step counts
once when it is replayed as a graph.

Occupancy: `DeviceBatch` schedules samples whose lengths are drawn beforehand; only the steps are simulated. What its
Python takes of this machine's CPU time is measured on the way.

The model of time adds up, for every operation of a step, the largest of: its bytes over a share of the H100's
bandwidth, its multiplications over a share of its peak, and the least time of a kernel in a graph. The assumptions are
`Gpu`, and are printed. None of it is a measurement on a GPU.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

import fastreason as fr
from fastreason import kernels
from fastreason.kernels.triton_support import as_if_on
from fastreason.sampling.continuous_batching import Work
from fastreason.sampling.device_batching import DeviceBatch
from fastreason.sampling.device_decoding import (
    FULL,
    LEAST_WIDTH,
    PREFILL_TOKENS,
    RUNNING,
    STOPPED,
    DeviceDecoding,
    Download,
    Size,
    size_within,
    widths,
)
from fastreason.sampling.stop_sequences import Stopping

from ..harness.environment import ROOT
from ..harness.markdown import markdown, put_between_marks, short
from ..harness.records import OURS, Record, Shape
from .launch_counts import launches_nothing

__all__ = ["Account", "Gpu", "Operation", "account", "accounts", "counted_step", "lengths_of", "records", "simulate"]

PRESET, DTYPE, ARCH = "100m", torch.bfloat16, 90
# the paper's step of reinforcement learning: prompts of op 11-14, groups of 6, a limit of 1,024 new tokens
PROMPTS, SAMPLES, PROMPT_TOKENS, LIMIT = 1024, 6, 400, 1024
SLOTS, KV_BYTES = 4096, 40e9
MEAN = 300
_KERNELS = {"decode_attention": 2}


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
class Operation:
    """What an operation launches and moves; keys and values that attention reads are not in `bytes`."""

    name: str
    kernels: int
    bytes: int
    flops: int


class Counting(TorchDispatchMode):
    """Notes every operation that is a kernel or a copy on a GPU, and what the host would wait for."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[Operation] = []
        self.waits = 0
        self.inside_s = 0.0  # CPU time of the operations themselves

    @property
    def launches(self) -> int:
        return sum(operation.kernels for operation in self.operations)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        begin, kwargs = time.process_time(), kwargs or {}
        out = func(*args, **kwargs)
        namespace, name = func.name().split("::")
        name = name.split(".")[0]
        given = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, Tensor)]
        made = [x for x in tree_flatten(out)[0] if isinstance(x, Tensor)]
        if name in ("_local_scalar_dense", "nonzero", "equal") or (name == "_to_copy" and leaves(given[0], made[0])):
            self.waits += 1
        if not launches_nothing(func):
            kernels_ = _KERNELS.get(name, 1) if namespace == "fastreason" else 1
            self.operations.append(Operation(name, kernels_, moved(name, given, made), flops(name, given)))
        self.inside_s += time.process_time() - begin
        return out


def leaves(before: Tensor, after: Tensor) -> bool:
    return before.device.type != "cpu" and after.device.type == "cpu"


def _size(*tensors: Tensor) -> int:
    return sum(x.numel() * x.element_size() for x in tensors)


def moved(name: str, given: Sequence[Tensor], made: Sequence[Tensor]) -> int:
    """Bytes read and written: every operand once, but of tables and caches only what is picked."""
    if name in ("index", "embedding", "index_select"):
        return 2 * _size(*made) + _size(*given[1:])
    if name in ("index_put_", "index_put", "_index_put_impl_"):
        return 2 * _size(given[-1]) + _size(*given[1:-1])
    if name == "decode_attention":
        q = given[0]
        return 2 * _size(q) + 8 * q.shape[0] * q.shape[1] * (q.shape[2] + 1)
    return _size(*given) + _size(*made)


def flops(name: str, given: Sequence[Tensor]) -> int:
    if name not in ("mm", "addmm"):
        return 0
    a, b = given[-2:]
    return 2 * a.shape[0] * a.shape[1] * b.shape[1]


def _drawn(logits: Tensor, *, prompts_N: Tensor, **settings: Any) -> tuple[Tensor, Tensor, Tensor]:
    """In the place of `kernels.sample`, which is one kernel that reads the logits once."""
    token = torch.empty_like(prompts_N)
    logprobs = torch.empty(2, len(logits), device=logits.device)
    logits.sum()  # the one operation that is counted
    return token, logprobs[0], logprobs[1]


def meta_decoding(size: Size) -> DeviceDecoding:
    with torch.device("meta"):
        model = fr.Decoder(fr.ModelConfig.preset(PRESET)).to(DTYPE)
    return DeviceDecoding(model, size, {"seed": 0}, np.array([3]))


def counted_step(decoding: DeviceDecoding, width: int) -> Counting:
    """One step of `width` rows on tensors without values."""
    with (
        mock.patch.object(kernels, "sample", _drawn),
        torch.no_grad(),
        as_if_on(ARCH),
        Counting() as found,
    ):
        decoding._step(width)
    return found


def counted_prefill(decoding: DeviceDecoding) -> Counting:
    """One full pass over prompts."""
    prompts = [np.zeros(PROMPT_TOKENS, np.int32)] * (PREFILL_TOKENS // PROMPT_TOKENS)
    with torch.no_grad(), as_if_on(ARCH), Counting() as found:
        decoding.prefill(np.arange(len(prompts)), prompts)
    return found


@dataclass
class Simulated:
    """What was asked of the device, and the rows that did something.

    Args:
        steps: (width, number of steps, tokens of slots and of prefixes that attention reads in all of them).
        launches: operations that were launched on their own, by what for; waits: of the host.
        live, rows: rows that drew a token that was kept, and all rows that slots were there for, while samples waited;
            all_rows: of all steps, whatever their width.
        host_s: CPU time of the scheduler, without the operations, which count as launches.
    """

    steps: list[tuple[int, int, int, int]] = field(default_factory=list)
    launches: dict[str, int] = field(default_factory=dict)
    waits: int = 0
    prefill_passes: int = 0
    prefill_tokens: int = 0
    live: int = 0
    rows: int = 0
    all_rows: int = 0
    host_s: float = 0.0

    @property
    def num_steps(self) -> int:
        return sum(count for _, count, _, _ in self.steps)


class SimulatedDecoding(DeviceDecoding):
    """Slots of a tiny model on CPU whose samples end at known lengths; the model is not run."""

    def __init__(self, size: Size, lengths_PG: np.ndarray, found: Simulated) -> None:
        config = fr.ModelConfig(vocab_size=16, hidden_size=16, num_hidden_layers=1, num_attention_heads=1,
                                num_key_value_heads=1, intermediate_size=16, max_position_embeddings=4096)  # fmt: skip
        super().__init__(fr.Decoder(config), size, {"seed": 0}, np.array([3]))
        self.lengths_PG, self.found, self.widths = lengths_PG, found, widths(size.slots, LEAST_WIDTH)
        self.length = np.zeros(size.slots, dtype=np.int64)
        self.end = np.zeros(size.slots, dtype=np.int64)
        self.active = np.zeros(0, dtype=np.int64)
        self.num_prefixes, self.waiting, self.idle_s = 0, True, 0.0

    def _count(self, what: str, work: Any, *arguments: Any) -> Any:
        with Counting() as counted:
            out = work(*arguments)
        self.found.launches[what] = self.found.launches.get(what, 0) + counted.launches
        self.idle_s += counted.inside_s
        return out

    def prefill(self, prefixes: np.ndarray, prompts: Sequence[np.ndarray]) -> None:
        total = sum(len(prompt) - 1 for prompt in prompts)
        per_pass = max(1, PREFILL_TOKENS // max(1, len(prompts[0]) - 1))
        self.found.prefill_passes += -(-len(prompts) // per_pass)
        self.found.prefill_tokens += total

    def start(self, slots: np.ndarray, begin: np.ndarray, last_tokens: np.ndarray) -> None:
        self.length[slots], self.end[slots] = 0, self.lengths_PG[begin[1], begin[2]]
        self._count("start", super().start, slots, begin, last_tokens)

    def arrange(self, slots: np.ndarray, prefixes: np.ndarray) -> None:
        self.active, self.num_prefixes = slots, len(np.unique(prefixes))
        self._count("arrange", super().arrange, slots, prefixes)

    def advance(self, steps: int) -> None:
        begin, found = time.process_time(), self.found
        length, end = self.length[self.active], self.end[self.active]
        live = np.minimum(end - length, steps)
        read = live * (length + 1) + live * (live - 1) // 2 + (steps - live) * (end + 1)
        read_prefixes = steps * self.num_prefixes * (self.size.prompt - 1)
        found.steps.append((self.width, steps, int(read.sum()), read_prefixes))
        found.all_rows += self.width * steps
        if self.waiting:
            found.live += int(live.sum())
            found.rows += self.size.slots * steps
        self.length[self.active] = length + live
        self.idle_s += time.process_time() - begin

    def look(self) -> tuple[np.ndarray, np.ndarray]:
        self.found.waits += 1
        self.found.launches["look"] = self.found.launches.get("look", 0) + 1
        status = np.where(self.length < self.end, RUNNING, STOPPED)
        return self.length, np.where((status == STOPPED) & (self.length == LIMIT), FULL, status)

    def fetch(self, slots: np.ndarray, width: int) -> Download:
        self.found.waits += 1
        # two copies to the host as well
        self.found.launches["fetch"] = self.found.launches.get("fetch", 0) + 2
        download: Download = self._count("fetch", super().fetch, slots, width)
        return download


def lengths_of(kind: str, prompts: int) -> np.ndarray:
    """int64 [P, G] with a mean of about 300: geometric, cut at the limit, or uniform between 200 and 400."""
    rng = np.random.default_rng(0)
    if kind == "geometric":
        return np.minimum(rng.geometric(1 / MEAN, (prompts, SAMPLES)), LIMIT)
    return rng.integers(200, 401, (prompts, SAMPLES))


def simulate(lengths_PG: np.ndarray, slots: int = SLOTS) -> Simulated:
    """The rollout of so many prompts in so many slots."""
    found, (P, n) = Simulated(), lengths_PG.shape
    size = size_within(
        KV_BYTES,
        fr.ModelConfig.preset(PRESET),
        DTYPE,
        prompts=P,
        n=n,
        longest=PROMPT_TOKENS,
        capacity=LIMIT,
        most=slots,
    )
    assert size is not None
    words = fr.Tokenizer.for_mixtures([fr.Mixture.uniform(op=[2], themes=["symbolic"])])
    work = Work(
        np.zeros(P * PROMPT_TOKENS, np.int32), np.arange(P + 1) * PROMPT_TOKENS, np.arange(P), np.full(P, LIMIT), n, {},
        Stopping(words), 0,
    )  # fmt: skip
    decoding = SimulatedDecoding(size, lengths_PG, found)
    batch = DeviceBatch(work, decoding)
    begin = time.process_time()
    while not batch.done:
        batch.step()
        decoding.waiting = batch.num_started < P * n
    found.host_s = time.process_time() - begin - decoding.idle_s
    return found


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
