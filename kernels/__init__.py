"""Operations of the decoder and its losses, one per file: definition in torch, Triton kernels, checked wrapper."""

# In a checkout this folder can also be imported as `kernels`, a name that transformers tries. That copy stays empty,
# because registering every operator a second time would invalidate the operators of the first copy.
if __name__ == "fastreason.kernels":
    from .attention import attention
    from .cross_entropy import cross_entropy
    from .decode_attention import decode_attention
    from .group_advantages import group_advantages, token_weights
    from .linear import linear
    from .linear_loss import linear_cross_entropy, linear_policy_loss
    from .policy_loss import PolicyLoss, policy_loss
    from .rms_norm import add_rms_norm, rms_norm
    from .rope import rope, rope_angles
    from .rope_attention import rope_attention
    from .sample import sample, sampling_settings
    from .segments import Segments
    from .swiglu import swiglu

__all__ = [
    "PolicyLoss",
    "Segments",
    "add_rms_norm",
    "attention",
    "cross_entropy",
    "decode_attention",
    "group_advantages",
    "linear",
    "linear_cross_entropy",
    "linear_policy_loss",
    "policy_loss",
    "rms_norm",
    "rope",
    "rope_angles",
    "rope_attention",
    "sample",
    "sampling_settings",
    "swiglu",
    "token_weights",
]
