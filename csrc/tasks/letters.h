// The variables of a published solution: one letter for every clause that defines one.
#pragma once

#include <cstdint>

#include "common/philox.h"
#include "tasks/problem.h"

namespace fastreason {

struct Letters {
  Table<std::uint8_t, 52> order;  // by clause; 0 .. 51: A .. Z, a .. z
};

// How many clauses that define a variable the step of a node has; and the whole solution.
int count_variables(const Problem& problem, NodeId node);
int count_variables(const Problem& problem);
// How many letters a solution may use: all 52, in reverse mode all but X and x.
int count_letters(Mode mode);
// A uniform random injection of the problem's variables into the letters. Needs count_variables <= count_letters.
void draw_letters(Rng& rng, const Problem& problem, Letters& letters);

}  // namespace fastreason
