// Writes a problem straight as token ids: the tokens of every piece of a theme are looked up once, beforehand.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "tasks/theme.h"
#include "text/tokenizer.h"

namespace fastreason {

class EncodedTheme {
 public:
  // For a tokenizer that cuts at pieces, and so gives a group of up to three digits one token.
  EncodedTheme(const Theme& theme, const Tokenizer& tokenizer);

  std::span<const std::int32_t> piece(int id) const {
    const auto i = static_cast<std::size_t>(id);
    return {ids_.data() + begins_[i], begins_[i + 1] - begins_[i]};
  }
  void append_integer(std::int64_t value, bool leading_blank, std::vector<std::int32_t>& out) const;

 private:
  const Tokenizer& tokenizer_;
  std::vector<std::int32_t> ids_;
  std::vector<std::size_t> begins_;
  std::vector<std::int32_t> small_, bare_small_;  // ids of " 0" .. " 999" and "0" .. "999"
};

class TokenSink {
 public:
  TokenSink(const EncodedTheme& theme, std::vector<std::int32_t>& out) : theme_(theme), out_(out) {}
  void piece(int id) {
    const auto ids = theme_.piece(id);
    out_.insert(out_.end(), ids.begin(), ids.end());
  }
  void integer(std::int64_t value) { theme_.append_integer(value, true, out_); }
  void bare_integer(std::int64_t value) { theme_.append_integer(value, false, out_); }

 private:
  const EncodedTheme& theme_;
  std::vector<std::int32_t>& out_;
};

}  // namespace fastreason
