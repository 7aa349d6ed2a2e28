#include "text/pattern.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>

#include "text/unicode_ranges.h"

namespace fastreason {

namespace {

constexpr int kUnlimited = std::numeric_limits<int>::max();
constexpr std::size_t kMaxOps = 10'000, kMaxAlternatives = 64, kMaxSource = 1 << 16;
constexpr int kMaxDepth = 50;

template <std::size_t N>
CharSet set_of(const std::uint32_t (&ranges)[N][2]) {
  CharSet out;
  for (const auto& range : ranges) out.add(range[0], range[1]);
  return out;
}

CharSet blanks() {
  static constexpr std::uint32_t kRanges[][2] = {{0x09, 0x0D},     {0x20, 0x20},     {0x85, 0x85},     {0xA0, 0xA0},
                                                 {0x1680, 0x1680}, {0x2000, 0x200A}, {0x2028, 0x2029}, {0x202F, 0x202F},
                                                 {0x205F, 0x205F}, {0x3000, 0x3000}};
  return set_of(kRanges);
}

CharSet single(std::uint32_t code) {
  CharSet out;
  out.add(code, code);
  return out;
}

}  // namespace

// Recursive descent straight to code; jumps are relative, so a fragment can be copied for a repetition.
class PatternParser {
 public:
  PatternParser(std::string_view source, Pattern& out) : source_(source), out_(out) {}

  void parse() {
    if (source_.size() > kMaxSource) {
      source_ = source_.substr(0, 40);  // of the message
      refuse("more than 65536 bytes");
    }
    const auto alternatives = parse_alternatives(0);
    if (at_ < source_.size()) refuse("')' without '('");
    if (alternatives.size() > kMaxAlternatives) refuse("more than 64 alternatives");
    for (auto& set : out_.sets_) set = set.sorted();
    for (std::size_t i = 0; i < alternatives.size(); ++i) {
      out_.starts_.push_back(static_cast<int>(out_.ops_.size()));
      Fragment code = alternatives[i];
      code.push_back({.kind = Kind::kMatch});
      if (visit_starts(code, [&](const Op& op) { add_candidate(i, out_.sets_[index(op.set)]); }))
        refuse("an alternative that matches the empty text");
      settle_runs(code);
      out_.ops_.insert(out_.ops_.end(), code.begin(), code.end());
    }
  }

 private:
  using Op = Pattern::Op;
  using Kind = Pattern::Kind;
  using Fragment = std::vector<Op>;

  static std::size_t index(int i) { return static_cast<std::size_t>(i); }
  static int length(const Fragment& code) { return static_cast<int>(code.size()); }

  [[noreturn]] void refuse(const std::string& what) const {
    throw std::invalid_argument("regular expression: " + what + " is not supported (at byte " + std::to_string(at_) +
                                " of " + std::string(source_.substr(0, 200)) + ")");
  }

  bool next_is(std::string_view text) const { return source_.substr(at_).starts_with(text); }
  bool take(std::string_view text) {
    if (!next_is(text)) return false;
    at_ += text.size();
    return true;
  }
  std::uint32_t take_char() {
    if (at_ >= source_.size()) refuse("an end in the middle of an expression");
    const Utf8Char found = char_at(source_, at_);
    at_ += found.size;
    return found.code;
  }

  // --- expressions ------------------------------------------------------------------------------------------------

  std::vector<Fragment> parse_alternatives(int depth) {
    if (depth > kMaxDepth) refuse("nesting deeper than 50");
    std::vector<Fragment> found(1);
    std::size_t size = 0;
    while (at_ < source_.size() && !next_is(")")) {
      if (take("|")) {
        size += found.back().size() + 2;  // a choice adds two ops
        found.emplace_back();
      } else {
        append(found.back(), parse_repeated(depth));
      }
      if (size + found.back().size() > kMaxOps) refuse("so long an expression");
    }
    return found;
  }

  void append(Fragment& code, const Fragment& more) const {
    code.insert(code.end(), more.begin(), more.end());
    if (code.size() > kMaxOps) refuse("so long an expression");
  }

