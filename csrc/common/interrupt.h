// How long work ends early. Whoever starts it may say, on its own thread, when it is to end; the work calls
// interruption_point() every few milliseconds, and all threads that take part then throw Interrupted.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <exception>
#include <utility>

namespace fastreason {

struct Interrupted : std::exception {
  const char* what() const noexcept override { return "interrupted"; }
};

// True where the work is to end. Called on the thread that installed it, every kCheckEvery at most.
using InterruptionCheck = bool (*)();
inline constexpr std::chrono::milliseconds kCheckEvery{50};

// While it lives, work of this thread ends once `stop` is set, by whomever; `check`, if there is one, sets it.
class Interruptible {
 public:
  explicit Interruptible(std::atomic<bool>* stop, InterruptionCheck check = nullptr)
      : before_(std::exchange(current(), {stop, check, std::chrono::steady_clock::now() + kCheckEvery})) {}
  ~Interruptible() { current() = before_; }
  Interruptible(const Interruptible&) = delete;
  Interruptible& operator=(const Interruptible&) = delete;

  // What stops the work of this thread, for those that take part in it; null where nothing does.
  static std::atomic<bool>* stop() { return current().stop; }

  static void point() {
    State& state = current();
    if (state.stop == nullptr) return;
    if (state.stop->load(std::memory_order_relaxed)) throw Interrupted();
    if (state.check == nullptr) return;
    const auto now = std::chrono::steady_clock::now();
    if (now < state.next_check) return;
    state.next_check = now + kCheckEvery;
    if (!state.check()) return;
    state.stop->store(true, std::memory_order_relaxed);
    throw Interrupted();
  }

 private:
  struct State {
    std::atomic<bool>* stop = nullptr;
    InterruptionCheck check = nullptr;
    std::chrono::steady_clock::time_point next_check;
  };
  static State& current() {
    static thread_local State state;
    return state;
  }

  State before_;
};

inline void interruption_point() { Interruptible::point(); }

// For loops whose turns take less than a microsecond: every 1024th call is an interruption point.
class InterruptionCounter {
 public:
  void operator()() {
    if ((++turns_ & 1023) == 0) interruption_point();
  }

 private:
  std::uint32_t turns_ = 0;
};

}  // namespace fastreason
