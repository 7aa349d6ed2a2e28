"""The task stream: problems as a pure function of (mixture, seed, split, index).

A `Mixture` specifies problems, a `TaskStream` draws them, a `ProblemBatch` holds their texts. Nothing is stored on
disk: index i is always the same problem, so training resumes from an integer, and the splits partition the hash of the
canonical problem, so no evaluation problem is ever trained on.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from hashlib import sha256
from html import escape
from typing import Any, Literal, overload

import numpy as np

from .. import _core
from ..runtime.arguments import INT64_MAX, UINT64_MAX, indices, instance, integer, integers
from ..runtime.json_files import to_json
from ..text.theme import load_theme
from ..text.tokenizer import Tokenizer
from .graph import ProblemGraph
from .graph_svg import graph_svg
from .mixture import Cell, Mixture
from .packed import PackedBatch, PackedBatches

Split = Literal["train", "rl", "val", "test"]

SPLITS: tuple[Split, ...] = ("train", "rl", "val", "test")
SplitBy = Literal["problem", "graph"]


class TaskStream:
    """Problem i of (mixture, seed, split), for every i >= 0.

    Args:
        mixture: which problems.
        seed: 0 .. 2**64 - 1.
        split: train, rl, val or test: 12, 2, 1 and 1 sixteenths of all problems, by hash.
        split_by: "problem": by the hash of the canonical problem, so no problem is in two splits. "graph": by the hash
            of the graph that the answer depends on, so no graph of quantities and operators is in two splits, whatever
            the names and numbers. There are few graphs at small op (one at op 2, depth 2), so some splits are empty.
    Raises:
        ValueError: an argument is invalid, or no problem can be drawn for a cell; the message names the feasible ops.

    >>> stream = TaskStream(Mixture.uniform(op=[3], themes=["symbolic"]), seed=0)
    >>> stream[0:2].ops
    array([3, 3], dtype=int32)
    """

    def __init__(
        self, mixture: Mixture, seed: int = 0, split: Split = "train", *, split_by: SplitBy = "problem"
    ) -> None:
        instance("TaskStream: mixture", mixture, Mixture)
        seed = integer("TaskStream: seed", seed, 0, UINT64_MAX)
        if split not in SPLITS:
            raise ValueError(f"TaskStream: split must be one of {', '.join(SPLITS)}, got {split!r}")
        if split_by not in ("problem", "graph"):
            raise ValueError(f"TaskStream: split_by must be problem or graph, got {split_by!r}")
        self.mixture, self.seed, self.split, self.split_by = mixture, seed, split, split_by
        themes = [load_theme(name) for name in mixture.themes]
        theme_index = {name: i for i, name in enumerate(mixture.themes)}
        self.cells = tuple(mixture.weights)
        self._core = _core.TaskStream(
            [theme.core for theme in themes],
            [
                _core.Cell(**(asdict(cell) | {"theme": theme_index[cell.theme], "weight": weight}))
                for cell, weight in mixture.weights.items()
            ],
            seed,
            split,
            split_by,
        )

    @cached_property
    def fingerprint(self) -> str:
        """8 hexadecimal digits of the mixture, with the words of its themes, and `split_by`: part of each id."""
        parts = [
            asdict(cell) | {"theme": asdict(load_theme(cell.theme)), "weight": weight}
            for cell, weight in self.mixture.weights.items()
        ]
        return sha256(to_json([parts, self.split_by]).encode()).hexdigest()[:8]

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles as its constructor arguments, so worker processes can have copies."""
        return partial(TaskStream, split_by=self.split_by), (self.mixture, self.seed, self.split)

    def __repr__(self) -> str:
        by = "" if self.split_by == "problem" else f", split_by={self.split_by!r}"
        return f"TaskStream({self.mixture!r}, seed={self.seed}, split={self.split!r}{by})"

    def __getitem__(self, key: int | slice | Sequence[int] | np.ndarray) -> ProblemBatch:
        """The problems at an index, a slice with an end, a list of indices, or a boolean mask.

        Raises:
            ValueError: the key is something else, or an index is outside 0 .. 2**63 - 1.
        """
        return self.batch(indices("TaskStream", key))

    def batch(self, indices: Sequence[int] | np.ndarray, *, threads: int = 0) -> ProblemBatch:
        """The problems at these indices, drawn on `threads` threads (0: all cores); the result is the same for any
        number."""
        wanted = integers("TaskStream: indices", indices, 0)
        return ProblemBatch(self, self._core.batch(wanted, threads=check_threads(threads)))

    def graph_hashes(self, first: int, count: int, *, step: int = 1, threads: int = 0) -> np.ndarray:
        """uint64 [count]: the nameless graphs of problems first, first + step, ..., drawn without their texts."""
        first, step = integer("graph_hashes: first", first, 0), integer("graph_hashes: step", step, 1)
        count = integer("graph_hashes: count", count, 0)
        return self._core.graph_hashes(first, step=step, count=count, threads=check_threads(threads))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yields rows in the published schema, endlessly."""
        index = 0
        while True:
            yield from self[index : index + 64].rows()
            index += 64

    def shard(self, rank: int, world_size: int) -> StreamShard:
        """Every world_size-th problem starting at `rank`: one process's part of the stream."""
        return StreamShard(self, rank, world_size)

    def packed(
        self, start: int, rows: int, length: int, tokenizer: Tokenizer, *, step: int = 1, threads: int = 0
    ) -> PackedBatch:
        """Packs problems start, start + step, ... as token ids into `rows` rows of `length`; see `PackedBatch`."""
        numbers = {"start": start, "rows": rows, "length": length, "step": step}
        numbers = {name: integer(f"packed: {name}", value) for name, value in numbers.items()}
        packed = self._packer(tokenizer).pack(**numbers, threads=check_threads(threads))
        return PackedBatch(numbers["rows"], numbers["length"], **packed)

    def batches(
        self,
        start: int | Sequence[int],
        rows: int,
        length: int,
        tokenizer: Tokenizer,
        *,
        step: int = 1,
        ahead: int = 2,
    ) -> PackedBatches:
        """Iterates over consecutive `packed` batches, drawn ahead by a thread.

            packed(start, ...), packed(its next_index, ...), ...

        Args:
            start: the first problem, or one for each of several lanes, whose batches alternate. With starts 0 .. n - 1
                and step n the lanes partition the stream.
            rows, length, tokenizer, step: as for `packed`.
            ahead: number of batches to draw ahead.
        Raises:
            ValueError: an argument is out of range.

        >>> mixture = Mixture.uniform(op=[3], themes=["symbolic"])
        >>> from fastreason import Tokenizer
        >>> with TaskStream(mixture).batches(0, 1, 512, Tokenizer.for_mixtures([mixture])) as batches:
        ...     first, second = next(batches), next(batches)
        >>> first.next_index < second.next_index
        True
        """
        starts = [integer("batches: start", first) for first in np.atleast_1d(np.asarray(start, dtype=object))]
        rows, length = integer("batches: rows", rows), integer("batches: length", length)
        step, ahead = integer("batches: step", step), integer("batches: ahead", ahead)
        return PackedBatches(self._packer(tokenizer), starts, rows, length, step=step, ahead=ahead)

    def encoded(
        self, start: int, count: int, tokenizer: Tokenizer, *, step: int = 1, threads: int = 0
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Encodes problems start, start + step, ...: `count` documents, concatenated.

        Returns:
            tokens int32 [N]; cu_seqlens int64 [count + 1], the boundaries of documents; prompt_lengths int32 [count].
        """
        start, step = integer("encoded: start", start, 0), integer("encoded: step", step, 1)
        count = integer("encoded: count", count, 0)
        return self._packer(tokenizer).encode(start, count, step=step, threads=check_threads(threads))

    def _packer(self, tokenizer: Tokenizer) -> _core.Packer:
        key = id(instance("tokenizer", tokenizer, Tokenizer).core)
        if key not in self._packers:
            self._packers[key] = (_core.Packer(self._core, tokenizer.core), tokenizer.core)
        return self._packers[key][0]

    @cached_property
    def _packers(self) -> dict[int, tuple[_core.Packer, _core.Tokenizer]]:
        return {}


def check_threads(threads: int) -> int:
    """Checks a number of threads; 0 means all cores."""
    return integer("threads", threads, 0, 1 << 16)


class ProblemBatch:
    """A batch of problems: texts as lists, numbers as arrays. An index gives a `Problem`, a slice another batch.

    >>> problems = TaskStream(Mixture.uniform(op=[3], themes=["symbolic"]), seed=0)[0:8]
    >>> problems[-1].op, len(problems[2:5]), [problem.op for problem in problems[[0, 7]]]
    (3, 3, [3, 3])
    """

    def __init__(self, stream: TaskStream, core: _core.ProblemBatch) -> None:
        self.stream, self.core = stream, core

    def __len__(self) -> int:
        return len(self.core)

    def __repr__(self) -> str:
        ops = sorted(set(self.ops.tolist()))
        themes = list(dict.fromkeys(cell.theme for cell in self.cells))
        return f"ProblemBatch({len(self):,} problems, op {ops}, themes {themes}, split={self.stream.split!r})"

    @overload
    def __getitem__(self, key: int) -> Problem: ...
    @overload
    def __getitem__(self, key: slice | Sequence[int] | np.ndarray) -> ProblemBatch: ...
    def __getitem__(self, key: int | slice | Sequence[int] | np.ndarray) -> Problem | ProblemBatch:
        """A `Problem` for an index; a batch for a slice, a list of indices or a boolean mask. Negative indices count
        from the end, as in a list.

        Raises:
            IndexError: an index is out of range, or a mask has the wrong length.
            ValueError: the key is not an index.
        """
        if isinstance(key, slice):
            return self._part(np.arange(len(self))[key])
        try:
            mask = np.asarray(key)
        except (TypeError, ValueError):  # ragged lists
            return self._part(self._places(key))  # an error that says what is allowed
        if mask.ndim == 0:
            return Problem(self, int(self._places(key)[0]))
        if mask.dtype == np.bool_ and len(mask) != len(self):
            raise IndexError(f"ProblemBatch: a mask must have {len(self)} entries, got {len(mask)}")
        return self._part(indices("ProblemBatch", key) if mask.dtype == np.bool_ else self._places(key))

    def _places(self, key: Any) -> np.ndarray:
        indices = np.atleast_1d(integers("ProblemBatch: an index", key, -INT64_MAX))
        outside = indices[(indices < -len(self)) | (indices >= len(self))]
        if len(outside):
            raise IndexError(f"ProblemBatch: an index must be in {-len(self)} .. {len(self) - 1}, got {outside[0]}")
        return np.where(indices < 0, indices + len(self), indices)

    def _part(self, places: np.ndarray) -> ProblemBatch:
        return self.stream.batch(self.indices[places])

    def __iter__(self) -> Iterator[Problem]:
        return (Problem(self, i) for i in range(len(self)))

    @cached_property
    def prompts(self) -> list[str]:
        """`<question> problem question </question> <solution>`: the text that a model continues."""
        return self.core.prompts()

    @cached_property
    def solutions(self) -> list[str]:
        """Steps and answer in the published form: `... Answer: 7.`"""
        return self.core.solutions()

    @cached_property
    def documents(self) -> list[str]:
        """Training documents: prompt, steps, answer tags and [EOS]."""
        return self.core.documents()

    @cached_property
    def problems(self) -> list[str]:
        """The sentences of each problem, without the question."""
        return self.core.problems()

    @cached_property
    def questions(self) -> list[str]:
        """The question of each problem."""
        return self.core.questions()

    @cached_property
    def answers(self) -> np.ndarray:
        """int64 [n]"""
        return self.core.answers()

    @cached_property
    def ops(self) -> np.ndarray:
        """int32 [n]"""
        return self.core.ops()

    @cached_property
    def indices(self) -> np.ndarray:
        """int64 [n]: the index of each problem in its stream."""
        return self.core.indices()

    @cached_property
    def hashes(self) -> np.ndarray:
        """uint64 [n]: equal for identical problems, ignoring padding, names and order; splits partition them."""
        return self.core.hashes()

    @cached_property
    def graph_hashes(self) -> np.ndarray:
        """uint64 [n]: of the graph that the answer depends on, without names and numbers; used by
        `split_by="graph"`."""
        return self.core.graph_hashes()

    def graph(self, i: int) -> ProblemGraph:
        """The graph of problem i of this batch."""
        i = integer("graph: i", i)
        return ProblemGraph.of(self.core.graph(i), self.problems[i], self.questions[i], int(self.answers[i]))

    @property
    def cells(self) -> list[Cell]:
        """The settings each problem was drawn with."""
        return [self.stream.cells[i] for i in self.core.cells()]

    def rows(self, *, prompts: bool = False) -> list[dict[str, Any]]:
        """Rows in the published JSONL schema; an `id` is unique over streams, up to a collision of fingerprints.

        Args:
            prompts: whether `prompt`, which the schema has not, comes first in each row.
        """
        modes = {"forward": "normalforward", "reverse": "forwardreverse"}
        rows = [
            {
                "problem": problem + " ",
                "question": question,
                "solution": solution,
                "op": cell.op,
                "id": self._id(index),
                "template": cell.theme,
                "mode": modes[cell.mode],
                "length": _length_name(cell.context),
                "d": cell.depth,
            }
            for problem, question, solution, cell, index in zip(
                self.problems, self.questions, self.solutions, self.cells, self.indices.tolist(), strict=True
            )
        ]
        return [{"prompt": prompt} | row for prompt, row in zip(self.prompts, rows, strict=True)] if prompts else rows

    def _id(self, index: int) -> str:
        return f"{self.stream.split}-{self.stream.seed}-{index}-{self.stream.fingerprint}"


@dataclass(frozen=True, eq=False, repr=False)
class Problem:
    """One problem of a batch, with the batch's properties in the singular.

    Args:
        batch: the batch it belongs to.
        position: its index in the batch.

    >>> problem = TaskStream(Mixture.uniform(op=[3], themes=["symbolic"], max_sentences=4), seed=1)[0:1][0]
    >>> problem
    Problem('train-1-0-11fb5504', op 3, theme symbolic, answer 2)
    >>> problem.problem, problem.question, problem.solution
    ('Di: 4. Do: 2. Ci: Do.', 'C ?', 'Do: 2. Ci: Do = 2. C: Ci = 2. Answer: 2.')
    """

    batch: ProblemBatch
    position: int

    @property
    def prompt(self) -> str:
        """`<question> problem question </question> <solution>`: the text that a model continues."""
        return self.batch.prompts[self.position]

    @property
    def problem(self) -> str:
        """The sentences of the problem, without the question."""
        return self.batch.problems[self.position]

    @property
    def question(self) -> str:
        """The question."""
        return self.batch.questions[self.position]

    @property
    def solution(self) -> str:
        """Steps and answer in the published form: `... Answer: 7.`"""
        return self.batch.solutions[self.position]

    @property
    def document(self) -> str:
        """The training document: prompt, steps, answer tags and [EOS]."""
        return self.batch.documents[self.position]

    @property
    def answer(self) -> int:
        """The gold answer."""
        return int(self.batch.answers[self.position])

    @property
    def op(self) -> int:
        """Number of arithmetic operations, the exact difficulty."""
        return int(self.batch.ops[self.position])

    @property
    def cell(self) -> Cell:
        """The settings it was drawn with."""
        return self.batch.stream.cells[self.batch.core.cells()[self.position]]

    @property
    def index(self) -> int:
        """Its index in the stream."""
        return int(self.batch.indices[self.position])

    @property
    def id(self) -> str:
        """Split, seed, index and `TaskStream.fingerprint`; unique over streams, as `ProblemBatch.rows` says."""
        return self.batch._id(self.index)

    @property
    def graph(self) -> ProblemGraph:
        """Its quantities, and how each is computed from others."""
        return self.batch.graph(self.position)

    def __repr__(self) -> str:
        return f"Problem({self.id!r}, op {self.op}, theme {self.cell.theme}, answer {self.answer})"

    def _repr_html_(self) -> str:
        """For notebooks: the texts, and the graph as an image, so that its style stays separate."""
        picture = b64encode(graph_svg(self.graph).encode()).decode()
        parts = {"Problem": f"{self.problem} {self.question}", "Solution": self.solution}
        lines = "".join(f"<p><b>{name}.</b> {escape(text)}</p>" for name, text in parts.items())
        return f'<div>{lines}<img alt="{escape(repr(self))}" src="data:image/svg+xml;base64,{picture}"></div>'


def _length_name(context: int) -> str:
    """The published name of a context length: `zero_context`, `8k`, ...; other numbers unchanged."""
    if context == 0:
        return "zero_context"
    return f"{context // 1000}k" if context % 1000 == 0 else str(context)


class StreamShard:
    """Every world_size-th problem of a stream, with the interface of the stream.

        problem i of shard (rank, world_size)  =  problem i * world_size + rank of the stream

    Shards do not overlap, omit nothing, and together cover the stream in order. The state of a shard is one integer,
    the index of its next problem. To continue from problem s of the stream with another world size w, start
    `stream.shard(rank, w)` at ceil((s - rank) / w).

    Args:
        stream: the whole stream.
        rank: 0 .. world_size - 1.
        world_size: number of shards.

    >>> from fastreason import Mixture
    >>> stream = TaskStream(Mixture.uniform(op=[3], themes=["symbolic"]), seed=0)
    >>> stream.shard(1, 4)[0:3].indices
    array([1, 5, 9])
    """

    def __init__(self, stream: TaskStream, rank: int, world_size: int) -> None:
        self.stream = stream
        self.world_size = integer("shard: world_size", world_size, 1)
        self.rank = integer("shard: rank", rank, 0, self.world_size - 1)
        self._last = (INT64_MAX - self.rank) // self.world_size

    def __repr__(self) -> str:
        return f"StreamShard({self.rank} of {self.world_size} of {self.stream!r})"

    def __getitem__(self, key: int | slice | Sequence[int] | np.ndarray) -> ProblemBatch:
        """As `TaskStream`, with indices within the shard."""
        return self.batch(indices("shard", key, self._last))

    def batch(self, indices: Sequence[int] | np.ndarray, *, threads: int = 0) -> ProblemBatch:
        """The problems at these indices of the shard, see `TaskStream.batch`."""
        wanted = integers("shard: indices", indices, 0, self._last)
        return self.stream.batch(wanted * self.world_size + self.rank, threads=threads)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yields rows in the published schema, endlessly."""
        index = 0
        while True:
            yield from self[index : index + 64].rows()
            index += 64

    def shard(self, rank: int, world_size: int) -> StreamShard:
        """A shard of this shard."""
        part = StreamShard(self.stream, rank, world_size)
        return StreamShard(self.stream, self.rank + part.rank * self.world_size, self.world_size * part.world_size)

    def packed(self, start: int, rows: int, length: int, tokenizer: Tokenizer, *, threads: int = 0) -> PackedBatch:
        """Packs the shard's problems start, start + 1, ... into rows; `next_index` is an index of the shard."""
        first = integer("packed: start", start, 0, self._last) * self.world_size + self.rank
        packed = self.stream.packed(first, rows, length, tokenizer, step=self.world_size, threads=threads)
        return replace(packed, next_index=(packed.next_index - self.rank) // self.world_size)

    def encoded(
        self, start: int, count: int, tokenizer: Tokenizer, *, threads: int = 0
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Encodes `count` documents of the shard, see `TaskStream.encoded`."""
        first = integer("encoded: start", start, 0, self._last) * self.world_size + self.rank
        return self.stream.encoded(first, count, tokenizer, step=self.world_size, threads=threads)
