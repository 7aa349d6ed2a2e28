// Byte-level byte-pair encoding: the ids that Hugging Face `tokenizers` gives for such a tokenizer.json.
//
// Special tokens are found first, the leftmost and of those the longest. What lies between is cut by each pattern in
// turn; the bytes of a piece are its first tokens, and the pair of the lowest rank, leftmost first, is merged until
// none is left. Pieces repeat, so their ids are kept.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "text/pattern.h"
#include "text/piece_cache.h"
#include "text/tokenizer.h"

namespace fastreason {

struct BytePairSpec {
  std::vector<std::string> words;                   // token i as bytes
  std::vector<std::int32_t> byte_ids;               // [256], -1: the byte has no token and is left out
  std::vector<std::array<std::int32_t, 3>> merges;  // left, right, result; in order of rank
  std::vector<std::int32_t> specials;               // ids of tokens that are found as they stand
  std::vector<std::string> patterns;                // each cuts the pieces of the one before
  std::int32_t padding_id = -1, end_id = -1;
};

class BytePairTokenizer final : public Tokenizer {
 public:
  // Throws std::invalid_argument: an id out of range, or a pattern that is not supported.
  explicit BytePairTokenizer(BytePairSpec spec);

  void encode(std::string_view text, std::vector<std::int32_t>& ids) const override;
  bool cuts_at_pieces() const override { return false; }

 private:
  struct Merge {
    std::int32_t rank, result;
  };

  std::string_view unknown_word() const override { return "\xEF\xBF\xBD"; }  // U+FFFD
  // The special token that begins at `at`, or -1.
  std::int32_t special_at(std::string_view text, std::size_t at) const;
  void cut(std::size_t pattern, std::string_view text, std::vector<std::int32_t>& ids) const;
  void encode_piece(std::string_view piece, std::vector<std::int32_t>& ids) const;
  void merge(std::string_view piece, std::vector<std::int32_t>& ids) const;
  const Merge* find_merge(std::int32_t left, std::int32_t right) const;

  std::vector<std::int32_t> byte_ids_;
  std::unordered_map<std::uint64_t, Merge> merges_;
  std::array<std::vector<std::int32_t>, 256> specials_;  // by first byte, the longest first
  std::vector<Pattern> patterns_;
  mutable PieceCache cache_;
};

}  // namespace fastreason
