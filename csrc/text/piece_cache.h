// Ids of pieces of text that were encoded before. Grows to a fixed size, never changes an entry, needs no lock.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "common/hash.h"

namespace fastreason {

class PieceCache {
 public:
  PieceCache() : slots_(std::make_unique<std::atomic<const Entry*>[]>(kSlots)) {}
  ~PieceCache() {
    for (std::size_t i = 0; i < kSlots; ++i) delete slots_[i].load(std::memory_order_relaxed);
  }
  PieceCache(const PieceCache&) = delete;
  PieceCache& operator=(const PieceCache&) = delete;

  // Appends the ids of `piece`, which `encode(piece, ids)` appends where they are not here yet.
  template <class Encode>
  void append(std::string_view piece, std::vector<std::int32_t>& ids, Encode&& encode) {
    if (piece.size() > kLongest) return encode(piece, ids);
    const std::size_t home = hash_bytes(piece);
    for (std::size_t i = 0; i < kProbes; ++i) {
      std::atomic<const Entry*>& slot = slots_[(home + i) % kSlots];
      const Entry* entry = slot.load(std::memory_order_acquire);
      if (entry == nullptr) {
        auto made = std::make_unique<Entry>();
        made->piece = piece;
        encode(piece, made->ids);
        ids.insert(ids.end(), made->ids.begin(), made->ids.end());
        // where another thread was faster, its entry stays
        if (slot.compare_exchange_strong(entry, made.get(), std::memory_order_release, std::memory_order_relaxed))
          made.release();
        return;
      }
      if (entry->piece == piece) {
        ids.insert(ids.end(), entry->ids.begin(), entry->ids.end());
        return;
      }
    }
    encode(piece, ids);  // the neighbourhood is full
  }

 private:
  static constexpr std::size_t kSlots = std::size_t{1} << 16, kProbes = 8, kLongest = 64;
  struct Entry {
    std::string piece;
    std::vector<std::int32_t> ids;
  };
  std::unique_ptr<std::atomic<const Entry*>[]> slots_;
};

}  // namespace fastreason
