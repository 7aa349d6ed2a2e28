#include "text/packing.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <stdexcept>
#include <string>
#include <utility>

#include "common/parallel.h"

namespace fastreason {

namespace {

template <class Sink>
void write_prompt(const Theme& theme, const Sample& sample, Sink& sink) {
  sink.piece(kQuestionOpen);
  write_asked_problem(theme, sample.problem, sink);
  sink.piece(kQuestionClose);
  sink.piece(kSolutionOpen);
}

// The last i for which problem first + i * step exists.
std::int64_t last_step(std::int64_t first, std::int64_t step) {
  return (std::numeric_limits<std::int64_t>::max() - first) / step;
}

// Without the end token.
template <class Sink>
void write_completion(const Theme& theme, const Sample& sample, Sink& sink) {
  write_body(theme, sample.problem, sample.letters, sink);
  sink.piece(kSolutionClose);
  sink.piece(kAnswerOpen);
  sink.integer(sample.problem.answer());
  sink.piece(kAnswerClose);
}

}  // namespace

Packer::Packer(std::shared_ptr<const TaskStream> stream, std::shared_ptr<const Tokenizer> tokenizer)
    : stream_(std::move(stream)), tokenizer_(std::move(tokenizer)) {
  if (tokenizer_->padding_id() < 0 || tokenizer_->end_id() < 0)
    throw std::invalid_argument("packing needs a tokenizer with a padding token and an end token");
  if (tokenizer_->cuts_at_pieces())
    for (const auto& theme : stream_->themes()) themes_.emplace_back(*theme, *tokenizer_);
}

void Packer::write(std::int64_t index, Scratch& scratch, Document& document) const {
  Sample& sample = scratch.sample;
  stream_->generate(static_cast<std::uint64_t>(index), sample);
  document.ids.clear();
  if (themes_.empty()) return write_text(scratch, document);
  const int theme_index = stream_->cells()[static_cast<std::size_t>(sample.cell)].theme;
  TokenSink sink(themes_[static_cast<std::size_t>(theme_index)], document.ids);
  write_prompt(stream_->theme_of(sample), sample, sink);
  document.prompt_size = document.ids.size();
  write_completion(stream_->theme_of(sample), sample, sink);
  document.ids.append(tokenizer_->end_id());
}

// Prompt and completion are encoded apart: so are they where a model continues a prompt.
void Packer::write_text(Scratch& scratch, Document& document) const {
  const Theme& theme = stream_->theme_of(scratch.sample);
  TextSink sink(theme, scratch.text);
  const auto append_encoded = [&] {
    scratch.ids.clear();
    tokenizer_->encode(scratch.text.view(), scratch.ids);
    document.ids.append_copy(scratch.ids);
  };
  scratch.text.clear();
  write_prompt(theme, scratch.sample, sink);
  append_encoded();
  document.prompt_size = document.ids.size();
  scratch.text.clear();
  write_completion(theme, scratch.sample, sink);
  append_encoded();
  document.ids.append(tokenizer_->end_id());
}

void Packer::write_all(std::int64_t first, std::int64_t step, std::vector<Document>& documents, int threads) const {
  parallel_blocks(std::ssize(documents), threads, 16, [&](std::int64_t begin, std::int64_t end) {
    Scratch scratch;
    for (std::int64_t i = begin; i < end; ++i) write(first + i * step, scratch, documents[static_cast<std::size_t>(i)]);
  });
}

EncodedDocuments Packer::encode(std::int64_t first, std::int64_t step, std::int64_t count, int threads) const {
  if (count > 0 && count - 1 > last_step(first, step))
    throw std::invalid_argument("problem " + std::to_string(first) + " is the first and " + std::to_string(step) +
                                " the step of more documents than end at problem 2**63 - 1: " + std::to_string(count));
  std::vector<Document> documents(static_cast<std::size_t>(count));
  write_all(first, step, documents, threads);
  EncodedDocuments out;
  out.cu_seqlens.push_back(0);
  for (const Document& document : documents) {
    out.tokens.insert(out.tokens.end(), document.ids.data(), document.ids.data() + document.ids.size());
    out.cu_seqlens.push_back(std::ssize(out.tokens));
    out.prompt_lengths.push_back(static_cast<std::int32_t>(document.prompt_size));
  }
  return out;
}

PackedRows Packer::pack(std::int64_t first, std::int64_t step, std::int64_t rows, std::int64_t length,
                        int threads) const {
  PackedRows packed;
  const auto total = static_cast<std::size_t>(rows * length);
  packed.tokens.assign(total, tokenizer_->padding_id());
  packed.positions.assign(total, 0);
  packed.loss_mask.assign(total, 0);
  packed.next_index = first;

  std::vector<Document> documents;
  std::int64_t row = 0, used = 0;  // tokens used of the current row
  std::int64_t num_documents = 0, num_tokens = 0;
  const auto place = [&](const Document& document) {
    const auto size = std::min<std::int64_t>(static_cast<std::int64_t>(document.ids.size()), length);
    if (used + size > length) {
      if (++row == rows) return false;
      used = 0;
    }
    const auto start = static_cast<std::size_t>(row * length + used);
    std::copy_n(document.ids.data(), size, packed.tokens.begin() + static_cast<std::ptrdiff_t>(start));
    std::iota(packed.positions.data() + start, packed.positions.data() + start + size, 0);
    if (static_cast<std::int64_t>(document.prompt_size) < size)
      std::fill(packed.loss_mask.data() + start + document.prompt_size, packed.loss_mask.data() + start + size,
                std::uint8_t{1});
    packed.starts.push_back(static_cast<std::int32_t>(start));
    packed.lengths.push_back(static_cast<std::int32_t>(size));
    used += size;
    ++num_documents;
    num_tokens += size;
    if (last_step(packed.next_index, step) < 1)
      throw std::invalid_argument("the rows go beyond problem 2**63 - 1, the last one of a stream");
    packed.next_index += step;
    return true;
  };

  while (row < rows) {
    // ask for about as many documents as still fit, so that few are written in vain
    const std::int64_t left = (rows - row) * length - used;
    const std::int64_t mean = num_documents ? num_tokens / num_documents + 1 : 256;
    const std::int64_t base = packed.next_index;
    const std::int64_t most = std::min<std::int64_t>(4095, last_step(base, step)) + 1;
    documents.resize(static_cast<std::size_t>(std::clamp<std::int64_t>(left / mean, 1, most)));
    write_all(base, step, documents, threads);
    for (const Document& document : documents)
      if (!place(document)) break;
  }
  return packed;
}

}  // namespace fastreason
