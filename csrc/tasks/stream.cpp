#include "tasks/stream.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "common/parallel.h"
#include "tasks/canonical.h"

namespace fastreason {

namespace {

constexpr std::uint32_t kTaskPurpose = 1;  // keeps these random numbers apart from every other use of a seed
constexpr int kMaxAttempts = 4'000'000;
constexpr std::int64_t kGrain = 64;

std::string describe(const Cell& cell, const Theme& theme) {
  return "op " + std::to_string(cell.spec.op) + ", theme " + theme.spec().name + ", depth " +
         std::to_string(cell.spec.depth) + ", number_range " + std::to_string(cell.spec.number_range) + ", max_value " +
         std::to_string(cell.spec.max_value) + ", max_sentences " + std::to_string(cell.spec.max_sentences);
}

}  // namespace

Split split_of(std::uint64_t canonical_hash) {
  const std::uint64_t sixteenth = canonical_hash >> 60;
  if (sixteenth < 12) return Split::kTrain;
  if (sixteenth < 14) return Split::kRl;
  return sixteenth == 14 ? Split::kVal : Split::kTest;
}

TaskStream::TaskStream(std::vector<std::shared_ptr<const Theme>> themes, std::vector<Cell> cells, std::uint64_t seed,
                       Split split)
    : themes_(std::move(themes)), cells_(std::move(cells)), seed_(seed), split_(split) {
  double total = 0.0;
  for (const Cell& cell : cells_) {
    if (cell.theme < 0 || static_cast<std::size_t>(cell.theme) >= themes_.size())
      throw std::invalid_argument("cell names theme " + std::to_string(cell.theme) + " of " +
                                  std::to_string(themes_.size()));
    total += cell.weight;
    cumulative_.push_back(total);
  }
  if (!(total > 0.0)) throw std::invalid_argument("a mixture needs at least one cell with a positive weight");
}

void TaskStream::generate(std::uint64_t index, Sample& sample) const {
  Rng rng(seed_, index, kTaskPurpose);
  const double u = rng.unit() * cumulative_.back();
  const auto found = std::upper_bound(cumulative_.begin(), cumulative_.end(), u);
  sample.cell = static_cast<int>(
      std::min<std::ptrdiff_t>(found - cumulative_.begin(), static_cast<std::ptrdiff_t>(cells_.size()) - 1));
  const Cell& cell = cells_[static_cast<std::size_t>(sample.cell)];
  const Theme& theme = theme_of(sample);
  ProblemSampler sampler(cell.spec);
  for (int attempt = 0; attempt < kMaxAttempts; ++attempt) {
    if (!sampler.attempt(rng, sample.problem)) continue;
    sampler.finish(rng, sample.problem);
    theme.draw_names(rng, sample.problem);
    sample.hash = canonical_hash(theme, sample.problem);
    if (split_of(sample.hash) != split_) continue;
    if (theme.style() == Style::kPublished) {
      if (count_variables(sample.problem) > count_letters(cell.spec.mode)) continue;
      draw_letters(rng, sample.problem, sample.letters);
    }
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
      std::string& text = blocks_[static_cast<std::size_t>(block)];
      for (std::int64_t i = block * kGrain; i < std::min(n, (block + 1) * kGrain); ++i) {
        Row& row = rows_[static_cast<std::size_t>(i)];
        row.index = indices[static_cast<std::size_t>(i)];
        stream_->generate(static_cast<std::uint64_t>(row.index), sample);
        const Theme& theme = stream_->theme_of(sample);
        TextSink sink(theme, text);
        row.answer = sample.problem.answer();
        row.hash = sample.hash;
        row.cell = sample.cell;
        row.block = static_cast<std::int32_t>(block);
        row.begin = text.size();
        write_problem(theme, sample.problem, sink);
        row.problem_size = static_cast<std::uint32_t>(text.size() - row.begin);
        write_question(theme, sample.problem, sink);
        row.question_size = static_cast<std::uint32_t>(text.size() - row.begin - row.problem_size);
        write_body(theme, sample.problem, sample.letters, sink);
        row.body_size = static_cast<std::uint32_t>(text.size() - row.begin - row.problem_size - row.question_size);
      }
    }
  });
}

std::string_view ProblemBatch::text(std::int64_t i, std::size_t skip, std::size_t size) const {
  const Row& at = row(i);
  return std::string_view(blocks_[static_cast<std::size_t>(at.block)]).substr(at.begin + skip, size);
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
