// The size knobs of the released generator.
#pragma once

namespace fastreason {

inline constexpr int kMinOp = 2;
inline constexpr int kMaxOp = 40;
inline constexpr int kMaxStructureEdges = 20;  // ip_max of the original

// The size knob s; problems of one op drawn with another s have another law. Op 2 .. 20 as released; beyond, s is three
// quarters of op, rounded, as it is at 20.
int schedule_size(int op);

}  // namespace fastreason
