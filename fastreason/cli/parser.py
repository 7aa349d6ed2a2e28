"""The parser of every command: errors are those of all other bad input, one line and status 2."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are ValueErrors, and which names the flag that was perhaps meant."""

    def __init__(self, **named: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **named})

    def error(self, message: str) -> NoReturn:
        raise ValueError(message.removeprefix("argument "))

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        known = self._option_string_actions
        for text in args or [] if self._subparsers is None else []:  # before what is missing: it may be misspelt
            if text.startswith("--") and text.partition("=")[0] not in known:
                raise ValueError(no_flag(text, known))
        options, rest = self.parse_known_args(args, namespace)
        if rest and rest[0].startswith("-"):
            raise ValueError(no_flag(rest[0], known))
        if rest:
            raise ValueError(f"unexpected argument {rest[0]!r}")
        return options


def no_flag(flag: str, known: Iterable[str]) -> str:
    """The message for an unknown flag."""
    name = flag.partition("=")[0]
    near = difflib.get_close_matches(name, list(known), 1)
    return f"there is no flag {name}" + (f"; did you mean {near[0]}?" if near else "")
