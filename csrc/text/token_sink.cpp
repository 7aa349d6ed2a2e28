#include "text/token_sink.h"

#include <charconv>
#include <string>

namespace fastreason {

EncodedTheme::EncodedTheme(const Theme& theme, const Tokenizer& tokenizer) : tokenizer_(tokenizer) {
  for (int id = 0; id < theme.num_pieces(); ++id) {
    begins_.push_back(ids_.size());
    tokenizer.encode(theme.piece(id), ids_);
  }
  begins_.push_back(ids_.size());
  ids_.resize(ids_.size() + TokenBuffer::kSlack);
  for (int n = 0; n < 1000; ++n) {
    const std::string digits = std::to_string(n);
    tokenizer.encode(" " + digits, small_);
    tokenizer.encode(digits, bare_small_);
  }
}

void EncodedTheme::append_integer(std::int64_t value, bool leading_blank, TokenBuffer& out) const {
  if (value >= 0 && value < 1000) {
    out.append((leading_blank ? small_ : bare_small_)[static_cast<std::size_t>(value)]);
    return;
  }
  char digits[24] = {' '};
  char* const end = std::to_chars(digits + 1, digits + sizeof digits, value).ptr;
  const char* const begin = leading_blank ? digits : digits + 1;
  std::vector<std::int32_t> ids;
  tokenizer_.encode({begin, static_cast<std::size_t>(end - begin)}, ids);
  out.append_copy(ids);
}

}  // namespace fastreason
