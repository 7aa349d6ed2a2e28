"""Self-training: a model learns from its own samples that the verifier accepts.

    prompts -> n samples each -> verdicts -> those of a level, equal ones once -> supervised loop

In each of `rounds` equal shares of the stage, the model as it is then samples new problems, and trains on what is kept
of them, in an order drawn anew for every pass. The loop, its optimizer and its schedule are those of a supervised
stage. The traces of a round are part of the checkpoint, so a stage goes on bit for bit where it was, and nothing else
is on disk. The FLOP of sampling count.

On a problem that the model solves with probability p, a trace is kept with probability 1 - (1 - p)^n: a model that
learns its traces by heart rises from pass@1 to pass@n of the model that sampled.

Letters: P prompts, G samples of each, S = P * G; K traces kept.
Source: STaR: Zelikman et al. 2022, arXiv:2203.14465. ReST-EM: Singh et al. 2023, arXiv:2312.06585. As mid-training
before RL: arXiv:2605.08472. Unlike these, rounds go on from the weights of the round before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..grading.verdicts import Verdicts, grade
from ..model.decoder import Decoder
from ..runtime import distributed
from ..runtime.metrics_log import MetricsLog
from ..runtime.progress import Clock
from ..runtime.stop_request import StopRequest
from ..sampling.rollout import Rollout, RolloutOutput
from ..tasks.packed import PackedBatch
from ..tasks.stream import ProblemBatch, TaskStream
from ..text.tokenizer import Tokenizer
from ..training.row_batches import join
from ..training.supervised import train
from .self_settings import LEVELS, SelfSettings
from .statistics import pass_flop, sample_rewards

# prompts sampled between two looks at a request to stop
_CHUNK = 64


def self_train(
    model: Decoder,
    tokenizer: Tokenizer,
    settings: SelfSettings,
    *,
    seed: int = 0,
    folder: str | Path,
    log: MetricsLog | str | Path | None = None,
    stop: StopRequest | None = None,
    name: str = "self",
) -> dict[str, Any]:
    """Runs a self-training stage: trains `model` in place and leaves its checkpoint in `folder`.

    A checkpoint already in `folder` is continued. Arguments, result and errors are those of
    `training.supervised.train`; the counters also hold `round` and `sampled`, the tokens sampled so far.

    Raises:
        ValueError: also if nothing was kept in the first round, so that there is nothing to learn from.
    """
    stop = stop or StopRequest()

    def source(length: int) -> PolicyTraces:
        return PolicyTraces(model, tokenizer, settings, seed, length, stop, name)

    return train(name, model, tokenizer, settings, seed=seed, folder=folder, log=log, stop=stop, source=source)


class PolicyTraces:
    """The batches of self-training: rows of kept traces, which the model has written.

    Args:
        model: samples with its current weights.
        tokenizer: of the model.
        settings: of the stage.
        seed: of problems, samples and the order of traces.
        length: tokens of a row.
        stop: looked at between chunks of prompts.
        name: of the stage, in messages.
    """

    def __init__(
        self,
        model: Decoder,
        tokenizer: Tokenizer,
        settings: SelfSettings,
        seed: int,
        length: int,
        stop: StopRequest,
        name: str,
    ) -> None:
        self.settings, self.seed, self.length, self.stop, self.name = settings, seed, length, stop, name
        self.model, self.tokenizer = model, tokenizer
        self.engine = Rollout(model, tokenizer, precision=settings.precision, kv_memory_mb=settings.kv_memory_mb)
        self.reward = settings.reward
        self.round = -1
        # int32, all traces concatenated, and int64 [K, 2], the tokens of each and of its prompt
        self.tokens, self.sizes = np.zeros(0, dtype=np.int32), np.zeros((0, 2), dtype=np.int64)
        self._order: tuple[int, np.ndarray] = (-1, np.zeros(0, dtype=np.int64))

    def is_due(self, share_done: float) -> bool:
        """Whether another round begins at this share of the stage."""
        return self.settings.round_at(share_done) != self.round

    def refill(self, share_done: float) -> dict[str, Any] | None:
        """Draws the traces of the round at this share of the stage. All ranks must call it.

        Returns:
            Statistics of the round for metrics.jsonl, with `flop` and `sampled` (tokens) over all ranks; None if a
            stop was requested, and nothing has changed.
        """
        number, settings, clock = self.settings.round_at(share_done), self.settings, Clock(0.0)
        stream = TaskStream(settings.mixtures[settings.phase_of(number)], seed=self.seed, split="rl")
        kept: list[list[np.ndarray]] = []
        tables, flop = [], 0.0
        for begin in range(0, settings.prompts, _CHUNK):
            if self.stop.on_any_rank():
                return None
            count = min(_CHUNK, settings.prompts - begin)
            place = np.arange(count)[distributed.share(count)] + number * settings.prompts + begin
            traces, table, cost = self._sample(stream.batch(place))
            kept.append([np.concatenate(distributed.gather_arrays(part)) for part in traces])
            tables.append(np.concatenate(distributed.gather_arrays(table)))
            flop += cost
        flop = float(distributed.sum_over_ranks(torch.tensor(flop, dtype=torch.float64)))
        tokens, sizes = (np.concatenate(part) for part in zip(*kept, strict=True))
        if len(sizes):
            self.tokens, self.sizes = tokens, sizes
        elif not len(self.sizes):
            raise ValueError(
                f"{self.name}: none of {settings.prompts * settings.samples} samples was kept in round {number + 1}, "
                "so there is nothing to learn from; begin from a model that solves some problems, or draw more"
            )
        self.round, self._order = number, (-1, np.zeros(0, dtype=np.int64))
        line = _statistics(np.concatenate(tables), sizes)
        return {"round": number + 1, **line, "flop": flop, "sample_s": distributed.from_main(clock.seconds())}

    def _sample(self, problems: ProblemBatch) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray, float]:
        """The traces kept of this rank's problems, a row [S] of facts for each sample, and the FLOP."""
        settings = self.settings
        if not len(problems):
            return (self.tokens[:0], self.sizes[:0]), np.zeros((0, len(_FACTS))), 0.0
        samples = self.engine.generate(
            problems,
            settings.samples,
            temperature=settings.temperature,
            max_new_tokens=settings.max_new_tokens,
            seed=self.seed,
            prompt_ids=problems.indices,
        )
        verdicts = grade(problems, samples.tokens, tokenizer=self.tokenizer, finished=samples.finished)
        passes = self._passes(problems, samples, settings.verifier.report(verdicts, self.seed, problems.indices))
        rows, traces = self._distinct(samples, passes)
        prompt_lengths = np.diff(samples.prompt_offsets)
        flop = pass_flop(self.model.config, prompt_lengths, samples.lengths.reshape(len(problems), -1))
        taken = np.zeros(len(samples))
        taken[rows] = 1.0
        of_problem = np.stack([problems.ops, *_halves(problems.graph_hashes), problems.indices], axis=1)
        facts = np.stack([passes, verdicts.verified, samples.lengths, taken], axis=1)
        return traces, np.concatenate([facts, of_problem.repeat(settings.samples, axis=0)], axis=1, dtype=float), flop

    def _passes(self, problems: ProblemBatch, samples: RolloutOutput, verdicts: Verdicts) -> np.ndarray:
        """bool [S]: whether the verifier lets a sample pass at the level."""
        if self.reward is None:
            assert self.settings.level in LEVELS
            return np.asarray(getattr(verdicts, self.settings.level))
        least = 1.0 if self.settings.at_least is None else self.settings.at_least
        return np.asarray(sample_rewards(self.reward(problems, samples, verdicts)) >= least)

    def _distinct(self, samples: RolloutOutput, passes: np.ndarray) -> tuple[list[int], tuple[np.ndarray, np.ndarray]]:
        """The samples that are kept, and their traces: tokens, and lengths of the whole and of the prompt."""
        settings, eos, rows, parts, sizes = self.settings, self.tokenizer.eos_id, [], [], []
        most = min(self.length, self.model.config.max_position_embeddings)
        for p, of_group in enumerate(passes.reshape(-1, settings.samples)):
            if settings.only_edge and of_group.all():
                continue
            prompt = samples.prompt_tokens[samples.prompt_offsets[p] : samples.prompt_offsets[p + 1]]
            seen: set[bytes] = set()
            for i in np.nonzero(of_group)[0].tolist():
                row = p * settings.samples + i
                sample = samples.tokens[row, : samples.lengths[row]]
                if samples.finished[row] and sample[-1] != eos:  # as in the training documents
                    sample = np.append(sample, np.int32(eos))
                if sample.tobytes() in seen or len(prompt) + len(sample) > most or len(seen) == settings.most:
                    continue
                seen.add(sample.tobytes())
                rows.append(row)
                parts += [prompt, sample]
                sizes.append((len(prompt) + len(sample), len(prompt)))
        tokens = np.concatenate([self.tokens[:0], *parts]).astype(np.int32)
        return rows, (tokens, np.array(sizes, dtype=np.int64).reshape(-1, 2))

    def draw(self, phase: int, next_index: Sequence[int]) -> tuple[PackedBatch, list[int]]:
        """The rows of a step, as `RowBatches.draw`: row r takes traces r, r + R, ... of an endless sequence of passes
        over the traces of the round, each in its own order."""
        del phase
        mine = distributed.share(len(next_index))
        rows = [self._row(start, len(next_index)) for start in next_index[mine]]
        next_rows = [0] * len(next_index)
        next_rows[mine] = [row.next_index for row in rows]
        return join(rows), next_rows

    def _row(self, index: int, step: int) -> PackedBatch:
        ends = self.sizes[:, 0].cumsum()
        tokens = np.full(self.length, self.tokenizer.pad_id, dtype=np.int32)
        positions, loss_mask = np.zeros(self.length, dtype=np.int32), np.zeros(self.length, dtype=np.uint8)
        starts: list[int] = []
        lengths: list[int] = []
        used = 0
        while True:
            trace = self._trace(index)
            size, prompt = self.sizes[trace].tolist()
            if used + size > self.length:
                break
            tokens[used : used + size] = self.tokens[ends[trace] - size : ends[trace]]
            positions[used : used + size] = np.arange(size)
            loss_mask[used + prompt : used + size] = 1
            starts.append(used)
            lengths.append(size)
            used, index = used + size, index + step
        bounds = np.array(starts, dtype=np.int32), np.array(lengths, dtype=np.int32)
        return PackedBatch(1, self.length, tokens, positions, loss_mask, *bounds, next_index=index)

    def _trace(self, index: int) -> int:
        """The trace at an index of the sequence."""
        number, place = divmod(index, len(self.sizes))
        if number != self._order[0]:
            # counter-based: an order is a function of the seed, the round and the number of the pass
            rng = np.random.Generator(np.random.Philox(key=self.seed, counter=[0, 0, self.round, number]))
            self._order = number, rng.permutation(len(self.sizes))
        return int(self._order[1][place])

    def tensors(self) -> dict[str, Tensor]:
        """The traces, for the checkpoint."""
        return {"tokens": torch.from_numpy(self.tokens), "sizes": torch.from_numpy(self.sizes)}

    def restore(self, tensors: Mapping[str, Tensor], progress: Mapping[str, Any]) -> None:
        """Restores the result of `tensors`, and the round in the counters."""
        self.tokens, self.sizes = tensors["tokens"].numpy(), tensors["sizes"].numpy()
        self.round = progress["round"]

    def close(self) -> None:
        pass


_FACTS = ("passes", "verified", "length", "taken", "op", "graph_high", "graph_low", "problem")


def _halves(hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two numbers that a float64 holds."""
    return hashes >> np.uint64(32), hashes & np.uint64(0xFFFFFFFF)


def _statistics(table_SF: np.ndarray, sizes_K2: np.ndarray) -> dict[str, Any]:
    """What was sampled and kept in a round."""
    fact = dict(zip(_FACTS, table_SF.T, strict=True))
    taken = fact["taken"] > 0
    ops = np.unique(fact["op"]).astype(int).tolist()
    solutions = sizes_K2[:, 0] - sizes_K2[:, 1]
    return {
        "sampled": int(fact["length"].sum()),
        "kept": float(fact["passes"].mean()),
        "kept_by_op": {str(op): float(fact["passes"][fact["op"] == op].mean()) for op in ops},
        "verified": float(fact["verified"].mean()),
        "traces": len(sizes_K2),
        "problems": len(np.unique(fact["problem"][taken])),
        "graphs": len(np.unique(table_SF[taken][:, [5, 6]], axis=0)),
        "max_op": int(fact["op"][taken].max(initial=0)),
        "mean_length": float(solutions.mean()) if len(solutions) else 0.0,
    }
