"""Checks of numeric arguments: accepted as they are or rejected, never cast, rounded or wrapped.

Every error is a ValueError that names the argument, what is allowed and the value. Integers may be Python's, numpy's or
single-element tensors; bools are rejected, as are floats with an integral value, and NaN is never a number.
"""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

INT64_MAX = 2**63 - 1
UINT64_MAX = 2**64 - 1
_MOST_OF_SLICE = 2**40


def integer(name: str, value: Any, low: int = -INT64_MAX, high: int = INT64_MAX) -> int:
    """`value` as an int in low .. high.

    >>> integer("n", np.int32(3), 1)
    3
    >>> integer("n", 2.0, 1)
    Traceback (most recent call last):
    ValueError: n must be an integer >= 1, got 2.0
    """
    allowed = f"an integer {_interval(low, high)}"
    if isinstance(value, bool | np.bool_):
        _refuse(name, allowed, value)
    try:
        result = operator.index(value)
    except (TypeError, ValueError, RuntimeError):  # the last two from torch, for tensors
        _refuse(name, allowed, value)
    if not low <= result <= high:
        _refuse(name, allowed, value)
    return result


def integers(name: str, values: Any, low: int, high: int = INT64_MAX) -> np.ndarray:
    """int64 array with the shape of `values`, which is an array, a tensor or nested lists of integers in low .. high.

    >>> integers("ids", [1, 2], 0)
    array([1, 2])
    >>> integers("ids", [1.9], 0)
    Traceback (most recent call last):
    ValueError: ids must be integers >= 0, got float64 [1.9]
    """
    allowed = f"integers {_interval(low, high)}"
    try:
        array = np.asarray(values.cpu() if hasattr(values, "cpu") else values)  # a torch tensor may be on a GPU
    except (TypeError, ValueError, RuntimeError):  # ragged lists; tensors with a gradient
        _refuse(name, allowed, values)
    if array.size == 0 and array.dtype.kind == "f":  # an empty list
        return np.zeros(array.shape, dtype=np.int64)
    hidden_bools = isinstance(values, list | tuple) and any(isinstance(x, bool | np.bool_) for x in values)
    if array.dtype.kind not in "iu" or hidden_bools:
        # Python integers beyond 64 bits give an array of objects
        _refuse(name, allowed, array, array.dtype)
    if array.size and not low <= int(array.min()) <= int(array.max()) <= high:
        outside = int(array.min()) if int(array.min()) < low else int(array.max())
        _refuse(name, allowed, outside)
    return array.astype(np.int64, copy=False)


def listed(name: str, values: Any) -> list[Any]:
    """`values` as a list; a single string, which Python would split into characters, is an error,
    as is a dict.

    >>> listed("themes", ("zoo", "school"))
    ['zoo', 'school']
    >>> listed("themes", "zoo")
    Traceback (most recent call last):
    ValueError: themes must be a list, got 'zoo'
    """
    if isinstance(values, str | bytes | Mapping):  # which iterate, but over letters and keys
        _refuse(name, "a list", values)
    try:
        return list(values)
    except TypeError:
        _refuse(name, "a list", values)


def texts(name: str, values: Any) -> list[Any]:
    """`values` as a list, whose items must be strings or bytes.

    >>> texts("completions", ["a", 3])
    Traceback (most recent call last):
    ValueError: completions[1] must be a string or bytes, got 3
    """
    items = listed(name, values)
    if not set(map(type, items)) <= {str, bytes}:
        for i, item in enumerate(items):
            if not isinstance(item, str | bytes):
                _refuse(f"{name}[{i}]", "a string or bytes", item)
    return items


def number(name: str, value: Any, low: float = -math.inf, high: float = math.inf, *, above_low: bool = False) -> float:
    """`value` as a finite float in low .. high, excluding `low` itself with `above_low`.

    >>> number("top_p", 0.5, 0, 1, above_low=True)
    0.5
    >>> number("temperature", float("nan"), 0)
    Traceback (most recent call last):
    ValueError: temperature must be a number >= 0, got nan
    """
    interval = f"> {low:g}" + ("" if high == math.inf else f" and <= {high:g}") if above_low else _interval(low, high)
    allowed = f"a number {interval}".rstrip()
    if isinstance(value, bool | np.bool_ | str | bytes):
        _refuse(name, allowed, value)
    try:
        result = float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        _refuse(name, allowed, value)
    if not math.isfinite(result) or not low <= result <= high or (above_low and result == low):
        _refuse(name, allowed, value)
    return result


