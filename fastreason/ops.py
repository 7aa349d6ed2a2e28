"""The operations that the model and the training stages call; nothing else in fastreason asks for the device.

Each runs its Triton kernel on CUDA where one exists, else its torch definition. Both give the same numbers within the
tolerances of tests/kernels.
"""

from __future__ import annotations

from .kernels import (
    attention,
    cross_entropy,
    decode_attention,
    group_advantages,
    linear,
    policy_loss,
    rms_norm,
    rope,
    rope_angles,
    sample,
    swiglu,
    token_weights,
)

__all__ = [
    "attention",
    "cross_entropy",
    "decode_attention",
    "group_advantages",
    "linear",
    "policy_loss",
    "rms_norm",
    "rope",
    "rope_angles",
    "sample",
    "swiglu",
    "token_weights",
]
