"""The released scorer in Python: its recorded verdicts, its rules, its header expression, hostile texts."""

import random
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastreason as fr
from fastreason.grading import released
from fastreason.grading.released import Score, evaluate, released_verdicts

GOLD = (
    "Define red kite in Alder Field as q; so q = 2. Define grey owl in Alder Field as B; m = q = 2; so B = 3 + m = 3 + "
    "2 = 5. Define total number of birds in Alder Field as T; so T = q + B = 2 + 5 = 7. Answer: 7."
)
LISTS = ("missing", "extra", "wrong_value", "wrong_parents")


def score(gold: str | bytes, completion: str | bytes) -> Score:
    (found,) = released.score([gold], [completion])
    return found


def steps_of(text: str | bytes) -> list[tuple[str, float | None, list[str]]]:
    return [(name, step.value, sorted(step.parents)) for name, step in released.read(text).steps]


# --- the recorded verdicts of the released scorer -------------------------------------------------------------------


@pytest.mark.parametrize("level, num_rows", [("medium", 13680), ("hard", 2736)])
def test_every_reference_row_is_scored_alike(reference, level, num_rows):
    problems, rows = reference(f"problems_{level}.jsonl.gz"), reference(f"verdicts_{level}.jsonl.gz")
    assert len(rows) == num_rows
    verdicts = released.score([problems[row["row"]]["solution"] for row in rows], [row["completion"] for row in rows])
    for row, got in zip(rows, verdicts, strict=True):
        blend = 0.2 * got.outcome + 0.8 * got.process_reward if got.outcome else 0.0
        want = {
            "num_gold": row["gold_steps"],
            "num_predicted": row["pred_steps"],
            "outcome": row["outcome_reward"],
            **{key: row[key] for key in (*LISTS, "answer", "answer_mismatch", "verified")},
        }
        assert {key: getattr(got, key) for key in want} == want, row
        shares = (got.process_accuracy, got.process_reward, blend, blend if got.penalty == 0 else 0.0)
        names = ("process_accuracy", "process_reward", "blend_0p2_0p8", "strict")
        assert shares == pytest.approx([row[name] for name in names], abs=1e-6), row


# --- headers --------------------------------------------------------------------------------------------------------

# the released program's own expression, which takes quadratic time
HEADER = re.compile(r"Define\s+(.*?)\s+(?:as|a)\s+(?:[A-Za-z]+\s+)*([A-Za-z]);", re.IGNORECASE | re.DOTALL)


def assert_headers_are_those_of_the_expression(text: str) -> None:
    want = [(match.start(), match.end(), match[1], match[2]) for match in HEADER.finditer(text)]
    assert [tuple(header) for header in released.headers(text)] == want, repr(text)


# pieces of headers, names, assignments, tags and numbers, with the characters that Python classes in odd ways
PIECES = [
    *("Define ", "define", "Define\n", "redEfine ", "Def\u0130ne ", "Def\u0131ne\u00a0"),
    *(" as ", " a ", " AS\t", "a\u017f ", "red kite", "b", "x", "q;", "\u212a;", " \u017f;", "T;", " q ;"),
    *(";", "; ", ".", ". ", " ", "  ", "\u2003", "\x1c", "=", " = ", "q =", "so T = ", "m = 2", "m + q", "x"),
    *(" + ", " * ", "(", ")", "-", "/", "//", "**", "3", "007", "1.5", "\u0663", "\uff11", "\u00b2", "_", "\ufffd"),
    *("\ufffd ", "\u00e9", "\u00e9Define ", "we don't know", "<", ">", "<>", "<solution>", "\u0130"),
    *("Answer: ", "answer:", "<answer>", "<ANSWER> ", "<an\u017fwer>", "</answer>"),
    *("Define red kite as q; so q = 2. ", "Define b as T; so T = q + 1 = 3. ", "Define x a unit y; x = 2; y = x * q. "),
]
fragments = st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=3)), max_size=40).map("".join)


