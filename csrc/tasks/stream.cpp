#include "tasks/stream.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "common/interrupt.h"
#include "common/parallel.h"
#include "tasks/canonical.h"
#include "tasks/schedule.h"

namespace fastreason {

namespace {

constexpr std::uint32_t kTaskPurpose = 1;  // keeps these random numbers apart from every other use of a seed
constexpr std::uint32_t kProbePurpose = 3;
constexpr int kMaxAttempts = 20'000'000;
constexpr int kProbeAttempts = 500'000;  // a fifth of a second; half of the problems in use take less than ten
constexpr std::int64_t kGrain = 64;

std::string describe(const Cell& cell, const Theme& theme) {
  return "op " + std::to_string(cell.spec.op) + ", theme " + theme.spec().name + ", depth " +
         std::to_string(cell.spec.depth) + ", number_range " + std::to_string(cell.spec.number_range) + ", max_value " +
         std::to_string(cell.spec.max_value) + ", max_sentences " + std::to_string(cell.spec.max_sentences);
}

// "2-5, 7" for {2, 3, 4, 5, 7}
std::string describe_ranges(const std::vector<int>& ops) {
  std::string text;
  for (std::size_t i = 0; i < ops.size(); ++i) {
    if (i > 0 && ops[i] == ops[i - 1] + 1) continue;
    std::size_t last = i;
    while (last + 1 < ops.size() && ops[last + 1] == ops[last] + 1) ++last;
    text += (text.empty() ? "" : ", ") + std::to_string(ops[i]) + (last > i ? "-" + std::to_string(ops[last]) : "");
  }
  return text;
}

}  // namespace

Split split_of(std::uint64_t hash) {
  const std::uint64_t sixteenth = hash >> 60;
  if (sixteenth < 12) return Split::kTrain;
  if (sixteenth < 14) return Split::kRl;
  return sixteenth == 14 ? Split::kVal : Split::kTest;
}

TaskStream::TaskStream(std::vector<std::shared_ptr<const Theme>> themes, std::vector<Cell> cells, std::uint64_t seed,
                       Split split, SplitBy split_by)
    : themes_(std::move(themes)), cells_(std::move(cells)), seed_(seed), split_(split), split_by_(split_by) {
  double total = 0.0;
  for (const Cell& cell : cells_) {
    if (cell.theme < 0 || static_cast<std::size_t>(cell.theme) >= themes_.size())
      throw std::invalid_argument("cell names theme " + std::to_string(cell.theme) + " of " +
                                  std::to_string(themes_.size()));
    const Theme& theme = *themes_[static_cast<std::size_t>(cell.theme)];
    if (const std::int64_t most = max_padding(theme, cell.spec.depth); cell.context < 0 || cell.context > most)
      throw std::invalid_argument("context must be in 0 .. " + std::to_string(most) + " for theme " +
                                  theme.spec().name + " at depth " + std::to_string(cell.spec.depth) + ", got " +
                                  std::to_string(cell.context));
    total += cell.weight;
    cumulative_.push_back(total);
    std::size_t same = 0;
    while (cells_[same].spec != cell.spec) ++same;
    beginnings_.push_back(same < beginnings_.size() ? beginnings_[same] : std::make_shared<Beginnings>(cell.spec));
  }
  if (!(total > 0.0)) throw std::invalid_argument("a mixture needs at least one cell with a positive weight");
  check_reachable();
}

void TaskStream::check_reachable() const {
  for (std::size_t i = 0; i < cells_.size(); ++i) {
    const Cell& cell = cells_[i];
    const bool seen = i > 0 && std::find(beginnings_.begin(), beginnings_.begin() + static_cast<std::ptrdiff_t>(i),
                                         beginnings_[i]) != beginnings_.begin() + static_cast<std::ptrdiff_t>(i);
    if (seen || is_reachable(cell, *beginnings_[i], kProbeAttempts)) continue;
    std::vector<int> others;
    Cell other = cell;
    for (other.spec.op = kMinOp; other.spec.op <= kMaxOp; ++other.spec.op)
      if (is_reachable(other, Beginnings(other.spec), kProbeAttempts / 50)) others.push_back(other.spec.op);
    throw std::invalid_argument(
        "these problems cannot be reached: " + describe(cell, *themes_[static_cast<std::size_t>(cell.theme)]) +
        (split_by_ == SplitBy::kGraph ? ", in this split by graph" : "") + "; with these settings " +
        (others.empty() ? "no op can" : "op can be " + describe_ranges(others)));
  }
}

// Whether a problem turns up in so many attempts, by random numbers of its own.
bool TaskStream::is_reachable(const Cell& cell, const Beginnings& beginnings, int attempts) const {
  if (beginnings.empty()) return false;
  Rng rng(0, 0, kProbePurpose);
  Sample sample;
  InterruptionCounter next_attempt;
  for (int i = 0; i < attempts; ++i) {
    next_attempt();
    if (attempt(cell, beginnings, rng, sample)) return true;
  }
  return false;
}

// Everything that accepting a problem depends on, its words apart.
bool TaskStream::attempt(const Cell& cell, const Beginnings& beginnings, Rng& rng, Sample& sample) const {
  if (!sample.sampler.attempt(cell.spec, beginnings, rng)) return false;
  if (split_by_ == SplitBy::kProblem) return true;
  sample.graph = graph_hash(sample.sampler.draft());
  return split_of(sample.graph) == split_;
}

void TaskStream::generate(std::uint64_t index, Sample& sample) const {
  Rng rng(seed_, index, kTaskPurpose);
  const double u = rng.unit() * cumulative_.back();
  const auto found = std::upper_bound(cumulative_.begin(), cumulative_.end(), u);
  sample.cell = static_cast<int>(
      std::min<std::ptrdiff_t>(found - cumulative_.begin(), static_cast<std::ptrdiff_t>(cells_.size()) - 1));
  const Cell& cell = cells_[static_cast<std::size_t>(sample.cell)];
  const Theme& theme = theme_of(sample);
  const Beginnings& beginnings = *beginnings_[static_cast<std::size_t>(sample.cell)];
  InterruptionCounter next_attempt;
  for (int tries = 0; tries < kMaxAttempts; ++tries) {
    next_attempt();
    if (!attempt(cell, beginnings, rng, sample)) continue;
    sample.sampler.finish(rng, sample.problem);
    theme.draw_names(rng, sample.problem);
    sample.hash = canonical_hash(theme, sample.problem);
    if (split_by_ == SplitBy::kProblem) {
      if (split_of(sample.hash) != split_) continue;
      sample.graph = graph_hash(sample.sampler.draft());
    }
    if (theme.style() == Style::kPublished) {
      if (count_variables(sample.problem) > count_letters(cell.spec.mode)) continue;
      draw_letters(rng, sample.problem, sample.letters);
    }
    draw_padding(rng, theme, cell.context, sample.problem);
    return;
  }
  throw std::runtime_error("no problem found in " + std::to_string(kMaxAttempts) + " attempts for " +
                           describe(cell, theme));
}

ProblemBatch::ProblemBatch(std::shared_ptr<const TaskStream> stream, std::vector<std::int64_t> indices, int threads)
    : stream_(std::move(stream)), rows_(indices.size()) {
  const auto n = static_cast<std::int64_t>(indices.size());
  blocks_.resize(static_cast<std::size_t>((n + kGrain - 1) / kGrain));
  parallel_blocks(static_cast<std::int64_t>(blocks_.size()), threads, 1, [&](std::int64_t first, std::int64_t last) {
    Sample sample;
    for (std::int64_t block = first; block < last; ++block) {
      auto& [text, steps, parents] = blocks_[static_cast<std::size_t>(block)];
      for (std::int64_t i = block * kGrain; i < std::min(n, (block + 1) * kGrain); ++i) {
        Row& row = rows_[static_cast<std::size_t>(i)];
        row.index = indices[static_cast<std::size_t>(i)];
        stream_->generate(static_cast<std::uint64_t>(row.index), sample);
        const Theme& theme = stream_->theme_of(sample);
        TextSink sink(theme, text);
        row.answer = sample.problem.answer();
        row.hash = sample.hash;
        row.graph = sample.graph;
        row.cell = sample.cell;
        row.block = static_cast<std::int32_t>(block);
        row.begin = text.size();
        write_problem(theme, sample.problem, sink);
        row.problem_size = static_cast<std::uint32_t>(text.size() - row.begin);
        write_question(theme, sample.problem, sink);
        row.question_size = static_cast<std::uint32_t>(text.size() - row.begin - row.problem_size);
        write_body(theme, sample.problem, sample.letters, sink);
        row.body_size = static_cast<std::uint32_t>(text.size() - row.begin - row.problem_size - row.question_size);
        row.steps_begin = static_cast<std::uint32_t>(steps.size());
        row.parents_begin = static_cast<std::uint32_t>(parents.size());
        append_solution_steps(theme, sample.problem, steps, parents);
        row.num_steps = static_cast<std::uint32_t>(steps.size()) - row.steps_begin;
      }
    }
  });
}

std::string_view ProblemBatch::text(std::int64_t i, std::size_t skip, std::size_t size) const {
  const Row& at = row(i);
  return blocks_[static_cast<std::size_t>(at.block)].text.view().substr(at.begin + skip, size);
}

SolutionGraph ProblemBatch::solution_graph(std::int64_t i) const {
  const Row& at = row(i);
  const Block& block = blocks_[static_cast<std::size_t>(at.block)];
  return {std::span(block.steps).subspan(at.steps_begin, at.num_steps), block.parents.data() + at.parents_begin,
          at.answer, cell(i).spec.mode};
}

std::string_view ProblemBatch::problem(std::int64_t i) const { return text(i, 1, row(i).problem_size - 1); }
std::string_view ProblemBatch::question(std::int64_t i) const {
  return text(i, row(i).problem_size + 1, row(i).question_size - 1);
}
std::string_view ProblemBatch::body(std::int64_t i) const {
  return text(i, row(i).problem_size + row(i).question_size + 1, row(i).body_size - 1);
}

void ProblemBatch::append_prompt(std::int64_t i, std::string& out) const {
  const bool asks_first = theme(i).style() == Style::kSymbolic;
  out.append("<question> ").append(asks_first ? question(i) : problem(i));
  out.append(" ").append(asks_first ? problem(i) : question(i)).append(" </question> <solution>");
}

void ProblemBatch::append_document(std::int64_t i, std::string& out) const {
  append_prompt(i, out);
  out.append(" ").append(body(i)).append(" </solution> <answer> ").append(std::to_string(row(i).answer));
  out.append(" </answer>[EOS]");
}

void ProblemBatch::append_solution(std::int64_t i, std::string& out) const {
  out.append(body(i)).append(" Answer: ").append(std::to_string(row(i).answer)).append(".");
}

}  // namespace fastreason
