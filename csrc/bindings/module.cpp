#include "bindings/bindings.h"
#include "common/philox.h"

namespace fastreason {

namespace {

py::array_t<float> uniform(std::uint64_t seed, const InputArray<std::int64_t>& prompts,
                           const InputArray<std::int64_t>& samples, const InputArray<std::int64_t>& positions) {
  if (prompts.ndim() != 1 || samples.size() != prompts.size() || positions.size() != prompts.size())
    throw py::value_error("uniform: prompts, samples and positions must be 1-D of one length, got " +
                          std::to_string(prompts.size()) + ", " + std::to_string(samples.size()) + " and " +
                          std::to_string(positions.size()));
  const py::ssize_t n = prompts.size();
  py::array_t<float> out(n);
  const std::int64_t *prompt = prompts.data(), *sample = samples.data(), *position = positions.data();
  float* to = out.mutable_data();
  for (py::ssize_t i = 0; i < n; ++i) to[i] = uniform_draw(seed, prompt[i], sample[i], position[i]);
  return out;
}

}  // namespace

PYBIND11_MODULE(_core, m) {
  m.doc() = "C++ core of fastreason: task stream, tokenizer and step verifier.";
  m.attr("__version__") = FASTREASON_VERSION;
  // what the handler of the signal raised is set already
  py::register_exception_translator([](std::exception_ptr error) {
    try {
      std::rethrow_exception(error);
    } catch (const Interrupted&) {
    }
  });
  bind_tasks(m);
  bind_text(m);
  bind_grade(m);
  bind_decode(m);
  bind_sample(m);
  bind_cpu(m);
  m.def(
      "philox4x32", [](PhiloxBlock counter, PhiloxKey key) { return philox4x32(counter, key); }, py::arg("counter"),
      py::arg("key"), "One block of Philox4x32-10: four 32-bit words.");
  m.def("uniform", &uniform, py::arg("seed"), py::arg("prompts"), py::arg("samples"), py::arg("positions"),
        "float32 [N] in (0, 1): a pure function of (seed, prompt, sample, position), from Philox4x32-10 with the seed "
        "as\n"
        "key and (position, sample, prompt low, prompt high) as counter.");
}

}  // namespace fastreason