@given(text=fragments)
def test_headers_of_any_text_are_those_of_the_expression(text):
    assert_headers_are_those_of_the_expression(text)


def test_headers_of_many_random_texts_are_those_of_the_expression():
    rng = random.Random(0)
    parts = [*PIECES[:32], *("as", "a", " ", "  ", "q;", "b ", "Define", "Define\u00a0", "a\u017f", "1")]
    for _ in range(20_000):
        assert_headers_are_those_of_the_expression("".join(rng.choices(parts, k=rng.randrange(12))))


@given(gold=st.one_of(fragments, st.binary(max_size=60)), completion=st.one_of(fragments, st.binary(max_size=60)))
def test_any_text_has_a_score(gold, completion):
    for found in (score(gold, completion), score(GOLD, completion)):
        assert 0 <= found.process_accuracy <= 1 and 0 <= found.process_reward <= 1 and found.outcome in (0, 1)
        assert not found.verified or not found.missing


@pytest.mark.parametrize("theme", ["zoo", "school", "festival"])
def test_forward_solutions_are_verified_against_themselves(theme):
    mixture = fr.Mixture.uniform(op=range(2, 21), themes=[theme], modes=["forward"], depths=[2, 3])
    batch = fr.TaskStream(mixture, seed=4)[0:200]
    documents = [document.removeprefix(prompt) for document, prompt in zip(batch.documents, batch.prompts, strict=True)]
    for found in released.score(batch.solutions, documents):
        assert found.verified and found.process_reward == found.outcome == 1 and found.penalty == 0


# --- the rules, one by one ------------------------------------------------------------------------------------------


TWO_PARENTS = [("b", 2, []), ("c", 3, []), ("d", 3, ["b", "c"])]
LARGE = 9999999999999998.0


@pytest.mark.parametrize(
    "text, steps",
    [
        # a header without letter is swallowed; what follows the last "Define" is the name
        ("Define red kite as qq; Define b as q; q = 2.", [("b", 2, [])]),
        # the name ends at the first "as" or "a" from which words of letters alone lead to one letter
        ("Define a b as 2 a b as the q; q = 2.", [("a b as 2", 2, [])]),
        ("Define a b as c as q; q = 2.", [("a b", 2, [])]),
        # no word boundary is asked for before "Define" of a header, but one is within a name
        ("undefine b as q; q = 2. Define unDefine c as T; T = 3.", [("b", 2, []), ("unDefine c", 3, [])]),
        # the name may be empty, where two blanks stand before "as" and no later header fits
        ("Define  as q; q = 2.", [("", 2, [])]),
        ("Define as q; q = 2.", []),
        ("Define  as q; q = 2. Define b as T; T = 3.", [("b", 3, [])]),
        # blanks of a name are one; replacement characters go afterwards and may leave two
        ("Define b\n\u2003c \ufffd d. as q; q = 2.", [("b c  d", 2, [])]),
        # the letter of the header must touch the semicolon
        ("Define b as q ; q = 2.", []),
        # the body ends at "Answer:"
        ("Define b as q; q = 2. Answer: 5. q = 3.", [("b", 2, [])]),
        # the target is the last letter of a word, the value what stands behind the last sign
        ("Define b as q; seq == = 5.", [("b", 5, [])]),
        # letters within words are parents, those of an intermediate and of an earlier step both
        (
            "Define b as q; q = 2. Define c as m; m = 3. Define d as T; m = q + 1; T = m.",
            TWO_PARENTS,
        ),
        # several assignments to one intermediate, or to the step's own letter, add their parents up
        (
            "Define b as q; q = 2. Define c as m; m = 3. Define d as T; k = q; k = m; T = k.",
            TWO_PARENTS,
        ),
        ("Define b as q; q = 2. Define d as T; T = quit; T = 4.", [("b", 2, []), ("d", 4, ["b"])]),
        # the last number of the body, decimals and all, where no assignment gives a value
        ("Define b as q; it is 2 or -3.5 kg; q = k.", [("b", -3.5, [])]),
        ("Define b as q; 1.2.3.4 then none", [("b", 3.4, [])]),
        ("Define b as q; 1.2.3.4.5 then none", [("b", 5, [])]),
        # an assignment without value leaves the value of an earlier one
        ("Define b as q; q = 2; q = k.", [("b", 2, [])]),
        # intermediates are known in later steps as values, not as parents
        ("Define b as q; m = 4; q = 2. Define c as T; T = m.", [("b", 2, []), ("c", 4, [])]),
        # known values as Python writes them: 2.5, but 1e+16
        ("Define b as q; 2.5. Define c as T; T = q * 2 = q * 2.", [("b", 2.5, []), ("c", 5, ["b"])]),
        ("Define b as q; q = 10000000000000000. Define c as T; T = q - 7.", [("b", 1e16, []), ("c", 7, ["b"])]),
        (
            "Define b as q; q = 9999999999999998. Define c as T; T = q - 7.",
            [("b", LARGE, []), ("c", LARGE - 7, ["b"])],
        ),
        # second pass: in order of the text, the last final part first, else the value of the letter
        ("Define b as q; q = k; q = m. Define c as k; k = 3.", [("b", 3, []), ("c", 3, [])]),
        ("Define b as q; none. Define c as k; q = 9; k = 3.", [("b", 9, []), ("c", 3, ["b"][:0])]),
        # "<" to ">" goes, whatever is between, but "<>" stays
        ("Define b as q; q = 2 < 3. Define c as k; > + 1.", [("b", 3, [])]),
        ("Define b <> c as q; q = 2.", [("b <> c", 2, [])]),
    ],
)
def test_steps_are_read_by_the_rules(text, steps):
    assert steps_of(text) == steps


