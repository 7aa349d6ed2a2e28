"""Checks before the first step of a run or study, so that nothing fails late that could fail immediately.

Every optimizer, stream, reward, prompt source and sampler is built once, the packages of trackers and writers are
looked up, and the lengths of prompts and documents are compared with the model's positions, the rows of a step and the
memory for keys and values.

Lengths are exact: they are those of every problem that a stage may draw, however its rows are packed, up to MOST per
mixture. This costs some thousandths of the stage: drawing makes 17 to 40 million tokens/s per core. Where it is unknown
what a stage will draw (a limit in seconds, an adaptive curriculum), a SAMPLE is checked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from ..evaluation.evaluate import EvaluateSettings, streams_of
from ..evaluation.sample_files import require_pyarrow
from ..evaluation.samplers import RolloutSampler
from ..model.config import ModelConfig
from ..model.decoder import Decoder, load_model
from ..model.flop import block_weights
from ..rl.loop import PolicySettings, stage_reward
from ..rl.prompts import stage_prompts
from ..rl.self_settings import SelfSettings
from ..runtime import distributed
from ..runtime.model_names import model_folder
from ..runtime.trackers import require_tracker
from ..sampling.rollout import Rollout
from ..tasks.mixture import Mixture
from ..tasks.stream import TaskStream
from ..text.tokenizer import Tokenizer
from ..training.optimizer import Optimizer
from ..training.row_batches import check_rows
from ..training.supervised_settings import SupervisedSettings
from .recipe import Recipe
from .stages import NoSettings, Stage, seed_of_draw

MOST = 1 << 20
"""Number of problems per mixture whose lengths are checked."""
SAMPLE = 1 << 14
"""The same where the number of problems that a stage draws is unknown."""
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
        for stage in recipe.plan:
            if stage.start_from is not None and recipe.stage_before(stage) is None:
                _check_folder(stage, config, tokenizer)
        checks: list[tuple[str, Any, int]] = [(each.name, each.settings, recipe.draw_of(each)) for each in recipe.plan]
        for name, settings, draw in [*checks, ("evaluate", recipe.evaluate, 0)]:
            if (name, settings, draw, config) not in seen:
                seen.append((name, settings, draw, config))
                _check_stage(name, settings, model, tokenizer, [seed_of_draw(seed, draw) for seed in seeds])


def _check_folder(stage: Stage, config: ModelConfig, tokenizer: Tokenizer) -> None:
    """Checks that the model in a folder is one that the stage can begin from."""
    assert stage.start_from is not None
    what, folder = f"{stage.name}: start_from", model_folder(stage.start_from)
    if not (folder / "config.json").is_file():
        raise ValueError(f"{what} must be a stage above it or the folder of a model, got {stage.start_from!r}")
    if Tokenizer.from_pretrained(folder).words != tokenizer.words:
        raise ValueError(f"{what}: the model in {folder} has another vocabulary; list its themes in a mixture")
    found = load_model(folder).config
    for name, want in asdict(config).items():
        if getattr(found, name) != want:
            raise ValueError(f"{what}: the model in {folder} has {name} = {getattr(found, name)}, the recipe {want}")


def _check_stage(stage: str, settings: Any, model: Decoder, tokenizer: Tokenizer, seeds: Sequence[int]) -> None:
    if isinstance(settings, NoSettings):
        return
    try:
        if isinstance(settings, EvaluateSettings):
            _check_evaluation(settings, model, tokenizer)
            return
        Optimizer(model, settings.optim)
        for seed in seeds:
            if isinstance(settings, SelfSettings):
                _check_self(stage, settings, model, tokenizer, seed)
            elif isinstance(settings, PolicySettings):
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
    tokens = _most_tokens(settings, model)
    begin, streams = 0, []
    for share, mixture in zip(_shares(settings), settings.mixtures, strict=True):
        row_tokens = None if tokens is None else share * tokens / rows + settings.accumulate * length
        # of a limit in samples: no row has twice as many as another
        most = 2 * int(share * settings.limit.amount) if settings.limit.unit == "samples" else SAMPLE
        streams.append((TaskStream(mixture, seed=seed, split="train"), rows, row_tokens, most))
    if settings.validate_every:
        validation = TaskStream(settings.mixtures[-1], seed=0, split="val")
        streams.append((validation, 1, float(settings.validation_tokens), SAMPLE))
    for stream, in_rows, row_tokens, most in streams:
        if stream.split == "val":
            begin = 0
        for first, sizes in _documents(stream, tokenizer, begin, in_rows, row_tokens, most):
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
        begin = first + len(sizes)


def _shares(settings: SupervisedSettings) -> list[float]:
    """The share of each phase in the stage."""
    untils = [phase.until for phase in settings.phases]
    return [until - before for before, until in zip([0.0, *untils], untils, strict=False)]


def _most_tokens(settings: SupervisedSettings, model: Decoder) -> float | None:
    """Upper bound of the tokens a stage trains on, None if unbounded; a token costs at least the FLOP of the blocks."""
    limit = settings.limit
    if limit.unit == "flop":
        return limit.amount / (6.0 * block_weights(model.config))
    return limit.amount if limit.unit == "tokens" else None


def _documents(
    stream: TaskStream, tokenizer: Tokenizer, begin: int, rows: int, row_tokens: float | None, most: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Yields (first problem, tokens of the documents) by block, for all problems that any row may reach.

    Row r reads problems r, r + rows, ... and continues from there in the next phase. So no row passes the problem at
    which every row has `row_tokens` tokens since `begin`, the last problem that any row can start the phase with;
    without a number of tokens, `most` problems from there are checked.
    """
    found, first = np.zeros(rows), 0
    while first < MOST:
        _, cu_seqlens, _ = stream.encoded(first, _BLOCK, tokenizer)
        sizes = np.diff(cu_seqlens)
        yield first, sizes
        index = np.arange(first, first + _BLOCK)
        behind = index >= begin
        np.add.at(found, index[behind] % rows, sizes[behind])
        first += _BLOCK
        if first >= begin + most if row_tokens is None else found.min() >= row_tokens:
            return


