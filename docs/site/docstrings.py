"""Docstrings as mkdocstrings reads them: an empty line before each section, and examples as code."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

_SECTION = re.compile(r"(?<!\n)\n( *)(?=(?:Args|Attributes|Returns|Yields|Raises):\n)")
_EXAMPLE = re.compile(r"^( *)>>> .*(?:\n\1\S.*)*", flags=re.M)


class Sections(Extension):
    """Applied to every documented object."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        if obj.docstring is not None:
            text = _SECTION.sub(r"\n\n\1", obj.docstring.value)
            obj.docstring.value = _EXAMPLE.sub(_fenced, text)


def _fenced(match: re.Match[str]) -> str:
    return f"{match[1]}```pycon\n{match[0]}\n{match[1]}```"
