#include "text/tokenizer.h"

#include <array>
#include <stdexcept>
#include <utility>

#include "common/hash.h"

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

Tokenizer::Tokenizer(std::vector<std::string> words) : words_(std::move(words)) {
  if (words_.size() < kSpecials.size() || words_.size() > 1'000'000)
    throw std::invalid_argument("a vocabulary needs 4 to 1000000 words, got " + std::to_string(words_.size()));
  std::size_t capacity = 16;
  while (capacity < 4 * words_.size()) capacity *= 2;
  slots_.assign(capacity, -1);
  mask_ = capacity - 1;
  for (std::size_t id = 0; id < words_.size(); ++id) {
    const std::string& word = words_[id];
    if (id < kSpecials.size() && word != kSpecials[id])
      throw std::invalid_argument("token " + std::to_string(id) + " must be " + std::string(kSpecials[id]) + ", got " +
                                  word);
    if (word.empty() || word_end(word, 0) != word.size())
      throw std::invalid_argument("vocabulary entry " + std::to_string(id) + " is not one word: '" + word + "'");
    std::size_t slot = hash_bytes(word) & mask_;
    while (slots_[slot] >= 0) {
      if (words_[static_cast<std::size_t>(slots_[slot])] == word)
        throw std::invalid_argument("vocabulary entry " + std::to_string(id) + " repeats '" + word + "'");
      slot = (slot + 1) & mask_;
    }
    slots_[slot] = static_cast<std::int32_t>(id);
  }
}

std::int32_t Tokenizer::find(std::string_view word) const {
  for (std::size_t slot = hash_bytes(word) & mask_; slots_[slot] >= 0; slot = (slot + 1) & mask_)
    if (words_[static_cast<std::size_t>(slots_[slot])] == word) return slots_[slot];
  return kUnknown;
}

void Tokenizer::encode(std::string_view text, std::vector<std::int32_t>& ids) const {
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = word_end(text, at);
    ids.push_back(find(text.substr(at, end - at)));
    at = end;
  }
}

void Tokenizer::decode(std::span<const std::int32_t> ids, std::string& text) const {
  for (const std::int32_t id : ids) text.append(word(id >= 0 && id < size() ? id : kUnknown));
}

}  // namespace fastreason
