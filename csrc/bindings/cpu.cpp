#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <limits>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#if defined(__GLIBC__)
#include <malloc.h>
#endif

#include "bindings/bindings.h"
#include "common/array.h"
#include "common/parallel.h"
#include "cpu/kernels.h"

namespace fastreason {

namespace {

// Tensors come as addresses: kernels/cpu_kernels.py, the one caller, has checked what they are of.
using Address = std::uintptr_t;

const float* in(Address address) { return reinterpret_cast<const float*>(address); }
float* out(Address address) { return reinterpret_cast<float*>(address); }
const std::uint16_t* in16(Address address) { return reinterpret_cast<const std::uint16_t*>(address); }
std::uint16_t* out16(Address address) { return reinterpret_cast<std::uint16_t*>(address); }

// Rows that one thread takes at a time. Fixed, because partial sums over them decide bits.
constexpr std::int64_t kGrain = 256, kRowsOfLogits = 32;

std::atomic<const Kernels*> chosen{nullptr};
const Kernels& table() {
  const Kernels* const kernel = chosen.load(std::memory_order_relaxed);
  return kernel ? *kernel : kernels();
}

using Strides = std::array<std::int64_t, 2>;  // of tokens and heads

Heads heads(Address address, const Strides& strides) { return {in(address), strides[0], strides[1]}; }
Heads16 heads16(Address address, const Strides& strides) { return {in16(address), strides[0], strides[1]}; }

// A segment without a prefix and those whose prefix it is: one thread's work, so that gradients of a prefix add up in
// the order of the batch.
std::vector<std::vector<AttentionSegment>> families(const InputArray<std::int64_t>& layout) {
  const std::int64_t count = layout.shape(1);
  const std::int64_t* start = layout.data();
  const std::int64_t *length = start + count, *prefix = length + count;
  std::vector<std::vector<AttentionSegment>> found;
  std::vector<std::size_t> family(static_cast<std::size_t>(count));
  for (std::int64_t i = 0; i < count; ++i) {
    if (prefix[i] >= 0) continue;
    family[static_cast<std::size_t>(i)] = found.size();
    found.push_back({{start[i], length[i], 0, 0}});
  }
  for (std::int64_t i = 0; i < count; ++i)
    if (const std::int64_t p = prefix[i]; p >= 0)
      found[family[static_cast<std::size_t>(p)]].push_back({start[i], length[i], start[p], length[p]});
  return found;
}

// body(segment, KV head, scratch) for every segment and KV head; floats(keys, dim) is the size of the scratch.
template <class Floats, class Body>
void for_segments(const InputArray<std::int64_t>& layout, const AttentionShape& shape, int threads, Floats&& floats,
                  Body&& body) {
  const auto all = families(layout);
  py::gil_scoped_release release;
  std::int64_t most_keys = 0;
  for (const auto& family : all)
    for (const auto& s : family) most_keys = std::max(most_keys, s.prefix_length + s.length);
  const std::int64_t kv_heads = shape.heads / shape.group;
  const std::int64_t units = std::ssize(all) * kv_heads;
  const std::int64_t grain = std::max<std::int64_t>(1, units / (8 * resolve_threads(threads)));
  parallel_blocks(units, threads, grain, [&](std::int64_t first, std::int64_t last) {
    Array<float> scratch(static_cast<std::size_t>(floats(most_keys, shape.dim)));
    for (std::int64_t unit = first; unit < last; ++unit)
      for (const auto& s : all[static_cast<std::size_t>(unit / kv_heads)]) body(s, unit % kv_heads, scratch.data());
  });
}

PolicyTotals no_rows() {
  constexpr float kNone = -std::numeric_limits<float>::infinity();
  return {{}, {kNone, kNone, kNone}};
}

void add(PolicyTotals& total, const PolicyTotals& part) {
  for (int i = 0; i < kPolicySums; ++i) total.sums[i] += part.sums[i];
  for (int i = 0; i < kPolicyMaxima; ++i) raise_to(total.maxima[i], part.maxima[i]);
}

// Totals of blocks, added in their order, whichever thread computed them.
PolicyTotals policy_loss(const PolicyLoss& loss, std::int64_t rows, int threads) {
  std::vector<PolicyTotals> parts(static_cast<std::size_t>((rows + kRowsOfLogits - 1) / kRowsOfLogits), no_rows());
  parallel_blocks(rows, threads, kRowsOfLogits, [&](std::int64_t first, std::int64_t last) {
    Array<float> scratch(static_cast<std::size_t>(3 * loss.width));
    for (std::int64_t begin = first; begin < last; begin += kRowsOfLogits)
      table().policy_loss_rows(loss, begin, std::min(last, begin + kRowsOfLogits),
                               parts[static_cast<std::size_t>(begin / kRowsOfLogits)], scratch.data());
  });
  PolicyTotals total = no_rows();
  for (const PolicyTotals& part : parts) add(total, part);
  return total;
}

template <class Body>
void for_rows(std::int64_t rows, int threads, Body&& body) {
  py::gil_scoped_release release;
  parallel_blocks(rows, threads, kGrain, body);
}

// dweight [width] = what body(first, last, partial sums) adds, of blocks of rows whose sums are added in their order.
template <class Body>
void sum_over_rows(std::int64_t rows, std::int64_t width, float* dweight, int threads, Body&& body) {
  const std::int64_t blocks = (rows + kGrain - 1) / kGrain;
  std::vector<float> partial(static_cast<std::size_t>(blocks * width));
  for_rows(rows, threads, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t begin = first; begin < last; begin += kGrain)
      body(begin, std::min(last, begin + kGrain), partial.data() + begin / kGrain * width);
  });
  std::fill_n(dweight, width, 0.0F);
  for (std::int64_t b = 0; b < blocks; ++b)
    for (std::int64_t d = 0; d < width; ++d) dweight[d] += partial[static_cast<std::size_t>(b * width + d)];
}

