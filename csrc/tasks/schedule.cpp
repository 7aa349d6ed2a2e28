#include "tasks/schedule.h"

#include <stdexcept>
#include <string>

namespace fastreason {

int schedule_size(int op) {
  if (op < kMinOp || op > kMaxOp)
    throw std::invalid_argument("op must be in " + std::to_string(kMinOp) + " .. " + std::to_string(kMaxOp) + ", got " +
                                std::to_string(op));
  constexpr int kReleased[] = {2, 2, 2, 3, 3, 5, 5, 5, 8, 8, 10, 10, 10, 10, 13, 13, 13, 15, 15};  // op 2 .. 20
  return op <= 20 ? kReleased[op - kMinOp] : (3 * op + 2) / 4;
}

}  // namespace fastreason
