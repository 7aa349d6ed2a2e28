#include "tasks/sampler.h"

#include <algorithm>

#include "tasks/biased_choice.h"
#include "tasks/choice_tree.h"

namespace fastreason {

namespace {

// Uniform below n among those not yet taken.
template <class Taken>
int below_but(Rng& rng, int n, const Taken& taken) {
  int pick = rng.below(n);
  while (taken.contains(static_cast<std::uint8_t>(pick))) pick = rng.below(n);
  return pick;
}

template <class Taken>
int below_but(ChoiceTree& tree, int n, const Taken& taken) {
  int pick = 0;
  for (int rank = tree.below(n - taken.size()); rank > 0 || taken.contains(static_cast<std::uint8_t>(pick)); ++pick)
    if (!taken.contains(static_cast<std::uint8_t>(pick))) --rank;
  return pick;
}

}  // namespace

template <class Random>
bool ProblemSampler::attempt_graph(const ProblemSpec& spec, const Beginnings& beginnings, Random& rng) {
  spec_ = &spec;
  size_ = beginnings.size();
  beginning_ = beginnings.draw(rng);
  structure_ = &all_structures()[beginning_.structure];
  draft_.clear();
  if (spec.depth == 2)
    begin_depth2(beginning_);
  else if (!begin_depth3(rng))
    return false;
  if (!order_members(rng)) return false;
  extend_pair(rng);
  return draw_degrees(rng) && draw_parents(rng);
}

// --- stage 1: which quantities ---------------------------------------------------------------------------------------

void ProblemSampler::begin_depth2(const Beginning& beginning) {
  for (int p = 0; p < structure_->num_places; ++p) {
    if ((beginning.chosen >> p & 1) == 0) continue;
    const int total = draft_.add_abstract(total_node(p));
    const int degree = structure_->degrees[static_cast<std::size_t>(p)];
    draft_.set_parts(total, (bit(degree) - 1) << (total + 1));
    for (int t = 0; t < degree; ++t) draft_.add_instance(count_node(p, t));
  }
  for (int i = 0; i < beginning.extras; ++i) draft_.add_instance(kNoNode);
}

template <class Random>
bool ProblemSampler::begin_depth3(Random& rng) {
  const int budget_n = std::max(rng.between(1, size_), rng.between(1, size_));
  const int budget_m = rng.between(budget_n, size_);
  level1_.clear();
  level2_.clear();
  for (int p = 0; p < structure_->num_places; ++p) {
    level1_.push_back(total_node(p));
    level2_.push_back(average_total_node(p));
    for (int t = 0; t < structure_->degrees[static_cast<std::size_t>(p)]; ++t) level1_.push_back(special_node(p, t));
  }
  NodeSet members;
  SmallVector<NodeId, kMaxMembers> taken;  // abstracts, in order
  int cost = 0;                            // operations of the abstracts so far; specials count one
  const auto try_level = [&](auto& level) {
    if (level.empty()) return false;
    const int pick = rng.below(level.size());
    const NodeId abstract = level[pick];
    level.swap_erase(pick);  // for good: a refused abstract does not come back, not even as a distractor's parent
    const int place = place_of(abstract), degree = structure_->degrees[static_cast<std::size_t>(place)];
    int added = members.contains(abstract) ? 0 : is_special(abstract) ? 1 : degree;
    if (type_of(abstract) == NodeType::kAverageTotal) {
      added = 2 * degree;
      for (int t = 0; t < degree; ++t) added += members.contains(special_node(place, t)) ? 0 : 1;
    }
    if (cost + added > budget_n) return false;
    cost += added;
    const auto take = [&](NodeId node) {
      if (members.contains(node)) return;
      members.add(node);
      if (!is_instance(node)) taken.push_back(node);
    };
    take(abstract);
    for (int t = 0; t < degree; ++t) {
      if (is_special(abstract) && kind_of(abstract) != t) continue;
      if (!is_special(abstract)) members.add(count_node(place, t));
      if (type_of(abstract) == NodeType::kTotal) continue;
      take(special_node(place, t));
      members.add(average_node(place, t));
    }
    return true;
  };
  while (try_level(level2_) || try_level(level1_)) {
  }
  // the original adds m - k - 1 instances where it meant m - k
  int free = 2 * structure_->num_edges - (members & kInstances).size();
  for (int extra = std::min(budget_m - cost - 1, free); extra > 0; --extra, --free) {
    int rank = rng.below(free);
    for (int p = 0, done = 0; !done; ++p)
      for (int t = 0; t < structure_->degrees[static_cast<std::size_t>(p)] && !done; ++t)
        for (const NodeId node : {count_node(p, t), average_node(p, t)})
          if (!done && !members.contains(node) && rank-- == 0) {
            members.add(node);
            done = 1;
          }
  }

  Table<std::uint8_t, kNumNodes> member_of;
  for (const NodeId abstract : taken) member_of[abstract] = static_cast<std::uint8_t>(draft_.add_abstract(abstract));
  (members & kInstances).for_each([&](NodeId node) {
    member_of[node] = static_cast<std::uint8_t>(draft_.add_instance(node));
  });
  for (const NodeId abstract : taken) {
    const int place = place_of(abstract), degree = structure_->degrees[static_cast<std::size_t>(place)];
    Mask parts = 0;
    if (is_special(abstract)) {
      parts = bit(member_of[average_of_special(abstract)]);
    } else {
      for (int t = 0; t < degree; ++t) {
        parts |= bit(member_of[count_node(place, t)]);
        if (type_of(abstract) == NodeType::kAverageTotal) parts |= bit(member_of[special_node(place, t)]);
      }
    }
    draft_.set_parts(member_of[abstract], parts);
  }
  if (draft_.size == 0) return false;
  return reachable_ops(size_, draft_.num_instances(), std::popcount(draft_.abstracts), draft_.num_specials,
                       draft_.abstract_edges, draft_.size == 2)
      .contains(spec_->op);
}

// --- stage 2: order, and edges that keep the graph connected -------------------------------------------------------

template <class Random>
bool ProblemSampler::order_members(Random& rng) {
  Mask open = draft_.all();  // not yet in topo, which is found from the target towards the leaves
  Mask wanted = 0;           // parents of something in topo
  Mask needed_by_open = 0;   // parents of something open
  const auto refresh = [&] {
    needed_by_open = 0;  // open instances have no parents yet
    for_each_member(open & draft_.abstracts, [&](int abstract) { needed_by_open |= draft_.parts[abstract]; });
  };
  refresh();
  int next = first_target(rng, open & ~needed_by_open);
  for (int position = draft_.size - 1;; --position) {
    draft_.topo[position] = static_cast<std::uint8_t>(next);
    open &= ~bit(next);
    const bool abstract = draft_.is_abstract(next);
    if (open == 0) return true;
    if (abstract) {
      wanted |= draft_.parts[next];
      refresh();
    }
    const Mask free = open & ~needed_by_open;
    const bool stuck = (free & wanted) == 0;
    if (stuck && abstract) return false;
    if (!abstract && (stuck || rng.coin())) {
      const int parent = choose_biased(rng, stuck ? free : open, wanted);
      draft_.instance[next].forced = static_cast<std::int8_t>(parent);
      wanted |= bit(parent);
    }
    next = uniform_member(rng, free & wanted);
  }
}

// Forward: any. Reverse: the original prefers the first average total, else the first total, in order of insertion; at
// depth 2 that order is random and all totals are free.
template <class Random>
int ProblemSampler::first_target(Random& rng, Mask free) const {
  if (spec_->mode == Mode::kReverse && (free & draft_.abstracts) != 0) {
    if (spec_->depth == 2) return uniform_member(rng, free & draft_.abstracts);
    for (const NodeType type : {NodeType::kAverageTotal, NodeType::kTotal})
      for (Mask rest = free & draft_.abstracts; rest != 0; rest &= rest - 1)
        if (type_of(draft_.node[std::countr_zero(rest)]) == type) return std::countr_zero(rest);
  }
  return uniform_member(rng, free);
}

template <class Random>
int ProblemSampler::choose_biased(Random& rng, Mask candidates, Mask wanted) const {
  const Mask abstract = candidates & draft_.abstracts, near = candidates & wanted;
  const Mask by_bias[3] = {candidates & ~(abstract | near), abstract ^ near, abstract & near};
  const int bias = draw_bias(rng, {std::popcount(by_bias[0]), std::popcount(by_bias[1]), std::popcount(by_bias[2])});
  return uniform_member(rng, by_bias[bias]);
}

// A chain of two nodes gets, half of the time, the first unused instance before or after it.
template <class Random>
void ProblemSampler::extend_pair(Random& rng) {
  const int instances = structure_->num_edges * (spec_->depth - 1);
  if (draft_.size != 2 || !rng.coin() || draft_.num_instances() == instances) return;
  NodeId node = kNoNode;
  if (spec_->depth == 3) {
    const auto used = [&](NodeId id) { return draft_.node[0] == id || draft_.node[1] == id; };
    // the first place in a random order whose instances are not all in use
    SmallVector<std::uint8_t, kMaxPlaces> places;
    for (int p = 0; p < structure_->num_places; ++p) places.push_back(static_cast<std::uint8_t>(p));
    while (node == kNoNode) {
      const int pick = rng.below(places.size());
      const int place = places[pick];
      places.swap_erase(pick);
      for (int t = structure_->degrees[static_cast<std::size_t>(place)] - 1; t >= 0; --t)
        for (const NodeId id : {average_node(place, t), count_node(place, t)})
          if (!used(id)) node = id;
    }
  }
  const int extra = draft_.add_instance(node);
  if (rng.coin()) {
    draft_.topo[2] = draft_.topo[1];
    draft_.topo[1] = draft_.topo[0];
    draft_.topo[0] = static_cast<std::uint8_t>(extra);
    draft_.instance[draft_.topo[1]].forced = static_cast<std::int8_t>(extra);
  } else {
    draft_.topo[2] = static_cast<std::uint8_t>(extra);
    draft_.instance[extra].forced = static_cast<std::int8_t>(draft_.topo[1]);
  }
}

// --- stage 3: parents of the instances -----------------------------------------------------------------------------

// In-degrees grow at random until their sum is s. Gives up where op is out of reach already.
template <class Random>
bool ProblemSampler::draw_degrees(Random& rng) {
  SmallVector<std::uint8_t, kMaxMembers> growable;
  int total = draft_.abstract_edges, room = 0, forced = 0;
  for (int i = 0; i < draft_.size; ++i) {
    const int member = draft_.topo[i];
    if (draft_.is_abstract(member)) continue;
    const int degree = draft_.instance[member].forced >= 0 ? 1 : 0;
    const int most = std::min(3, std::max(1, i));
    in_degree_[i] = static_cast<std::uint8_t>(degree);
    forced += degree;
    room += most - degree;
    if (degree < most) growable.push_back(static_cast<std::uint8_t>(i));
  }
  total += forced;
  if (total + room < size_) return false;
  for (; total < size_; ++total) {
    const int pick = rng.below(growable.size());
    const int i = growable[pick];
    if (++in_degree_[i] == std::min(3, std::max(1, i))) growable.swap_erase(pick);
  }
  return true;
}

template <class Random>
bool ProblemSampler::draw_parents(Random& rng) {
  // op so far, and what the instances still to come can add: each 1 to in-degree + 1
  draft_.op = draft_.abstract_edges - draft_.num_specials;
  int least = 0, most = 0;
  for (int i = 0; i < draft_.size; ++i) {
    if (draft_.is_abstract(draft_.topo[i])) continue;
    least += spec_->depth == 2 ? std::max<int>(1, in_degree_[i]) : 1;
    most += in_degree_[i] + 1;
  }
  for (int i = 0; i < draft_.size; ++i) {
    if (draft_.op + least > spec_->op || draft_.op + most < spec_->op) return false;
    const int member = draft_.topo[i];
    if (draft_.is_abstract(member)) continue;
    least -= spec_->depth == 2 ? std::max<int>(1, in_degree_[i]) : 1;
    most -= in_degree_[i] + 1;
    draw_parents_of(rng, member, i);
    const Draft::Instance& instance = draft_.instance[member];
    draft_.op += instance.parents.size() + (instance.formula.has_constant ? 1 : 0);
  }
  return draft_.op == spec_->op;
}

template <class Random>
void ProblemSampler::draw_parents_of(Random& rng, int member, int position) {
  Draft::Instance& instance = draft_.instance[member];
  auto& parents = instance.parents;
  const int degree = in_degree_[position];
  int wanted = degree == 1 ? (rng.coin() ? 1 : 2) : degree + 1;  // the constant counts as one
  int pool = position + 1;                                       // the constant, then topo[0 .. position - 1]
  wanted = std::min(wanted, pool);
  if (instance.forced >= 0) {
    parents.push_back(static_cast<std::uint8_t>(instance.forced));
    // the original drops the nearest earlier node where it meant to drop the parent that is set already
    --pool;
    --wanted;
  }
  const auto add = [&](std::uint8_t parent) {
    if (!parents.contains(parent)) parents.push_back(parent);
  };
  if (wanted == pool) {
    instance.formula.has_constant = true;
    for (int j = 0; j + 1 < pool; ++j) add(draft_.topo[j]);
  } else {
    if (rng.coin()) {
      instance.formula.has_constant = true;
      --wanted;
    }
    SmallVector<std::uint8_t, 4> picks;  // positions, without replacement
    while (picks.size() < wanted) {
      const auto pick = static_cast<std::uint8_t>(below_but(rng, pool - 1, picks));
      picks.push_back(pick);
      add(draft_.topo[pick]);
    }
  }
  if (spec_->depth == 2) return;
  // a special and its average have one name: keep the special
  for (int j = parents.size() - 1; j >= 0; --j) {
    const NodeId node = draft_.node[parents[j]];
    if (type_of(node) != NodeType::kAverage) continue;
    for (const std::uint8_t other : parents)
      if (draft_.node[other] == special_node(place_of(node), kind_of(node))) {
        parents.erase(j);
        break;
      }
  }
}

// --- numbers ---------------------------------------------------------------------------------------------------------

template <class Random>
void draw_formula(Random& rng, const ProblemSpec& spec, int num_parents, Formula& formula) {
  if (formula.has_constant) {
    formula.times = rng.coin();
    formula.constant = rng.between(formula.times ? 2 : 1, spec.number_range - 1);
    if (num_parents == 0) formula.times = false;
  } else if (num_parents == 0) {
    formula.has_constant = true;
    formula.constant = rng.between(1, spec.number_range - 1);
  }
  formula.minus = num_parents == 2 && rng.coin();
}

template <class Random>
bool ProblemSampler::assign_values(Random& rng) {
  auto& value = draft_.value;
  draft_.unknown = -1;
  for (int i = 0; i < draft_.size; ++i) {
    const int member = draft_.topo[i];
    std::int64_t v = 0;
    bool may_be_zero = true;
    if (!draft_.is_abstract(member)) {
      Draft::Instance& instance = draft_.instance[member];
      const Formula& formula = instance.formula;
      draw_formula(rng, *spec_, instance.parents.size(), instance.formula);
      for (const int parent : instance.parents) v += value[parent];
      if (formula.minus) v -= 2 * value[instance.parents[1]];
      if (formula.has_constant) v = formula.times ? v * formula.constant : v + formula.constant;
      may_be_zero = spec_->depth == 3 && type_of(draft_.node[member]) == NodeType::kAverage;
      if (instance.parents.empty()) draft_.unknown = member;
    } else if (type_of(draft_.node[member]) == NodeType::kAverageTotal) {
      draft_.for_each_product(member, [&](int count, int average) { v += value[count] * value[average]; });
    } else {
      for_each_member(draft_.parts[member], [&](int part) { v += value[part]; });
    }
    if (v < (may_be_zero ? 0 : 1) || v > spec_->max_value) return false;
    value[member] = v;
  }
  return spec_->mode == Mode::kForward || draft_.target_is_linear();
}

template void draw_formula(Rng&, const ProblemSpec&, int, Formula&);
template bool ProblemSampler::attempt_graph(const ProblemSpec&, const Beginnings&, Rng&);
template bool ProblemSampler::assign_values(Rng&);
template bool ProblemSampler::attempt_graph(const ProblemSpec&, const Beginnings&, ChoiceTree&);
template bool ProblemSampler::assign_values(ChoiceTree&);

}  // namespace fastreason
