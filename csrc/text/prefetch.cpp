#include "text/prefetch.h"

#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <stdexcept>
#include <thread>
#include <utility>

#include "common/interrupt.h"

namespace fastreason {

// What the thread and its owner both touch, all of it under the mutex; apart from it, so that it can be left behind in
// a forked child, where nothing may wait for the condition or join the thread.
struct Prefetcher::Shared {
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<PackedRows> ready;
  std::exception_ptr error;  // behind the last of `ready`
  std::atomic<bool> closed{false};
  std::thread thread;
};

namespace {

std::int64_t process_id() { return static_cast<std::int64_t>(getpid()); }

}  // namespace

Prefetcher::Prefetcher(std::shared_ptr<const Packer> packer, std::vector<std::int64_t> starts, std::int64_t step,
                       std::int64_t rows, std::int64_t length, std::int64_t ahead)
    : shared_(std::make_unique<Shared>()), process_(process_id()) {
  Shared* shared = shared_.get();
  const auto draw = [shared, packer = std::move(packer), next = std::move(starts), step, rows, length,
                     ahead]() mutable {
    try {
      const Interruptible scope(&shared->closed);
      for (std::size_t lane = 0;; lane = (lane + 1) % next.size()) {
        PackedRows batch = packer->pack(next[lane], step, rows, length, /*threads=*/1);
        next[lane] = batch.next_index;
        std::unique_lock lock(shared->mutex);
        shared->changed.wait(lock, [&] { return shared->closed || std::ssize(shared->ready) < ahead; });
        if (shared->closed) return;
        shared->ready.push_back(std::move(batch));
        shared->changed.notify_all();
      }
    } catch (...) {
      const std::lock_guard lock(shared->mutex);
      shared->error = std::current_exception();
      shared->changed.notify_all();
    }
  };
  shared->thread = std::thread(draw);
}

Prefetcher::~Prefetcher() {
  if (is_forked_child())
    static_cast<void>(shared_.release());
  else
    close();
}

bool Prefetcher::is_forked_child() const { return process_ != process_id(); }

void Prefetcher::close() {
  if (is_forked_child()) return;
  std::thread ended;
  {
    const std::lock_guard lock(shared_->mutex);
    shared_->closed = true;
    shared_->ready.clear();
    shared_->changed.notify_all();
    ended.swap(shared_->thread);
  }
  if (ended.joinable()) ended.join();
}

PackedRows Prefetcher::next() {
  if (is_forked_child())
    throw std::runtime_error("the batches were begun in another process; begin them anew behind a fork");
  std::unique_lock lock(shared_->mutex);
  while (!shared_->changed.wait_for(lock, kCheckEvery,
                                    [&] { return shared_->closed || shared_->error || !shared_->ready.empty(); })) {
    lock.unlock();  // asking may take a while
    interruption_point();
    lock.lock();
  }
  if (shared_->closed) throw std::runtime_error("the batches were closed");
  if (shared_->ready.empty()) std::rethrow_exception(shared_->error);
  PackedRows batch = std::move(shared_->ready.front());
  shared_->ready.pop_front();
  shared_->changed.notify_all();
  return batch;
}

}  // namespace fastreason
