"""The precision of a computation: master weights stay float32, matrix products take bfloat16 where a setting says so.

bfloat16 keeps 8 bits of a number. Sums within a matrix product, norms, softmax, log-probabilities, losses, gradients of
the weights and the optimizer are float32 in every precision.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor

from .decoder import Decoder, Linear

Precision = Literal["auto", "float32", "bfloat16"]


def product_dtype(precision: Precision, weight: Tensor) -> torch.dtype:
    """The dtype of matrix products with a weight; "auto" takes bfloat16 for float32 weights on a GPU.

    Only float32 weights have a choice; all others are multiplied as they are.
    """
    if weight.dtype != torch.float32:
        return weight.dtype
    narrow = precision == "bfloat16" or (precision == "auto" and weight.device.type not in ("cpu", "meta"))
    return torch.bfloat16 if narrow else torch.float32


def autocast(precision: Precision, weight: Tensor) -> torch.autocast:
    """A context in which a model with this weight is trained in a precision."""
    narrow = product_dtype(precision, weight) == torch.bfloat16 and weight.dtype == torch.float32
    return torch.autocast(weight.device.type, torch.bfloat16, enabled=narrow)


@contextmanager
def cast_once(model: Decoder, precision: Precision) -> Iterator[None]:
    """Within, the matrix products of a model in bfloat16 read copies of its weights that were made on entry.

    For the parts of one step, between which the weights do not change: torch.autocast alone casts every weight, and
    the gradient of every weight, once per part. Without effect where products are in the dtype of the weights, and for
    weights that FSDP shards, which are whole within their block alone.
    """
    weight = model.embedding.weight
    dtype = product_dtype(precision, weight)
    if dtype == weight.dtype or hasattr(weight, "full_tensor"):
        yield
        return
    layers = [module for module in model.modules() if isinstance(module, Linear)]
    masters = [model.head_weight, *(x for layer in layers for x in (layer.weight, layer.bias) if x is not None)]
    copies = {master: torch.empty_like(master, dtype=dtype, requires_grad=False) for master in masters}
    with torch.no_grad():
        torch._foreach_copy_(list(copies.values()), masters)
    model.narrow_head = copies[model.head_weight]
    for layer in layers:
        layer.narrow = copies[layer.weight], None if layer.bias is None else copies[layer.bias]
    try:
        yield
    finally:
        for module in (model, *layers):
            vars(module).pop("narrow_head" if module is model else "narrow")


class CopyInDtype:
    """A model whose weights are copied from another's into another dtype: no graph, no gradient, no optimizer state.

    Args:
        source: the model with the master weights.
        dtype: of the copy.
    """

    def __init__(self, source: Decoder, dtype: torch.dtype) -> None:
        self.source = source
        with torch.device("meta"):
            self.model = Decoder(source.config).to(dtype).requires_grad_(False)
        self.model.to_empty(device=source.embedding.weight.device)

    @torch.no_grad()
    def refresh(self) -> Decoder:
        """The copy, with the current weights of the source."""
        for own, master in zip(self.model.parameters(), self.source.parameters(), strict=True):
            own.copy_(master)
        return self.model
