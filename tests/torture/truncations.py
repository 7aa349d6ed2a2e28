"""Files that are cut, emptied or end in zeros, as a full disk or a power cut leaves them, and commands that read them.

Wanted is the end that the whole files have, or one error that names the file; no traceback, nothing taken for whole.
"""

from __future__ import annotations

import gzip
import json
import shutil
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from fastreason.cli.main import main

from .commands import COMMANDS, attempt, call, differences, make_inputs, outcome

_NOT_READ = ("README.md", "report.html", "heartbeat", "released")
_LEFT = ("metrics.jsonl", ".parquet", ".npz", "evaluation.json")
"""Files that may stay as damaged as they are: nobody can write metrics again, and what is finished reads no samples and
no seen graphs; whoever reads these next draws them again (tests/studies/test_seen_graphs.py)."""


@dataclass(frozen=True)
class Reader:
    """A folder that a command reads, and how it is called. `given` reads inputs, which it need not make whole again."""

    prepare: Callable[[Path], None]
    arguments: Callable[[Path], list[str]]
    given: bool = False


def readers(given: Path) -> dict[str, Reader]:
    """By name. Output of commands is read by the same command."""
    found = {}
    for name in ("run", "study", "eval", "generate jsonl", "generate parquet", "generate tokens"):
        command = COMMANDS[name]

        def prepare(folder: Path, command=command) -> None:  # type: ignore[no-untyped-def]
            done = call(command, folder, given, again=False)
            assert done.status == 0, done.said

        found[name] = Reader(prepare, lambda folder, command=command: command.line(folder, given, again=True))
    found["report"] = Reader(found["run"].prepare, lambda folder: ["report", str(folder / "out")])
    inputs: dict[str, Callable[[Path], list[str]]] = {
        "eval of a folder": lambda f: COMMANDS["eval"].line(f / "x", f, again=False),
        "grade": lambda f: COMMANDS["grade"].line(f / "x", f, again=False),
        "grade gz": lambda f: ["grade", "--gold", f"{f}/gold.jsonl.gz", "--completions", f"{f}/completions.jsonl.gz"],
        "a recipe": lambda f: ["run", f"{f}/recipe.toml", "--dry-run"],
        "a study": lambda f: ["run", f"{f}/study.toml", "--size", "small", "--dry-run"],
        "a theme": lambda f: ["generate", "--themes", f"{f}/theme.toml", "--show", "1"],
        "presets": lambda f: ["generate", "--presets", f"{f}/presets.json", "--mixture", "easy", "--show", "1"],
        "themes learn": lambda f: ["themes", "learn", f"{f}/gold.jsonl", "--out", f"{f}/themes"],
    }  # fmt: skip
    return found | {name: Reader(_inputs, arguments, given=True) for name, arguments in inputs.items()}


def _inputs(folder: Path) -> None:
    shutil.rmtree(folder)
    make_inputs(folder)
    for name in ("gold", "completions"):
        content = (folder / f"{name}.jsonl").read_bytes()
        (folder / f"{name}.jsonl.gz").write_bytes(gzip.compress(content))
    here = Path(__file__).parents[2]
    shutil.copy(here / "fastreason" / "studies" / "recipes" / "smoke.toml", folder / "recipe.toml")
    shutil.copy(here / "tests" / "studies" / "tiny.toml", folder / "study.toml")
    shutil.copy(here / "fastreason" / "text" / "themes" / "zoo.toml", folder / "theme.toml")
    entry = {"id_op": [2, 3], "op_prob": [0.5, 0.5], "id_context": ["crazy_zootopia"], "context_prob": [1.0]}
    (folder / "presets.json").write_text(json.dumps({"a": {"op_level": {"easy": entry}}}, indent=1))


_NAMES = {"grade": ("gold.jsonl", "completions.jsonl"), "grade gz": ("gold.jsonl.gz", "completions.jsonl.gz")}
_NAMES |= {"a recipe": ("recipe.toml",), "a study": ("study.toml",), "a theme": ("theme.toml",)}
_NAMES |= {"presets": ("presets.json",), "themes learn": ("gold.jsonl",)}


class Truncations:
    """Damages one file at a time; see `kills.Kills` for `counts`."""

    def __init__(self, place: Path, given: Path, random: Random) -> None:
        self.place, self.random, self.counts = place, random, Counter[str]()
        self.readers = readers(given)
        self.spent = dict.fromkeys(self.readers, 0.0)

    def go_on(self, end: float) -> None:
        while time.time() < end:
            name = min(self.spent, key=self.spent.__getitem__)
            started = time.monotonic()
            self.once(name)
            self.spent[name] += time.monotonic() - started

    def once(self, name: str, file: str | None = None, how: int | None = None) -> None:
        """A file of a reader's folder, chosen or given, damaged in a way that is chosen or given."""
        reader, whole = self.readers[name], self.place / f"{name.replace(' ', '')}-whole"
        if not whole.exists():
            whole.mkdir()
            reader.prepare(whole)
        folder = self.place / "cut"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(whole, folder, symlinks=True)
        path = folder / file if file else self.random.choice(self._files(name, folder))
        what = damage(path, self.random, how)
        done = attempt(lambda: main(reader.arguments(folder)), self.place / "cut.log")
        case = f"{name}: {path.relative_to(folder)} {what}"
        wrong = ""
        if "Traceback" in done.said or done.status not in (0, 1, 2):
            wrong = f"status {done.status}: {done.said[-600:]!r}"
        elif done.status and not any(part in done.said for part in (path.name, str(path.parent.name))):
            wrong = f"names no file: {done.said[-300:]!r}"
        elif not done.status and not reader.given:
            changed = differences(outcome(whole), outcome(folder))
            if name in ("run", "report", "study") and path.name.endswith(_LEFT):
                changed = [other for other in changed if other != str(path.relative_to(folder))]
            wrong = f"differs in {', '.join(changed[:5])}" if changed else ""
        kind = "refused, and named" if done.status else "read as far as it is whole" if reader.given else "made whole"
        self.counts[f"WRONG {case}: {wrong}" if wrong else kind] += 1

    def _files(self, name: str, folder: Path) -> list[Path]:
        files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in _NOT_READ]
        if name == "report":
            return [path for path in files if path.name in ("study.toml", "results.json")]
        # older checkpoints wait for a stage that is not finished
        files = [path for path in files if not any(part.startswith("checkpoint-") for part in path.parts)]
        if name == "eval of a folder":
            return [path for path in files if path.parent.name == "checkpoint"]
        return [path for path in files if path.name in _NAMES[name]] if name in _NAMES else files


def damage(path: Path, random: Random, how: int | None = None) -> str:
    """What was done to a file."""
    content = path.read_bytes()
    at = random.randrange(len(content)) if content else 0
    how = random.randrange(4) if how is None else how
    if how == 1 and path.suffix == ".npy":  # as good as any other numbers
        how = 3
    if how == 0:
        path.write_bytes(b"")
        return "emptied"
    if how == 1:
        path.write_bytes(content[:at] + bytes(len(content) - at))
        return f"ends in zeros from byte {at}"
    if how == 2:  # behind a whole line
        at = content.rfind(b"\n", 0, at) + 1
    path.write_bytes(content[:at])
    return f"cut at byte {at}"
