"""The files of an evaluation, from which an interrupted one resumes.

    evaluation.json          what is evaluated: settings, seed, model; other folders are rejected
    samples/op-07-0032.parquet   one row per sample of some problems: op 7, problems from 32 on
    samples/op-07-0032.parquet.begun   those that were finished when Ctrl-C came; removed once all are
    results.json             the scores, once all problems are done

Files that only serve to resume are .npz, without completions, and need no pyarrow.

A file gets its final name when complete, so a kill loses at most the problems in progress, and Ctrl-C the unfinished
ones. Each process writes its own files; any number of processes may continue.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..grading.failure_kinds import FailureKind
from ..runtime import distributed
from ..runtime.files import read_arrays, read_whole, write_json, write_whole
from ..runtime.json_files import to_json
from ..runtime.model_names import model_folder

COLUMNS = {
    "op": np.int16,
    "problem": np.int64,
    "theme": np.int32,
    "mode": np.int32,
    "depth": np.int8,
    "sample": np.int32,
    "answer_correct": np.bool_,
    "verified": np.bool_,
    "sound": np.bool_,
    "process_accuracy": np.float32,
    "length": np.int32,
    "stopped": np.bool_,
    "failure": np.int8,
}
"""The columns of samples in memory: names are indices into lists, `stopped` means finish reason "stop"."""

_NOTES = b"fastreason"


@dataclass(frozen=True, eq=False)
class DrawnSamples:
    """Samples of some problems of an op, graded."""

    columns: dict[str, np.ndarray]
    """COLUMNS, a row for each sample, by problem and number of the sample."""
    traces: list[Any]
    """What is shown of the first problems, one entry each."""
    seconds: float
    """What sampling and grading took."""
    texts: list[str] | None = None
    """The completions, where they are kept."""

    def joined(self, other: DrawnSamples) -> DrawnSamples:
        """With samples of other problems; both or neither have texts."""
        columns = {name: np.concatenate([values, other.columns[name]]) for name, values in self.columns.items()}
        order = np.lexsort((columns["sample"], columns["problem"]))
        traces = dict([*self._shown(), *other._shown()])
        texts = None
        if self.texts is not None and other.texts is not None:
            both = self.texts + other.texts
            texts = [both[row] for row in order]
        return DrawnSamples(
            {name: values[order] for name, values in columns.items()},
            [traces[problem] for problem in sorted(traces)],
            self.seconds + other.seconds,
            texts,
        )

    def _shown(self) -> list[tuple[int, Any]]:
        return list(zip(np.unique(self.columns["problem"]).tolist(), self.traces, strict=False))


def require_pyarrow(what: str) -> Any:
    """Imports pyarrow; a ModuleNotFoundError says that `what` needs it."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{what} needs pyarrow: pip install 'fastreason[parquet]'") from error
    return pyarrow


