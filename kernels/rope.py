"""Rotary position embedding, half-split layout (as in Llama and Qwen2 of transformers).

    (a, b) = halves of x[t, h];   y = (a cos - b sin, b cos + a sin),   angle[t, i] = position[t] * theta ** (-2 i / D)

Letters:    T tokens, H heads, D head dim.
Numerics:   angles in float32 whatever the input; the rotation in the dtype of x.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["rope", "rope_angles"]


def rope_angles(positions_T: Tensor, head_dim: int, theta: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """What `rope` needs of the positions; computed once and used by every layer.

    Returns:
        [T, 1, D] (cos, cos) and (-sin, sin) of the angles, computed in float32 (float64 for float64), cast to `dtype`.
    """
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    exponent = torch.arange(0, head_dim, 2, dtype=wide, device=positions_T.device) / head_dim
    angles = positions_T.to(wide)[:, None, None] * theta**-exponent
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((cos, cos), dim=-1).to(dtype), torch.cat((-sin, sin), dim=-1).to(dtype)


def rope(x_THD: Tensor, cos_T1D: Tensor, sin_T1D: Tensor) -> Tensor:
    """x rotated by the angles of `rope_angles`: [T, H, D], same dtype. The gradient is the inverse rotation."""
    # a roll by half swaps the halves; on CPU it costs a seventh of joining the two rotated halves
    return x_THD * cos_T1D + x_THD.roll(x_THD.shape[-1] // 2, dims=-1) * sin_T1D
