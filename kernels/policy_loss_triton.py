"""Triton kernels of `policy_loss`; its formulas and settings are in policy_loss.py, launches in policy_loss_autograd.

Of a row of logits x, with z = (x - max x) / T, everything that the loss needs follows from sums of one pass:

    s = sum_v exp(z),   log p = z - log s,   u = sum_v p z,   entropy = log s - u
    q = (r - max r) / T of the reference's logits r,   k = sum_v p (z - q),   KL = k - log s + log sum_v exp(q)

and its gradient, with slope = d loss / d logp(token), from the same numbers:

    dlogits[v] = (slope ([v = token] - p) + entropy_coef w p (z - u) + kl_coef w p (z - q - k)) / T

Letters:    N rows (tokens), V vocabulary, K statistics a row (see STATISTICS), S sequences.
Numerics:   loads in the input dtype; differences to the maximum before the temperature, so that a common shift of all
            logits cancels exactly; everything else in float32.
One pass:   a program keeps its row (and the reference's) in registers between the sums and the gradient.
Two passes: statistics of the rows, [means of the sequences,] terms of the tokens; the gradient in backward.
"""

from __future__ import annotations

from .logit_rows import LOWEST
from .triton_support import tl, triton

__all__ = [
    "NUM_SUMS",
    "STATISTICS",
    "gradient_kernel",
    "one_pass_kernel",
    "sequences_kernel",
    "statistics_kernel",
    "tokens_kernel",
]

CLIPPED, CISPO, REINFORCE = (tl.constexpr(kind) for kind in range(3))
K1, K2, K3 = (tl.constexpr(estimator) for estimator in range(1, 4))

_SUMS = ("loss", "entropy", "kl", "clip_low", "clip_high", "clip_dual", "ratio", "weight")  # weighted sums over rows
_MAXIMA = ("max_ratio", "max_negative_ratio", "max_logprob_difference")
STATISTICS = _SUMS + _MAXIMA
NUM_SUMS = len(_SUMS)


@triton.jit
def _policy_term(logp, log_ratio, advantage, clip_low, clip_high, clip_dual, KIND: tl.constexpr):
    """(term, its derivative by logp, ratio, and 1 where clipped: low, high, dual), of one token or a tile of them."""
    ratio = tl.exp(log_ratio)
    bounded = tl.minimum(tl.maximum(ratio, 1.0 - clip_low), 1.0 + clip_high)
    low = tl.where(ratio < 1.0 - clip_low, 1.0, 0.0)
    high = tl.where(ratio > 1.0 + clip_high, 1.0, 0.0)
    dual = tl.where(ratio > clip_dual, 1.0, 0.0)
    if KIND == CLIPPED:
        low = tl.where(advantage < 0.0, low, 0.0)
        high = tl.where(advantage > 0.0, high, 0.0)
        dual = tl.where(advantage < 0.0, dual, 0.0)
        term = -tl.minimum(ratio * advantage, bounded * advantage)
        term = tl.where(dual > 0.0, -clip_dual * advantage, term)
        slope = tl.where(low + high + dual > 0.0, 0.0, -ratio * advantage)
    elif KIND == CISPO:
        dual = dual * 0.0
        slope = -bounded * advantage
        term = slope * logp
    else:
        low, high, dual = low * 0.0, high * 0.0, dual * 0.0
        slope = -advantage
        term = slope * logp
    # of an advantage of 0 also where the ratio or -logp is infinite, and 0 times that is not 0
    term = tl.where(advantage == 0.0, 0.0, term)
    slope = tl.where(advantage == 0.0, 0.0, slope)
    return term, slope, ratio, low, high, dual


@triton.jit
def _kl_estimate(logp, reference, ESTIMATOR: tl.constexpr):
    """(estimate of KL(policy || reference) from one token, its derivative by logp)"""
    b = reference - logp
    if ESTIMATOR == K1:
        kl, slope = -b, tl.where(b == b, 1.0, 1.0)
    elif ESTIMATOR == K2:
        kl, slope = 0.5 * b * b, -b
    else:
        # exp(b) - 1 - b, near 0 by its series, because the difference would cancel
        series = 1.0 + b / 5.0 * (1.0 + b / 6.0 * (1.0 + b / 7.0 * (1.0 + b / 8.0)))
        series = 0.5 * b * b * (1.0 + b / 3.0 * (1.0 + b / 4.0 * series))
        kl = tl.where(tl.abs(b) < 0.5, series, tl.exp(b) - 1.0 - b)
        slope = -(b + kl)
    return kl, slope