@pytest.mark.parametrize(
    "text, answer, outcome",
    [
        ("<answer>7</answer>", 7, 1),
        ("<ANSWER>\n+7.0 </answer>", 7, 0),  # a number to one score, another string to the other
        ("<answer> 7. </answer>", 7, 1),
        ("<answer> 7 . </answer>", 7, 0),  # blanks go first, full stops then
        ("<answer> 7", 7, 1),
        ("<answer> 7\n8", 7, 1),
        ("<answer> 7 </solution>", 7, 1),
        ("<answer> 8 <answer> 7", 8, 1),  # the first number, the last open tag
        ("<answer> 8 </answer> <answer> 7 </answer>", 8, 0),
        ("<answer> none <answer> 7 </answer>", 7, 0),
        ("Answer: 7", 7, 0),
        ("answer: 7", None, 0),
        ("<answer> x </answer> Answer: 7", 7, 0),
        ("<answer>\u0667</answer>", 7, 0),  # an Arabic seven
        ("<an\u017fwer>7</answer>", 7, 1),  # the long s is an s to who ignores case
        ("<an\u017fwer>7", 7, 0),  # but not in lower case
        ("\u0130<answer>17", 17, 1),  # the text in lower case has one more character: the answer is cut there
        ("", None, 0),
    ],
)
def test_answers_are_read_by_the_rules(text, answer, outcome):
    got = score(GOLD, text)
    assert (got.answer, got.outcome, got.answer_mismatch) == (answer, outcome, answer != 7)


@pytest.mark.parametrize(
    "gold, completion, outcome",
    [
        ("b Answer: 7. More.", "<answer>7. More</answer>", 1),
        ("b ANSWER:\n\n 7 . \nAnswer: 8.", "<answer>7</answer>", 1),  # the first line of the first one
        ("b Answer: 7 <x>", "<answer>7</answer>", 1),
        ("b <answer>8.</answer> Answer: 7", "<answer>8</answer>", 1),
        ("b <answer></answer> Answer: 7", "<answer>7</answer>", 0),  # an empty answer is equal to none
        ("b <answer></answer>", "<answer></answer>", 0),
        ("b", "", 0),
    ],
)
def test_gold_answers_are_read_by_the_rules(gold, completion, outcome):
    assert score(gold, completion).outcome == outcome


