"""The task stream: problems as a pure function of (mixture, seed, split, index).

A `Mixture` says which problems, a `TaskStream` draws them, a `ProblemBatch` holds their texts. Nothing is stored on
disk: index i always is the same problem, so training resumes from an integer, and the splits partition the hash of the
canonical problem, so no evaluation problem is ever trained on.
"""

from __future__ import annotations

import tomllib
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, lru_cache, partial
from html import escape
from importlib import resources
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np

from .. import _core
from ..runtime.arguments import INT64_MAX, UINT64_MAX, indices, integer, integers, listed, number
from ..runtime.field_docs import explain_fields
from ..text.theme import load_theme

if TYPE_CHECKING:
    from ..text.tokenizer import Tokenizer
    from .graph import ProblemGraph
    from .prefetch import PackedBatches
    from .shards import StreamShard

Split = Literal["train", "rl", "val", "test"]

SPLITS: tuple[Split, ...] = ("train", "rl", "val", "test")
SplitBy = Literal["problem", "graph"]
MODES: tuple[str, ...] = ("forward", "reverse")
DEPTHS: tuple[int, ...] = (2, 3)
MIN_OP, MAX_OP = 2, 40


@explain_fields
@dataclass(frozen=True)
class Cell:
    """One cell of a mixture: which problems, with which settings."""

    op: int
    """Arithmetic operations, the exact difficulty."""
    theme: str = "zoo"
    """Name of a theme that ships, or path of a TOML file."""
    mode: str = "forward"
    """forward: the last quantity is asked; reverse: it is told, and an earlier one is asked."""
    depth: int = 2
    """2: counts and their totals; 3: also averages per count, and totals of what all counts have."""
    number_range: int = 5
    """Constants lie in 1 .. number_range - 1."""
    max_value: int = 1000
    """Largest value of any quantity that the answer depends on."""
    max_sentences: int = 50
    """Most sentences of a problem, the told one of reverse problems and padding apart; 50 is no limit."""
    circular_distractors: bool = True
    """Whether quantities that the answer does not depend on may define each other in a circle, as in the released data
    (up to 20 % of the problems)."""
    context: int = 0
    """Tokens of padding: sentences about other places, as many as fit. The limit depends on the theme."""

    def __post_init__(self) -> None:
        for name, low, high in (
            ("op", MIN_OP, MAX_OP),
            ("depth", min(DEPTHS), max(DEPTHS)),
            ("number_range", 3, 100),
            ("max_value", 1, 1_000_000),
            ("max_sentences", 1, 50),
            ("context", 0, 10_000_000),
        ):
            # what numpy counts with is kept as a plain int: equal cells are one cell
            object.__setattr__(self, name, integer(f"mixture: {name}", getattr(self, name), low, high))
        if not isinstance(self.circular_distractors, bool):
            raise ValueError(f"mixture: circular_distractors must be True or False, got {self.circular_distractors!r}")
        if self.mode not in MODES:
            raise ValueError(f"mixture: mode must be one of {', '.join(MODES)}, got {self.mode!r}")
        if not isinstance(self.theme, str):
            raise ValueError(f"mixture: theme must be a name or a path, got {self.theme!r}")
        if load_theme(self.theme).style == "symbolic" and (self.mode, self.depth) != ("forward", 2):
            raise ValueError(
                f"mixture: theme {self.theme} has the symbolic style, which needs mode 'forward' and depth 2, "
                f"got {self.mode!r} and {self.depth}"
            )


