#include "tasks/padding.h"

#include <algorithm>
#include <utility>

#include "tasks/problem.h"
#include "tasks/theme.h"

namespace fastreason {

namespace {

template <class T>
void shuffle(Rng& rng, std::vector<T>& items) {
  for (std::size_t i = items.size(); i > 1; --i)
    std::swap(items[i - 1], items[static_cast<std::size_t>(rng.below(static_cast<int>(i)))]);
}

class PaddingSampler {
 public:
  PaddingSampler(Rng& rng, const Theme& theme, Problem& problem) : rng_(rng), theme_(theme), problem_(problem) {
    problem.members.for_each([&](NodeId node) {
      if (!is_special(node)) quantities_.push_back(node);
    });
  }

  // Sub-lists of places in random order; in each place the kinds of two sub-lists, until the budget is spent.
  void draw_sentences(std::int64_t budget) {
    Padding& padding = problem_.padding;
    draw_places(padding.places);
    for (const std::uint16_t place : padding.places) {
      budget -= total_operand_tokens(place);  // what second operands may take
      bool fits = budget > 0;
      const auto& lists = theme_.spec().padding_kinds;
      const int first_list = rng_.below(static_cast<int>(lists.size()));
      int second_list = rng_.below(static_cast<int>(lists.size()) - 1);
      if (second_list >= first_list) ++second_list;
      for (const int list : {first_list, second_list})
        for (std::size_t i = 0; i < lists[static_cast<std::size_t>(list)].size() && fits; ++i) {
          const auto kind = static_cast<std::uint16_t>(theme_.padding_list_begin(list) + static_cast<int>(i));
          fits = add_quantity(place, kind, budget);
        }
      if (!fits) return;
    }
  }

  // In random order, sentences with one operand get the first total of another place that is still free, as long as the
  // total of their own place is free.
  void add_totals() {
    Padding& padding = problem_.padding;
    padding.open_totals.clear();
    padding.singles.clear();
    for (std::uint32_t i = 0; i < padding.sentences.size(); ++i) {
      const PaddingSentence& sentence = padding.sentences[i];
      if (padding.open_totals.empty() || padding.open_totals.back() != sentence.place)
        padding.open_totals.push_back(sentence.place);
      if (sentence.num_operands == 1) padding.singles.push_back(i);
    }
    shuffle(rng_, padding.singles);
    auto& open = padding.open_totals;
    for (const std::uint32_t i : padding.singles) {
      PaddingSentence& sentence = padding.sentences[i];
      if (open.size() < 2 || std::find(open.begin(), open.end(), sentence.place) == open.end()) continue;
      const auto other = open[0] == sentence.place ? open.begin() + 1 : open.begin();
      sentence.operands[1] = {*other, kNoNode};
      sentence.num_operands = 2;
      sentence.minus = rng_.coin();
      open.erase(other);
    }
  }

 private:
  void draw_places(std::vector<std::uint16_t>& places) {
    std::vector<std::uint16_t> begins;
    int next = 0;
    for (const auto& list : theme_.spec().padding_places) {
      begins.push_back(static_cast<std::uint16_t>(next));
      next += static_cast<int>(list.size());
    }
    std::vector<std::uint16_t> order(begins.size());
    for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<std::uint16_t>(i);
    shuffle(rng_, order);
    places.clear();
    for (const std::uint16_t list : order)
      for (std::size_t i = 0; i < theme_.spec().padding_places[list].size(); ++i)
        places.push_back(static_cast<std::uint16_t>(begins[list] + i));
  }

  // A count, and at depth 3 its average. False if they do not fit.
  bool add_quantity(std::uint16_t place, std::uint16_t kind, std::int64_t& budget) {
    const std::size_t before = problem_.padding.sentences.size();
    std::int64_t left = budget;
    for (const bool average : {false, true}) {
      if (average && problem_.depth == 2) break;
      PaddingSentence sentence;
      sentence.place = place;
      sentence.kind = kind;
      sentence.average = average;
      draw_operands(sentence);
      left -= tokens(sentence);
      problem_.padding.sentences.push_back(sentence);
    }
    if (left < 0) {
      problem_.padding.sentences.resize(before);
      return false;
    }
    budget = left;
    return true;
  }

  void draw_operands(PaddingSentence& sentence) {
    const int first = rng_.below(quantities_.size());
    sentence.operands[0].node = quantities_[first];
    if (quantities_.size() < 2 || rng_.coin()) return;
    int second = rng_.below(quantities_.size() - 1);
    if (second >= first) ++second;
    sentence.operands[1].node = quantities_[second];
    sentence.num_operands = 2;
    sentence.minus = rng_.coin();
  }

  int reference_tokens(NodeId node) const {
    return theme_.piece_tokens(type_of(node) == NodeType::kCount ? kRefTheNumberOf : kRefThe) +
           theme_.piece_tokens(theme_.name_piece(problem_, node));
  }
  int total_operand_tokens(std::uint16_t place) const {
    return theme_.piece_tokens(kTheSumOf) + theme_.piece_tokens(kAnd) + theme_.piece_tokens(kRefThe) +
           theme_.piece_tokens(theme_.padding_total_piece(problem_.depth)) +
           theme_.piece_tokens(theme_.padding_place_piece(place));
  }
  int tokens(const PaddingSentence& sentence) const {
    int total = theme_.piece_tokens(sentence.average ? kThe : kTheNumberOf) + theme_.piece_tokens(kEquals) +
                theme_.piece_tokens(kDot) + theme_.piece_tokens(theme_.padding_kind_piece(sentence.kind)) +
                theme_.piece_tokens(theme_.padding_in_piece()) +
                theme_.piece_tokens(theme_.padding_place_piece(sentence.place)) +
                reference_tokens(sentence.operands[0].node);
    if (sentence.average) total += theme_.piece_tokens(theme_.padding_average_piece());
    if (sentence.num_operands == 2)
      total += theme_.piece_tokens(sentence.minus ? kTheDifferenceBetween : kTheSumOf) + theme_.piece_tokens(kAnd) +
               reference_tokens(sentence.operands[1].node);
    return total;
  }

  Rng& rng_;
  const Theme& theme_;
  Problem& problem_;
  SmallVector<NodeId, kNumNodes> quantities_;
};

}  // namespace

void draw_padding(Rng& rng, const Theme& theme, std::int64_t budget, Problem& problem) {
  problem.padding.clear();
  if (budget == 0) return;
  PaddingSampler sampler(rng, theme, problem);
  sampler.draw_sentences(budget);
  sampler.add_totals();
  auto& order = problem.padding.order;
  const std::size_t all = static_cast<std::size_t>(problem.sentences.size()) + problem.padding.sentences.size();
  for (std::uint32_t i = 0; i < all; ++i) order.push_back(i);
  shuffle(rng, order);
}

std::int64_t max_padding(const Theme& theme, int depth) {
  const ThemeSpec& spec = theme.spec();
  if (spec.padding_kinds.size() < 2 || spec.padding_places.empty()) return 0;
  std::size_t places = 0, kinds = spec.padding_kinds[0].size();
  for (const auto& list : spec.padding_places) places += list.size();
  for (const auto& list : spec.padding_kinds) kinds = std::min(kinds, list.size());
  // every part of the shortest sentence, "The number of K in P equals the number of K in P.", has at least one token
  constexpr std::int64_t kShortest = 12;
  return static_cast<std::int64_t>(places * 2 * kinds) * (depth - 1) * kShortest;
}

}  // namespace fastreason
