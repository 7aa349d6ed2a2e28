"""What the ranks of a run send each other: every collective of a step, its bytes, and how long links take for it.

Bytes are payload, sent by one rank; headers are not counted. The lists are what fastreason.runtime.distributed,
supervised, policy_update, evaluate and checkpoint do, and the tests hold them to what two ranks of a real step are seen
to send.

Letters: n ranks, S bytes of a tensor that all of them know in the end.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Literal

import torch

from fastreason.evaluation.pass_table import SCORES
from fastreason.kernels.policy_loss_triton import NUM_SUMS, STATISTICS
from fastreason.model.config import ModelConfig
from fastreason.model.decoder import Decoder
from fastreason.training.parallel import Parallel

Kind = Literal["all_reduce", "all_gather", "reduce_scatter"]
Matrices = Literal["muon", "adamw"]
Shape = tuple[int, ...]

_FLOAT, _NUMBER = 4, 8  # bytes of float32, and of the int64 and float64 that counters are
_FACTS = 8  # columns of policy_statistics.Facts


def all_reduce_bytes(size_bytes: float, ranks: int) -> float:
    """Bytes that each of n ranks in a ring sends, so that all have the sum of their tensors of S bytes.

        2 (n - 1) / n * S       once around to add up, once to tell

    Raises:
        ValueError: size_bytes < 0 or ranks < 1.
    Source:
        Patarasuk and Yuan 2009, doi:10.1016/j.jpdc.2008.09.002: no algorithm sends less.

    >>> all_reduce_bytes(1e6, 8)
    1750000.0
    """
    check_numbers("all_reduce_bytes", least=0, size_bytes=size_bytes)
    check_numbers("all_reduce_bytes", least=1, ranks=ranks)
    return 2.0 * (ranks - 1) / ranks * size_bytes


def all_gather_bytes(size_bytes: float, ranks: int) -> float:
    """Bytes that each of n ranks sends in an all-gather of S bytes, of which each rank holds 1 / n.

        (n - 1) / n * S

    Raises:
        ValueError: size_bytes < 0 or ranks < 1.

    >>> all_gather_bytes(1e6, 8)
    875000.0
    """
    check_numbers("all_gather_bytes", least=0, size_bytes=size_bytes)
    check_numbers("all_gather_bytes", least=1, ranks=ranks)
    return (ranks - 1) / ranks * size_bytes


def reduce_scatter_bytes(size_bytes: float, ranks: int) -> float:
    """Bytes that each of n ranks sends, so that each has 1 / n of the sum of their tensors of S bytes: as `all_gather`.

    >>> reduce_scatter_bytes(1e6, 8) + all_gather_bytes(1e6, 8) == all_reduce_bytes(1e6, 8)
    True
    """
    return all_gather_bytes(size_bytes, ranks)


@dataclass(frozen=True)
class Collective:
    """One exchange between all ranks.

    Args:
        kind: what it does.
        what: is sent.
        size_bytes: S: of the whole tensor, padding included.
        on_host: it is a CPU tensor also where the model lies on GPUs, so that gloo carries it and not NCCL.
    """

    kind: Kind
    what: str
    size_bytes: int
    on_host: bool = False

    def sent_bytes(self, ranks: int) -> float:
        """By each rank, on a ring."""
        sent = {"all_reduce": all_reduce_bytes, "all_gather": all_gather_bytes, "reduce_scatter": reduce_scatter_bytes}
        return sent[self.kind](self.size_bytes, ranks)


def sent_bytes(collectives: Iterable[Collective], ranks: int, *, backend: Literal["ring", "gloo"] = "ring") -> float:
    """Bytes that a rank sends in all of them.

    Args:
        backend: "gloo" where it carries everything: a reduce_scatter is an all_reduce there, of which a part is kept.

    >>> weights = [Collective("reduce_scatter", "gradients", 1000)]
    >>> sent_bytes(weights, 2), sent_bytes(weights, 2, backend="gloo")
    (500.0, 1000.0)
    """
    if backend not in ("ring", "gloo"):
        raise ValueError(f'sent_bytes: backend must be "ring" or "gloo", got {backend!r}')
    total = 0.0
    for one in collectives:
        doubled = backend == "gloo" and one.kind == "reduce_scatter"
        total += (2 if doubled else 1) * one.sent_bytes(ranks)
    return total


@dataclass(frozen=True)
class Links:
    """How fast ranks reach each other: bytes/s in one direction, and seconds of one message. Defaults are assumptions:
    an H100 of a DGX-like machine by its data sheet (NVLink 4, an adapter of 400 Gbit/s each), gloo by TCP."""

    per_node: int = 8
    """Ranks of a machine."""
    node_bytes_per_s: float = 450e9
    """Of a rank, within a machine."""
    network_bytes_per_s: float = 50e9
    """Of a rank, to other machines; all adapters of a machine carry rings."""
    share: float = 0.8
    """Of both rates, what collectives reach."""
    node_latency_s: float = 2e-6
    """Of a message within a machine."""
    network_latency_s: float = 6e-6
    """Of a message between machines."""
    host_bytes_per_s: float = 2e9
    """Of a rank, for tensors on CPU, by gloo."""
    host_latency_s: float = 30e-6
    """Of a message between CPUs, by gloo."""
    tree: bool = True
    """Whether an all-reduce may go up and down a tree where that is faster, as NCCL's does; gloo's goes round."""

    def __post_init__(self) -> None:
        check_numbers(
            "Links", **{field.name: getattr(self, field.name) for field in fields(self) if field.name != "tree"}
        )
        if self.share > 1:
            raise ValueError(f"Links: share must be in 0 .. 1, got {self.share}")

    def bytes_per_s(self, ranks: int) -> float:
        """Of a rank in a ring of n; within one machine, or through all its adapters."""
        within = self.share * self.node_bytes_per_s
        return within if ranks <= self.per_node else min(within, self.share * self.per_node * self.network_bytes_per_s)

    def seconds(self, collective: Collective, ranks: int) -> float:
        """Of one exchange.

            ring    hops * latency + sent bytes / rate       hops: 2 (n - 1) of an all-reduce, n - 1 of the others
            tree    2 * (levels' latencies) + 2 S / rate     ceil(log2) levels within a machine and between machines

        The latency of a ring's hop is the mean: one of a machine's hops leaves it. Source of the tree: Sanders, Speck
        and Träff 2009, doi:10.1016/j.parco.2009.09.001.

        >>> gradients = Collective("all_reduce", "gradients", 412_683_264)
        >>> [round(Links().seconds(gradients, n) * 1e3, 2) for n in (1, 8, 64, 512)]
        [0.0, 2.03, 2.63, 2.66]
        """
        check_numbers("Links.seconds", ranks=ranks)
        if ranks == 1:
            return 0.0
        hops = (2 if collective.kind == "all_reduce" else 1) * (ranks - 1)
        sent = collective.sent_bytes(ranks)
        if collective.on_host:
            return hops * self.host_latency_s + sent / self.host_bytes_per_s
        machines = -(-ranks // self.per_node)
        leaving = machines / ranks if machines > 1 else 0.0
        latency_s = leaving * self.network_latency_s + (1 - leaving) * self.node_latency_s
        ring_s = hops * latency_s + sent / self.bytes_per_s(ranks)
        if collective.kind != "all_reduce" or not self.tree:
            return ring_s
        levels_s = _levels(min(ranks, self.per_node)) * self.node_latency_s + _levels(machines) * self.network_latency_s
        return min(ring_s, 2 * levels_s + 2 * collective.size_bytes / self.bytes_per_s(ranks))

    def all_seconds(self, collectives: Iterable[Collective], ranks: int) -> float:
        """One after the other."""
        return sum(self.seconds(one, ranks) for one in collectives)


def _levels(members: int) -> int:
    return math.ceil(math.log2(members))


@dataclass(frozen=True)
class Shapes:
    """Shapes of a decoder's parameters, as FSDP groups them: of each block, and of what is outside the blocks."""

    blocks: tuple[tuple[Shape, ...], ...]
    outside: tuple[Shape, ...]

    @property
    def all(self) -> list[Shape]:
        return [*self.outside, *(shape for block in self.blocks for shape in block)]

    @property
    def matrices(self) -> list[Shape]:
        """Those that Muon may have."""
        return [shape for block in self.blocks for shape in block if len(shape) == 2]


@lru_cache(maxsize=16)
def shapes_of(config: ModelConfig) -> Shapes:
    """
    >>> sum(math.prod(shape) for shape in shapes_of(ModelConfig.preset("100m")).all)  # parameters
    103170816
    """
    with torch.device("meta"):
        model = Decoder(config)
    blocks = tuple(tuple(tuple(p.shape) for p in block.parameters()) for block in model.blocks)
    outside = (tuple(p.shape) for name, p in model.named_parameters() if not name.startswith("blocks."))
    return Shapes(blocks, tuple(outside))


def padded_size(shapes: Iterable[Shape], ranks: int) -> int:
    """Numbers of elements of tensors whose rows are sharded over n ranks, padded to equal shards.

        sum over shapes (rows, columns) of  n ceil(rows / n) columns

    FSDP2 sends the padding too: of the 100m model nothing on 8 ranks and 12 % on 512.

    >>> padded_size([(5, 10)], 2), padded_size([(5, 10)], 8)
    (60, 80)
    """
    check_numbers("padded_size", least=1, ranks=ranks)
    return sum(ranks * -(-shape[0] // ranks) * math.prod(shape[1:]) for shape in shapes)


def supervised_step(
    config: ModelConfig,
    ranks: int,
    *,
    parallel: Parallel = "ddp",
    matrices: Matrices = "adamw",
    rows: int | None = None,
    parts: int = 1,
    accumulate: int = 1,
) -> list[Collective]:
    """All collectives of a step of supervised training that neither validates nor saves; none on one rank.

    DDP sends every gradient once, in float32, in buckets of 25 MiB that are one collective here. FSDP2 gathers each
    block in front of its forward and again of its backward pass, and what is outside the blocks once, for every part
    of a step; gradients are shared out once a step. Muon gathers what it orthogonalises, a collective a shape.

    Args:
        rows: of a step; default n.
        parts: that a rank's share goes through the model in; at most `accumulate`, and its number of documents.
        accumulate: the setting, above 1 of which the ranks agree on `parts`.
    Raises:
        ValueError: a number below 1, an unknown `parallel` or `matrices`, or rows that n does not divide.
    """
    name = "supervised_step"
    check_numbers(name, least=1, ranks=ranks, parts=parts, accumulate=accumulate)
    _check_choice(name, "parallel", parallel, ("ddp", "fsdp"))
    _check_choice(name, "matrices", matrices, ("muon", "adamw"))
    rows = ranks if rows is None else rows
    if rows < 1 or rows % ranks:
        raise ValueError(f"{name}: rows must be a multiple of the {ranks} ranks, got {rows}")
    if parts > accumulate:
        raise ValueError(f"{name}: parts must be at most accumulate = {accumulate}, got {parts}")
    if ranks == 1:
        return []
    shapes = shapes_of(config)
    model = fsdp_step(shapes, ranks, parts, matrices) if parallel == "fsdp" else [_gradients(shapes)]
    host = [_host("counters of the rows", (4 + rows) * _NUMBER)]
    if accumulate > 1:
        host.append(_host("number of parts", _NUMBER))
    return [*host, *model, _host("loss", _NUMBER), _host("clock", _NUMBER), _host("stop", 2 * _NUMBER)]


def fsdp_step(shapes: Shapes, ranks: int, parts: int, matrices: Matrices) -> list[Collective]:
    """The part of `supervised_step` that FSDP2 and the optimizer send."""
    found = []
    outside = padded_size(shapes.outside, ranks) * _FLOAT
    blocks = [padded_size(block, ranks) * _FLOAT for block in shapes.blocks]
    for _ in range(parts):
        found.append(Collective("all_gather", "weights outside the blocks", outside))
        found += [Collective("all_gather", "weights of a block", size) for size in blocks] * 2
    found += [Collective("reduce_scatter", "gradients of a block", size) for size in blocks]
    found.append(Collective("reduce_scatter", "gradients outside the blocks", outside))
    found.append(Collective("all_reduce", "norms of the gradients", len(shapes.all) * _FLOAT))
    if matrices == "muon":
        for shape in dict.fromkeys(shapes.matrices):
            stacked = padded_size([other for other in shapes.matrices if other == shape], ranks)
            found.append(Collective("all_gather", "what Muon orthogonalises", stacked * _FLOAT))
    return found


def policy_step(
    config: ModelConfig, ranks: int, *, prompts: int, samples: int, updates: int = 1, draws: int = 1
) -> list[Collective]:
    """All collectives of a step of reinforcement learning that does not save; none on one rank.

    Weights are not sent: what samples is what is trained. Gradients are one all-reduce in float32 an update.

    Args:
        prompts, samples: of a draw, of all ranks; samples of each prompt.
        updates: epochs * minibatches.
        draws: of prompts; more than one with dynamic sampling.
    Raises:
        ValueError: a number below 1.
    """
    check_numbers("policy_step", least=1, ranks=ranks, prompts=prompts, samples=samples, updates=updates, draws=draws)
    if ranks == 1:
        return []
    fullest = -(-prompts // ranks) * samples
    draw = _gathered("facts of the samples", ranks, fullest * _FACTS * _NUMBER)
    update = [
        _host("amounts", 2 * _NUMBER),
        _host("sums of the statistics", (1 + NUM_SUMS) * _FLOAT),
        _host("extremes of the statistics", (len(STATISTICS) - NUM_SUMS) * _FLOAT),
        _gradients(shapes_of(config)),
    ]
    return [*draw * draws, *update * updates, _host("counters", 5 * _NUMBER), _host("stop", 2 * _NUMBER)]


def evaluation_exchange(ranks: int, *, problems: int, trace_bytes: int = 0) -> list[Collective]:
    """All collectives of an evaluation, which come at its end; none on one rank.

    Args:
        problems: of the rank that has most.
        trace_bytes: JSON of the samples that are shown, of the rank that has most.
    """
    check_numbers("evaluation_exchange", least=1, ranks=ranks)
    check_numbers("evaluation_exchange", least=0, problems=problems, trace_bytes=trace_bytes)
    if ranks == 1:
        return []
    scores = _gathered("scores of the problems", ranks, problems * SCORES.itemsize)
    return scores + _gathered("traces", ranks, trace_bytes)


def checkpoint_exchange(
    config: ModelConfig, ranks: int, *, parallel: Parallel = "ddp", matrices: Matrices = "adamw"
) -> list[Collective]:
    """What a checkpoint of supervised training sends: under FSDP every weight and state, tensor by tensor."""
    check_numbers("checkpoint_exchange", least=1, ranks=ranks)
    _check_choice("checkpoint_exchange", "parallel", parallel, ("ddp", "fsdp"))
    _check_choice("checkpoint_exchange", "matrices", matrices, ("muon", "adamw"))
    if ranks == 1:
        return []
    ends = [_host("whether all went well", _NUMBER), _host("clock", _NUMBER)]
    if parallel == "ddp":
        return ends
    shapes, whole = shapes_of(config), []
    for what, tensors in (("weights", shapes.all), ("optimizer states", _states(shapes, matrices))):
        whole += [Collective("all_gather", what, padded_size([shape], ranks) * _FLOAT) for shape in tensors]
    return whole + ends


def checkpoint_bytes(config: ModelConfig, *, matrices: Matrices = "adamw", finished: bool = False) -> int:
    """Tensors in the files of a checkpoint: float32 weights and, during a stage, optimizer states.

    AdamW keeps two numbers a weight and one a tensor, Muon one a weight.

    >>> checkpoint_bytes(ModelConfig.preset("100m")) / 1e9, checkpoint_bytes(ModelConfig.preset("100m"), finished=True)
    (1.238050136, 412683264)
    """
    _check_choice("checkpoint_bytes", "matrices", matrices, ("muon", "adamw"))
    shapes = shapes_of(config)
    tensors = shapes.all if finished else shapes.all + _states(shapes, matrices)
    steps = len(shapes.all) - (len(shapes.matrices) if matrices == "muon" else 0)
    return (sum(map(math.prod, tensors)) + (0 if finished else steps)) * _FLOAT


def _states(shapes: Shapes, matrices: Matrices) -> list[Shape]:
    """Of the optimizers' tensors that are as large as a parameter."""
    if matrices == "adamw":
        return shapes.all * 2
    others = [*shapes.outside, *(shape for block in shapes.blocks for shape in block if len(shape) != 2)]
    return shapes.matrices + others * 2


def _gradients(shapes: Shapes) -> Collective:
    return Collective("all_reduce", "gradients", sum(map(math.prod, shapes.all)) * _FLOAT)


def _host(what: str, size_bytes: int) -> Collective:
    return Collective("all_reduce", what, size_bytes, on_host=True)


def _gathered(what: str, ranks: int, size_bytes: int) -> list[Collective]:
    """`distributed.gather_arrays`, which makes all arrays as long as the longest, of `size_bytes`."""
    lengths = _host(f"lengths of the {what}", ranks * _NUMBER)
    return [lengths, Collective("all_gather", what, ranks * size_bytes, on_host=True)]


def check_numbers(function: str, *, least: float | None = None, **values: float) -> None:
    """Numbers are positive, or not below `least`."""
    for name, value in values.items():
        if not ((value > 0 if least is None else value >= least) and value < math.inf):
            raise ValueError(
                f"{function}: {name} must be {'positive' if least is None else f'at least {least:g}'} and finite, "
                f"got {value}"
            )


def _check_choice(function: str, name: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ValueError(f"{function}: {name} must be one of {', '.join(allowed)}, got {value!r}")
