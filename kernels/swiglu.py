"""SwiGLU: the gated activation of the feed-forward block.

    y = silu(gate) * up,   silu(x) = x / (1 + exp(-x))

Source: Shazeer 2020, arXiv:2002.05202.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

__all__ = ["swiglu"]


def swiglu(gate_up: Tensor) -> Tensor:
    """[..., 2 F], gate first and up behind it -> [..., F], same dtype."""
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate) * up
