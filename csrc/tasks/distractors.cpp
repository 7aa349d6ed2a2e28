// What an accepted attempt still lacks: the quantities that the answer does not depend on.
#include <algorithm>
#include <bit>
#include <utility>

#include "tasks/sampler.h"

namespace fastreason {

namespace {

template <class T, int Capacity>
void shuffle(Rng& rng, SmallVector<T, Capacity>& items) {
  for (int i = items.size() - 1; i > 0; --i) std::swap(items[i], items[rng.below(i + 1)]);
}

}  // namespace

void ProblemSampler::finish(Rng& rng, Problem& problem) {
  if (spec_->depth == 2) {
    place_extras(rng);
    drop_refused_total(rng);
  }
  structure_->draw_kinds(rng, problem.kinds_of_place);
  do {
    write_problem(problem);
    draw_distractors(rng, problem);
  } while (!spec_->circular && has_circle(problem));
  problem.sentences.clear();
  for (const NodeId node : instances_) {
    if (!problem.topo.contains(node)) draw_formula(rng, *spec_, problem.parents[node].size(), problem.formulas[node]);
    problem.sentences.push_back(node);
  }
  if (spec_->mode == Mode::kReverse) problem.sentences.push_back(kToldSentence);
  shuffle(rng, problem.sentences);
}

// Depth 2: which counts the extra instances are. An instance that joined a pair of nodes is the first of all instances
// that is not in use, in a random order of the places.
void ProblemSampler::place_extras(Rng& rng) {
  SmallVector<NodeId, kMaxEdges> rest;
  for (int p = 0; p < structure_->num_places; ++p)
    if ((beginning_.chosen >> p & 1) == 0)
      for (int t = 0; t < structure_->degrees[static_cast<std::size_t>(p)]; ++t) rest.push_back(count_node(p, t));
  int extras = beginning_.extras;
  for (int member = 0; member < draft_.size; ++member) {
    if (draft_.node[member] != kNoNode) continue;
    int pick = rng.below(rest.size());
    if (extras == 0) {
      SmallVector<std::uint8_t, kMaxPlaces> places;
      for (const NodeId node : rest)
        if (!places.contains(static_cast<std::uint8_t>(place_of(node))))
          places.push_back(static_cast<std::uint8_t>(place_of(node)));
      const int place = places[rng.below(places.size())];
      pick = 0;
      for (int i = 1; i < rest.size(); ++i)
        if (place_of(rest[i]) == place && (place_of(rest[pick]) != place || rest[i] < rest[pick])) pick = i;
    } else {
      --extras;
    }
    draft_.node[member] = rest[pick];
    rest.swap_erase(pick);
  }
}

// Depth 2: the total that ended stage 1 because it did not fit is lost to the distractors too.
void ProblemSampler::drop_refused_total(Rng& rng) {
  level1_.clear();
  level2_.clear();
  SmallVector<double, kMaxPlaces> weights;
  double sum = 0.0;
  for (int p = 0; p < structure_->num_places; ++p) {
    if ((beginning_.chosen >> p & 1) != 0) continue;
    level1_.push_back(total_node(p));
    int taken = 0;
    for (int q = 0; q < structure_->num_places; ++q)
      if ((beginning_.chosen >> q & 1) != 0) taken += structure_->degrees[static_cast<std::size_t>(q)];
    sum += stage1_probability(size_, taken, structure_->num_edges - taken, beginning_.extras,
                              structure_->degrees[static_cast<std::size_t>(p)]);
    weights.push_back(sum);
  }
  if (level1_.empty()) return;
  const double u = rng.unit() * sum;
  int refused = 0;
  while (refused + 1 < level1_.size() && u >= weights[refused]) ++refused;
  level1_.swap_erase(refused);
}

// The necessary part, the parents of every abstract, and no distractor.
void ProblemSampler::write_problem(Problem& problem) {
  problem.mode = spec_->mode;
  problem.depth = spec_->depth;
  problem.op = draft_.op;
  problem.num_places = structure_->num_places;
  problem.members = {};
  problem.topo.clear();
  instances_.clear();
  abstracts_.clear();
  const auto start = [&](NodeId node) {
    problem.parents[node].clear();
    problem.formulas[node] = {};
    parent_sets_[node] = {};
  };
  for (int p = 0; p < structure_->num_places; ++p) {
    const NodeId total = total_node(p), average_total = average_total_node(p);
    start(total);
    start(average_total);
    for (int t = 0; t < structure_->degrees[static_cast<std::size_t>(p)]; ++t) {
      const NodeId count = count_node(p, t), average = average_node(p, t), special = special_node(p, t);
      start(count);
      instances_.push_back(count);
      add_parent(problem, total, count);
      if (spec_->depth == 2) continue;
      start(average);
      start(special);
      instances_.push_back(average);
      add_parent(problem, special, average);
      add_parent(problem, average_total, count);
      add_parent(problem, average_total, special);
    }
  }
  for (int i = 0; i < draft_.size; ++i) {
    const int member = draft_.topo[i];
    const NodeId node = draft_.node[member];
    problem.topo.push_back(node);
    problem.members.add(node);
    problem.values[node] = draft_.value[member];
    if (draft_.is_abstract(member)) {
      abstracts_.push_back(node);
      continue;
    }
    for (const int parent : draft_.instance[member].parents) add_parent(problem, node, draft_.node[parent]);
    problem.formulas[node] = draft_.instance[member].formula;
  }
  problem.unknown = spec_->mode == Mode::kReverse ? draft_.node[draft_.unknown] : kNoNode;
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

void ProblemSampler::draw_distractors(Rng& rng, Problem& problem) {
  SmallVector<NodeId, kMaxEdges + 2 * kMaxPlaces> never;  // abstracts that stage 1 never drew
  for (const NodeId node : level1_) never.push_back(node);
  for (const NodeId node : level2_) never.push_back(node);
  NodeSet instances;
  for (const NodeId node : instances_) instances.add(node);
  DistractorPool independent;  // distractors that only other such distractors may explain
  while (true) {
    const NodeSet left = instances.minus(problem.members);
    if (left.empty()) return;
    const NodeId node = left.nth(rng.below(left.size()));
    if (rng.coin()) {
      draw_distractor_parents(rng, problem, node, independent);
      independent.last.push_back(node);
    } else {
      DistractorPool known;
      known.abstracts = abstracts_.size();
      known.instances = instances & problem.members;
      // one known parent suffices in the original, so a total may explain one of its own parts; and a total that a
      // distractor brought in is listed twice
      for (const NodeId other : never)
        if (!(parent_sets_[other] & problem.members).empty()) known.last.push_back(other);
      draw_distractor_parents(rng, problem, node, known);
    }
  }
}

void ProblemSampler::draw_distractor_parents(Rng& rng, Problem& problem, NodeId node, const DistractorPool& pool) {
  problem.members.add(node);
  const int num_instances = pool.instances.size();
  const int pool_size = pool.abstracts + num_instances + pool.last.size();
  int wanted = 1;
  while (wanted < std::min(4, pool_size + 1) && rng.coin()) ++wanted;  // the constant is one of the pool
  const auto take = [&](int index) {
    const int after_abstracts = index - pool.abstracts, after_instances = after_abstracts - num_instances;
    const NodeId parent = after_abstracts < 0   ? abstracts_[index]
                          : after_instances < 0 ? pool.instances.nth(after_abstracts)
                                                : pool.last[after_instances];
    if (!is_instance(parent)) add_abstract(problem, parent);
    add_parent(problem, node, parent);
  };
  if (wanted == pool_size + 1) {
    for (int i = 0; i < pool_size; ++i) take(i);
    problem.formulas[node].has_constant = true;
    return;
  }
  if (rng.coin()) {
    problem.formulas[node].has_constant = true;
    --wanted;
  }
  SmallVector<int, 4> picks;  // without replacement; an entry listed twice may be drawn twice
  while (picks.size() < wanted) {
    const int pick = rng.below(pool_size);
    if (picks.contains(pick)) continue;
    picks.push_back(pick);
    take(pick);
  }
}

// Whether quantities depend on each other in a circle: whether something is left once all that depends on nothing left
// is taken away.
bool ProblemSampler::has_circle(const Problem& problem) const {
  NodeSet left = problem.members;
  for (bool shrinks = true; shrinks;) {
    shrinks = false;
    left.for_each([&](NodeId node) {
      if (!(parent_sets_[node] & left).empty()) return;
      left.remove(node);
      shrinks = true;
    });
  }
  return !left.empty();
}

}  // namespace fastreason
