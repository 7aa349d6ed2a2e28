#include <algorithm>
#include <array>
#include <string>

#include "bindings/bindings.h"
#include "decode/decoder.h"

namespace fastreason {

namespace {

using FloatArray = py::array_t<float, py::array::c_style>;

// More than any memory, and no overflow.
constexpr std::int64_t kMostBytes = std::int64_t{1} << 62;

Precision precision_of(const std::string& name) {
  if (name == "float32") return Precision::kFloat32;
  if (name == "bfloat16") return Precision::kBfloat16;
  throw py::value_error("CpuDecoder: precision must be 'float32' or 'bfloat16', got '" + name + "'");
}

const float* checked(const FloatArray& array, const char* name, std::int64_t rows, std::int64_t columns) {
  if (array.size() != rows * columns)
    throw py::value_error(std::string("CpuDecoder: ") + name + " must hold " + std::to_string(rows) + " x " +
                          std::to_string(columns) + " floats, got " + std::to_string(array.size()));
  return array.data();
}

std::unique_ptr<CpuDecoder> make_decoder(std::int64_t hidden, std::int64_t layers, std::int64_t heads,
                                         std::int64_t kv_heads, std::int64_t head_dim, std::int64_t intermediate,
                                         std::int64_t vocab, float eps, const std::string& precision,
                                         const std::string& kernel, const FloatArray& cos, const FloatArray& sin) {
  if (std::min({hidden, layers, heads, kv_heads, head_dim, intermediate, vocab}) < 1 || heads % kv_heads != 0 ||
      head_dim % 2 != 0)
    throw py::value_error("CpuDecoder: sizes must be positive, heads a multiple of kv_heads and head_dim even");
  const std::int64_t positions = cos.size() / (head_dim / 2);
  const DecoderShape shape = {hidden, layers, heads, kv_heads, head_dim, intermediate, vocab, positions, eps};
  const std::vector<ForwardKernel> kernels = forward_kernels(precision_of(precision));
  const auto found = std::find_if(kernels.begin(), kernels.end(),
                                  [&](const ForwardKernel& k) { return kernel == "auto" || kernel == k.name; });
  if (found == kernels.end())
    throw py::value_error("CpuDecoder: this processor has no kernel '" + kernel + "' in " + precision);
  return std::make_unique<CpuDecoder>(shape, *found, checked(cos, "cos", positions, head_dim / 2),
                                      checked(sin, "sin", positions, head_dim / 2));
}

void load(CpuDecoder& decoder, const FloatArray& embedding, const FloatArray& head, const FloatArray& final_norm,
          const std::vector<std::array<FloatArray, 7>>& layers) {
  const OneAtATime::Turn turn(decoder.turns());
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

void reserve(CpuDecoder& decoder, std::int64_t slots, std::int64_t capacity) {
  const OneAtATime::Turn turn(decoder.turns());
  const DecoderShape& s = decoder.shape();
  if (capacity < 0 || capacity > s.positions)
    throw py::value_error("CpuDecoder: capacity must be in 0 .. " + std::to_string(s.positions) + ", got " +
                          std::to_string(capacity));
  const std::int64_t most = kMostBytes / decoder.kv_bytes(capacity + 1);
  if (slots < 0 || slots > most)
    throw py::value_error("CpuDecoder: slots must be in 0 .. " + std::to_string(most) + ", got " +
                          std::to_string(slots));
  decoder.reserve(slots, capacity);
}

void release(CpuDecoder& decoder, std::int64_t prompt) {
  const OneAtATime::Turn turn(decoder.turns());
  if (!decoder.holds(prompt)) throw py::value_error("CpuDecoder: no prompt " + std::to_string(prompt));
  decoder.release(prompt);
}

void check_tokens(const CpuDecoder& decoder, std::span<const std::int32_t> tokens) {
  for (const std::int32_t token : tokens)
    if (token < 0 || token >= decoder.shape().vocab)
      throw py::value_error("CpuDecoder: tokens must be in 0 .. " + std::to_string(decoder.shape().vocab - 1) +
                            ", got " + std::to_string(token));
}

py::tuple prefill(CpuDecoder& decoder, const InputArray<std::int32_t>& tokens, const InputArray<std::int64_t>& offsets,
                  int threads) {
  const OneAtATime::Turn turn(decoder.turns());
  // what is checked must stay as it is, whatever other threads do to the arrays
  const std::vector<std::int32_t> ids = copy_of(tokens);
  const std::vector<std::int64_t> borders = copy_of(offsets);
  if (borders.empty() || borders.front() != 0 || borders.back() != std::ssize(ids))
    throw py::value_error("CpuDecoder: offsets must go from 0 to the number of tokens");
  for (std::size_t p = 1; p < borders.size(); ++p)
    if (borders[p] <= borders[p - 1] || borders[p] - borders[p - 1] > decoder.shape().positions)
      throw py::value_error("CpuDecoder: prompts must have 1 .. " + std::to_string(decoder.shape().positions) +
                            " tokens");
  check_tokens(decoder, ids);
  if (!decoder.is_loaded()) throw py::value_error("CpuDecoder: load weights first");
  FloatArray logits({std::ssize(borders) - 1, static_cast<py::ssize_t>(decoder.shape().vocab)});
  float* const to = logits.mutable_data();
  auto numbers = without_gil([&] { return decoder.prefill(ids, borders, to, threads); });
  return py::make_tuple(to_array(std::move(numbers)), logits);
}

FloatArray decode(CpuDecoder& decoder, const InputArray<std::int64_t>& slots, const InputArray<std::int64_t>& prompts,
                  const InputArray<std::int64_t>& lengths, const InputArray<std::int32_t>& tokens, int threads) {
  const OneAtATime::Turn turn(decoder.turns());
  const std::vector<std::int64_t> in_slot = copy_of(slots), behind = copy_of(prompts), own = copy_of(lengths);
  const std::vector<std::int32_t> ids = copy_of(tokens);
  if (behind.size() != in_slot.size() || own.size() != in_slot.size() || ids.size() != in_slot.size())
    throw py::value_error("CpuDecoder: slots, prompts, lengths and tokens must be of one length");
  std::vector<bool> taken(static_cast<std::size_t>(decoder.slots()));
  for (std::size_t i = 0; i < in_slot.size(); ++i) {
    if (in_slot[i] < 0 || in_slot[i] >= decoder.slots() || !decoder.holds(behind[i]) ||
        !decoder.has_room(behind[i], own[i]))
      throw py::value_error("CpuDecoder: sequence " + std::to_string(i) + " has no slot, no prompt or no room");
    if (taken[static_cast<std::size_t>(in_slot[i])])
      throw py::value_error("CpuDecoder: two sequences in slot " + std::to_string(in_slot[i]));
    taken[static_cast<std::size_t>(in_slot[i])] = true;
  }
  check_tokens(decoder, ids);
  FloatArray logits({std::ssize(ids), static_cast<py::ssize_t>(decoder.shape().vocab)});
  float* const to = logits.mutable_data();
  without_gil([&] { decoder.decode(in_slot, behind, own, ids, to, threads); });
  return logits;
}

}  // namespace

void bind_decode(py::module_& m) {
  m.def(
      "decode_kernels",
      [](const std::string& precision) {
        std::vector<std::string> names;
        for (const ForwardKernel& kernel : forward_kernels(precision_of(precision))) names.emplace_back(kernel.name);
        return names;
      },
      py::arg("precision") = "float32",
      "The instruction sets that CpuDecoder is built for and this processor has, the fastest first.");
  py::class_<CpuDecoder>(m, "CpuDecoder",
                         "A Qwen2-shaped decoder on CPU, in float32 or bfloat16: prompts once, then token by token.")
      .def(py::init(&make_decoder), py::kw_only(), py::arg("hidden"), py::arg("layers"), py::arg("heads"),
           py::arg("kv_heads"), py::arg("head_dim"), py::arg("intermediate"), py::arg("vocab"), py::arg("eps"),
           py::arg("precision") = "float32", py::arg("kernel") = "auto", py::arg("cos").noconvert(),
           py::arg("sin").noconvert())
      .def("load", &load, py::arg("embedding").noconvert(), py::arg("head").noconvert(),
           py::arg("final_norm").noconvert(), py::arg("layers"),
           "Copies the weights, rounded to the precision; a layer is (attention_norm, qkv, qkv_bias, out, mlp_norm, "
           "gate_up, down).")
      .def("reserve", &reserve, py::arg("slots"), py::arg("capacity"),
           "Room for `slots` sequences of `capacity` new tokens; forgets all prompts.")
      .def("kv_bytes", &CpuDecoder::kv_bytes, py::arg("tokens"),
           "Bytes of the keys and values of one sequence or prompt.")
      .def("prefill", &prefill, py::arg("tokens"), py::arg("offsets"), py::kw_only(), py::arg("threads") = 0,
           "int64 [P], the prompts' numbers, and float32 [P, V], the logits behind each.")
      .def("release", &release, py::arg("prompt"), "Frees a prompt.")
      .def("decode", &decode, py::arg("slots"), py::arg("prompts"), py::arg("lengths"), py::arg("tokens"),
           py::kw_only(), py::arg("threads") = 0,
           "float32 [N, V]: logits behind one more token of each sequence, which stands in slots[i] behind prompts[i]\n"
           "with lengths[i] tokens of its own so far. The same bits for any batch, order or number of threads.");
}

}  // namespace fastreason
