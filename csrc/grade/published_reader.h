// Reads the published trace style: "Define NAME as V; W = A + B = 2 + 3 = 5; so V = 2 * W = 2 * 5 = 10. ..."
//
// docs/grading.md states the rules, which are those of the released scorer with its defects corrected. Time is linear
// in the text. A reader keeps its scratch memory between texts; one per thread.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "grade/name_table.h"
#include "grade/step_header.h"
#include "grade/trace.h"

namespace fastreason {

class PublishedReader {
 public:
  // Steps are those before the answer. Names are interned as views into `text` or into this reader's memory, which the
  // next call overwrites.
  void read(std::string_view text, TextEnd end, NameTable& names, Trace& trace);

 private:
  // What a letter stands for. A clause that is not of its step's variable gives its letter a meaning within the step.
  struct Letter {
    int step = -1;         // the latest step whose variable this is
    int clause_step = -1;  // the step of the latest other clause for this letter
    Quantity step_quantity;
    Quantity clause_quantity;
    Shape clause_shape;
    std::uint64_t clause_parents = 0;  // the letters of steps that the clause depends on, a bit each
    bool known = false;
    double value = 0.0;  // the latest of both, which the released scorer looks at
  };
  // One "V = ..." as read.
  struct Clause {
    char target = 0;
    std::uint64_t parents = 0;
    Shape shape;
    Quantity last;  // of the part behind the last "="
    bool has_value = false;
    bool undefined = false, slip = false;
    std::string_view text;  // behind the first "="
  };
  struct Removal {
    std::size_t at, bytes;  // position in the text without tags, bytes removed there
  };
  class Lookup;

  void reset(std::string_view text);
  void remove_tags(std::string_view text);
  std::uint32_t original_offset(std::size_t at);
  std::string_view tidy_name(std::string_view name);

  bool find_plain_header(std::size_t at, StepHeader& header, int& name) const;
  void begin_step(const StepHeader& header, int name);
  void end_step(std::size_t end);
  bool read_clause(std::size_t& at);
  void read_rest(std::size_t at, std::size_t end);
  void read_loose_clause(std::string_view segment, std::size_t equals);
  void take(const Clause& clause);
  bool x_is_unknown(const Quantity& definition) const;
  std::uint64_t loose_parents(std::string_view part, bool& undefined) const;
  void write_parents(std::uint64_t letters);
  void evaluate_pending();
  std::size_t read_equation(std::size_t begin, std::size_t end);

  Letter& letter(char c);

  std::string_view text_;
  std::string untagged_, tidied_;
  std::vector<Removal> removals_;
  std::size_t next_removal_ = 0, bytes_removed_ = 0;
  std::array<Letter, 52> letters_;
  std::uint64_t used_letters_ = 0;
  std::vector<Quantity> operands_;                         // of the definition that is being read
  std::vector<std::pair<int, std::string_view>> pending_;  // steps without a value yet, and what it is computed from

  NameTable* names_ = nullptr;
  Trace* trace_ = nullptr;

  // of the step that is being read
  Step step_;
  char variable_ = 0;
  bool unknown_ = false;
  int num_own_clauses_ = 0;
  std::uint64_t parents_ = 0;
  Quantity quantity_;
  std::string_view own_text_;
};

}  // namespace fastreason
