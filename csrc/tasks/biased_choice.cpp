#include "tasks/biased_choice.h"

#include <cmath>
#include <vector>

#include "common/portable_math.h"

namespace fastreason {

namespace {

constexpr int kSide = kMaxTabulated + 1;
using Probabilities = std::array<double, 3>;

double decay(double x) { return x > 700.0 ? 0.0 : exponential(-x); }

// Nodes of the integral over u = ln t. The integrand is analytic, so equal steps converge faster than any power of
// them; below the first node it is under 1e-14, behind the last under exp(-80).
struct Node {
  double t;
  double transform[3];  // E[e^(-t w)] by bias
  double moment[3];     // t E[w e^(-t w)]
};

std::vector<Node> make_nodes() {
  // Gauss-Legendre, ten points a panel of width 1/2, over |g| in 0 .. 9
  constexpr double kPoint[5] = {0.1488743389816312, 0.4333953941292472, 0.6794095682990244, 0.8650633666889845,
                                0.9739065285171717};
  constexpr double kWeight[5] = {0.2955242247147529, 0.2692667193099964, 0.2190863625159820, 0.1494513491505806,
                                 0.0666713443086881};
  constexpr double kHalfNormal = 0.7978845608028654;  // sqrt(2 / pi)
  std::vector<Node> nodes;
  for (int step = -180; step <= 19; ++step) {
    Node node{exponential(0.2 * step), {decay(exponential(0.2 * step)), 0.0, 0.0}, {}};
    node.moment[0] = node.t * node.transform[0];
    for (int bias = 1; bias < 3; ++bias)
      for (int panel = 0; panel < 18; ++panel)
        for (int i = -5; i < 5; ++i) {
          const int at = i < 0 ? -i - 1 : i;
          const double g = 0.5 * panel + 0.25 + (i < 0 ? -0.25 : 0.25) * kPoint[at];
          const double w = exponential(bias * g);
          const double mass = 0.25 * kWeight[at] * kHalfNormal * exponential(-0.5 * g * g) * decay(node.t * w);
          node.transform[bias] += mass;
          node.moment[bias] += node.t * w * mass;
        }
    nodes.push_back(node);
  }
  return nodes;
}

double power(double base, int exponent) {
  double value = 1.0;
  for (int i = 0; i < exponent; ++i) value *= base;
  return value;
}

Probabilities integrate(const std::vector<Node>& nodes, const std::array<int, 3>& counts) {
  Probabilities found{};
  for (const Node& node : nodes) {
    double powers[3], fewer[3];
    for (std::size_t b = 0; b < 3; ++b) {
      fewer[b] = counts[b] > 0 ? power(node.transform[b], counts[b] - 1) : 0.0;
      powers[b] = counts[b] > 0 ? fewer[b] * node.transform[b] : 1.0;
    }
    found[0] += counts[0] * node.moment[0] * fewer[0] * powers[1] * powers[2];
    found[1] += counts[1] * node.moment[1] * powers[0] * fewer[1] * powers[2];
    found[2] += counts[2] * node.moment[2] * powers[0] * powers[1] * fewer[2];
  }
  const double total = found[0] + found[1] + found[2];
  for (double& p : found) p /= total;
  return found;
}

std::size_t table_index(const std::array<int, 3>& counts) {
  return static_cast<std::size_t>((counts[0] * kSide + counts[1]) * kSide + counts[2]);
}

const std::vector<Probabilities>& table() {
  static const std::vector<Probabilities> built = [] {
    const std::vector<Node> nodes = make_nodes();
    std::vector<Probabilities> entries(static_cast<std::size_t>(kSide * kSide * kSide));
    for (int n0 = 0; n0 <= kMaxTabulated; ++n0)
      for (int n1 = 0; n0 + n1 <= kMaxTabulated; ++n1)
        for (int n2 = n0 + n1 == 0 ? 1 : 0; n0 + n1 + n2 <= kMaxTabulated; ++n2)
          entries[table_index({n0, n1, n2})] = integrate(nodes, {n0, n1, n2});
    return entries;
  }();
  return built;
}

// The definition, for more candidates than the table knows.
int draw_bias_by_weights(Rng& rng, const std::array<int, 3>& counts) {
  double weight[3] = {static_cast<double>(counts[0]), 0.0, 0.0};
  for (int bias = 1; bias < 3; ++bias)
    for (int i = 0; i < counts[static_cast<std::size_t>(bias)]; ++i)
      weight[bias] += exponential(bias * std::abs(rng.normal()));
  const double u = rng.unit() * (weight[0] + weight[1] + weight[2]);
  if (u < weight[0]) return 0;
  return u < weight[0] + weight[1] || counts[2] == 0 ? 1 : 2;
}

}  // namespace

std::array<double, 3> bias_probabilities(const std::array<int, 3>& counts) { return table()[table_index(counts)]; }

int draw_bias(Rng& rng, const std::array<int, 3>& counts) {
  const int total = counts[0] + counts[1] + counts[2];
  for (int bias = 0; bias < 3; ++bias)
    if (counts[static_cast<std::size_t>(bias)] == total) return bias;
  if (total > kMaxTabulated) return draw_bias_by_weights(rng, counts);
  const Probabilities& chance = table()[table_index(counts)];
  const double u = rng.unit();
  if (u < chance[0]) return 0;
  return u < chance[0] + chance[1] || counts[2] == 0 ? 1 : 2;
}

int draw_bias(ChoiceTree& tree, const std::array<int, 3>& counts) {
  const Probabilities chance = bias_probabilities(counts);
  std::array<double, 3> weights{};  // of the biases that there are
  std::array<int, 3> biases{};
  std::size_t size = 0;
  double total = 0.0;
  for (std::size_t bias = 0; bias < 3; ++bias)
    if (counts[bias] > 0) {
      total += weights[size] = chance[bias];
      biases[size++] = static_cast<int>(bias);
    }
  return biases[static_cast<std::size_t>(tree.weighted({weights.data(), size}, total))];
}

}  // namespace fastreason