  Fragment parse_repeated(int depth) {
    Fragment atom = parse_atom(depth);
    const auto range = take_quantifier();
    if (!range) return atom;
    const bool one_char = atom.size() == 1 && atom[0].kind == Kind::kRun && atom[0].min == 1 && atom[0].max == 1;
    if (next_is("?")) refuse("lazy repetition");
    if (interval_ && (next_is("+") || next_is("*"))) refuse("repetition of a repetition");
    const bool possessive = !interval_ && take("+");
    if (next_is("*") || next_is("?") || next_is("+")) refuse("repetition of a repetition");
    if (one_char) {
      atom[0].min = range->first;
      atom[0].max = range->second;
      atom[0].flag = possessive;
      return atom;
    }
    if (possessive) refuse("possessive repetition of a group");
    return repeat(atom, range->first, range->second);
  }

  std::optional<std::pair<int, int>> take_quantifier() {
    interval_ = false;
    if (take("*")) return std::pair{0, kUnlimited};
    if (take("+")) return std::pair{1, kUnlimited};
    if (take("?")) return std::pair{0, 1};
    // {m}, {m,}, {,n} or {m,n}; any other brace is a character
    std::size_t at = at_;
    if (at >= source_.size() || source_[at++] != '{') return std::nullopt;
    const auto number = [&]() -> std::optional<int> {
      const std::size_t begin = at;
      int value = 0;
      for (; at < source_.size() && source_[at] >= '0' && source_[at] <= '9'; ++at)
        value = std::min(10 * value + (source_[at] - '0'), 1000);
      return at > begin ? std::optional(value) : std::nullopt;
    };
    const auto low = number();
    const bool comma = at < source_.size() && source_[at] == ',';
    const auto high = comma ? (++at, number()) : low;
    if (at >= source_.size() || source_[at] != '}' || (!low && !high)) return std::nullopt;
    at_ = at + 1;
    interval_ = true;
    const std::pair range{low.value_or(0), high.value_or(kUnlimited)};
    if (range.first > range.second || range.first >= 1000) refuse("such an interval");
    return range;
  }

  Fragment repeat(const Fragment& atom, int min, int max) const {
    if (max == kUnlimited && visit_starts(atom, [](const Op&) {})) refuse("endless repetition of what may be empty");
    Fragment code;
    for (int i = 0; i < min; ++i) append(code, atom);
    if (max == kUnlimited) {
      code.push_back({.kind = Kind::kSplit, .first = 1, .second = length(atom) + 2});
      append(code, atom);
      code.push_back({.kind = Kind::kJump, .first = -length(atom) - 1});
      return code;
    }
    for (int i = min; i < max; ++i) {
      code.push_back({.kind = Kind::kSplit, .first = 1, .second = (max - i) * (length(atom) + 1)});
      append(code, atom);
    }
    return code;
  }

  static Fragment choice(const std::vector<Fragment>& alternatives) {
    Fragment code = alternatives.back();
    for (std::size_t i = alternatives.size() - 1; i-- > 0;) {
      const Fragment& first = alternatives[i];
      Fragment both = {{.kind = Kind::kSplit, .first = 1, .second = length(first) + 2}};
      both.insert(both.end(), first.begin(), first.end());
      both.push_back({.kind = Kind::kJump, .first = length(code) + 1});
      both.insert(both.end(), code.begin(), code.end());
      code = std::move(both);
    }
    return code;
  }

  Fragment parse_atom(int depth) {
    if (next_is("*") || next_is("+") || next_is("?")) refuse("a repetition of nothing");
    if (next_is("^") || next_is("$")) refuse("an anchor");
    if (take("(")) return parse_group(depth);
    if (take("[")) return one_of(parse_class(depth));
    if (take(".")) return one_of(single('\n').complement());
    if (take("\\")) return one_of(parse_escape());
    return one_of(single(take_char()));
  }

  Fragment one_of(CharSet set) {
    out_.sets_.push_back(std::move(set));
    return {{.kind = Kind::kRun, .set = static_cast<int>(out_.sets_.size()) - 1, .min = 1, .max = 1}};
  }

  Fragment parse_group(int depth) {
    enum { kPlain, kAhead, kBehind } kind = kPlain;
    bool negative = false;
    if (take("?<=") || (negative = take("?<!")))
      kind = kBehind;
    else if (take("?=") || (negative = take("?!")))
      kind = kAhead;
    else if (!take("?:") && next_is("?"))
      refuse("a group '(" + std::string(source_.substr(at_, 3)) + "'");
    Fragment body = choice(parse_alternatives(depth + 1));
    if (!take(")")) refuse("'(' without ')'");
    if (kind == kPlain) return body;
    if (kind == kBehind) {
      if (body.size() != 1 || body[0].kind != Kind::kRun || body[0].min != 1 || body[0].max != 1)
        refuse("a lookbehind by other than one character");
      return {{.kind = Kind::kBehind, .flag = negative, .set = body[0].set}};
    }
    body.push_back({.kind = Kind::kMatch});
    body.insert(body.begin(), Op{.kind = Kind::kLook, .flag = negative, .first = length(body) + 1});
    return body;
  }

