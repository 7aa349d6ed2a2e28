"""Shared by the losses: dividing a row of logits into tiles, sums over rows in a fixed order, and late scaling.

Letters:    N rows, V columns, K quantities a row.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .launch import launch
from .triton_support import cdiv, next_power_of_2, tl, triton

__all__ = [
    "LOWEST",
    "ONE_PASS_LIMIT",
    "alignment",
    "reduce_rows",
    "row_class",
    "row_tiles",
    "scalars",
    "scale_",
    "scaled",
    "take",
    "unit",
]

# a longer row does not fit into the registers of one program
ONE_PASS_LIMIT = 8192
# what stands for a maximum of -inf, where differences to it are taken: no other logit lies below
LOWEST = tl.constexpr(torch.finfo(torch.float32).min)


def row_tiles(width: int, num_warps: int, element_size: int) -> tuple[int, int]:
    """(body, tail): a power of two and what is left, rounded up to one, so that a row of 2,200 takes 2,304 lanes.

    A tail that is not empty gives every thread 16 bytes where the body does, because a narrower one would be loaded
    in narrower pieces.
    """
    body = 1 << (width.bit_length() - 1)
    if body == width:
        return body, 0
    full_threads = num_warps * 32 * 16 // element_size
    return body, min(body, max(next_power_of_2(width - body), full_threads))


def row_class(width: int) -> int:
    """The power of two p with 0.625 p < width <= 1.25 p: rows that launch.toml gives the same number of warps."""
    p = 1 << (width.bit_length() - 1)
    return p if 4 * width <= 5 * p else 2 * p


def alignment(*sizes: int) -> int:
    """The largest power of two up to 16 that divides every size.

    Triton finds out by itself only whether an argument is divisible by 16. Kernels get sizes in units of this constant
    and multiply it back, which tells the compiler that rows of 2,200 start at multiples of 8 elements, 16 bytes.
    """
    return math.gcd(16, *sizes)


def scalars(*values: float) -> Tensor:
    """float64 [number of values] on CPU: how operators take their settings.

    torch.compile makes a Python number that an operator takes a constant of its graph, and compiles again when it
    changes; the factor of a tensor it leaves variable.
    """
    if torch.compiler.is_compiling():
        one = torch.ones((), dtype=torch.float64)
        return torch.stack([one * value for value in values])
    return torch.tensor(values, dtype=torch.float64)


def take(config: dict[str, int], name: str) -> tuple[int, dict[str, int]]:
    """(config[name], the others), for a constant that a wrapper turns into those of its kernel."""
    return config[name], {key: value for key, value in config.items() if key != name}


@triton.jit(do_not_specialize=["N", "num_tiles"])
def _reduce_kernel(values_ptr, out_ptr, N, num_tiles, SUMS: tl.constexpr, K: tl.constexpr, TILE: tl.constexpr):
    tile = tl.program_id(0)
    n = tile * TILE + tl.arange(0, TILE)
    for k in tl.static_range(K):
        at = values_ptr + k * N.to(tl.int64) + n
        if k < SUMS:
            tl.store(out_ptr + k * num_tiles + tile, tl.sum(tl.load(at, mask=n < N, other=0.0), axis=0))
        else:
            tl.store(out_ptr + k * num_tiles + tile, tl.max(tl.load(at, mask=n < N, other=-float("inf")), axis=0))


def reduce_rows(values_KN: Tensor, num_sums: int) -> Tensor:
    """[K]: sums of the first `num_sums` lines and maxima of the others, the same bits every time.

    Every program reduces a tile of each line; the results are the lines of the next launch until one column is left.
    """

    def call(config: dict[str, int]) -> Tensor:
        x = values_KN
        while True:
            K, N = x.shape
            tiles = cdiv(N, config["TILE"])
            out = x.new_empty(K, tiles)
            _reduce_kernel[(tiles,)](x, out, N, tiles, SUMS=num_sums, K=K, **config)
            if tiles == 1:
                return out.view(K)
            x = out

    return launch("reduce_rows", values_KN, call)


@triton.jit(do_not_specialize=["size_units"])
def _scale_kernel(x_ptr, factor_ptr, size_units, ALIGN: tl.constexpr, BLOCK: tl.constexpr):
    factor = tl.load(factor_ptr)
    size = size_units.to(tl.int64) * ALIGN
    # the factor of loss.backward(); the program ends without having touched x
    if factor != 1.0:
        at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
        x = tl.load(x_ptr + at, mask=at < size, other=0.0).to(tl.float32)
        tl.store(x_ptr + at, (x * factor).to(x_ptr.dtype.element_ty), mask=at < size)


@torch.library.custom_op("fastreason::scale_", mutates_args={"x"})
def scale_(x: Tensor, factor: Tensor) -> None:
    """x *= factor, a scalar on the device of x; a factor of 1 neither reads nor writes x and needs no synchronisation.

    Args:
        x: contiguous, not empty.
    """
    align = alignment(x.shape[-1])

    def call(config: dict[str, int]) -> None:
        _scale_kernel[(cdiv(x.numel(), config["BLOCK"]),)](x, factor, x.numel() // align, ALIGN=align, **config)

    launch("scale", x, call, [x])


@scale_.register_fake
def _(x: Tensor, factor: Tensor) -> None:
    return None


_units: dict[tuple[torch.device, torch.dtype], Tensor] = {}


def unit(loss: Tensor) -> Tensor:
    """The 1 that `loss.backward()` begins with, the same tensor every time: `loss.backward(unit(loss))` neither fills a
    new one nor launches what scales the gradient that forward wrote."""
    kind = loss.device, loss.dtype
    if kind not in _units:
        _units[kind] = torch.ones((), dtype=loss.dtype, device=loss.device)
    return _units[kind]


def scaled(x: Tensor, factor: Tensor) -> Tensor:
    """x times factor for the backward of an operator whose forward already wrote the gradient x: in place by `scale_`,
    and without a launch where the factor is a `unit`.

    While a compiler traces, tensors are stand-ins; there it is a multiplication, because an operator that overwrites
    what forward saved would be turned into a copy.
    """
    if type(x) is not Tensor:
        return x * factor
    if _units.get((factor.device, factor.dtype)) is factor:
        # whoever gets x may overwrite it: a second backward is refused, as after scale_
        torch.autograd.graph.increment_version(x)
    else:
        scale_(x, factor)
    return x
