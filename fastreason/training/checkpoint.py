"""Checkpoints: a Hugging Face folder, and beside it what training needs to go on.

    config.json, model.safetensors, generation_config.json, tokenizer.json, tokenizer_config.json, README.md
    state/optimizer.safetensors, state/progress.json, state/checksums.json

transformers loads the folder as a Qwen2 model. A folder is written under another name (NAME.new), flushed to disk and
renamed, so a half-written checkpoint never has the name of a whole one. Nothing is pickled.

    NAME             the newest checkpoint, from which a stage continues
    NAME-00000120    older ones by their step, if more than one is kept; renamed to NAME they are continued from
    NAME-best        the one with the lowest validation loss, if there is validation
"""

from __future__ import annotations

import hashlib
import os
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
) -> None:
    """Replaces `folder` by a checkpoint of this moment; at every instant a whole one is there under its name or, right
    after a crash between two renames, under the name with `.old` behind it.

    Of several ranks rank 0 writes; where FSDP shares out the optimizer's state, all ranks must call it.

    Args:
        model: with whole weights; see `Replica.gather`.
        optimizer: None once the stage has ended.
        progress: counters that the stage goes on from, as JSON.
        keep: how many stay; of more than one, the older ones are `kept_checkpoints`. Needs `step` in `progress`.
        facts: for the model card, beside `progress`.
    Raises:
        OSError: it cannot be written, for example because the disk is full; what was there before is untouched.
    """
    state = None if optimizer is None else optimizer.state_tensors()
    if not distributed.is_main():
        return
    folder = Path(folder)
    new, old = folder.with_name(folder.name + ".new"), folder.with_name(folder.name + ".old")
    shutil.rmtree(new, ignore_errors=True)
    try:
        _write_checkpoint(new, model, tokenizer, state, progress, facts)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(new, ignore_errors=True)
        raise OSError(
            getattr(error, "errno", None) or 0,
            f"checkpoint: {folder} could not be written ({error}); the checkpoint of before, if any, is kept",
        ) from error
    if folder.exists():
        _retire(old, folder, keep)  # there if a crash came right behind the renames
        folder.rename(old)
    new.rename(folder)
    _flush(folder.parent)
    _retire(old, folder, keep)


def _write_checkpoint(
    new: Path,
    model: Decoder,
    tokenizer: Tokenizer,
    state: Mapping[str, Tensor] | None,
    progress: Mapping[str, Any],
    facts: Mapping[str, Any] | None,
) -> None:
    (new / "state").mkdir(parents=True)
    save_model(model, new, tokenizer, {**(facts or {}), "progress": progress})
    if state is not None:
        write_tensors(state, new / "state" / "optimizer.safetensors")
    _write_json(new / "state" / "progress.json", progress)
    files = sorted(path for path in new.rglob("*") if path.is_file() and path.name != "README.md")
    _write_json(new / "state" / "checksums.json", {path.relative_to(new).as_posix(): _sha256(path) for path in files})
    for path in [*new.rglob("*"), new]:
        _flush(path)


def _retire(old: Path, folder: Path, keep: int) -> None:
    """Puts a checkpoint that was replaced among the kept ones, and removes those beyond `keep`."""
    if keep == 1:
        shutil.rmtree(old, ignore_errors=True)
        return
    trash = folder.with_name(folder.name + ".trash")  # so that what is half removed has no good name
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
    """The older checkpoints beside `folder`, by rising step."""
    folder = Path(folder)
    pattern = re.compile(re.escape(folder.name) + r"-\d{8,}")
    kept = [path for path in folder.parent.glob(folder.name + "-*") if pattern.fullmatch(path.name)]
    return sorted(kept, key=lambda path: int(path.name.rpartition("-")[2]))


def best_checkpoint(folder: str | Path) -> Path:
    """Where the checkpoint with the lowest validation loss stands, if there is one."""
    return Path(folder).with_name(Path(folder).name + "-best")


def find_checkpoint(folder: str | Path) -> Path | None:
    """The whole checkpoint under this name, if there is one; puts back what a crash left aside.

    Of several ranks rank 0 looks; all must call it, and see the same files.

    Raises:
        ValueError: a file is missing, damaged or changed; nothing is removed.
        OtherRankFailed: likewise, on the other ranks.
    """
    with distributed.together():
        if distributed.is_main():
            _find_checkpoint(Path(folder))
    return Path(folder) if Path(folder).exists() else None


def _find_checkpoint(folder: Path) -> None:
    """Puts back what a crash left aside, and checks what is there."""
    old = folder.with_name(folder.name + ".old")
    if not folder.exists() and old.exists():
        old.rename(folder)
    if not folder.exists():
        return
    try:
        check_files(folder)
    except ValueError as error:
        others = [path for path in [*reversed(kept_checkpoints(folder)), best_checkpoint(folder)] if path.exists()]
        advice = f"to go on from {others[0]}, give it this name" if others else "without it the stage starts again"
        raise ValueError(f"{error}; move {folder} away: {advice}") from None


def check_files(folder: str | Path) -> None:
    """Compares every file of a checkpoint, its README.md apart, with the SHA-256 written down beside it.

    Raises:
        ValueError: names the first file that is missing or differs.
    """
    folder = Path(folder)
    for name, wanted in _read_json(folder / "state" / "checksums.json").items():
        if not (folder / name).is_file():
            raise ValueError(f"checkpoint: {folder / name} does not exist")
        if _sha256(folder / name) != wanted:
            raise ValueError(f"checkpoint: {folder / name} is not what was written: its SHA-256 differs")


def restore(folder: str | Path, model: Decoder, optimizer: Optimizer | None = None) -> dict[str, Any]:
    """Puts a checkpoint's weights into `model` and, of a stage that goes on, its state into `optimizer` if given.

    Returns:
        The progress that was saved.
    Raises:
        ValueError: the checkpoint is of a model of another shape.
    """
    progress, found = load_progress(folder), load_model(folder, model.embedding.weight.dtype)
    for field in fields(ModelConfig):
        want, got = getattr(model.config, field.name), getattr(found.config, field.name)
        if want != got:
            raise ValueError(f"checkpoint: {folder} is of a model with {field.name} = {got}, this one has {want}")
    model.load_state_dict(found.state_dict())
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


def _flush(path: Path) -> None:
    """Asks the system to put a file or folder on disk, so that a rename behind it never overtakes its content."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
