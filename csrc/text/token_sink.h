// Writes a problem straight as token ids: the tokens of every piece of a theme are looked up once, beforehand.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <vector>

#include "tasks/theme.h"
#include "text/tokenizer.h"

namespace fastreason {

// Token ids that grow at their end by short copies.
class TokenBuffer {
 public:
  std::size_t size() const { return size_; }
  const std::int32_t* data() const { return ids_.data(); }
  void clear() { size_ = 0; }

  // Of `ids`, kSlack ids behind the end must be readable.
  static constexpr std::size_t kSlack = 8;
  void append(std::span<const std::int32_t> ids) {
    reserve(ids.size() + kSlack);
    std::int32_t* const to = ids_.data() + size_;
    std::memcpy(to, ids.data(), kSlack * sizeof *to);  // nearly always all of them
    for (std::size_t i = kSlack; i < ids.size(); ++i) to[i] = ids[i];
    size_ += ids.size();
  }
  void append(std::int32_t id) {
    reserve(1);
    ids_[size_++] = id;
  }
  void append_copy(const std::vector<std::int32_t>& ids) {
    reserve(ids.size());
    std::copy(ids.begin(), ids.end(), ids_.data() + size_);
    size_ += ids.size();
  }

 private:
  void reserve(std::size_t more) {
    if (size_ + more > ids_.size()) ids_.resize(2 * (size_ + more));
  }
  std::vector<std::int32_t> ids_;
  std::size_t size_ = 0;
};

class EncodedTheme {
 public:
  // For a tokenizer that cuts at pieces, and so gives a group of up to three digits one token.
  EncodedTheme(const Theme& theme, const Tokenizer& tokenizer);

  std::span<const std::int32_t> piece(int id) const {
    const auto i = static_cast<std::size_t>(id);
    return {ids_.data() + begins_[i], begins_[i + 1] - begins_[i]};
  }
  void append_integer(std::int64_t value, bool leading_blank, TokenBuffer& out) const;

 private:
  const Tokenizer& tokenizer_;
  std::vector<std::int32_t> ids_;
  std::vector<std::size_t> begins_;
  std::vector<std::int32_t> small_, bare_small_;  // ids of " 0" .. " 999" and "0" .. "999"
};

class TokenSink {
 public:
  TokenSink(const EncodedTheme& theme, TokenBuffer& out) : theme_(theme), out_(out) {}
  void piece(int id) { out_.append(theme_.piece(id)); }
  void integer(std::int64_t value) { theme_.append_integer(value, true, out_); }
  void bare_integer(std::int64_t value) { theme_.append_integer(value, false, out_); }

 private:
  const EncodedTheme& theme_;
  TokenBuffer& out_;
};

}  // namespace fastreason
