"""Whether a value is what an annotation says; for settings that are built in Python, where nothing else checks them.

Stricter than `isinstance` where Python is lax (a bool is no number, a string no list of its letters) and laxer where it
is pedantic (numpy's numbers are numbers, an int is a float, a tuple is a list).
"""

from __future__ import annotations

import numbers
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import numpy as np


def fits(value: Any, hint: Any) -> bool:
    """Whether `value` is what the annotation `hint` says; of containers every item.

    >>> fits(True, int), fits(np.int64(3), int | None), fits(3, float), fits("ab", list[str]), fits("a", Literal["a"])
    (False, True, True, False, True)
    """
    origin, inner = get_origin(hint) or hint, get_args(hint)
    if origin is Annotated:
        return fits(value, inner[0])
    if origin in (Union, UnionType):
        return any(fits(value, each) for each in inner)
    if origin is Literal:
        return isinstance(value, str | int | None) and value in inner
    if origin in (list, tuple, Sequence):
        return _is_list(value, origin, inner)
    if origin in (dict, Mapping):
        return isinstance(value, Mapping) and all(fits(x, t) for item in value.items() for x, t in zip(item, inner))  # noqa: B905
    return _is_one(value, origin)


def _is_list(value: Any, origin: Any, inner: tuple[Any, ...]) -> bool:
    if isinstance(value, Mapping):  # one part of a mixture stands for a list of it
        return bool(inner) and (get_origin(inner[0]) or inner[0]) is dict and fits(value, inner[0])
    if not isinstance(value, list | tuple):
        return False
    if origin is tuple and Ellipsis not in inner:
        return len(value) == len(inner) and all(map(fits, value, inner))
    return not inner or all(fits(item, inner[0]) for item in value)


def _is_one(value: Any, kind: Any) -> bool:
    if isinstance(value, bool | np.bool_):
        return kind in (bool, Any)
    if kind in (int, float):
        return isinstance(value, numbers.Integral if kind is int else numbers.Real)
    if kind is Path:
        return isinstance(value, str | os.PathLike)
    return kind is Any or not isinstance(kind, type) or isinstance(value, kind)


_WORDS = {int: "an integer", float: "a number", str: "a string", bool: "True or False"}
_WORDS[Path] = "a path"
_PLURALS, _COUNTS = {int: "integers", float: "numbers", str: "strings"}, {2: "two", 3: "three"}


def describe(hint: Any) -> str:
    """An annotation in words, as errors say it; None, which stands for "not given", is left out.

    >>> describe(Literal["a", "b"] | None), describe(list[int])
    ('one of a, b', 'a list, each item an integer')
    """
    origin, inner = get_origin(hint) or hint, get_args(hint)
    if origin is Annotated:
        return describe(inner[0])
    if origin in (Union, UnionType):
        return " or ".join(describe(each) for each in inner if each is not NoneType)
    if origin is Literal:
        return f"one of {', '.join(map(str, inner))}"
    if origin is tuple and Ellipsis not in inner:
        return f"{_COUNTS.get(len(inner), len(inner))} {_PLURALS.get(inner[0], 'values')}"
    if origin in (list, tuple, Sequence):
        return f"a list, each item {describe(inner[0])}" if inner and inner[0] is not Any else "a list"
    if origin in (dict, Mapping):
        return "a dict" if len(inner) < 2 or inner[1] is Any else f"a dict, each value {describe(inner[1])}"
    return _WORDS.get(origin) or f"of type {getattr(origin, '__name__', origin)}"
