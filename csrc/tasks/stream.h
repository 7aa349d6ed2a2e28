// The task stream: problem i of a (mixture, seed, split) as a pure function, and batches of them in parallel.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "tasks/problem.h"
#include "tasks/render.h"
#include "tasks/sampler.h"
#include "tasks/solution_graph.h"
#include "tasks/theme.h"

namespace fastreason {

enum class Split : std::uint8_t { kTrain, kRl, kVal, kTest };

// What the splits partition: by the hash of the canonical problem no problem is in two of them, by the hash of the
// nameless necessary graph no graph is.
enum class SplitBy : std::uint8_t { kProblem, kGraph };

// train 12/16, rl 2/16, val 1/16, test 1/16 of all hashes
Split split_of(std::uint64_t hash);

struct Cell {
  ProblemSpec spec;
  int theme = 0;  // index into the themes of the mixture
  double weight = 1.0;
  std::int64_t context = 0;  // tokens of padding sentences, about
};

// One problem with everything that its texts need, and the scratch of drawing it.
struct Sample {
  ProblemSampler sampler;
  int cell = 0;
  std::uint64_t hash = 0, graph = 0;
  Problem problem;
  Letters letters;
};

class TaskStream {
 public:
  // Throws std::invalid_argument if a cell has no problem in the split, or so few that none is found at once.
  TaskStream(std::vector<std::shared_ptr<const Theme>> themes, std::vector<Cell> cells, std::uint64_t seed, Split split,
             SplitBy split_by);

  const std::vector<Cell>& cells() const { return cells_; }
  const std::vector<std::shared_ptr<const Theme>>& themes() const { return themes_; }
  const Theme& theme_of(const Sample& sample) const {
    return *themes_[static_cast<std::size_t>(cells_[static_cast<std::size_t>(sample.cell)].theme)];
  }

  // Fills `sample` with problem `index`. Throws std::runtime_error if the problems of its cell are too rare.
  void generate(std::uint64_t index, Sample& sample) const;

 private:
  bool attempt(const Cell& cell, const Beginnings& beginnings, Rng& rng, Sample& sample) const;
  bool is_reachable(const Cell& cell, const Beginnings& beginnings, int attempts) const;
  void check_reachable() const;

  std::vector<std::shared_ptr<const Theme>> themes_;
  std::vector<Cell> cells_;
  std::vector<double> cumulative_;
  std::vector<std::shared_ptr<const Beginnings>> beginnings_;  // by cell; cells that differ in theme alone share them
  std::uint64_t seed_;
  Split split_;
  SplitBy split_by_;
};

// The texts and the steps of some problems, in a few large buffers.
class ProblemBatch {
 public:
  ProblemBatch(std::shared_ptr<const TaskStream> stream, std::vector<std::int64_t> indices, int threads);

  struct Row {
    std::int64_t index;
    std::int64_t answer;
    std::uint64_t hash, graph;
    std::int32_t cell;
    std::int32_t block;
    std::size_t begin;  // in the block: problem, question, body one after the other, each with a leading blank
    std::uint32_t problem_size, question_size, body_size;
    std::uint32_t steps_begin, num_steps, parents_begin;  // in the block
  };

  std::int64_t size() const { return static_cast<std::int64_t>(rows_.size()); }
  const Row& row(std::int64_t i) const { return rows_[static_cast<std::size_t>(i)]; }
  const TaskStream& stream() const { return *stream_; }
  const Cell& cell(std::int64_t i) const { return stream_->cells()[static_cast<std::size_t>(row(i).cell)]; }
  SolutionGraph solution_graph(std::int64_t i) const;
  const Theme& theme(std::int64_t i) const { return *stream_->themes()[static_cast<std::size_t>(cell(i).theme)]; }

  std::string_view problem(std::int64_t i) const;  // without the leading blank, ends with "."
  std::string_view question(std::int64_t i) const;
  std::string_view body(std::int64_t i) const;  // the steps, without the answer
  // "<question> problem question </question> <solution>", in the symbolic style the question before the problem
  void append_prompt(std::int64_t i, std::string& out) const;
  // The prompt, " body </solution> <answer> answer </answer>" and "[EOS]".
  void append_document(std::int64_t i, std::string& out) const;
  // "body Answer: r."
  void append_solution(std::int64_t i, std::string& out) const;

 private:
  struct Block {
    TextBuffer text;
    std::vector<SolutionStep> steps;
    std::vector<std::uint8_t> parents;
  };

  std::string_view text(std::int64_t i, std::size_t skip, std::size_t size) const;

  std::shared_ptr<const TaskStream> stream_;
  std::vector<Row> rows_;
  std::vector<Block> blocks_;
};

}  // namespace fastreason
