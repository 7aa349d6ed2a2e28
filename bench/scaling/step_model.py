"""How long a step takes on many devices: from what its phases take on one, and what the ranks send each other.

    DDP        passes, with the all-reduce of the gradients under the last backward pass; then the whole optimizer
    FSDP2      passes, each with its gathers; gradients scattered under the last one; then a share of the optimizer
    RL         every rank samples and grades its prompts; all wait for the slowest; then updates, none overlapped
    evaluation every rank has every n-th part of the work; the fullest rank decides

It is arithmetic. A phase that was measured gives a prediction, a phase that was assumed gives an assumption.

Letters: n ranks, S bytes, P prompts, G samples of each, L length in tokens.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any

import numpy as np

from fastreason.model.config import ModelConfig
from fastreason.model.flop import block_weights, forward_flop, head_weights, train_flop_per_token
from fastreason.training.parallel import Parallel

from .collectives_model import (
    Collective,
    Links,
    Matrices,
    check_numbers,
    checkpoint_bytes,
    checkpoint_exchange,
    padded_size,
    policy_step,
    shapes_of,
    supervised_step,
)

# what DDP sends at a time, once its gradients are there
_BUCKET_BYTES = 25 * 2**20


@dataclass(frozen=True)
class Phases:
    """What one device takes for each phase, and one core of its host; seconds."""

    token_s: float
    """Forward and backward pass, a token."""
    pass_s: float
    """Forward and backward pass, the least whatever the number of tokens."""
    optimizer_s: float
    """A step of the optimizer, all weights on one device."""
    update_token_s: float
    """`token_s` in an update of reinforcement learning, which may compute in another dtype."""
    decode_step_s: float
    """One more token for all running samples: the part that does not depend on their number."""
    decode_token_s: float
    """The part of each sample."""
    grade_s: float
    """A verdict, one core."""
    packed_token_s: float
    """A token of a packed batch of new problems, one core."""
    problem_s: float
    """A new problem as text, one core."""
    write_bytes_per_s: float
    """To the disk of checkpoints, flushed."""
    hash_bytes_per_s: float
    """SHA-256 of what was written, one core."""
    overlap: float = 0.0
    """Share of a pass under which links can work: 1 on an ideal GPU, 0 where they need the cores that compute."""

    def __post_init__(self) -> None:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        check_numbers("Phases", least=0.0, **{name: values[name] for name in ("pass_s", "overlap")})
        check_numbers("Phases", **{name: value for name, value in values.items() if name not in ("pass_s", "overlap")})
        if self.overlap > 1:
            raise ValueError(f"Phases: overlap must be in 0 .. 1, got {self.overlap}")

    @classmethod
    def on_paper(
        cls,
        config: ModelConfig,
        *,
        length: int,
        flop_per_s: float,
        update_flop_per_s: float,
        bytes_per_s: float,
        share: float,
        launch_s: float,
        launches_per_block: tuple[int, int],
        **others: Any,
    ) -> Phases:
        """Phases of a device that nobody measured, from its peaks and the share of them that is assumed.

            token_s          training FLOP of a token / (share * peak)                     likewise update_token_s
            pass_s           layers * launches of a block, forward and backward * launch_s
            optimizer_s      40 bytes a weight / (share * bandwidth): norm and clip 12, AdamW reads 16, writes 12
            decode_step_s    max(4 bytes a weight / (share * bandwidth), layers * launches of a block * launch_s)
            decode_token_s   forward FLOP of a token / (share * peak of updates) + its keys and values / bandwidth

        Args:
            length: L of a document; attention reads (L + 1) / 2 keys on average.
            flop_per_s, update_flop_per_s: peaks in the dtypes of supervised training and of reinforcement learning.
            bytes_per_s: peak of device memory.
            share: of all peaks that is reached, 0 .. 1.
            launch_s: seconds of a kernel launch, where nothing hides it.
            launches_per_block: kernels of a block in training (forward and backward) and in decoding.
            others: the phases of the host, and `overlap`.
        """
        peaks = dict(flop_per_s=flop_per_s, update_flop_per_s=update_flop_per_s, bytes_per_s=bytes_per_s)
        check_numbers("Phases.on_paper", length=length, share=share, launch_s=launch_s, **peaks)
        if share > 1:
            raise ValueError(f"Phases.on_paper: share must be in 0 .. 1, got {share}")
        weights, layers = block_weights(config) + head_weights(config), config.num_hidden_layers
        training, decoding = (layers * launches * launch_s for launches in launches_per_block)
        flop, keys_values = train_flop_per_token(config, length), 8 * layers * config.num_key_value_heads
        one_more = forward_flop(config, 1, before=length // 2)
        memory_s = keys_values * config.head_dim * (length / 2) / (share * bytes_per_s)
        return cls(
            token_s=flop / (share * flop_per_s),
            pass_s=training,
            optimizer_s=40 * weights / (share * bytes_per_s),
            update_token_s=flop / (share * update_flop_per_s),
            decode_step_s=max(4 * weights / (share * bytes_per_s), decoding),
            decode_token_s=one_more / (share * update_flop_per_s) + memory_s,
            **others,
        )


@dataclass(frozen=True)
class StepTime:
    """Where the seconds of a step go on the slowest rank.

    Args:
        compute_s: forward and backward passes; sampling and grading too.
        waiting_s: for other ranks that sample and grade longer, or have more tokens of an update.
        links_s: exchanges of tensors of the device that nothing hides.
        host_s: exchanges of counters and statistics.
        optimizer_s: of the update.
    """

    compute_s: float
    waiting_s: float
    links_s: float
    host_s: float
    optimizer_s: float

    @property
    def seconds(self) -> float:
        return self.compute_s + self.waiting_s + self.links_s + self.host_s + self.optimizer_s


def ddp_step_seconds(
    config: ModelConfig,
    phases: Phases,
    links: Links,
    *,
    tokens: float,
    ranks: int,
    tokens_per_pass: float = 8192,
    imbalance: float = 1.0,
    matrices: Matrices = "adamw",
) -> StepTime:
    """A step of supervised training under DDP.

        passes   m = ceil(tokens / n / tokens_per_pass), each max(pass_s, tokens / n / m * token_s)
        links    max(A - overlap * 2/3 pass, a)    A: all-reduce of the gradients under the last backward pass, two
                                                   thirds of a pass; a: of its last bucket, under which nothing is left
        all      m passes + imbalance + links + counters + optimizer_s

    Args:
        tokens: of a step, of all ranks.
        tokens_per_pass: most that a device takes at a time.
        imbalance: tokens of the fullest rank over the mean.
    Raises:
        ValueError: a number that is not positive, or imbalance < 1.

    >>> phases = Phases(2e-6, 0, 3e-3, 2e-6, 1e-3, 1e-6, 1e-6, 2e-8, 5e-6, 1e9, 1e9, overlap=1.0)
    >>> config = ModelConfig.preset("100m")
    >>> [round(ddp_step_seconds(config, phases, Links(), tokens=2**19, ranks=n).seconds, 4) for n in (1, 8, 64)]
    [1.0516, 0.1363, 0.0347]
    """
    pass_s, parts = _passes(phases, tokens, ranks, tokens_per_pass, imbalance)
    exchanges = supervised_step(config, ranks, matrices=matrices, parts=parts, accumulate=parts)
    gradients = [one for one in exchanges if not one.on_host]
    sent_s, exposed_s = links.all_seconds(gradients, ranks), 0.0
    if ranks > 1:
        last = Collective("all_reduce", "gradients", min(_BUCKET_BYTES, gradients[0].size_bytes))
        exposed_s = max(sent_s - phases.overlap * 2 / 3 * pass_s, links.seconds(last, ranks))
    return StepTime(
        parts * pass_s,
        (imbalance - 1) * parts * pass_s,
        exposed_s,
        links.all_seconds([one for one in exchanges if one.on_host], ranks),
        phases.optimizer_s,
    )


def fsdp_step_seconds(
    config: ModelConfig,
    phases: Phases,
    links: Links,
    *,
    tokens: float,
    ranks: int,
    tokens_per_pass: float = 8192,
    imbalance: float = 1.0,
    matrices: Matrices = "adamw",
) -> StepTime:
    """A step of supervised training under FSDP2; arguments as for `ddp_step_seconds`.

        links    per pass: f + max(gathers - f - overlap * pass, 0)         f: gathers in front of the first product
                 the last pass adds the scatter of gradients to what is hidden, but for that of the outside, at its end
        optimizer_s / n with AdamW; with Muon every rank orthogonalises all, so it is not divided

    >>> phases = Phases(2e-6, 0, 3e-3, 2e-6, 1e-3, 1e-6, 1e-6, 2e-8, 5e-6, 1e9, 1e9, overlap=1.0)
    >>> config = ModelConfig.preset("100m")
    >>> [round(fsdp_step_seconds(config, phases, Links(), tokens=2**19, ranks=n).seconds, 4) for n in (1, 8, 64)]
    [1.0516, 0.1346, 0.0322]
    """
    pass_s, parts = _passes(phases, tokens, ranks, tokens_per_pass, imbalance)
    exchanges = supervised_step(
        config, ranks, parallel="fsdp", matrices=matrices, parts=parts, accumulate=parts
    )  # one part more or less changes the gathers alone
    exposed_s = 0.0
    if ranks > 1:
        by_kind = _by_kind(exchanges, links, ranks)
        shapes = shapes_of(config)
        blocks = [Collective("all_gather", "", 4 * padded_size(shape, ranks)) for shape in shapes.blocks[:1]]
        outside = Collective("all_gather", "", 4 * padded_size(shapes.outside, ranks))
        first_s, end_s = links.all_seconds([outside, *blocks], ranks), links.seconds(outside, ranks)
        hidden_s = by_kind["gather"] / parts - first_s
        window_s = phases.overlap * pass_s
        exposed_s = (parts - 1) * (first_s + max(hidden_s - window_s, 0.0))
        exposed_s += first_s + max(hidden_s + by_kind["scatter"] - end_s - window_s, 0.0) + end_s + by_kind["optimizer"]
    return StepTime(
        parts * pass_s,
        (imbalance - 1) * parts * pass_s,
        exposed_s,
        links.all_seconds([one for one in exchanges if one.on_host], ranks),
        phases.optimizer_s / (ranks if matrices == "adamw" else 1),
    )


def _by_kind(exchanges: Sequence[Collective], links: Links, ranks: int) -> dict[str, float]:
    """Seconds of FSDP's gathers of weights, of its scatter of gradients, and of what the optimizer sends."""
    found = {"gather": 0.0, "scatter": 0.0, "optimizer": 0.0}
    for one in exchanges:
        if not one.on_host:
            kind = "gather" if one.what.startswith("weights") else "scatter" if "scatter" in one.kind else "optimizer"
            found[kind] += links.seconds(one, ranks)
    return found


