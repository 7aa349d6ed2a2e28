"""The released scorer in C++: its recorded verdicts, a twin in plain Python, its rules, hostile texts."""

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastreason as fr
from fastreason import _core

from . import released_twin

GOLD = (
    "Define red kite in Alder Field as q; so q = 2. Define grey owl in Alder Field as B; m = q = 2; so B = 3 + m = 3 + "
    "2 = 5. Define total number of birds in Alder Field as T; so T = q + B = 2 + 5 = 7. Answer: 7."
)
LISTS = ("missing", "extra", "wrong_value", "wrong_parents")


def score(golds: list[Any], completions: list[Any], threads: int = 1) -> list[dict[str, Any]]:
    """Verdicts of the core as one dict each, in the words of the twin."""
    arrays = _core.grade_released(golds, completions, threads=threads, detail=True)
    rows = []
    for i in range(len(completions)):
        row = {key.removeprefix("released_"): values[i] for key, values in arrays.items()}
        row = {key: value if isinstance(value, list) else value.item() for key, value in row.items()}
        row["answer"] = None if np.isnan(row["answer"]) else row["answer"]
        assert [row["num_" + key] for key in LISTS] == [len(row[key]) for key in LISTS]
        rows.append(row)
    return rows


def assert_twins_agree(gold: str | bytes, completion: str | bytes) -> None:
    for text in (gold, completion):
        assert_read_alike(text)
    (got,) = score([gold], [completion])
    for key, want in released_twin.score(gold, completion).items():
        # shares are float32 in the core
        assert got[key] == (pytest.approx(want, abs=1e-6) if "process" in key else want), (key, gold, completion)


def assert_read_alike(text: str | bytes) -> None:
    got = _core.read_released(text)
    want = released_twin.read(text)
    steps = [(step.name, repr(step.value), sorted(step.parents)) for step in want.steps]
    assert [(name, repr(value), sorted(parents)) for name, value, parents in got["steps"]] == steps, repr(text)
    assert got["answer"] == want.answer, repr(text)


# --- the recorded verdicts of the released scorer -------------------------------------------------------------------


@pytest.mark.parametrize("level, num_rows", [("medium", 13680), ("hard", 2736)])
def test_every_reference_row_is_scored_alike(reference, level, num_rows):
    problems, rows = reference(f"problems_{level}.jsonl.gz"), reference(f"verdicts_{level}.jsonl.gz")
    assert len(rows) == num_rows
    verdicts = score([problems[row["row"]]["solution"] for row in rows], [row["completion"] for row in rows])
    for row, got in zip(rows, verdicts, strict=True):
        blend = 0.2 * got["outcome"] + 0.8 * got["process_reward"] if got["outcome"] else 0.0
        want = {
            "num_gold": row["gold_steps"],
            "num_predicted": row["pred_steps"],
            "outcome": row["outcome_reward"],
            **{key: row[key] for key in (*LISTS, "answer", "answer_mismatch", "verified")},
        }
        assert {key: got[key] for key in want} == want, row
        shares = (got["process_accuracy"], got["process_reward"], blend, blend if got["penalty"] == 0 else 0.0)
        names = ("process_accuracy", "process_reward", "blend_0p2_0p8", "strict")
        assert shares == pytest.approx([row[name] for name in names], abs=1e-6), row


@pytest.mark.parametrize("level", ["medium", "hard"])
def test_the_twin_scores_reference_rows_alike(reference, level):
    problems, rows = reference(f"problems_{level}.jsonl.gz"), reference(f"verdicts_{level}.jsonl.gz")
    for row in rows[::5]:
        got = released_twin.score(problems[row["row"]]["solution"], row["completion"])
        assert {key: got[key] for key in (*LISTS, "answer", "verified")} == {
            key: row[key] for key in (*LISTS, "answer", "verified")
        }
        assert got["process_reward"] == pytest.approx(row["process_reward"])


# --- the twin -------------------------------------------------------------------------------------------------------

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


@given(gold=fragments, completion=fragments)
def test_any_texts_are_scored_like_the_twin(gold, completion):
    assert_twins_agree(gold, completion)
    assert_twins_agree(GOLD, completion)


@given(
    gold=st.binary(max_size=60),
    completion=st.lists(st.sampled_from(PIECES), max_size=20).map("".join),
    at=st.integers(0, 200),
)
def test_any_bytes_are_scored_like_the_twin(gold, completion, at):
    data = completion.encode("utf-8", "surrogatepass")
    assert_twins_agree(gold, data[:at] + gold + data[at + 1 :])  # cuts through characters


def test_many_random_headers_and_bodies_are_read_like_the_twin():
    rng = random.Random(0)
    for pieces, length in ((PIECES[:32], 12), (PIECES[28:60], 12), (PIECES, 25)):
        for _ in range(4000):
            prefix = "Define k as q; q = 2. Define u as T; T = " if rng.random() < 0.5 else ""
            assert_read_alike(prefix + "".join(rng.choices(pieces, k=rng.randrange(length))))


CELLS = [(mode, depth) for mode in ("forward", "reverse") for depth in (2, 3)]