@triton.jit
def _token_loss(
    n, inside, live, weight, logp, log_ratio, entropy, kl, logp_ptr, old_ptr, advantages_ptr, importance_ptr,
    reference_ptr, rows_ptr, N, clip_low, clip_high, clip_dual, kl_coef, entropy_coef,
    KIND: tl.constexpr, ESTIMATOR: tl.constexpr,
):  # fmt: skip
    """Stores the log-probability and the statistics of a row or a tile of rows; returns d loss / d logp."""
    advantage = tl.load(advantages_ptr + n, mask=inside, other=0.0)
    if importance_ptr is not None:
        importance = tl.load(importance_ptr + n, mask=inside, other=0.0)
        advantage = tl.where(importance == 0.0, 0.0, advantage)
    difference = tl.where(live, 0.0, 0.0)
    if old_ptr is not None:
        difference = tl.where(live, logp - tl.load(old_ptr + n, mask=inside, other=0.0), 0.0)
    if log_ratio is None:
        log_ratio = difference
    term, slope, ratio, low, high, dual = _policy_term(
        logp, log_ratio, advantage, clip_low, clip_high, clip_dual, KIND
    )  # fmt: skip
    if importance_ptr is not None:
        term *= importance
        slope *= importance
    if reference_ptr is not None:
        kl, kl_slope = _kl_estimate(logp, tl.load(reference_ptr + n, mask=inside, other=0.0), ESTIMATOR)
        slope += tl.where(kl_coef != 0.0, kl_coef * kl_slope, 0.0)
    loss = term + tl.where(kl_coef != 0.0, kl_coef * kl, 0.0) - entropy_coef * entropy
    tl.store(logp_ptr + n, tl.where(live, logp, 0.0), mask=inside)
    tl.store(rows_ptr + n, tl.where(live, weight * loss, 0.0), mask=inside)
    tl.store(rows_ptr + N + n, tl.where(live, weight * entropy, 0.0), mask=inside)
    tl.store(rows_ptr + 2 * N + n, tl.where(live, weight * kl, 0.0), mask=inside)
    tl.store(rows_ptr + 3 * N + n, weight * low, mask=inside)
    tl.store(rows_ptr + 4 * N + n, weight * high, mask=inside)
    tl.store(rows_ptr + 5 * N + n, weight * dual, mask=inside)
    tl.store(rows_ptr + 6 * N + n, tl.where(live, weight * ratio, 0.0), mask=inside)
    tl.store(rows_ptr + 7 * N + n, weight, mask=inside)
    tl.store(rows_ptr + 8 * N + n, tl.where(live, ratio, -float("inf")), mask=inside)
    tl.store(rows_ptr + 9 * N + n, tl.where(live, -ratio, -float("inf")), mask=inside)
    tl.store(rows_ptr + 10 * N + n, tl.where(live, tl.abs(difference), -float("inf")), mask=inside)
    return tl.where(live, weight * slope, 0.0)


@triton.jit
def _products(e, z):
    """sum_v e z without the columns of probability 0, whose z is -inf."""
    return tl.sum(e * tl.where(e > 0.0, z, 0.0), axis=0)


@triton.jit
def _short_row(row, reference_row, token, end, inv_t, BODY: tl.constexpr, TAIL: tl.constexpr):
    """A row that stays in registers: (z, e, z - q) of body and tail, then max x, s, u, chosen z, max r, k and KL."""
    v = tl.arange(0, BODY)
    x = tl.load(row + v, mask=v < end, other=-float("inf")).to(tl.float32)
    m = tl.max(x, axis=0)
    if TAIL > 0:
        v_tail = BODY + tl.arange(0, TAIL)
        x_tail = tl.load(row + v_tail, mask=v_tail < end, other=-float("inf")).to(tl.float32)
        m = tl.maximum(m, tl.max(x_tail, axis=0))
    m = tl.where(end > 0, m, 0.0)
    z = (x - m) * inv_t
    e = tl.exp(z)
    s = tl.sum(e, axis=0)
    u = _products(e, z)
    chosen = tl.max(tl.where(v == token, z, -float("inf")), axis=0)
    z_tail, e_tail = z, e
    if TAIL > 0:
        z_tail = (x_tail - m) * inv_t
        e_tail = tl.exp(z_tail)
        s += tl.sum(e_tail, axis=0)
        u += _products(e_tail, z_tail)
        chosen = tl.maximum(chosen, tl.max(tl.where(v_tail == token, z_tail, -float("inf")), axis=0))
    s = tl.where(end > 0, s, 1.0)
    chosen = tl.where(end > 0, chosen, 0.0)
    u /= s
    d, d_tail, m_reference, k, kl = z, z_tail, m, u, s * 0.0
    if reference_row is not None:
        r = tl.load(reference_row + v, mask=v < end, other=-float("inf")).to(tl.float32)
        m_reference = tl.max(r, axis=0)
        if TAIL > 0:
            r_tail = tl.load(reference_row + v_tail, mask=v_tail < end, other=-float("inf")).to(tl.float32)
            m_reference = tl.maximum(m_reference, tl.max(r_tail, axis=0))
        m_reference = tl.where(end > 0, m_reference, 0.0)
        q = (r - m_reference) * inv_t
        s_reference = tl.sum(tl.exp(q), axis=0)
        d = tl.where(e > 0.0, z, 0.0) - tl.where(e > 0.0, q, 0.0)
        k = tl.sum(e * d, axis=0)
        if TAIL > 0:
            q_tail = (r_tail - m_reference) * inv_t
            s_reference += tl.sum(tl.exp(q_tail), axis=0)
            d_tail = tl.where(e_tail > 0.0, z_tail, 0.0) - tl.where(e_tail > 0.0, q_tail, 0.0)
            k += tl.sum(e_tail * d_tail, axis=0)
        k /= s
        kl = k - tl.log(s) + tl.log(tl.where(end > 0, s_reference, 1.0))
    return z, e, d, z_tail, e_tail, d_tail, m, s, u, chosen, m_reference, k, kl


