"""How completions end and which numbers they may hold: every ending and number in every style, at every level."""

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastreason as fr
from fastreason import Ending, StepStatus
from fastreason.grading.failure_kinds import FailureKind, failure_kinds
from tests.byte_tokenizer import byte_tokenizer
from tests.grading.gold import GOLD, REVERSE_GOLD, SYMBOLIC_GOLD

STYLES = {"published": GOLD, "reverse": REVERSE_GOLD, "symbolic": SYMBOLIC_GOLD}

# What stands behind the steps, n the gold answer and m another number. Then the ending, whether the answer is right,
# and the kind of failure where the ending does not say it.
ENDINGS = [
    ("</solution> <answer> {n} </answer>", "CLOSED", True, "NONE"),
    ("</solution> <answer> {n}. </answer>", "CLOSED", True, "NONE"),
    ("</solution><answer>{n}</answer>", "CLOSED", True, "NONE"),
    ("</solution> <ANSWER> {n} </Answer>", "CLOSED", True, "NONE"),
    ("</solution>\n<answer>\n{n}\n</answer>\n", "CLOSED", True, "NONE"),
    ("<answer> {n} </answer>", "CLOSED", True, "NONE"),
    ("<answer> {n} </answer> \t\r\n\v\f", "CLOSED", True, "NONE"),
    ("Answer: {n}.", "CLOSED", True, "NONE"),
    ("Answer: {n}", "CLOSED", True, "NONE"),
    ("Answer:{n}.\n", "CLOSED", True, "NONE"),
    ("Answer:\n{n} .", "CLOSED", True, "NONE"),
    ("</solution> Answer: {n}.", "CLOSED", True, "NONE"),
    ("thus <answer> {n} </answer>", "CLOSED", True, "NONE"),
    ("</solution> <answer> {m} </answer>", "CLOSED", False, "WRONG_ANSWER"),
    ("Answer: {m}.", "CLOSED", False, "WRONG_ANSWER"),
    ("<answer></answer>", "CLOSED", False, "UNREADABLE_ANSWER"),
    ("<answer> . </answer>", "CLOSED", False, "UNREADABLE_ANSWER"),
    ("<answer> none </answer>", "CLOSED", False, "UNREADABLE_ANSWER"),
    ("<answer> {n} </solution> </answer>", "CLOSED", False, "UNREADABLE_ANSWER"),
    ("<answer> {n}, that is all </answer>", "CLOSED", False, "UNREADABLE_ANSWER"),
    ("<answer> {n} {n} </answer>", "CLOSED", False, "UNREADABLE_ANSWER"),
    ("<answer> {n}.. </answer>", "CLOSED", False, "UNREADABLE_ANSWER"),
    ("<answer> {n}; </answer>", "CLOSED", False, "UNREADABLE_ANSWER"),
    ("Answer:", "CLOSED", False, "UNREADABLE_ANSWER"),
    ("Answer: {n}..", "CLOSED", False, "UNREADABLE_ANSWER"),
    ("Answer: {n} </solution>", "CLOSED", False, "UNREADABLE_ANSWER"),
    ("Answer: the answer is {n}.", "CLOSED", False, "UNREADABLE_ANSWER"),
    ("", "NO_ANSWER", False, ""),
    ("</solution>", "NO_ANSWER", False, ""),
    ("So {n}.", "NO_ANSWER", False, ""),
    ("answer: {n}.", "NO_ANSWER", False, ""),
    ("{n} </answer>", "NO_ANSWER", False, ""),
    ("< answer> {n} </answer>", "NO_ANSWER", False, ""),
    ("</solution> <answer", "NO_ANSWER", False, ""),
    ("<answer> {n}", "UNFINISHED", False, ""),
    ("<answer> {n}.", "UNFINISHED", False, ""),
    ("<answer>", "UNFINISHED", False, ""),
    ("<answer> {n} </answer", "UNFINISHED", False, ""),
    ("<answer> {n} </ answer>", "UNFINISHED", False, ""),
    ("<answer> {n}. </solution> <answer> {n}. </solution> <answer> {n}. G: Gi + {n}.", "UNFINISHED", False, ""),
    ("<answer> {n} </answer> <answer> {n}", "UNFINISHED", False, ""),
    ("Answer: {n}. <answer> {n}", "UNFINISHED", False, ""),
    ("<answer> {n} </answer>.", "TEXT_AFTER_ANSWER", False, ""),
    ("<answer> {n} </answer> </answer>", "TEXT_AFTER_ANSWER", False, ""),
    ("<answer> {n} </answer> </solution>", "TEXT_AFTER_ANSWER", False, ""),
    ("<answer> {n} </answer>[EOS]", "TEXT_AFTER_ANSWER", False, ""),
    ("<answer> {n} </answer> {n}", "TEXT_AFTER_ANSWER", False, ""),
    ("<answer> {n} </answer> <question> B ? Ba: 3.", "TEXT_AFTER_ANSWER", False, ""),
    ("<answer> {n} </answer>\x00", "TEXT_AFTER_ANSWER", False, ""),
    ("<answer> {n} </answer>\u00a0", "TEXT_AFTER_ANSWER", False, ""),
    ("<answer> {m} </answer> No, {n}.", "TEXT_AFTER_ANSWER", False, ""),
    ("<answer> none </answer> {n}", "TEXT_AFTER_ANSWER", False, ""),
    ("Answer: {n}. More.", "TEXT_AFTER_ANSWER", False, ""),
    ("Answer: {n}. </solution>", "TEXT_AFTER_ANSWER", False, ""),
    ("Answer: {n}\n{n}", "TEXT_AFTER_ANSWER", False, ""),
    ("Answer: {m}. No, {n}.", "TEXT_AFTER_ANSWER", False, ""),
    ("<answer> {n} </answer> <answer> {n} </answer>", "SEVERAL_ANSWERS", False, ""),
    ("<answer> {m} </answer> <answer> {n} </answer>", "SEVERAL_ANSWERS", False, ""),
    ("<answer> {n} <answer> {n} </answer>", "SEVERAL_ANSWERS", False, ""),
    ("<answer> <answer> {n} </answer>", "SEVERAL_ANSWERS", False, ""),
    ("<answer> {n} </answer> Answer: {n}.", "SEVERAL_ANSWERS", False, ""),
    ("Answer: {n}. <answer> {n} </answer>", "SEVERAL_ANSWERS", False, ""),
    ("Answer: {n}. Answer: {n}.", "SEVERAL_ANSWERS", False, ""),
    ("Answer: Answer: {n}.", "SEVERAL_ANSWERS", False, ""),
]


