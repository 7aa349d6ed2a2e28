#include "sample/sample.h"

#include "bindings/bindings.h"

namespace fastreason {

namespace {

using Integers = py::array_t<std::int64_t, py::array::c_style>;

py::tuple sample(const py::array_t<float, 0>& logits, std::uint64_t seed, const Integers& prompts,
                 const Integers& samples, const Integers& positions, double temperature, int top_k, double top_p,
                 double min_p, int threads) {
  constexpr py::ssize_t kSize = sizeof(float);
  if (logits.ndim() != 2 || logits.shape(1) < 1 || logits.shape(1) > (1 << 23) || logits.strides(1) != kSize ||
      logits.strides(0) % kSize != 0)
    throw py::value_error("sample: logits must be float32 [N, V], 1 <= V <= 2^23, contiguous along V");
  const py::ssize_t n = logits.shape(0);
  for (const Integers* key : {&prompts, &samples, &positions})
    if (key->ndim() != 1 || key->size() != n)
      throw py::value_error("sample: prompts, samples and positions must be [N] = [" + std::to_string(n) + "], got " +
                            std::to_string(prompts.size()) + ", " + std::to_string(samples.size()) + " and " +
                            std::to_string(positions.size()));
  const int V = static_cast<int>(logits.shape(1));
  const SampleSettings settings = sample_settings(temperature, top_k, top_p, min_p, V);
  const DrawKeys keys{seed, prompts.data(), samples.data(), positions.data()};
  Integers tokens(n);
  py::array_t<float> logprobs(n), full_logprobs(n);
  const SampleOutput out{tokens.mutable_data(), logprobs.mutable_data(), full_logprobs.mutable_data()};
  const float* first = logits.data();
  const std::int64_t stride = logits.strides(0) / kSize;
  {
    py::gil_scoped_release release;
    sample_rows(first, n, V, stride, settings, keys, out, threads);
  }
  return py::make_tuple(tokens, logprobs, full_logprobs);
}

}  // namespace

void bind_sample(py::module_& m) {
  m.def("sample", &sample, py::arg("logits").noconvert(), py::arg("seed"), py::arg("prompts"), py::arg("samples"),
        py::arg("positions"), py::kw_only(), py::arg("temperature") = 1.0, py::arg("top_k") = 0, py::arg("top_p") = 1.0,
        py::arg("min_p") = 0.0, py::arg("threads") = 0,
        "One token a row, as kernels/sample.py defines it: tokens int64, log-probabilities after and before the "
        "filters,\n"
        "float32 [N]; token -1 where a row has no distribution. The same for any `threads` (0: all cores).");
}

}  // namespace fastreason
