"""Exports problems as JSONL in the published schema, as Parquet, or as token ids that numpy can memory-map.

A JSONL file is a function of its arguments, so an interrupted one continues after its last complete line, and shards
written on different machines fit together: shard s of S holds the problems s, s + S, s + 2 S, ... The other formats are
folders.

A folder holds parts of `PART` problems each, written under a temporary name and renamed when complete, so that after an
interruption every part is either complete or absent; continuing writes the missing ones. A header next to the parts of
a shard describes their content; a folder with something else is rejected.

    0000-of-0004.json                 shard 0 of 4: format, mixture, seed, split
    0000-of-0004-00000.parquet        its first problems, rows in the published schema
    0000-of-0004-00000.npy            or their token ids, uint16 or int32 [num_tokens] ...
    0000-of-0004-00000.json           ... with {"num_tokens", "dtype", "first", "step", "cu_seqlens", "prompt_lengths"}
"""

from __future__ import annotations

import hashlib
import os
import textwrap
from abc import ABC, abstractmethod
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from ..runtime.files import check_folder, read_array, read_whole, write_whole
from ..runtime.folder_lock import held
from ..runtime.json_files import to_json
from ..runtime.progress import progress_bar
from ..text.tokenizer import Tokenizer
from .graph_svg import graph_svg
from .stream import StreamShard, TaskStream

PART = 16_384  # problems per file


def write_parquet(
    stream: TaskStream, folder: str | Path, count: int, *, shard: int = 0, num_shards: int = 1, part: int = PART
) -> int:
    """Writes problems shard, shard + num_shards, ... below `count` as Parquet; continues an existing folder.

    Args:
        stream: the problems.
        folder: created if missing.
        count: number of problems over all shards.
        shard, num_shards: 0 <= shard < num_shards.
        part: problems per file.
    Returns:
        The number of problems the shard now has.
    Raises:
        ValueError: an argument is out of range, or the folder holds something else.
        ModuleNotFoundError: pyarrow is not installed.
    """
    return _Parquet(stream, Path(folder), shard, num_shards, part).write(count)


def write_tokens(
    stream: TaskStream,
    folder: str | Path,
    count: int,
    tokenizer: Tokenizer,
    *,
    shard: int = 0,
    num_shards: int = 1,
    part: int = PART,
) -> int:
    """Writes documents as token ids, and the tokenizer, for `read_tokens`; otherwise like `write_parquet`."""
    return _Tokens(stream, Path(folder), shard, num_shards, part, tokenizer).write(count)