@triton.jit
def _logit_gradient(z, p, d, is_token, slope, bonus, pull, u, k, inv_t, HAS_REFERENCE: tl.constexpr):
    g = bonus * (tl.where(p > 0.0, z, u) - u) - slope
    if HAS_REFERENCE:
        g += pull * (d - k)
    return (p * g + tl.where(is_token, slope, 0.0)) * inv_t


@triton.jit(do_not_specialize=["N"])
def one_pass_kernel(
    logits_ptr, reference_logits_ptr, tokens_ptr, weights_ptr, old_ptr, advantages_ptr, importance_ptr, reference_ptr,
    gradient_ptr, logp_ptr, rows_ptr, N, inv_t, clip_low, clip_high, clip_dual, kl_coef, entropy_coef,
    row_units, reference_units, width_units,
    KIND: tl.constexpr, ESTIMATOR: tl.constexpr, ALIGN: tl.constexpr, BODY: tl.constexpr, TAIL: tl.constexpr,
):  # fmt: skip
    # int64: N * V passes 2**31 at a million tokens of 2,200
    n = tl.program_id(0).to(tl.int64)
    weight = tl.load(weights_ptr + n)
    token = tl.load(tokens_ptr + n)
    live = weight != 0.0
    width = width_units * ALIGN
    end = tl.where(live, width, 0)  # nothing of a masked row is read
    reference_row = None
    if reference_logits_ptr is not None:
        reference_row = reference_logits_ptr + n * (reference_units * ALIGN)
    z, e, d, z_tail, e_tail, d_tail, _m, s, u, chosen, _m_reference, k, kl = _short_row(
        logits_ptr + n * (row_units * ALIGN), reference_row, token, end, inv_t, BODY, TAIL
    )
    log_s = tl.log(s)
    slope = _token_loss(
        n, True, live, weight, chosen - log_s, None, log_s - u, kl, logp_ptr, old_ptr, advantages_ptr, importance_ptr,
        reference_ptr, rows_ptr, N, clip_low, clip_high, clip_dual, kl_coef, entropy_coef, KIND, ESTIMATOR,
    )  # fmt: skip
    bonus = weight * entropy_coef
    pull = weight * kl_coef
    inv_s = 1.0 / s
    HAS_REFERENCE: tl.constexpr = reference_logits_ptr is not None
    v = tl.arange(0, BODY)
    gradient = gradient_ptr + n * width
    g = _logit_gradient(z, e * inv_s, d, v == token, slope, bonus, pull, u, k, inv_t, HAS_REFERENCE)
    tl.store(gradient + v, tl.where(live, g, 0.0).to(gradient_ptr.dtype.element_ty), mask=v < width)
    if TAIL > 0:
        v_tail = BODY + tl.arange(0, TAIL)
        g = _logit_gradient(
            z_tail, e_tail * inv_s, d_tail, v_tail == token, slope, bonus, pull, u, k, inv_t, HAS_REFERENCE
        )
        tl.store(gradient + v_tail, tl.where(live, g, 0.0).to(gradient_ptr.dtype.element_ty), mask=v_tail < width)


