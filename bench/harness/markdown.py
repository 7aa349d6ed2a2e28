"""Markdown tables, and where they stand in the documentation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

__all__ = ["KERNEL_DOCS", "markdown", "put_between_marks", "short"]

KERNEL_DOCS = Path(__file__).parents[2] / "docs" / "kernels.md"


def markdown(head: Sequence[str], rows: Sequence[Sequence[object]], align: str = "") -> str:
    """A table with columns as wide as their widest cells.

    Args:
        align: < or > for each column; default: columns after the first are right-aligned.
    """
    align = align or "<" + ">" * (len(head) - 1)
    cells = [list(head), *([str(cell) for cell in row] for row in rows)]
    widths = [max(3, *(len(row[column]) for row in cells)) for column in range(len(head))]
    lines = ["| " + " | ".join(f"{cell:{align[i]}{widths[i]}}" for i, cell in enumerate(row)) + " |" for row in cells]
    rule = (
        "| " + " | ".join("-" * (w - (a == ">")) + ":" * (a == ">") for w, a in zip(widths, align, strict=True)) + " |"
    )
    return "\n".join([lines[0], rule, *lines[1:]])


def short(value: float) -> str:
    """Three significant digits, with thousands marked.

    >>> short(1234567.0), short(0.012345)
    ('1,230,000', '0.0123')
    """
    digits = f"{float(f'{value:.3g}'):,.10f}".rstrip("0").rstrip(".")
    return digits if value else "0"


def put_between_marks(path: Path, mark: str, text: str) -> None:
    """Replaces the text between `<!-- mark -->` and `<!-- /mark -->` in a file.

    Raises:
        ValueError: the file does not have both marks once, in order.
    """
    before, begin, rest = path.read_text(encoding="utf-8").partition(f"<!-- {mark} -->\n")
    _, end, after = rest.partition(f"<!-- /{mark} -->")
    if not begin or not end:
        raise ValueError(f"{path}: needs the lines <!-- {mark} --> and <!-- /{mark} -->")
    path.write_text(f"{before}{begin}\n{text}\n\n{end}{after}", encoding="utf-8")
