"""What each kind of damage to a solution costs: at every level, and in the status of every step."""

import numpy as np
import pytest

import fastreason as fr
from fastreason import StepStatus
from tests.grading.gold import GOLD, REVERSE_GOLD, REVERSE_LAST_STEP, REVERSE_TAIL, SYMBOLIC_GOLD

STATUS = dict(
    R=StepStatus.RIGHT,
    W=StepStatus.WRONG_VALUE,
    P=StepStatus.WRONG_PARENTS,
    O=StepStatus.WRONG_OPERATOR,
    S=StepStatus.ARITHMETIC_SLIP,
    N=StepStatus.UNREADABLE,
    U=StepStatus.UNDEFINED_VARIABLE,
    D=StepStatus.REPEATED,
    X=StepStatus.EXTRA,
)


# what replaces what; (v)erified, (s)ound, (a)nswer right; process accuracy; the status of every step
@pytest.mark.parametrize(
    "gold, old, new, levels, accuracy, statuses",
    [
        (GOLD, "", "", "vsa", 1, "RRR"),
        # a wrong constant; the step behind it computes with another number than the letter has
        (GOLD, "so q = 2", "so q = 4", "..a", 2 / 3, "WSS"),
        # a wrong constant carried on faithfully
        (
            GOLD,
            "so q = 2. Define grey owl in Alder Field as B; m = q = 2; so B = 3 + m = 3 + 2 = 5",
            "so q = 4. Define grey owl in Alder Field as B; m = q = 4; so B = 3 + m = 3 + 4 = 7",
            "..a",
            1 / 3,
            "WWS",
        ),
        # a parent left out, the value kept
        (GOLD, "T = q + B = 2 + 5 = 7", "T = B = 7", "..a", 2 / 3, "RRP"),
        # a number instead of its letter gives no parent
        (GOLD, "T = q + B", "T = 2 + B", "..a", 2 / 3, "RRP"),
        # a step left out: its variable means nothing later on
        (GOLD, "Define red kite in Alder Field as q; so q = 2. ", "", "..a", 0, "UU"),
        # another name: missing and extra, and a wrong parent behind it
        (GOLD, "Define red kite", "Define blue kite", "..a", 0, "XPP"),
        (GOLD, "Answer: 7", "Answer: 8", "...", 1, "RRR"),
        (GOLD, "Answer: 7.", "", "...", 1, "RRR"),
        # an extra step does not matter, unless what it prints is wrong
        (GOLD, "Answer", "Define grey owl in Fern Hollow as Z; so Z = 1. Answer", "vsa", 1, "RRRX"),
        (GOLD, "Answer", "Define grey owl in Fern Hollow as Z; so Z = T + 1 = 7 + 1 = 9. Answer", "v.a", 1, "RRRX"),
        (GOLD, "Answer", "Define grey owl in Fern Hollow as Z; so Z = w = 9. Answer", "v.a", 1, "RRRX"),
        # a name defined twice: the last one counts, but the first one is wrong all the same
        (GOLD, "Define red", "Define red kite in Alder Field as c; so c = 9. Define red", "v.a", 1, "DRRR"),
        (GOLD, "Define red", "Define red kite in Alder Field as c; so c = 2. Define red", "vsa", 1, "DRRR"),
        # only the end of a chain is compared: a wrong operator or number inside passes, and is not sound
        (GOLD, "q + B = 2 + 5 = 7", "q - B = 9 + 9 = 7", "v.a", 1, "RRO"),
        (GOLD, "q + B = 2 + 5 = 7", "q + B = 9 + 9 = 7", "v.a", 1, "RRS"),
        (GOLD, "q + B = 2 + 5 = 7", "q + B = 2 - 5 = 7", "v.a", 1, "RRS"),
        (GOLD, "q + B = 2 + 5 = 7", "q + B = = 7", "v.a", 1, "RRN"),
        (GOLD, "so B = 3 + m = 3 + 2", "so B = 2 + m = 3 + 2", "v.a", 1, "ROR"),
        (GOLD, "so B = 3 + m = 3 + 2", "so B = 3 * m = 3 + 2", "v.a", 1, "ROR"),
        # the order of terms, and the way they are grouped, change no meaning
        (GOLD, "q + B = 2 + 5 = 7", "(B) + q = 5 + 2 = 7", "vsa", 1, "RRR"),
        (GOLD, "m = q = 2; so B = 3 + m = 3 + 2 = 5", "so B = q + 3 = 2 + 3 = 5", "vsa", 1, "RRR"),
        # a chain without a number at its end is computed
        (GOLD, "q + B = 2 + 5 = 7", "q + B", "vsa", 1, "RRR"),
        # "a" for "as", filler words, any case of "define"
        (GOLD, "Define red kite in Alder Field as q;", "DEFINE red kite in Alder Field a variable q;", "vsa", 1, "RRR"),
        # blanks and line breaks inside a name
        (GOLD, "red kite in Alder Field as", "red  kite\nin Alder Field as", "vsa", 1, "RRR"),
        # a header without a letter is lost with its body, the next one survives
        (GOLD, "as q; so q", "as qq; so q", "..a", 0, "UU"),
        # words between equalities may pass, equalities that belong to no step may not
        (GOLD, "so T =", "thus we see; so T =", "vsa", 1, "RRR"),
        (GOLD, "so T =", "9 = 9; so T =", "v.a", 1, "RRN"),
        (GOLD, "Define red", "Well, 1 = 1. Define red", "v.a", 1, "RRR"),
        (GOLD, "Define red", "Define a thing as 1 = 2. Define red", "v.a", 1, "RRR"),
        # the variable of a step must be given once
        (GOLD, "T = q + B = 2 + 5 = 7", "T = q + B = 2 + 5 = 7; so T = q + B = 2 + 5 = 7", "v.a", 1, "RRN"),
        (SYMBOLIC_GOLD, "", "", "vsa", 1, "RRR"),
        (SYMBOLIC_GOLD, "Ba: 2.", "Ba: 4.", "..a", 2 / 3, "WSS"),
        (SYMBOLIC_GOLD, "B: Ba + Be", "B: Be", "..a", 2 / 3, "RRP"),
        (SYMBOLIC_GOLD, "Ba: 2. ", "", "..a", 0, "UU"),
        (SYMBOLIC_GOLD, "Ba: 2.", "Ca: 2.", "..a", 0, "XUU"),
        (SYMBOLIC_GOLD, "Ba: 2.", "Ba: 9. Ba: 2.", "v.a", 1, "DRRR"),
        (SYMBOLIC_GOLD, "Ba: 2.", "Ga: 1. Ba: 2.", "vsa", 1, "XRRR"),
        (SYMBOLIC_GOLD, "= 2 + 5 = 7", "= 2 + 5 = 8", "..a", 2 / 3, "RRS"),
        (SYMBOLIC_GOLD, "= 2 + 5 = 7", "= 2 + 5", "vsa", 1, "RRR"),
        (SYMBOLIC_GOLD, "= 2 + 5 = 7", "= 2 + 6 = 7", "v.a", 1, "RRS"),
        (SYMBOLIC_GOLD, "Be: 3 + Ba", "Be: 3 * Ba", "v.a", 1, "ROR"),
        (SYMBOLIC_GOLD, "B: Ba", "3 = 3. B: Ba", "v.a", 1, "RRR"),
        (SYMBOLIC_GOLD, "Answer: 7.", "<answer> 7 </answer>", "vsa", 1, "RRR"),
        (SYMBOLIC_GOLD, "Answer: 7.", "<answer> 6 </answer> Answer: 7.", "...", 1, "RRR"),
        # the equation at the end of a reverse solution
        (REVERSE_GOLD, "", "", "vsa", 1, "RRR"),
        (REVERSE_GOLD, "2*x = 4. Divide", "2*x = 5. Divide", "v.a", 1, "RRR"),
        (REVERSE_GOLD, "We know T = 7", "We know T = 8", "v.a", 1, "RRR"),
        (REVERSE_GOLD, "We know T", "We know B", "v.a", 1, "RRR"),
        (REVERSE_GOLD, "2*x - 4 = 0", "2*x - 3 = 0", "v.a", 1, "RRR"),
        (REVERSE_GOLD, "x = 4 / 2", "x = 4 / 4", "v.a", 1, "RRR"),
        (REVERSE_GOLD, "Solution: x = 2", "Solution: x = 3", "v.a", 1, "RRR"),
        (REVERSE_GOLD, REVERSE_TAIL, "", "v.a", 1, "RRR"),
        (REVERSE_GOLD, "Answer", "So x = 2. Answer", "v.a", 1, "RRR"),
        (REVERSE_GOLD, "We know T = 7", "We know\n  T  =  7", "vsa", 1, "RRR"),
        (REVERSE_GOLD, "we don't know its", "we  don't\nknow its", "vsa", 1, "RRR"),
        # all of it once more
        (REVERSE_GOLD, "Answer", f"{REVERSE_LAST_STEP} Answer", "vsa", 1, "RRDR"),
        (REVERSE_GOLD, "Answer", f"{REVERSE_LAST_STEP.replace('4 = 0', '3 = 0')} Answer", "v.a", 1, "RRDR"),
        (REVERSE_GOLD, "= x + x + 3 = 2*x + 3", "= x + x + 3 = 2*x + 4", "..a", 2 / 3, "RRS"),
        # right at x = 2 alone
        (REVERSE_GOLD, "3 + x = x + 3.", "3 + x = 2*x + 1.", "v.a", 1, "RSS"),
        (REVERSE_GOLD, "3 + x = x + 3.", "3 + x = x*x + 1.", "v.a", 1, "RSS"),
        # the unknown must stay unknown
        (REVERSE_GOLD, "x; we don't know its value yet but will find it out later", "x; so x = 2", "v.a", 1, "ORS"),
        (REVERSE_GOLD, "Answer: 2", "Answer: 3", "...", 0, "WWW"),
    ],
)
def test_a_corruption_costs_what_it_should(gold, old, new, levels, accuracy, statuses):
    assert old in gold
    verdict = fr.grade_texts([gold], [gold.replace(old, new, 1)])
    assert verdict.steps.status.tolist() == [STATUS[letter] for letter in statuses]
    got = {"v": verdict.verified[0], "s": verdict.sound[0], "a": verdict.answer_correct[0]}
    assert {letter for letter, value in got.items() if value} == set(levels) - {"."}
    np.testing.assert_allclose(verdict.process_accuracy, [accuracy], rtol=1e-6)
