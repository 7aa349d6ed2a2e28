#include "tasks/theme.h"

#include <stdexcept>
#include <utility>

#include "common/hash.h"
#include "text/word_tokenizer.h"

namespace fastreason {

namespace {

const char* piece_text(int piece, Style style) {
  const bool published = style == Style::kPublished;
  switch (piece) {
    case kQuestionOpen:
      return "<question>";
    case kQuestionClose:
      return " </question>";
    case kSolutionOpen:
      return " <solution>";
    case kSolutionClose:
      return " </solution>";
    case kAnswerOpen:
      return " <answer>";
    case kAnswerClose:
      return " </answer>";
    case kDot:
      return ".";
    case kAssign:
      return " =";
    case kAdd:
      return " +";
    case kSubtract:
      return " -";
    case kMultiply:
      return " *";
    case kOpenParenthesis:
      return " (";
    case kCloseParenthesis:
      return published ? ")" : " )";
    default:
      break;
  }
  if (!published) return piece == kSpacedQuestionMark ? " ?" : "";
  switch (piece) {
    case kQuestionMark:
      return "?";
    case kThe:
      return " The";
    case kTheNumberOf:
      return " The number of";
    case kRefThe:
      return " the";
    case kRefTheNumberOf:
      return " the number of";
    case kEquals:
      return " equals";
    case kPlus:
      return " plus";
    case kTimes:
      return " times";
    case kTheSumOf:
      return " the sum of";
    case kTheDifferenceBetween:
      return " the difference between";
    case kComma:
      return ",";
    case kAnd:
      return " and";
    case kExistsCount:
      return " exists, and its number is greater than 0";
    case kExistsAverage:
      return " is greater than 0";
    case kWhatIs:
      return " What is the";
    case kHowMany:
      return " How many";
    case kDoes:
      return " does";
    case kHave:
      return " have";
    case kDefine:
      return " Define";
    case kAs:
      return " as";
    case kSemicolon:
      return ";";
    case kSo:
      return " so";
    case kReversePreamble:
      return " The question is difficult, so we use equations to solve it.";
    case kUnknownStep:
      return " as x; we don't know its value yet but will find it out later.";
    case kUnknown:
      return " x";
    case kBareUnknown:
      return "x";
    case kBareMinus:
      return "-";
    case kBareTimes:
      return "*";
    case kDivide:
      return " /";
    case kWeKnow:
      return " We know";
    case kSoWeHave:
      return ", so we have";
    case kSolveIt:
      return " and we solve it through the following steps: Simplifying the equation:";
    case kMoveTerms:
      return ". Move all terms to one side:";
    case kIsolate:
      return ". Isolate the term with x:";
    case kDivideBoth:
      return ". Divide both sides by";
    case kColon:
      return ":";
    case kSolutionX:
      return ". Solution: x =";
    default:
      return "";
  }
}

std::size_t count_words(const std::vector<std::vector<std::string>>& lists) {
  std::size_t total = 0;
  for (const auto& list : lists) total += list.size();
  return total;
}

// Draws a sub-list and, without replacement, `needed` of its names, as indices into the concatenation of all sub-lists.
template <class Names>
void draw_from(Rng& rng, const std::vector<std::vector<std::string>>& lists, int needed, Names& names) {
  const int chosen = rng.below(static_cast<int>(lists.size()));
  int offset = 0;
  for (int i = 0; i < chosen; ++i) offset += static_cast<int>(lists[static_cast<std::size_t>(i)].size());
  SmallVector<std::uint8_t, 64> rest;
  const auto size = static_cast<int>(lists[static_cast<std::size_t>(chosen)].size());
  for (int i = 0; i < size; ++i) rest.push_back(static_cast<std::uint8_t>(offset + i));
  for (int i = 0; i < needed; ++i) {
    const int pick = rng.below(rest.size());
    names[i] = rest[pick];
    rest.swap_erase(pick);
  }
}

}  // namespace

Theme::Theme(ThemeSpec spec) : spec_(std::move(spec)) {
  for (const auto* lists : {&spec_.places, &spec_.kinds}) {
    const char* field = lists == &spec_.places ? "places" : "kinds";
    if (lists->empty() || count_words(*lists) > 250)
      throw std::invalid_argument("theme " + spec_.name + ": " + field +
                                  " must hold 1 to 250 names in sub-lists, got " + std::to_string(count_words(*lists)));
    for (const auto& list : *lists)
      if (list.size() < kMaxPlaces || list.size() > 64)
        throw std::invalid_argument("theme " + spec_.name + ": every sub-list of " + field +
                                    " must hold 5 to 64 names, got " + std::to_string(list.size()));
  }
  num_places_ = static_cast<int>(count_words(spec_.places));
  num_kinds_ = static_cast<int>(count_words(spec_.kinds));
  for (int id = 0; id < kNumFixedPieces; ++id) add_piece(piece_text(id, spec_.style));
  for (int letter = 0; letter < 52; ++letter) {
    const char c = static_cast<char>(letter < 26 ? 'A' + letter : 'a' + letter - 26);
    add_piece(spec_.style == Style::kPublished ? std::string{' ', c} : std::string{});
  }
  first_place_ = num_pieces();
  for (const auto& list : spec_.places)
    for (const auto& word : list) add_piece(" " + word);
  first_kind_ = num_pieces();
  for (const auto& list : spec_.kinds)
    for (const auto& word : list) add_piece(" " + word);
  add_names();
  add_padding();
}

void Theme::add_names() {
  first_name_ = num_pieces();
  const bool published = spec_.style == Style::kPublished;
  const auto add = [&](const std::string& name) {
    name_hashes_.push_back(hash_bytes(name));
    add_piece(" " + name);
  };
  const auto for_each = [](const std::vector<std::vector<std::string>>& lists, auto&& body) {
    for (const auto& list : lists)
      for (const auto& word : list) body(word);
  };
  // the order must be that of name_index
  for (const bool average : {false, true})
    for_each(spec_.places, [&](const std::string& place) {
      for_each(spec_.kinds, [&](const std::string& kind) {
        if (published)
          add((average ? spec_.average + " per " : "") + kind + " in " + place);
        else
          add(place + kind + (average ? spec_.average : ""));
      });
    });
  for (const std::string* total : {&spec_.total, &spec_.average_total})
    for_each(spec_.places,
             [&](const std::string& place) { add(published ? *total + " in " + place : place + *total); });
  first_subject_ = num_pieces();
  if (!published)
    for (int name = first_name_; name < first_subject_; ++name) add_piece(std::string(piece(name)) + ":");
}

void Theme::add_padding() {
  if (spec_.padding_places.empty() || spec_.padding_kinds.empty()) return;
  first_padding_ = num_pieces();
  for (const auto& text :
       {std::string(" in"), " " + spec_.average + " per", " " + spec_.total + " in", " " + spec_.average_total + " in"})
    add_piece(text);
  for (const auto& list : spec_.padding_places)
    for (const auto& word : list) {
      add_piece(" " + word);
      ++num_padding_places_;
    }
  int num_kinds = 0;
  for (const auto& list : spec_.padding_kinds) {
    padding_list_begins_.push_back(num_kinds);
    for (const auto& word : list) {
      add_piece(" " + word);
      ++num_kinds;
    }
  }
}

void Theme::add_piece(std::string_view text) {
  int tokens = 0;
  for (std::size_t at = 0; at < text.size(); at = word_end(text, at)) ++tokens;
  tokens_.push_back(static_cast<std::uint8_t>(tokens));
  text_.resize(begins_.back());
  text_ += text;
  begins_.push_back(text_.size());
  text_.append(kPieceSlack, ' ');
}

int Theme::name_index(const Problem& problem, NodeId node) const {
  const int place = problem.place_names[place_of(node)];
  const NodeType type = type_of(node);
  const int pairs = num_places_ * num_kinds_;
  if (type == NodeType::kTotal) return 2 * pairs + place;
  if (type == NodeType::kAverageTotal) return 2 * pairs + num_places_ + place;
  const int pair = place * num_kinds_ + problem.kind_name(node);
  return type == NodeType::kCount ? pair : pairs + pair;  // a special has its average's name
}

void Theme::draw_names(Rng& rng, Problem& problem) const {
  int num_kinds = 0;
  for (int p = 0; p < problem.num_places; ++p)
    for (const int kind : problem.kinds_of_place[p]) num_kinds = std::max(num_kinds, kind + 1);
  draw_from(rng, spec_.places, problem.num_places, problem.place_names);
  draw_from(rng, spec_.kinds, num_kinds, problem.kind_names);
}

}  // namespace fastreason
