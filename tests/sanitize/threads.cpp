// The core in many threads at once, under ThreadSanitizer: without Python and torch, whose own locks it cannot see.
//
// Whatever is const may be shared: a stream, a batch, tokenizers with their cache, a packer. What has one user at a
// time says so to the second. Every part must also give what one thread gives.
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "common/one_at_a_time.h"
#include "common/parallel.h"
#include "cpu/kernels.h"
#include "decode/decoder.h"
#include "grade/batch.h"
#include "sample/sample.h"
#include "tasks/stream.h"
#include "text/byte_pair_tokenizer.h"
#include "text/packing.h"
#include "text/prefetch.h"
#include "text/word_tokenizer.h"

namespace fastreason {

namespace {

constexpr int kThreads = 4;

void require(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "does not hold: %s\n", what);
  std::abort();
}

// The same work on every thread at once; each result must be that of one thread.
template <class Work>
void in_threads(const char* what, Work&& work) {
  const auto want = work();
  std::vector<std::jthread> pool;
  for (int i = 0; i < kThreads; ++i) pool.emplace_back([&] { require(work() == want, what); });
}

std::shared_ptr<const TaskStream> make_stream() {
  auto theme = std::make_shared<Theme>(ThemeSpec{
      "letters", Style::kSymbolic, {{"B", "C", "D", "F", "G"}}, {{"a", "e", "i", "o", "u"}}, "", "", "", {}, {}});
  std::vector<Cell> cells;
  for (int op = 2; op <= 6; ++op) {
    Cell cell;
    cell.spec = {op, Mode::kForward, 2, 5, 99, 50, true};
    cells.push_back(cell);
  }
  return std::make_shared<TaskStream>(std::vector<std::shared_ptr<const Theme>>{theme}, cells, 1, Split::kTrain,
                                      SplitBy::kProblem);
}

// One token a byte, and a pattern, so that pieces are cut, merged and kept.
std::shared_ptr<const Tokenizer> make_tokenizer() {
  BytePairSpec spec;
  for (int byte = 0; byte < 256; ++byte) {
    spec.words.emplace_back(1, static_cast<char>(byte));
    spec.byte_ids.push_back(byte);
  }
  spec.words.emplace_back("so");
  spec.merges.push_back({'s', 'o', 256});
  spec.patterns = {"\\s?[A-Za-z]+|\\s?\\p{N}{1,3}|[\\s\\S]"};
  spec.padding_id = 0;
  spec.end_id = 1;
  return std::make_shared<BytePairTokenizer>(std::move(spec));
}

std::vector<std::string> documents(const ProblemBatch& batch) {
  std::vector<std::string> out(static_cast<std::size_t>(batch.size()));
  for (std::int64_t i = 0; i < batch.size(); ++i) batch.append_document(i, out[static_cast<std::size_t>(i)]);
  return out;
}

std::vector<std::int64_t> first(std::int64_t n) {
  std::vector<std::int64_t> out;
  for (std::int64_t i = 0; i < n; ++i) out.push_back(i);
  return out;
}

void check_problems(const std::shared_ptr<const TaskStream>& stream) {
  in_threads("problems are the same", [&] { return documents(ProblemBatch(stream, first(300), 2)); });
}

void check_tokens(const std::shared_ptr<const TaskStream>& stream) {
  const auto tokenizer = make_tokenizer();
  const std::vector<std::string> texts = documents(ProblemBatch(stream, first(100), 1));
  in_threads("ids are the same", [&] {
    std::vector<std::int32_t> ids;
    for (const std::string& text : texts) tokenizer->encode(text, ids);
    return ids;
  });
  const auto packer = std::make_shared<const Packer>(stream, make_tokenizer());  // with an empty cache
  in_threads("rows are the same", [&] { return packer->pack(0, 1, 8, 512, 2).tokens; });
  for (int round = 0; round < 3; ++round) {  // closed while another thread waits, and while it draws
    Prefetcher batches(packer, {0, 5}, 10, 2, 512, 1);
    require(batches.next().tokens == packer->pack(0, 10, 2, 512, 1).tokens, "batches drawn ahead are the same");
    std::jthread waiting([&] {
      try {
        for (;;) batches.next();
      } catch (const std::runtime_error&) {  // closed
      }
    });
    if (round > 0) std::this_thread::sleep_for(std::chrono::milliseconds(round));
    batches.close();
  }
}

void check_grading(const std::shared_ptr<const TaskStream>& stream) {
  const ProblemBatch batch(stream, first(100), 1);
  const std::vector<std::string> texts = documents(batch);
  const GradeInput input{
      batch.size(), 1, false,
      [&](std::int64_t i, Grader& grader) { grader.set_gold(batch.solution_graph(i), batch.theme(i)); },
      [&](std::int64_t i, TextMemory&) { return Completion{texts[static_cast<std::size_t>(i)], false, {}, {}}; }};
  in_threads("verdicts are the same", [&] {
    BatchVerdicts verdicts = grade_batch(input, 2);
    return std::vector<bool>(verdicts.sound.data(), verdicts.sound.data() + verdicts.sound.size());
  });
}

struct Model {
  DecoderShape shape{32, 2, 4, 2, 8, 48, 40, 64, 1e-6f};
  std::vector<float> numbers;

