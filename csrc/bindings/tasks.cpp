#include <algorithm>
#include <array>
#include <memory>
#include <string>

#include "bindings/bindings.h"
#include "tasks/biased_choice.h"
#include "tasks/graph_census.h"
#include "tasks/stream.h"

namespace fastreason {

namespace {

template <class Append>
py::list list_of(const ProblemBatch& batch, Append&& append) {
  py::list out(batch.size());
  std::string text;
  SignalCounter next_text;
  for (std::int64_t i = 0; i < batch.size(); ++i) {
    next_text();
    text.clear();
    append(i, text);
    out[static_cast<std::size_t>(i)] = py::str(text);
  }
  return out;
}

template <class T, class Field>
py::array_t<T> column(const ProblemBatch& batch, Field&& field) {
  py::array_t<T> out(batch.size());
  T* to = out.mutable_data();
  for (std::int64_t i = 0; i < batch.size(); ++i) to[i] = static_cast<T>(field(i));
  return out;
}

Cell make_cell(int op, int theme, const std::string& mode, int depth, double weight, int number_range,
               std::int64_t max_value, int max_sentences, bool circular_distractors, std::int64_t context) {
  Cell cell;
  cell.spec = {op,
               mode == "reverse" ? Mode::kReverse : Mode::kForward,
               depth,
               number_range,
               max_value,
               max_sentences,
               circular_distractors};
  cell.theme = theme;
  cell.weight = weight;
  cell.context = context;
  return cell;
}

Split parse_split(const std::string& name) {
  if (name == "train") return Split::kTrain;
  if (name == "rl") return Split::kRl;
  if (name == "val") return Split::kVal;
  if (name == "test") return Split::kTest;
  throw py::value_error("split must be one of train, rl, val, test, got '" + name + "'");
}

SplitBy parse_split_by(const std::string& name) {
  if (name == "problem") return SplitBy::kProblem;
  if (name == "graph") return SplitBy::kGraph;
  throw py::value_error("split_by must be problem or graph, got '" + name + "'");
}

// What becomes of attempts: the share of all that begin in a way that can lead to op, and of `attempts` of these, how
// many have a graph of this op, and how many are accepted.
py::dict count_attempts(const Cell& cell, std::int64_t attempts, std::uint64_t seed) {
  const Beginnings beginnings(cell.spec);
  std::int64_t with_op = 0, accepted = 0;
  without_gil([&] {
    ProblemSampler sampler;
    Rng rng(seed, 0, /*purpose=*/4);
    InterruptionCounter next_attempt;
    for (std::int64_t i = 0; i < attempts && !beginnings.empty(); ++i) {
      next_attempt();
      if (!sampler.attempt_graph(cell.spec, beginnings, rng)) continue;
      ++with_op;
      if (sampler.assign_values(rng)) ++accepted;
    }
  });
  py::dict out;
  out["mass"] = beginnings.mass();
  out["with_op"] = with_op;
  out["accepted"] = accepted;
  return out;
}

// (hashes, probabilities), or None where it is too much work.
py::object graph_law_of(const Cell& cell, std::int64_t max_paths) {
  const auto law = without_gil([&] { return graph_law(cell.spec, max_paths); });
  if (!law) return py::none();
  py::array_t<std::uint64_t> hashes(static_cast<py::ssize_t>(law->size()));
  py::array_t<double> probabilities(static_cast<py::ssize_t>(law->size()));
  std::size_t i = 0;
  for (const auto& [hash, probability] : *law) {
    hashes.mutable_data()[i] = hash;
    probabilities.mutable_data()[i++] = probability;
  }
  return py::make_tuple(hashes, probabilities);
}

const char* type_name(NodeId node) {
  switch (type_of(node)) {
    case NodeType::kCount:
      return "count";
    case NodeType::kAverage:
      return "average";
    case NodeType::kSpecial:
      return "special";
    case NodeType::kTotal:
      return "total";
    default:
      return "average total";
  }
}

// Where the problem's text has the sentence of a quantity, or None.
py::object sentence_index(const Problem& problem, NodeId node) {
  const auto* own = std::find(problem.sentences.begin(), problem.sentences.end(), node);
  if (own == problem.sentences.end()) return py::none();
  const auto place = own - problem.sentences.begin();
  const auto& order = problem.padding.order;
  if (problem.padding.empty()) return py::int_(place);
  return py::int_(std::find(order.begin(), order.end(), static_cast<std::uint32_t>(place)) - order.begin());
}

// Every quantity of a problem, those of the solution first and in its order; parents are places in this list.
py::list graph_of(const ProblemBatch& batch, std::int64_t i) {
  if (i < 0 || i >= batch.size())
    throw py::index_error("graph: index " + std::to_string(i) + " of " + std::to_string(batch.size()) + " problems");
  Sample sample;
  batch.stream().generate(static_cast<std::uint64_t>(batch.row(i).index), sample);
  const Problem& problem = sample.problem;
  std::vector<NodeId> nodes(problem.topo.begin(), problem.topo.end());
  const std::size_t needed = nodes.size();
  std::vector<int> place(kNumNodes, -1);
  const auto add_all = [&](const auto& more) {
    for (const NodeId node : more)
      if (std::find(nodes.begin(), nodes.end(), node) == nodes.end()) nodes.push_back(node);
  };
  std::vector<NodeId> members;
  problem.members.for_each([&](NodeId node) { members.push_back(node); });
  add_all(members);
  for (std::size_t at = 0; at < nodes.size(); ++at) add_all(problem.parents[nodes[at]]);
  for (std::size_t at = 0; at < nodes.size(); ++at) place[nodes[at]] = static_cast<int>(at);
  py::list out;
  for (std::size_t at = 0; at < nodes.size(); ++at) {
    const NodeId node = nodes[at];
    const Formula formula = is_instance(node) ? problem.formulas[node] : Formula{};
    py::list parents;
    for (const NodeId parent : problem.parents[node]) parents.append(place[parent]);
    py::dict entry;
    entry["name"] = py::str(std::string(batch.theme(i).piece(batch.theme(i).name_piece(problem, node)).substr(1)));
    entry["type"] = type_name(node);
    entry["parents"] = parents;
    entry["constant"] = formula.has_constant ? py::object(py::int_(formula.constant)) : py::none();
    entry["times"] = formula.times;
    entry["minus"] = formula.minus;
    entry["value"] = at < needed ? py::object(py::int_(problem.values[node])) : py::none();
    entry["target"] = node == problem.target();
    entry["unknown"] = node == problem.unknown;
    entry["sentence"] = sentence_index(problem, node);
    out.append(entry);
  }
  return out;
}

}  // namespace

void bind_tasks(py::module_& m) {
  py::class_<Theme, std::shared_ptr<Theme>>(m, "Theme", "The words of a problem.")
      .def(py::init([](std::string name, const std::string& style, std::vector<std::vector<std::string>> places,
                       std::vector<std::vector<std::string>> kinds, std::string total, std::string average,
                       std::string average_total, std::vector<std::vector<std::string>> padding_places,
                       std::vector<std::vector<std::string>> padding_kinds) {
             if (style != "published" && style != "symbolic")
               throw py::value_error("style must be published or symbolic, got '" + style + "'");
             return std::make_shared<Theme>(
                 ThemeSpec{std::move(name), style == "symbolic" ? Style::kSymbolic : Style::kPublished,
                           std::move(places), std::move(kinds), std::move(total), std::move(average),
                           std::move(average_total), std::move(padding_places), std::move(padding_kinds)});
           }),
           py::arg("name"), py::arg("style"), py::arg("places"), py::arg("kinds"), py::arg("total"), py::arg("average"),
           py::arg("average_total"), py::arg("padding_places"), py::arg("padding_kinds"))
      .def_property_readonly("name", [](const Theme& theme) { return theme.spec().name; })
      .def(
          "pieces",
          [](const Theme& theme) {
            std::vector<std::string> out;
            for (int id = 0; id < theme.num_pieces(); ++id) out.emplace_back(theme.piece(id));
            return out;
          },
          "Every text that documents of this theme are put together from, numbers apart.");

  py::class_<Cell>(m, "Cell", "One cell of a mixture: op x theme x mode x depth, with its settings.")
      .def(py::init(&make_cell), py::kw_only(), py::arg("op"), py::arg("theme"), py::arg("mode"), py::arg("depth"),
           py::arg("weight"), py::arg("number_range"), py::arg("max_value"), py::arg("max_sentences"),
           py::arg("circular_distractors"), py::arg("context"));

  m.def("count_attempts", &count_attempts, py::arg("cell"), py::arg("attempts"), py::arg("seed") = 0,
        "How attempts at a cell's problems end: mass, with_op, accepted. For tests of the law.");

  m.def("graph_law", &graph_law_of, py::arg("cell"), py::arg("max_paths"),
        "The nameless graphs of a cell's problems: (uint64 [G] hashes, float64 [G] probabilities), in no order; None "
        "where "
        "there are more than max_paths ways to draw them.");

  m.def(
      "bias_probabilities",
      [](const std::array<int, 3>& counts) {
        const int total = counts[0] + counts[1] + counts[2];
        if (std::min({counts[0], counts[1], counts[2]}) < 0 || total < 1 || total > kMaxTabulated)
          throw py::value_error("counts must be >= 0 and sum to 1 .. " + std::to_string(kMaxTabulated));
        return bias_probabilities(counts);
      },
      py::arg("counts"), "How likely the biased choice takes a candidate of bias 0, 1, 2. For tests of the law.");

  py::class_<TaskStream, std::shared_ptr<TaskStream>>(m, "TaskStream", "Problem i of (mixture, seed, split).")
      .def(py::init([](const std::vector<std::shared_ptr<Theme>>& themes, const std::vector<Cell>& cells,
                       std::uint64_t seed, const std::string& split, const std::string& split_by) {
             return without_gil([&] {
               return std::make_shared<TaskStream>(
                   std::vector<std::shared_ptr<const Theme>>(themes.begin(), themes.end()), cells, seed,
                   parse_split(split), parse_split_by(split_by));
             });
           }),
           py::arg("themes"), py::arg("cells"), py::arg("seed"), py::arg("split"), py::arg("split_by"))
      .def(
          "batch",
          [](const std::shared_ptr<TaskStream>& stream, const InputArray<std::int64_t>& indices, int threads) {
            if (indices.ndim() != 1) throw py::value_error("indices must be 1-D");
            for (py::ssize_t i = 0; i < indices.size(); ++i)
              if (indices.data()[i] < 0)
                throw py::value_error("indices must be >= 0, got " + std::to_string(indices.data()[i]));
            return without_gil([&, list = copy_of(indices)]() mutable {
              return std::make_shared<ProblemBatch>(stream, std::move(list), threads);
            });
          },
          py::arg("indices"), py::kw_only(), py::arg("threads") = 0,
          "The problems at these indices. The same bytes for any `threads` (0: all cores).")
      .def(
          "graph_hashes",
          [](const TaskStream& stream, std::int64_t first, std::int64_t step, std::int64_t count, int threads) {
            if (first < 0 || step < 1 || count < 0)
              throw py::value_error("first, step and count must be >= 0, 1 and 0, got " + std::to_string(first) + ", " +
                                    std::to_string(step) + " and " + std::to_string(count));
            const auto hashes = without_gil([&] { return graph_hashes(stream, first, step, count, threads); });
            return py::array_t<std::uint64_t>(static_cast<py::ssize_t>(hashes.size()), hashes.data());
          },
          py::arg("first"), py::kw_only(), py::arg("step") = 1, py::arg("count"), py::arg("threads") = 0,
          "uint64 [count]: the nameless graphs of problems first, first + step, ..., without their texts.");

  py::class_<ProblemBatch, std::shared_ptr<ProblemBatch>>(m, "ProblemBatch", "Texts and facts of some problems.")
      .def("__len__", &ProblemBatch::size)
      .def("problems",
           [](const ProblemBatch& b) { return list_of(b, [&](auto i, auto& out) { out.append(b.problem(i)); }); })
      .def("questions",
           [](const ProblemBatch& b) { return list_of(b, [&](auto i, auto& out) { out.append(b.question(i)); }); })
      .def("solutions",
           [](const ProblemBatch& b) { return list_of(b, [&](auto i, auto& out) { b.append_solution(i, out); }); })
      .def("prompts",
           [](const ProblemBatch& b) { return list_of(b, [&](auto i, auto& out) { b.append_prompt(i, out); }); })
      .def("documents",
           [](const ProblemBatch& b) { return list_of(b, [&](auto i, auto& out) { b.append_document(i, out); }); })
      .def("indices",
           [](const ProblemBatch& b) { return column<std::int64_t>(b, [&](auto i) { return b.row(i).index; }); })
      .def("answers",
           [](const ProblemBatch& b) { return column<std::int64_t>(b, [&](auto i) { return b.row(i).answer; }); })
      .def("hashes",
           [](const ProblemBatch& b) { return column<std::uint64_t>(b, [&](auto i) { return b.row(i).hash; }); })
      .def("graph_hashes",
           [](const ProblemBatch& b) { return column<std::uint64_t>(b, [&](auto i) { return b.row(i).graph; }); })
      .def("graph", &graph_of, py::arg("i"), "The quantities of problem i of the batch as dicts, parents by position.")
      .def("cells",
           [](const ProblemBatch& b) { return column<std::int32_t>(b, [&](auto i) { return b.row(i).cell; }); })
      .def("ops",
           [](const ProblemBatch& b) { return column<std::int32_t>(b, [&](auto i) { return b.cell(i).spec.op; }); });
}

}  // namespace fastreason
