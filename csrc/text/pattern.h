// A regular expression that cuts a text into pieces, as the Split and ByteLevel pre-tokenizers of tokenizer.json do.
//
// The dialect is that of `tokenizers` (Oniguruma's): alternatives are tried in their order, repetition is greedy,
// classes nest, "{" that begins no interval is a letter like any other. Understood are characters and escapes, ".",
// classes,
// \s \S \p{L} \p{N} and their opposites, groups, "|", "? * + {m,n}", possessive "?+ *+ ++" after one character,
// lookahead, and lookbehind by one character. Anything else is refused by name.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "common/interrupt.h"
#include "text/char_set.h"

namespace fastreason {

class Pattern {
 public:
  // Throws std::invalid_argument that says what of `source` is not supported.
  explicit Pattern(std::string_view source);

  // Calls body(begin, end) for every match in the text and for every stretch between matches, in order. Backtracking is
  // bounded: throws std::runtime_error after kStepsPerByte steps a byte.
  template <class Body>
  void split(std::string_view text, Body&& body) const {
    Search search{.steps_left = kStepsPerByte * (text.size() + kFreeBytes)};
    std::size_t rest = 0;
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t end = match(text, at, search);
      if (end == kNone) {
        at += char_at(text, at).size;
        continue;
      }
      if (rest < at) body(rest, at);
      body(at, end);
      rest = at = end;
    }
    if (rest < text.size()) body(rest, text.size());
  }

 private:
  friend class PatternParser;
  static constexpr std::size_t kNone = ~std::size_t{0};
  // The patterns of GPT-2, Qwen2 and the released tokenizer take 1 to 4 steps a byte of problems, code or blanks; short
  // texts have the steps of kFreeBytes more.
  static constexpr std::uint64_t kStepsPerByte = 1000, kFreeBytes = 1000;

  enum class Kind : std::uint8_t { kRun, kSplit, kJump, kLook, kBehind, kMatch };
  struct Op {
    Kind kind;
    bool flag = false;          // run: keeps what it took; look, behind: negative
    int set = 0;                // run, behind: which characters
    int min = 0, max = 0;       // run: how many
    int first = 0, second = 0;  // split: both ways, jump and look: where to go on, relative to the op itself
  };
  // A point to come back to: op `op` at `at`, then at every character boundary before it down to `least`.
  struct Frame {
    int op;
    std::size_t at, least;
  };
  struct Search {
    std::uint64_t steps_left;  // an op done or a character read is one
    std::vector<Frame> stack = {};
    InterruptionCounter next_op = {};

    void take(std::uint64_t steps);
  };

  // The end of the match that begins at `at`, or kNone.
  std::size_t match(std::string_view text, std::size_t at, Search& search) const;
  std::size_t run(int op, std::string_view text, std::size_t at, Search& search) const;
  std::size_t repeat(const Op& op, std::string_view text, std::size_t at, std::size_t& least, Search& search) const;

  std::vector<CharSet> sets_;
  std::vector<Op> ops_;
  std::vector<int> starts_;                         // of the alternatives
  std::array<std::uint64_t, 256> candidates_ = {};  // by first byte: which alternatives may match
};

}  // namespace fastreason