def table_of_numbers() -> list[tuple[str, float, float]]:
    """As written, and what that is in an answer and at the end of a step, from the page; not a number: none."""
    page = (Path(__file__).parents[2] / "docs" / "grading.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| `([^`|]+)` \| (\S+) \| (\S+) \|$", page.split("## Numbers")[1].split("\n## ")[0], re.MULTILINE
    )
    return [(text, *(np.nan if value == "none" else float(value) for value in values)) for text, *values in rows]


NUMBERS = table_of_numbers()


def check(gold: str, text: str, ending: str, right: bool, kind: str) -> fr.Verdicts:
    verdict = fr.grade_texts([gold], [text])
    assert Ending(verdict.ending[0]).name == ending
    assert (verdict.answer_correct[0], verdict.verified[0], verdict.sound[0]) == (right, right, right)
    assert FailureKind(failure_kinds(verdict)[0]).name == kind
    return verdict


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("tail, ending, right, kind", ENDINGS, ids=[repr(row[0]) for row in ENDINGS])
def test_an_ending_is_judged_at_every_level(style, tail, ending, right, kind):
    gold = STYLES[style]
    body, answer = gold.split("Answer: ")
    text = body + tail.replace("{n}", answer.rstrip(".")).replace("{m}", "12")
    if style == "reverse" and kind == "WRONG_ANSWER":
        kind = "WRONG_VALUE"  # every step with x follows from it
    check(gold, text, ending, right, kind or ending)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("form", ["<answer> {} </answer>", "Answer: {}"])