class Mixture:
    """Cells with weights. Mixtures add and scale: `0.2 * a + 0.8 * b` draws from a one time in five.

    >>> mix = Mixture.uniform(op=range(2, 6), themes=["symbolic"])
    >>> sorted({cell.op for cell in mix.weights})
    [2, 3, 4, 5]
    """

    def __init__(self, weights: Mapping[Cell, float]) -> None:
        for cell, weight in weights.items():
            if not isinstance(cell, Cell):
                raise ValueError(f"mixture: weights must be numbers >= 0 by Cell, got {cell!r}: {weight!r}")
        numbers = {cell: number("mixture: a weight", weight, 0.0) for cell, weight in weights.items()}
        self.weights = {cell: weight for cell, weight in numbers.items() if weight > 0}
        if not self.weights:
            raise ValueError("mixture: needs at least one cell with a positive weight")

    @classmethod
    def uniform(
        cls,
        op: Iterable[int],
        themes: Sequence[str] = ("zoo",),
        modes: Sequence[str] = ("forward",),
        depths: Sequence[int] = (2,),
        **settings: Any,
    ) -> Mixture:
        """All combinations with equal weights that sum to 1; `settings` are further fields of `Cell`."""
        given = {"op": op, "themes": themes, "modes": modes, "depths": depths}
        combinations = product(*(listed(f"mixture: {name}", values) for name, values in given.items()))
        cells = [Cell(op=o, theme=theme, mode=mode, depth=depth, **settings) for o, theme, mode, depth in combinations]
        if not cells:
            raise ValueError("mixture: op, themes, modes and depths must not be empty")
        return cls({cell: 1.0 / len(cells) for cell in cells})

    @classmethod
    def from_dict(cls, parts: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> Mixture:
        """A weighted sum of uniform mixtures, each as a mapping of the arguments of `uniform` and a `weight`.

        >>> mix = Mixture.from_dict([{"op": [2, 3], "weight": 0.9}, {"op": [6], "weight": 0.1}])
        >>> round(sum(mix.weights.values()), 6)
        1.0
        """
        total: Mixture | None = None
        for part in [parts] if isinstance(parts, Mapping) else parts:
            arguments = dict(part)
            weight = arguments.pop("weight", 1.0)
            weight = number("mixture: weight", weight, 0.0, above_low=True)
            allowed = {"op", "themes", "modes", "depths", "number_range", "max_value", "max_sentences"}
            allowed |= {"circular_distractors", "context"}
            if unknown := set(arguments) - allowed:
                raise ValueError(
                    f"mixture: unknown field {sorted(unknown)[0]!r}; allowed are weight, {', '.join(sorted(allowed))}"
                )
            if "op" not in arguments:
                raise ValueError("mixture: op is missing")
            scaled = weight * cls.uniform(**arguments)
            total = scaled if total is None else total + scaled
        if total is None:
            raise ValueError("mixture: needs at least one part")
        return total

    @classmethod
    def preset(cls, name: str, themes: Sequence[str] = ("zoo", "school", "festival")) -> Mixture:
        """A mixture of the paper by name; see `available_mixtures()` and fastreason/tasks/mixtures.toml.

        Args:
            themes: for the parts that name none.

        >>> Mixture.preset("rl-op11-14").ops
        (11, 12, 13, 14)
        """
        return cls.from_dict(cls.preset_parts(name, themes))

    @staticmethod
    def preset_parts(name: str, themes: Sequence[str] = ("zoo", "school", "festival")) -> list[dict[str, Any]]:
        """What `preset` hands to `from_dict`."""
        presets = _presets()
        if name not in presets:
            raise ValueError(f"mixture: preset must be one of {', '.join(presets)}, got {name!r}")
        return [{"themes": listed("mixture: themes", themes), **part} for part in presets[name]["parts"]]

    @classmethod
    def from_presets(
        cls,
        path: str | Path,
        name: str,
        *,
        op: Iterable[int] = (),
        themes: Sequence[str] = ("zoo", "school", "festival"),
        templates: Mapping[str, str] | None = None,
    ) -> Mixture:
        """A mixture from a JSON file like the released presets.json: forward, depth 2, weights that sum to 1.

        Args:
            path: the file; its names are nested by two levels.
            name: `group/level/name`, or the end of it where that is no other's.
            op: for an entry that lists no ops.
            themes: for an entry that lists no templates, in equal parts.
            templates: theme of each template; by default the shipped theme of the same shape.
        Raises:
            ValueError: no such file or entry, an entry that is not understood, or nothing said about ops.
        """
        from .presets import TEMPLATES, mixture_from_presets

        return mixture_from_presets(path, name, op, themes, TEMPLATES if templates is None else templates)

    def __add__(self, other: Mixture) -> Mixture:
        weights = dict(self.weights)
        for cell, weight in other.weights.items():
            weights[cell] = weights.get(cell, 0.0) + weight
        return Mixture(weights)

    def __rmul__(self, factor: float) -> Mixture:
        factor = number("mixture: the factor", factor, 0.0, above_low=True)
        return Mixture({cell: factor * weight for cell, weight in self.weights.items()})

    __mul__ = __rmul__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mixture) and self.weights == other.weights

    __hash__ = None  # type: ignore[assignment]

    def to_parts(self) -> list[dict[str, Any]]:
        """What `from_dict` reads, and a recipe's `mixture` holds: a part for each cell.

        >>> mix = 0.5 * Mixture.uniform(op=[2, 3]) + Mixture.uniform(op=[3], depths=[3])
        >>> Mixture.from_dict(mix.to_parts()) == mix
        True
        """
        lists = {"op": "op", "theme": "themes", "mode": "modes", "depth": "depths"}
        return [
            {lists.get(name, name): [value] if name in lists else value for name, value in asdict(cell).items()}
            | {"weight": weight}
            for cell, weight in self.weights.items()
        ]

    def replace(self, **settings: Any) -> Mixture:
        """The same weights with these fields of every cell replaced."""
        weights: dict[Cell, float] = {}
        for cell, weight in self.weights.items():
            changed = replace(cell, **settings)
            weights[changed] = weights.get(changed, 0.0) + weight
        return Mixture(weights)

    @property
    def themes(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(cell.theme for cell in self.weights))

    @property
    def ops(self) -> tuple[int, ...]:
        return tuple(sorted({cell.op for cell in self.weights}))

    def __repr__(self) -> str:
        return f"Mixture({len(self.weights)} cells, op {list(self.ops)}, themes {list(self.themes)})"


