"""The sampler for a model folder: our decoder if it supports the model, otherwise transformers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

import torch

from ..model.decoder import Decoder
from ..model.hugging_face import WeightsMismatch
from ..runtime.distributed import Device
from ..runtime.model_names import model_folder, shipped_models
from ..text.tokenizer import Tokenizer
from .samplers import RolloutSampler, Sampler, Sampling

Engine = Literal["auto", "fastreason", "transformers"]
ENGINES: tuple[Engine, ...] = ("auto", "fastreason", "transformers")
DEVICES: tuple[Device, ...] = ("auto", "cpu", "cuda")


def load_sampler(folder: str | Path, sampling: Sampling, engine: Engine = "auto", device: Device = "auto") -> Sampler:
    """Reads a Hugging Face folder.

    Args:
        folder: with config.json, weights and a tokenizer; or a name, as for `Decoder.from_pretrained`.
        sampling: of the samples.
        engine: "fastreason" is our decoder, "transformers" needs that package; "auto" uses our decoder if it supports
            the model, otherwise transformers, with a message on stderr.
        device: "cpu", "cuda", or "auto" for a GPU if there is one.
    Raises:
        ValueError: the folder does not exist or cannot be read, or there is no GPU for device "cuda".
        ModuleNotFoundError: transformers is needed and not installed.
    """
    folder = model_folder(folder)
    if engine not in ENGINES:
        raise ValueError(f"engine must be one of {', '.join(ENGINES)}, got {engine!r}")
    if device not in DEVICES or (device == "cuda" and not torch.cuda.is_available()):
        raise ValueError(f"device must be one of {', '.join(DEVICES)}, cuda only with a GPU, got {device!r}")
    place = "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"
    if not (folder / "config.json").is_file():
        raise ValueError(
            f"no model folder {str(folder)!r}: it has no config.json, and is none of those that ship "
            f"({', '.join(shipped_models())})"
        )
    why = ""
    if engine != "transformers":
        try:
            model = Decoder.from_pretrained(folder).to(place)
            return RolloutSampler(model, Tokenizer.from_pretrained(folder), sampling)
        except ValueError as error:
            if engine == "fastreason" or isinstance(error, WeightsMismatch):
                raise
            why = str(error)
            print(f"{folder}: loaded by transformers, because our decoder does not support it: {why}", file=sys.stderr)
    if sampling.precision != "auto":
        raise ValueError(f"precision has no effect with transformers; leave it at 'auto', got {sampling.precision!r}")
    if sampling.kv_memory_mb is not None:
        raise ValueError(f"kv_memory_mb has no effect with transformers; leave it out, got {sampling.kv_memory_mb}")
    from .transformers_sampler import TransformersSampler

    try:
        return TransformersSampler(folder, sampling, place)
    except ValueError as error:
        raise ValueError(f"{error}; nor does our decoder support it: {why}" if why else str(error)) from error
