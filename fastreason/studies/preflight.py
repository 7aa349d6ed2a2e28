"""Checks before the first step of a run or study, so that nothing fails late that could fail immediately.

Every optimizer, stream, reward, prompt source and sampler is built once, the packages of trackers and writers are
looked up, and the lengths of prompts and documents are compared with the model's positions and the rows of a step.
Lengths are those of the problems that a stage will draw, up to MOST per mixture; beyond that, and for adaptive
curricula, they are a sample.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ..evaluation.evaluate import EvaluateSettings, streams_of
from ..evaluation.sample_files import require_pyarrow
from ..evaluation.samplers import RolloutSampler
from ..model.decoder import Decoder
from ..rl.loop import PolicySettings, stage_reward
from ..rl.prompts import stage_prompts
from ..runtime import distributed
from ..runtime.trackers import require_tracker
from ..tasks.mixture import Mixture
from ..tasks.stream import TaskStream
from ..text.tokenizer import Tokenizer
from ..training.optimizer import Optimizer
from ..training.row_batches import check_rows
from ..training.supervised_settings import SupervisedSettings
from .recipe import Recipe

MOST = 16_384
"""Number of problems per mixture whose lengths are checked."""
_BLOCK = 1024


def preflight(variants: Mapping[str, Recipe], seeds: Sequence[int]) -> None:
    """Checks the runs of all variants with all seeds.

    Raises:
        ValueError: something would fail later; the message names the stage and setting.
        ModuleNotFoundError: a package is not installed that would be needed later.
    """
    tokenizer = Tokenizer.for_mixtures([mixture for recipe in variants.values() for mixture in recipe.mixtures()])
    seen: list[Any] = []  # settings contain lists, so they are not hashable
    for recipe in variants.values():
        distributed.chosen_device(recipe.device)
        for tracker in recipe.metrics:
            require_tracker(tracker)
        config = recipe.model.config(len(tokenizer))
        with torch.device("meta"):  # needs no memory, however large the model
            model = Decoder(config)
        for stage in (*recipe.stages, "evaluate"):
            settings = getattr(recipe, stage)
            if (stage, settings, config) not in seen:
                seen.append((stage, settings, config))
                _check_stage(stage, settings, model, tokenizer, seeds)


def _check_stage(stage: str, settings: Any, model: Decoder, tokenizer: Tokenizer, seeds: Sequence[int]) -> None:
    try:
        if isinstance(settings, EvaluateSettings):
            _check_evaluation(settings, model, tokenizer)
            return
        Optimizer(model, settings.optim)
        for seed in seeds:
            if isinstance(settings, PolicySettings):
                _check_policy(settings, model, tokenizer, seed)
            else:
                _check_supervised(stage, settings, model, tokenizer, seed)
    except (ValueError, OverflowError) as error:
        text = str(error)
        raise ValueError(text if text.startswith((f"{stage}:", f"{stage}.")) else f"{stage}: {text}") from error


def _check_evaluation(settings: EvaluateSettings, model: Decoder, tokenizer: Tokenizer) -> None:
    if settings.files:
        require_pyarrow("evaluate: files = true")
    sampler = RolloutSampler(model, tokenizer, settings.sampling)
    for stream in streams_of(Mixture.from_dict(settings.mixture)).values():
        for first in range(0, settings.problems, _BLOCK):
            sampler.check(stream[first : min(first + _BLOCK, settings.problems)])


def _check_supervised(
    stage: str, settings: SupervisedSettings, model: Decoder, tokenizer: Tokenizer, seed: int
) -> None:
    rows = settings.rows or distributed.world_size()
    check_rows(rows, settings.rows, stage)
    length, positions = settings.batch_tokens // rows, model.config.max_position_embeddings
    share_before = 0.0
    streams = []
    for phase, mixture in zip(settings.phases, settings.mixtures, strict=True):
        share, share_before = phase.until - share_before, phase.until
        streams.append((TaskStream(mixture, seed=seed, split="train"), _documents(settings, share)))
    if settings.validate_every:
        validation = TaskStream(settings.mixtures[-1], seed=0, split="val")
        streams.append((validation, lambda documents, tokens: tokens >= settings.validation_tokens))
    for stream, is_enough in streams:
        for first, sizes, _ in _lengths(stream, tokenizer, is_enough):
            worst = int(sizes.argmax())
            what = f"problem {first + worst} of split {stream.split} has a document of {sizes[worst]} tokens"
            if sizes[worst] > length:
                raise ValueError(
                    f"{what}, but a row has only {length} (batch_tokens = {settings.batch_tokens} in {rows} rows)"
                )
            if sizes[worst] > positions:
                raise ValueError(
                    f"{what}, but the model has only {positions} positions (model.max_position_embeddings)"
                )


def _documents(settings: SupervisedSettings, share: float) -> Callable[[int, int], bool]:
    """Returns a test whether a phase draws at most so many documents and tokens."""
    limit = settings.limit

    def is_enough(documents: int, tokens: int) -> bool:
        used = {"tokens": tokens, "samples": documents}.get(limit.unit, 0)
        return used >= share * limit.amount

    return is_enough


def _check_policy(settings: PolicySettings, model: Decoder, tokenizer: Tokenizer, seed: int) -> None:
    stage_reward(settings)
    stage_prompts(settings, seed)
    mixture, positions = Mixture.from_dict(settings.mixture), model.config.max_position_embeddings
    if settings.curriculum != "fixed":  # it may end up drawing from a single cell
        mixture = Mixture(dict.fromkeys(mixture.weights, 1.0))
    most = MOST
    if settings.limit.unit == "samples":
        most = settings.parts.max_draws * max(1, int(settings.limit.amount // settings.samples)) + settings.prompts
    stream = TaskStream(mixture, seed=seed, split="rl")
    for first, _, prompts in _lengths(stream, tokenizer, lambda documents, _: documents >= most):
        worst = int(prompts.argmax())
        if prompts[worst] >= positions:
            cell = stream[first + worst].cells[0]
            raise ValueError(
                f"the prompt of problem {first + worst} (op {cell.op}, theme {cell.theme}, mode {cell.mode}, depth "
                f"{cell.depth}) has {prompts[worst]} tokens, but the model has only {positions} positions "
                "(model.max_position_embeddings); use smaller problems, as with max_sentences, or more positions"
            )


def _lengths(stream: TaskStream, tokenizer: Tokenizer, is_enough: Callable[[int, int], bool]) -> Any:
    """Yields (first problem, tokens of the documents, tokens of their prompts) by block, until `is_enough`."""
    documents, tokens = 0, 0
    while documents < MOST and not is_enough(documents, tokens):
        _, cu_seqlens, prompts = stream.encoded(documents, _BLOCK, tokenizer)
        sizes = np.diff(cu_seqlens)
        yield documents, sizes, prompts
        documents, tokens = documents + _BLOCK, tokens + int(sizes.sum())