def indices(name: str, key: Any, most: int = INT64_MAX) -> np.ndarray:
    """int64 [n]: the indices in 0 .. most that a subscript selects, in order.

    Args:
        name: of the argument, for messages.
        key: an index; a slice with an end; a 1-D array or a list of indices, or a boolean mask.
        most: the largest allowed index.
    Raises:
        ValueError: the key is something else, an index is out of range, or a slice has step 0.

    >>> indices("rows", [True, False, True]), indices("rows", slice(2, 7, 2))
    (array([0, 2]), array([2, 4, 6]))
    """
    if isinstance(key, slice):
        return _of_slice(name, key, most)
    array = key if isinstance(key, np.ndarray) else None
    if isinstance(key, list | tuple) and key and all(isinstance(x, bool | np.bool_) for x in key):
        array = np.asarray(key)
    if array is None and hasattr(key, "__array__") and not np.isscalar(key):
        array = np.asarray(key)
    if array is not None and array.dtype == np.bool_ and array.ndim == 1:
        return np.flatnonzero(array)
    if not isinstance(key, list | tuple) and (array is None or array.ndim == 0):
        return np.array([integer(f"{name}: an index", key, 0, most)], dtype=np.int64)
    selected = integers(f"{name}: indices", key, 0, most)
    if selected.ndim != 1:
        raise ValueError(f"{name}: indices must be 1-D, got shape {list(selected.shape)}")
    return selected


def _of_slice(name: str, key: slice, most: int) -> np.ndarray:
    if key.stop is None:
        raise ValueError(f"{name}: a slice needs an end, got {key}")
    start = 0 if key.start is None else integer(f"{name}: the start of a slice", key.start, 0, most + 1)
    stop = integer(f"{name}: the end of a slice", key.stop, 0, most + 1)
    step = 1 if key.step is None else integer(f"{name}: the step of a slice", key.step, -INT64_MAX)
    if step == 0:
        raise ValueError(f"{name}: the step of a slice must not be 0, got {key}")
    if step < 0 and start > most:
        raise ValueError(f"{name}: the start of a slice must be an integer {_interval(0, most)}, got {start}")
    wanted = range(start, stop, step)
    if not wanted:
        return np.zeros(0, dtype=np.int64)
    count = (wanted[-1] - start) // step + 1
    if count > _MOST_OF_SLICE:
        raise ValueError(f"{name}: a slice of {count} does not fit into memory, got {key}")
    return start + step * np.arange(count, dtype=np.int64)


def _interval(low: float, high: float) -> str:
    if high in (INT64_MAX, math.inf):
        return "" if low in (-INT64_MAX, -math.inf) else f">= {as_written(low)}"
    return f"in {as_written(low)} .. {as_written(high)}"


def as_written(n: float) -> str:
    """A bound as text, with 2**63 - 1 and -2**31 in that form."""
    if isinstance(n, int) and n >= 2**31 - 1 and (n + 1) & n == 0:
        return f"2**{(n + 1).bit_length() - 1} - 1"
    if isinstance(n, int) and n <= -(2**31) and -n & (-n - 1) == 0:
        return f"-2**{(-n).bit_length() - 1}"
    return f"{n:g}" if isinstance(n, float) else str(n)


def instance(name: str, value: Any, *kinds: type) -> Any:
    """`value`, which must be an instance of one of `kinds`.

    >>> instance("tokenizer", "zoo", np.ndarray, dict)
    Traceback (most recent call last):
    ValueError: tokenizer must be a ndarray or dict, got 'zoo'
    """
    if not isinstance(value, kinds):
        _refuse(name, f"a {' or '.join(kind.__name__ for kind in kinds)}", value)
    return value


def choice(name: str, value: Any, allowed: Sequence[str]) -> str:
    """`value`, which must be one of `allowed`.

    >>> choice("engine", "auto", ("auto", "cpp"))
    'auto'
    """
    if not isinstance(value, str) or value not in allowed:
        _refuse(name, f"one of {', '.join(allowed)}", value)
    return value


def path(name: str, value: Any) -> Path:
    """`value`, a string or a path object, as a Path."""
    if not isinstance(value, str | os.PathLike):
        _refuse(name, "a path", value)
    return Path(value)


def flags(name: str, values: Any) -> np.ndarray:
    """bool array with the shape of `values`, which is a bool, or an array, a tensor or nested lists of bools."""
    try:
        array = np.asarray(values.cpu() if hasattr(values, "cpu") else values)
    except (TypeError, ValueError, RuntimeError):  # ragged lists
        _refuse(name, "bools", values)
    if array.dtype != np.bool_ and array.size:
        _refuse(name, "bools", values)
    return array.astype(np.bool_, copy=False)


def _refuse(name: str, allowed: str, value: Any, dtype: Any = None) -> NoReturn:
    text = np.array2string(value, threshold=8, edgeitems=2) if isinstance(value, np.ndarray) else repr(value)
    kind = f"{dtype} " if dtype is not None else ""
    raise ValueError(f"{name} must be {allowed.strip()}, got {kind}{' '.join(text.split())[:100]}")
