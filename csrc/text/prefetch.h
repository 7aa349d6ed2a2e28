// Draws and packs batches ahead of who asks for them, on a thread of its own.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "text/packing.h"

namespace fastreason {

class Prefetcher {
 public:
  // Lane i packs problems starts[i], starts[i] + step, ...; its batches are consecutive results of Packer::pack.
  // The lanes take turns. At most `ahead` batches wait.
  Prefetcher(std::shared_ptr<const Packer> packer, std::vector<std::int64_t> starts, std::int64_t step,
             std::int64_t rows, std::int64_t length, std::int64_t ahead);
  // Ends the thread, which leaves the batch it is at.
  ~Prefetcher();
  Prefetcher(const Prefetcher&) = delete;
  Prefetcher& operator=(const Prefetcher&) = delete;

  // The next batch; waits for it. Throws what drawing it threw, now and ever after; std::runtime_error once closed, and
  // in a forked child, which has no such thread.
  PackedRows next();

  // Ends the thread; who waits in `next` gets the error. May be called again.
  void close();

 private:
  struct Shared;

  bool is_forked_child() const;

  std::unique_ptr<Shared> shared_;
  std::int64_t process_;
};

}  // namespace fastreason
