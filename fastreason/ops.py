"""The one place that chooses how an operation runs: Triton on CUDA where a kernel exists, else its torch definition.

Nothing else in fastreason asks for the device. Both give the same numbers within the tolerances of tests/kernels.
"""

from __future__ import annotations

from .kernels import (
    attention,
    cross_entropy,
    decode_attention,
    group_advantages,
    policy_loss,
    rms_norm,
    rope,
    rope_angles,
    swiglu,
)

__all__ = [
    "attention",
    "cross_entropy",
    "decode_attention",
    "group_advantages",
    "policy_loss",
    "rms_norm",
    "rope",
    "rope_angles",
    "swiglu",
]
