"""One token of every row of logits, and its log-probability: temperature, top-k, top-p, min-p and the draw itself.

    z[v] = logits[v] / T,   p[v] = exp(z[v]) / sum exp(z),   kept: what the filters leave
    token = first v with sum_{u <= v, kept} p[u] > uniform(seed, prompt, sample, position) * sum_kept p

Filters in this order, as transformers and vLLM have it: top-k keeps the k most probable tokens; top-p the fewest most
probable of those that hold at least top_p of their mass; min-p those with p >= min_p max p. Of equally probable tokens
the lower id comes first. 0, 1 and 0 switch them off.

Letters:    N rows, V vocabulary, B tiles of TILE tokens that a row is cut into, the last one filled up with nothing.
Numerics:   z in float32. Weights are exp(z - max) in units of 2^-40, rounded to integers: their sums are exact, so no
            order of summation, number of threads or machine changes a token. exp is of additions and multiplications
            that IEEE 754 defines to the bit, the same here, in csrc/sample on CPU and in csrc/cuda. Without filters
            the maximum is each tile's own, and the mass of a tile is then scaled to the row's, so that one pass over a
            row is enough.
            Tokens below 2^-41 of the most probable one are never drawn; a draw has 24 bits in any case.
Traffic:    reads N*V logits once, and of the drawn token's tile a second time.
"""

from __future__ import annotations

import functools
import logging
import math
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fastreason import _core
from fastreason.runtime import cuda
from fastreason.runtime.arguments import INT64_MAX, UINT64_MAX, integer, integers, number

__all__ = ["sample", "sample_ref", "sampling_settings", "uniform_ref"]

LEAST_TEMPERATURE = 1e-6
TILE = 512
_UNIT = 2.0**-40
# LogitType of csrc/cuda/sampler.h
_TYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}
_LARGEST = torch.finfo(torch.float32).max


