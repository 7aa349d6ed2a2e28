"""The sampler of a model folder: ours where our decoder reads it, else that of transformers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

import torch

from ..model.decoder import Decoder
from ..model.hugging_face import WeightsMismatch
from ..runtime.distributed import Device
from ..text.tokenizer import Tokenizer
from .samplers import RolloutSampler, Sampler, Sampling

Engine = Literal["auto", "fastreason", "transformers"]
ENGINES: tuple[Engine, ...] = ("auto", "fastreason", "transformers")
DEVICES: tuple[Device, ...] = ("auto", "cpu", "cuda")


def load_sampler(folder: str | Path, sampling: Sampling, engine: Engine = "auto", device: Device = "auto") -> Sampler:
    """Reads a Hugging Face folder.

    Args:
        folder: with config.json, weights and a tokenizer.
        engine: "fastreason" is our decoder, "transformers" theirs, which needs that package; "auto" is ours where it
            can read the model, else theirs, and says so on stderr.
        device: "cpu", "cuda", or "auto" for a GPU where there is one.
    Raises:
        ValueError: no such folder, nothing that can be read, or no GPU where one is asked for.
        ModuleNotFoundError: transformers is needed and not installed.
    """
    folder = Path(folder)
    if engine not in ENGINES:
        raise ValueError(f"engine must be one of {', '.join(ENGINES)}, got {engine!r}")
    if device not in DEVICES or (device == "cuda" and not torch.cuda.is_available()):
        raise ValueError(f"device must be one of {', '.join(DEVICES)}, cuda only with a GPU, got {device!r}")
    place = "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"
    if not (folder / "config.json").is_file():
        raise ValueError(f"no model folder {str(folder)!r}: it has no config.json")
    why = ""
    if engine != "transformers":
        try:
            model = Decoder.from_pretrained(folder).to(place)
            return RolloutSampler(model, Tokenizer.from_pretrained(folder), sampling)
        except ValueError as error:
            if engine == "fastreason" or isinstance(error, WeightsMismatch):
                raise
            why = str(error)
            print(f"{folder}: read by transformers, since our decoder does not: {why}", file=sys.stderr)
    from .transformers_sampler import TransformersSampler

    try:
        return TransformersSampler(folder, sampling, place)
    except ValueError as error:
        raise ValueError(f"{error}; our decoder does not either: {why}" if why else str(error)) from error