@lru_cache
def _presets() -> dict[str, Any]:
    return tomllib.loads(resources.files("fastreason.tasks").joinpath("mixtures.toml").read_text(encoding="utf-8"))


def available_mixtures() -> tuple[str, ...]:
    """Names that `Mixture.preset` takes."""
    return tuple(_presets())


class TaskStream:
    """Problem i of (mixture, seed, split), for every i >= 0.

    Args:
        mixture: which problems.
        seed: 0 .. 2**64 - 1.
        split: train, rl, val or test: 12, 2, 1 and 1 sixteenths of all problems, by a hash.
        split_by: "problem": the hash of the canonical problem, so no problem is in two splits. "graph": the hash of the
            nameless necessary graph, so no graph of quantities and operators is in two splits, whatever its names and
            numbers. Small op have few graphs (op 2 has one at depth 2), so that not every split has some.
    Raises:
        ValueError: an argument, or problems that cannot be reached; the message names the op that can.

    >>> stream = TaskStream(Mixture.uniform(op=[3], themes=["symbolic"]), seed=0)
    >>> stream[0:2].ops
    array([3, 3], dtype=int32)
    """

    def __init__(
        self, mixture: Mixture, seed: int = 0, split: Split = "train", *, split_by: SplitBy = "problem"
    ) -> None:
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

    def __reduce__(self) -> tuple[Any, ...]:
        """A stream is its arguments, so a worker process may have a copy."""
        return partial(TaskStream, split_by=self.split_by), (self.mixture, self.seed, self.split)

    def __repr__(self) -> str:
        by = "" if self.split_by == "problem" else f", split_by={self.split_by!r}"
        return f"TaskStream({self.mixture!r}, seed={self.seed}, split={self.split!r}{by})"

    def __getitem__(self, key: int | slice | Sequence[int] | np.ndarray) -> ProblemBatch:
        """The problems at an index, a slice with an end, a list of indices, or those that a mask of bools selects.

        Raises:
            ValueError: anything else; an index outside 0 .. 2**63 - 1.
        """
        return self.batch(indices("TaskStream", key))

    def batch(self, indices: Sequence[int] | np.ndarray, *, threads: int = 0) -> ProblemBatch:
        """The problems at these indices, drawn on `threads` threads (0: all cores); the same for any number."""
        wanted = integers("TaskStream: indices", indices, 0)
        return ProblemBatch(self, self._core.batch(wanted, threads=check_threads(threads)))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Rows in the published schema, without end."""
        index = 0
        while True:
            yield from self[index : index + 64].rows()
            index += 64

    def shard(self, rank: int, world_size: int) -> StreamShard:
        """Every world_size-th problem from problem `rank` on: the part of one of `world_size` processes."""
        from .shards import StreamShard

        return StreamShard(self, rank, world_size)

    def packed(
        self, start: int, rows: int, length: int, tokenizer: Tokenizer, *, step: int = 1, threads: int = 0
    ) -> PackedBatch:
        """Problems start, start + step, ... as token ids in `rows` rows of `length`; see `PackedBatch`."""
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
        """What `packed` gives, batch after batch, drawn by a thread while the caller works on the one before.

            packed(start, ...), packed(its next_index, ...), ...

        Args:
            start: first problem; or one for each of several lanes, which take turns: a batch of the first, one of the
                second, and so on. With starts 0 .. n - 1 and step n the lanes share the stream out.
            rows, length, step: as for `packed`.
            ahead: batches that may wait.
        Raises:
            ValueError: an argument is out of range.

        >>> mixture = Mixture.uniform(op=[3], themes=["symbolic"])
        >>> from fastreason import Tokenizer
        >>> with TaskStream(mixture).batches(0, 1, 512, Tokenizer.for_mixtures([mixture])) as batches:
        ...     first, second = next(batches), next(batches)
        >>> first.next_index < second.next_index
        True
        """
        from .prefetch import PackedBatches

        starts = [integer("batches: start", first) for first in np.atleast_1d(np.asarray(start, dtype=object))]
        rows, length = integer("batches: rows", rows), integer("batches: length", length)
        step, ahead = integer("batches: step", step), integer("batches: ahead", ahead)
        return PackedBatches(self._packer(tokenizer), starts, rows, length, step=step, ahead=ahead)

    def encoded(
        self, start: int, count: int, tokenizer: Tokenizer, *, step: int = 1, threads: int = 0
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Problems start, start + step, ... as token ids, `count` documents one after the other.

        Returns:
            tokens int32 [N]; cu_seqlens int64 [count + 1], where each document begins; prompt_lengths int32 [count].
        """
        start, step = integer("encoded: start", start, 0), integer("encoded: step", step, 1)
        count = integer("encoded: count", count, 0)
        return self._packer(tokenizer).encode(start, count, step=step, threads=check_threads(threads))

    def _packer(self, tokenizer: Tokenizer) -> _core.Packer:
        key = id(tokenizer.core)
        if key not in self._packers:
            self._packers[key] = (_core.Packer(self._core, tokenizer.core), tokenizer.core)
        return self._packers[key][0]

    @cached_property
    def _packers(self) -> dict[int, tuple[_core.Packer, _core.Tokenizer]]:
        return {}


