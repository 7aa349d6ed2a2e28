"""The command line: `fastreason COMMAND ...`, the same as `python -m fastreason COMMAND ...`.

Flags of `run` are the dotted names of recipe fields, generated from the dataclasses and their docstrings.
"""

from __future__ import annotations

import importlib
import os
import select
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from .grade import grade_command
from .parser import Parser
from .run import run_command

_USAGE = """usage: fastreason COMMAND ...

commands:
  run RECIPE [--out DIR] [--resume] [--dry-run] [--size NAME] [--jobs N] [--shard I/N] [--section.field VALUE ...]
                 run a recipe or study; RECIPE is a name or a .toml file (run --help lists the names)
  report DIR     rebuild DIR/report.html
  merge DIR DIR ... --out DIR
                 join studies that differ in their seeds alone, and judge their claims over all seeds
  generate --out FILE --count N [--mixture NAME | --op 2-10 ...]
                 write problems as JSONL, Parquet or token ids; --show 3 prints them, --graph FILE.svg draws one
  eval CHECKPOINT [--preset paper | --op 2-10 --problems N --samples N ...] [--out DIR] [--resume]
                 verified pass@k of any Hugging Face folder: a table, JSON, and a Parquet row per sample
  edge CHECKPOINT [--op 2-20] [--themes NAME ...]
                 which ops and themes a model has mastered, which are at its edge, which out of reach
  grade --gold FILE --completions FILE [--out FILE]
                 grade completions: verdicts as JSONL or Parquet, and a table by op and failure kind
  look FOLDER [--op 6] [--failures]
                 print samples of a run, study or evaluation with their steps marked
  export lm-eval --out DIR [--op 2-10 ...] | vllm CHECKPOINT --out DIR | hub CHECKPOINT OWNER/NAME
                 a task folder for lm-evaluation-harness; a model folder that vLLM reads right; a model on the Hub
  themes [learn FILE --out DIR]
                 list the built-in themes, or extract those of a JSONL file as TOML files
  bench [NAME ...] [--compare [FILE]] [--reference DIR]
                 benchmark against peers on the same work, in a checkout (bench --list names the suites)
  info [--mixture NAME|JSON [--tokens N] | --schema]
                 this machine and the versions of everything that results depend on; with --mixture the ops, document
                 lengths and numbers of graphs of a mixture, and the share of graphs that N training tokens show; with
                 --schema the JSON Schema of recipe files
  completion     a script for bash and zsh: eval "$(fastreason completion)"

`fastreason COMMAND --help` has details; `fastreason --version` prints the version.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status.

    0 on success; 1 for failures at run time (a full disk, a non-finite loss); 2 for bad input; 130 after Ctrl-C, 141
    where the reader of its output is gone, 143 after SIGTERM.
    """
    try:
        try:
            return _run_command(arguments)
        finally:  # --help leaves by SystemExit
            if sys.stdout is not None:  # as with >&-
                sys.stdout.flush()
    except OSError as error:  # of standard output alone
        # what is still to be written goes nowhere, so that the interpreter ends without a word
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):  # as `head` leaves it
            return 128 + signal.SIGPIPE
        print(f"fastreason: standard output: {error.strerror}", file=sys.stderr)
        return 1


def _reader_left() -> bool:
    """Whether standard output is a pipe that nobody reads any more."""
    watched = select.poll()
    watched.register(sys.stdout, 0)
    return bool(watched.poll(0))


