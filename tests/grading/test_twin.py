"""The verifier against its plain Python twin, on damaged solutions and on any text."""

import random
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastreason as fr
from tests import published, symbolic
from tests.grading import verifier_twin
from tests.grading.gold import GOLD, REVERSE_GOLD

KINDS = [("forward", 2), ("forward", 3), ("reverse", 2), ("reverse", 3)]
WORDS = [
    "Define",
    "define",
    "as",
    "a",
    "q;",
    "x;",
    "so",
    "q",
    "B",
    "x",
    "=",
    "2",
    "-1",
    "7.",
    "+",
    "*",
    "(",
    ")",
    ".",
    ";",
]
WORDS += [
    "Answer:",
    "<answer>",
    "</answer>",
    "Answer: 7.",
    "7.5",
    "7,000",
    "1e3",
    "+ -",
    "We know T =",
    "we don't know",
    "so q = 2.",
    "Define red kite in Alder Field as q;",
]


def solutions_of(mode: str, depth: int, n: int, seed: int) -> tuple[fr.ProblemBatch, list[str]]:
    mixture = fr.Mixture.uniform(op=range(2, 21), themes=["zoo"], modes=[mode], depths=[depth])
    batch = fr.TaskStream(mixture, seed=seed)[0:n]
    return batch, batch.solutions


def damage(text: str, rng: random.Random) -> str:
    """One to three words left out, doubled, exchanged or replaced."""
    words = re.split(r"( )", text)
    for _ in range(rng.randint(1, 3)):
        i, j = rng.randrange(len(words)), rng.randrange(len(words))
        action = rng.randrange(5)
        if action == 0:
            words[i] = ""
        elif action == 1:
            words.insert(i, words[i] + " ")
        elif action == 2:
            words[i], words[j] = words[j], words[i]
        elif action == 3:
            words[i] = rng.choice(WORDS)
        else:
            del words[min(i, j) : min(i, j) + rng.randint(1, 20)]
        words = words or [""]
    return "".join(words)


def check(gold: list[str], texts: list[str]) -> None:
    got = fr.grade_texts(gold, texts, unreadable_gold="mark")
    for i, text in enumerate(texts):
        want = verifier_twin.grade(gold[i], text)
        mine = slice(got.steps.offsets[i], got.steps.offsets[i + 1])
        assert fr.Ending(got.ending[i]).name == want["ending"], text
        np.testing.assert_array_equal(got.answer[i], np.nan if want["answer"] is None else want["answer"], text)
        assert got.answer_correct[i] == want["answer_correct"], text
        assert got.process_accuracy[i] == np.float32(want["process_accuracy"]), text
        assert got.verified[i] == want["verified"], text
        assert got.num_missing[i] == want["num_missing"], text
        assert mine.stop - mine.start == len(want["steps"]), text


@pytest.mark.parametrize("mode, depth", KINDS)
def test_damaged_solutions_are_read_as_the_twin_reads_them(mode, depth):
    rng = random.Random(f"{mode}{depth}")
    _, gold = solutions_of(mode, depth, 600, seed=3)
    check(gold, [damage(text, rng) for text in gold])


@given(
    gold=st.sampled_from([GOLD, REVERSE_GOLD]),
    text=st.lists(st.one_of(st.sampled_from(WORDS), st.text("ab\n .;=", max_size=4)), max_size=40).map(" ".join),
)
def test_any_text_is_read_as_the_twin_reads_it(gold, text):
    check([gold, f"Define {text}"], [text, gold])


# x is left alone: a variable in its place may have the same value, and what is printed is true all the same
SIGNS = {"number": r"(?<![\w'])\d+", "operator": r"(?<= )[-+*](?= )", "letter": r"(?<![\w'])[A-Za-wyz](?![\w'])"}


@pytest.mark.parametrize("mode, depth", KINDS)
@pytest.mark.parametrize("sign", SIGNS)
def test_one_wrong_sign_is_not_sound(mode, depth, sign):
    """A number, an operator or a letter is replaced by another; the twin says whether that does any harm."""
    rng = random.Random(f"{mode}{depth}{sign}")
    batch, gold = solutions_of(mode, depth, 400, seed=4)
    texts, wanted = [], []
    for i in range(len(batch)):
        found = rng.choice(list(re.finditer(SIGNS[sign], gold[i])) or [re.search("$", gold[i])])
        pool = {"number": str(rng.randint(0, 12)), "operator": rng.choice("+-*"), "letter": rng.choice("abcdxABCDYZ")}
        new = pool[sign] if found[0] else ""
        texts.append(gold[i][: found.start()] + new + gold[i][found.end() :])
        problem = published.read_problem(batch.problems[i].strip(), batch.questions[i].strip())
        names = {step.name for step in published.read_solution(gold[i])[0]}
        wanted.append(verifier_twin.is_sound(problem, names, texts[-1]))
    got = fr.grade(batch, texts).sound
    assert got.tolist() == wanted
    assert 0 < sum(wanted) < 0.5 * len(wanted)


@pytest.mark.parametrize("mode, depth", KINDS)
def test_gold_is_sound_for_the_twin_too(mode, depth):
    batch, gold = solutions_of(mode, depth, 300, seed=5)
    for i in range(len(batch)):
        problem = published.read_problem(batch.problems[i].strip(), batch.questions[i].strip())
        names = {step.name for step in published.read_solution(gold[i])[0]}
        assert verifier_twin.is_sound(problem, names, gold[i])


@pytest.mark.parametrize("sign", SIGNS)
def test_one_wrong_sign_is_not_sound_in_the_symbolic_style(sign):
    rng = random.Random(sign)
    batch = fr.TaskStream(fr.Mixture.uniform(op=range(2, 21), themes=["symbolic"]), seed=4)[0:400]
    signs = {"letter": r"\b[A-Za-z]+(?=[ :])"} | {k: v for k, v in SIGNS.items() if k != "letter"}
    texts, wanted = [], []
    for i, gold in enumerate(batch.solutions):
        names = re.findall(signs["letter"], gold)
        found = rng.choice(list(re.finditer(signs[sign], gold)) or [re.search("$", gold)])
        pool = {"number": str(rng.randint(0, 12)), "operator": rng.choice("+-*"), "letter": rng.choice(names)}
        texts.append(gold[: found.start()] + (pool[sign] if found[0] else "") + gold[found.end() :])
        problem = symbolic.read_problem(batch.problems[i].strip(), batch.questions[i].strip())
        wanted.append(verifier_twin.is_sound_symbolic(problem, {s.name for s in read_symbolic(gold)}, texts[-1]))
    assert fr.grade(batch, texts).sound.tolist() == wanted
    assert 0 < sum(wanted) < 0.5 * len(wanted)


def read_symbolic(solution: str) -> list[symbolic.Step]:
    return symbolic.read_solution(solution.rsplit(" Answer: ", 1)[0].strip())
