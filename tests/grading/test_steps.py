"""Steps one by one: their spans in characters, bytes and tokens, their values, and which gold steps they are."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastreason as fr
from tests.grading.gold import GOLD, REVERSE_GOLD, SYMBOLIC_GOLD

WIDE = GOLD.replace("red kite", "rødstjert").replace("Alder Field", "Élan 市")


def steps_of(gold: str, completion: str | bytes) -> tuple[fr.Verdicts, list[str | bytes]]:
    verdict = fr.grade_texts([gold], [completion])
    spans = zip(verdict.steps.begin.tolist(), verdict.steps.end.tolist(), strict=True)
    return verdict, [completion[begin:end] for begin, end in spans]


@pytest.mark.parametrize("gold", [GOLD, WIDE, REVERSE_GOLD])
@pytest.mark.parametrize("around", [("", ""), ("<solution> ", "</solution> <answer> 2 </answer>"), ("Øh… ", " ☃")])
def test_spans_cut_the_steps_out_of_the_text(gold, around):
    text = around[0] + gold + around[1]
    for completion in (text, text.encode()):
        _, parts = steps_of(gold, completion)
        texts = [part if isinstance(part, str) else part.decode() for part in parts]
        assert all(part.startswith("Define ") and part.count("Define") == 1 for part in texts)
        # without the blanks between them
        assert gold[gold.index("Define") :].startswith(" ".join(texts))


def test_spans_of_the_symbolic_style():
    _, parts = steps_of(SYMBOLIC_GOLD, "Vær: " + SYMBOLIC_GOLD)
    assert parts == ["Be: 3 + Ba = 3 + 2 = 5", "B: Ba + Be = 2 + 5 = 7"]  # "Vær: Ba: 2" is no step
    _, parts = steps_of(SYMBOLIC_GOLD, SYMBOLIC_GOLD)
    assert parts[0] == "Ba: 2"


@given(noise=st.text(max_size=20), raw=st.binary(max_size=20))
def test_spans_are_characters_whatever_stands_before(noise, raw):
    noise = noise.replace("<", "").replace("Define", "")
    _, parts = steps_of(GOLD, noise + ". " + GOLD)
    assert parts[-1].startswith("Define total")
    _, parts = steps_of(GOLD, raw.replace(b"<", b"") + b". " + GOLD.encode())
    assert parts[-1].startswith(b"Define total")


def test_a_lone_surrogate_is_one_character():
    _, parts = steps_of(GOLD, "\ud800 " + GOLD)
    assert parts[0].startswith("Define red kite")


def test_values_names_and_gold_steps():
    extra = "Define old crow in Fern Hollow as Z; so Z = 1. "
    verdict = fr.grade_texts([GOLD], [extra + GOLD.replace("so B = 3 + m = 3 + 2 = 5", "so B = m")])
    steps = verdict.steps
    assert steps.gold_step.tolist() == [-1, 0, 1, 2]
    assert steps.value.tolist() == [1, 2, 2, 7]
    assert steps.correct.tolist() == [False, True, False, True]
    assert len(set(steps.name.tolist())) == 4
    assert steps.completion.tolist() == [0, 0, 0, 0]
    again = fr.grade_texts([GOLD], [GOLD]).steps
    assert again.name.tolist() == steps.name.tolist()[1:]


def test_values_of_reverse_problems_are_taken_at_the_answer():
    verdict = fr.grade_texts([REVERSE_GOLD], [REVERSE_GOLD])
    assert verdict.steps.value.tolist() == [2, 5, 7]
    wrong = fr.grade_texts([REVERSE_GOLD], [REVERSE_GOLD.replace("Answer: 2", "Answer: 4")])
    assert wrong.steps.value.tolist() == [4, 7, 11]
    assert np.isnan(fr.grade_texts([GOLD], ["Define red kite in Alder Field as q; so q."]).steps.value).all()


def test_the_answer_is_what_was_read():
    texts = [GOLD, GOLD.replace("Answer: 7", "<answer> -3 </answer> Answer: 7"), GOLD.replace("Answer", "So")]
    np.testing.assert_array_equal(fr.grade_texts([GOLD], texts).answer, [7, -3, np.nan])


def test_gold_steps_say_what_is_missing():
    without_first = GOLD.replace("Define red kite in Alder Field as q; so q = 2. ", "")
    twice = "Define red kite in Alder Field as c; so c = 9. " + GOLD
    verdict = fr.grade_texts([GOLD, GOLD], [GOLD, without_first, twice, ""])
    assert verdict.gold_steps.offsets.tolist() == [0, 3, 6, 9, 12]
    assert verdict.gold_steps.found.tolist() == [0, 1, 2, -1, 0, 1, 1, 2, 3, -1, -1, -1]
    assert verdict.num_missing.tolist() == [0, 1, 0, 3]


# --- tokens ---------------------------------------------------------------------------------------------------------


def rows_of(texts: list[str], tokenizer: fr.Tokenizer) -> np.ndarray:
    ids = [tokenizer.encode(text) for text in texts]
    rows = np.full((len(ids), max(map(len, ids)) + 3), tokenizer.pad_id, dtype=np.int32)
    for row, values in zip(rows, ids, strict=True):
        row[: len(values)] = values
    return rows


@pytest.mark.parametrize("theme", ["zoo", "symbolic"])
def test_token_spans_hold_the_text_of_the_step(theme):
    batch = fr.TaskStream(fr.Mixture.uniform(op=range(2, 12), themes=[theme]), seed=2)[0:40]
    tokenizer = fr.Tokenizer.build([theme])
    texts = [f" {solution} garbage" for solution in batch.solutions]
    rows = rows_of(texts, tokenizer)
    steps = fr.grade(batch, rows, tokenizer=tokenizer).steps
    for k, row in enumerate(steps.completion.tolist()):
        text = tokenizer.decode(rows[row][rows[row] != tokenizer.pad_id])
        inside = text[steps.begin[k] : steps.end[k]].strip()
        tokens = tokenizer.decode(rows[row][steps.token_begin[k] : steps.token_end[k]])
        assert inside in tokens
        assert len(tokens) <= len(inside) + 3  # at most a sign and blanks more


def test_token_rewards_lie_on_the_tokens_of_the_steps():
    batch = fr.TaskStream(fr.Mixture.uniform(op=[4], themes=["symbolic"]), seed=0)[0:2]
    tokenizer = fr.Tokenizer.build(["symbolic"])
    rows = rows_of([f" {batch.solutions[0]}", "", f" {batch.solutions[1]}", " nothing"], tokenizer)
    verdict = fr.grade(batch, rows, tokenizer=tokenizer)
    steps = verdict.steps
    values = np.arange(1, len(steps.status) + 1, dtype=np.float32)
    every, last = verdict.token_rewards(values), verdict.token_rewards(values, at="last")
    want_every, want_last = np.zeros(rows.shape, np.float32), np.zeros(rows.shape, np.float32)
    for k, row in enumerate(steps.completion.tolist()):
        want_every[row, steps.token_begin[k] : steps.token_end[k]] = values[k]
        want_last[row, steps.token_end[k] - 1] = values[k]
    np.testing.assert_array_equal(every, want_every)
    np.testing.assert_array_equal(last, want_last)
    assert every.dtype == np.float32
    np.testing.assert_array_equal(verdict.token_rewards() > 0, want_every > 0)


def test_token_rewards_refuse_what_they_cannot_place():
    batch = fr.TaskStream(fr.Mixture.uniform(op=[4], themes=["symbolic"]), seed=0)[0:1]
    with pytest.raises(ValueError, match="texts have no token positions"):
        fr.grade(batch, batch.solutions).token_rewards()
    tokenizer = fr.Tokenizer.build(["symbolic"])
    with pytest.raises(ValueError, match=r"must have shape \[3\], one per step, got \(1,\)"):
        fr.grade(batch, rows_of([f" {batch.solutions[0]}"], tokenizer), tokenizer=tokenizer).token_rewards(np.ones(1))