def _run_command(arguments: Sequence[str] | None) -> int:
    # Before torch is loaded: its idle threads would spin on CPUs that our own threads need. Two threads on two CPUs
    # train `tiny` at 87,000 tokens/s with this and at 66,000 without, one thread at 84,000.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    commands: dict[str, Callable[[list[str]], int]] = {
        "run": run_command,
        "report": _report,
        "merge": _merge,
        "generate": _generate,
        "grade": grade_command,
    }
    commands |= {"eval": _eval, "edge": _edge, "look": _look, "export": _export, "themes": _themes, "bench": _bench}
    commands |= {"info": _info, "completion": lambda rest: _completion(rest, commands)}
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_USAGE, end="")
        return 0
    if arguments[0] == "--version":
        from .. import __version__

        print(f"fastreason {__version__}")
        return 0
    command, rest = arguments[0], arguments[1:]
    if command not in commands:
        print(f"fastreason: unknown command {command!r}; commands are {', '.join(commands)}", file=sys.stderr)
        return 2
    try:
        return commands[command](rest)
    except (ValueError, ModuleNotFoundError) as error:
        _say(command, error)
        return 2
    except (OSError, FloatingPointError, RuntimeError) as error:
        if isinstance(error, BrokenPipeError) and _reader_left():
            raise
        _say(command, error)
        return 1
    except MemoryError as error:
        print(f"fastreason {command}: out of memory{f': {error}' if str(error) else ''}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _say(command: str, error: Exception) -> None:
    """The message on stderr; many begin with the function's name, which is often the command's."""
    print(f"fastreason {command}: {str(error).removeprefix(f'{command}: ')}", file=sys.stderr)


def _report(arguments: list[str]) -> int:
    from ..reports.study_page import write_report

    parser = Parser(prog="fastreason report", description="Rebuilds DIR/report.html.")
    parser.add_argument("folder", type=Path, metavar="DIR", help="the directory of a run or study")
    print(write_report(parser.parse_args(arguments).folder))
    return 0


def _merge(arguments: list[str]) -> int:
    from ..reports.study_page import write_report
    from ..studies.merge import merge_studies

    parser = Parser(
        prog="fastreason merge",
        description="Joins finished studies that differ in their seeds alone, such as those of machines that share no "
        "directory, and judges their claims over all seeds.",
    )
    parser.add_argument("folders", type=Path, nargs="+", metavar="DIR", help="the directory of a finished study")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new directory for the joint study")
    options = parser.parse_args(arguments)
    print(write_report(merge_studies(options.folders, options.out)))
    return 0


def _generate(arguments: list[str]) -> int:
    from .generate import generate_command

    return generate_command(arguments)


def _eval(arguments: list[str]) -> int:
    from .evaluate import evaluate_command

    return evaluate_command(arguments)


def _edge(arguments: list[str]) -> int:
    from .evaluate import edge_command

    return edge_command(arguments)


def _look(arguments: list[str]) -> int:
    from .look import look_command

    return look_command(arguments)


def _export(arguments: list[str]) -> int:
    from .export import export_command

    return export_command(arguments)


def _themes(arguments: list[str]) -> int:
    from ..text.theme import Theme, available_themes
    from ..text.theme_from_data import learn_file

    if not arguments:
        for name in available_themes():
            theme = Theme.load(name)
            print(f"{name:12} {theme.style:12} {theme.places[0][0]}, {theme.kinds[0][0]}, ...")
        return 0
    parser = Parser(
        prog="fastreason themes", description="Lists the built-in themes, or extracts the words of a file as themes."
    )
    parser.add_argument("action", choices=["learn"])
    parser.add_argument("file", type=Path, metavar="FILE", help="JSONL in the published schema")
    parser.add_argument("--out", type=Path, metavar="DIR", required=True, help="folder for the TEMPLATE.toml files")
    options = parser.parse_args(arguments)
    if not options.file.is_file():
        raise ValueError(f"no file {str(options.file)!r}")
    for path in learn_file(options.file, options.out):
        print(path)
    return 0


def _bench(arguments: list[str]) -> int:
    return bench_command(arguments)


def _info(arguments: list[str]) -> int:
    from ..runtime.machine import describe_machine

    if arguments:
        from .info import info_command

        return info_command(arguments)
    for name, value in describe_machine().items():
        print(f"{name:12} {value if value is not None else '-'}")
    return 0


def _completion(arguments: list[str], commands: Mapping[str, Callable[[list[str]], int]]) -> int:
    from .completion import completion_command

    return completion_command(arguments, commands)


_PACKAGE = Path(__file__).parents[1]


def bench_command(arguments: Sequence[str], package: Path = _PACKAGE) -> int:
    """`fastreason bench`; returns the exit status.

    Args:
        package: the folder of the package, next to which a checkout has bench/.
    Raises:
        ValueError: fastreason was not installed from a checkout, or the arguments are wrong.
        ModuleNotFoundError: pytest-benchmark is not installed.
    """
    root = package.parent
    in_checkout = (root / "bench" / "__main__.py").is_file()
    if not in_checkout and arguments and arguments[0] in ("-h", "--help"):
        print("usage: fastreason bench [NAME ...]\n\nBenchmarks against peers on the same work, in a checkout of the")
        print(f"repository, where --help says more: bench/ is not installed with {package}.")
        return 0
    if not in_checkout:
        raise ValueError(f"needs a checkout of the repository; bench/ is not installed with {package}")
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    status: int = importlib.import_module("bench.__main__").main(list(arguments))
    return status
