// Splits a range of independent items over threads. Results must depend on the item alone, never on the schedule.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <semaphore>
#include <thread>
#include <vector>

#include "common/interrupt.h"

namespace fastreason {

inline int resolve_threads(int threads) {
  if (threads > 0) return threads;
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

// Only the caller can ask whether to stop, so it goes on asking until the others are done.
inline void wait_for_all(std::counting_semaphore<>& ended, int count) {
  try {
    for (int i = 0; i < count; ++i)
      while (!ended.try_acquire_for(kCheckEvery)) interruption_point();
  } catch (const Interrupted&) {  // the others see it too
  }
}

// Calls body(begin, end) for blocks of at most `grain` items that cover [0, n), on up to `threads` threads (0: all
// cores). The first exception of a body is rethrown here once every thread has stopped. Where the caller's work is
// Interruptible, so is that of all threads, before every block and at the interruption points of `body`.
template <class Body>
void parallel_blocks(std::int64_t n, int threads, std::int64_t grain, Body&& body) {
  const std::int64_t num_blocks = (n + grain - 1) / grain;
  const auto workers = static_cast<int>(std::min<std::int64_t>(resolve_threads(threads), num_blocks));
  std::atomic<bool>* const stop = Interruptible::stop();
  if (workers <= 1 && stop == nullptr) {
    if (n > 0) body(std::int64_t{0}, n);
    return;
  }
  std::atomic<std::int64_t> next_block{0};
  std::atomic<bool> failed{false};
  std::exception_ptr error;
  auto work = [&] {
    try {
      for (std::int64_t block; !failed && (block = next_block++) < num_blocks;) {
        interruption_point();
        body(block * grain, std::min(n, (block + 1) * grain));
      }
    } catch (...) {
      if (!failed.exchange(true)) error = std::current_exception();
    }
  };
  {
    std::counting_semaphore<> ended{0};
    std::vector<std::jthread> pool;
    for (int i = 1; i < workers; ++i)
      pool.emplace_back([&] {
        const Interruptible scope(stop);
        work();
        ended.release();
      });
    work();
    if (stop != nullptr) wait_for_all(ended, workers - 1);
  }  // joins
  if (stop != nullptr && stop->load()) throw Interrupted();  // before any other error: its cause is known elsewhere
  if (error) std::rethrow_exception(error);
}

}  // namespace fastreason
