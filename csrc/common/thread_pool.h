// Threads that stay: one pool for all work of the process, grown to what calls ask for.
//
// A caller offers a job, works on it itself, and takes the offer back when nothing is left; so work never waits for the
// pool, whoever else is using it, and a body may offer jobs of its own. A thread without a job looks for one for
// kSpinTime, because kernels follow each other within microseconds, and then sleeps, so that torch's threads have the
// cores. A forked child, in which none of the threads lives, begins a pool of its own.
#pragma once

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace fastreason {

class ThreadPool {
 public:
  // What a thread of the pool runs for a job; it may be called by several at once and must not throw.
  using Run = void (*)(void* context);

  // The offer of a job, and its end: once `wait_for` or the destructor is through, nobody works on it any more.
  class Offer {
   public:
    Offer(ThreadPool& pool, int helpers, Run run, void* context)
        : pool_(pool), run_(run), context_(context), wanted_(helpers) {
      pool_.publish(*this);
    }
    ~Offer() {
      while (!wait_for(std::chrono::seconds(1))) {
      }
    }
    Offer(const Offer&) = delete;
    Offer& operator=(const Offer&) = delete;

    // Takes the offer back and waits for those who took it. False if time runs out before.
    bool wait_for(std::chrono::milliseconds time) {
      if (open_) pool_.withdraw(*this);
      open_ = false;
      if (spin_until([&] { return inside_.load(std::memory_order_acquire) == 0; })) return true;
      std::unique_lock lock(pool_.mutex_);
      return pool_.ended_.wait_for(lock, time, [&] { return inside_.load(std::memory_order_acquire) == 0; });
    }

   private:
    friend class ThreadPool;
    ThreadPool& pool_;
    const Run run_;
    void* const context_;
    int wanted_;  // how many more may join; under the mutex
    std::atomic<int> inside_{0};
    bool open_ = true;
  };

  // Never destroyed, because its threads are never joined.
  static ThreadPool& of_this_process() {
    static const int registered = pthread_atfork(nullptr, nullptr, [] { current().store(nullptr); });
    static_cast<void>(registered);
    ThreadPool* found = current().load(std::memory_order_acquire);
    if (found != nullptr) return *found;
    auto* mine = new ThreadPool;
    if (current().compare_exchange_strong(found, mine, std::memory_order_acq_rel)) return *mine;
    delete mine;  // another thread was first
    return *found;
  }

 private:
  static constexpr std::chrono::microseconds kSpinTime{20};

  static std::atomic<ThreadPool*>& current() {
    static std::atomic<ThreadPool*> pool{nullptr};
    return pool;
  }

  template <class Condition>
  static bool spin_until(Condition&& condition) {
    if (condition()) return true;
    static const bool alone = std::thread::hardware_concurrency() == 1;
    if (alone) return false;
    const auto end = std::chrono::steady_clock::now() + kSpinTime;
    do {
      for (int i = 0; i < 32; ++i) {
        if (condition()) return true;
#if defined(__x86_64__)
        __builtin_ia32_pause();
#else
        std::this_thread::yield();
#endif
      }
    } while (std::chrono::steady_clock::now() < end);
    return false;
  }

  void publish(Offer& offer) {
    const std::lock_guard lock(mutex_);
    grow(offer.wanted_);
    offers_.push_back(&offer);
    published_.fetch_add(1, std::memory_order_release);
    for (int i = std::min(offer.wanted_, sleeping_); i > 0; --i) offered_.notify_one();
  }

  // Signals are for the threads that were there before: a wait of theirs must end by one. Where the system gives no
  // more threads, callers work alone.
  void grow(int threads) {
    if (threads <= threads_) return;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    try {
      for (; threads_ < threads; ++threads_) std::thread([this] { serve(); }).detach();
    } catch (const std::system_error&) {
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }

  void withdraw(Offer& offer) {
    const std::lock_guard lock(mutex_);
    offers_.erase(std::remove(offers_.begin(), offers_.end(), &offer), offers_.end());
  }

  // An offer that this thread has joined, or null.
  Offer* join() {
    const auto found = std::find_if(offers_.begin(), offers_.end(), [](const Offer* o) { return o->wanted_ > 0; });
    if (found == offers_.end()) return nullptr;
    --(*found)->wanted_;
    (*found)->inside_.fetch_add(1, std::memory_order_relaxed);
    return *found;
  }

  void serve() {
    for (;;) {
      std::unique_lock lock(mutex_);
      Offer* offer = join();
      if (offer == nullptr) {
        const std::uint32_t seen = published_.load(std::memory_order_relaxed);
        lock.unlock();
        const bool more = spin_until([&] { return published_.load(std::memory_order_acquire) != seen; });
        if (more) continue;
        lock.lock();
        ++sleeping_;
        offered_.wait(lock, [&] { return published_.load(std::memory_order_relaxed) != seen; });
        --sleeping_;
        continue;
      }
      lock.unlock();
      offer->run_(offer->context_);
      if (offer->inside_.fetch_sub(1, std::memory_order_acq_rel) > 1) continue;
      // the offer may be gone from here; with the mutex, so that its owner is not between looking and sleeping
      const std::lock_guard ended(mutex_);
      ended_.notify_all();
    }
  }

  std::mutex mutex_;
  std::condition_variable offered_, ended_;
  std::vector<Offer*> offers_;
  int threads_ = 0, sleeping_ = 0;
  std::atomic<std::uint32_t> published_{0};
};

}  // namespace fastreason