@pytest.mark.parametrize(
    "gold, completion, penalty, process_reward, process_accuracy, verified",
    [
        (GOLD, GOLD, 0, 1, 1, True),
        (GOLD, "", 4, 0, 0, False),  # three steps and the answer
        (GOLD, "Answer: 7.", 3, 0, 0, False),
        (GOLD, GOLD.replace("q = 2", "q = 3", 1), 1, 2 / 3, 2 / 3, False),
        # wrong in value and in parents costs two there, one here
        (GOLD, GOLD.replace("T = q + B = 2 + 5 = 7", "T = B = 8"), 2, 1 / 3, 2 / 3, False),
        # extra steps cost there, at most as many as the gold steps
        (GOLD, "Define z as z; z = 1. " * 3 + GOLD, 1, 2 / 3, 1, True),
        (GOLD, "".join(f"Define {c} as z; z = 1. " for c in "ghijk") + GOLD, 3, 0, 1, True),
        # without gold steps nothing can be wrong but the answer
        ("Answer: 7.", "Answer: 7. Define z as z; z = 1.", 1, 0, 1, True),
        ("Answer: 7.", "Answer: 8.", 1, 0, 1, False),
        # without any gold text the process is the outcome, here 0
        (" \u2003", GOLD, 2, 0, 1, False),
    ],
)
def test_scores_are_counted_by_the_rules(gold, completion, penalty, process_reward, process_accuracy, verified):
    got = score(gold, completion)
    assert (got.penalty, got.verified) == (penalty, verified)
    assert got.process_reward == pytest.approx(process_reward)
    assert got.process_accuracy == pytest.approx(process_accuracy)


KNOWN = "Define b as x; x = -3. Define c as y; 2.5. Define d as T; T = "


