"""The page of the command line: what `--help` of every command prints."""

from __future__ import annotations

import contextlib
import io
import os
import re

from fastreason.cli.main import main

_MORE = {"run": [["run", "smoke", "--help"]]}  # every field of a recipe that has all three stages


def command_line_page() -> str:
    usage = _printed(["--help"])
    commands = re.findall(r"^  ([a-z]+) ", usage, flags=re.M)
    parts = ["# Command line\n", _block("fastreason --help", usage)]
    for command in commands:
        parts.append(f"\n## {command}\n")
        for arguments in [[command, "--help"], *_MORE.get(command, [])]:
            parts.append(_block(f"fastreason {' '.join(arguments)}", _printed(arguments)))
    return "\n".join(parts)


def _printed(arguments: list[str]) -> str:
    """What a command prints on a terminal of 100 columns without colours."""
    before = dict(os.environ)
    os.environ |= {"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"}
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
            main(arguments)
    finally:
        os.environ.clear()
        os.environ.update(before)
    text = re.sub(r"\x1b\[[0-9;]*m", "", printed.getvalue()).strip()
    if not text:
        raise RuntimeError(f"fastreason {' '.join(arguments)} printed nothing")
    return text


def _block(command: str, text: str) -> str:
    return f"```console\n$ {command}\n{text}\n```\n"
