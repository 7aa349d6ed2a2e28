#include "grade/answer.h"

#include <algorithm>

#include "grade/characters.h"
#include "grade/number.h"

namespace fastreason {

namespace {

constexpr std::string_view kOpenTag = "<answer>", kCloseTag = "</answer>", kWord = "Answer:";
constexpr auto kNowhere = std::string_view::npos;

std::size_t find_tag(std::string_view text, std::string_view tag, std::size_t from) {
  for (std::size_t at = text.find('<', from); at != kNowhere; at = text.find('<', at + 1))
    if (has_word(text, at, tag)) return at;
  return kNowhere;
}

bool is_blank_from(std::string_view text, std::size_t at) { return skip_blanks(text, at) == text.size(); }

std::size_t find_last_tag(std::string_view text, std::string_view tag, std::size_t from) {
  for (std::size_t at = text.rfind('<'); at != kNowhere && at >= from;
       at = at == 0 ? kNowhere : text.rfind('<', at - 1))
    if (has_word(text, at, tag)) return at;
  return kNowhere;
}

// The end of the sentence at `from`: behind its full stop, at a line break, or at the end of the text.
std::size_t sentence_end(std::string_view text, std::size_t from) {
  for (std::size_t at = skip_blanks(text, from); at < text.size(); ++at) {
    if (text[at] == '\n' || text[at] == '\r') return at;
    if (text[at] == '.' && (at + 1 == text.size() || is_blank(text[at + 1]))) return at + 1;
  }
  return text.size();
}

// One number with an optional sign and an optional full stop, as steps end.
bool read_whole(std::string_view text, double& value) {
  std::size_t at = skip_blanks(text, 0);
  const bool negative = at < text.size() && text[at] == '-';
  if (at < text.size() && (text[at] == '-' || text[at] == '+')) at = skip_blanks(text, at + 1);
  at = read_number(text, at, value);
  if (at == kNowhere) return false;
  at = skip_blanks(text, at);
  if (at < text.size() && text[at] == '.') ++at;
  if (negative) value = -value;
  return skip_blanks(text, at) == text.size();
}

// Whether the text ended while an answer was open, or may have gone on.
bool is_unfinished(std::string_view text, std::size_t tags_from, TextEnd end) {
  if (end.kind == TextEnd::kCut) return true;
  const bool has_tags = tags_from != kNowhere;
  const std::size_t open = has_tags ? find_last_tag(text, kOpenTag, tags_from) : kNowhere;
  const std::size_t close = has_tags ? find_last_tag(text, kCloseTag, tags_from) : kNowhere;
  const bool is_open = open != kNowhere && (close == kNowhere || close < open);
  if (end.kind == TextEnd::kWhole) return is_open && !end.may_be_open;
  return is_open || close == kNowhere || !is_blank_from(text, close + kCloseTag.size());
}

}  // namespace

Answer read_answer(std::string_view text, TextEnd end) {
  Answer answer;
  const std::size_t tags_from = text.find('<');
  const bool unfinished = is_unfinished(text, tags_from, end);
  const std::size_t tag = find_tag(text, kOpenTag, tags_from), word = text.find(kWord);
  answer.begin = std::min({tag, word, text.size()});
  if (answer.begin == text.size()) {
    answer.ending = unfinished ? Ending::kUnfinished : Ending::kNoAnswer;
    return answer;
  }
  const bool is_tagged = tag < word;
  const std::size_t begin = answer.begin + (is_tagged ? kOpenTag.size() : kWord.size());
  const bool is_alone = find_tag(text, kOpenTag, begin) == kNowhere && text.find(kWord, begin) == kNowhere;
  const std::size_t close = is_tagged ? find_tag(text, kCloseTag, begin) : sentence_end(text, begin);
  const std::size_t content_end = std::min(close, text.size());
  const std::size_t behind = is_tagged && close != kNowhere ? close + kCloseTag.size() : content_end;
  if (!unfinished || behind < text.size() ||
      (is_tagged && close != kNowhere))  // an open one may be the start of a number
    answer.is_number = read_whole(text.substr(begin, content_end - begin), answer.value);
  answer.ending = unfinished                     ? Ending::kUnfinished
                  : !is_alone                    ? Ending::kSeveralAnswers
                  : !is_blank_from(text, behind) ? Ending::kTextAfterAnswer
                                                 : Ending::kClosed;
  return answer;
}

}  // namespace fastreason
