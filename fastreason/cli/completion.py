"""The command `completion`: a script with which bash, and zsh, complete commands, recipes, models and flags."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Callable, Iterable, Mapping

from ..runtime.model_names import shipped_models
from ..studies.recipe import available_recipes
from .parser import Parser
from .recipe_flags import recipe_fields

_SCRIPT = """# eval "$(fastreason completion)", in zsh after: autoload -U bashcompinit && bashcompinit
_fastreason() {{
    local words=""
    if [ "$COMP_CWORD" = 1 ]; then
        words="{commands}"
    else
        case "${{COMP_WORDS[1]}}" in
{cases}
        esac
    fi
    COMPREPLY=($(compgen -W "$words" -- "${{COMP_WORDS[COMP_CWORD]}}"))
}}
complete -o default -F _fastreason fastreason
"""


def completion_command(arguments: list[str], commands: Mapping[str, Callable[[list[str]], int]]) -> int:
    """`fastreason completion`; returns the exit status."""
    Parser(prog="fastreason completion", description=__doc__).parse_args(arguments)
    words = {name: _flags(command) for name, command in commands.items() if name != "completion"}
    words["run"] = [*available_recipes(), *words["run"], *(f"--{field.name}" for field in recipe_fields())]
    for name in ("eval", "edge"):
        words[name] = [*shipped_models(), *words[name]]
    cases = "\n".join(f'            {name}) words="{" ".join(_distinct(words[name]))}" ;;' for name in words)
    print(_SCRIPT.format(commands=" ".join([*commands, "--help", "--version"]), cases=cases), end="")
    return 0


def _flags(command: Callable[[list[str]], int]) -> list[str]:
    """Those that the help of a command names."""
    printed = io.StringIO()
    # `bench` needs a checkout, and has no flags without one
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit, ValueError, ModuleNotFoundError):
        command(["--help"])
    return re.findall(r"(?<![\w-])--[a-z][\w-]*", printed.getvalue())


def _distinct(words: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(words))
