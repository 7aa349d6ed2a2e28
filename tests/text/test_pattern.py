"""The regular expressions of pre-tokenizers; Hugging Face `tokenizers` is the judge of where a text is cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex
from tokenizers.pre_tokenizers import Split

from fastreason import _core
from fastreason._core import split_pattern

PATTERNS = [
    # GPT-2's, and later ones with possessive repetition, intervals and lookahead
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    r"[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*+|x\s?+y",
    r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    # escaped twice: letters and braces instead of classes
    r"\\[A-Za-z]+|\\.|<=|->|[_^]|[{}()\\[\\]]|(?<![\\p{L}\\p{N}])\\p{N}{1,3}| ?\\p{L}+| ?[^\\s\\p{L}\\p{N}]+|\\s+",
    # backtracking: into runs, groups, lookaround
    r"a+ab|(?:ab)+a|(?:a|b){2,3}x?",
    r"(?<=a)b+|(?<!a)c|a(?=b)|x{,2}y",
    r"(?:[_,]\p{N}{1,3})*a|\p{N}{2}(?:\.\p{N}+)?(?:[eE][+-]?\p{N}+)?",
    # nested and negated classes, hexadecimal characters, braces that are no interval
    r"[^a[bc\s]]+|[\x{e9}-\x{ff}]\x41?|a{x}|[\u00e9\t-\r-]",
    r"\P{L}\S|\S\P{N}?|[^\S\n]+|(a|b)+(?!c)",
]
TEXT = st.one_of(
    st.text(alphabet="abcxyspLN\\{}()[]<=->_^ \t\n\r0129.,eE+é\u00a0\u3000²Ⅷ数", max_size=40),
    st.text(max_size=20),
)


@pytest.mark.parametrize("pattern", PATTERNS)
@given(text=TEXT)
def test_cuts_are_those_of_tokenizers(pattern, text):
    text = text.encode("utf-8", "ignore").decode()
    want = [piece for piece, _ in Split(Regex(pattern), "isolated").pre_tokenize_str(text)]
    assert [piece.decode() for piece in split_pattern(pattern, text)] == want


@pytest.mark.parametrize("name", [r"\p{L}", r"\p{N}", r"\s"])
def test_every_code_point_is_classed_as_tokenizers_does(name):
    # a letter, a number and a blank as neighbours show where the class ends
    points = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000 and c != 1]
    text = "".join(chr(c) + "\x01" for c in points)
    want = {piece for piece, _ in Split(Regex(name), "isolated").pre_tokenize_str(text)}
    assert {piece.decode() for piece in split_pattern(name, text)} == want


@given(text=st.binary(max_size=60), pattern=st.sampled_from(PATTERNS))
def test_any_bytes_are_cut_without_loss(text, pattern):
    pieces = split_pattern(pattern, text)
    assert b"".join(pieces) == text and all(pieces)


def test_a_long_text_needs_no_deep_stack():
    text = "ab" * 200_000
    assert split_pattern(r"(?:ab)+c|(?:a|b)+", text) == [text.encode()]


@pytest.mark.parametrize(
    "pattern, message",
    [
        (r"(?i:a)", r"a group '\(\?i:' is not supported"),
        (r"a*", "an alternative that matches the empty text"),
        (r"(?:a*)*b", "endless repetition of what may be empty"),
        (r"a+?b", "lazy repetition"),
        (r"a{2}+b", "repetition of a repetition"),
        (r"(?:ab)++", "possessive repetition of a group"),
        (r"^a", "an anchor"),
        (r"\bword", r"\\b is not supported"),
        (r"\d+", r"\\d is not supported"),
        (r"\p{Lu}", "a property other than"),
        (r"[a&&b]", "an intersection of classes"),
        (r"[[:alpha:]]", "a class by name"),
        (r"(?<!ab)c", "a lookbehind by other than one character"),
        (r"(a", r"'\(' without '\)'"),
        (r"a)", r"'\)' without '\('"),
        (r"[a", "an end in the middle of an expression"),
        ("\\", "an end in the middle of an expression"),
        (r"[b-a]", "such a range"),
        (r"a{3,2}", "such an interval"),
        ("(" * 60 + ")" * 60, "nesting deeper than 50"),
        ("(?:" * 5 + "abc" + "){9}" * 5, "so long an expression"),
        ("|".join("abcdefgh" * 9), "more than 64 alternatives"),
    ],
)
def test_what_is_not_understood_is_named(pattern, message):
    with pytest.raises(ValueError, match=message):
        split_pattern(pattern, "a")


@pytest.mark.parametrize(
    "pattern", [r"(?:a+)+b", r"(?:a|aa)+b", r"(?:a+a+)+b", r"(?:(?:a|a)*[ab])+c", r"(?=(?:a+)+b)a", r"a+a+a+a+a+b"]
)
def test_a_pattern_without_end_is_an_error(pattern):
    """The first three take 2^n steps over n letters, the last n^5 and, from every place on, n^6."""
    with pytest.raises(RuntimeError, match="regular expression: it goes back and forth over this text without end"):
        split_pattern(pattern, "a" * 5000)
    assert split_pattern(pattern, "aab") and split_pattern(pattern, "c" * 5000)


@pytest.mark.parametrize(
    "pattern, message",
    [
        ("a" * 70_000, "more than 65536 bytes is not supported"),
        ("(?:" + "a|" * 20_000 + "b)", "so long an expression"),
        ("a|" * 20_000 + "b", "so long an expression"),
        ("(?:" * 3 + "ab" + "){1,999}" * 3, "so long an expression"),
        ("(?=" * 60 + "a" + ")" * 60, "nesting deeper than 50"),
        ("[" * 60 + "a" + "]" * 60, "nesting deeper than 50"),
        ("a{99999999999999999999}", "such an interval"),
    ],
)
def test_an_expression_too_large_is_refused(pattern, message):
    with pytest.raises(ValueError, match=message):
        split_pattern(pattern, "a")


def test_many_classes_are_read_in_time():
    """Of 4,000 ranges each: what one run could read of the other is found in one pass over both."""
    odd = "".join(chr(0x4E00 + 2 * i) for i in range(4000))
    even = "".join(chr(0x4E01 + 2 * i) for i in range(4000))
    assert split_pattern(f"[{odd}]+[{even}]+", odd[:2] + even[:2])[0].decode() == odd[:2] + even[:2]


def test_so_many_patterns_are_refused():
    """Each cuts the pieces of the one before, by recursion."""
    parts = dict(words=[b"a"], byte_ids=[0] * 256, merges=[], specials=[], padding_id=-1, end_id=-1)
    with pytest.raises(ValueError, match="at most 64 patterns may cut a text, got 100000"):
        _core.BytePairTokenizer(**parts, patterns=["a"] * 100_000)
