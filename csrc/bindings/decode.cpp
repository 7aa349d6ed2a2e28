#include <algorithm>
#include <array>
#include <string>

#include "bindings/bindings.h"
#include "decode/decoder.h"

namespace fastreason {

namespace {

using FloatArray = py::array_t<float, py::array::c_style>;

const float* checked(const FloatArray& array, const char* name, std::int64_t rows, std::int64_t columns) {
  if (array.size() != rows * columns)
    throw py::value_error(std::string("CpuDecoder: ") + name + " must hold " + std::to_string(rows) + " x " +
                          std::to_string(columns) + " floats, got " + std::to_string(array.size()));
  return array.data();
}

std::unique_ptr<CpuDecoder> make_decoder(std::int64_t hidden, std::int64_t layers, std::int64_t heads,
                                         std::int64_t kv_heads, std::int64_t head_dim, std::int64_t intermediate,
                                         std::int64_t vocab, float eps, const std::string& kernel,
                                         const FloatArray& cos, const FloatArray& sin) {
  if (std::min({hidden, layers, heads, kv_heads, head_dim, intermediate, vocab}) < 1 || heads % kv_heads != 0 ||
      head_dim % 2 != 0)
    throw py::value_error("CpuDecoder: sizes must be positive, heads a multiple of kv_heads and head_dim even");
  const std::int64_t positions = cos.size() / (head_dim / 2);
  const DecoderShape shape = {hidden, layers, heads, kv_heads, head_dim, intermediate, vocab, positions, eps};
  const std::vector<ForwardKernel> kernels = forward_kernels();
  const auto found = std::find_if(kernels.begin(), kernels.end(),
                                  [&](const ForwardKernel& k) { return kernel == "auto" || kernel == k.name; });
  if (found == kernels.end()) throw py::value_error("CpuDecoder: this processor has no kernel '" + kernel + "'");
  return std::make_unique<CpuDecoder>(shape, found->run, checked(cos, "cos", positions, head_dim / 2),
                                      checked(sin, "sin", positions, head_dim / 2));
}

void load(CpuDecoder& decoder, const FloatArray& embedding, const FloatArray& head, const FloatArray& final_norm,
          const std::vector<std::array<FloatArray, 7>>& layers) {
  const DecoderShape& s = decoder.shape();
  if (std::ssize(layers) != s.layers)
    throw py::value_error("CpuDecoder: need " + std::to_string(s.layers) + " layers, got " +
                          std::to_string(layers.size()));
  ModelWeights weights{checked(embedding, "embedding", s.vocab, s.hidden),
                       checked(head, "head", s.vocab, s.hidden),
                       checked(final_norm, "final_norm", 1, s.hidden),
                       {}};
  for (const auto& layer : layers)
    weights.layers.push_back(
        {checked(layer[0], "attention_norm", 1, s.hidden), checked(layer[1], "qkv", s.qkv_width(), s.hidden),
         checked(layer[2], "qkv_bias", 1, s.qkv_width()), checked(layer[3], "out", s.hidden, s.heads * s.head_dim),
         checked(layer[4], "mlp_norm", 1, s.hidden), checked(layer[5], "gate_up", 2 * s.intermediate, s.hidden),
         checked(layer[6], "down", s.hidden, s.intermediate)});
  py::gil_scoped_release release;
  decoder.load(weights);
}

template <class T>
std::span<const T> span_of(const InputArray<T>& array) {
  return {array.data(), static_cast<std::size_t>(array.size())};
}

void check_tokens(const CpuDecoder& decoder, std::span<const std::int32_t> tokens) {
  for (const std::int32_t token : tokens)
    if (token < 0 || token >= decoder.shape().vocab)
      throw py::value_error("CpuDecoder: tokens must be in 0 .. " + std::to_string(decoder.shape().vocab - 1) +
                            ", got " + std::to_string(token));
}

py::tuple prefill(CpuDecoder& decoder, const InputArray<std::int32_t>& tokens, const InputArray<std::int64_t>& offsets,
                  int threads) {
  const auto borders = span_of(offsets);
  if (borders.empty() || borders.front() != 0 || borders.back() != tokens.size())
    throw py::value_error("CpuDecoder: offsets must go from 0 to the number of tokens");
  for (std::size_t p = 1; p < borders.size(); ++p)
    if (borders[p] <= borders[p - 1] || borders[p] - borders[p - 1] > decoder.shape().positions)
      throw py::value_error("CpuDecoder: prompts must have 1 .. " + std::to_string(decoder.shape().positions) +
                            " tokens");
  check_tokens(decoder, span_of(tokens));
  FloatArray logits({std::ssize(borders) - 1, static_cast<py::ssize_t>(decoder.shape().vocab)});
  float* const to = logits.mutable_data();
  std::vector<std::int64_t> ids;
  {
    py::gil_scoped_release release;
    ids = decoder.prefill(span_of(tokens), borders, to, threads);
  }
  return py::make_tuple(to_array(std::move(ids)), logits);
}

FloatArray decode(CpuDecoder& decoder, const InputArray<std::int64_t>& slots, const InputArray<std::int64_t>& prompts,
                  const InputArray<std::int64_t>& lengths, const InputArray<std::int32_t>& tokens, int threads) {
  const py::ssize_t n = slots.size();
  if (prompts.size() != n || lengths.size() != n || tokens.size() != n)
    throw py::value_error("CpuDecoder: slots, prompts, lengths and tokens must be of one length");
  for (py::ssize_t i = 0; i < n; ++i)
    if (slots.data()[i] < 0 || slots.data()[i] >= decoder.slots() || !decoder.holds(prompts.data()[i]) ||
        !decoder.has_room(prompts.data()[i], lengths.data()[i]))
      throw py::value_error("CpuDecoder: sequence " + std::to_string(i) + " has no slot, no prompt or no room");
  check_tokens(decoder, span_of(tokens));
  FloatArray logits({n, static_cast<py::ssize_t>(decoder.shape().vocab)});
  float* const to = logits.mutable_data();
  py::gil_scoped_release release;
  decoder.decode(span_of(slots), span_of(prompts), span_of(lengths), span_of(tokens), to, threads);
  return logits;
}

}  // namespace

void bind_decode(py::module_& m) {
  m.def(
      "decode_kernels",
      [] {
        std::vector<std::string> names;
        for (const ForwardKernel& kernel : forward_kernels()) names.emplace_back(kernel.name);
        return names;
      },
      "The instruction sets that CpuDecoder is built for and this processor has, the fastest first.");
  py::class_<CpuDecoder>(m, "CpuDecoder",
                         "A Qwen2-shaped decoder in float32 on CPU: prompts once, then token by token.")
      .def(py::init(&make_decoder), py::kw_only(), py::arg("hidden"), py::arg("layers"), py::arg("heads"),
           py::arg("kv_heads"), py::arg("head_dim"), py::arg("intermediate"), py::arg("vocab"), py::arg("eps"),
           py::arg("kernel") = "auto", py::arg("cos").noconvert(), py::arg("sin").noconvert())
      .def("load", &load, py::arg("embedding").noconvert(), py::arg("head").noconvert(),
           py::arg("final_norm").noconvert(), py::arg("layers"),
           "Copies the weights; a layer is (attention_norm, qkv, qkv_bias, out, mlp_norm, gate_up, down).")
      .def("reserve", &CpuDecoder::reserve, py::arg("slots"), py::arg("capacity"),
           "Room for `slots` sequences of `capacity` new tokens; forgets all prompts.")
      .def(
          "kv_bytes",
          [](const CpuDecoder& d, std::int64_t tokens) { return 4 * d.shape().kv_floats(round_up(tokens)); },
          py::arg("tokens"), "Bytes of the keys and values of one sequence or prompt.")
      .def("prefill", &prefill, py::arg("tokens"), py::arg("offsets"), py::kw_only(), py::arg("threads") = 0,
           "int64 [P], the prompts' numbers, and float32 [P, V], the logits behind each.")
      .def(
          "release",
          [](CpuDecoder& decoder, std::int64_t prompt) {
            if (!decoder.holds(prompt)) throw py::value_error("CpuDecoder: no prompt " + std::to_string(prompt));
            decoder.release(prompt);
          },
          py::arg("prompt"), "Frees a prompt.")
      .def("decode", &decode, py::arg("slots"), py::arg("prompts"), py::arg("lengths"), py::arg("tokens"),
           py::kw_only(), py::arg("threads") = 0,
           "float32 [N, V]: logits behind one more token of each sequence, which stands in slots[i] behind prompts[i]\n"
           "with lengths[i] tokens of its own so far. The same bits for any batch, order or number of threads.");
}

}  // namespace fastreason
