"""What `help` says of a settings class: the sentence under each field, which Python itself forgets."""

from __future__ import annotations

import ast
import inspect
import textwrap
from dataclasses import MISSING, Field, fields
from itertools import pairwise
from typing import Any, TypeVar

T = TypeVar("T")


def explain_fields(cls: type[T]) -> type[T]:
    """Adds to the docstring of a dataclass its fields, each with type, default and the sentence that stands under it.

    The heading is one that readers of docstrings know, so that the flags of the command line keep their help.

    >>> from fastreason import Cell
    >>> Cell.__doc__.splitlines()[2:4]
    ['Attributes:', '    op (int): Arithmetic operations, the exact difficulty.']
    """
    sentences = _sentences(cls)
    lines = [textwrap.dedent(f"    {cls.__doc__}").strip(), "", "Attributes:"]
    for field in fields(cls):  # type: ignore[arg-type]
        sentence = " ".join(sentences.get(field.name, "").split())
        text = f"{field.name} ({field.type}{_default(field)}): {sentence}"
        lines += textwrap.wrap(text, 112, initial_indent=" " * 4, subsequent_indent=" " * 8)
    cls.__doc__ = "\n".join(lines)
    return cls


def _default(field: Field[Any]) -> str:
    simple = isinstance(field.default, str | int | float | None)
    return f" = {field.default!r}" if simple and field.default is not MISSING else ""


def _sentences(cls: type[Any]) -> dict[str, str]:
    """The string behind each annotated name of the class's source; none where there is no source."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    except (OSError, TypeError):
        return {}
    body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
    found = {}
    for statement, after in pairwise(body):
        is_text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and is_text:
            found[statement.target.id] = str(after.value.value)  # type: ignore[attr-defined]
    return found
