"""A little of what `make torture` does much of, and how its counts come onto the page."""

import json
import subprocess
import sys

import pytest

from .__main__ import PAGE, RECORD, table, with_table

SOME = """
import json, sys
from pathlib import Path
from random import Random
from tests.torture import commands, kills, truncations
place = Path(sys.argv[1])
commands.make_inputs(place / "given")
killed = kills.Kills(place, place / "given", Random(0))
for name in ("generate tokens", "grade"):
    command = commands.COMMANDS[name]
    for event in range(3, killed.whole(command).events + 1, 7):
        killed.once(command, event)
cut = truncations.Truncations(place, place / "given", Random(0))
FILES = {"generate tokens": "out/0000-of-0001-00000.json", "grade gz": "gold.jsonl.gz", "a theme": "theme.toml"}
for name, file in FILES.items():
    for how in (0, 1, 3):
        cut.once(name, file, how)
print(json.dumps([killed.counts, cut.counts]))
"""


def test_some_kills_and_truncations(tmp_path):
    done = subprocess.run([sys.executable, "-c", SOME, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    killed, cut = json.loads(done.stdout.splitlines()[-1])
    assert not [text for text in [*killed, *cut] if text.startswith("WRONG")]
    assert killed["killed at an event of the file system"] >= 5
    assert killed["generate tokens: went on to the same end"] >= 4 and killed["grade: went on to the same end"] >= 1
    assert cut["refused, and named"] >= 3 and cut["made whole"] == 3


def test_a_kill_that_loses_something_is_noticed(tmp_path):
    """Of a command that writes in place: what it left behind is taken for whole by the next call."""
    code = (
        SOME.split("killed =")[0]
        + """
command = commands.Command("careless", ["{out}"], [])
def main(line):
    out = Path(line[0])
    if not out.exists():
        out.write_text("half")
        out.with_name("mark").touch()
        out.write_text("whole")
    return 0
commands.main = main
killed = kills.Kills(place, place / "given", Random(0))
for event in range(1, killed.whole(command).events + 1):
    killed.once(command, event)
print(json.dumps(killed.counts))
"""
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    wrong = [text for text in json.loads(done.stdout.splitlines()[-1]) if text.startswith("WRONG")]
    assert any("differs in mark, out" in text for text in wrong)


def test_the_page_shows_the_last_run():
    if RECORD.exists():
        assert with_table(PAGE.read_text(), table(json.loads(RECORD.read_text()))) == PAGE.read_text()


def test_a_table_replaces_the_one_before():
    record = {"commit": "c0ffee", "seed": 3, "took_s": 12, "machine": "2 cores"}
    first = with_table(
        "a\n<!-- torture -->\nold\n<!-- /torture -->\nb", table(record | {"parts": {"kills": {"x": 1000}}})
    )
    assert "old" not in first and first.startswith("a\n") and first.endswith("\nb")
    assert "| kills | 1,000 x |" in first
    assert with_table(first, "new") == "a\n<!-- torture -->\nnew\n<!-- /torture -->\nb"


@pytest.mark.parametrize(
    "content, how", [(b"", 0), (b"ab\ncd\n", 0), (b"ab\ncd\n", 1), (b"ab\ncd\n", 2), (b"ab\ncd\n", 3)]
)
def test_damage(content, how, tmp_path):
    from random import Random

    from .truncations import damage

    for seed in range(5):
        (tmp_path / "file").write_bytes(content)
        damage(tmp_path / "file", Random(seed), how)
        left = (tmp_path / "file").read_bytes()
        assert content.startswith(left.rstrip(b"\0"))
        assert how != 2 or left in (b"", b"ab\n")
