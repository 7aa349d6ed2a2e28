"""The precision of a computation: master weights stay float32, matrix products take bfloat16 where a setting says so.

bfloat16 keeps 8 bits of a number. Sums within a matrix product, norms, softmax, log-probabilities, losses, gradients of
the weights and the optimizer are float32 in every precision.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from .decoder import Decoder

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