def sample_ref(
    logits_NV: Tensor,
    uniform_N: Tensor,
    *,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """The definition, bit for bit what csrc/sample computes; `uniform_N` is float32 in (0, 1).

    Where the logits of a row hold NaN or infinity, or nothing above -infinity, the token is -1 and both
    log-probabilities are NaN.
    """
    z_NV = logits_NV.float() * (1.0 / temperature if temperature else 1.0)
    z_NV = torch.where(z_NV <= _LARGEST, z_NV, torch.inf)
    max_N = z_NV.amax(1)
    good_N = max_N.isfinite()
    z_NV = torch.where(good_N[:, None], z_NV, 0.0)  # any row will do where there is none
    max_N = z_NV.amax(1)
    mass_NB, tile_mass_NB, scale_NB = _tile_masses(z_NV, max_N)
    mass_N = mass_NB.sum(1)
    if temperature == 0:
        token_N, kept_mass_N = z_NV.argmax(1), None
    elif top_k or top_p < 1 or min_p > 0:
        weights_NV = _filtered(z_NV, max_N, top_k, top_p, min_p)
        kept_mass_N = weights_NV.sum(1)
        token_N, _ = _first_above(weights_NV, _target(uniform_N, kept_mass_N))
    else:
        token_N, kept_mass_N = _draw_by_tile(z_NV, uniform_N, mass_NB, tile_mass_NB, scale_NB), mass_N
    chosen_N = (z_NV.gather(1, token_N[:, None]).squeeze(1) - max_N).double()
    full_N = chosen_N - (mass_N.double() * _UNIT).log()
    sampled_N = torch.zeros_like(full_N) if kept_mass_N is None else chosen_N - (kept_mass_N.double() * _UNIT).log()
    return (
        torch.where(good_N, token_N, -1),
        torch.where(good_N, sampled_N, torch.nan).float(),
        torch.where(good_N, full_N, torch.nan).float(),
    )


def uniform_ref(seed: int, prompts_N: Tensor, samples_N: Tensor, positions_N: Tensor) -> Tensor:
    """float32 [N] in (0, 1), bit for bit `_core.uniform`, on the device of the int64 keys.

    Philox4x32-10: Salmon et al. 2011. A product of two words overflows int64, but keeps the bits of one without sign.
    """
    word = 2**32 - 1
    counter = [positions_N & word, samples_N & word, prompts_N & word, (prompts_N >> 32) & word]
    key = [seed & word, seed >> 32]
    for _ in range(10):
        even, odd = counter[0] * 0xD2511F53, counter[2] * 0xCD9E8D57
        first, third = (odd >> 32) & word ^ counter[1] ^ key[0], (even >> 32) & word ^ counter[3] ^ key[1]
        counter = [first, odd & word, third, even & word]
        key = [(key[0] + 0x9E3779B9) & word, (key[1] + 0xBB67AE85) & word]
    # the half is rounded away above 1/2, upwards from the last value
    return (((counter[0] >> 8).float() + 0.5) * 2.0**-24).clamp(max=1.0 - 2.0**-24)


def _exp(x: Tensor) -> Tensor:
    """exp of float32 x <= 0, relative error below 2e-7; what is below -87 counts as -87."""
    x = x.clamp(min=-87.0)
    k = torch.round(x * 1.44269504)
    # k times the first part of ln 2 is exact
    r = (x - k * 0.693138123) - k * 9.05800061e-06
    sum_ = torch.full_like(r, 1.0 / 5040)
    for inverse_factorial in (1.0 / 720, 1.0 / 120, 1.0 / 24, 1.0 / 6, 1.0 / 2, 1.0, 1.0):
        sum_ = sum_ * r + inverse_factorial
    return sum_ * ((k.int() + 127) << 23).view(torch.float32)


def _weights(x: Tensor) -> Tensor:
    """exp(x) for x <= 0 in units of 2^-40, int64."""
    return torch.round(_exp(x).double() / _UNIT).long()


def _tiles(z_NV: Tensor) -> Tensor:
    padded = F.pad(z_NV, (0, -z_NV.shape[1] % TILE), value=-torch.inf)
    return padded.unflatten(1, (-1, TILE))


def _tile_masses(z_NV: Tensor, max_N: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mass of each tile relative to the row's maximum and to its own, and exp of the difference, all [N, B]."""
    z_NBT = _tiles(z_NV)
    tile_max_NB = z_NBT.amax(2)
    tile_max_NB = torch.where(tile_max_NB > -torch.inf, tile_max_NB, max_N[:, None])
    tile_mass_NB = _weights(z_NBT - tile_max_NB[:, :, None]).sum(2)
    scale_NB = _exp(tile_max_NB - max_N[:, None]).double()
    return torch.round(tile_mass_NB.double() * scale_NB).long(), tile_mass_NB, scale_NB


def _draw_by_tile(z_NV: Tensor, uniform_N: Tensor, mass_NB: Tensor, tile_mass_NB: Tensor, scale_NB: Tensor) -> Tensor:
    """The tile that the draw falls into, then the token in it."""
    tile_N, rest_N = _first_above(mass_NB, _target(uniform_N, mass_NB.sum(1)))
    at = tile_N[:, None]
    own_mass_N, own_scale_N = tile_mass_NB.gather(1, at).squeeze(1), scale_NB.gather(1, at).squeeze(1)
    own_target_N = torch.minimum((rest_N.double() / own_scale_N).floor().long(), own_mass_N - 1)
    z_NT = _tiles(z_NV)[torch.arange(len(z_NV), device=z_NV.device), tile_N]
    within_N, _ = _first_above(_weights(z_NT - z_NT.amax(1, keepdim=True)), own_target_N)
    return tile_N * TILE + within_N


def _filtered(z_NV: Tensor, max_N: Tensor, top_k: int, top_p: float, min_p: float) -> Tensor:
    """Weights relative to the row's maximum, 0 for what the filters take away."""
    x_NV = z_NV - max_N[:, None]
    order_NV = z_NV.sort(dim=1, descending=True, stable=True).indices  # stable: ties by token id
    weights_NV = _weights(x_NV).gather(1, order_NV)
    if top_k:
        weights_NV[:, top_k:] = 0
    if top_p < 1:
        mass_N = weights_NV.sum(1)
        needed_N = torch.minimum((mass_N.double() * top_p).ceil().long(), mass_N)
        weights_NV = torch.where(weights_NV.cumsum(1) - weights_NV < needed_N[:, None], weights_NV, 0)
    if min_p > 0:
        weights_NV = torch.where(x_NV.gather(1, order_NV) >= math.log(min_p), weights_NV, 0)
    return torch.zeros_like(weights_NV).scatter(1, order_NV, weights_NV)


def _target(uniform_N: Tensor, mass_N: Tensor) -> Tensor:
    """floor(uniform * mass), exactly: the uniform number is a multiple of 2^-25."""
    numerator = (uniform_N.double() * 2.0**25).long()
    high, low = mass_N >> 25, mass_N & (2**25 - 1)
    return numerator * high + (numerator * low >> 25)


def _first_above(weights: Tensor, target_N: Tensor) -> tuple[Tensor, Tensor]:
    """First index whose inclusive sum exceeds the target, and what of the target lies inside it."""
    cumulative = weights.cumsum(1)
    index_N = torch.searchsorted(cumulative, target_N[:, None], right=True)
    before_N = (cumulative - weights).gather(1, index_N)
    return index_N.squeeze(1), target_N - before_N.squeeze(1)


def sample(
    logits_NV: Tensor,
    *,
    seed: int,
    prompts_N: Any,
    samples_N: Any,
    positions_N: Any,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Draws one token a row. What is drawn depends on the row and (seed, prompt, sample, position) alone.

    Args:
        logits_NV: floating point [N, V].
        seed: of all draws, 0 <= seed < 2^64.
        prompts_N, samples_N, positions_N: int64 arrays or tensors [N]; with the seed they are the key and counter of
            Philox4x32-10 (`_core.uniform`).
        temperature: 0 takes the most likely token, else at least 1e-6.
        top_k, top_p, min_p: filters; 0, 1.0 and 0.0 switch them off.
    Returns:
        tokens int64 [N]; log-probabilities float32 [N] under the distribution that was sampled, filters included (0 at
        temperature 0); log-probabilities float32 [N] under softmax(logits / temperature), which training uses as old
        ones (softmax(logits) at temperature 0).
    Raises:
        ValueError: shapes or settings do not fit; on CPU also where a row of logits holds NaN or infinity, or nothing
            above -infinity. On CUDA such a row gets token -1 and NaN.
    Source:
        Philox: Salmon et al. 2011. top-p: Holtzman et al. 2020, arXiv:1904.09751. min-p: Nguyen et al. 2024,
        arXiv:2407.01082.

    >>> logits = torch.tensor([[0.0, 5.0, 1.0]])
    >>> sample(logits, seed=0, prompts_N=[0], samples_N=[0], positions_N=[0], top_k=1)
    (tensor([1]), tensor([0.]), tensor([-0.0247]))
    """
    _check_logits(logits_NV)
    filters = sampling_settings(seed=seed, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    seed = filters.pop("seed")
    keys = [
        _as_key(logits_NV, name, x)
        for name, x in (("prompts_N", prompts_N), ("samples_N", samples_N), ("positions_N", positions_N))
    ]
    if not logits_NV.is_cuda:
        return _sample_on_cpu(logits_NV, seed, keys, **filters)
    module = _cuda_module() if logits_NV.shape[1] <= 2**18 else None
    if module is not None and torch.cuda.get_device_capability(logits_NV.device) >= (8, 0):
        with torch.cuda.device(logits_NV.device):
            stream = torch.cuda.current_stream().cuda_stream
            return _launch(module, logits_NV.detach(), seed, keys, stream, **filters)
    uniform_N = uniform_ref(seed, *(key.to(logits_NV.device, non_blocking=True) for key in keys))
    return sample_ref(logits_NV, uniform_N, **filters)


def sampling_settings(
    what: str = "sample",
    *,
    seed: int,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
) -> dict[str, Any]:
    """These arguments as `sample` takes them, for whoever wants to know before there are logits.

    Raises:
        ValueError: one is out of range, or no number; it begins with `what`.
    """
    temperature = number(f"{what}: temperature", temperature, 0)
    if 0 < temperature < LEAST_TEMPERATURE:
        raise ValueError(f"{what}: temperature must be 0 or at least {LEAST_TEMPERATURE:g}, got {temperature}")
    return {
        "seed": integer(f"{what}: seed", seed, 0, UINT64_MAX),
        "temperature": temperature,
        "top_k": min(integer(f"{what}: top_k", top_k, 0), 2**31 - 1),
        "top_p": number(f"{what}: top_p", top_p, 0, 1, above_low=True),
        "min_p": number(f"{what}: min_p", min_p, 0, 1),
    }


@functools.cache
def _cuda_module() -> ModuleType | None:
    reason = cuda.why_unavailable()
    if reason is None:
        return cuda.require()
    logging.getLogger("fastreason").warning("sampling runs in torch: fastreason.cuda is not available: %s", reason)
    return None


def _launch(
    module: Any, logits: Tensor, seed: int, keys: list[Tensor], stream: int, **filters: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """The kernel of csrc/cuda on the stream; under a CUDA graph with keys that are on the device already."""
    if logits.dtype not in _TYPES:
        logits = logits.float()
    if logits.stride(1) != 1:
        logits = logits.contiguous()
    keys = [key.to(logits.device, non_blocking=True).contiguous() for key in keys]
    N, V = logits.shape
    tokens = torch.empty(N, dtype=torch.int64, device=logits.device)
    logprobs, full_logprobs = torch.empty(2, N, dtype=torch.float32, device=logits.device)
    module.sample(
        device=logits.device.index or 0,
        stream=stream,
        logits=logits.data_ptr(),
        type=_TYPES[logits.dtype],
        num_rows=N,
        V=V,
        stride=logits.stride(0),
        seed=seed,
        **{name: key.data_ptr() for name, key in zip(("prompts", "samples", "positions"), keys, strict=True)},
        tokens=tokens.data_ptr(),
        logprobs=logprobs.data_ptr(),
        full_logprobs=full_logprobs.data_ptr(),
        **filters,
    )
    return tokens, logprobs, full_logprobs


def _sample_on_cpu(logits: Tensor, seed: int, keys: list[Tensor], **filters: Any) -> tuple[Tensor, Tensor, Tensor]:
    logits = logits.detach().float()
    if logits.stride(1) != 1:
        logits = logits.contiguous()
    arrays = (key.numpy() for key in keys)
    found = _core.sample(logits.numpy(), seed, *arrays, **filters, threads=torch.get_num_threads())
    tokens, logprobs, full_logprobs = (torch.from_numpy(x) for x in found)
    if (tokens < 0).any():
        row = int((tokens < 0).nonzero()[0])
        raise ValueError(f"sample: row {row} of the logits holds NaN or infinity, or nothing above -infinity")
    return tokens, logprobs, full_logprobs


def _as_key(logits: Tensor, name: str, x: Any) -> Tensor:
    key = x if isinstance(x, Tensor) else torch.from_numpy(integers(f"sample: {name}", x, -INT64_MAX))
    if key.dtype != torch.int64 or key.shape != logits.shape[:1]:
        raise ValueError(
            f"sample: {name} must be int64 [N] = [{logits.shape[0]}], got {key.dtype} {list(key.shape)}"
        )  # fmt: skip
    return key


def _check_logits(logits: Tensor) -> None:
    if logits.ndim != 2 or logits.shape[1] < 1 or not logits.is_floating_point():
        raise ValueError(
            f"sample: logits must be floating point [N, V] with V >= 1, got {logits.dtype} {list(logits.shape)}"
        )
