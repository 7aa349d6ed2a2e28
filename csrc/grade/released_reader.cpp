#include "grade/released_reader.h"

#include <algorithm>
#include <bit>

#include "text/utf8.h"

namespace fastreason {

using python::is_blank;
using python::kReplacement;
using python::match_word;

namespace {

constexpr auto kNowhere = std::string_view::npos;
constexpr std::string_view kOpenTag = "<answer>", kCloseTag = "</answer>", kAnswerWord = "Answer:";
constexpr std::string_view kOtherBlank = "\x1C";  // to Python's eval as bad as a blank beyond ASCII

struct Place {
  std::size_t at = kNowhere, size = 0;  // in bytes
  bool found() const { return at != kNowhere; }
  std::size_t end() const { return at + size; }
};

// The first `word` (in lower case) from `from` on, without regard to case. Its first character must be `<`, or a letter
// with two cases only.
Place find_word(std::string_view text, std::size_t from, std::string_view word) {
  for (std::size_t at = from; at < text.size(); ++at) {
    if ((text[at] | 0x20) != (word[0] | 0x20)) continue;
    if (const std::size_t size = match_word(text, at, word)) return {at, size};
  }
  return {};
}

Place find_tag(std::string_view text, std::size_t from, std::string_view tag) {
  for (std::size_t at = text.find('<', from); at != kNowhere; at = text.find('<', at + 1))
    if (const std::size_t size = match_word(text, at, tag)) return {at, size};
  return {};
}

std::size_t skip_blanks(std::string_view text, std::size_t at) {
  while (at < text.size() && is_blank(text[at])) ++at;
  return at;
}

bool is_ascii(std::string_view text) {
  unsigned char bits = 0;
  for (const char c : text) bits |= static_cast<unsigned char>(c);
  return bits < 0x80;
}

std::string_view trim_ascii(std::string_view text) {
  while (!text.empty() && is_blank(text.back())) text.remove_suffix(1);
  return text.substr(skip_blanks(text, 0));
}

// "Define" and at least one blank.
Place find_define(std::string_view text, std::size_t from) {
  for (Place word = find_word(text, from, "define"); word.found(); word = find_word(text, word.at + 1, "define")) {
    const std::size_t end = skip_blanks(text, word.end());
    if (end > word.end()) return {word.at, end - word.at};
  }
  return {};
}

bool number_behind(std::string_view text, std::size_t at, double& value) {
  const std::string_view rest = text.substr(skip_blanks(text, at));
  const std::size_t size = python::number_length(rest);
  if (size > 0) value = python::to_float(rest.substr(0, size));
  return size > 0;
}

bool is_name_edge(char c) { return c == ' ' || c == '.' || c == ';'; }

std::string_view trim_name(std::string_view name) {
  while (!name.empty() && is_name_edge(name.front())) name.remove_prefix(1);
  while (!name.empty() && is_name_edge(name.back())) name.remove_suffix(1);
  return name;
}

std::string_view without_full_stops(std::string_view text) {
  while (text.ends_with('.')) text.remove_suffix(1);
  return text;
}

}  // namespace

void ReleasedReader::read(std::string_view text, NameTable& names) {
  decode(text);
  find_answer();
  remove_tags();
  steps_.clear();
  parents_.clear();
  parts_.clear();
  defined_ = 0;
  intermediates_.fill({});
  values_.clear();
  tidied_.clear();
  tidied_.reserve(text_.size());  // views into it must stay valid
  Header header, following;
  for (bool found = next_header(0, header); found; header = following) {
    found = next_header(header.end, following);
    const std::size_t end = found ? following.begin : text_.size();
    const std::string_view body = text_.substr(header.end, end - header.end);
    read_step(header, body.substr(0, body.find(kAnswerWord)), names);
  }
  read_missing_values();
}

void ReleasedReader::decode(std::string_view text) {
  decoded_ = text_ = text;
  if (is_ascii(text)) return;
  bool changes = false;
  for (std::size_t at = 0; at < text.size();) {
    if (text[at] >= 0) {
      ++at;
      continue;
    }
    const Utf8Char c = char_at(text, at);
    changes |= c.code == kInvalidByte || is_blank(c.code);
    at += c.size;
  }
  if (!changes) return;
  decoded_copy_.clear();
  spaced_copy_.clear();
  for (std::size_t at = 0; at < text.size();) {
    const Utf8Char c = char_at(text, at);
    const std::string_view bytes = c.code == kInvalidByte ? kReplacement : text.substr(at, c.size);
    decoded_copy_.append(bytes);
    spaced_copy_.append(bytes.size() > 1 && is_blank(c.code) ? kOtherBlank : bytes);
    at += c.size;
  }
  decoded_ = decoded_copy_;
  text_ = spaced_copy_;
}

// Whatever stands between "<" and the next ">", if anything does.
void ReleasedReader::remove_tags() {
  std::size_t open = text_.find('<');
  if (open == kNowhere) return;
  untagged_copy_.clear();
  std::size_t kept = 0;
  for (; open != kNowhere; open = text_.find('<', open)) {
    const std::size_t close = text_.find('>', open);
    if (close == kNowhere) break;
    if (close == open + 1) {
      ++open;
      continue;
    }
    untagged_copy_.append(text_.substr(kept, open - kept));
    kept = open = close + 1;
  }
  untagged_copy_.append(text_.substr(kept));
  text_ = untagged_copy_;
}

void ReleasedReader::find_answer() {
  has_answer_ = true;
  for (Place tag = find_tag(text_, 0, kOpenTag); tag.found(); tag = find_tag(text_, tag.end(), kOpenTag))
    if (number_behind(text_, tag.end(), answer_)) return;
  for (std::size_t at = text_.find(kAnswerWord); at != kNowhere; at = text_.find(kAnswerWord, at + 1))
    if (number_behind(text_, at + kAnswerWord.size(), answer_)) return;
  has_answer_ = false;
}

bool ReleasedReader::tagged_answer(std::string_view& answer) const {
  Place tag = find_tag(decoded_, 0, kOpenTag);
  if (!tag.found()) return false;
  const Place close = find_tag(decoded_, tag.end(), kCloseTag);
  if (close.found()) {
    answer = python::trim(decoded_.substr(tag.end(), close.at - tag.end()));
    return true;
  }
  // The scorer finds the last open tag in the text in lower case, which has one character more for each U+0130 before
  // it, and does not know the long s there.
  std::size_t begin = kNowhere, shift = 0;
  for (; tag.found(); tag = find_tag(decoded_, tag.end(), kOpenTag))
    if (tag.size == kOpenTag.size()) begin = tag.at;
  if (begin == kNowhere) return false;
  for (std::size_t at = decoded_.find(python::kFurtherLetters[0]); at < begin;
       at = decoded_.find(python::kFurtherLetters[0], at + 1))
    ++shift;
  for (begin += kOpenTag.size(); shift > 0 && begin < decoded_.size(); --shift) begin += char_at(decoded_, begin).size;
  const std::string_view rest = decoded_.substr(begin);
  answer = python::trim(rest.substr(0, rest.find_first_of("<\n")));
  return true;
}

std::string_view ReleasedReader::gold_answer() const {
  std::string_view answer;
  if (!tagged_answer(answer)) {
    const Place word = find_word(decoded_, 0, "answer:");
    if (!word.found()) return {};
    const std::string_view rest = python::trim(decoded_.substr(word.end()));
    answer = python::trim(rest.substr(0, rest.find_first_of("<\n")));
  }
  return without_full_stops(python::trim(without_full_stops(answer)));
}

// A header is "Define", the shortest possible name, "as" or "a", any words of letters alone, one letter and a
// semicolon.
bool ReleasedReader::next_header(std::size_t from, Header& header) const {
  const Place define = find_define(text_, from);
  if (!define.found()) return false;
  header.begin = define.at;
  const std::size_t first = text_.find(';', define.end());
  for (std::size_t semicolon = first; semicolon != kNowhere; semicolon = text_.find(';', semicolon + 1))
    if (header_at_semicolon(define.end(), semicolon, header)) return true;
  // Only now does the name give way: with two blanks behind "Define" it may be empty.
  const bool two_blanks = match_word(text_, define.at, "define") + 2 <= define.size;
  return first != kNowhere && two_blanks && header_at_semicolon(define.end() - 1, first, header);
}

// Walks back from the semicolon over words of letters alone. The earliest "as" or "a" among them is where the name
// ends.
bool ReleasedReader::header_at_semicolon(std::size_t name_from, std::size_t semicolon, Header& header) const {
  const python::Letter variable = python::letter_before(text_, semicolon);
  std::size_t end = semicolon - variable.size, name_end = kNowhere;
  const auto blank_before = [&](std::size_t at) { return at > name_from && is_blank(text_[at - 1]); };
  if (variable.size == 0) return false;
  while (blank_before(end)) {
    while (blank_before(end)) --end;
    std::size_t begin = end;
    while (const std::size_t size = begin > name_from ? python::letter_before(text_, begin).size : 0) begin -= size;
    const bool is_as = match_word(text_, begin, "as") == end - begin || match_word(text_, begin, "a") == end - begin;
    if (begin == end) break;
    if (is_as && blank_before(begin)) {
      name_end = begin;
      while (blank_before(name_end)) --name_end;
    }
    end = begin;
  }
  if (name_end == kNowhere) return false;
  header.end = semicolon + 1;
  header.name = text_.substr(name_from, name_end - name_from);
  header.letter = variable.index;
  return true;
}

// Of a name without blanks at its ends: each run of blanks becomes one, replacement characters go.
std::string_view ReleasedReader::collapse_blanks(std::string_view name) {
  bool changes = false;
  for (std::size_t at = 0; at < name.size(); ++at)
    changes |= name[at] == kReplacement[0] || (is_blank(name[at]) && (name[at] != ' ' || is_blank(name[at + 1])));
  if (!changes) return name;
  const std::size_t begin = tidied_.size();
  for (std::size_t at = 0; at < name.size(); ++at) {
    const bool blank = is_blank(name[at]);
    if (blank && is_blank(name[at + 1])) continue;
    if (name.substr(at, kReplacement.size()) == kReplacement)
      at += kReplacement.size() - 1;
    else
      tidied_.push_back(blank ? ' ' : name[at]);
  }
  return std::string_view(tidied_).substr(begin);
}

// Blanks become one each, replacement characters and outer full stops and semicolons go; then what stands before a last
// "Define" goes, which began a header that was swallowed.
std::string_view ReleasedReader::tidy_name(std::string_view name) {
  const std::string_view tidied = trim_name(collapse_blanks(trim_ascii(name)));
  std::size_t kept = 0;
  for (Place define = find_define(tidied, 0); define.found(); define = find_define(tidied, define.end())) {
    const bool joined = define.at > 0 && python::is_word(char_at(tidied, char_before(tidied, define.at)).code);
    if (!joined) kept = define.end();
  }
  return trim_name(tidied.substr(kept));
}

void ReleasedReader::read_step(const Header& header, std::string_view body, NameTable& names) {
  Step step;
  step.name = names.intern(tidy_name(header.name));
  step.letter = header.letter;
  step.parts_begin = parts_.size();
  read_assignments(body, step);
  step.parts_end = parts_.size();
  if (!step.has_value) {
    const std::string_view number = python::last_number(body);
    step.has_value = !number.empty();
    if (step.has_value) values_.set(step.letter, step.value = python::to_float(number));
  }
  defined_ |= std::uint64_t{1} << step.letter;
  name_of_letter_[static_cast<std::size_t>(step.letter)] = step.name;
  steps_.push_back(step);
}

// One letter, "=", and what follows up to the next full stop or semicolon; a letter that ends a longer word will do.
void ReleasedReader::read_assignments(std::string_view body, Step& step) {
  const auto number = static_cast<int>(steps_.size());
  std::uint64_t letters = 0;
  std::size_t at = 0;
  for (std::size_t equals = body.find('='); equals != kNowhere; equals = body.find('=', at)) {
    std::size_t behind_target = equals;
    while (behind_target > at && is_blank(body[behind_target - 1])) --behind_target;
    const bool has_target = behind_target > at && python::is_ascii_letter(body[behind_target - 1]);
    at = equals + 1;
    if (!has_target || at == body.size() || body[at] == '.' || body[at] == ';') continue;
    at = std::min(body.size(), body.find_first_of(".;", at));
    const int target = python::ascii_letter_index(body[behind_target - 1]);
    const std::string_view expression = body.substr(equals + 1, at - equals - 1);
    const std::uint64_t sources = letters_behind(expression, number);
    const std::string_view part = trim_ascii(expression.substr(expression.rfind('=') + 1));
    if (target == step.letter) {
      letters |= sources;
      parts_.push_back(part);
    } else {
      Intermediate& own = intermediates_[static_cast<std::size_t>(target)];
      own = {number, sources | (own.step == number ? own.letters : 0)};
    }
    double value;
    if (!python::evaluate(part, values_, value)) {
      const std::string_view last = python::last_number(expression);
      if (last.empty()) continue;
      value = python::to_float(last);
    }
    values_.set(target, value);
    if (target != step.letter) continue;
    step.has_value = true;
    step.value = value;
  }
  write_parents(letters, step);
}

// The letters of earlier steps that any letter of the expression stands for, be it part of a word: as the letter of a
// step, as an intermediate of this step, or as both.
std::uint64_t ReleasedReader::letters_behind(std::string_view expression, int step) const {
  std::uint64_t letters = 0;
  for (const char c : expression) {
    if (!python::is_ascii_letter(c)) continue;
    const int index = python::ascii_letter_index(c);
    const Intermediate& intermediate = intermediates_[static_cast<std::size_t>(index)];
    letters |= defined_ & std::uint64_t{1} << index;
    if (intermediate.step == step) letters |= intermediate.letters;
  }
  return letters;
}

void ReleasedReader::write_parents(std::uint64_t letters, Step& step) {
  step.parents_begin = parents_.size();
  for (; letters != 0; letters &= letters - 1)
    parents_.push_back(name_of_letter_[static_cast<std::size_t>(std::countr_zero(letters))]);
  const auto begin = parents_.begin() + static_cast<std::ptrdiff_t>(step.parents_begin);
  std::sort(begin, parents_.end());
  parents_.erase(std::unique(begin, parents_.end()), parents_.end());
  step.parents_end = parents_.size();
}

// In order of the text; of a step's parts the last one that has a value by now, else the latest value of its letter.
void ReleasedReader::read_missing_values() {
  for (Step& step : steps_) {
    for (std::size_t i = step.parts_end; i-- > step.parts_begin && !step.has_value;)
      step.has_value = python::evaluate(parts_[i], values_, step.value);
    if (!step.has_value && values_.has(step.letter)) {
      step.has_value = true;
      step.value = values_[step.letter];
    }
    if (step.has_value) values_.set(step.letter, step.value);
  }
}

}  // namespace fastreason
