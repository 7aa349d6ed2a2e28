// What every tokenizer can do: text to ids and back.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace fastreason {

class Tokenizer {
 public:
  Tokenizer(std::vector<std::string> words, std::int32_t padding_id, std::int32_t end_id)
      : words_(std::move(words)), padding_id_(padding_id), end_id_(end_id) {}
  virtual ~Tokenizer() = default;
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;

  std::int32_t size() const { return static_cast<std::int32_t>(words_.size()); }
  // The bytes that a token stands for.
  const std::string& word(std::int32_t id) const { return words_[static_cast<std::size_t>(id)]; }
  // What fills a row behind the last document, and what ends a document; -1 where the vocabulary has no such token.
  std::int32_t padding_id() const { return padding_id_; }
  std::int32_t end_id() const { return end_id_; }

  // Appends the ids of a text, which may hold any bytes. From many threads at once.
  virtual void encode(std::string_view text, std::vector<std::int32_t>& ids) const = 0;
  // Whether the ids of a document are the concatenated ids of its theme's pieces and numbers.
  virtual bool cuts_at_pieces() const = 0;
  // Appends the bytes of the ids; one outside the vocabulary is written as `unknown_word`.
  void decode(std::span<const std::int32_t> ids, std::string& text) const {
    for (const std::int32_t id : ids)
      if (id >= 0 && id < size())
        text.append(word(id));
      else
        text.append(unknown_word());
  }

 protected:
  virtual std::string_view unknown_word() const = 0;

 private:
  std::vector<std::string> words_;
  std::int32_t padding_id_, end_id_;
};

}  // namespace fastreason
