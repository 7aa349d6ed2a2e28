"""Cross entropy of one label per row.

    loss = - sum_n w[n] log softmax(logits[n])[label[n]] / sum_n w[n]

Letters: N rows, V vocabulary.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["cross_entropy"]


def cross_entropy(logits_NV: Tensor, labels_N: Tensor, weights_N: Tensor | None = None) -> Tensor:
    """The weighted mean loss, a scalar in float32 (float64 for float64 logits).

    Args:
        logits_NV: floating point.
        labels_N: int64 in [0, V).
        weights_N: floating point, at least one of them not 0; None: all 1.
    """
    wide = logits_NV.dtype if logits_NV.dtype == torch.float64 else torch.float32
    if weights_N is None:
        return F.cross_entropy(logits_NV.to(wide), labels_N)
    loss_N = F.cross_entropy(logits_NV.to(wide), labels_N, reduction="none")
    return (loss_N * weights_N).sum() / weights_N.sum()