def check_threads(threads: int) -> int:
    """Of the core: 0 for all cores."""
    return integer("threads", threads, 0, 1 << 16)


@dataclass(frozen=True, eq=False, repr=False)
class PackedBatch:
    """Rows of whole documents. A document is cut only if it is longer than a row.

    Args:
        rows, length: the shape of the flat arrays.
        tokens: int32 [rows * length], [PAD] behind the last document of a row.
        positions: int32 [rows * length], counted from 0 in every document.
        loss_mask: uint8 [rows * length], 1 where the token belongs to the solution, the answer or [EOS].
        starts, lengths: int32 [documents]: where the documents lie in the flat arrays.
        next_index: the first problem that did not fit; the `start` of the next batch.
    """

    rows: int
    length: int
    tokens: np.ndarray
    positions: np.ndarray
    loss_mask: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    next_index: int

    def __repr__(self) -> str:
        return (
            f"PackedBatch({self.rows} rows of {self.length} tokens: {len(self.starts)} documents, "
            f"{int(self.loss_mask.sum()):,} tokens with a loss, next_index={self.next_index})"
        )

    @property
    def cu_seqlens(self) -> np.ndarray:
        """int32: boundaries of documents and of the padding between them, 0 first and rows * length last."""
        bounds = np.concatenate([[0], self.starts, self.starts + self.lengths, [len(self.tokens)]])
        return np.unique(bounds).astype(np.int32)


