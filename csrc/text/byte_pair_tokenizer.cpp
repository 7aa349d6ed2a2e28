#include "text/byte_pair_tokenizer.h"

#include <algorithm>
#include <queue>
#include <stdexcept>
#include <tuple>

#include "common/interrupt.h"

namespace fastreason {

namespace {

constexpr std::size_t kMaxPatterns = 64;  // one is applied within the pieces of the one before, by recursion

std::uint64_t pair_key(std::int32_t left, std::int32_t right) {
  return static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32 | static_cast<std::uint32_t>(right);
}

void check_id(const char* what, std::int32_t id, std::int32_t least, std::size_t size) {
  if (id < least || id >= static_cast<std::int64_t>(size))
    throw std::invalid_argument(std::string(what) + " names token " + std::to_string(id) + " of " +
                                std::to_string(size));
}

struct Candidate {
  std::int32_t rank;
  int at, behind;            // symbols
  std::int32_t left, right;  // their ids when this was found
  bool operator>(const Candidate& other) const { return std::tie(rank, at) > std::tie(other.rank, other.at); }
};

}  // namespace

BytePairTokenizer::BytePairTokenizer(BytePairSpec spec)
    : Tokenizer(std::move(spec.words), spec.padding_id, spec.end_id), byte_ids_(std::move(spec.byte_ids)) {
  const auto num_words = static_cast<std::size_t>(size());
  if (byte_ids_.size() != 256)
    throw std::invalid_argument("byte_ids must have 256 entries, got " + std::to_string(byte_ids_.size()));
  for (const std::int32_t id : byte_ids_) check_id("byte_ids", id, -1, num_words);
  check_id("padding_id", padding_id(), -1, num_words);
  check_id("end_id", end_id(), -1, num_words);
  for (std::size_t rank = 0; rank < spec.merges.size(); ++rank) {
    for (const std::int32_t id : spec.merges[rank]) check_id("a merge", id, 0, num_words);
    const auto [left, right, result] = spec.merges[rank];
    merges_[pair_key(left, right)] = {static_cast<std::int32_t>(rank), result};
  }
  for (const std::int32_t id : spec.specials) {
    check_id("specials", id, 0, num_words);
    if (word(id).empty()) throw std::invalid_argument("special token " + std::to_string(id) + " is empty");
    specials_[static_cast<unsigned char>(word(id)[0])].push_back(id);
  }
  for (auto& list : specials_)
    std::stable_sort(list.begin(), list.end(),
                     [&](std::int32_t a, std::int32_t b) { return word(a).size() > word(b).size(); });
  if (spec.patterns.size() > kMaxPatterns)
    throw std::invalid_argument("at most " + std::to_string(kMaxPatterns) + " patterns may cut a text, got " +
                                std::to_string(spec.patterns.size()));
  for (const std::string& pattern : spec.patterns) patterns_.emplace_back(pattern);
}

void BytePairTokenizer::encode(std::string_view text, std::vector<std::int32_t>& ids) const {
  std::size_t begin = 0;
  InterruptionCounter next_place;
  for (std::size_t at = 0; at < text.size();) {
    next_place();
    const std::int32_t special = special_at(text, at);
    if (special < 0) {
      ++at;
      continue;
    }
    cut(0, text.substr(begin, at - begin), ids);
    ids.push_back(special);
    begin = at += word(special).size();
  }
  cut(0, text.substr(begin), ids);
}

std::int32_t BytePairTokenizer::special_at(std::string_view text, std::size_t at) const {
  for (const std::int32_t id : specials_[static_cast<unsigned char>(text[at])])
    if (text.substr(at).starts_with(word(id))) return id;
  return -1;
}

void BytePairTokenizer::cut(std::size_t pattern, std::string_view text, std::vector<std::int32_t>& ids) const {
  if (text.empty()) return;
  if (pattern == patterns_.size()) return encode_piece(text, ids);
  patterns_[pattern].split(
      text, [&](std::size_t begin, std::size_t end) { cut(pattern + 1, text.substr(begin, end - begin), ids); });
}

void BytePairTokenizer::encode_piece(std::string_view piece, std::vector<std::int32_t>& ids) const {
  cache_.append(piece, ids, [this](std::string_view text, std::vector<std::int32_t>& out) { merge(text, out); });
}

const BytePairTokenizer::Merge* BytePairTokenizer::find_merge(std::int32_t left, std::int32_t right) const {
  const auto found = merges_.find(pair_key(left, right));
  return found == merges_.end() ? nullptr : &found->second;
}

// Symbols are a linked list, pairs wait in a queue by rank and place; a pair whose symbols have changed since is
// skipped.
void BytePairTokenizer::merge(std::string_view piece, std::vector<std::int32_t>& ids) const {
  struct Symbol {
    std::int32_t id;
    int before, behind;
  };
  std::vector<Symbol> symbols;
  for (const char c : piece)
    if (const std::int32_t id = byte_ids_[static_cast<unsigned char>(c)]; id >= 0) {
      const int at = static_cast<int>(symbols.size());
      symbols.push_back({id, at - 1, at + 1});
    }
  if (symbols.empty()) return;
  symbols.back().behind = -1;
  const auto symbol = [&](int at) -> Symbol& { return symbols[static_cast<std::size_t>(at)]; };

  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> waiting;
  const auto consider = [&](int at) {
    if (at < 0 || symbol(at).behind < 0) return;
    const int behind = symbol(at).behind;
    const std::int32_t left = symbol(at).id, right = symbol(behind).id;
    if (const Merge* merge = find_merge(left, right)) waiting.push({merge->rank, at, behind, left, right});
  };
  for (int at = 0; at < static_cast<int>(symbols.size()); ++at) consider(at);
  InterruptionCounter next_candidate;
  while (!waiting.empty()) {
    next_candidate();
    const Candidate best = waiting.top();
    waiting.pop();
    Symbol& left = symbol(best.at);
    if (left.id != best.left || left.behind != best.behind || symbol(best.behind).id != best.right) continue;
    Symbol& right = symbol(best.behind);
    left.id = find_merge(best.left, best.right)->result;
    left.behind = right.behind;
    right.id = -1;  // gone
    if (left.behind >= 0) symbol(left.behind).before = best.at;
    consider(left.before);
    consider(best.at);
  }
  for (int at = 0; at >= 0; at = symbol(at).behind) ids.push_back(symbol(at).id);
}

}  // namespace fastreason