@pytest.mark.parametrize("text, value", [row[:2] for row in NUMBERS], ids=[row[0] for row in NUMBERS])
def test_numbers_of_the_page_in_answers(style, form, text, value):
    gold = STYLES[style]
    body, answer = gold.split("Answer: ")
    right = value == float(answer)
    kind = "NONE" if right else "UNREADABLE_ANSWER"
    if not right and not np.isnan(value):
        kind = "WRONG_VALUE" if style == "reverse" else "WRONG_ANSWER"
    verdict = check(gold, body + form.format(text), "CLOSED", right, kind)
    np.testing.assert_array_equal(verdict.answer, [value])


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("text, value", [(row[0], row[2]) for row in NUMBERS], ids=[row[0] for row in NUMBERS])
def test_numbers_of_the_page_in_steps(style, text, value):
    gold = STYLES[style]
    old = "3 + x = x + 3." if style == "reverse" else "2 + 5 = 7."
    wanted, step = (5, 1) if style == "reverse" else (7, 2)
    assert old in gold
    verdict = fr.grade_texts([gold], [gold.replace(old, old.rsplit("= ", 1)[0] + f"= {text}.")])
    np.testing.assert_array_equal(verdict.steps.value[step], value)
    assert verdict.answer_correct[0]
    assert verdict.steps.correct[step] == (value == wanted)
    if np.isnan(value):
        assert verdict.steps.status[step] == StepStatus.UNREADABLE
        assert FailureKind(failure_kinds(verdict)[0]) == FailureKind.UNREADABLE_STEP
    # x + 3 is no number, though it is one at the answer
    is_sound = value == wanted and style != "reverse" and text not in ("= 7", "14 / 2")
    assert verdict.sound[0] == is_sound


def test_a_number_on_the_way_must_be_one_too():
    for new in ("2.0 + 5 = 7", "2 + 5,0 = 7", "2 + 5 = 7.0 = 7", "1e0 + 6 = 7", "--2 + 5 = 7"):
        for gold in (GOLD, SYMBOLIC_GOLD):
            verdict = fr.grade_texts([gold], [gold.replace("2 + 5 = 7", new)])
            assert verdict.verified[0] and not verdict.sound[0]
            assert verdict.steps.status[2] == StepStatus.UNREADABLE


def test_what_is_not_exact_is_not_sound():
    """Doubles hold these equalities, arithmetic does not."""
    wrong = ["1000000000000 + 1 / 1000000000 = 1000000000000", "999999999999999 * 10 + 1 - 999999999999999 * 10 = 0"]
    wrong += ["9 * 999999999999999 + 1 - 9 * 999999999999999 = 0", "1 / 3 = 1 / 3", "7 / 2"]
    for chain in wrong:
        extra = f"Define old crow in Fern Hollow as Z; so Z = {chain}. Define red"
        for gold, text in ((GOLD, GOLD.replace("Define red", extra)), (SYMBOLIC_GOLD, f"Z: {chain}. {SYMBOLIC_GOLD}")):
            verdict = fr.grade_texts([gold], [text])
            assert verdict.verified[0] and not verdict.sound[0], chain
    right = fr.grade_texts([SYMBOLIC_GOLD], ["Z: 14 / 2 * 3 = 21. " + SYMBOLIC_GOLD])
    assert right.sound[0]


# --- what callers know of the end ------------------------------------------------------------------------------------


def test_text_between_the_steps_and_the_answer_is_read():
    for gold, step in ((GOLD, "Define red kite in Alder Field as q; so q = 3."), (SYMBOLIC_GOLD, "Ba: 3.")):
        body = gold.split("Answer: ")[0]
        for text in (f"{body} </solution> {step} <answer> 7 </answer>", f"<solution> {body} {step} Answer: 7."):
            verdict = fr.grade_texts([gold], [text])
            assert verdict.answer_correct[0] and not verdict.verified[0]
        assert fr.grade_texts([gold], [f"<solution> {body} </solution> <answer> 7 </answer>"]).sound[0]


def test_a_text_whose_stop_string_is_cut_off():
    body = GOLD.split("Answer: ")[0]
    texts = [
        body + tail for tail in ("<answer> 7", "<answer> 7. ", "<answer> 7 </answer>", "Answer: 7.", "<answer> 8", "")
    ]
    texts += [
        body + tail for tail in ("<answer> 7 or 9", "<answer> 7 </answer> more", "<answer> 7 <answer> 7", "<answer>")
    ]
    golds = [GOLD] * len(texts)
    assert fr.grade_texts(golds, texts).verified.tolist() == [False, False, True, True] + [False] * 6
    cut_off = fr.grade_texts(golds, texts, answer_may_end_text=True)
    assert cut_off.verified.tolist() == [True] * 4 + [False] * 6
    wanted = ["CLOSED"] * 5 + ["NO_ANSWER", "CLOSED", "TEXT_AFTER_ANSWER", "SEVERAL_ANSWERS", "CLOSED"]
    assert [Ending(ending).name for ending in cut_off.ending] == wanted
    some = fr.grade_texts(golds, texts, answer_may_end_text=[True] + [False] * 9)
    assert some.verified.tolist() == [True, False, True, True] + [False] * 6
    # a limit within the number looks the same
    finished = np.array([False, True] * 5)
    cut_short = fr.grade_texts(golds, texts, answer_may_end_text=True, finished=finished)
    assert cut_short.verified.tolist() == [False, True, False, True] + [False] * 6
    assert (cut_short.ending[~finished] == Ending.UNFINISHED).all()