// The narrower operand is packed once; of the wider one a thread takes blocks of columns. A sum is over the rows in
// their order, whatever the blocks.
void weight_gradient(const WeightGradient& g, int threads) {
  constexpr std::int64_t kTerms = 32, kColumns = 256, kFewest = 64, kSums = 1 << 17;  // sums that stay in the cache
  const TileKernels& kernel = *table().tiles;
  const std::int64_t wide = std::max(g.outputs, g.inputs), narrow = std::min(g.outputs, g.inputs);
  const auto whole = [](std::int64_t n) { return (n + kTerms - 1) / kTerms * kTerms; };
  const std::int64_t columns =
      std::clamp(kSums / std::max<std::int64_t>(narrow, 1) / kTerms * kTerms, kFewest, kColumns);
  Array<float> packed(static_cast<std::size_t>(whole(g.rows) * whole(narrow) / 2 + 16));
  // a tile's rows are cache lines
  auto* tiles = reinterpret_cast<std::uint16_t*>(reinterpret_cast<std::byte*>(packed.data()) +
                                                 (-reinterpret_cast<std::uintptr_t>(packed.data()) % 64));
  parallel_blocks(g.rows, threads, kGrain,
                  [&](std::int64_t first, std::int64_t last) { kernel.pack_narrow(g, first, last, tiles); });
  parallel_blocks(wide, threads, columns, [&](std::int64_t first, std::int64_t last) {
    Array<float> scratch(static_cast<std::size_t>(kernel.weight_gradient_scratch(g, columns)));
    for (std::int64_t begin = first; begin < last; begin += columns)
      kernel.weight_gradient(g, tiles, begin, std::min(last, begin + columns), scratch.data());
  });
}

}  // namespace

