"""`fr.evaluate` and `fr.find_edge`: evaluate any kind of model on a mixture and return result objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..model.decoder import Decoder
from ..model.precision import Precision
from ..runtime.arguments import choice, instance, integer, listed, path
from ..runtime.distributed import Device
from ..runtime.json_files import shown
from ..tasks.mixture import Mixture
from ..text.tokenizer import Tokenizer
from . import find_edge as edge
from .evaluate import EvaluateSettings, evaluate_sampler, own_folder
from .load_sampler import DEVICES, ENGINES, Engine, load_sampler
from .sample_files import model_identity
from .samplers import RolloutSampler, Sampler, Sampling
from .scores import Edge, Scores
from .seen_unseen import sets_of

Model = Decoder | str | Path | Sampler
"""Our decoder, a Hugging Face folder, or any `Sampler`."""


def evaluate(
    model: Model,
    mixture: Mixture | str,
    *,
    tokenizer: Tokenizer | None = None,
    problems: int = 100,
    samples: int = 32,
    k: Sequence[int] | None = None,
    temperature: float = 0.7,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    max_new_tokens: int = 256,
    precision: Precision = "auto",
    kv_memory_mb: float | None = None,
    ranges: Mapping[str, Mapping[str, float]] | None = None,
    traces: int = 3,
    seed: int = 0,
    engine: Engine = "auto",
    device: Device = "auto",
    out: str | Path | None = None,
    seen: np.ndarray | Mapping[str, np.ndarray] | None = None,
) -> Scores:
    """Process-verified pass@k of a model, on problems of split `test`.

        pass@k = mean over problems of 1 - C(n - c, k) / C(n, k),   c of the n samples pass

    Args:
        model: a `Decoder`, or the Hugging Face folder of any causal language model.
        mixture: each of its ops gets `problems` problems, with themes and modes drawn by weight; or the name of one of
            `available_mixtures()`.
        tokenizer: for a `Decoder`; a folder has its own.
        problems: number per op.
        samples: number per problem, n.
        k: compute pass@k for 1 and these k, at most `samples`; default: powers of 2, and `samples`.
        temperature, top_k, top_p, min_p, max_new_tokens: of sampling, see `Rollout.generate`.
        precision: of our decoder: "float32", "bfloat16", or "auto" for bfloat16 on a GPU.
        kv_memory_mb: of our decoder: memory for keys and values, see `Rollout`.
        ranges: weighted means over ops by name, such as {"edge": {"11-14": 1.0}}.
        traces: number of samples per op to keep with the status of their steps.
        seed: of the sampling; the problems are the same for every seed.
        engine: for a folder: "fastreason", "transformers", or "auto" for our decoder if it supports the model.
        device: for a folder: "cpu", "cuda", or "auto" for a GPU if there is one.
        out: a folder for results.json and the verdict of every sample as Parquet (needs pyarrow); a later call with the
            same model and settings continues from it. One process at a time.
        seen: hashes of the nameless graphs that the model was trained on, uint64 [N] from `TaskStream.graph_hashes`, or
            several such sets by name; `scores.graphs` then separates problems with these graphs from the others.
    Returns:
        Scores, which print as a table; `scores.verified[6].at(8)` is pass@8 at op 6 with its interval.
    Raises:
        ValueError: a setting is out of range, the model cannot be read, its tokenizer does not know all words, or `out`
            holds something else or is in use by another process.
        KeyboardInterrupt: Ctrl-C; the samples of finished problems are in `out`.
    Source:
        Chen et al. 2021, arXiv:2107.03374, equation 1.
    """
    seed = integer("evaluate: seed", seed, 0)
    samples = integer("evaluate: samples", samples, 1)
    settings = EvaluateSettings(
        mixture=_mixture("evaluate", mixture).to_parts(),
        problems=problems,
        samples=samples,
        k=listed("evaluate: k", k)
        if k is not None
        else sorted({*(2**i for i in range(samples.bit_length())), samples}),
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        max_new_tokens=max_new_tokens,
        precision=precision,
        kv_memory_mb=kv_memory_mb,
        traces=traces,
        ranges={} if ranges is None else _ranges(ranges),
    )
    sets, out = sets_of(seen), None if out is None else path("evaluate: out", out)
    sampler = _sampler("evaluate", model, tokenizer, settings.sampling, engine, device)
    if out is None:
        return Scores(evaluate_sampler(sampler, settings, seed=seed, seen=sets))
    identity = model_identity(model) if isinstance(model, str | Path) else {}
    with own_folder(out, settings, seed, resume=True, model=identity) as folder:
        result = evaluate_sampler(sampler, settings, seed=seed, folder=folder, seen=sets)
        folder.finish(result)
    return Scores(result)


def find_edge(
    model: Model,
    mixture: Mixture | str,
    *,
    tokenizer: Tokenizer | None = None,
    samples: int = 32,
    mastered: float = 0.8,
    reach: float = 0.1,
    confidence: float = 0.95,
    first: int = 16,
    problems: int = 256,
    budget: int = 0,
    temperature: float = 0.7,
    max_new_tokens: int = 256,
    seed: int = 0,
    engine: Engine = "auto",
    device: Device = "auto",
) -> Edge:
    """Labels every cell of a mixture as mastered, edge or out of reach, on split `val`.

    Undecided cells get more problems until their bounds leave only one label, or problems or budget run out.

    Args:
        model, tokenizer, engine, device: as for `evaluate`.
        mixture: the cells to label; weights are ignored.
        samples: number per problem, the k of pass@k.
        mastered: pass@1 above which a cell is mastered.
        reach: pass@k below which a cell is out of reach.
        confidence: minimum probability that a final label is right.
        first: problems per cell at first; each further look doubles their number.
        problems: maximum number of problems per cell.
        budget: maximum number of samples over all cells, at least those of the first look; 0: no limit.
        temperature, max_new_tokens, seed: of sampling.
    Returns:
        Edge, which prints as a table: `cells` with estimates and labels, and `mixture`, the cells at the edge.
    Raises:
        ValueError: a setting is out of range, or the model cannot be sampled on these problems.
    """
    seed, mix = integer("find_edge: seed", seed, 0), _mixture("find_edge", mixture)
    settings = edge.EdgeSettings(samples, mastered, reach, confidence, first, problems, budget)
    sampling = Sampling(temperature=temperature, max_new_tokens=max_new_tokens)
    sampler = _sampler("find_edge", model, tokenizer, sampling, engine, device)
    return Edge(edge.find_edge(sampler, mix, settings, seed=seed), samples)


def _mixture(name: str, mixture: Any) -> Mixture:
    return Mixture.preset(mixture) if isinstance(mixture, str) else instance(f"{name}: mixture", mixture, Mixture)


def _ranges(ranges: Any) -> dict[str, dict[str, float]]:
    try:
        return {name: dict(parts) for name, parts in ranges.items()}
    except (AttributeError, TypeError, ValueError):
        allowed = 'a dict of dicts, such as {"edge": {"11-14": 1.0}}'
        raise ValueError(f"evaluate: ranges must be {allowed}, got {shown(ranges)}") from None


def _sampler(
    name: str, model: Any, tokenizer: Tokenizer | None, sampling: Sampling, engine: Engine, device: Device
) -> Sampler:
    choice(f"{name}: engine", engine, ENGINES)
    choice(f"{name}: device", device, DEVICES)
    if isinstance(model, str | Path):
        if tokenizer is not None:
            raise ValueError(f"{name}: tokenizer is for a Decoder only; the folder {str(model)!r} has its own")
        return load_sampler(model, sampling, engine, device)
    if isinstance(model, Decoder):
        if tokenizer is None:
            raise ValueError(f"{name}: a Decoder needs the tokenizer argument")
        return RolloutSampler(model, tokenizer, sampling)
    if not (hasattr(model, "sample") and hasattr(model, "check")):
        raise ValueError(f"{name}: model must be a Decoder or a Hugging Face folder, got {type(model).__name__}")
    return model