@triton.jit(do_not_specialize=["N"])
def statistics_kernel(
    logits_ptr, reference_logits_ptr, tokens_ptr, weights_ptr, logp_ptr, entropy_kl_ptr, values_ptr, N, inv_t,
    row_units, reference_units, width_units,
    ALIGN: tl.constexpr, BODY: tl.constexpr, TAIL: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """First of two passes; rows that fit into registers (BODY > 0) with the sums of one pass, longer ones online."""
    n = tl.program_id(0).to(tl.int64)
    token = tl.load(tokens_ptr + n)
    end = tl.where(tl.load(weights_ptr + n) != 0.0, width_units * ALIGN, 0)
    row = logits_ptr + n * (row_units * ALIGN)
    reference_row = None
    if reference_logits_ptr is not None:
        reference_row = reference_logits_ptr + n * (reference_units * ALIGN)
    if BODY > 0:
        _z, _e, _d, _z_tail, _e_tail, _d_tail, m, s, u, chosen, m_reference, k, kl = _short_row(
            row, reference_row, token, end, inv_t, BODY, TAIL
        )
        log_s = tl.log(s)
    else:
        m, m_reference = -float("inf"), -float("inf")
        s, s_reference, u, k = 0.0, 0.0, 0.0, 0.0
        chosen = -float("inf")
        for start in range(0, end, BLOCK):
            v = start + tl.arange(0, BLOCK)
            x = tl.load(row + v, mask=v < end, other=-float("inf")).to(tl.float32)
            m_new = tl.maximum(m, tl.max(x, axis=0))
            origin = tl.maximum(m_new, LOWEST)
            z = (x - origin) * inv_t
            e = tl.exp(z)
            # the sums so far in terms of the new maximum: every z falls by `step`, every e by its exponential
            step = tl.where(s > 0.0, (origin - m) * inv_t, 0.0)
            factor = tl.exp(-step)
            chosen = tl.maximum(chosen, tl.max(tl.where(v == token, x, -float("inf")), axis=0))
            if reference_row is not None:
                r = tl.load(reference_row + v, mask=v < end, other=-float("inf")).to(tl.float32)
                m_reference_new = tl.maximum(m_reference, tl.max(r, axis=0))
                reference_origin = tl.maximum(m_reference_new, LOWEST)
                q = (r - reference_origin) * inv_t
                reference_step = tl.where(s_reference > 0.0, (reference_origin - m_reference) * inv_t, 0.0)
                s_reference = s_reference * tl.exp(-reference_step) + tl.sum(tl.exp(q), axis=0)
                d = tl.where(e > 0.0, z, 0.0) - tl.where(e > 0.0, q, 0.0)
                carried = tl.where(factor > 0.0, factor * (k - s * (step - reference_step)), 0.0)
                k = carried + tl.sum(e * d, axis=0)
                m_reference = m_reference_new
            u = tl.where(factor > 0.0, factor * (u - s * step), 0.0) + _products(e, z)
            s = factor * s + tl.sum(e, axis=0)
            m = m_new
        m = tl.where(end > 0, m, 0.0)
        s = tl.where(end > 0, s, 1.0)
        log_s = tl.log(s)
        u /= s
        k /= s
        chosen = (tl.where(end > 0, chosen, m) - m) * inv_t
        kl = k - log_s + tl.log(tl.where(s_reference > 0.0, s_reference, 1.0))
    tl.store(logp_ptr + n, chosen - log_s)
    tl.store(entropy_kl_ptr + n, log_s - u)
    tl.store(entropy_kl_ptr + N + n, kl if reference_row is not None else 0.0)
    tl.store(values_ptr + N + n, m)
    tl.store(values_ptr + 2 * N + n, log_s)
    tl.store(values_ptr + 3 * N + n, u)
    if reference_row is not None:
        tl.store(values_ptr + 4 * N + n, m_reference)
        tl.store(values_ptr + 5 * N + n, k)


@triton.jit
def sequences_kernel(
    offsets_ptr, logp_ptr, old_ptr, weights_ptr, importance_ptr, log_ratio_ptr, mean_importance_ptr, BLOCK: tl.constexpr
):  # fmt: skip
    """Means over the tokens of a sequence that count, written to every one of them: of logp - old, and of importance by
    the weights."""
    sequence = tl.program_id(0)
    first = tl.load(offsets_ptr + sequence)
    last = tl.load(offsets_ptr + sequence + 1)
    total = tl.zeros([BLOCK], dtype=tl.float32)
    count = tl.zeros([BLOCK], dtype=tl.float32)
    weighted = tl.zeros([BLOCK], dtype=tl.float32)
    weights = tl.zeros([BLOCK], dtype=tl.float32)
    for start in range(first, last, BLOCK):
        n = start + tl.arange(0, BLOCK)
        weight = tl.load(weights_ptr + n, mask=n < last, other=0.0)
        counts = weight != 0.0
        count += tl.where(counts, 1.0, 0.0)
        if old_ptr is not None:
            logp = tl.load(logp_ptr + n, mask=n < last, other=0.0)
            total += tl.where(counts, logp - tl.load(old_ptr + n, mask=n < last, other=0.0), 0.0)
        if importance_ptr is not None:
            importance = tl.load(importance_ptr + n, mask=n < last, other=0.0)
            weighted += tl.where(counts, weight * importance, 0.0)
            weights += weight
    mean = tl.sum(total, axis=0) / tl.maximum(tl.sum(count, axis=0), 1.0)
    if importance_ptr is not None:
        weight_sum = tl.sum(weights, axis=0)
        mean_importance = tl.sum(weighted, axis=0) / tl.where(weight_sum == 0.0, 1.0, weight_sum)
    for start in range(first, last, BLOCK):
        n = start + tl.arange(0, BLOCK)
        tl.store(log_ratio_ptr + n, tl.zeros([BLOCK], dtype=tl.float32) + mean, mask=n < last)
        if importance_ptr is not None:
            tl.store(mean_importance_ptr + n, tl.zeros([BLOCK], dtype=tl.float32) + mean_importance, mask=n < last)


@triton.jit(do_not_specialize=["N"])
def tokens_kernel(
    weights_ptr, logp_ptr, entropy_kl_ptr, log_ratio_ptr, old_ptr, advantages_ptr, importance_ptr, reference_ptr,
    rows_ptr, slope_ptr, N, clip_low, clip_high, clip_dual, kl_coef, entropy_coef,
    KIND: tl.constexpr, ESTIMATOR: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = n < N
    weight = tl.load(weights_ptr + n, mask=inside, other=0.0)
    logp = tl.load(logp_ptr + n, mask=inside, other=0.0)
    entropy = tl.load(entropy_kl_ptr + n, mask=inside, other=0.0)
    kl = tl.load(entropy_kl_ptr + N + n, mask=inside, other=0.0)
    log_ratio = None
    if log_ratio_ptr is not None:
        log_ratio = tl.load(log_ratio_ptr + n, mask=inside, other=0.0)
    slope = _token_loss(
        n, inside, weight != 0.0, weight, logp, log_ratio, entropy, kl, logp_ptr, old_ptr, advantages_ptr,
        importance_ptr, reference_ptr, rows_ptr, N, clip_low, clip_high, clip_dual, kl_coef, entropy_coef,
        KIND, ESTIMATOR,
    )  # fmt: skip
    tl.store(slope_ptr + n, slope, mask=inside)


@triton.jit(do_not_specialize=["N"])
def gradient_kernel(
    upstream_ptr, logits_ptr, reference_logits_ptr, tokens_ptr, weights_ptr, values_ptr, gradient_ptr, N, inv_t,
    kl_coef, entropy_coef, row_units, reference_units, width_units,
    ALIGN: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Second of two passes, the gradient that arrived folded in."""
    n = tl.program_id(0).to(tl.int64)
    upstream = tl.load(upstream_ptr)
    weight = tl.load(weights_ptr + n)
    token = tl.load(tokens_ptr + n)
    slope = tl.load(values_ptr + n) * upstream
    m = tl.load(values_ptr + N + n)
    log_s = tl.load(values_ptr + 2 * N + n)
    u = tl.load(values_ptr + 3 * N + n)
    width = width_units * ALIGN
    end = tl.where(weight != 0.0, width, 0)
    v = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(logits_ptr + n * (row_units * ALIGN) + v, mask=v < end, other=-float("inf")).to(tl.float32)
    z = (x - m) * inv_t
    p = tl.exp(z - log_s)
    d, k = z, u
    HAS_REFERENCE: tl.constexpr = reference_logits_ptr is not None
    if HAS_REFERENCE:
        r = tl.load(reference_logits_ptr + n * (reference_units * ALIGN) + v, mask=v < end, other=-float("inf"))
        k = tl.load(values_ptr + 5 * N + n)
        q = (r.to(tl.float32) - tl.load(values_ptr + 4 * N + n)) * inv_t
        d = tl.where(p > 0.0, z, 0.0) - tl.where(p > 0.0, q, 0.0)
    bonus = weight * entropy_coef * upstream
    pull = weight * kl_coef * upstream
    g = _logit_gradient(z, p, d, v == token, slope, bonus, pull, u, k, inv_t, HAS_REFERENCE)
    g = tl.where(end > 0, g, 0.0)
    tl.store(gradient_ptr + n * width + v, g.to(gradient_ptr.dtype.element_ty), mask=v < width)