def _passes(phases: Phases, tokens: float, ranks: int, tokens_per_pass: float, imbalance: float) -> tuple[float, int]:
    """Seconds of one pass of a rank's share, and how many there are."""
    check_numbers("step_seconds", tokens=tokens, ranks=ranks, tokens_per_pass=tokens_per_pass)
    if not 1 <= imbalance < math.inf:
        raise ValueError(f"step_seconds: imbalance must be at least 1, got {imbalance}")
    parts = math.ceil(tokens / ranks / tokens_per_pass)
    return max(phases.pass_s, tokens / ranks / parts * phases.token_s), parts


def decode_seconds(lengths: Sequence[int] | np.ndarray, slots: int, step_s: float, token_s: float) -> float:
    """Sampling sequences of these lengths, in their order, in so many slots that are filled again at once.

        steps * step_s + sum(lengths) * token_s         steps: until the last sequence ends

    Args:
        lengths: integers [N], at least 1 token each.
        slots: sequences that decode together.
    Raises:
        ValueError: no length, one below 1, or slots < 1.

    >>> decode_seconds([5, 5, 10], slots=2, step_s=1.0, token_s=0.0), decode_seconds([5, 5, 10], 3, 1.0, 0.0)
    (15.0, 10.0)
    """
    values = np.asarray(lengths, dtype=np.int64)
    if not len(values) or values.min() < 1:
        raise ValueError(f"decode_seconds: needs lengths of at least 1 token, got {values[:5].tolist()}")
    check_numbers("decode_seconds", slots=slots)
    ends = sorted(values[:slots].tolist())  # a sorted list is a heap
    for length in values[slots:].tolist():
        heapq.heapreplace(ends, ends[0] + length)
    return max(ends) * step_s + float(values.sum()) * token_s


