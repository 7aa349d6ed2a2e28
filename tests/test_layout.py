"""The rooms of the package: which may import which, and that CONTRIBUTING.md names what is there."""

import re
import subprocess
from functools import cache

import pytest

from .layout import FILES, PICTURE, ROOT, circle, draw, imported, imports, name, room, rooms

PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
# from the bottom up: a room imports rooms before it; those of one line do not know each other
ORDER = [
    {"runtime"},
    {"kernels"},
    {"text"},
    {"tasks"},
    {"grading", "model"},
    {"sampling"},
    {"training"},
    {"rl", "evaluation"},
    {"studies"},
    {"reports"},
    {"runner"},
    {"integrations"},
    {"cli"},
]
INSIDE = [path for path in FILES if path.parent != ROOT / "fastreason" or path.name == "runner.py"]
# found by the libraries that they are for
BY_NAME = {f"fastreason.integrations.{library}" for library in ("reasoning_gym", "trl", "verifiers", "verl")}


@cache
def against() -> set[tuple[str, str]]:
    """Imports of a room that does not stand below."""
    level = {room: i for i, rooms in enumerate(ORDER) for room in rooms}
    found = set()
    for path in INSIDE:
        own = room(name(path))
        for target in imported(path):
            parts = target.split(".")
            other = parts[1] if parts[0] == "fastreason" and len(parts) > 1 else own
            if other != own and other in level and level[other] >= level[own]:
                found.add((name(path), other))
    return found


def test_every_room_has_its_place():
    assert {room(name(path)) for path in INSIDE} == set().union(*ORDER)


def test_rooms_import_those_below_them():
    assert not against()


@pytest.mark.parametrize("graph", [imports, rooms], ids=["files", "rooms"])
def test_nothing_imports_itself_by_a_circle(graph):
    """Lazily or for annotations neither."""
    assert circle(graph()) == []


def test_a_circle_is_found():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}})
    assert "fastreason.model.decoder" in imports()["fastreason.rl.loop"]
    assert "fastreason.evaluation.measure" in imports()["fastreason"]  # where public names come from
    assert "fastreason.studies.dry_run" in imports()["fastreason.cli.run"]  # a lazy one


def test_every_module_is_used_by_another():
    used = set().union(*imports().values()) | BY_NAME
    alone = {module for module in imports() if module.startswith("fastreason.") and module not in used}
    rooms_and_commands = {module for module in alone if (ROOT / module.replace(".", "/")).is_dir() or ".cli." in module}
    assert alone - rooms_and_commands == {"fastreason.__main__"}


def test_the_picture_of_the_subpackages_is_current():
    """`python -m tests.layout` draws it anew."""
    assert PICTURE.read_text(encoding="utf-8") == draw()
    assert "(docs/subpackages.svg)" in PAGE


@pytest.mark.parametrize("path", FILES, ids=name)
def test_the_package_stands_without_its_bench_and_its_tests(path):
    assert not {target for target in imported(path) if target.split(".")[0] in ("bench", "tests")}


@pytest.mark.parametrize("folder", ["fastreason", "bench"])
def test_contributing_has_a_line_for_every_room(folder):
    rooms = {path.parent.name for path in (ROOT / folder).glob("*/__init__.py")}
    assert rooms <= set(re.findall(r"^\| `(\w+)` \|", PAGE, flags=re.M))


def test_every_place_that_a_trip_names_is_there():
    trips = PAGE.split("## Five paths through the code")[1].split("\n## ")[0]
    places = re.findall(r"`([\w/]+\.(?:py|cpp|h))(?::(\w+))?`", trips)
    assert len(places) > 20
    for place, defined in places:
        path = next((p for p in (ROOT / place, ROOT / "fastreason" / place) if p.exists()), None)
        assert path is not None, place
        text = path.read_text(encoding="utf-8")
        assert not defined or re.search(rf"\b(def|class|struct) {defined}\b|\b{defined}\(", text), (place, defined)


def test_the_package_can_be_seen_at_a_glance():
    tracked = subprocess.run(["git", "ls-files", "fastreason"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode or not tracked.stdout:
        pytest.skip("not a git checkout")
    assert len({line.split("/")[1] for line in tracked.stdout.splitlines()}) <= 17
