// The released scorer's reading of a solution, defects included. Time is linear in the text.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "grade/name_table.h"
#include "grade/python_number.h"

namespace fastreason {

// Keeps its memory between texts; one per thread.
class ReleasedReader {
 public:
  struct Step {
    int name = 0;  // id in the NameTable
    int letter = 0;
    bool has_value = false;
    double value = 0.0;
    std::size_t parents_begin = 0, parents_end = 0;
    std::size_t parts_begin = 0, parts_end = 0;
  };

  // Names are interned as views into `text` or into this reader's memory, which the next call overwrites.
  void read(std::string_view text, NameTable& names);

  const std::vector<Step>& steps() const { return steps_; }  // in order of the text; a name may occur more than once
  std::span<const int> parents(const Step& step) const {     // ids of names, sorted and without repeats
    return std::span(parents_).subspan(step.parents_begin, step.parents_end - step.parents_begin);
  }
  bool has_answer() const { return has_answer_; }
  double answer() const { return answer_; }
  // The text of the first closed answer tag, else what follows the last open one up to "<" or the end of the line;
  // blanks around it are gone. False if there is no tag.
  bool tagged_answer(std::string_view& answer) const;
  // That, else what follows the first "Answer:" on its line, without blanks and full stops at its end; or nothing.
  std::string_view gold_answer() const;
  bool is_empty() const { return python::trim(decoded_).empty(); }  // but for blanks

 private:
  // From "Define" to the semicolon behind the letter.
  struct Header {
    std::size_t begin = 0, end = 0;
    std::string_view name;
    int letter = 0;
  };

  void decode(std::string_view text);
  void remove_tags();
  void find_answer();
  bool next_header(std::size_t from, Header& header) const;
  bool header_at_semicolon(std::size_t name_from, std::size_t semicolon, Header& header) const;
  std::string_view collapse_blanks(std::string_view name);
  std::string_view tidy_name(std::string_view name);
  void read_step(const Header& header, std::string_view body, NameTable& names);
  void read_assignments(std::string_view body, Step& step);
  std::uint64_t letters_behind(std::string_view expression, int step) const;
  void write_parents(std::uint64_t letters, Step& step);
  void read_missing_values();

  // A letter that is assigned to within a step without being its own.
  struct Intermediate {
    int step = -1;              // the step; what an earlier step left does not count
    std::uint64_t letters = 0;  // of the steps it depends on
  };

  std::string_view decoded_;  // the text; bytes that are no UTF-8 read as U+FFFD
  std::string_view text_;     // further, without tags, and blanks beyond ASCII are "\x1C"
  std::string decoded_copy_, spaced_copy_, untagged_copy_, tidied_;
  bool has_answer_ = false;
  double answer_ = 0.0;

  std::vector<Step> steps_;
  std::vector<int> parents_;
  std::vector<std::string_view> parts_;  // of assignments to a step's own letter, behind their last "="
  std::uint64_t defined_ = 0;            // letters of the steps so far
  std::array<int, python::kNumLetters> name_of_letter_{};
  std::array<Intermediate, python::kNumLetters> intermediates_{};
  python::LetterValues values_;
};

}  // namespace fastreason