def _check_policy(settings: PolicySettings, model: Decoder, tokenizer: Tokenizer, seed: int) -> None:
    stage_reward(settings)
    stage_prompts(settings, seed)
    mixture = Mixture.from_dict(settings.mixture)
    if settings.curriculum != "fixed":  # it may end up drawing from a single cell
        mixture = Mixture(dict.fromkeys(mixture.weights, 1.0))
    most = SAMPLE
    if settings.limit.unit == "samples" and settings.curriculum == "fixed":
        most = settings.parts.max_draws * max(1, int(settings.limit.amount // settings.samples)) + settings.prompts
    longest = _longest_prompt(TaskStream(mixture, seed=seed, split="rl"), most, model, tokenizer)
    engine = Rollout(model, tokenizer, kv_memory_mb=settings.kv_memory_mb)
    engine.check_memory(longest, settings.max_new_tokens, settings.samples)


def _check_self(stage: str, settings: SelfSettings, model: Decoder, tokenizer: Tokenizer, seed: int) -> None:
    settings.reward  # noqa: B018 - one that cannot be imported is an error here
    rows = settings.rows or distributed.world_size()
    check_rows(rows, settings.rows, stage)
    streams = [TaskStream(mixture, seed=seed, split="rl") for mixture in settings.mixtures]
    most = settings.rounds * settings.prompts
    longest = max(_longest_prompt(stream, most, model, tokenizer) for stream in streams)
    if longest >= settings.batch_tokens // rows:
        raise ValueError(
            f"a prompt has {longest} tokens, but a row has only {settings.batch_tokens // rows} "
            f"(batch_tokens = {settings.batch_tokens} in {rows} rows)"
        )
    engine = Rollout(model, tokenizer, kv_memory_mb=settings.kv_memory_mb)
    engine.check_memory(longest, settings.max_new_tokens, settings.samples)


def _longest_prompt(stream: TaskStream, most: int, model: Decoder, tokenizer: Tokenizer) -> int:
    """Tokens of the longest of the first `most` prompts.

    Raises:
        ValueError: it leaves no position for a sample.
    """
    longest, positions = 0, model.config.max_position_embeddings
    for first in range(0, min(most, MOST), _BLOCK):
        _, _, prompts = stream.encoded(first, _BLOCK, tokenizer)
        worst = int(prompts.argmax())
        if prompts[worst] >= positions:
            cell = stream[first + worst].cells[0]
            raise ValueError(
                f"the prompt of problem {first + worst} (op {cell.op}, theme {cell.theme}, mode {cell.mode}, depth "
                f"{cell.depth}) has {prompts[worst]} tokens, but the model has only {positions} positions "
                "(model.max_position_embeddings); use smaller problems, as with max_sentences, or more positions"
            )
        longest = max(longest, int(prompts[worst]))
    return longest
