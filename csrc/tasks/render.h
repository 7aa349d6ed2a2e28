// Writes a problem as text or as token ids, in the style of its theme. docs/tasks.md gives both grammars.
//
// A *sink* takes pieces of the theme and integers; TextSink and TokenSink are the two. The parts of a document are
//              published                                                  symbolic
//   problem    " The number of red kite in Alder Field equals 2. ..."     " Ba: 2. ..."
//   question   " What is the total number of birds in Alder Field?"       " B ?"
//   body       " Define red kite in Alder Field as q; so q = 2. ..."      " Ba: 2. ..."
// each with its leading blank.
#pragma once

#include <charconv>
#include <cstring>
#include <string_view>
#include <vector>

#include "common/philox.h"
#include "tasks/problem.h"
#include "tasks/render_published.h"
#include "tasks/render_symbolic.h"
#include "tasks/theme.h"

namespace fastreason {

// Text that grows at its end by short copies.
class TextBuffer {
 public:
  std::size_t size() const { return size_; }
  std::string_view view() const { return {text_.data(), size_}; }
  void clear() { size_ = 0; }

  // Of `text`, kSlack bytes behind the end must be readable.
  static constexpr std::size_t kSlack = Theme::kPieceSlack;
  void append(std::string_view text) {
    reserve(text.size() + kSlack);
    char* const to = text_.data() + size_;
    std::memcpy(to, text.data(), kSlack);  // nearly always all of it
    if (text.size() > kSlack) std::memcpy(to + kSlack, text.data() + kSlack, text.size() - kSlack);
    size_ += text.size();
  }
  void append(char c) {
    reserve(1);
    text_[size_++] = c;
  }
  void append_integer(std::int64_t value) {
    reserve(24);
    char* const to = text_.data() + size_;
    size_ += static_cast<std::size_t>(std::to_chars(to, to + 24, value).ptr - to);
  }

 private:
  void reserve(std::size_t more) {
    if (size_ + more > text_.size()) text_.resize(2 * (size_ + more));
  }
  std::vector<char> text_;
  std::size_t size_ = 0;
};

class TextSink {
 public:
  TextSink(const Theme& theme, TextBuffer& out) : theme_(theme), out_(out) {}
  void piece(int id) { out_.append(theme_.piece(id)); }
  void integer(std::int64_t value) {
    out_.append(' ');
    out_.append_integer(value);
  }
  void bare_integer(std::int64_t value) { out_.append_integer(value); }

 private:
  const Theme& theme_;
  TextBuffer& out_;
};

template <class Sink>
void write_problem(const Theme& theme, const Problem& problem, Sink& sink) {
  if (theme.style() == Style::kSymbolic)
    SymbolicWriter<Sink>(theme, problem, sink).problem();
  else
    PublishedWriter<Sink>(theme, problem, sink).problem();
}

template <class Sink>
void write_question(const Theme& theme, const Problem& problem, Sink& sink) {
  if (theme.style() == Style::kSymbolic)
    SymbolicWriter<Sink>(theme, problem, sink).question();
  else
    PublishedWriter<Sink>(theme, problem, sink).question();
}

// Problem and question in the order in which a prompt holds them. The symbolic style asks first: a causal model then
// knows what matters while it reads the sentences, which at 0.2 M parameters is the difference between learning and
// not.
template <class Sink>
void write_asked_problem(const Theme& theme, const Problem& problem, Sink& sink) {
  if (theme.style() == Style::kSymbolic) write_question(theme, problem, sink);
  write_problem(theme, problem, sink);
  if (theme.style() != Style::kSymbolic) write_question(theme, problem, sink);
}

// The steps of the solution, without the answer. `letters` are not read in the symbolic style.
template <class Sink>
void write_body(const Theme& theme, const Problem& problem, const Letters& letters, Sink& sink) {
  if (theme.style() == Style::kSymbolic)
    SymbolicWriter<Sink>(theme, problem, sink).body();
  else
    PublishedWriter<Sink>(theme, problem, sink).body(letters);
}

}  // namespace fastreason
