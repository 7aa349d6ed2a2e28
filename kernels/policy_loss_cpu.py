"""`policy_loss` on CPU: the loss and d loss / d logits with a fifth of the memory traffic of autograd.

The loss depends on a row of logits through three numbers: log-probability of its token, entropy and exact KL.
Their derivatives are known, so the gradient is written into the probabilities that the entropy needs anyway:

    dlogits[v] = (slope ([v = token] - p) + entropy_coef w p (log p + H) + kl_coef w p (log p - log p_ref - KL)) / T

slope = d loss / d logp(token) comes from autograd over the N tokens alone, of the definition's own terms.

Letters:    N tokens, V vocabulary.
Numerics:   float32; log-probabilities are to the bit those of the definition.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["rows_on_cpu"]

_LOWEST = -1e30  # a forbidden token's log-probability; finite, so that its product with a probability of 0 is 0


class _Attach(torch.autograd.Function):
    """A loss whose gradient is known already."""

    @staticmethod
    def forward(ctx: Any, logits_NV: Tensor, loss: Tensor, gradient_NV: Tensor) -> Tensor:
        ctx.gradient = gradient_NV
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        if ctx.gradient is None:
            raise RuntimeError("policy_loss: backward a second time; the gradient was computed once, with the loss")
        gradient, ctx.gradient = ctx.gradient, None
        return (gradient if upstream == 1.0 else gradient.mul_(upstream)), None, None


def rows_on_cpu(
    logits_NV: Tensor,
    tokens_N: Tensor,
    weights_N: Tensor,
    reference_NV: Tensor | None,
    token_terms: Callable[[Tensor], Tensor],
    *,
    temperature: float,
    kl_coef: float,
    entropy_coef: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The loss of the rows.

    Args:
        logits_NV: float32, with gradient.
        reference_NV: log-probabilities of the reference, for the exact KL.
        token_terms: from log-probabilities [N] with gradient to what they alone decide of the loss, [N], unweighted.
    Returns:
        loss with gradient; logprobs_N, entropy_N and exact KL_N (0 without a reference) without.
    """
    with torch.no_grad():
        logits = logits_NV.detach()
        all_NV = (logits if temperature == 1.0 else logits / temperature).log_softmax(-1)
        logprobs_N = all_NV.gather(1, tokens_N[:, None]).squeeze(1)
    leaf_N = logprobs_N.clone().requires_grad_()
    with torch.enable_grad():
        terms_N = token_terms(leaf_N)
        (slope_N,) = torch.autograd.grad((weights_N * terms_N).sum(), leaf_N)
    with torch.no_grad():
        probs_NV = all_NV.exp()
        product_NV = probs_NV * all_NV
        entropy_N = -product_NV.sum(-1)
        if entropy_N.isnan().any():  # 0 * -inf of a forbidden token
            all_NV.clamp_(min=_LOWEST)
            entropy_N = -torch.mul(probs_NV, all_NV, out=product_NV).sum(-1)
        kl_N = torch.zeros_like(entropy_N)
        if reference_NV is not None:
            reference_NV = reference_NV.clamp(min=_LOWEST)
            kl_N = -entropy_N - torch.mul(probs_NV, reference_NV, out=product_NV).sum(-1)
        loss = (weights_N * (terms_N.detach() + kl_coef * kl_N - entropy_coef * entropy_N)).sum()

        factor_N = -slope_N
        if reference_NV is None or kl_coef == 0:
            kl_coef = 0.0
        if entropy_coef == 0 and kl_coef == 0:
            probs_NV.mul_(factor_N[:, None])
        else:
            factor_N = factor_N + weights_N * (entropy_coef * entropy_N - kl_coef * kl_N)
            all_NV.mul_((weights_N * (entropy_coef + kl_coef))[:, None]).add_(factor_N[:, None])
            if kl_coef != 0 and reference_NV is not None:
                all_NV.addcmul_(reference_NV, weights_N[:, None], value=-kl_coef)
            probs_NV.mul_(all_NV)
        probs_NV.scatter_add_(1, tokens_N[:, None], slope_N[:, None])
        if temperature != 1.0:
            probs_NV.div_(temperature)
    return _Attach.apply(logits_NV, loss, probs_NV), logprobs_N, entropy_N, kl_N
