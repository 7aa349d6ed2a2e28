"""Completions as HTML for notebooks, with each step colored by its status."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

_COLORS = {"right": "#1a7f37", "extra": "#818b98", "repeated": "#818b98"}
_WRONG = "#cf222e"


def marked_text(text: str | bytes, spans: Sequence[tuple[int, int, str]]) -> str:
    """HTML of a completion.

    Args:
        text: any text; bytes need not be valid UTF-8.
        spans: (begin, end, status) of each step, in order: right steps are green, extra and repeated ones gray, all
            others red. Hovering over a step shows its status.
    """
    parts, position = [], 0
    for begin, end, status in spans:
        begin = max(begin, position)
        style = f"color:{_COLORS.get(status, _WRONG)};border-bottom:1px solid"
        parts.append(_plain(text[position:begin]))
        parts.append(f'<span style="{style}" title="{escape(status)}">{_plain(text[begin:end])}</span>')
        position = max(position, end)
    return "".join([*parts, _plain(text[position:])])


def _plain(text: str | bytes) -> str:
    return escape(text if isinstance(text, str) else text.decode(errors="replace"))
