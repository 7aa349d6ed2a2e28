// For objects that one thread may use at a time: a second one gets an error instead of a data race.
#pragma once

#include <atomic>
#include <stdexcept>
#include <string>

namespace fastreason {

class OneAtATime {
 public:
  explicit OneAtATime(const char* what) : what_(what) {}

  // While it lives, whoever else asks for one gets a std::runtime_error.
  class Turn {
   public:
    explicit Turn(OneAtATime& owner) : owner_(owner) {
      if (owner_.taken_.exchange(true))
        throw std::runtime_error(std::string(owner_.what_) +
                                 ": another thread is using it; give every thread its own, or let them take turns");
    }
    ~Turn() { owner_.taken_ = false; }
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;

   private:
    OneAtATime& owner_;
  };

 private:
  const char* what_;
  std::atomic<bool> taken_{false};
};

}  // namespace fastreason