@pytest.mark.parametrize("mode, depth", CELLS)
@pytest.mark.parametrize("theme", ["zoo", "school", "festival"])
def test_corrupted_solutions_are_scored_like_the_twin(theme, mode, depth):
    mixture = fr.Mixture.uniform(op=range(2, 16), themes=[theme], modes=[mode], depths=[depth])
    batch, rng = fr.TaskStream(mixture, seed=3)[0:60], random.Random(3)
    others = [
        "7",
        "q",
        "x",
        "Define",
        "=",
        "",
        "as",
        "a",
        "x;",
        "(",
        "8.5",
        "-3",
        "Answer:",
        "<answer>",
        "so",
        "x = 3.",
    ]
    for i, solution in enumerate(batch.solutions):
        document = batch.documents[i].removeprefix(batch.prompts[i]).removesuffix("[EOS]")
        for text in (solution, document):
            words = text.split(" ")
            for _ in range(rng.randrange(4)):
                action, at = rng.randrange(4), rng.randrange(len(words))
                if action == 0:
                    words[at] = rng.choice(others)
                elif action == 1:
                    words[at] = rng.choice(words)
                elif action == 2:
                    words.insert(at, rng.choice(words))
                elif len(words) > 1:
                    del words[at]
            assert_twins_agree(solution, " ".join(words))


@pytest.mark.parametrize("theme", ["zoo", "school", "festival"])
def test_forward_solutions_are_verified_against_themselves(theme):
    mixture = fr.Mixture.uniform(op=range(2, 21), themes=[theme], modes=["forward"], depths=[2, 3])
    batch = fr.TaskStream(mixture, seed=4)[0:500]
    documents = [batch.documents[i].removeprefix(batch.prompts[i]) for i in range(500)]
    verdicts = _core.grade_released(batch.solutions, documents)
    assert verdicts["released_verified"].all() and (verdicts["released_process_reward"] == 1).all()
    assert (verdicts["released_outcome"] == 1).all() and (verdicts["penalty"] == 0).all()


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
    assert _core.read_released(text)["steps"] == steps
    assert_read_alike(text)


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
    (got,) = score([GOLD], [text])
    assert (got["answer"], got["outcome"], got["answer_mismatch"]) == (answer, outcome, answer != 7)
    assert_twins_agree(GOLD, text)


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
    (got,) = score([gold], [completion])
    assert got["outcome"] == outcome
    assert_twins_agree(gold, completion)


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
    (got,) = score([gold], [completion])
    assert (got["penalty"], got["verified"]) == (penalty, verified)
    assert got["process_reward"] == pytest.approx(process_reward)
    assert got["process_accuracy"] == pytest.approx(process_accuracy)
    assert_twins_agree(gold, completion)


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
    # some 50 ms each; one quadratic step would take hours
    arrays = _core.grade_released([GOLD, text], [text, GOLD])
    assert not arrays["released_verified"][0]


def test_ten_thousand_steps_are_counted():
    steps = [f"Define owl {i} as q; so q = {i}. " for i in range(10_000)]
    (got,) = score(["".join(steps)], ["".join(reversed(steps))])
    assert got["num_gold"] == got["num_predicted"] == 10_000 and got["verified"]
    assert_read_alike("".join(steps[:300]))


def test_numbers_of_a_thousand_digits():
    assert_read_alike("Define b as q; q = 1" + "0" * 1000 + ". Define c as k; k = 3; k = q.")
    assert_read_alike("Define b as q; 0." + "0" * 1000 + "1 Answer: " + "1" * 1000 + ".5")
    assert_read_alike("Define b as q; 0." + "3" * 1000 + " Answer: -" + "1" * 300 + "." + "5" * 700)


def test_completions_are_problem_major_and_threads_do_not_matter():
    golds = [GOLD, GOLD.replace("red", "blue"), "Answer: 7."]
    completions = [golds[i] if i % 5 else "wrong" for i in range(3) for _ in range(100)]
    one, many = score(golds, completions), score(golds, completions, threads=3)
    assert one == many
    assert [row["verified"] for row in one] == [i % 5 > 0 for i in range(3) for _ in range(100)]


def test_counts_come_without_names_unless_asked():
    plain = _core.grade_released([GOLD], [GOLD, "", GOLD])
    assert plain["num_missing"].tolist() == [0, 3, 0] and "missing" not in plain
    assert {key: str(plain[key].dtype) for key in plain} == {
        **{f"released_{key}": "float32" for key in ("process_accuracy", "outcome", "process_reward")},
        **dict.fromkeys(("released_verified", "answer_mismatch"), "bool"),
        **dict.fromkeys(("penalty", "num_gold", "num_predicted", *("num_" + key for key in LISTS)), "int32"),
        "answer": "float64",
    }


def test_bad_calls_name_the_argument():
    with pytest.raises(ValueError, match=r"the same number for each problem.*got 3 completions for 2 gold solutions"):
        _core.grade_released(["a", "b"], ["c"] * 3)
    with pytest.raises(TypeError, match="texts must be str or bytes, item 1 is int"):
        _core.grade_released(["a"], ["a", 3])
    with pytest.raises(TypeError, match="texts must be str or bytes, item 0 is NoneType"):
        _core.read_released(None)
    assert len(_core.grade_released([], [])["answer"]) == 0
