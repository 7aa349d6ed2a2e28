// Readers of the two trace styles. A reader keeps its scratch memory between texts; one per thread.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "grade/trace.h"

namespace fastreason {

// "Define NAME as V; W = A + B = 2 + 3 = 5; so V = 2 * W = 2 * 5 = 10. ..." docs/grading.md states the rules, which are
// those of the released scorer with its defects on well-formed text corrected. Time is linear in the text.
class PublishedReader {
 public:
  // Names are interned as views into `text` or into this reader's memory, which the next call overwrites.
  void read(std::string_view text, NameTable& names, Trace& trace);

 private:
  // From "Define" to the semicolon behind the variable.
  struct Header {
    std::size_t begin = 0, end = 0;
    std::string_view name;
    char letter = 0;
  };
  struct Letter {
    int step = -1;                     // the latest step whose variable this is
    int clause_step = -1;              // the step of the latest intermediate clause for this letter
    std::uint64_t clause_parents = 0;  // letters of steps that this clause depends on, by letter index
    bool known = false;
    double value = 0.0;
  };
  struct Removal {
    std::size_t at, bytes;  // position in the text without tags, bytes removed there
  };

  void reset(std::string_view text);
  void remove_tags(std::string_view text);
  std::uint32_t original_offset(std::size_t at);
  bool next_header(std::size_t from, Header& header) const;
  std::string_view tidy_name(std::string_view name);
  void read_step(const Header& header, std::size_t end, NameTable& names, Trace& trace);
  std::uint64_t parents_in(std::string_view part, int step) const;
  void write_parents(std::uint64_t letters, Trace& trace, Step& step) const;
  bool value_of(std::string_view expression, double& value) const;
  Letter& letter(char c);
  const Letter& letter(char c) const;

  std::string_view text_;
  std::string untagged_, tidied_;
  std::vector<Removal> removals_;
  std::size_t next_removal_ = 0, bytes_removed_ = 0;
  std::array<Letter, 52> letters_;
  std::vector<std::string_view> own_expression_;  // per step, of the last clause for its variable
};

// "Be: 2 * Ba = 2 * 3 = 6. ...", one word a quantity.
class SymbolicReader {
 public:
  void read(std::string_view text, NameTable& names, Trace& trace);

 private:
  void read_step(std::string_view sentence, std::size_t begin, NameTable& names, Trace& trace);

  std::vector<int> step_of_name_;  // by name id, -1: not defined yet
};

}  // namespace fastreason
