// Reads the symbolic trace style: "Be: 2 * Ba = 2 * 3 = 6. ...", one word a quantity.
#pragma once

#include <string_view>
#include <vector>

#include "grade/expression.h"
#include "grade/name_table.h"
#include "grade/reduction.h"
#include "grade/trace.h"

namespace fastreason {

class SymbolicReader {
 public:
  // Names are interned as views into `text`. Steps are those before the answer.
  void read(std::string_view text, TextEnd end, NameTable& names, Trace& trace);

 private:
  class Lookup;

  void read_sentences(std::string_view body, std::size_t at);
  bool read_step(std::string_view body, std::size_t& at);
  void read_loose_step(std::string_view body, std::size_t at, std::size_t end);
  bool is_reduced(std::string_view before, std::string_view part);
  void add_step(Step& step, std::string_view name);
  const Step* step_of(std::string_view name) const;

  std::vector<int> step_of_name_;   // by name id, -1: not defined yet
  std::vector<Quantity> operands_;  // of the definition that is being read
  Reduction reduction_before_, reduction_;
  NameTable* names_ = nullptr;
  Trace* trace_ = nullptr;
};

}  // namespace fastreason
