// Classes of bytes and small searches that both readers share. Bytes above 127 belong to no class.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <string_view>

namespace fastreason {

inline bool is_blank(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
inline bool is_digit(char c) { return c >= '0' && c <= '9'; }
inline bool is_alpha(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
inline bool is_word(char c) { return is_alpha(c) || is_digit(c) || c == '_'; }
inline char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

inline std::size_t skip_blanks(std::string_view text, std::size_t at) {
  while (at < text.size() && is_blank(text[at])) ++at;
  return at;
}

inline std::string_view trim(std::string_view text) {
  while (!text.empty() && is_blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_blank(text.back())) text.remove_suffix(1);
  return text;
}

// Whether `text` has `word`, written in lower case, at `at` in any case.
inline bool has_word(std::string_view text, std::size_t at, std::string_view word) {
  if (text.size() - at < word.size()) return false;
  for (std::size_t i = 0; i < word.size(); ++i)
    if (lower(text[at + i]) != word[i]) return false;
  return true;
}

// Length in bytes of the document tag at `at`, 0 if there is none.
inline std::size_t tag_size(std::string_view text, std::size_t at) {
  static constexpr std::array<std::string_view, 6> kTags = {"<question>",  "</question>", "<solution>",
                                                            "</solution>", "<answer>",    "</answer>"};
  for (const std::string_view tag : kTags)
    if (text.substr(at, tag.size()) == tag) return tag.size();
  return 0;
}

// The first full stop from `from` on, else the end. A point between two digits is none.
inline std::size_t find_full_stop(std::string_view text, std::size_t from) {
  std::size_t at = text.find('.', from);
  while (at != std::string_view::npos && at > 0 && is_digit(text[at - 1]) && at + 1 < text.size() &&
         is_digit(text[at + 1]))
    at = text.find('.', at + 1);
  return std::min(at, text.size());
}

// The end of `phrase` if it occurs at `at`, with any blanks for each of its blanks, else npos.
inline std::size_t phrase_end(std::string_view text, std::size_t at, std::string_view phrase) {
  if (phrase.back() != ' ' && at <= text.size() && text.substr(at, phrase.size()) == phrase) return at + phrase.size();
  for (const char c : phrase) {
    if (at >= text.size() || (c == ' ' ? !is_blank(text[at]) : text[at] != c)) return std::string_view::npos;
    at = c == ' ' ? skip_blanks(text, at) : at + 1;
  }
  return at;
}

}  // namespace fastreason
