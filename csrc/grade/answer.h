// The answer of a completion, and whether the completion ends with it.
#pragma once

#include <cstdint>
#include <string_view>

namespace fastreason {

// How a completion ends. Where several hold, the last of this list that does.
enum class Ending : std::uint8_t {
  kClosed,           // with one answer that is closed, and nothing but blanks behind it
  kNoAnswer,         // there is no <answer> and no "Answer:"
  kTextAfterAnswer,  // something stands behind the answer
  kSeveralAnswers,
  kUnfinished,  // at a limit, or while an answer is open
};

// Facts about the end of a text beyond its characters.
struct TextEnd {
  enum Kind : std::uint8_t {
    kWhole,    // it ended by itself
    kUnknown,  // tokens without an end token: only a closed tag shows that they ended
    kCut,      // it ran into a limit
  };
  Kind kind = kWhole;
  bool may_be_open = false;  // whoever made the text cut </answer> off
};

struct Answer {
  Ending ending = Ending::kNoAnswer;
  bool is_number = false;
  double value = 0.0;
  std::size_t begin = 0;  // of its tag or of "Answer:"; the size of the text if there is none
};

// Of the first answer: all between <answer> and </answer> (any case), or a sentence behind "Answer:", which the end of
// the text closes. A number with perhaps a full stop is one; anything else there is none.
Answer read_answer(std::string_view text, TextEnd end);

}  // namespace fastreason
