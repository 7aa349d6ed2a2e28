"""Numbers and characters of the released scorer in C++: as Python computes and classes them."""

import itertools
import random
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastreason import _core

from .test_released import assert_read_alike

# --- arithmetic as Python does it -----------------------------------------------------------------------------------

KNOWN = "Define b as x; x = -3. Define c as y; 2.5. Define d as T; T = "


def test_every_short_expression_has_pythons_value():
    """Over a small alphabet every second expression of up to four characters, and many longer ones."""
    alphabet, rng = "012+-*/(). xy\n", random.Random(5)
    short = ("".join(characters) for n in range(1, 5) for characters in itertools.product(alphabet, repeat=n))
    long = ("".join(rng.choices(alphabet, k=rng.randrange(5, 14))) for _ in range(15_000))
    for expression in itertools.chain(itertools.islice(short, 0, None, 2), long):
        assert_read_alike(KNOWN + expression + ";")


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
    assert _core.read_released(KNOWN + expression + ";")["steps"][2][1] == value
    assert_read_alike(KNOWN + expression + ";")


def test_a_negative_zero_keeps_its_sign():
    for expression in ("(0 / -1) - 0", "0 - (0 / -1)", "(0 / -1) + 0", "(0 / -1) - (0 / -1)"):
        assert_read_alike(KNOWN + expression + ";")


integers = st.one_of(
    st.integers(0, 20),
    st.integers(0, 2**70),
    st.integers(0, 2**1030),
    # around the halves between two doubles, and around the limbs of the integers
    st.builds(lambda n, shift, d: (n << shift) + d, st.integers(2, 2**54), st.integers(0, 960), st.integers(-2, 2)),
)


@given(numbers=st.lists(integers, min_size=2, max_size=5), data=st.data())
def test_large_integers_are_exact(numbers, data):
    expression = str(numbers[0])
    for number in numbers[1:]:
        operator = data.draw(st.sampled_from(["+", "-", "*", "/", "//", "+", "-"]))
        sign = data.draw(st.sampled_from(["", "-"]))
        expression = f"({expression}) {operator} {sign}{number}"
    assert_read_alike(KNOWN + expression + ";")


@given(
    numbers=st.lists(st.floats(-1e9, 1e9), min_size=2, max_size=4),
    operators=st.lists(st.sampled_from(["+", "-", "*", "/", "//", " "]), min_size=3, max_size=3),
)
def test_floats_are_pythons(numbers, operators):
    """Values enter as the last number of a body, written out."""
    steps = "".join(f"Define v{i} as {'ghij'[i]}; {number:.17f}. " for i, number in enumerate(numbers))
    expression = "g" + "".join(map("".join, zip(operators, "hij"[: len(numbers) - 1], strict=False)))
    assert_read_alike(f"{steps}Define w as T; T = {expression}.")


# --- characters -----------------------------------------------------------------------------------------------------

RANGES = [(0, 0x3100), (0xA000, 0xAC00), (0xF900, 0x12000), (0x16000, 0x17000), (0x1CC00, 0x1FC00)]
CHARACTERS = [chr(code) for first, end in RANGES for code in range(first, end)]
# what this Python's Unicode does not know yet may be classed otherwise
CHARACTERS = [character for character in CHARACTERS if unicodedata.category(character) not in ("Cn", "Cs")]


@pytest.mark.parametrize(
    "pattern",
    [
        "Define A{}Define B as q; q = 3.",  # \b: is it a word character?
        "Define{}b as q; q = 3.",  # \s
        "Define b c{}as q; q = 3.",
        "Define b a{} q; q = 3.",  # as
        "Def{}ne b as q; q = 3.",  # i
        "Define b as b{}c q; q = 3.",  # [A-Za-z] that ignores case
        "Define b as {}; q = 3; no number. Define c as k; k = q.",
        "Define b as q; {} = 3. Define c as k; k = q.",  # [A-Za-z] that does not
        "Define b as q; q = 4 and 1{}.",  # \d
        "Define b as q; q = 2{}+ 5.",  # blanks of an expression
        "Define b as q; q = (2{}+ 5).",
        "Define b as q; q = 7{}.",
        "Define b{} as q; q = 3.",  # trimmed names
        "<answer>{}7",
        "<an{}wer>7</answer>",
    ],
)
def test_every_character_is_classed_as_python_does(pattern):
    for character in CHARACTERS:
        assert_read_alike(pattern.format(character))
