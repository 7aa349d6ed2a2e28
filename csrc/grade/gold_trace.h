// The trace of a gold solution, built from its graph: what parsing its text would give.
#pragma once

#include "grade/name_table.h"
#include "grade/trace.h"
#include "tasks/solution_graph.h"

namespace fastreason {

// But for the places of the steps in a text. Names are interned as views into the theme.
void build_gold_trace(const SolutionGraph& solution, const Theme& theme, NameTable& names, Trace& trace);

}  // namespace fastreason
