// fastreason._cuda: device addresses come in as integers, so the module is tied to no build of torch.
#include <pybind11/pybind11.h>

#include <cmath>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "cuda/sampler.h"
#include "sample/settings.h"

namespace fastreason {

namespace {

namespace py = pybind11;

template <class T>
T* at(std::uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

void check(int error, const char* doing) {
  if (error != 0) throw std::runtime_error(std::string(doing) + ": " + error_text(error));
}

void sample(int device, std::uintptr_t stream, std::uintptr_t logits, int type, std::int64_t num_rows, std::int64_t V,
            std::int64_t stride, std::uint64_t seed, std::uintptr_t prompts, std::uintptr_t samples,
            std::uintptr_t positions, std::uintptr_t tokens, std::uintptr_t logprobs, std::uintptr_t full_logprobs,
            double temperature, int top_k, double top_p, double min_p) {
  if (V < 1 || V > kMostTokens || num_rows < 0 || num_rows > 0x7FFFFFFF || type < 0 || type > 2)
    throw py::value_error("sample: need 1 <= V <= 2^18, 0 <= N < 2^31 and type 0, 1 or 2, got " + std::to_string(V) +
                          ", " + std::to_string(num_rows) + " and " + std::to_string(type));
  const DeviceSampleCall call{device,
                              at<const void>(logits),
                              static_cast<LogitType>(type),
                              num_rows,
                              static_cast<int>(V),
                              stride,
                              seed,
                              at<const std::int64_t>(prompts),
                              at<const std::int64_t>(samples),
                              at<const std::int64_t>(positions),
                              sample_settings(temperature, top_k, top_p, min_p, static_cast<int>(V)),
                              at<std::int64_t>(tokens),
                              at<float>(logprobs),
                              at<float>(full_logprobs)};
  py::gil_scoped_release release;
  check(launch_sampler(call, at<void>(stream)), "sample");
}

}  // namespace

PYBIND11_MODULE(_cuda, m) {
  m.doc() =
      "CUDA kernels of fastreason. Importing it makes no CUDA call; fastreason.cuda says whether it can run here.";
  m.attr("__version__") = FASTREASON_VERSION;
  m.attr("architectures") = FASTREASON_CUDA_ARCHITECTURES;
  m.attr("runtime_version") = kRuntimeVersion;
  m.def(
      "status",
      [] {
        const DeviceStatus status = device_status();
        return py::make_tuple(status.num_devices, status.driver_version,
                              status.error == 0 ? "" : error_text(status.error));
      },
      "(devices, newest CUDA that the driver supports as 13000 for 13.0 and 0 without a driver, error or empty text).");
  m.def("sample", &sample, py::kw_only(), py::arg("device"), py::arg("stream"), py::arg("logits"), py::arg("type"),
        py::arg("num_rows"), py::arg("V"), py::arg("stride"), py::arg("seed"), py::arg("prompts"), py::arg("samples"),
        py::arg("positions"), py::arg("tokens"), py::arg("logprobs"), py::arg("full_logprobs"),
        py::arg("temperature") = 1.0, py::arg("top_k") = 0, py::arg("top_p") = 1.0, py::arg("min_p") = 0.0,
        "Puts the sampler on the stream: addresses of device memory, type 0 float32, 1 float16, 2 bfloat16, stride in\n"
        "elements. Neither allocates nor waits.");
}

}  // namespace fastreason
