"""The verifier: gold text, corruptions, any bytes, and the released scorer's verdicts."""

import random
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastreason as fr
from fastreason import StepStatus
from tests.grading.gold import GOLD, SYMBOLIC_GOLD

THEMES = ["zoo", "symbolic"]
OPS = range(2, 21)


def batch_of(theme: str, n: int = 300, op=OPS, seed: int = 0) -> fr.ProblemBatch:
    return fr.TaskStream(fr.Mixture.uniform(op=op, themes=[theme]), seed=seed)[0:n]


def completion(batch: fr.ProblemBatch, i: int) -> str:
    """What a perfect model writes behind the prompt."""
    return batch.documents[i].removeprefix(batch.prompts[i]).removesuffix("[EOS]")


def rename_letters(solution: str, rng: random.Random) -> str:
    """Another injection of letters into the variables of a published solution."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    to = dict(zip(alphabet, rng.sample(alphabet, 52), strict=True))
    clauses = re.split(r"(; )", solution)
    # single letters behind "as ", or between blanks in clauses; names hold no single letters
    return "".join(re.sub(r"(?<![A-Za-z])[A-Za-z](?![A-Za-z])", lambda m: to[m[0]], part) for part in clauses)


# --- gold text ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("theme", THEMES)
def test_gold_is_verified_against_itself(theme):
    batch = batch_of(theme, 2000)
    verdict = fr.grade(batch, [completion(batch, i) for i in range(len(batch))])
    assert verdict.verified.all() and verdict.answer_correct.all() and (verdict.process_accuracy == 1).all()
    assert (verdict.steps.status == StepStatus.RIGHT).all()
    same = fr.grade_texts(batch.solutions, batch.solutions)
    assert same.verified.all()


def test_letters_and_their_order_do_not_matter():
    batch, rng = batch_of("zoo", 1000), random.Random(0)
    renamed = [rename_letters(solution, rng) for solution in batch.solutions]
    assert sum(a != b for a, b in zip(renamed, batch.solutions, strict=True)) > 990
    assert fr.grade(batch, renamed).verified.all()


@pytest.mark.parametrize("theme", THEMES)
def test_steps_carry_their_spans_and_gold_steps(theme):
    batch = batch_of(theme, 50)
    texts = ["<solution>" + completion(batch, i) for i in range(50)]
    steps = fr.grade(batch, texts).steps
    for i, text in enumerate(texts):
        mine = slice(steps.offsets[i], steps.offsets[i + 1])
        assert steps.gold_step[mine].tolist() == list(range(mine.stop - mine.start))
        if theme == "zoo":
            for begin, end in zip(steps.begin[mine], steps.end[mine], strict=True):
                assert text[begin:end].startswith("Define ") and text[begin:end].count("Define") == 1
    if theme == "symbolic":
        verdict = fr.grade(batch[0:0] if False else batch, [completion(batch, i) for i in range(50)])
        text = completion(batch, 0)
        first = verdict.steps
        assert text[first.begin[0] : first.end[0]] == text.strip().split(".")[0]


def test_groups_are_flat_and_problem_major():
    batch = batch_of("symbolic", 3)
    texts = [completion(batch, i) if j == i else "wrong" for i in range(3) for j in range(4)]
    assert fr.grade(batch, texts).verified.tolist() == [j == i for i in range(3) for j in range(4)]


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_verdicts_do_not_depend_on_threads(threads):
    batch = batch_of("zoo", 200)
    rng = random.Random(1)
    texts = []
    for i in range(200):
        words = completion(batch, i).split(" ")
        words[rng.randrange(len(words))] = rng.choice(["7", "q", "Define", "=", "", "x;"])
        texts.append(" ".join(words))
    want, got = fr.grade(batch, texts, threads=1), fr.grade(batch, texts, threads=threads)
    for name in ("verified", "answer_correct", "process_accuracy"):
        np.testing.assert_array_equal(getattr(got, name), getattr(want, name))
    np.testing.assert_array_equal(got.steps.status, want.steps.status)


@pytest.mark.parametrize("theme", THEMES)
def test_token_ids_are_graded_like_their_text(theme):
    batch = batch_of(theme, 60)
    tokenizer = fr.Tokenizer.build([theme])
    texts = [completion(batch, i) if i % 3 else completion(batch, (i + 1) % 60) for i in range(60)]
    ids = [tokenizer.encode(text + "[EOS]") for text in texts]
    tokens = np.full((60, max(map(len, ids)) + 2), tokenizer.pad_id, dtype=np.int64)
    for row, values in zip(tokens, ids, strict=True):
        row[: len(values)] = values
    want, got = fr.grade(batch, texts), fr.grade(batch, tokens, tokenizer=tokenizer)
    np.testing.assert_array_equal(got.verified, want.verified)
    np.testing.assert_array_equal(got.process_accuracy, want.process_accuracy)
    np.testing.assert_array_equal(got.steps.status, want.steps.status)


# --- corruptions: each must cost what it should ---------------------------------------------------------------------


@pytest.mark.parametrize("theme", THEMES)
def test_any_single_change_of_a_value_fails(theme):
    batch, rng = batch_of(theme, 500, op=range(3, 21)), random.Random(2)
    corrupted = []
    for solution in batch.solutions:
        ends = list(re.finditer(r"= (\d+)\.|: (\d+)\.", solution.rsplit(" Answer", 1)[0]))
        match = rng.choice(ends)
        at = match.start(1) if match[1] else match.start(2)
        corrupted.append(solution[:at] + "1" + solution[at:])
    verdict = fr.grade(batch, corrupted)
    assert not verdict.verified.any() and verdict.answer_correct.all()


# --- any input ------------------------------------------------------------------------------------------------------

FRAGMENTS = [
    "Define ",
    " as q",
    "; ",
    " so ",
    "q = ",
    "= 2",
    ". ",
    "Answer: ",
    "<answer> ",
    "</answer>",
    "Ba: ",
    "(",
    "*",
]


@given(text=st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.text(max_size=5)), max_size=60).map("".join))
def test_any_text_gets_a_verdict(text):
    for gold in (GOLD, SYMBOLIC_GOLD):
        texts = [text, text.encode("utf-8", "surrogatepass"), gold]
        verdict = fr.grade_texts([gold, gold, text], texts, unreadable_gold="mark")
        assert ((verdict.process_accuracy >= 0) & (verdict.process_accuracy <= 1)).all()
        assert verdict.verified[0] == verdict.verified[1]
        steps = verdict.steps
        assert (steps.begin <= steps.end).all()
        ends = np.repeat([len(text.encode("utf-8", "surrogatepass"))] * 2 + [len(gold)], np.diff(steps.offsets))
        assert (steps.end <= ends).all()


@given(data=st.binary(max_size=400))
def test_any_bytes_get_a_verdict(data):
    fr.grade_texts([GOLD, SYMBOLIC_GOLD], [data, data])


@pytest.mark.parametrize(
    "text",
    [
        "(" * 1_000_000,
        "Define " * 150_000,
        "Define a as q; q = (" + "(" * 500_000,
        "x as q; " * 120_000,
        "Define a as q; q = " + "9" * 1_000_000 + ".",
        "Define a as q; " * 60_000,
        "<answer>" * 120_000,
        "Answer: " * 120_000,
        "We know " * 120_000,
        "a " * 500_000 + ";",
        "q = " * 250_000,
        "Ba: " * 250_000,
        "Ba: Ba. " * 120_000,
        "\x00" * 1_000_000,
    ],
    ids=lambda text: text[:16],
)
def test_a_megabyte_of_hostile_text_takes_no_quadratic_time(text):
    fr.grade_texts([GOLD, SYMBOLIC_GOLD], [text, text])  # linear takes some 50 ms; a quadratic step would never end


@settings(max_examples=30)
@given(fragments=st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.text(max_size=3)), min_size=1, max_size=6))
def test_any_repetition_to_a_megabyte_takes_no_quadratic_time(fragments):
    piece = "".join(fragments) or "x"
    text = piece * (1_000_000 // len(piece.encode("utf-8", "surrogatepass")))
    verdict = fr.grade_texts([GOLD, SYMBOLIC_GOLD], [text, text])
    assert not verdict.verified.any()


def test_ten_thousand_steps_and_numbers_of_a_thousand_digits():
    steps = "".join(f"Define bird {i} in Fern Hollow as q; so q = {i}. " for i in range(10_000))
    verdict = fr.grade_texts([steps + "Answer: 1."], [steps + "Answer: 1."])
    assert verdict.sound.all()
    assert len(verdict.steps.status) == 10_000
    huge = GOLD.replace("5", "5" * 1000)
    verdict = fr.grade_texts([GOLD, huge], [huge, huge], unreadable_gold="mark")
    assert verdict.verified.tolist() == [False, False]  # what is too large to be exact is no number
    assert verdict.gold_readable.tolist() == [True, False]


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda b: fr.grade(b, ["a"] * 4), "the same number for each problem.*got 4 completions for 3 problems"),
        (lambda b: fr.grade(b, np.zeros((3, 4), dtype=np.int32)), "token ids need the tokenizer argument"),
        (lambda b: fr.grade(b, np.zeros((3, 4))), "token ids need the tokenizer argument"),
        (
            lambda b: fr.grade(b, np.zeros((3, 4)), tokenizer=fr.Tokenizer.build(["zoo"])),
            r"token ids must be integers in -2\*\*31 \.\. 2\*\*31 - 1, got float64",
        ),
        (
            lambda b: fr.grade(b, np.full((3, 4), 2**32 + 5), tokenizer=fr.Tokenizer.build(["zoo"])),
            "token ids must be integers in .*, got 4294967301",
        ),
        (
            lambda b: fr.grade(b, np.ones((3, 4), dtype=bool), tokenizer=fr.Tokenizer.build(["zoo"])),
            "token ids must be integers in .*, got bool",
        ),
        (lambda b: fr.grade_texts(["a", "b"], ["a"]), "got 1 completions for 2 gold solutions"),
    ],
)
def test_bad_calls_name_the_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call(batch_of("zoo", 3))


def test_texts_must_be_text():
    with pytest.raises(ValueError, match=r"grade_texts: completions\[1\] must be a string or bytes, got 3"):
        fr.grade_texts(["a", "b"], ["a", 3])


# --- the released scorer --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level, answers, steps", [("medium", 465, 52), ("hard", 92, 14)])
def test_forward_verdicts_are_the_released_ones(reference, level, answers, steps):
    """Names, parents and values are read as the released scorer reads them wherever that is not a known defect."""
    problems, rows = reference(f"problems_{level}.jsonl.gz"), reference(f"verdicts_{level}.jsonl.gz")
    rows = [row for row in rows if problems[row["row"]]["mode"] == "normalforward"]
    verdict = fr.grade_texts([problems[row["row"]]["solution"] for row in rows], [row["completion"] for row in rows])
    accuracy, kinds = np.array([row["process_accuracy"] for row in rows]), np.array([row["kind"] for row in rows])
    released = np.array([row["verified"] for row in rows])
    # Known difference 1: that scorer takes an answer that is open or has text behind it, and a decimal.
    of_answer = verdict.answer_correct != [not row["answer_mismatch"] for row in rows]
    assert of_answer.sum() == answers and not verdict.answer_correct[of_answer].any()
    assert set(kinds[of_answer]) <= {"no_close", "decimal", "truncate", "dup_word", "drop_word"}
    assert ((verdict.ending != fr.Ending.CLOSED) | np.isnan(verdict.answer) | (kinds == "dup_word"))[of_answer].all()
    of_steps = np.abs(verdict.process_accuracy - accuracy) > 1e-6
    assert of_steps.sum() == steps
    assert np.array_equal((verdict.verified != released) & ~of_answer & ~of_steps, np.zeros(len(rows), bool))
    # Known difference 2: here a value is not taken from prose or the answer, nor parents from behind the definition.
    stricter = of_steps & (verdict.process_accuracy < accuracy)
    assert set(kinds[stricter]) <= {"drop_word", "swap_words", "truncate"}
    # Known difference 3: a letter that is defined twice means its latest definition here, both of them there.
    assert all(_defines_a_letter_twice(rows[i]["completion"]) for i in np.nonzero(of_steps & ~stricter)[0])


def _defines_a_letter_twice(completion: str) -> bool:
    letters = re.findall(r"(?:\bas |; )([A-Za-z])(?=;| =)", completion)
    return len(set(letters)) < len(letters)