class ProblemBatch:
    """Some problems: texts as lists, facts as arrays. One of them is a `Problem`, a part of them again a batch.

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
        """A `Problem` at an index; a batch for a slice, a list of indices or a mask of bools. As in a list, negative
        indices count from the end.

        Raises:
            IndexError: no problem of this batch has the index.
            ValueError: what is given is no index.
        """
        if isinstance(key, slice):
            return self._part(np.arange(len(self))[key])
        if np.ndim(key) == 0:
            return Problem(self, int(self._places(key)[0]))
        mask = np.asarray(key)
        if mask.dtype == np.bool_ and len(mask) != len(self):
            raise IndexError(f"ProblemBatch: a mask must have {len(self)} entries, got {len(mask)}")
        return self._part(indices("ProblemBatch", key) if mask.dtype == np.bool_ else self._places(key))

    def _places(self, key: Any) -> np.ndarray:
        found = np.atleast_1d(integers("ProblemBatch: an index", key, -INT64_MAX))
        outside = found[(found < -len(self)) | (found >= len(self))]
        if len(outside):
            raise IndexError(f"ProblemBatch: an index must be in {-len(self)} .. {len(self) - 1}, got {outside[0]}")
        return np.where(found < 0, found + len(self), found)

    def _part(self, places: np.ndarray) -> ProblemBatch:
        return self.stream.batch(self.indices[places])

    def __iter__(self) -> Iterator[Problem]:
        return (Problem(self, i) for i in range(len(self)))

    @cached_property
    def prompts(self) -> list[str]:
        """`<question> problem question </question> <solution>`: what a model continues."""
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
        return self.core.problems()

    @cached_property
    def questions(self) -> list[str]:
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
        """uint64 [n]: equal exactly for problems that say the same, padding apart; the splits partition them."""
        return self.core.hashes()

    @cached_property
    def graph_hashes(self) -> np.ndarray:
        """uint64 [n]: of the necessary graph without names and numbers; `split_by="graph"` partitions them."""
        return self.core.graph_hashes()

    def graph(self, i: int) -> ProblemGraph:
        """The quantities of problem i of this batch and how each follows from others."""
        from .graph import ProblemGraph

        return ProblemGraph.of(self, integer("graph: i", i))

    @property
    def cells(self) -> list[Cell]:
        return [self.stream.cells[i] for i in self.core.cells()]

    def rows(self) -> list[dict[str, Any]]:
        """Rows in the published JSONL schema; `id` is unique within (mixture, seed, split)."""
        modes = {"forward": "normalforward", "reverse": "forwardreverse"}
        return [
            {
                "problem": problem + " ",
                "question": question,
                "solution": solution,
                "op": cell.op,
                "id": f"{self.stream.split}-{self.stream.seed}-{index}",
                "template": cell.theme,
                "mode": modes[cell.mode],
                "length": _length_name(cell.context),
                "d": cell.depth,
            }
            for problem, question, solution, cell, index in zip(
                self.problems, self.questions, self.solutions, self.cells, self.indices.tolist(), strict=True
            )
        ]


@dataclass(frozen=True, eq=False, repr=False)
class Problem:
    """One problem of a batch; its texts and facts are those of the batch, in the singular.

    Args:
        batch: where it stands.
        place: its index there.

    >>> problem = TaskStream(Mixture.uniform(op=[3], themes=["symbolic"], max_sentences=4), seed=1)[0:1][0]
    >>> problem
    Problem('train-1-0', op 3, theme symbolic, answer 2)
    >>> problem.problem, problem.question, problem.solution
    ('Di: 4. Do: 2. Ci: Do.', 'C ?', 'Do: 2. Ci: Do = 2. C: Ci = 2. Answer: 2.')
    """

    batch: ProblemBatch
    place: int

    @property
    def prompt(self) -> str:
        """`<question> problem question </question> <solution>`: what a model continues."""
        return self.batch.prompts[self.place]

    @property
    def problem(self) -> str:
        """The sentences that are given."""
        return self.batch.problems[self.place]

    @property
    def question(self) -> str:
        """What is asked."""
        return self.batch.questions[self.place]

    @property
    def solution(self) -> str:
        """Steps and answer in the published form: `... Answer: 7.`"""
        return self.batch.solutions[self.place]

    @property
    def document(self) -> str:
        """The training document: prompt, steps, answer tags and [EOS]."""
        return self.batch.documents[self.place]

    @property
    def answer(self) -> int:
        return int(self.batch.answers[self.place])

    @property
    def op(self) -> int:
        """Arithmetic operations, the exact difficulty."""
        return int(self.batch.ops[self.place])

    @property
    def cell(self) -> Cell:
        """The settings that it was drawn with."""
        return self.batch.stream.cells[self.batch.core.cells()[self.place]]

    @property
    def index(self) -> int:
        """Its index in the stream."""
        return int(self.batch.indices[self.place])

    @property
    def id(self) -> str:
        """Unique within (mixture, seed, split)."""
        return f"{self.batch.stream.split}-{self.batch.stream.seed}-{self.index}"

    @property
    def graph(self) -> ProblemGraph:
        """Its quantities and how each follows from others."""
        return self.batch.graph(self.place)

    def __repr__(self) -> str:
        return f"Problem({self.id!r}, op {self.op}, theme {self.cell.theme}, answer {self.answer})"

    def _repr_html_(self) -> str:
        """For notebooks: the texts, and the graph as a picture, whose style stays its own."""
        from .graph_svg import graph_svg

        picture = b64encode(graph_svg(self.graph).encode()).decode()
        parts = {"Problem": f"{self.problem} {self.question}", "Solution": self.solution}
        lines = "".join(f"<p><b>{name}.</b> {escape(text)}</p>" for name, text in parts.items())
        return f'<div>{lines}<img alt="{escape(repr(self))}" src="data:image/svg+xml;base64,{picture}"></div>'


def _length_name(context: int) -> str:
    """The published name of a context: `zero_context`, `8k`, ...; other numbers as they are."""
    if context == 0:
        return "zero_context"
    return f"{context // 1000}k" if context % 1000 == 0 else str(context)
