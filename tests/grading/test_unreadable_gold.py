"""A gold that cannot be read is an error or a named state, never a verdict of wrong."""

import numpy as np
import pytest

import fastreason as fr
from tests.grading.gold import GOLD, SYMBOLIC_GOLD

NO_ANSWER = GOLD.replace("Answer: 7.", "")


@pytest.mark.parametrize("gold, what", [(NO_ANSWER, "answer"), ("", "answer"), ("7", "answer"), ("Answer: 7.", "step")])
@pytest.mark.parametrize("per_gold", [1, 3])
def test_it_is_an_error_that_names_it(gold, what, per_gold):
    golds = [GOLD, SYMBOLIC_GOLD, gold, gold]
    with pytest.raises(ValueError, match=rf"grade_texts: gold_solutions\[2\] has no readable {what}: '{gold[:9]}"):
        fr.grade_texts(golds, [GOLD] * 4 * per_gold)


def test_or_it_is_marked():
    verdicts = fr.grade_texts([GOLD, NO_ANSWER, "Answer: 7."], [GOLD] * 6, unreadable_gold="mark")
    assert verdicts.gold_readable.tolist() == [True, True, False, False, False, False]
    assert verdicts.verified.tolist() == verdicts.gold_readable.tolist()
    np.testing.assert_array_equal(verdicts.gold_steps.answer, [7, 7, np.nan, np.nan, 7, 7])
    with pytest.raises(ValueError, match='unreadable_gold must be "error" or "mark", got \'skip\''):
        fr.grade_texts([GOLD], [GOLD], unreadable_gold="skip")


def test_what_the_stream_says_is_readable():
    batch = fr.TaskStream(fr.Mixture.uniform(op=[2, 5], themes=["zoo", "symbolic"]), seed=0)[0:8]
    verdicts = fr.grade(batch, [""] * 16)
    assert verdicts.gold_readable.all()
    np.testing.assert_array_equal(verdicts.gold_steps.answer, np.repeat(batch.answers, 2))
