// The exact law of a problem's outer shape: how many places and kinds it has, and how many kinds live in each place.
//
// Nothing that decides on acceptance depends on which kinds a place has, only on how many. So the degrees of the places
// are drawn from a table, and the kinds are put in once a problem is accepted, given its degrees.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "common/philox.h"
#include "tasks/problem.h"

namespace fastreason {

// Place p has degrees[p] of num_kinds kinds; degrees fall.
struct Structure {
  int num_places = 0, num_kinds = 0, num_edges = 0;
  std::array<std::uint8_t, kMaxPlaces> degrees{};
  // Probability of these degrees, in any order, given the numbers of places, kinds and edges.
  double probability = 0.0;

  // Draws which kinds live where, given the degrees; the kinds of each place in random order.
  void draw_kinds(Rng& rng, Table<KindList, kMaxPlaces>& kinds_of_place) const;

  // The original first gives every kind one place. How many each place got, with cumulative probability.
  struct FirstRound {
    double cumulative;
    std::array<std::uint8_t, kMaxPlaces> kinds;
  };
  std::vector<FirstRound> first_rounds;
};

// Every structure there is, built once.
const std::vector<Structure>& all_structures();

// Probability that an attempt of size s has each of all_structures(), in that order. Sums to the probability that an
// attempt's structure can be completed at all.
std::vector<double> structure_probabilities(int size, Mode mode, int depth);

}  // namespace fastreason
