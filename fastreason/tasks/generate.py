"""Problems to a JSONL file in the published schema, to the formats of exports.py, or to the screen.

A file is a function of its arguments, so an interrupted one continues where its last whole line ends, and shards made
on different machines fit together: shard s of S holds the problems s, s + S, s + 2 S, ...
"""

from __future__ import annotations

import os
import textwrap
from pathlib import Path
from typing import Any

import numpy as np

from ..runtime.json_files import to_json
from ..runtime.metrics_log import progress_bar
from ..text.tokenizer import Tokenizer
from .export import write_parquet, write_tokens
from .graph_svg import graph_svg
from .stream import TaskStream

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
    """Writes problems in one of FORMATS; `tokenizer` is a folder, None for the vocabulary of the mixture."""
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
    """Writes problems shard, shard + num_shards, ... below `count`; goes on with a file that is there.

    Args:
        stream: the problems.
        path: the file; whole lines in it are kept.
        count: problems of all shards together.
        shard, num_shards: 0 <= shard < num_shards.
    Returns:
        How many lines the file has now.
    Raises:
        ValueError: count or shard out of range, or a file that holds other problems.
    """
    if count < 1 or not 0 <= shard < num_shards:
        raise ValueError(
            f"generate: need count >= 1 and 0 <= shard < num_shards, got {count}, {shard} and {num_shards}"
        )
    path, indices = Path(path), np.arange(shard, count, num_shards)
    done = _whole_lines(path, stream, indices)
    with path.open("a", encoding="utf-8") as file, progress_bar("generate", len(indices), done, unit="row") as bar:
        for begin in range(done, len(indices), _CHUNK):
            rows = stream[indices[begin : begin + _CHUNK]].rows()
            file.write("".join(map(_line, rows)))
            bar.update(len(rows))
    return len(indices)


def show(stream: TaskStream, count: int, width: int = 100) -> str:
    """The first problems for a reader: a sentence and a step a line."""
    parts = []
    for row in stream[0:count].rows():
        body, answer = row["solution"].rsplit(" Answer: ", 1)
        lines = [f"# {row['id']}  op {row['op']}, {row['mode']}, depth {row['d']}, theme {row['template']}"]
        lines += row["problem"].strip().replace(". ", ".\n").split("\n")
        lines += [row["question"], "", *body.replace(". ", ".\n").split("\n"), f"Answer: {answer}"]
        parts.append("\n".join(textwrap.fill(line, width, subsequent_indent="    ") for line in lines))
    return "\n\n".join(parts)


def _whole_lines(path: Path, stream: TaskStream, indices: np.ndarray) -> int:
    """How many lines are there; half a line behind them is cut off, but only from a file that is ours."""
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
        raise ValueError(f"generate: {path} has {done} lines, more than the {len(indices)} asked for")
    expected = [_line(row).encode() for row in stream[indices[max(done - 1, 0) : done + 1]].rows()]
    is_ours = (done == 0 or last == expected[0]) and (rest == b"" or expected[-1].startswith(rest))
    if not is_ours:
        raise ValueError(f"generate: {path} holds problems of another mixture, seed, split or shard")
    os.truncate(path, end)
    return done


def _line(row: dict[str, Any]) -> str:
    return to_json(row) + "\n"
