// A closed-vocabulary word tokenizer: the ids that Hugging Face `tokenizers` gives for the tokenizer.json we save.
//
// Text is cut into words by the pattern (first alternative that matches, from left to right)
//   ` ?</?[a-z]+>`  a tag          ` ?[A-Za-z\x80-]+:?`  letters, everything outside ASCII counts as one
//   ` ?[0-9]{1,3}`  a digit group  ` ?` and one ASCII punctuation mark     any other single character
// and every word is one token; a word outside the vocabulary is [UNK]. A word keeps its leading blank, so decoding is
// plain concatenation. The four specials [UNK] [PAD] [BOS] [EOS] are found wherever they stand.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer.h"

namespace fastreason {

class WordTokenizer final : public Tokenizer {
 public:
  static constexpr std::int32_t kUnknown = 0, kPadding = 1, kBegin = 2, kEnd = 3;

  // words[i] is token i; the first four must be the specials in the order above. Throws std::invalid_argument.
  explicit WordTokenizer(std::vector<std::string> words);

  // The id of a word, or kUnknown.
  std::int32_t find(std::string_view word) const;

  void encode(std::string_view text, std::vector<std::int32_t>& ids) const override;
  bool cuts_at_pieces() const override { return true; }

 private:
  std::string_view unknown_word() const override { return word(kUnknown); }

  std::vector<std::int32_t> slots_;  // open addressing, -1 is free
  std::size_t mask_ = 0;
};

// Where the word that begins at `begin` ends.
std::size_t word_end(std::string_view text, std::size_t begin);

}  // namespace fastreason
