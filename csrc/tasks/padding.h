// Padding: sentences about further places that make a context long and that nothing depends on.
#pragma once

#include <cstdint>
#include <vector>

#include "common/philox.h"
#include "tasks/node_set.h"

namespace fastreason {

class Theme;
struct Problem;

// One sentence: a count or an average of a padding place equals one quantity, or the sum or difference of two.
struct PaddingSentence {
  struct Operand {
    std::uint16_t place = 0;  // of a padding total
    NodeId node = kNoNode;    // of a quantity of the problem; kNoNode: the total of a padding place
  };
  std::uint16_t place = 0, kind = 0;
  bool average = false, minus = false;
  std::uint8_t num_operands = 1;
  Operand operands[2];
};

struct Padding {
  std::vector<PaddingSentence> sentences;
  // The order of the whole text: i below the number of the problem's own sentences is one of these, else of
  // `sentences`.
  std::vector<std::uint32_t> order;
  // Scratch of drawing.
  std::vector<std::uint16_t> places, open_totals;
  std::vector<std::uint32_t> singles;

  bool empty() const { return sentences.empty(); }
  void clear() {
    sentences.clear();
    order.clear();
  }
};

// Fills problem.padding with as many sentences as fit in `budget` tokens of our tokenizer.
void draw_padding(Rng& rng, const Theme& theme, std::int64_t budget, Problem& problem);

// A budget up to which the theme's padding words certainly suffice; 0 without such words.
std::int64_t max_padding(const Theme& theme, int depth);

}  // namespace fastreason
