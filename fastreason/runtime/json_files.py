"""JSON files: foreign files, read with type checks, and our own, which never contain NaN or infinities.

Input files are untrusted. The result is an object of the requested types, or one ValueError that names the file and
field; size, nesting depth and numbers are bounded.
"""

from __future__ import annotations

import functools
import json
import math
import os
import reprlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import TypeAdapter

MAX_MB = 16
"""Default limit on the size of a file, in MB of 10^6 bytes."""

_shortener = reprlib.Repr()
_shortener.maxlevel, _shortener.maxstring, _shortener.maxother, _shortener.maxlong = 3, 80, 80, 40


def shown(value: Any) -> str:
    """A value for an error message: its repr, shortened if it is long or deeply nested."""
    return _shortener.repr(value)


def check_regular(path: Path) -> None:
    """Raises a ValueError that names the path unless it is a regular file or a symlink to one."""
    try:
        if path.is_file():
            return
        wrong = "is not a regular file" if path.exists() else "does not exist"
    except OSError as error:  # a name that is too long, a folder that may not be searched
        wrong = f"cannot be read: {error.strerror}"
    raise ValueError(f"{shown_path(path)} {wrong}")


def shown_path(path: Path) -> str:
    """A path for an error message, without the middle of a name that no file can have."""
    text = str(path)
    return text if len(text) <= 600 else f"{text[:300]}...{text[-100:]}"


def read_regular(path: Path, max_mb: float) -> bytes:
    """The bytes of a file.

    Raises:
        ValueError: it is missing, not a regular file, larger than max_mb, or not permitted to be read.
    """
    check_regular(path)
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size > max_mb * 1e6:
                raise ValueError(f"{path} has more than {max_mb:g} MB")
            return file.read()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None


def read_json(path: Path, max_mb: float = MAX_MB) -> dict[str, Any]:
    """The object in a file.

    Raises:
        ValueError: names the file: it is missing or holds something else, a field appears twice, a number is not valid
            in JSON or not finite, a string is not valid text, or it is nested too deeply.
    """
    content = read_regular(path, max_mb)
    try:
        text = content.decode("utf-8")
        parsed = json.loads(text, object_pairs_hook=_without_repetition, parse_float=_finite, parse_constant=_finite)
        if "\\ud" in text.lower():  # an escape may be half of a surrogate pair, which could not be written again
            json.dumps(parsed, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError(f"{path} cannot be read: it is nested too deeply") from None
    except ValueError as error:  # not UTF-8 or not JSON
        raise ValueError(f"{path} cannot be read: {str(error)[:200]}") from None
    if not isinstance(parsed, dict):
        raise ValueError(f"{path} must hold an object, got {shown(parsed)}")
    return parsed


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ValueError(f"field {shown(twice)} appears twice")
    return fields


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is not a number that JSON allows")
    return value


def check_fields(schema: Any, content: Any, source: str) -> None:
    """Checks the fields of an object against a TypedDict; other fields may be anything.

    Args:
        schema: a TypedDict class.
        content: the object.
        source: the beginning of the message, such as the name of the file.
    Raises:
        ValueError: names the field, what it must be and its value.
    """
    from pydantic import ValidationError

    try:
        _adapter(schema).validate_python(content, strict=True)
    except ValidationError as errors:
        error = errors.errors(include_url=False, include_context=False)[0]
        place = ".".join(map(_part, error["loc"]))[:200] or "the content"
        if error["type"] == "missing":
            raise ValueError(f"{source}: {place} is missing") from None
        wanted = error["msg"].replace("Input should be", "must be")
        for theirs, ours in _WORDS.items():
            wanted = wanted.replace(theirs, ours)
        raise ValueError(f"{source}: {place} {wanted}, got {shown(error['input'])}") from None


def _part(part: str | int) -> str:
    return part if isinstance(part, str) and part.isidentifier() else shown(part)


# pydantic's names of JSON's types
_WORDS = {"valid dictionary": "n object", "valid integer": "n integer", "a valid boolean": "true or false"}
_WORDS |= {"a n ": "an ", "a valid ": "a "}


@functools.cache
def _adapter(schema: Any) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter  # slow to import, and not needed for writing

    return TypeAdapter(schema)


def to_json(content: Any, **how: Any) -> str:
    """`json.dumps` with NaN and infinities, which JSON lacks, as null."""
    try:
        return json.dumps(content, allow_nan=False, **how)
    except ValueError:
        return json.dumps(_with_nulls(content), allow_nan=False, **how)


def _with_nulls(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _with_nulls(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [_with_nulls(value) for value in node]
    return None if isinstance(node, float) and not math.isfinite(node) else node