def rl_step_seconds(
    config: ModelConfig,
    phases: Phases,
    links: Links,
    *,
    prompt_lengths_P: np.ndarray,
    lengths_PG: np.ndarray,
    ranks: int,
    slots: int = 512,
    minibatches: int = 1,
    reference: bool = False,
    cores: float = 1.0,
) -> StepTime:
    """A step of data-parallel reinforcement learning: one draw, one epoch, every group trained on.

        sample    prompts * update_token_s / 3 + `decode_seconds` of a rank's samples
        grade     samples * grade_s / cores
        waiting   all ranks learn of all rewards: the slowest minus the mean; likewise in every update
        update    minibatches times: passes (4/3 with a reference) + all-reduce of the gradients + optimizer_s

    The ranks' shares are those of `distributed.share`: neighbouring prompts. Group p is in minibatch p mod minibatches.

    Args:
        prompt_lengths_P, lengths_PG: tokens of every prompt and of its samples.
        slots: sequences that a device decodes together.
        cores: of a rank that grade.
    Returns:
        compute_s is the mean of the ranks; with waiting_s it is what the slowest takes.
    Raises:
        ValueError: shapes that do not fit, fewer prompts than ranks, a number that is not positive.
    """
    num_prompts = len(prompt_lengths_P)
    check_numbers("rl_step_seconds", ranks=ranks, slots=slots, minibatches=minibatches, cores=cores)
    if lengths_PG.ndim != 2 or len(lengths_PG) != num_prompts or num_prompts < ranks:
        raise ValueError(
            f"rl_step_seconds: need lengths [P, G] and at least one prompt a rank, got {lengths_PG.shape}, "
            f"{num_prompts} prompts and {ranks} ranks"
        )
    bounds = [r * num_prompts // ranks for r in range(ranks + 1)]
    sampling_R = np.array(
        [
            part_seconds(phases, prompt_lengths_P[a:b], lengths_PG[a:b], slots=slots, cores=cores)
            for a, b in pairwise(bounds)
        ]
    )
    rank_P = np.searchsorted(bounds, np.arange(num_prompts), side="right") - 1
    cost_P = (prompt_lengths_P + lengths_PG.sum(1)) * phases.update_token_s * (4 / 3 if reference else 1)
    compute_s, waiting_s = float(sampling_R.mean()), float(sampling_R.max() - sampling_R.mean())
    for number in range(minibatches):
        mine = np.arange(num_prompts) % minibatches == number
        update_R = np.bincount(rank_P[mine], cost_P[mine], minlength=ranks)
        update_R = np.where(update_R > 0, np.maximum(update_R, phases.pass_s), 0.0)
        compute_s += float(update_R.mean())
        waiting_s += float(update_R.max() - update_R.mean())
    exchanges = policy_step(config, ranks, prompts=num_prompts, samples=lengths_PG.shape[1], updates=minibatches)
    return StepTime(
        compute_s,
        waiting_s,
        links.all_seconds([one for one in exchanges if not one.on_host], ranks),
        links.all_seconds([one for one in exchanges if one.on_host], ranks),
        minibatches * phases.optimizer_s,
    )


def part_seconds(
    phases: Phases, prompt_lengths_P: np.ndarray, lengths_PG: np.ndarray, *, slots: int = 512, cores: float = 1.0
) -> float:
    """Sampling and grading some prompts on one device: prompts once, then `decode_seconds`, then verdicts."""
    prompts_s = float(prompt_lengths_P.sum()) * phases.update_token_s / 3
    decoding_s = decode_seconds(lengths_PG.ravel(), slots, phases.decode_step_s, phases.decode_token_s)
    return prompts_s + decoding_s + lengths_PG.size * phases.grade_s / cores


def evaluation_seconds(parts_s: Sequence[float] | np.ndarray, ranks: int) -> float:
    """Time of an evaluation from the times of its parts: rank r has parts r, r + n, ..., and the slowest rank decides.

    >>> evaluation_seconds([1.0, 2.0, 3.0], 1), evaluation_seconds([1.0, 2.0, 3.0], 2), evaluation_seconds([1.0], 8)
    (6.0, 4.0, 1.0)
    """
    check_numbers("evaluation_seconds", ranks=ranks)
    values = np.asarray(parts_s, dtype=np.float64)
    if not len(values) or values.min() < 0:
        raise ValueError("evaluation_seconds: needs at least one part, and none below 0 seconds")
    return float(max(values[first::ranks].sum() for first in range(min(ranks, len(values)))))


def generator_cores(tokens_per_s: float, core_tokens_per_s: float) -> float:
    """Cores that must draw and pack problems so that a device that trains never waits.

    Args:
        tokens_per_s: that the device trains on.
        core_tokens_per_s: that a core packs.

    >>> generator_cores(tokens_per_s=500_000, core_tokens_per_s=40_000_000)
    0.0125
    """
    check_numbers("generator_cores", tokens_per_s=tokens_per_s, core_tokens_per_s=core_tokens_per_s)
    return tokens_per_s / core_tokens_per_s


def grading_cores(samples_per_s: float, core_verdicts_per_s: float) -> float:
    """Cores that must grade so that verdicts come as fast as a device samples.

    >>> grading_cores(samples_per_s=2_000, core_verdicts_per_s=400_000)
    0.005
    """
    check_numbers("grading_cores", samples_per_s=samples_per_s, core_verdicts_per_s=core_verdicts_per_s)
    return samples_per_s / core_verdicts_per_s


def checkpoint_seconds(
    config: ModelConfig,
    phases: Phases,
    links: Links,
    *,
    ranks: int,
    parallel: Parallel = "ddp",
    matrices: Matrices = "adamw",
) -> float:
    """A checkpoint, for which all ranks wait: gathers under FSDP, then rank 0 writes, flushes and hashes.

    exchanges + bytes / write_bytes_per_s + bytes / hash_bytes_per_s
    """
    sent_s = links.all_seconds(checkpoint_exchange(config, ranks, parallel=parallel, matrices=matrices), ranks)
    size = checkpoint_bytes(config, matrices=matrices)
    return sent_s + size / phases.write_bytes_per_s + size / phases.hash_bytes_per_s


def efficiency(alone_s: float, together_s: float, ranks: int) -> float:
    """Share of n devices that does the work of one: alone / (n * together), for the same work.

    >>> efficiency(8.0, 1.25, ranks=8)
    0.8
    """
    check_numbers("efficiency", alone_s=alone_s, together_s=together_s, ranks=ranks)
    return alone_s / (ranks * together_s)
