#include "grade/solved_equation.h"

#include "grade/plain_part.h"

namespace fastreason {

namespace {

// Reads a text from left to right; after the first thing that is not there every further one fails.
class Line {
 public:
  Line(std::string_view text, double answer) : text_(text), answer_(answer) {}

  // `words` with any blanks where it has one, and any around it.
  Line& words(std::string_view words) {
    const std::size_t end = phrase_end(text_, skip_blanks(text_, at_), words);
    ok_ = ok_ && end != std::string_view::npos;
    if (ok_) at_ = end;
    return *this;
  }

  Line& letter() {
    at_ = skip_blanks(text_, at_);
    ok_ = ok_ && at_ < text_.size();
    at_ += ok_ ? 1 : 0;
    return *this;
  }

  // An expression in x of exactly this form.
  Line& form(const Quantity& wanted) {
    const std::size_t end = ok_ ? match_value(text_, at_, wanted) : std::string_view::npos;
    if (end < text_.size() && std::string_view("+-*/(").find(text_[end]) == std::string_view::npos) {
      at_ = end;
      return *this;
    }
    Quantity found;
    ok_ = ok_ && read(found) && same_form(found, wanted);
    return *this;
  }

  Line& number(double& value) {
    Quantity found;
    ok_ = ok_ && read(found) && found.slope == 0.0;
    value = found.constant;
    return *this;
  }

  bool ok() const { return ok_; }
  std::size_t at() const { return at_; }

 private:
  bool read(Quantity& found) {
    auto lookup = [&](std::string_view name, Quantity& x) {
      x = Quantity::unknown(answer_);
      return name == "x";
    };
    ExpressionReader<Quantity, decltype(lookup)> reader(text_, at_, lookup);
    if (!reader.read(found)) return false;
    at_ = reader.at();
    return true;
  }

  std::string_view text_;
  double answer_;
  std::size_t at_ = 0;
  bool ok_ = true;
};

}  // namespace

std::size_t check_solved_equation(std::string_view text, const Quantity& left, double answer, double& told) {
  Line line(text, answer);
  line.words("We know").letter().words("=").number(told);
  if (!line.ok()) return 0;
  const Quantity right = Quantity::number(told), x = Quantity::unknown(answer);
  const Quantity slope = Quantity::number(left.slope), rest = Quantity::number(told - left.constant);
  line.words(", so we have").form(left).words("=").form(right);
  line.words("and we solve it through the following steps: Simplifying the equation:")
      .form(left)
      .words("=")
      .form(right);
  line.words(". Move all terms to one side:").form(left - right).words("=").form(Quantity::number(0.0));
  line.words(". Isolate the term with x:").form(slope * x).words("=").form(rest);
  line.words(". Divide both sides by").form(slope).words(":").form(x).words("=").form(rest / slope);
  line.words(". Solution: x =").form(Quantity::number(answer)).words(".");
  return line.ok() && left.slope != 0.0 && left.slope * answer == rest.constant ? line.at() : 0;
}

}  // namespace fastreason
