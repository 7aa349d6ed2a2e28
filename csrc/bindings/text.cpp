#include <array>
#include <memory>
#include <string>

#include "bindings/bindings.h"
#include "bindings/texts.h"
#include "text/byte_pair_tokenizer.h"
#include "text/packing.h"
#include "text/pattern.h"
#include "text/prefetch.h"
#include "text/tokenizer.h"
#include "text/word_tokenizer.h"

namespace fastreason {

namespace {

// Concatenated ids of all texts, and the offset of each; the last offset is the total.
template <class TextAt>
py::tuple encode_all(const Tokenizer& tokenizer, std::int64_t n, TextAt&& text_at) {
  std::vector<std::int32_t> ids;
  std::vector<std::int64_t> offsets = {0};
  without_gil([&] {
    for (std::int64_t i = 0; i < n; ++i) {
      interruption_point();
      tokenizer.encode(text_at(i), ids);
      offsets.push_back(static_cast<std::int64_t>(ids.size()));
    }
  });
  return py::make_tuple(to_array(std::move(ids)), to_array(std::move(offsets)));
}

py::dict batch_of(PackedRows&& packed) {
  py::dict out;
  out["tokens"] = to_array(std::move(packed.tokens));
  out["positions"] = to_array(std::move(packed.positions));
  out["loss_mask"] = to_array(std::move(packed.loss_mask));
  out["starts"] = to_array(std::move(packed.starts));
  out["lengths"] = to_array(std::move(packed.lengths));
  out["next_index"] = packed.next_index;
  return out;
}

void check_rows(const char* name, std::int64_t start, std::int64_t step, std::int64_t rows, std::int64_t length) {
  if (start < 0 || step < 1 || rows < 1 || length < 1 || rows > (std::int64_t{1} << 31) / length - 1)
    throw py::value_error(std::string(name) +
                          ": need start >= 0, step >= 1, rows >= 1, length >= 1 and rows * length < 2**31, got start " +
                          std::to_string(start) + ", step " + std::to_string(step) + ", rows " + std::to_string(rows) +
                          ", length " + std::to_string(length));
}

}  // namespace

void bind_text(py::module_& m) {
  m.def(
      "split_words",
      [](const std::string& text) {
        std::vector<std::string> words;
        for (std::size_t at = 0; at < text.size();) {
          const std::size_t end = word_end(text, at);
          words.push_back(text.substr(at, end - at));
          at = end;
        }
        return words;
      },
      py::arg("text"), "The words that the tokenizer cuts a text into, known or not.");

  m.def(
      "split_pattern",
      [](const std::string& pattern, const std::string& text) {
        std::vector<std::string_view> found;
        without_gil([&] {
          Pattern(pattern).split(text, [&](std::size_t begin, std::size_t end) {
            found.push_back(std::string_view(text).substr(begin, end - begin));
          });
        });
        std::vector<py::bytes> pieces;
        for (const std::string_view piece : found) pieces.emplace_back(piece.data(), piece.size());
        return pieces;
      },
      py::arg("pattern"), py::arg("text"), "Matches of a regular expression and what lies between them, in order.");

  py::class_<Tokenizer, std::shared_ptr<Tokenizer>>(m, "Tokenizer", "Text to ids and back.")
      .def("__len__", &Tokenizer::size)
      .def(
          "encode",
          [](const Tokenizer& tokenizer, const std::string& text) {
            std::vector<std::int32_t> ids;
            without_gil([&] { tokenizer.encode(text, ids); });
            return to_array(std::move(ids));
          },
          py::arg("text"), "int32 ids of a text.")
      .def(
          "encode_batch",
          [](const Tokenizer& tokenizer, const py::list& list) {
            const Texts texts(list);
            return encode_all(tokenizer, texts.size(), [&](std::int64_t i) { return texts[i]; });
          },
          py::arg("texts"), "(int32 ids of all texts in a row, int64 offsets of length n + 1).")
      .def(
          "encode_prompts",
          [](const Tokenizer& tokenizer, const ProblemBatch& batch) {
            std::string text;
            return encode_all(tokenizer, batch.size(), [&](std::int64_t i) -> std::string_view {
              text.clear();
              batch.append_prompt(i, text);
              return text;
            });
          },
          py::arg("batch"), "encode_batch of the prompts of a batch.")
      .def(
          "decode",
          [](const Tokenizer& tokenizer, const InputArray<std::int32_t>& ids) {
            std::string text;
            tokenizer.decode({ids.data(), static_cast<std::size_t>(ids.size())}, text);
            return py::reinterpret_steal<py::str>(
                PyUnicode_DecodeUTF8(text.data(), static_cast<py::ssize_t>(text.size()), "replace"));
          },
          py::arg("ids"), "The text of int32 ids. Bytes that are no UTF-8 read as U+FFFD.");

  py::class_<WordTokenizer, Tokenizer, std::shared_ptr<WordTokenizer>>(m, "WordTokenizer",
                                                                       "Closed-vocabulary word tokenizer.")
      .def(py::init<std::vector<std::string>>(), py::arg("words"))
      .def(
          "find",
          [](const WordTokenizer& tokenizer, const std::string& word) -> py::object {
            const std::int32_t id = tokenizer.find(word);
            if (tokenizer.word(id) != word) return py::none();
            return py::int_(id);
          },
          py::arg("word"), "The id of a word of the vocabulary, or None.");

  py::class_<BytePairTokenizer, Tokenizer, std::shared_ptr<BytePairTokenizer>>(m, "BytePairTokenizer",
                                                                               "Byte-level byte-pair encoding.")
      .def(py::init([](std::vector<std::string> words, std::vector<std::int32_t> byte_ids,
                       std::vector<std::array<std::int32_t, 3>> merges, std::vector<std::int32_t> specials,
                       std::vector<std::string> patterns, std::int32_t padding_id, std::int32_t end_id) {
             return std::make_shared<BytePairTokenizer>(BytePairSpec{std::move(words), std::move(byte_ids),
                                                                     std::move(merges), std::move(specials),
                                                                     std::move(patterns), padding_id, end_id});
           }),
           py::kw_only(), py::arg("words"), py::arg("byte_ids"), py::arg("merges"), py::arg("specials"),
           py::arg("patterns"), py::arg("padding_id"), py::arg("end_id"));

  py::class_<Packer, std::shared_ptr<Packer>>(m, "Packer", "Rows of whole documents as token ids.")
      .def(py::init([](const std::shared_ptr<TaskStream>& stream, const std::shared_ptr<Tokenizer>& tokenizer) {
             return std::make_shared<Packer>(stream, tokenizer);
           }),
           py::arg("stream"), py::arg("tokenizer"))
      .def(
          "pack",
          [](const Packer& packer, std::int64_t start, std::int64_t rows, std::int64_t length, std::int64_t step,
             int threads) {
            check_rows("pack", start, step, rows, length);
            return batch_of(without_gil([&] { return packer.pack(start, step, rows, length, threads); }));
          },
          py::arg("start"), py::arg("rows"), py::arg("length"), py::kw_only(), py::arg("step") = 1,
          py::arg("threads") = 0,
          "Flat arrays of rows * length tokens, the documents' starts and lengths in them, and the next index.")
      .def(
          "encode",
          [](const Packer& packer, std::int64_t start, std::int64_t count, std::int64_t step, int threads) {
            if (start < 0 || step < 1 || count < 0)
              throw py::value_error("encode: need start >= 0, step >= 1 and count >= 0, got start " +
                                    std::to_string(start) + ", step " + std::to_string(step) + ", count " +
                                    std::to_string(count));
            EncodedDocuments encoded = without_gil([&] { return packer.encode(start, step, count, threads); });
            return py::make_tuple(to_array(std::move(encoded.tokens)), to_array(std::move(encoded.cu_seqlens)),
                                  to_array(std::move(encoded.prompt_lengths)));
          },
          py::arg("start"), py::arg("count"), py::kw_only(), py::arg("step") = 1, py::arg("threads") = 0,
          "(int32 tokens of all documents, int64 offsets of length n + 1, int32 prompt lengths).");

  py::class_<Prefetcher>(m, "Prefetcher", "Batches of a packer one after the other, drawn ahead on a thread.")
      .def(py::init([](const std::shared_ptr<Packer>& packer, std::vector<std::int64_t> starts, std::int64_t rows,
                       std::int64_t length, std::int64_t step, std::int64_t ahead) {
             if (starts.empty() || ahead < 1)
               throw py::value_error("batches: need at least one start and ahead >= 1, got " +
                                     std::to_string(starts.size()) + " starts and ahead " + std::to_string(ahead));
             for (const std::int64_t start : starts) check_rows("batches", start, step, rows, length);
             return std::make_unique<Prefetcher>(packer, std::move(starts), step, rows, length, ahead);
           }),
           py::arg("packer"), py::arg("starts"), py::arg("rows"), py::arg("length"), py::kw_only(), py::arg("step") = 1,
           py::arg("ahead") = 2)
      .def(
          "next", [](Prefetcher& prefetcher) { return batch_of(without_gil([&] { return prefetcher.next(); })); },
          "What Packer.pack returns for the next batch; the lanes, one a start, take turns.")
      .def("close", &Prefetcher::close, py::call_guard<py::gil_scoped_release>(), "Ends the thread.");
}

}  // namespace fastreason
