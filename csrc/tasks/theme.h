// A theme: the words of a problem, as a table of *pieces* that texts and token sequences are put together from.
//
// Every piece begins with a blank or a punctuation mark, so that the tokens of a text are the tokens of its pieces one
// after the other, and a document can be written as token ids without being written as text first.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/philox.h"
#include "tasks/problem.h"

namespace fastreason {

enum class Style : std::uint8_t { kPublished, kSymbolic };

struct ThemeSpec {
  std::string name;
  Style style = Style::kPublished;
  std::vector<std::vector<std::string>> places, kinds;  // sub-lists; a problem takes its names from one of each
  // Published style: noun phrases ("total number of birds"). Symbolic style: letters put behind a name, "" for total.
  std::string total, average, average_total;
  // Published style: the names in padding sentences, again in sub-lists. May be empty: no padding.
  std::vector<std::vector<std::string>> padding_places, padding_kinds;
};

// Pieces that do not depend on the theme's words; piece_text in theme.cpp holds their texts.
enum Piece : int {
  // document
  kQuestionOpen,
  kQuestionClose,
  kSolutionOpen,
  kSolutionClose,
  kAnswerOpen,
  kAnswerClose,
  // both styles
  kDot,
  kAssign,
  kAdd,
  kSubtract,
  kMultiply,
  kOpenParenthesis,
  kCloseParenthesis,
  kQuestionMark,
  // published problem and question
  kThe,
  kTheNumberOf,
  kRefThe,
  kRefTheNumberOf,
  kEquals,
  kPlus,
  kTimes,
  kTheSumOf,
  kTheDifferenceBetween,
  kComma,
  kAnd,
  kExistsCount,
  kExistsAverage,
  kWhatIs,
  kHowMany,
  kDoes,
  kHave,
  // published solution
  kDefine,
  kAs,
  kSemicolon,
  kSo,
  kReversePreamble,
  kUnknownStep,
  kUnknown,
  kBareUnknown,
  kBareMinus,
  kBareTimes,
  kDivide,
  kWeKnow,
  kSoWeHave,
  kSolveIt,
  kMoveTerms,
  kIsolate,
  kDivideBoth,
  kColon,
  kSolutionX,
  // symbolic
  kSpacedQuestionMark,
  kNumFixedPieces
};

class Theme {
 public:
  explicit Theme(ThemeSpec spec);

  const ThemeSpec& spec() const { return spec_; }
  Style style() const { return spec_.style; }

  int num_pieces() const { return static_cast<int>(begins_.size()) - 1; }
  // At least kPieceSlack bytes may be read behind a piece, so that short ones are copied in one go.
  static constexpr std::size_t kPieceSlack = 32;
  std::string_view piece(int id) const {
    const auto i = static_cast<std::size_t>(id);
    return {text_.data() + begins_[i], begins_[i + 1] - begins_[i]};
  }
  int letter_piece(int letter) const { return kNumFixedPieces + letter; }  // 0 .. 51: A .. Z, a .. z
  int place_piece(int place_name) const { return first_place_ + place_name; }
  int kind_piece(int kind_name) const { return first_kind_ + kind_name; }

  // The piece and the hash of a quantity's name in this problem.
  int name_piece(const Problem& problem, NodeId node) const { return first_name_ + name_index(problem, node); }
  // Symbolic style: the name as the subject of a sentence or step, "Ba:"; a word, and so a token, of its own.
  int subject_piece(const Problem& problem, NodeId node) const { return first_subject_ + name_index(problem, node); }
  std::uint64_t name_hash(const Problem& problem, NodeId node) const {
    return name_hashes_[static_cast<std::size_t>(name_index(problem, node))];
  }

  // Tokens of a piece by our tokenizer, where every word is one.
  int piece_tokens(int id) const { return tokens_[static_cast<std::size_t>(id)]; }

  // " in", " AVG per", " TOTAL in", and the words of padding sentences
  int padding_in_piece() const { return first_padding_; }
  int padding_average_piece() const { return first_padding_ + 1; }
  int padding_total_piece(int depth) const { return first_padding_ + depth; }
  int padding_place_piece(int place) const { return first_padding_ + 4 + place; }
  int padding_kind_piece(int kind) const { return first_padding_ + 4 + num_padding_places_ + kind; }
  // The first kind of a sub-list of padding_kinds.
  int padding_list_begin(int list) const { return padding_list_begins_[static_cast<std::size_t>(list)]; }

  // One sub-list of places and one of kinds, and from each as many names as the problem needs, in random order.
  void draw_names(Rng& rng, Problem& problem) const;

 private:
  int name_index(const Problem& problem, NodeId node) const;
  void add_piece(std::string_view text);
  void add_names();
  void add_padding();

  ThemeSpec spec_;
  std::string text_;  // all pieces, one after the other
  std::vector<std::size_t> begins_{0};
  std::vector<std::uint8_t> tokens_;
  std::vector<std::uint64_t> name_hashes_;
  int num_places_ = 0, num_kinds_ = 0;
  int first_place_ = 0, first_kind_ = 0, first_name_ = 0, first_subject_ = 0, first_padding_ = 0;
  int num_padding_places_ = 0;
  std::vector<int> padding_list_begins_;
};

}  // namespace fastreason
