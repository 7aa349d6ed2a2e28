"""Completions with their steps coloured by what the verifier says of them, as HTML for notebooks."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

_COLOURS = {"right": "#1a7f37", "extra": "#818b98", "repeated": "#818b98"}
_WRONG = "#cf222e"


def marked_text(text: str | bytes, spans: Sequence[tuple[int, int, str]]) -> str:
    """HTML of a completion.

    Args:
        text: any, also one that is no UTF-8.
        spans: (begin, end, status) of each step, rising: green where right, grey where it does not count, red else. A
            pointer that rests on a step shows its status.
    """
    parts, place = [], 0
    for begin, end, status in spans:
        begin = max(begin, place)
        style = f"color:{_COLOURS.get(status, _WRONG)};border-bottom:1px solid"
        parts.append(_plain(text[place:begin]))
        parts.append(f'<span style="{style}" title="{escape(status)}">{_plain(text[begin:end])}</span>')
        place = max(place, end)
    return "".join([*parts, _plain(text[place:])])


def _plain(text: str | bytes) -> str:
    return escape(text if isinstance(text, str) else text.decode(errors="replace"))
