// Fills rows of a fixed length with whole documents of a stream, as token ids with the segments of a batch.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "tasks/stream.h"
#include "text/token_sink.h"
#include "text/tokenizer.h"

namespace fastreason {

struct PackedRows {
  std::vector<std::int32_t> tokens;     // [rows * length], padding behind the last document of a row
  std::vector<std::int32_t> positions;  // [rows * length], from 0 in every document, 0 on padding
  std::vector<std::uint8_t> loss_mask;  // [rows * length], 1 where the token belongs to the solution, answer or end
  std::vector<std::int32_t> starts, lengths;  // [documents], into the flat tokens
  std::int64_t next_index = 0;                // the first problem that is not in the rows
};

struct EncodedDocuments {
  std::vector<std::int32_t> tokens;          // of all documents, one after the other
  std::vector<std::int64_t> cu_seqlens;      // [documents + 1]: where each begins; the last entry is the total
  std::vector<std::int32_t> prompt_lengths;  // [documents]
};

class Packer {
 public:
  // Throws std::invalid_argument if the tokenizer has no padding or end token.
  Packer(std::shared_ptr<const TaskStream> stream, std::shared_ptr<const Tokenizer> tokenizer);

  // Problems first, first + step, first + 2 step, ... fill `rows` rows of `length` tokens in order. A document is cut
  // only if it is longer than a row.
  PackedRows pack(std::int64_t first, std::int64_t step, std::int64_t rows, std::int64_t length, int threads) const;

  // Problems first, first + step, ..., `count` of them, as they are.
  EncodedDocuments encode(std::int64_t first, std::int64_t step, std::int64_t count, int threads) const;

 private:
  struct Document {
    TokenBuffer ids;
    std::size_t prompt_size = 0;
  };
  struct Scratch {
    Sample sample;
    TextBuffer text;
    std::vector<std::int32_t> ids;
  };
  void write_all(std::int64_t first, std::int64_t step, std::vector<Document>& documents, int threads) const;
  void write(std::int64_t index, Scratch& scratch, Document& document) const;
  void write_text(Scratch& scratch, Document& document) const;

  std::shared_ptr<const TaskStream> stream_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  std::vector<EncodedTheme> themes_;  // none where the tokenizer does not cut at pieces
};

}  // namespace fastreason