  // --- characters -------------------------------------------------------------------------------------------------

  // Behind "[", up to and including "]".
  CharSet parse_class(int depth) {
    if (depth > kMaxDepth) refuse("nesting deeper than 50");
    const bool negative = take("^");
    CharSet set;
    if (next_is("]")) refuse("an empty class");
    while (!take("]")) {
      if (next_is("&&")) refuse("an intersection of classes");
      if (next_is("[:")) refuse("a class by name");
      if (take("[")) {
        set.add(parse_class(depth + 1));
        continue;
      }
      std::uint32_t first = 0;
      if (take("\\")) {
        const auto code = parse_escaped_char();
        if (!code) {
          set.add(parse_escape());
          continue;
        }
        first = *code;
      } else {
        first = take_char();
      }
      std::uint32_t last = first;
      if (next_is("-") && !next_is("-]")) {
        ++at_;
        if (next_is("[")) refuse("a range that ends in a class");
        const bool escaped = take("\\");
        const auto code = escaped ? parse_escaped_char() : take_char();
        if (!code || *code < first) refuse("such a range");
        last = *code;
      }
      set.add(first, last);
    }
    return negative ? set.complement() : set;
  }

  // Behind "\": one character, or nothing if it names a class of characters.
  std::optional<std::uint32_t> parse_escaped_char() {
    if (next_is("s") || next_is("S") || next_is("p") || next_is("P")) return std::nullopt;
    const std::uint32_t code = take_char();
    switch (code) {
      case 'n':
        return '\n';
      case 'r':
        return '\r';
      case 't':
        return '\t';
      case 'f':
        return '\f';
      case 'x':
        return take("{") ? parse_hex(1, 8, "}") : parse_hex(2, 2, "");
      case 'u':
        return parse_hex(4, 4, "");
      default:
        break;
    }
    const bool word = code < 0x80 && ((code >= '0' && code <= '9') || ((code | 0x20) >= 'a' && (code | 0x20) <= 'z'));
    if (word) refuse("\\" + std::string(1, static_cast<char>(code)));
    return code;
  }

  std::uint32_t parse_hex(int min, int max, std::string_view end) {
    std::uint32_t code = 0;
    int digits = 0;
    for (; digits < max && at_ < source_.size(); ++digits, ++at_) {
      const std::size_t digit = std::string_view("0123456789abcdef").find(static_cast<char>(source_[at_] | 0x20));
      if (digit == std::string_view::npos) break;
      code = code << 4 | static_cast<std::uint32_t>(digit);
    }
    if (digits < min || !take(end) || code > 0x10FFFF) refuse("such a hexadecimal character");
    return code;
  }

  CharSet parse_escape() {
    if (const auto code = parse_escaped_char()) return single(*code);
    if (take("s")) return blanks();
    if (take("S")) return blanks().complement();
    const bool negative = next_is("P");
    ++at_;
    if (take("{L}")) return negative ? set_of(kLetterRanges).complement() : set_of(kLetterRanges);
    if (take("{N}")) return negative ? set_of(kNumberRanges).complement() : set_of(kNumberRanges);
    refuse("a property other than {L} and {N}");
  }

  // --- what the code does -----------------------------------------------------------------------------------------

  // Calls body for every run that may read the first character; true if the fragment may match the empty text.
  template <class Body>
  static bool visit_starts(const Fragment& code, Body&& body) {
    std::vector<int> open = {0};
    std::vector<bool> seen(code.size() + 1);
    bool empty = false;
    while (!open.empty()) {
      const int at = open.back();
      open.pop_back();
      if (seen[index(at)]) continue;
      seen[index(at)] = true;
      if (at == length(code) || code[index(at)].kind == Kind::kMatch) {
        empty = true;
        continue;
      }
      const Op& op = code[index(at)];
      if (op.kind == Kind::kRun && op.max > 0) body(op);
      if (op.kind == Kind::kSplit) open.push_back(at + op.second);
      if (op.kind == Kind::kSplit || op.kind == Kind::kJump || op.kind == Kind::kLook)
        open.push_back(at + op.first);
      else if (op.kind == Kind::kBehind || op.min == 0)
        open.push_back(at + 1);
    }
    return empty;
  }