def read_tokens(header: str | Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Reads one part of a folder of token ids, memory-mapped.

    Args:
        header: its .json file.
    Returns:
        tokens [N], cu_seqlens int64 [documents + 1], prompt_lengths int32 [documents].
    Raises:
        ValueError: a file of the part is damaged, or the two do not belong together; the message names it.
    """
    header = Path(header)
    facts, tokens = read_whole(header), read_array(header.with_suffix(".npy"))
    try:
        cu_seqlens = np.array(facts["cu_seqlens"], dtype=np.int64)
        prompt_lengths = np.array(facts["prompt_lengths"], dtype=np.int32)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{header}: no header of token ids ({type(error).__name__}: {error})") from None
    if cu_seqlens.shape != (len(prompt_lengths) + 1,) or tokens.shape != (cu_seqlens[-1],):
        raise ValueError(
            f"{header}: belongs to other tokens: {len(prompt_lengths)} documents, cu_seqlens {cu_seqlens.shape}, "
            f"tokens {tokens.shape}"
        )
    return tokens, cu_seqlens, prompt_lengths


class _Export(ABC):
    """What the folder formats share: which parts exist, which are missing, and what they contain."""

    format: str
    suffix: str  # of the file whose presence marks a part as complete

    def __init__(self, stream: TaskStream, folder: Path, shard: int, num_shards: int, part: int) -> None:
        if not 0 <= shard < num_shards or part < 1:
            raise ValueError(
                f"generate: must have 0 <= shard < num_shards and part >= 1, got {shard}, {num_shards} and {part}"
            )
        self.folder, self.part = folder, part
        self.problems = StreamShard(stream, shard, num_shards)
        self.name = f"{shard:04}-of-{num_shards:04}"

    @abstractmethod
    def write_part(self, place: Path, begin: int, end: int) -> None:
        """Writes problems begin .. end - 1 of the shard, the file with `suffix` last."""

    @abstractmethod
    def size_of(self, place: Path) -> int:
        """The number of problems in a part; 0 if it is damaged, so that it is written again."""

    def write(self, count: int) -> int:
        if count < 1:
            raise ValueError(f"generate: count must be at least 1, got {count}")
        # problems of this shard
        size = max(0, -(-(count - self.problems.rank) // self.problems.world_size))
        check_folder("generate: out", self.folder)
        with held(self.folder / f".lock-{self.name}", f"generate: shard {self.name} of {self.folder}"):
            self._write(size)
        return size

    def _write(self, size: int) -> None:
        self._claim()
        begins = range(0, size, self.part)
        self._refuse_longer(len(begins), size)
        missing = [begin for begin in begins if not self._is_whole(begin, min(begin + self.part, size), size)]
        done = size - sum(min(begin + self.part, size) - begin for begin in missing)
        with progress_bar("generate", size, done, unit="row") as bar:
            for begin in missing:
                end = min(begin + self.part, size)
                self.write_part(self._place(begin // self.part), begin, end)
                bar.update(end - begin)

    def identity(self) -> dict[str, Any]:
        """What two runs must have in common to write to the same folder; the first rows stand for the problems."""
        stream = self.problems.stream
        rows = to_json([_as_before(row) for row in self.problems[0:4].rows()])
        return {
            "format": self.format,
            "mixture": [asdict(cell) | {"weight": weight} for cell, weight in stream.mixture.weights.items()],
            "seed": stream.seed,
            "split": stream.split,
            "split_by": stream.split_by,
            "shard": self.problems.rank,
            "num_shards": self.problems.world_size,
            "problems_per_part": self.part,
            "first_rows_sha256": hashlib.sha256(rows.encode()).hexdigest(),
        }

    def _claim(self) -> None:
        path, identity = self.folder / f"{self.name}.json", self.identity()
        if not path.exists():
            if others := sorted(self.folder.glob(f"{self.name}-*")):
                raise ValueError(f"generate: {others[0]} exists without {path.name}; use an empty folder")
            write_whole(path, lambda file: file.write_text(to_json(identity, indent=1) + "\n", encoding="utf-8"))
        elif read_whole(path) != identity:
            raise ValueError(f"generate: {path} belongs to another mixture, seed, split, format or tokenizer")

    def _place(self, number: int) -> Path:
        return self.folder / f"{self.name}-{number:05}"

    def _is_whole(self, begin: int, end: int, size: int) -> bool:
        place = self._place(begin // self.part)
        if not place.with_suffix(self.suffix).exists():
            return False
        num_problems = self.size_of(place)
        if begin + num_problems > size:
            self._refuse(begin + num_problems, size)
        # a last part with fewer problems is rewritten
        return num_problems == end - begin

    def _refuse_longer(self, num_parts: int, size: int) -> None:
        beyond = self._place(num_parts)
        if beyond.with_suffix(self.suffix).exists():
            self._refuse(num_parts * self.part + self.size_of(beyond), size)

    def _refuse(self, num_problems: int, size: int) -> None:
        raise ValueError(
            f"generate: {self.folder} has at least {num_problems} problems, more than the {size} requested"
        )


class _Parquet(_Export):
    format, suffix = "parquet", ".parquet"

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        try:
            import pyarrow
            import pyarrow.parquet
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError("Parquet needs pyarrow: pip install 'fastreason[parquet]'") from error
        self.pyarrow, self.parquet = pyarrow, pyarrow.parquet

    def write_part(self, place: Path, begin: int, end: int) -> None:
        table = self.pyarrow.Table.from_pylist(self.problems[begin:end].rows())
        write_whole(place.with_suffix(".parquet"), lambda file: self.parquet.write_table(table, file))

    def size_of(self, place: Path) -> int:
        try:
            return self.parquet.read_metadata(place.with_suffix(".parquet")).num_rows
        except (ValueError, OSError):  # damaged
            return 0


class _Tokens(_Export):
    format, suffix = "tokens", ".json"

    def __init__(
        self, stream: TaskStream, folder: Path, shard: int, num_shards: int, part: int, tokenizer: Tokenizer
    ) -> None:
        super().__init__(stream, folder, shard, num_shards, part)
        self.tokenizer = tokenizer
        self.dtype = np.uint16 if len(tokenizer) <= 2**16 else np.int32

    def identity(self) -> dict[str, Any]:
        with TemporaryDirectory() as folder:
            self.tokenizer.save_pretrained(folder)
            content = (Path(folder) / "tokenizer.json").read_bytes()
        return super().identity() | {"tokenizer_sha256": hashlib.sha256(content).hexdigest()}

    def write(self, count: int) -> int:
        size = super().write(count)
        self.tokenizer.save_pretrained(self.folder)
        return size

    def write_part(self, place: Path, begin: int, end: int) -> None:
        tokens, cu_seqlens, prompt_lengths = self.problems.encoded(begin, end - begin, self.tokenizer)
        facts = {
            "num_tokens": len(tokens),
            "dtype": np.dtype(self.dtype).name,
            "first": int(self.problems.rank + begin * self.problems.world_size),
            "step": self.problems.world_size,
            "cu_seqlens": cu_seqlens.tolist(),
            "prompt_lengths": prompt_lengths.tolist(),
        }
        place.with_suffix(".json").unlink(missing_ok=True)

        def save(path: Path) -> None:
            with path.open("wb") as file:
                np.save(file, tokens.astype(self.dtype))

        write_whole(place.with_suffix(".npy"), save)
        write_whole(place.with_suffix(".json"), lambda file: file.write_text(to_json(facts), encoding="utf-8"))

    def size_of(self, place: Path) -> int:
        try:
            return len(read_tokens(place.with_suffix(".json"))[2])
        except (ValueError, OSError):  # damaged
            return 0


FORMATS = ("jsonl", "parquet", "tokens")
_CHUNK = 4096


def write(
    stream: TaskStream,
    path: Path,
    count: int,
    format: str,
    *,
    shard: int,
    num_shards: int,
    tokenizer: str | Path | None = None,
) -> int:
    """Writes problems in one of FORMATS; `tokenizer` is a folder, or None for the vocabulary of the mixture."""
    part: dict[str, int] = {"shard": shard, "num_shards": num_shards}
    if format == "jsonl":
        return write_jsonl(stream, path, count, **part)
    if format == "parquet":
        return write_parquet(stream, path, count, **part)
    chosen = Tokenizer.from_pretrained(tokenizer) if tokenizer else Tokenizer.for_mixtures([stream.mixture])
    return write_tokens(stream, path, count, chosen, **part)


def write_graph(stream: TaskStream, path: str | Path) -> None:
    """Draws the graph of the first problem as an SVG file."""
    Path(path).write_text(graph_svg(stream[0].graph(0)), encoding="utf-8")


def write_jsonl(stream: TaskStream, path: str | Path, count: int, *, shard: int = 0, num_shards: int = 1) -> int:
    """Writes problems shard, shard + num_shards, ... below `count` as JSONL; continues an existing file.

    Args:
        stream: the problems.
        path: the file; complete lines in it are kept.
        count: number of problems over all shards.
        shard, num_shards: 0 <= shard < num_shards.
    Returns:
        The number of lines the file now has.
    Raises:
        ValueError: count or shard is out of range, or the file holds other problems.
    """
    if count < 1 or not 0 <= shard < num_shards:
        raise ValueError(
            f"generate: must have count >= 1 and 0 <= shard < num_shards, got {count}, {shard} and {num_shards}"
        )
    path, indices = Path(path), np.arange(shard, count, num_shards)
    real = Path(os.path.realpath(path))
    # devices and pipes cannot be continued and need no lock; a missing folder is the error of opening the file
    if (path.exists() and not path.is_file()) or not real.parent.is_dir():
        _append(stream, path, indices, 0)
        return len(indices)
    with held(real.with_name(f".{real.name}.lock"), f"generate: {path}"):
        _append(stream, path, indices, _whole_lines(path, stream, indices))
    return len(indices)


def _append(stream: TaskStream, path: Path, indices: np.ndarray, done: int) -> None:
    with path.open("a", encoding="utf-8") as file, progress_bar("generate", len(indices), done, unit="row") as bar:
        for begin in range(done, len(indices), _CHUNK):
            rows = stream[indices[begin : begin + _CHUNK]].rows()
            file.write("".join(map(_line, rows)))
            bar.update(len(rows))
        file.flush()
        if path.is_file():
            os.fsync(file.fileno())


def show(stream: TaskStream, count: int, width: int = 100) -> str:
    """The first problems as readable text, one sentence or step per line."""
    parts = []
    for row in stream[0:count].rows():
        body, answer = row["solution"].rsplit(" Answer: ", 1)
        lines = [f"# {row['id']}  op {row['op']}, {row['mode']}, depth {row['d']}, theme {row['template']}"]
        lines += row["problem"].strip().replace(". ", ".\n").split("\n")
        lines += [row["question"], "", *body.replace(". ", ".\n").split("\n"), f"Answer: {answer}"]
        parts.append("\n".join(textwrap.fill(line, width, subsequent_indent="    ") for line in lines))
    return "\n\n".join(parts)


def _as_before(row: dict[str, Any]) -> dict[str, Any]:
    """With the id that files of earlier versions have: without `TaskStream.fingerprint`."""
    return row | {"id": row["id"].rpartition("-")[0]}


def _whole_lines(path: Path, stream: TaskStream, indices: np.ndarray) -> int:
    """The number of complete lines; an incomplete last line is removed, but only from a file that is ours."""
    if not path.exists():
        return 0
    done, end, last, rest = 0, 0, b"", b""
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                done, end, last = done + 1, end + len(line), line
            else:
                rest = line
    if done > len(indices):
        raise ValueError(f"generate: {path} has {done} lines, more than the {len(indices)} requested")
    rows = stream[indices[max(done - 1, 0) : done + 1]].rows()
    expected = [[_line(form).encode() for form in (row, _as_before(row))] for row in rows]
    is_ours = (done == 0 or last in expected[0]) and (not rest or any(form.startswith(rest) for form in expected[-1]))
    if not is_ours:
        raise ValueError(f"generate: {path} holds problems of another mixture, seed, split or shard")
    os.truncate(path, end)
    return done


def _line(row: dict[str, Any]) -> str:
    return to_json(row) + "\n"
