#include "tasks/sampler.h"

#include <algorithm>
#include <stdexcept>
#include <string>

namespace fastreason {

namespace {

constexpr int kMaxStructureEdges = 20;  // ip_max of the original

template <class Container>
int uniform_index(Rng& rng, const Container& items) {
  return rng.below(items.size());
}

NodeId uniform_member(Rng& rng, const NodeSet& set) { return set.nth(rng.below(set.size())); }

template <class T, int Capacity>
void shuffle(Rng& rng, SmallVector<T, Capacity>& items) {
  for (int i = items.size() - 1; i > 0; --i) std::swap(items[i], items[rng.below(i + 1)]);
}

}  // namespace

int schedule_size(int op) {
  constexpr int kSizes[] = {2, 2, 2, 3, 3, 5, 5, 5, 8, 8, 10, 10, 10, 10, 13, 13, 13, 15, 15};  // op 2 .. 20
  if (op < kMinOp || op > kMaxOp)
    throw std::invalid_argument("op must be in " + std::to_string(kMinOp) + " .. " + std::to_string(kMaxOp) + ", got " +
                                std::to_string(op));
  return kSizes[op - kMinOp];
}

ProblemSampler::ProblemSampler(const ProblemSpec& spec) : spec_(spec), size_(schedule_size(spec.op)) {
  // A width t in 1 .. 5 has probability proportional to exp(-(rel - c_t)^2), c_t = 0.1, 0.3, 0.5, 0.7, 0.9.
  const double rel = (size_ - 1) / static_cast<double>(kMaxStructureEdges - 1);
  double weight[5], total = 0.0;
  for (int k = 0; k < 5; ++k) {
    const double distance = rel - (0.1 + 0.2 * k);
    total += weight[k] = exponential(-distance * distance);
  }
  double cumulative = 0.0;
  for (int k = 0; k < 4; ++k) {
    cumulative += weight[k];
    width_threshold_[k] = static_cast<std::uint32_t>(cumulative / total * 0x1p32);
  }
}

bool ProblemSampler::attempt(Rng& rng, Problem& problem) {
  Sizes sizes;
  if (!draw_sizes(rng, sizes) || !draw_structure(rng, sizes, problem)) return false;
  reset_nodes(problem);
  choose_members(rng, sizes, problem);
  if (!order_members(rng, problem)) return false;
  extend_pair(rng, problem);
  return draw_parents(rng, problem) && problem.op == spec_.op && assign_values(rng, problem);
}

// --- sizes and structure -------------------------------------------------------------------------------------------

bool ProblemSampler::draw_sizes(Rng& rng, Sizes& sizes) {
  sizes.budget_n = std::max(rng.between(1, size_), rng.between(1, size_));
  sizes.budget_m = rng.between(sizes.budget_n, size_);
  const auto draw_width = [&] {
    const std::uint32_t u = rng.next();
    int width = 1;
    while (width < 5 && u >= width_threshold_[width - 1]) ++width;
    if (size_ > 5) return width;
    // the original clamps small problems differently in its two modes
    if (spec_.mode == Mode::kReverse) return std::min(width, 3);
    return spec_.depth == 2 ? std::max(width, 2) : width;
  };
  const int t0 = draw_width(), t1 = draw_width();
  sizes.width_low = std::min(t0, t1);
  sizes.width_high = std::max(t0, t1);
  const int fewest = (spec_.depth - 1) * sizes.width_low;
  const int most = sizes.width_high * sizes.width_high + (spec_.depth == 3 ? sizes.width_high : 0);
  sizes.edges = std::min({rng.between(fewest, kMaxStructureEdges), rng.between(fewest, kMaxStructureEdges), most});
  return sizes.edges * (spec_.depth - 1) <= spec_.max_sentences;
}

bool ProblemSampler::draw_structure(Rng& rng, const Sizes& sizes, Problem& problem) {
  const double stay = rng.unit();
  int places = sizes.width_low, kinds = sizes.width_low;
  while (places < sizes.width_high || kinds < sizes.width_high) {
    if (places * kinds >= sizes.edges && (kinds == sizes.edges || rng.unit() >= stay)) break;
    const bool grow_places = kinds == sizes.width_high || (places < sizes.width_high && rng.coin());
    ++(grow_places ? places : kinds);
  }
  // depth 3 may ask for more edges than there are pairs, depth 2 for fewer edges than places: neither can succeed
  if (sizes.edges > places * kinds || sizes.edges < places) return false;

  Table<std::uint8_t, kMaxPlaces> kinds_at{};  // bit t: kind t exists in the place
  int edges = 0;
  for (; edges < kinds; ++edges) kinds_at[rng.below(places)] |= std::uint8_t(1u << edges);
  for (int tries = 0; edges < sizes.edges;) {
    if (++tries > 10 * sizes.edges) return false;
    SmallVector<std::uint8_t, kMaxPlaces> empty;
    for (int p = 0; p < places; ++p)
      if (kinds_at[p] == 0) empty.push_back(static_cast<std::uint8_t>(p));
    const int place = empty.empty() ? rng.below(places) : empty[uniform_index(rng, empty)];
    const auto bit = static_cast<std::uint8_t>(1u << rng.below(kinds));
    if ((kinds_at[place] & bit) == 0) {
      kinds_at[place] |= bit;
      ++edges;
    }
  }
  problem.num_places = places;
  for (int p = 0; p < places; ++p) {
    if (kinds_at[p] == 0) return false;
    KindList& list = problem.kinds_of_place[p];
    list.clear();
    for (int t = 0; t < kinds; ++t)
      if (kinds_at[p] >> t & 1) list.push_back(static_cast<std::uint8_t>(t));
    shuffle(rng, list);
  }
  return true;
}

void ProblemSampler::reset_nodes(Problem& problem) {
  problem.mode = spec_.mode;
  problem.depth = spec_.depth;
  problem.unknown = kNoNode;
  problem.members = {};
  problem.topo.clear();
  instances_.clear();
  abstracts_.clear();
  level1_.clear();
  level2_.clear();
  const auto start = [&](NodeId node) {
    problem.parents[node].clear();
    problem.formulas[node] = {};
    parent_sets_[node] = {};
  };
  for (int p = 0; p < problem.num_places; ++p) {
    const NodeId total = total_node(p), average_total = average_total_node(p);
    start(total);
    level1_.push_back(total);
    if (spec_.depth == 3) {
      start(average_total);
      level2_.push_back(average_total);
    }
    for (const int t : problem.kinds_of_place[p]) {
      const NodeId count = count_node(p, t), average = average_node(p, t), special = special_node(p, t);
      start(count);
      instances_.push_back(count);
      add_parent(problem, total, count);
      if (spec_.depth == 3) {
        start(average);
        start(special);
        instances_.push_back(average);
        level1_.push_back(special);
        add_parent(problem, special, average);
        add_parent(problem, average_total, count);
        add_parent(problem, average_total, special);
      }
    }
  }
}

// --- necessary graph, stage 1: which quantities --------------------------------------------------------------------

void ProblemSampler::choose_members(Rng& rng, const Sizes& sizes, Problem& problem) {
  int cost = 0;  // operations of the abstracts so far; specials count one
  const auto try_level = [&](auto& level) {
    if (level.empty()) return false;
    const int pick = uniform_index(rng, level);
    const NodeId abstract = level[pick];
    level.swap_erase(pick);  // for good: a refused abstract does not come back, not even as a distractor's parent
    const int added = abstract_cost(problem, abstract);
    if (cost + added > sizes.budget_n) return false;
    cost += added;
    add_abstract(problem, abstract);
    return true;
  };
  while (try_level(level2_) || try_level(level1_)) {
  }
  // the original adds m - k - 1 instances where it meant m - k
  for (int extra = sizes.budget_m - cost - 1; extra > 0; --extra) {
    SmallVector<NodeId, 2 * kMaxEdges> rest;
    for (const NodeId node : instances_)
      if (!problem.members.contains(node)) rest.push_back(node);
    if (rest.empty()) return;
    problem.members.add(rest[uniform_index(rng, rest)]);
  }
}

int ProblemSampler::abstract_cost(const Problem& problem, NodeId abstract) const {
  if (problem.members.contains(abstract)) return 0;
  int cost = problem.parents[abstract].size();
  for (const NodeId parent : problem.parents[abstract])
    if (is_special(parent)) cost += abstract_cost(problem, parent);
  return cost;
}

void ProblemSampler::add_abstract(Problem& problem, NodeId abstract) {
  if (problem.members.contains(abstract)) return;
  problem.members.add(abstract);
  abstracts_.push_back(abstract);
  for (const NodeId parent : problem.parents[abstract]) {
    if (is_instance(parent))
      problem.members.add(parent);
    else
      add_abstract(problem, parent);
  }
}

void ProblemSampler::add_parent(Problem& problem, NodeId child, NodeId parent) {
  if (parent_sets_[child].contains(parent)) return;
  parent_sets_[child].add(parent);
  problem.parents[child].push_back(parent);
}

// --- stage 2: order, and edges that keep the graph connected -------------------------------------------------------

bool ProblemSampler::order_members(Rng& rng, Problem& problem) {
  SmallVector<NodeId, kNumNodes> backwards;  // topo is found from the target towards the leaves
  NodeSet open = problem.members;            // not yet in topo
  NodeSet wanted;                            // parents of something in topo
  NodeSet needed_by_open;                    // parents of something open
  const auto refresh = [&] {
    needed_by_open = {};
    for (const NodeId abstract : abstracts_)  // open instances have no parents yet
      if (open.contains(abstract)) needed_by_open = needed_by_open | parent_sets_[abstract];
  };
  refresh();
  if (open.empty()) return false;

  NodeId next = uniform_member(rng, open.minus(needed_by_open));
  if (spec_.mode == Mode::kReverse) {
    // the original prefers the first average total, else the first total, among the possible targets
    for (const NodeType type : {NodeType::kTotal, NodeType::kAverageTotal})
      for (int i = abstracts_.size() - 1; i >= 0; --i)
        if (type_of(abstracts_[i]) == type && !needed_by_open.contains(abstracts_[i])) next = abstracts_[i];
  }
  while (true) {
    backwards.push_back(next);
    open.remove(next);
    wanted = wanted | parent_sets_[next];
    if (open.empty()) break;
    refresh();
    const NodeSet free = open.minus(needed_by_open);
    if ((free & wanted).empty()) {
      if (!is_instance(next)) return false;
      const NodeId parent = choose_biased(rng, free, wanted);
      add_parent(problem, next, parent);
      wanted.add(parent);
    } else if (is_instance(next) && rng.coin()) {
      const NodeId parent = choose_biased(rng, open, wanted);
      add_parent(problem, next, parent);
      wanted.add(parent);
    }
    next = uniform_member(rng, free & wanted);
  }
  for (int i = backwards.size() - 1; i >= 0; --i) problem.topo.push_back(backwards[i]);
  return true;
}

// Chooses y with probability proportional to exp(([y abstract] + [y wanted]) * |g_y|), g_y standard normal.
NodeId ProblemSampler::choose_biased(Rng& rng, const NodeSet& candidates, const NodeSet& wanted_by_topo) {
  if (candidates.size() == 1) return candidates.nth(0);
  SmallVector<NodeId, kNumNodes> nodes;
  SmallVector<double, kNumNodes> cumulative;
  double total = 0.0;
  candidates.for_each([&](NodeId node) {
    const int bias = (is_instance(node) ? 0 : 1) + (wanted_by_topo.contains(node) ? 1 : 0);
    total += bias == 0 ? 1.0 : exponential(bias * std::abs(rng.normal()));
    nodes.push_back(node);
    cumulative.push_back(total);
  });
  const double u = rng.unit() * total;
  int pick = 0;
  while (pick + 1 < nodes.size() && u >= cumulative[pick]) ++pick;
  return nodes[pick];
}

// A chain of two nodes gets, half of the time, the first unused instance before or after it.
void ProblemSampler::extend_pair(Rng& rng, Problem& problem) {
  if (problem.topo.size() != 2 || !rng.coin()) return;
  for (const NodeId node : instances_) {
    if (problem.topo.contains(node)) continue;
    problem.members.add(node);
    if (rng.coin()) {
      add_parent(problem, problem.topo[0], node);
      problem.topo.insert(0, node);
    } else {
      add_parent(problem, node, problem.topo[1]);
      problem.topo.push_back(node);
    }
    return;
  }
}

// --- stage 3: parents of the instances -----------------------------------------------------------------------------

bool ProblemSampler::draw_parents(Rng& rng, Problem& problem) {
  const auto& topo = problem.topo;
  Table<int, kNumNodes> in_degree;  // by position in topo
  SmallVector<std::uint8_t, kNumNodes> growable;
  int total = 0;
  for (int i = 0; i < topo.size(); ++i) {
    in_degree[i] = problem.parents[topo[i]].size();
    total += problem.parents[topo[i]].size();
  }
  const auto most = [](int i) { return std::min(3, std::max(1, i)); };
  for (int i = 0; i < topo.size(); ++i)
    if (is_instance(topo[i]) && in_degree[i] < most(i)) growable.push_back(static_cast<std::uint8_t>(i));
  for (; total < size_; ++total) {
    if (growable.empty()) return false;
    const int pick = uniform_index(rng, growable);
    const int i = growable[pick];
    if (++in_degree[i] == most(i)) growable.erase(pick);
  }

  for (int i = 0; i < topo.size(); ++i) {
    const NodeId node = topo[i];
    if (!is_instance(node)) continue;
    const int degree = in_degree[i];
    int wanted = degree == 1 ? (rng.coin() ? 1 : 2) : degree + 1;  // the constant counts as one
    int pool = i + 1;                                              // the constant, then topo[0 .. i-1]
    wanted = std::min(wanted, pool);
    if (!problem.parents[node].empty()) {
      // the original drops the nearest earlier node where it meant to drop the parent that is set already
      --pool;
      --wanted;
    }
    Formula& formula = problem.formulas[node];
    if (wanted == pool) {
      formula.has_constant = true;
      for (int j = 0; j + 1 < pool; ++j) add_parent(problem, node, topo[j]);
      continue;
    }
    if (rng.coin()) {
      formula.has_constant = true;
      --wanted;
    }
    SmallVector<NodeId, kNumNodes> rest;
    for (int j = 0; j + 1 < pool; ++j) rest.push_back(topo[j]);
    for (; wanted > 0; --wanted) {
      const int pick = uniform_index(rng, rest);
      add_parent(problem, node, rest[pick]);
      rest.swap_erase(pick);
    }
  }

  problem.op = 0;
  for (const NodeId node : topo) {
    if (is_special(node)) continue;
    ParentList& parents = problem.parents[node];
    if (spec_.depth == 3 && is_instance(node)) {
      // a special and its average have one name: keep the special
      for (int j = parents.size() - 1; j >= 0; --j)
        if (type_of(parents[j]) == NodeType::kAverage &&
            parent_sets_[node].contains(special_node(place_of(parents[j]), kind_of(parents[j]))))
          parents.erase(j);
    }
    problem.op += parents.size() + (problem.formulas[node].has_constant ? 1 : 0);
  }
  return true;
}

// --- numbers ---------------------------------------------------------------------------------------------------------

void ProblemSampler::draw_formula(Rng& rng, Problem& problem, NodeId node) {
  Formula& formula = problem.formulas[node];
  const int num_parents = problem.parents[node].size();
  if (formula.has_constant) {
    formula.times = rng.coin();
    formula.constant = rng.between(formula.times ? 2 : 1, spec_.number_range - 1);
    if (num_parents == 0) formula.times = false;
  } else if (num_parents == 0) {
    formula.has_constant = true;
    formula.constant = rng.between(1, spec_.number_range - 1);
  }
  formula.minus = num_parents == 2 && rng.coin();
}

bool ProblemSampler::assign_values(Rng& rng, Problem& problem) {
  for (const NodeId node : problem.topo) {
    const ParentList& parents = problem.parents[node];
    std::int64_t value = 0;
    if (type_of(node) == NodeType::kAverageTotal) {
      for (int i = 0; i < parents.size(); i += 2) value += problem.values[parents[i]] * problem.values[parents[i + 1]];
    } else {
      if (is_instance(node)) draw_formula(rng, problem, node);
      const Formula& formula = problem.formulas[node];
      for (const NodeId parent : parents) value += problem.values[parent];
      if (formula.minus) value -= 2 * problem.values[parents[1]];
      if (formula.has_constant && formula.times) value *= formula.constant;
      if (formula.has_constant && !formula.times) value += formula.constant;
    }
    const bool may_be_zero = type_of(node) != NodeType::kCount;
    if (value < (may_be_zero ? 0 : 1) || value > spec_.max_value) return false;
    problem.values[node] = value;
    if (is_instance(node) && parents.empty()) problem.unknown = node;
  }
  if (spec_.mode == Mode::kReverse) return target_is_linear(problem);
  problem.unknown = kNoNode;
  return true;
}

// Whether the target is a * x + b with a != 0, x the value of the unknown; squares are refused wherever they occur.
bool ProblemSampler::target_is_linear(const Problem& problem) const {
  Table<std::int64_t, kNumNodes> slope;
  for (const NodeId node : problem.topo) {
    const ParentList& parents = problem.parents[node];
    const Formula& formula = problem.formulas[node];
    std::int64_t a = node == problem.unknown ? 1 : 0;
    if (type_of(node) == NodeType::kAverageTotal) {
      for (int i = 0; i < parents.size(); i += 2) {
        const NodeId count = parents[i], average = parents[i + 1];
        if (slope[count] != 0 && slope[average] != 0) return false;
        a += slope[count] * problem.values[average] + slope[average] * problem.values[count];
      }
    } else {
      for (const NodeId parent : parents) a += slope[parent];
      if (formula.minus) a -= 2 * slope[parents[1]];
      if (formula.has_constant && formula.times) a *= formula.constant;
    }
    slope[node] = a;
  }
  return slope[problem.target()] != 0;
}

// --- distractors
// -------------------------------------------------------------------------------------------------------

void ProblemSampler::finish(Rng& rng, Problem& problem) {
  SmallVector<NodeId, kMaxEdges + 2 * kMaxPlaces> never;  // abstracts that stage 1 never drew
  for (const NodeId node : level1_) never.push_back(node);
  for (const NodeId node : level2_) never.push_back(node);
  SmallVector<NodeId, 2 * kMaxEdges> independent;  // distractors that only other such distractors may explain

  while (true) {
    SmallVector<NodeId, 2 * kMaxEdges> left;
    for (const NodeId node : instances_)
      if (!problem.members.contains(node)) left.push_back(node);
    if (left.empty()) break;
    SmallVector<NodeId, 160> known;
    for (const NodeId node : abstracts_) known.push_back(node);
    for (const NodeId node : instances_)
      if (problem.members.contains(node)) known.push_back(node);
    // one known parent suffices in the original, so a total may explain one of its own parts; and a total that a
    // distractor brought in is listed twice
    for (const NodeId node : never)
      if (!(parent_sets_[node] & problem.members).empty()) known.push_back(node);

    const NodeId node = left[uniform_index(rng, left)];
    problem.members.add(node);
    if (rng.coin()) {
      known.clear();
      for (const NodeId other : independent) known.push_back(other);
      independent.push_back(node);
    }
    draw_distractor_parents(rng, problem, node, known);
  }
  problem.sentences.clear();
  for (const NodeId node : instances_) {
    if (!problem.topo.contains(node)) draw_formula(rng, problem, node);
    problem.sentences.push_back(node);
  }
  if (spec_.mode == Mode::kReverse) problem.sentences.push_back(kToldSentence);
  shuffle(rng, problem.sentences);
}

void ProblemSampler::draw_distractor_parents(Rng& rng, Problem& problem, NodeId node,
                                             const SmallVector<NodeId, 160>& pool) {
  const int pool_size = pool.size() + 1;  // the constant is one of them
  int wanted = 1;
  while (wanted < std::min(4, pool_size) && rng.coin()) ++wanted;
  const auto take = [&](NodeId parent) {
    if (!is_instance(parent)) add_abstract(problem, parent);
    add_parent(problem, node, parent);
  };
  if (wanted == pool_size) {
    for (const NodeId parent : pool) take(parent);
    problem.formulas[node].has_constant = true;
    return;
  }
  if (rng.coin()) {
    problem.formulas[node].has_constant = true;
    --wanted;
  }
  SmallVector<NodeId, 160> rest = pool;
  for (; wanted > 0; --wanted) {
    const int pick = uniform_index(rng, rest);
    take(rest[pick]);
    rest.swap_erase(pick);
  }
}

}  // namespace fastreason