  void add_candidate(std::size_t alternative, const CharSet& set) {
    const bool beyond_ascii = set.holds_any_from(0x80);
    for (std::size_t byte = 0; byte < 256; ++byte)
      if (byte < 0x80 ? set.contains(static_cast<std::uint32_t>(byte)) : beyond_ascii)
        out_.candidates_[byte] |= std::uint64_t{1} << alternative;
  }

  // A run need not give back what the op behind it could not read either.
  void settle_runs(Fragment& code) const {
    for (std::size_t i = 0; i + 1 < code.size(); ++i) {
      if (code[i].kind != Kind::kRun) continue;
      const Op& next = code[i + 1];
      const bool reads_other =
          next.kind == Kind::kRun && next.min > 0 && !out_.sets_[index(code[i].set)].meets(out_.sets_[index(next.set)]);
      if (reads_other || next.kind == Kind::kMatch) code[i].flag = true;
    }
  }

  std::string_view source_;
  Pattern& out_;
  std::size_t at_ = 0;
  bool interval_ = false;  // whether the last quantifier was written in braces
};

Pattern::Pattern(std::string_view source) { PatternParser(source, *this).parse(); }

void Pattern::Search::take(std::uint64_t steps) {
  if (steps > steps_left)
    throw std::runtime_error(
        "regular expression: it goes back and forth over this text without end, as (a+)+b does over aaaa; the pattern "
        "of "
        "the tokenizer must be written so that it does not");
  steps_left -= steps;
}

std::size_t Pattern::match(std::string_view text, std::size_t at, Search& search) const {
  std::uint64_t candidates = candidates_[static_cast<unsigned char>(text[at])];
  for (; candidates != 0; candidates &= candidates - 1) {
    const auto start = starts_[static_cast<std::size_t>(std::countr_zero(candidates))];
    if (const std::size_t end = run(start, text, at, search); end != kNone) return end;
  }
  return kNone;
}

// As many characters as there are up to op.max; kNone if fewer than op.min. `least`: the end of the first op.min.
std::size_t Pattern::repeat(const Op& op, std::string_view text, std::size_t at, std::size_t& least,
                            Search& search) const {
  const CharSet& set = sets_[static_cast<std::size_t>(op.set)];
  int count = 0;
  for (; count < op.max && at < text.size(); ++count) {
    if (count == op.min) least = at;
    const auto byte = static_cast<unsigned char>(text[at]);
    const Utf8Char found = byte < 0x80 ? Utf8Char{byte, 1} : char_at(text, at);
    if (!set.contains(found.code)) break;
    at += found.size;
  }
  search.take(static_cast<std::uint64_t>(count));
  if (count <= op.min) least = at;
  return count < op.min ? kNone : at;
}

std::size_t Pattern::run(int op_index, std::string_view text, std::size_t at, Search& search) const {
  std::vector<Frame>& stack = search.stack;
  const std::size_t base = stack.size();
  for (;;) {
    search.take(1);
    search.next_op();
    const Op& op = ops_[static_cast<std::size_t>(op_index)];
    bool failed = false;
    switch (op.kind) {
      case Kind::kMatch:
        stack.resize(base);
        return at;
      case Kind::kRun: {
        std::size_t least = at;
        const std::size_t end = repeat(op, text, at, least, search);
        failed = end == kNone;
        if (failed) break;
        ++op_index;
        if (!op.flag && end > least) stack.push_back({op_index, char_before(text, end), least});
        at = end;
        break;
      }
      case Kind::kSplit:
        stack.push_back({op_index + op.second, at, at});
        op_index += op.first;
        break;
      case Kind::kJump:
        op_index += op.first;
        break;
      case Kind::kLook:
        failed = (run(op_index + 1, text, at, search) != kNone) == op.flag;
        op_index += op.first;
        break;
      case Kind::kBehind: {
        const CharSet& set = sets_[static_cast<std::size_t>(op.set)];
        failed = (at > 0 && set.contains(char_at(text, char_before(text, at)).code)) == op.flag;
        ++op_index;
        break;
      }
    }
    if (!failed) continue;
    if (stack.size() == base) return kNone;
    const Frame frame = stack.back();
    stack.pop_back();
    if (frame.at > frame.least) stack.push_back({frame.op, char_before(text, frame.at), frame.least});
    op_index = frame.op;
    at = frame.at;
  }
}

}  // namespace fastreason