@pytest.mark.parametrize(
    "expression, value",
    [
        ("7 / 2", 3.5),
        ("-7 // 2", -4),
        ("7 // -2", -4),
        ("-x // 2", 1),
        ("y // -0 + 4", 4),  # division by zero: the last number
        ("(1\n+\r\n2)", 3),
        ("1\n+ 2", 2),
        ("00 - 1", -1),
        ("1 - 007", 7),
        ("1 - 2(3)", 3),
        ("() * 5", 5),
        ("2 x", -1),  # 2 -3.0
        ("7 x // 2", 6),  # 7 - 3.0 // 2
        ("y x * (x x)", 20.5),
        ("2 y", 2),
        ("2 ** 3", 3),  # powers are refused
        ("1 + 2\u00a0", 3),  # a blank beyond ASCII at an end is none
        ("1\u00a0+ 2", 2),
        ("1 + \v2", 2),
        ("1 +\f2", 3),
        ("12345678901234567890 - 12345678901234567889", 1),
        ("12345678901234567890 * 9876543210 // 9876543211", float(12345678901234567890 * 9876543210 // 9876543211)),
        ("9007199254740993 + 0", 9007199254740992.0),  # halves to even
        ("9007199254740995 + 0", 9007199254740996.0),
        ("1" + "0" * 400 + " -1", -1),  # no float holds it: refused
        ("1" + "0" * 400, np.inf),  # but as the last number written it is infinite
        ("(" * 200 + "1 + 1" + ")" * 200, 2),
        ("(" * 201 + "1 + 3" + ")" * 201, 3),
        ("-" * 100 + "5 + 1", 6),
    ],
)
def test_expressions_have_pythons_value(expression, value):
    assert steps_of(KNOWN + expression + ";")[2][1] == value


@pytest.mark.parametrize("expression", ["1 + " * 249 + "1", "-" * 999 + "1", "1 - " * 200 + "(-" * 40 + "1" + ")" * 40])
def test_the_value_of_a_long_expression_does_not_depend_on_who_asks(expression):
    def from_deep(frames: int) -> float | None:
        return evaluate(expression, {}) if frames == 0 else from_deep(frames - 1)

    assert from_deep(0) == from_deep(500) == eval(expression)
    assert evaluate(expression + " " * 1000 + "+ 1", {}) is None


# --- any input ------------------------------------------------------------------------------------------------------

MEGABYTE = 1 << 20
HOSTILE = [
    "(" * MEGABYTE,
    "Define " * 150_000,
    "Define x " + "Define " * 150_000 + "as q; q = 2.",
    "Define " + " " * MEGABYTE + "as q; q = 2.",
    "Define b " + "as a " * 200_000 + "q; q = 2.",
    "Define b as q; q = (" + "(" * 500_000,
    "Define b as q; q = " + "-" * MEGABYTE + "1.",
    "Define b as q; q = " + "1+" * 500_000 + "1.",
    "Define b as q; q = " + "9" * MEGABYTE + ".",
    "Define b as q; q = " + "1" * 300 + "//7654321987654321" * 60_000 + ".",
    "Define b as q; " + "q = (" + ")+(".join(["7" * 300 + "/" + "3" * 200] * 2000) + ").",
    "Define b as q; q = 8" + "*4294967297//4294967297" * 40_000 + ".",
    "x as q; " * 130_000,
    "Define b as q; " * 60_000,
    "Define b as q; q = k. " * 40_000,
    "Define b as q; " + "q = k. " * 140_000,
    "Define b as q; " + "q = " * 250_000,
    "Define b as q; " + "1." * 500_000,
    "Define b as q; " + "".join(f"Define name {i} as q; q = {i}. " for i in range(30_000)),
    "<answer>" * 120_000,
    "<answer> " + "<" * MEGABYTE,
    "<" * MEGABYTE,
    "<>" * 500_000,
    "Answer: " * 120_000,
    "a " * 500_000 + ";",
    "Define a " + "a " * 500_000 + ";",
    ";" * MEGABYTE,
    "= " * 500_000,
    "Define b as q; " + "= " * 500_000,
    "\x00" * MEGABYTE,
    b"\xff" * MEGABYTE,
    b"Define b as q; q = \xe2\x84" * 50_000,
    "\u0130" * 500_000 + "<answer>7",
    "Define b as q; q = " + "\u0663" * 500_000,
    "Define b " + "\ufffd " * 250_000 + "as q; q = 2.",
    "\u2003" * 350_000,
]


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: ascii(text[:24]))
def test_a_megabyte_of_hostile_text_takes_no_quadratic_time(text):
    # a second at most; one quadratic step would take hours
    first, _ = released.score([GOLD, text], [text, GOLD])
    assert not first.verified


def test_ten_thousand_steps_are_counted():
    steps = [f"Define owl {i} as q; so q = {i}. " for i in range(10_000)]
    got = score("".join(steps), "".join(reversed(steps)))
    assert got.num_gold == got.num_predicted == 10_000 and got.verified


def test_numbers_of_a_thousand_digits():
    text = "Define b as q; q = 1" + "0" * 1000 + ". Define c as k; k = 3; k = q."
    assert [value for _, value, _ in steps_of(text)] == [np.inf, 3]
    assert steps_of("Define b as q; 0." + "3" * 1000) == [("b", 1 / 3, [])]
    assert released.read("Answer: -" + "1" * 300 + "." + "5" * 700).answer == float("-" + "1" * 300)


def test_completions_are_problem_major():
    golds = [GOLD, GOLD.replace("red", "blue"), "Answer: 7."]
    completions = [golds[i] if i % 5 else "wrong" for i in range(3) for _ in range(100)]
    assert [found.verified for found in released.score(golds, completions)] == [
        i % 5 > 0 for i in range(3) for _ in range(100)
    ]


def test_fields_of_verdicts_have_their_types():
    names = ("process_accuracy", "outcome", "process_reward")
    want = {"released_verified": "bool", **{f"released_{name}": "float32" for name in names}}
    for golds in ([GOLD], []):
        arrays = released_verdicts(golds, golds * 2)
        assert {name: str(values.dtype) for name, values in arrays.items()} == want
        assert [len(values) for values in arrays.values()] == [2 * len(golds)] * 4