  Model() {
    for (int i = 0; i < 200 * 64; ++i) numbers.push_back(static_cast<float>((i * 7919) % 200 - 100) * 1e-3f);
  }
  // Any weights will do, the same ones for every matrix.
  ModelWeights weights() const {
    const float* x = numbers.data();
    ModelWeights out{x, x, x, {}};
    for (int layer = 0; layer < 2; ++layer) out.layers.push_back({x, x, x, x, x, x, x});
    return out;
  }
};

std::vector<float> decode(const Model& model, CpuDecoder& decoder) {
  const std::vector<std::int32_t> tokens(60, 3);
  const std::vector<std::int64_t> offsets = {0, 20, 40, 60}, slots = {0, 1, 2}, lengths = {0, 0, 0};
  std::vector<float> logits(3 * static_cast<std::size_t>(model.shape.vocab));
  decoder.reserve(3, 8);
  const auto prompts = decoder.prefill(tokens, offsets, logits.data(), 2);
  const std::vector<std::int32_t> next = {1, 2, 3};
  decoder.decode(slots, prompts, lengths, next, logits.data(), 2);
  return logits;
}

void check_decoder() {
  const Model model;
  for (const Precision precision : {Precision::kFloat32, Precision::kBfloat16})
    for (const ForwardKernel& kernel : forward_kernels(precision))
      in_threads("logits are the same", [&] {
        CpuDecoder decoder(model.shape, kernel, model.numbers.data(), model.numbers.data());
        decoder.load(model.weights());
        return decode(model, decoder);
      });
  // one decoder: whoever comes second is told, as the binding does it
  CpuDecoder decoder(model.shape, forward_kernels(Precision::kFloat32).back(), model.numbers.data(),
                     model.numbers.data());
  decoder.load(model.weights());
  const std::vector<float> want = decode(model, decoder);
  std::atomic<int> served{0};
  std::vector<std::jthread> pool;
  for (int i = 0; i < kThreads; ++i)
    pool.emplace_back([&] {
      for (int round = 0; round < 20; ++round) try {
          const OneAtATime::Turn turn(decoder.turns());
          require(decode(model, decoder) == want, "logits of a turn are the same");
          ++served;
        } catch (const std::runtime_error&) {
        }
    });
  pool.clear();
  require(served > 0, "some thread had its turn");
}

void check_sampling() {
  std::vector<float> logits;
  for (int i = 0; i < 200 * 1000; ++i) logits.push_back(static_cast<float>((i * 7919) % 1013) * 0.01f);
  const std::vector<std::int64_t> keys = first(200);
  const SampleSettings settings = sample_settings(0.7, 50, 0.9, 0.01, 1000);
  in_threads("samples are the same", [&] {
    std::vector<std::int64_t> tokens(200);
    std::vector<float> logprobs(200), full(200);
    sample_rows(logits.data(), 200, 1000, 1000, settings, {3, keys.data(), keys.data(), keys.data()},
                {tokens.data(), logprobs.data(), full.data()}, 2);
    return tokens;
  });
}

void check_training() {
  constexpr std::int64_t kTokens = 40, kHeads = 4, kDim = 16;
  std::vector<float> x;
  for (int i = 0; i < kTokens * kHeads * kDim; ++i) x.push_back(static_cast<float>((i * 7919) % 101 - 50) * 0.02f);
  const AttentionShape shape{kTokens, kHeads, 1, kDim, 0.25f};
  const Heads heads{x.data(), kHeads * kDim, kDim};
  in_threads("attention is the same", [&] {
    const Kernels& kernel = kernels();
    std::vector<float> o(x.size()), lse(kHeads * kTokens);
    parallel_blocks(kHeads, 2, 1, [&](std::int64_t begin, std::int64_t end) {
      std::vector<float> scratch(static_cast<std::size_t>(attention_scratch(kTokens, kDim)));
      for (std::int64_t head = begin; head < end; ++head)
        kernel.attention_forward({0, kTokens, 0, 0}, shape, heads, heads, heads, head, o.data(), lse.data(),
                                 scratch.data());
    });
    return o;
  });
}

// Callers at once, work within work, more threads than cores, an error, and more of all that afterwards.
void check_pool() {
  const auto nested = [] {
    std::atomic<std::int64_t> total{0};
    parallel_blocks(40, kThreads, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i)
        parallel_blocks(10, 3, 1, [&](std::int64_t first, std::int64_t last) { total += (last - first) * i; });
    });
    return total.load();
  };
  for (int round = 0; round < 20; ++round) {
    in_threads("sums of nested work are the same", nested);
    try {
      parallel_blocks(100, kThreads, 1, [](std::int64_t begin, std::int64_t) {
        if (begin == 57) throw std::runtime_error("57");
      });
      require(false, "an error of a block comes through");
    } catch (const std::runtime_error& error) {
      require(error.what() == std::string("57"), "the error is that of the block");
    }
    if (round % 5 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));  // the pool falls asleep
  }
}

// Set by the caller's own check, by another thread, and not at all.
void check_interruption() {
  const auto endless = [] { parallel_blocks(std::int64_t{1} << 40, kThreads, 1, [](std::int64_t, std::int64_t) {}); };
  for (const bool by_check : {true, false}) {
    std::atomic<bool> stop{false};
    std::jthread other;
    if (!by_check) other = std::jthread([&] { stop = true; });
    try {
      const Interruptible scope(&stop, by_check ? [] { return true; } : InterruptionCheck{nullptr});
      endless();
      require(false, "what is endless ends by interruption");
    } catch (const Interrupted&) {
    }
  }
  std::atomic<bool> stop{false};
  const Interruptible scope(&stop, [] { return false; });
  std::atomic<std::int64_t> done{0};
  parallel_blocks(1000, kThreads, 1, [&](std::int64_t begin, std::int64_t end) { done += end - begin; });
  require(done == 1000, "what nobody stops is done");
}

}  // namespace

}  // namespace fastreason

int main() {
  using namespace fastreason;
  const auto stream = make_stream();
  check_problems(stream);
  check_tokens(stream);
  check_grading(stream);
  check_decoder();
  check_sampling();
  check_training();
  check_pool();
  check_interruption();
  std::puts("threads: no race, and what one thread gives");
}
