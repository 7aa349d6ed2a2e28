#include "tasks/structure_law.h"

#include <algorithm>
#include <utility>

#include "common/portable_math.h"
#include "tasks/schedule.h"

namespace fastreason {

namespace {

constexpr int kMaxPairs = kMaxPlaces * kMaxKinds;

double binomial(int n, int k) {
  if (k < 0 || k > n) return 0.0;
  double value = 1.0;
  for (int i = 1; i <= k; ++i) value = value * (n - k + i) / i;
  return value;
}

// Probability that random picks among `pairs` pairs find all missing ones of a structure, from `edges` to `wanted`, in
// at most `tries` picks.
double completion_probability(int pairs, int edges, int wanted, int tries) {
  // by edges, for a growing number of tries
  std::vector<double> reached(static_cast<std::size_t>(wanted) + 1, 0.0);
  reached.back() = 1.0;
  for (int t = 0; t < tries; ++t)
    for (int e = edges; e < wanted; ++e) {
      const auto at = static_cast<std::size_t>(e);
      const double fresh = static_cast<double>(pairs - e) / pairs;
      reached[at] = fresh * reached[at + 1] + (1.0 - fresh) * reached[at];
    }
  return reached[static_cast<std::size_t>(edges)];
}

// The original fills a structure in three rounds: every kind gets a uniform place, every place still empty gets a
// uniform kind, and pairs are picked at random, again if they are edges already, until there are enough edges or
// 10 * edges picks were made. The last round so adds a uniform subset of the missing pairs.
void add_first_rounds(Structure& structure) {
  const int places = structure.num_places, kinds = structure.num_kinds, edges = structure.num_edges;
  double arrangements = 1.0;  // distinct orders of the degrees
  for (int p = 0, equal = 1; p < places; ++p, ++equal) {
    if (p > 0 && structure.degrees[static_cast<std::size_t>(p)] != structure.degrees[static_cast<std::size_t>(p - 1)])
      equal = 1;
    arrangements = arrangements * (p + 1) / equal;
  }
  std::array<std::uint8_t, kMaxPlaces> first{};
  const auto finish = [&] {
    int filled = 0;  // edges after the second round
    double ways = 1.0;
    int kinds_left = kinds;
    for (int p = 0; p < places; ++p) {
      const auto at = static_cast<std::size_t>(p);
      const int known = std::max<int>(1, first[at]);
      filled += known;
      ways *= binomial(kinds_left, first[at]) * binomial(kinds - known, structure.degrees[at] - known);
      kinds_left -= first[at];
    }
    double probability = ways / binomial(places * kinds - filled, edges - filled);
    for (int k = 0; k < kinds; ++k) probability /= places;
    probability *= completion_probability(places * kinds, filled, edges, 10 * edges - (filled - kinds));
    structure.probability += arrangements * probability;
    structure.first_rounds.push_back({structure.probability, first});
  };
  const auto distribute = [&](auto&& self, int place, int left) -> void {
    const auto at = static_cast<std::size_t>(place);
    const int most = std::min<int>(left, structure.degrees[at]);
    for (int k = place + 1 == places ? left : 0; k <= most; ++k) {
      first[at] = static_cast<std::uint8_t>(k);
      if (place + 1 == places)
        finish();
      else
        self(self, place + 1, left - k);
    }
  };
  distribute(distribute, 0, kinds);
}

std::vector<Structure> make_structures() {
  std::vector<Structure> all;
  for (int places = 1; places <= kMaxPlaces; ++places)
    for (int kinds = 1; kinds <= kMaxKinds; ++kinds) {
      Structure structure;
      structure.num_places = places;
      structure.num_kinds = kinds;
      const auto add_degree = [&](auto&& self, int place, int most) -> void {
        if (place == places) {
          if (structure.num_edges < kinds || structure.num_edges > kMaxStructureEdges) return;
          all.push_back(structure);
          add_first_rounds(all.back());
          return;
        }
        for (int degree = most; degree >= 1; --degree) {
          structure.degrees[static_cast<std::size_t>(place)] = static_cast<std::uint8_t>(degree);
          structure.num_edges += degree;
          self(self, place + 1, degree);
          structure.num_edges -= degree;
        }
      };
      add_degree(add_degree, 0, kinds);
    }
  return all;
}

using WidthLaw = std::array<double, kMaxPlaces + 1>;  // by width

// A width t in 1 .. 5 has probability proportional to exp(-(rel - c_t)^2), c_t = 0.1, 0.3, 0.5, 0.7, 0.9.
WidthLaw width_law(int size, Mode mode, int depth) {
  const double rel = (size - 1) / static_cast<double>(kMaxStructureEdges - 1);
  double weight[kMaxPlaces + 1] = {}, total = 0.0;
  for (int t = 1; t <= kMaxPlaces; ++t) {
    const double distance = rel - (0.2 * t - 0.1);
    total += weight[t] = exponential(-distance * distance);
  }
  WidthLaw law{};
  for (int t = 1; t <= kMaxPlaces; ++t) {
    int width = t;
    // the original clamps small problems differently in its two modes
    if (size <= 5 && mode == Mode::kReverse) width = std::min(t, 3);
    if (size <= 5 && mode == Mode::kForward && depth == 2) width = std::max(t, 2);
    law[static_cast<std::size_t>(width)] += weight[t] / total;
  }
  return law;
}

// Probability of every number of places and kinds that widths w0 <= w1 grow into: one of both, chosen evenly among
// those below w1, grows while there are too few pairs, and from then on with a probability q that is uniform for the
// attempt.
using GrownLaw = std::array<std::array<double, kMaxKinds + 1>, kMaxPlaces + 1>;

GrownLaw grown_law(int w0, int w1, int edges) {
  constexpr std::size_t kMostSteps = 2 * kMaxPlaces;
  // by places, kinds, and how often growing was a matter of q
  double reached[kMaxPlaces + 1][kMaxKinds + 1][kMostSteps] = {};
  reached[w0][w0][0] = 1.0;
  GrownLaw law{};
  for (int places = w0; places <= w1; ++places)
    for (int kinds = w0; kinds <= w1; ++kinds)
      for (std::size_t g = 0; g < kMostSteps; ++g) {
        const double here = reached[places][kinds][g];
        if (here == 0.0) continue;
        const bool forced = places * kinds < edges;
        double& stopped = law[static_cast<std::size_t>(places)][static_cast<std::size_t>(kinds)];
        const auto growths = static_cast<double>(g);
        if ((places == w1 && kinds == w1) || (!forced && kinds == edges)) {
          stopped += here / (growths + 1.0);  // integral of q^g over q
          continue;
        }
        if (!forced) stopped += here / ((growths + 1.0) * (growths + 2.0));  // of q^g (1 - q)
        const double share = here / (places < w1 && kinds < w1 ? 2.0 : 1.0);
        if (places < w1) reached[places + 1][kinds][forced ? g : g + 1] += share;
        if (kinds < w1) reached[places][kinds + 1][forced ? g : g + 1] += share;
      }
  return law;
}

}  // namespace

const std::vector<Structure>& all_structures() {
  static const std::vector<Structure> all = make_structures();
  return all;
}

void Structure::draw_kinds(Rng& rng, Table<KindList, kMaxPlaces>& kinds_of_place) const {
  const double u = rng.unit() * probability;
  std::size_t round = 0;
  while (round + 1 < first_rounds.size() && u >= first_rounds[round].cumulative) ++round;
  int next_kind = 0;  // names are drawn at random, so the first round may deal the kinds out in order
  for (int p = 0; p < num_places; ++p) {
    KindList& list = kinds_of_place[p];
    list.clear();
    const int first_kind = next_kind;
    next_kind += first_rounds[round].kinds[static_cast<std::size_t>(p)];
    for (int k = first_kind; k < next_kind; ++k) list.push_back(static_cast<std::uint8_t>(k));
    KindList others;
    for (int k = 0; k < num_kinds; ++k)
      if (k < first_kind || k >= next_kind) others.push_back(static_cast<std::uint8_t>(k));
    while (list.size() < degrees[static_cast<std::size_t>(p)]) {
      const int pick = rng.below(others.size());
      list.push_back(others[pick]);
      others.swap_erase(pick);
    }
    for (int i = list.size() - 1; i > 0; --i) std::swap(list[i], list[rng.below(i + 1)]);
  }
}

std::vector<double> structure_probabilities(int size, Mode mode, int depth) {
  const WidthLaw width = width_law(size, mode, depth);
  // by places, kinds and edges
  double sizes[kMaxPlaces + 1][kMaxKinds + 1][kMaxPairs + 1] = {};
  for (int w0 = 1; w0 <= kMaxPlaces; ++w0)
    for (int w1 = w0; w1 <= kMaxPlaces; ++w1) {
      const double widths = width[static_cast<std::size_t>(w0)] * width[static_cast<std::size_t>(w1)];
      const double pair = w0 == w1 ? widths : 2.0 * widths;
      if (pair == 0.0) continue;
      // edges = min of two uniform draws and of `most`
      const int fewest = (depth - 1) * w0, most = w1 * w1 + (depth == 3 ? w1 : 0);
      const double choices = kMaxStructureEdges - fewest + 1;
      for (int edges = fewest; edges <= std::min(most, kMaxStructureEdges); ++edges) {
        const auto above = [&](int e) { return (kMaxStructureEdges - e + 1) / choices; };  // P(one draw >= e)
        const double at_least = above(edges) * above(edges), more = above(edges + 1) * above(edges + 1);
        const double share = pair * (edges == most ? at_least : at_least - more);
        const GrownLaw grown = grown_law(w0, w1, edges);
        if (edges > kMaxPairs) continue;
        for (int places = w0; places <= w1; ++places)
          for (int kinds = w0; kinds <= w1; ++kinds)
            sizes[places][kinds][edges] +=
                share * grown[static_cast<std::size_t>(places)][static_cast<std::size_t>(kinds)];
      }
    }
  std::vector<double> probabilities;
  for (const Structure& structure : all_structures())
    probabilities.push_back(structure.probability *
                            sizes[structure.num_places][structure.num_kinds][structure.num_edges]);
  return probabilities;
}

}  // namespace fastreason
