#include "text/word_tokenizer.h"

#include <algorithm>
#include <array>
#include <stdexcept>
#include <utility>

#include "common/hash.h"
#include "common/interrupt.h"

namespace fastreason {

namespace {

constexpr std::array<std::string_view, 4> kSpecials = {"[UNK]", "[PAD]", "[BOS]", "[EOS]"};

enum CharClass : unsigned char { kOther, kLetter, kDigit, kMark };

constexpr std::array<CharClass, 256> make_classes() {
  std::array<CharClass, 256> classes{};
  for (int c = 0; c < 256; ++c) {
    CharClass kind = kOther;
    if ((c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c >= 0x80)
      kind = kLetter;
    else if (c >= '0' && c <= '9')
      kind = kDigit;
    else if (c > ' ' && c < 0x7F)
      kind = kMark;
    classes[static_cast<std::size_t>(c)] = kind;
  }
  return classes;
}

constexpr auto kClasses = make_classes();

CharClass class_of(char c) { return kClasses[static_cast<unsigned char>(c)]; }

bool special_at(std::string_view text, std::size_t at) {
  if (text[at] != '[') return false;
  for (const auto special : kSpecials)
    if (text.substr(at, special.size()) == special) return true;
  return false;
}

// The end of a tag `</?[a-z]+>` that begins at `at`, or 0.
std::size_t tag_end(std::string_view text, std::size_t at) {
  std::size_t end = at + 1;
  if (end < text.size() && text[end] == '/') ++end;
  const std::size_t name = end;
  while (end < text.size() && text[end] >= 'a' && text[end] <= 'z') ++end;
  return end > name && end < text.size() && text[end] == '>' ? end + 1 : 0;
}

}  // namespace

std::size_t word_end(std::string_view text, std::size_t begin) {
  if (special_at(text, begin)) return begin + kSpecials[0].size();
  std::size_t at = begin;
  if (text[at] == ' ' && ++at == text.size()) return at;
  switch (class_of(text[at])) {
    case kLetter:
      do ++at;
      while (at < text.size() && class_of(text[at]) == kLetter);
      return at + (at < text.size() && text[at] == ':' ? 1 : 0);
    case kDigit: {
      const std::size_t limit = std::min(text.size(), at + 3);
      do ++at;
      while (at < limit && class_of(text[at]) == kDigit);
      return at;
    }
    case kMark:
      if (text[at] == '<')
        if (const std::size_t end = tag_end(text, at)) return end;
      if (special_at(text, at)) return at;  // the blank before it stands alone
      return at + 1;
    default:
      return begin + 1;
  }
}

WordTokenizer::WordTokenizer(std::vector<std::string> words) : Tokenizer(std::move(words), kPadding, kEnd) {
  if (size() < std::ssize(kSpecials) || size() > 1'000'000)
    throw std::invalid_argument("a vocabulary needs 4 to 1000000 words, got " + std::to_string(size()));
  std::size_t capacity = 16;
  while (capacity < 4 * static_cast<std::size_t>(size())) capacity *= 2;
  slots_.assign(capacity, -1);
  mask_ = capacity - 1;
  for (std::int32_t id = 0; id < size(); ++id) {
    const std::string& text = word(id);
    const auto special = static_cast<std::size_t>(id);
    if (special < kSpecials.size() && text != kSpecials[special])
      throw std::invalid_argument("token " + std::to_string(id) + " must be " + std::string(kSpecials[special]) +
                                  ", got " + text);
    if (text.empty() || word_end(text, 0) != text.size())
      throw std::invalid_argument("vocabulary entry " + std::to_string(id) + " is not one word: '" + text + "'");
    std::size_t slot = hash_bytes(text) & mask_;
    while (slots_[slot] >= 0) {
      if (word(slots_[slot]) == text)
        throw std::invalid_argument("vocabulary entry " + std::to_string(id) + " repeats '" + text + "'");
      slot = (slot + 1) & mask_;
    }
    slots_[slot] = id;
  }
}

std::int32_t WordTokenizer::find(std::string_view text) const {
  for (std::size_t slot = hash_bytes(text) & mask_; slots_[slot] >= 0; slot = (slot + 1) & mask_)
    if (word(slots_[slot]) == text) return slots_[slot];
  return kUnknown;
}

void WordTokenizer::encode(std::string_view text, std::vector<std::int32_t>& ids) const {
  InterruptionCounter next_word;
  for (std::size_t at = 0; at < text.size();) {
    next_word();
    const std::size_t end = word_end(text, at);
    ids.push_back(find(text.substr(at, end - at)));
    at = end;
  }
}

}  // namespace fastreason