def test_rows_of_token_ids_end_at_a_tag_or_an_end_token():
    batch = fr.TaskStream(fr.Mixture.uniform(op=[3], themes=["symbolic"]), seed=0)[0:1]
    tokenizer = fr.Tokenizer.build(["symbolic"])
    body, answer = batch.solutions[0].split(" Answer: ")
    answer = answer.rstrip(".")
    tagged = tokenizer.encode(f" {body} </solution> <answer> {answer} </answer>").tolist()
    eos, pad = tokenizer.eos_id, tokenizer.pad_id
    rows = [tagged, [*tagged, eos], [*tagged, pad, pad], tagged[:-1], [*tagged[:-1], eos]]
    rows += [tagged + tagged[:1], tagged + tagged[:1] + [eos], tagged[:-5], [*tagged[:-5], eos], [eos]]
    wanted = ["CLOSED"] * 3 + ["UNFINISHED"] * 3
    wanted += ["TEXT_AFTER_ANSWER", "UNFINISHED", "NO_ANSWER", "NO_ANSWER"]
    for row, ending in zip(rows, wanted, strict=True):
        verdict = fr.grade(batch, np.array([row]), tokenizer=tokenizer)
        assert Ending(verdict.ending[0]).name == ending
        assert verdict.verified[0] == verdict.sound[0] == (ending == "CLOSED")
        cut = fr.grade(batch, np.array([row]), tokenizer=tokenizer, finished=[False])
        assert cut.ending[0] == Ending.UNFINISHED and not cut.answer_correct[0]
    open_answer = fr.grade(batch, np.array([[*tagged[:-1], eos]]), tokenizer=tokenizer, answer_may_end_text=True)
    assert open_answer.verified[0]


def test_rows_without_tags_need_an_end_token(tmp_path):
    """A vocabulary of bytes: any text."""
    byte_tokenizer(tmp_path)
    tokenizer = fr.Tokenizer.from_pretrained(tmp_path)
    batch = fr.TaskStream(fr.Mixture.uniform(op=[3], themes=["symbolic"]), seed=0)[0:1]
    ids = tokenizer.encode(batch.solutions[0]).tolist()
    for row, finished, verified in ((ids, None, False), ([*ids, tokenizer.eos_id], None, True), (ids, [True], True)):
        verdict = fr.grade(batch, np.array([row]), tokenizer=tokenizer, finished=finished)
        assert verdict.verified[0] == verified
        assert verdict.ending[0] == (Ending.CLOSED if verified else Ending.UNFINISHED)


@pytest.mark.parametrize("name", ["finished", "answer_may_end_text"])
def test_one_flag_for_each_completion(name):
    with pytest.raises(ValueError, match=rf"{name} must be bool \[2\], one for each completion"):
        fr.grade_texts([GOLD], [GOLD, GOLD], **{name: [True]})


def test_gold_solutions_that_cannot_be_graded_against_are_named():
    golds = [GOLD, SYMBOLIC_GOLD, REVERSE_GOLD, "Answer: 7.", "7", "", GOLD.replace("7.", "7.0."), GOLD + " More."]
    golds += [GOLD.replace("= 5.", "= 5 birds.")]
    verdict = fr.grade_texts(golds, golds, unreadable_gold="mark")
    assert verdict.gold_readable.tolist() == [True] * 3 + [False] * 6
    assert verdict.verified.tolist() == verdict.gold_readable.tolist()


TAGGED = [gold.replace("Answer: ", "</solution> <answer> ").rstrip(".") + " </answer>" for gold in STYLES.values()]
SOUND = [*STYLES.values(), *TAGGED]
MORE = st.one_of(st.text(), st.sampled_from(["0", ".", "0.", " 0", "</answer>", " <answer> 7 </answer>", "[EOS]", ";"]))


@given(more=st.lists(MORE, min_size=1, max_size=4).map("".join).filter(lambda text: text.strip() != ""))
def test_a_sound_solution_with_any_text_behind_it_is_never_verified(more):
    golds = [*STYLES.values()] * 2
    assert fr.grade_texts(golds, SOUND).sound.all()
    verdict = fr.grade_texts(golds, [text + more for text in SOUND])
    assert not (verdict.answer_correct | verdict.verified | verdict.sound).any()
    assert (failure_kinds(verdict) != FailureKind.NONE).all()
