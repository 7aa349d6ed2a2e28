"""Checkpoints: a Hugging Face folder plus the state that training needs to resume.

    config.json, model.safetensors, generation_config.json, tokenizer.json, tokenizer_config.json, README.md
    state/optimizer.safetensors, state/progress.json, state/checksums.json; state/traces.safetensors in self-training

transformers loads the folder as a Qwen2 model. A folder is written under a temporary name (NAME.new), flushed to disk
and renamed, so NAME is never an incomplete checkpoint. Nothing is pickled.

    NAME             the newest checkpoint, from which a stage resumes
    NAME-00000120    older ones by step, if more than one is kept; rename one to NAME to resume from it
    NAME-best        the one with the lowest validation loss, if there is validation
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor

from ..model.config import ModelConfig
from ..model.decoder import Decoder, load_model, model_from_hf, model_to_hf, save_model
from ..model.hugging_face import write_json as _write_json
from ..runtime import distributed
from ..runtime.files import flush
from ..runtime.json_files import read_json as _read_json
from ..runtime.tensor_files import read_tensors as _read_tensors
from ..runtime.tensor_files import write_tensors
from ..text.tokenizer import Tokenizer
from .optimizer import Optimizer

__all__ = [
    "best_checkpoint",
    "check_files",
    "find_checkpoint",
    "kept_checkpoints",
    "load_model",
    "load_optimizer",
    "load_progress",
    "load_traces",
    "model_from_hf",
    "model_to_hf",
    "restore",
    "save_checkpoint",
    "save_model",
]


def save_checkpoint(
    folder: str | Path,
    model: Decoder,
    tokenizer: Tokenizer,
    optimizer: Optimizer | None,
    progress: Mapping[str, Any],
    *,
    keep: int = 1,
    facts: Mapping[str, Any] | None = None,
    traces: Mapping[str, Tensor] | None = None,
) -> None:
    """Replaces `folder` by a checkpoint of the current state. At every instant a complete one exists under this name
    or, after a crash between two renames, under the name with `.old` appended.

    Rank 0 writes; if FSDP shards the optimizer's state, all ranks must call this.

    Args:
        folder: of the checkpoint.
        model: with full weights, see `Replica.gather`.
        tokenizer: saved with the model.
        optimizer: None once the stage has ended.
        progress: the counters from which the stage resumes, as JSON.
        keep: number of checkpoints to keep; the older ones are `kept_checkpoints`. Needs `step` in `progress`.
        facts: for the model card, in addition to `progress`.
        traces: the data of self-training, see `load_traces`.
    Raises:
        OSError: it cannot be written, for example because the disk is full; the previous checkpoint is untouched.
    """
    state = None if optimizer is None else optimizer.state_tensors()
    if not distributed.is_main():
        return
    folder = Path(folder)
    new, old = folder.with_name(folder.name + ".new"), folder.with_name(folder.name + ".old")
    shutil.rmtree(new, ignore_errors=True)
    try:
        _write_checkpoint(new, model, tokenizer, {"optimizer": state, "traces": traces}, progress, facts)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(new, ignore_errors=True)
        raise OSError(
            getattr(error, "errno", None) or 0,
            f"checkpoint: {folder} could not be written ({error}); the previous checkpoint, if any, is kept",
        ) from error
    if folder.exists():
        _retire(old, folder, keep)  # exists after a crash right after the renames
        folder.rename(old)
    new.rename(folder)
    flush(folder.parent)
    _retire(old, folder, keep)


def _write_checkpoint(
    new: Path,
    model: Decoder,
    tokenizer: Tokenizer,
    state: Mapping[str, Mapping[str, Tensor] | None],
    progress: Mapping[str, Any],
    facts: Mapping[str, Any] | None,
) -> None:
    (new / "state").mkdir(parents=True)
    save_model(model, new, tokenizer, {**(facts or {}), "progress": progress})
    for name, tensors in state.items():
        if tensors is not None:
            write_tensors(tensors, new / "state" / f"{name}.safetensors")
    _write_json(new / "state" / "progress.json", progress)
    files = sorted(path for path in new.rglob("*") if path.is_file() and path.name != "README.md")
    _write_json(new / "state" / "checksums.json", {path.relative_to(new).as_posix(): _sha256(path) for path in files})
    for path in [*new.rglob("*"), new]:
        flush(path)


def _retire(old: Path, folder: Path, keep: int) -> None:
    """Moves a replaced checkpoint to the kept ones, and removes those beyond `keep`."""
    if keep == 1:
        shutil.rmtree(old, ignore_errors=True)
        return
    trash = folder.with_name(folder.name + ".trash")  # so that a half-removed folder is not mistaken for a checkpoint
    shutil.rmtree(trash, ignore_errors=True)
    if old.exists():
        place = folder.with_name(f"{folder.name}-{load_progress(old)['step']:08d}")
        if place.exists():
            place.rename(trash)
            shutil.rmtree(trash, ignore_errors=True)
        old.rename(place)
    for stale in kept_checkpoints(folder)[: 1 - keep]:
        stale.rename(trash)
        shutil.rmtree(trash, ignore_errors=True)


def kept_checkpoints(folder: str | Path) -> list[Path]:
    """The older checkpoints next to `folder`, by increasing step."""
    folder = Path(folder)
    pattern = re.compile(re.escape(folder.name) + r"-\d{8,}")
    kept = [path for path in folder.parent.glob(folder.name + "-*") if pattern.fullmatch(path.name)]
    return sorted(kept, key=lambda path: int(path.name.rpartition("-")[2]))


def best_checkpoint(folder: str | Path) -> Path:
    """The path of the checkpoint with the lowest validation loss, whether or not it exists."""
    return Path(folder).with_name(Path(folder).name + "-best")


def find_checkpoint(folder: str | Path, keep: int | None = None) -> Path | None:
    """The complete checkpoint of this name, if there is one; first restores one that a crash left under another name.

    Rank 0 checks; all ranks must call this, and see the same files.

    Args:
        keep: number of checkpoints to keep, as in `save_checkpoint`; a crash in the last save may have left more, or
            the one that it replaced under neither name. Default: older ones stay as they are.
    Raises:
        ValueError: a file is missing, damaged or changed; nothing is deleted.
        OtherRankFailed: the same, on the other ranks.
    """
    with distributed.together():
        if distributed.is_main():
            settle_checkpoint(Path(folder))
            if keep is not None and Path(folder).exists():
                _retire(Path(folder).with_name(Path(folder).name + ".old"), Path(folder), keep)
    return Path(folder) if Path(folder).exists() else None


def settle_checkpoint(folder: Path) -> None:
    """Restores a checkpoint that a crash left under another name, and checks its files, if there is one.

    Raises:
        ValueError: a file is missing, damaged or changed; nothing is deleted.
    """
    old = folder.with_name(folder.name + ".old")
    if not folder.exists() and old.exists():
        old.rename(folder)
    if not folder.exists():
        return
    try:
        check_files(folder)
    except ValueError as error:
        others = [path for path in [*reversed(kept_checkpoints(folder)), best_checkpoint(folder)] if path.exists()]
        advice = f"to resume from {others[0]}, rename it to this" if others else "without it the stage starts again"
        raise ValueError(f"{error}; move {folder} away: {advice}") from None


def check_files(folder: str | Path) -> None:
    """Compares every file of a checkpoint, except README.md, with its recorded SHA-256.

    Raises:
        ValueError: names the first file that is missing or differs.
    """
    folder = Path(folder)
    for name, wanted in _read_json(folder / "state" / "checksums.json").items():
        if not (folder / name).is_file():
            raise ValueError(f"checkpoint: {folder / name} does not exist")
        if _sha256(folder / name) != wanted:
            raise ValueError(f"checkpoint: {folder / name} has changed since it was written: its SHA-256 differs")


def load_traces(folder: str | Path) -> dict[str, Tensor]:
    """The `traces` that a checkpoint was saved with."""
    return _read_tensors(Path(folder) / "state" / "traces.safetensors")


def restore(folder: str | Path, model: Decoder, optimizer: Optimizer | None = None) -> dict[str, Any]:
    """Loads a checkpoint's weights into `model` and, for a stage that resumes, its state into `optimizer` if given.

    Returns:
        The progress that was saved.
    Raises:
        ValueError: the model of the checkpoint has a different shape.
    """
    progress, saved = load_progress(folder), load_model(folder, model.embedding.weight.dtype)
    for field in fields(ModelConfig):
        want, got = getattr(model.config, field.name), getattr(saved.config, field.name)
        if want != got:
            raise ValueError(f"checkpoint: the model in {folder} has {field.name} = {got}, but this one has {want}")
    model.load_state_dict(saved.state_dict())
    if optimizer is not None and not progress.get("finished"):
        load_optimizer(folder, optimizer)
    return progress


def load_progress(folder: str | Path) -> dict[str, Any]:
    return _read_json(Path(folder) / "state" / "progress.json")


def load_optimizer(folder: str | Path, optimizer: Optimizer) -> None:
    optimizer.load_state_tensors(_read_tensors(Path(folder) / "state" / "optimizer.safetensors"))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
