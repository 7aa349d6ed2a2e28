// The policy loss of rows first .. last - 1, its statistics and its gradient, the row in the cache between them.
// The formulas are those of kernels/policy_loss.py and, of a row, of kernels/policy_loss_triton.py.
#pragma once

#include "cpu/kernels.h"
#include "cpu/simd.h"

namespace fastreason {
namespace {

struct PolicyTerm {
  float term, slope;  // slope: derivative of the term by the log-probability of the token
  float ratio, low, high, dual;
};

inline PolicyTerm policy_term(const PolicyLoss& loss, float logprob, float log_ratio, float advantage) {
  const float ratio = __builtin_expf(log_ratio), lowest = 1.0F - loss.clip_low, highest = 1.0F + loss.clip_high;
  const float above = ratio < lowest ? lowest : ratio, bounded = above > highest ? highest : above;
  const bool low = ratio<lowest, high = ratio> highest, dual = ratio > loss.clip_dual;
  PolicyTerm out{0.0F, 0.0F, ratio, 0.0F, 0.0F, 0.0F};
  if (loss.kind == PolicyKind::kCispo) {
    out.low = low ? 1.0F : 0.0F;
    out.high = high ? 1.0F : 0.0F;
  }
  if (advantage == 0.0F) return out;  // also where the ratio or -logprob is infinite, and 0 times that is not 0
  if (loss.kind != PolicyKind::kClipped) {
    out.slope = loss.kind == PolicyKind::kCispo ? -bounded * advantage : -advantage;
    out.term = out.slope * logprob;
    return out;
  }
  const bool down = advantage < 0.0F, cut_low = low && down, cut_high = high && !down, cut_dual = dual && down;
  const float free = ratio * advantage, held = bounded * advantage;
  out.term = cut_dual ? -loss.clip_dual * advantage : -(held < free ? held : free);
  out.slope = cut_low || cut_high || cut_dual ? 0.0F : -free;
  out.low = cut_low ? 1.0F : 0.0F;
  out.high = cut_high ? 1.0F : 0.0F;
  out.dual = cut_dual ? 1.0F : 0.0F;
  return out;
}

struct KlEstimate {
  float kl, slope;
};

inline KlEstimate kl_estimate(int estimator, float b) {
  if (estimator == 1) return {-b, 1.0F};
  if (estimator == 2) return {0.5F * b * b, -b};
  // exp(b) - 1 - b, near 0 by its series, because the difference would cancel
  float kl = __builtin_expf(b) - 1.0F - b;
  if (b < 0.5F && b > -0.5F) {
    const float far = 1.0F + b / 5.0F * (1.0F + b / 6.0F * (1.0F + b / 7.0F * (1.0F + b / 8.0F)));
    kl = 0.5F * b * b * (1.0F + b / 3.0F * (1.0F + b / 4.0F * far));
  }
  return {kl, -(b + kl)};
}

// body(v, lanes) for every vector of a row; lanes < kLanes in the last one.
template <class Body>
FASTREASON_INLINE void for_vectors(std::int64_t width, Body&& body) {
  std::int64_t v = 0;
  for (; v + kLanes <= width; v += kLanes) body(v, std::int64_t{kLanes});
  if (v < width) body(v, width - v);
}
FASTREASON_INLINE Vec load_up_to(const float* p, std::int64_t lanes) {
  return lanes == kLanes ? load(p) : load_some(p, lanes, -__builtin_inff());
}
FASTREASON_INLINE void store_up_to(float* p, Vec v, std::int64_t lanes) {
  if (lanes == kLanes) return store(p, v);
  store_some(p, v, lanes);
}

FASTREASON_INLINE float largest_of_row(const float* row, std::int64_t width) {
  Vec best = splat(-__builtin_inff());
  for_vectors(width, [&](std::int64_t v, std::int64_t lanes)
                         __attribute__((always_inline)) { best = larger(load_up_to(row + v, lanes), best); });
  return largest(best);
}

// Of a row: z = (x - maximum) / T, s = sum exp(z), u = sum p z; of the reference's q likewise, k = sum p (z - q).
struct RowSums {
  float maximum, s, u, reference_maximum, k, kl;
};

// z - q where the policy's probability e is not 0: logits of both may be -inf elsewhere
FASTREASON_INLINE Vec difference(Vec e, Vec z, Vec q) { return e > 0.0F ? z - q : Vec{}; }

// exponentials, if they are asked for, are exp(z).
template <bool kReference>
FASTREASON_INLINE RowSums row_sums(const float* row, const float* reference, std::int64_t width, float inverse,
                                   float* exponentials) {
  const float maximum = largest_of_row(row, width);
  const float reference_maximum = kReference ? largest_of_row(reference, width) : 0.0F;
  Vec s{}, u{}, k{}, reference_s{};
  for_vectors(width, [&](std::int64_t v, std::int64_t lanes) __attribute__((always_inline)) {
    const Vec z = (load_up_to(row + v, lanes) - maximum) * inverse, e = exponential(z);
    if (exponentials) store_up_to(exponentials + v, e, lanes);
    s += e;
    u += e > 0.0F ? e * z : Vec{};
    if constexpr (kReference) {
      const Vec q = (load_up_to(reference + v, lanes) - reference_maximum) * inverse;
      reference_s += exponential(q);
      k += e * difference(e, z, q);
    }
  });
  const float total = sum(s), mean = kReference ? sum(k) / total : 0.0F;
  const float kl = kReference ? mean - __builtin_logf(total) + __builtin_logf(sum(reference_s)) : 0.0F;
  return {maximum, total, sum(u) / total, reference_maximum, mean, kl};
}

// d loss / d logits from exponentials, which may lie where the gradient will.
template <bool kReference>
FASTREASON_INLINE void row_gradient(const PolicyLoss& loss, const float* row, const float* reference,
                                    const RowSums& sums, std::int64_t token, float weight, float slope,
                                    const float* exponentials, float* gradient) {
  const float inverse = loss.inverse_temperature, inverse_s = 1.0F / sums.s;
  // with 1 / T in them; `step` is what the token gets, and of a vocabulary of 1 exactly what p takes away
  const float bonus = weight * loss.entropy_coef * inverse, pull = kReference ? weight * loss.kl_coef * inverse : 0.0F;
  const float step = slope * inverse;
  if (bonus == 0.0F && pull == 0.0F) {
    for_vectors(loss.width, [&](std::int64_t v, std::int64_t lanes) __attribute__((always_inline)) {
      store_up_to(gradient + v, load_up_to(exponentials + v, lanes) * (-step * inverse_s), lanes);
    });
  } else {
    for_vectors(loss.width, [&](std::int64_t v, std::int64_t lanes) __attribute__((always_inline)) {
      const Vec e = load_up_to(exponentials + v, lanes);
      const Vec z = (load_up_to(row + v, lanes) - sums.maximum) * inverse;
      Vec g = bonus * ((e > 0.0F ? z : splat(sums.u)) - sums.u) - step;
      if constexpr (kReference) {
        const Vec q = (load_up_to(reference + v, lanes) - sums.reference_maximum) * inverse;
        g += pull * (difference(e, z, q) - sums.k);
      }
      store_up_to(gradient + v, e * inverse_s * g, lanes);
    });
  }
  gradient[token] += step;
}

// Everything of a row that counts; logits in float32, gradient null where none is wanted.
template <bool kReference>
void policy_loss_row(const PolicyLoss& loss, std::int64_t n, const float* row, const float* reference, float* gradient,
                     PolicyTotals& totals) {
  const float weight = loss.weights[n];
  const std::int64_t token = loss.tokens[n];
  const RowSums sums = row_sums<kReference>(row, reference, loss.width, loss.inverse_temperature, gradient);
  const float log_s = __builtin_logf(sums.s), entropy = log_s - sums.u;
  const float logprob = (row[token] - sums.maximum) * loss.inverse_temperature - log_s;
  const float moved = loss.old ? logprob - loss.old[n] : 0.0F;
  const float importance = loss.importance ? loss.importance[n] : 1.0F;
  const float advantage = importance == 0.0F ? 0.0F : loss.advantages[n];
  PolicyTerm part = policy_term(loss, logprob, loss.log_ratios ? loss.log_ratios[n] : moved, advantage);
  part.term *= importance;
  part.slope *= importance;
  KlEstimate divergence{sums.kl, 0.0F};
  if (loss.reference) divergence = kl_estimate(loss.estimator, loss.reference[n] - logprob);
  float value = part.term;
  if (loss.entropy_coef != 0.0F) value -= loss.entropy_coef * entropy;
  if (loss.kl_coef != 0.0F) {
    value += loss.kl_coef * divergence.kl;
    part.slope += loss.kl_coef * divergence.slope;
  }
  loss.logprobs[n] = logprob;
  const float values[] = {value, entropy, divergence.kl, part.low, part.high, part.dual, part.ratio, 1.0F};
  for (int i = 0; i < kPolicySums; ++i) totals.sums[i] += static_cast<double>(weight * values[i]);
  const float distance = moved < 0.0F ? -moved : moved, extremes[] = {part.ratio, -part.ratio, distance};
  for (int i = 0; i < kPolicyMaxima; ++i) raise_to(totals.maxima[i], extremes[i]);
  if (gradient)
    row_gradient<kReference>(loss, row, reference, sums, token, weight, weight * part.slope, gradient, gradient);
}

// scratch: 3 rows. A row of weight 0 is not read; its gradient and log-probability are 0.
void policy_loss_rows(const PolicyLoss& loss, std::int64_t first, std::int64_t last, PolicyTotals& totals,
                      float* scratch) {
  const std::int64_t width = loss.width;
  for (std::int64_t n = first; n < last; ++n) {
    float* gradient = nullptr;
    if (loss.gradient.data) gradient = loss.gradient.bfloat16 ? scratch : loss.gradient.row(n);
    if (loss.weights[n] == 0.0F) {
      loss.logprobs[n] = 0.0F;
      for (std::int64_t v = 0; gradient && v < width; ++v) gradient[v] = 0.0F;
    } else {
      const float* row = in_float32(loss.logits, n, width, scratch + width);
      if (loss.reference_logits.data) {
        const float* reference = in_float32(loss.reference_logits, n, width, scratch + 2 * width);
        policy_loss_row<true>(loss, n, row, reference, gradient, totals);
      } else {
        policy_loss_row<false>(loss, n, row, nullptr, gradient, totals);
      }
    }
    if (gradient && loss.gradient.bfloat16) narrow(gradient, loss.gradient.row16(n), width);
  }
}

}  // namespace
}  // namespace fastreason