class EvaluationFolder:
    """The files of one evaluation.

    Args:
        path: created if missing.
        identity: what is evaluated, as JSON; must match an existing evaluation.
        themes, modes: the names that columns have indices of.
        resume: continue an existing evaluation.
        parquet: whether the samples are for users; otherwise they are .npz and only serve to resume.
    Raises:
        ValueError: the folder holds something else, or an evaluation although `resume` is not set.
        ModuleNotFoundError: pyarrow is not installed, and `parquet` is set.
    """

    def __init__(
        self,
        path: str | Path,
        identity: Mapping[str, Any],
        themes: Sequence[str],
        modes: Sequence[str],
        *,
        resume: bool = False,
        parquet: bool = True,
    ) -> None:
        self.pa: Any = require_pyarrow("eval: --out") if parquet else None
        self.path, self.samples = Path(path), Path(path) / "samples"
        self.keeps_texts = bool(identity.get("texts"))
        self.names = {
            "theme": list(themes),
            "mode": list(modes),
            "failure": [kind.name for kind in FailureKind],
            "stopped": ["length", "stop"],
        }
        # every rank checks before the first one writes
        self._check(json.loads(to_json(identity)), resume)
        distributed.barrier()
        if distributed.is_main():
            self.samples.mkdir(parents=True, exist_ok=True)
            for left in self.samples.glob("*.new*"):
                left.unlink()
            for begun in self.samples.glob("*.begun"):
                if begun.with_suffix("").exists():  # killed between writing one and removing the other
                    begun.unlink()
            write_json(self.path / "evaluation.json", identity)
        distributed.barrier()

    def _check(self, identity: Mapping[str, Any], resume: bool) -> None:
        file = self.path / "evaluation.json"
        if not file.exists():
            # the first file may be incomplete
            if self.path.exists() and any(
                path != self.samples and not path.name.startswith((".lock", "evaluation.json.new"))
                for path in self.path.iterdir()
            ):
                raise ValueError(f"eval: {self.path} is not empty and not an evaluation; choose another --out")
            return
        if not resume:
            raise ValueError(
                f"eval: {self.path} holds an evaluation; continue it with --resume, or choose another --out"
            )
        before = read_whole(file)
        for name in sorted(before.keys() | identity.keys()):
            if before.get(name) != identity.get(name):
                raise ValueError(
                    f"eval: {self.path} holds another evaluation: {name} was {before.get(name)!r:.80}, "
                    f"now it is {identity.get(name)!r:.80}"
                )

    def _part(self, op: int, first: int) -> Path:
        return self.samples / f"op-{op:02}-{first:04}.{'npz' if self.pa is None else 'parquet'}"

    def _begun(self, op: int, first: int) -> Path:
        return self.samples / f"{self._part(op, first).name}.begun"

    def has(self, op: int, first: int) -> bool:
        return self._part(op, first).exists()

    def write(self, op: int, first: int, drawn: DrawnSamples) -> None:
        """The samples of all problems of a part."""
        self._write(self._part(op, first), drawn)
        self._begun(op, first).unlink(missing_ok=True)

    def write_begun(self, op: int, first: int, drawn: DrawnSamples) -> None:
        """The samples of some problems of a part."""
        self._write(self._begun(op, first), drawn)

    def _write(self, path: Path, drawn: DrawnSamples) -> None:
        if self.pa is None:
            write_whole(path, lambda file: _write_npz(file, drawn))
            return
        pa = self.pa
        arrays = {name: self._named(name, drawn.columns[name]) for name in COLUMNS}
        arrays["finish_reason"] = arrays.pop("stopped")
        if self.keeps_texts:
            arrays["completion"] = pa.array(drawn.texts, pa.string())
        notes = {"traces": drawn.traces, "seconds": drawn.seconds}
        table = pa.table(arrays).replace_schema_metadata({_NOTES: to_json(notes)})
        write_whole(path, lambda file: pa.parquet.write_table(table, file, compression="zstd"))

    def _named(self, name: str, values: np.ndarray) -> Any:
        """An Arrow array, with names in place of indices."""
        if name not in self.names:
            return self.pa.array(values.astype(COLUMNS[name]))
        numbers = self.pa.array(values.astype(np.int32))
        return self.pa.DictionaryArray.from_arrays(numbers, self.pa.array(self.names[name]))

    def read(self, op: int, first: int) -> DrawnSamples:
        """What `write` was given; ValueError if the file is damaged."""
        return self._read(self._part(op, first))

    def read_begun(self, op: int, first: int) -> DrawnSamples | None:
        """What `write_begun` was given, if it was."""
        path = self._begun(op, first)
        return self._read(path) if path.exists() else None

    def _read(self, path: Path) -> DrawnSamples:
        if self.pa is None:
            return _read_npz(path)
        try:
            # from memory: a name that ends in something else is no Parquet for pyarrow
            table = self.pa.parquet.read_table(self.pa.BufferReader(path.read_bytes()))
            columns = {}
            for name, dtype in COLUMNS.items():
                column = table.column("finish_reason" if name == "stopped" else name).combine_chunks()
                if name in self.names:
                    number_of = [self.names[name].index(value) for value in column.dictionary.to_pylist()]
                    columns[name] = np.array(number_of)[column.indices.to_numpy()].astype(dtype)
                else:
                    columns[name] = column.to_numpy(zero_copy_only=False).astype(dtype)
            notes = json.loads(table.schema.metadata[_NOTES])
            texts = table.column("completion").to_pylist() if self.keeps_texts else None
            return DrawnSamples(columns, notes["traces"], notes["seconds"], texts)
        except (OSError, KeyError, TypeError, ValueError, self.pa.ArrowException) as error:
            raise ValueError(f"eval: {path} cannot be read ({error}); remove it, and --resume will redo it") from error

    def seconds(self) -> float:
        """Seconds of sampling and grading of all parts, summed over processes and earlier calls."""
        notes = [self.pa.parquet.read_schema(path).metadata[_NOTES] for path in self.samples.glob("*.parquet")]
        return sum(json.loads(note)["seconds"] for note in notes)

    def finish(self, results: Mapping[str, Any]) -> None:
        """Writes results.json."""
        write_json(self.path / "results.json", results)


def _write_npz(path: Path, drawn: DrawnSamples) -> None:
    notes = to_json({"traces": drawn.traces, "seconds": drawn.seconds})
    arrays: dict[str, Any] = {name: drawn.columns[name].astype(dtype) for name, dtype in COLUMNS.items()}
    with path.open("wb") as file:  # a path would get the suffix .npz
        np.savez_compressed(file, notes=np.frombuffer(notes.encode(), np.uint8), **arrays)


def _read_npz(path: Path) -> DrawnSamples:
    try:
        arrays = read_arrays(path)
        columns: dict[str, np.ndarray] = {name: arrays[name].astype(dtype) for name, dtype in COLUMNS.items()}
        notes = json.loads(arrays["notes"].tobytes())
        return DrawnSamples(columns, notes["traces"], notes["seconds"])
    except (OSError, KeyError, ValueError) as error:
        raise ValueError(f"eval: {path} cannot be read ({error}); remove it, and --resume will redo it") from error


def model_identity(folder: str | Path) -> dict[str, str]:
    """SHA-256, by name, of the files that determine the output of a model folder."""
    hashes = {}
    for path in sorted(model_folder(folder).iterdir()):
        if path.name in ("config.json", "tokenizer.json") or path.suffix in (".safetensors", ".bin", ".model"):
            with path.open("rb") as file:
                hashes[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return hashes
