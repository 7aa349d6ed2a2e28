#include "grade/step_header.h"

#include <algorithm>
#include <array>

#include "grade/characters.h"

namespace fastreason {

namespace {

constexpr std::string_view kDefine = "define";
constexpr auto kNowhere = std::string_view::npos;

// In any case, and with a blank behind it. By Horspool's rule: the character where the word would end says how far on
// its next place is, 0 if it may end there.
std::size_t find_define(std::string_view text, std::size_t from) {
  constexpr std::size_t kSize = kDefine.size(), kEToE = 4;
  static constexpr std::array<std::uint8_t, 256> kSkips = [] {
    std::array<std::uint8_t, 256> skips = {};
    skips.fill(kSize);
    for (std::size_t i = 0; i < kSize; ++i)
      for (const char c : {kDefine[i], static_cast<char>(kDefine[i] - 'a' + 'A')})
        skips[static_cast<unsigned char>(c)] = static_cast<std::uint8_t>(kSize - 1 - i);
    return skips;
  }();
  for (std::size_t end = from + kSize - 1; end + 1 < text.size();) {
    const std::size_t skip = kSkips[static_cast<unsigned char>(text[end])];
    if (skip == 0 && has_word(text, end + 1 - kSize, kDefine) && is_blank(text[end + 1])) return end + 1 - kSize;
    end += skip > 0 ? skip : kEToE;
  }
  return kNowhere;
}

// The last one in text[first, end) that begins a word, `first` if there is no further one.
std::size_t find_last_define(std::string_view text, std::size_t first, std::size_t end) {
  std::size_t last = first;
  for (std::size_t at = find_define(text.substr(0, end), first + 1); at != kNowhere;
       at = find_define(text.substr(0, end), at + 1))
    if (!is_word(text[at - 1])) last = at;
  return last;
}

bool is_as_or_a(std::string_view word) {
  return (word.size() == 1 && lower(word[0]) == 'a') ||
         (word.size() == 2 && lower(word[0]) == 'a' && lower(word[1]) == 's');
}

// Walks back from `end` over words of letters alone, as far as `name_from`. The earliest "as" or "a" among them that
// has a name between it and `name_from` is where the name ends.
std::size_t find_name_end(std::string_view text, std::size_t name_from, std::size_t end) {
  std::size_t name_end = kNowhere;
  while (true) {
    while (end > name_from && is_blank(text[end - 1])) --end;
    std::size_t begin = end;
    while (begin > name_from && is_alpha(text[begin - 1])) --begin;
    if (begin == end || begin == name_from || !is_blank(text[begin - 1])) return name_end;
    if (is_as_or_a(text.substr(begin, end - begin)) && skip_blanks(text, name_from) < begin) name_end = begin;
    end = begin;
  }
}

}  // namespace

bool find_step_header(std::string_view text, std::size_t from, StepHeader& header) {
  const std::size_t first = find_define(text, from);
  if (first == kNowhere) return false;
  const std::size_t name_from = first + kDefine.size();
  for (std::size_t semicolon = text.find(';', name_from); semicolon != kNowhere;
       semicolon = text.find(';', semicolon + 1)) {
    std::size_t at = semicolon;
    while (at > name_from && is_blank(text[at - 1])) --at;
    if (at < name_from + 2 || !is_alpha(text[at - 1]) || !is_blank(text[at - 2])) continue;
    const std::size_t name_end = find_name_end(text, name_from, at - 1);
    if (name_end == kNowhere) continue;
    const std::size_t name_begin = find_last_define(text, first, name_end) + kDefine.size();
    header = {first, semicolon + 1, name_begin, text.substr(name_begin, name_end - name_begin), text[at - 1]};
    return true;
  }
  return false;
}

bool is_plain_step_header(std::string_view text, std::size_t at, StepHeader& header) {
  constexpr std::string_view kBegin = " Define ";
  static constexpr std::array<bool, 256> kEndsWord = [] {
    std::array<bool, 256> ends = {};
    for (const unsigned char c : {' ', '\t', '\n', '\v', '\f', '\r', '.', ';'}) ends[c] = true;
    return ends;
  }();
  if (text.substr(at, kBegin.size()) != kBegin) return false;
  const std::size_t name_begin = at + kBegin.size();
  for (std::size_t word = name_begin, end = word; end < text.size(); word = end + 1) {
    end = word;
    while (end < text.size() && !kEndsWord[static_cast<unsigned char>(text[end])]) ++end;
    if (end == word || end + 3 > text.size() || text[end] != ' ') return false;
    const std::string_view letters = text.substr(word, end - word);
    if (is_as_or_a(letters)) {
      header = {at + 1, end + 3, name_begin, text.substr(name_begin, word - 1 - name_begin), text[end + 1]};
      return word > name_begin && letters == "as" && is_alpha(text[end + 1]) && text[end + 2] == ';';
    }
    if (letters.size() >= kDefine.size() && has_word(letters, letters.size() - kDefine.size(), kDefine)) return false;
  }
  return false;
}

}  // namespace fastreason
