"""Tables of the documentation, and where they are put."""

import pytest

from bench.harness.markdown import KERNEL_DOCS, markdown, put_between_marks, short


def test_columns_are_as_wide_as_their_widest_cell():
    assert markdown(["a", "long head"], [["name", 1], ["b", "two"]]).splitlines() == [
        "| a    | long head |",
        "| ---- | --------: |",
        "| name |         1 |",
        "| b    |       two |",
    ]


def test_numbers_have_three_digits_and_their_thousands_marked():
    assert [short(x) for x in (1234567, 999.9, 12.34, 0.012345, 0)] == ["1,230,000", "1,000", "12.3", "0.0123", "0"]


def test_text_between_marks_is_replaced_and_nothing_else(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n\n<!-- audit -->\n\nold\n\n<!-- /audit -->\nafter\n")
    put_between_marks(page, "audit", "| new |")
    put_between_marks(page, "audit", "| newer |")
    assert page.read_text() == "before\n\n<!-- audit -->\n\n| newer |\n\n<!-- /audit -->\nafter\n"


def test_a_page_without_marks_is_refused(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("nothing")
    with pytest.raises(ValueError, match="needs the lines <!-- audit --> and <!-- /audit -->"):
        put_between_marks(page, "audit", "x")
    assert page.read_text() == "nothing"


@pytest.mark.parametrize("mark", ["audit", "traffic"])
def test_the_documentation_has_its_marks(mark):
    text = KERNEL_DOCS.read_text(encoding="utf-8")
    assert text.count(f"<!-- {mark} -->\n") == text.count(f"<!-- /{mark} -->\n") == 1
