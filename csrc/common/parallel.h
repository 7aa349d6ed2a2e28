// Splits a range of independent items over threads. Results must depend on the item alone, never on the schedule.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <thread>

#include "common/interrupt.h"
#include "common/thread_pool.h"

namespace fastreason {

inline int resolve_threads(int threads) {
  if (threads > 0) return threads;
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

template <class Help>
void run_helper(void* help) {
  (*static_cast<const Help*>(help))();
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
  const auto help = [&] {
    const Interruptible scope(stop);
    work();
  };
  if (workers > 1) {
    ThreadPool::Offer offer(ThreadPool::of_this_process(), workers - 1, &run_helper<decltype(help)>,
                            const_cast<void*>(static_cast<const void*>(&help)));
    work();
    try {  // only the caller can ask whether to stop, so it goes on asking until the others are done
      while (!offer.wait_for(kCheckEvery)) interruption_point();
    } catch (const Interrupted&) {  // the others see it too
    }
  } else {
    work();
  }
  if (stop != nullptr && stop->load()) throw Interrupted();  // before any other error: its cause is known elsewhere
  if (error) std::rethrow_exception(error);
}

}  // namespace fastreason
