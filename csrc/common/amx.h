// Whether this process may use the tile registers of AMX.
#pragma once

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace fastreason {

// Linux keeps tile data for a process only once that has asked for it; a processor or a kernel without AMX refuses,
// as does a process with a thread whose stack for signals could not hold them.
// Products of bfloat16 are meant: AMX-TILE and AMX-BF16.
inline bool ask_for_amx() {
#if defined(__x86_64__) && defined(__linux__) && defined(SYS_arch_prctl)
  constexpr unsigned kBfloat16 = 1U << 22, kTiles = 1U << 24;  // leaf 7, EDX
  constexpr int kRequestPermission = 0x1023, kTileData = 18;   // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & (kBfloat16 | kTiles)) != (kBfloat16 | kTiles)) return false;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

// Asked once; holds for all threads that follow and those that are there.
inline bool may_use_amx() {
  static const bool may = ask_for_amx();
  return may;
}

}  // namespace fastreason