void bind_cpu(py::module_& m) {
  m.def(
      "keep_freed_memory",
      [] {
#if defined(__GLIBC__)
        return mallopt(M_MMAP_MAX, 0) && mallopt(M_TRIM_THRESHOLD, std::numeric_limits<int>::max()) &&
               mallopt(M_TOP_PAD, 64 << 20);
#else
        return false;
#endif
      },
      "Makes the allocator keep what is freed, for good. False where it is not glibc's.");

  auto cpu = m.def_submodule(
      "cpu", "Kernels that compute in float32. Arguments are checked by fastreason.kernels.cpu_kernels alone.");

  cpu.def(
      "use",
      [](const std::string& name) {
        const Kernels* found = name.empty() ? &kernels() : find_kernels(name.c_str());
        if (found) chosen = found;
        return found != nullptr;
      },
      py::arg("name"),
      "Picks baseline, avx2, avx512 or amx, for tests; '' the widest. False if this CPU does not have it.");
  cpu.def("name", [] { return std::string(table().name); }, "The instruction set in use.");

  cpu.def(
      "attention_forward",
      [](const InputArray<std::int64_t>& layout, Address q, Strides q_strides, Address k, Strides k_strides, Address v,
         Strides v_strides, Address o, Address lse, std::array<std::int64_t, 4> shape, float scale, int threads) {
        const AttentionShape sizes{shape[0], shape[1], shape[2], shape[3], scale};
        const Heads queries = heads(q, q_strides), keys = heads(k, k_strides), values = heads(v, v_strides);
        for_segments(layout, sizes, threads, attention_scratch,
                     [&](const AttentionSegment& s, std::int64_t head, float* scratch) {
                       table().attention_forward(s, sizes, queries, keys, values, head, out(o), out(lse), scratch);
                     });
      },
      "layout [3, S], then address and strides of q, k, v, then o, lse, (tokens, heads, group, dim), scale, threads.");
  cpu.def(
      "attention_backward",
      [](const InputArray<std::int64_t>& layout, Address q, Strides q_strides, Address k, Strides k_strides, Address v,
         Strides v_strides, std::array<Address, 6> gradients, std::array<std::int64_t, 4> shape, float scale,
         int threads) {
        const AttentionShape sizes{shape[0], shape[1], shape[2], shape[3], scale};
        const Heads queries = heads(q, q_strides), keys = heads(k, k_strides), values = heads(v, v_strides);
        const AttentionGradients g{in(gradients[0]),  in(gradients[1]),  in(gradients[2]),
                                   out(gradients[3]), out(gradients[4]), out(gradients[5])};
        for_segments(layout, sizes, threads, attention_scratch,
                     [&](const AttentionSegment& s, std::int64_t head, float* scratch) {
                       table().attention_backward(s, sizes, queries, keys, values, head, g, scratch);
                     });
      },
      "As the forward pass, with (do, o, lse, dq, dk, dv) instead of o and lse.");

  cpu.def("has_tiles", [] { return table().tiles != nullptr; }, "Whether the next three run here.");
  cpu.def(
      "attention_forward16",
      [](const InputArray<std::int64_t>& layout, Address q, Strides q_strides, Address k, Strides k_strides, Address v,
         Strides v_strides, Address o, Address lse, std::array<std::int64_t, 4> shape, float scale, int threads) {
        const AttentionShape sizes{shape[0], shape[1], shape[2], shape[3], scale};
        const Heads16 queries = heads16(q, q_strides), keys = heads16(k, k_strides), values = heads16(v, v_strides);
        const TileKernels& kernel = *table().tiles;
        for_segments(layout, sizes, threads, kernel.attention_scratch,
                     [&](const AttentionSegment& s, std::int64_t head, float* scratch) {
                       kernel.attention_forward(s, sizes, queries, keys, values, head, out16(o), out(lse), scratch);
                     });
      },
      "As attention_forward, of bfloat16; lse is float32.");
  cpu.def(
      "attention_backward16",
      [](const InputArray<std::int64_t>& layout, Address q, Strides q_strides, Address k, Strides k_strides, Address v,
         Strides v_strides, std::array<Address, 8> gradients, std::int64_t dq_stride, std::array<std::int64_t, 4> shape,
         float scale, int threads) {
        const AttentionShape sizes{shape[0], shape[1], shape[2], shape[3], scale};
        const Heads16 queries = heads16(q, q_strides), keys = heads16(k, k_strides), values = heads16(v, v_strides);
        const auto [d_o, o, lse, cos, sin, dq, dk, dv] = gradients;
        const AttentionGradients16 g{in16(d_o), in16(o),   in(lse), in(cos), in(sin),
                                     out16(dq), dq_stride, out(dk), out(dv)};
        const TileKernels& kernel = *table().tiles;
        for_segments(layout, sizes, threads, kernel.attention_scratch,
                     [&](const AttentionSegment& s, std::int64_t head, float* scratch) {
                       kernel.attention_backward(s, sizes, queries, keys, values, head, g, scratch);
                     });
      },
      "As the forward pass, with (do, o, lse, cos, sin, dq, dk, dv) and the stride of tokens in dq; dk and dv are "
      "float32, dq is turned back by the angles.");
  cpu.def(
      "weight_gradient",
      [](Address dy, std::int64_t dy_stride, Address x, std::int64_t x_stride, Address dw,
         std::array<std::int64_t, 3> shape, int threads) {
        const WeightGradient g{{in16(dy), dy_stride}, {in16(x), x_stride}, out(dw), shape[0], shape[1], shape[2]};
        py::gil_scoped_release release;
        weight_gradient(g, threads);
      },
      "Address and stride of dy and x, dw, (rows, outputs, inputs), threads.");

  cpu.def("rms_norm_forward", [](Address x, Address weight, Address y, Address rstd, std::int64_t rows,
                                 std::int64_t width, float eps, int threads) {
    for_rows(rows, threads, [&](std::int64_t first, std::int64_t last) {
      table().rms_norm_forward(in(x), in(weight), out(y), out(rstd), first, last, width, eps);
    });
  });
  cpu.def("rms_norm_backward", [](Address dy, Address x, Address weight, Address rstd, Address dx, Address dweight,
                                  std::int64_t rows, std::int64_t width, int threads) {
    sum_over_rows(rows, width, out(dweight), threads, [&](std::int64_t first, std::int64_t last, float* sums) {
      table().rms_norm_backward(in(dy), in(x), in(weight), in(rstd), out(dx), sums, first, last, width);
    });
  });
  cpu.def(
      "add_rms_norm_forward16",
      [](Address x, Address residual, Address weight, Address total, Address y, Address rstd, std::int64_t rows,
         std::int64_t width, float eps, int threads) {
        for_rows(rows, threads, [&](std::int64_t first, std::int64_t last) {
          table().add_rms_norm_forward16(in16(x), in(residual), in(weight), out(total), out16(y), out(rstd), first,
                                         last, width, eps);
        });
      },
      "x and y are bfloat16.");
  cpu.def(
      "add_rms_norm_backward16",
      [](Address dy, Address dtotal, Address total, Address weight, Address rstd, Address dresidual, Address dx,
         Address dweight, std::int64_t rows, std::int64_t width, int threads) {
        sum_over_rows(rows, width, out(dweight), threads, [&](std::int64_t first, std::int64_t last, float* sums) {
          table().add_rms_norm_backward16(in16(dy), in(dtotal), in(total), in(weight), in(rstd), out(dresidual),
                                          out16(dx), sums, first, last, width);
        });
      },
      "dy and dx are bfloat16; dtotal may be 0.");

  cpu.def("swiglu_forward",
          [](Address gate_up, Address y, std::int64_t rows, std::int64_t width, bool bfloat16, int threads) {
            for_rows(rows, threads, [&](std::int64_t first, std::int64_t last) {
              if (bfloat16)
                table().swiglu_forward16(in16(gate_up), out16(y), first, last, width);
              else
                table().swiglu_forward(in(gate_up), out(y), first, last, width);
            });
          });
  cpu.def("swiglu_backward", [](Address dy, Address gate_up, Address d_gate_up, std::int64_t rows, std::int64_t width,
                                bool bfloat16, int threads) {
    for_rows(rows, threads, [&](std::int64_t first, std::int64_t last) {
      if (bfloat16)
        table().swiglu_backward16(in16(dy), in16(gate_up), out16(d_gate_up), first, last, width);
      else
        table().swiglu_backward(in(dy), in(gate_up), out(d_gate_up), first, last, width);
    });
  });

  cpu.def(
      "rope",
      [](Address x, Strides strides, Address cos, Address sin, Address y, std::int64_t y_stride,
         std::array<std::int64_t, 3> shape, float sign, std::array<bool, 2> bfloat16, int threads) {
        const auto [tokens, heads, dim] = shape;
        const Rotation rotation{in(cos), in(sin), strides[0], strides[1], y_stride, heads, dim, sign};
        for_rows(tokens, threads, [&](std::int64_t first, std::int64_t last) {
          if (bfloat16[0])
            table().rope_rotate16(rotation, in16(x), out16(y), first, last);
          else if (bfloat16[1])
            table().rope_narrow(rotation, in(x), out16(y), first, last);
          else
            table().rope_rotate(rotation, in(x), out(y), first, last);
        });
      },
      "x, its strides of tokens and heads, cos, sin, y, its stride of tokens, (tokens, heads, dim), sign, whether x "
      "and "
      "y are bfloat16, threads.");

  cpu.def("cross_entropy",
          [](Address logits, std::int64_t row_stride, Address labels, Address shares, float z_loss, Address losses,
             Address gradient, std::int64_t rows, std::int64_t width, bool bfloat16, int threads) {
            const auto* label = reinterpret_cast<const std::int64_t*>(labels);
            for_rows(rows, threads, [&](std::int64_t first, std::int64_t last) {
              if (!bfloat16) {
                table().cross_entropy_rows(in(logits), row_stride, label, in(shares), z_loss, out(losses),
                                           out(gradient), first, last, width);
                return;
              }
              Array<float> scratch(static_cast<std::size_t>(2 * width));
              float *row = scratch.data(), *to = gradient ? row + width : nullptr;
              for (std::int64_t n = first; n < last; ++n) {
                table().widen(in16(logits) + n * row_stride, row, width);
                table().cross_entropy_rows(row, 0, label + n, in(shares) + n, z_loss, out(losses) + n, to, 0, 1, width);
                if (to) table().narrow(to, out16(gradient) + n * width, width);
              }
            });
          });

  cpu.def(
      "policy_loss",
      [](std::array<Address, 3> matrices, std::array<std::int64_t, 4> shape, bool bfloat16,
         std::array<Address, 8> vectors, int kind, int estimator, std::array<float, 6> numbers, int threads) {
        const auto [rows, width, row_stride, reference_stride] = shape;
        const auto matrix = [&](Address address, std::int64_t stride) { return Rows{out(address), stride, bfloat16}; };
        const auto [tokens, weights, advantages, old, importance, reference, log_ratios, logprobs] = vectors;
        const PolicyLoss loss{matrix(matrices[0], row_stride),
                              matrix(matrices[1], reference_stride),
                              matrix(matrices[2], width),
                              width,
                              reinterpret_cast<const std::int64_t*>(tokens),
                              in(weights),
                              in(advantages),
                              in(old),
                              in(importance),
                              in(reference),
                              in(log_ratios),
                              out(logprobs),
                              static_cast<PolicyKind>(kind),
                              estimator,
                              numbers[0],
                              numbers[1],
                              numbers[2],
                              numbers[3],
                              numbers[4],
                              numbers[5]};
        PolicyTotals totals;
        {
          py::gil_scoped_release release;
          totals = policy_loss(loss, rows, threads);
        }
        std::vector<double> found(totals.sums, totals.sums + kPolicySums);
        found.insert(found.end(), totals.maxima, totals.maxima + kPolicyMaxima);
        return found;
      },
      "(logits, reference logits, gradient), (rows, width, strides of the first two), whether they are bfloat16, "
      "(tokens, weights, advantages, old, importance, reference, log_ratios, logprobs), kind, estimator, (1 / T, "
      "clip_low, clip_high, clip_dual, kl_coef, entropy_coef), threads; address 0: none. Returns the statistics.");
}

}  // namespace fastreason
