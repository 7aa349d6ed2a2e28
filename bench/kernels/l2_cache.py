"""What attention reads of device memory when a cache of limited size is between, by simulation, without a GPU.

    python -m bench.kernels.l2_cache [--tokens 131072] [--cache-mb 50 30]

The tiles of a batch are taken as the kernels get them (kernels/attention_tiles.py). As many programs as a GPU runs
together each read one block in turn, and one that ends is followed by the next of the grid; the cache keeps the blocks
that were used last. Blocks are what programs share: keys and values in the forward pass and for dq, rows of q and do
for dk and dv. The floor is every block once. What a program alone reads or writes passes through the cache as well.

The order is that of the lists, heads of keys and values one after the other, as grids count. Real programs do not run
in lockstep, and a real cache has sets and other contents: the figures compare orders and tiles, and predict no times.
"""

from __future__ import annotations

import argparse
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from fastreason.kernels.attention_tiles import WorkPlan, work_plan
from fastreason.kernels.launch import configuration
from fastreason.kernels.segments import Segments
from fastreason.kernels.triton_support import as_if_on

from ..harness.markdown import markdown

HEAD_DIM, GROUP, KV_HEADS, ITEM_BYTES = 64, 6, 2, 2  # of the model of 100 M parameters, in bfloat16
# together on the 132 multiprocessors of an H100, as their registers and shared memory allow
PROGRAMS = {"attention_forward": 264, "attention_backward_dq": 264, "attention_backward_dkv": 132}
CACHE_MB = 50.0


@dataclass(frozen=True)
class Traffic:
    """Bytes of shared blocks: read from memory, read by programs, and every one once."""

    memory: int
    programs: int
    floor: int

    @property
    def of_floor(self) -> float:
        return self.memory / self.floor


def lengths_between(low: int, high: int, tokens: int) -> Segments:
    """Documents of random lengths."""
    lengths = np.random.default_rng(0).integers(low, high + 1, 2 * tokens // (low + high))
    return Segments.from_lengths(lengths.tolist())


def query_programs(plan: WorkPlan, block_m: int, block_n: int) -> list[list[int]]:
    """Per program of one head: the blocks of keys it reads, by their first token."""
    found = []
    for start, first_row, length, prefix_start, prefix_length in plan.query_tiles(block_m, GROUP).tolist():
        end = min(length, (first_row + block_m - 1) // GROUP + 1)
        found.append([*range(prefix_start, prefix_start + prefix_length, block_n), *range(start, start + end, block_n)])
    return found


def key_programs(plan: WorkPlan, block_m: int, block_n: int) -> list[list[int]]:
    """Per program of one head: the blocks of rows it reads, by their first row."""
    key_tiles = plan.key_tiles(block_n)
    viewers = key_tiles.viewers.tolist()
    found = []
    for start, first_key, length, first, last in key_tiles.tiles.tolist():
        rows = [*range((start + first_key) * GROUP, (start + length) * GROUP, block_m)]
        for viewer_start, viewer_length in viewers[first:last]:
            rows += range(viewer_start * GROUP, (viewer_start + viewer_length) * GROUP, block_m)
        found.append(rows)
    return found


def simulated(
    programs: Sequence[Sequence[int]], block_bytes: int, own_bytes: int, cache_bytes: float, together: int
) -> Traffic:
    """Traffic of programs that share blocks and stream `own_bytes` each, so many of them together."""
    grid = iter([(head, blocks) for head in range(KV_HEADS) for blocks in programs])
    cache: OrderedDict[tuple[int, int], int] = OrderedDict()
    held, misses, reads = 0, 0, 0
    seen: set[tuple[int, int]] = set()

    def use(key: tuple[int, int], size: int) -> bool:
        nonlocal held
        if key in cache:
            cache.move_to_end(key)
            return True
        cache[key] = size
        held += size
        while held > cache_bytes:
            held -= cache.popitem(last=False)[1]
        return False

    def started() -> Iterator[Iterator[tuple[int, int]]]:
        for number, (head, blocks) in enumerate(grid):
            use((-1, number), own_bytes)
            yield iter([(head, block) for block in blocks])

    waiting = started()
    running = [program for _, program in zip(range(together), waiting, strict=False)]
    while running:
        going_on = []
        for program in running:
            key = next(program, None)
            if key is None:
                if (following := next(waiting, None)) is not None:
                    going_on.append(following)
                continue
            reads += 1
            seen.add(key)
            misses += not use(key, block_bytes)
            going_on.append(program)
        running = going_on
    return Traffic(misses * block_bytes, reads * block_bytes, len(seen) * block_bytes)


def traffic(segments: Segments, kernel: str, cache_mb: float = CACHE_MB, arch: int = 90) -> Traffic:
    """Of one kernel, with the tiles it has on `arch`.

    Args:
        kernel: attention_forward, attention_backward_dq or attention_backward_dkv.
    """
    plan = work_plan(segments.table, torch.device("cpu"))
    with as_if_on(arch):
        config = configuration(kernel, torch.empty(0), head_dim=HEAD_DIM, itemsize=ITEM_BYTES)
    block_m, block_n, row_bytes = config["BLOCK_M"], config["BLOCK_N"], HEAD_DIM * ITEM_BYTES
    if kernel == "attention_backward_dkv":
        programs, block, own = key_programs(plan, block_m, block_n), 2 * block_m, 4 * block_n
    else:
        programs, block = query_programs(plan, block_m, block_n), 2 * block_n
        own = (2 if kernel == "attention_forward" else 4) * block_m
    return simulated(programs, block * row_bytes, own * row_bytes, cache_mb * 1e6, PROGRAMS[kernel])


def layouts(tokens: int) -> dict[str, Segments]:
    groups = max(1, tokens // 5200)
    return {
        "documents of 300 - 700": lengths_between(300, 700, tokens),
        "documents of 2,048": Segments.from_lengths([2048] * (tokens // 2048)),
        "prompts of 400, 16 x 300": Segments.from_groups([400] * groups, torch.full((groups, 16), 300)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=131_072)
    parser.add_argument("--cache-mb", type=float, nargs="+", default=[50.0, 30.0])
    options = parser.parse_args()
    rows = []
    for name, segments in layouts(options.tokens).items():
        for kernel in ("attention_forward", "attention_backward_dq", "attention_backward_dkv"):
            found = [traffic(segments, kernel, cache_mb) for cache_mb in options.cache_mb]
            shares = [f"{one.of_floor:.2f} x" for one in found]
            rows.append([name, kernel, f"{found[0].floor / 1e6:,.0f} MB", *shares, f"{found[0].programs / 1e9:.1f} GB"])
    heads = [f"{cache_mb:g} MB of cache" for cache_mb in options.cache_mb]
    print(markdown(["batch", "kernel", "floor", *heads, "cache to multiprocessors"], rows))


if __name__ == "__main__":
    main()
