"""tests/kernels, one process for each file, and the audit of machine code with this Triton.

In a rehearsal the tests run under Triton's interpreter.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from xml.etree import ElementTree

from ..harness.environment import ROOT
from .items import Item, Outcome, Place, Skipped, time_left

__all__ = ["LIMIT_S", "items", "workers"]

LIMIT_S = 520
AUDIT = "test_audit.py"


def items(place: Place) -> Iterator[tuple[str, Item]]:
    files = sorted((ROOT / "tests" / "kernels").glob("test_*.py"), key=lambda path: -path.stat().st_size)
    for path in files:
        if path.name != AUDIT:
            yield path.name, partial(one_file, path)
    yield "audit of machine code", audit


def workers(place: Place) -> int:
    """A process compiles on one core most of the time."""
    return 1 if place.rehearsed else max(1, min(8, (os.cpu_count() or 1) // 2))


def one_file(path: Path, place: Place) -> Outcome:
    with TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-m", "not slow", "-p", "no:cacheprovider"]
        # other versions of libraries than those of the repository have warnings of their own
        command += ["-o", "filterwarnings=default", f"--junitxml={report}", str(path.relative_to(ROOT))]
        environment = os.environ | ({"TRITON_INTERPRET": "1"} if place.rehearsed else {})
        left = time_left(place)
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=left)
        if done.returncode == 5:
            raise Skipped("it has no test that runs here")
        counts, failed = read_report(report)
        if done.returncode:
            raise AssertionError(f"{', '.join(failed) or 'no test ran'}\n{done.stdout[-1500:]}{done.stderr[-500:]}")
        return Outcome(notes=counts)


def read_report(path: Path) -> tuple[dict[str, int], list[str]]:
    """How many tests passed and were skipped, and the names of those that did not pass."""
    if not path.exists():
        return {}, []
    suite = ElementTree.parse(path).getroot().find("testsuite")
    assert suite is not None
    tests, skipped = int(suite.get("tests", 0)), int(suite.get("skipped", 0))
    bad = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
    names = [
        str(case.get("name")) for case in suite if case.find("failure") is not None or case.find("error") is not None
    ]
    return {"passed": tests - skipped - bad, "skipped": skipped}, names


def audit(place: Place) -> Outcome:
    command = [sys.executable, "-m", "bench.kernels.audit", "--arch", str(min(place.arch, 100) // 10 * 10)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=time_left(place))
    over = [line for line in done.stdout.splitlines() if re.match(r"\S.* sm_\d+: ", line)]
    if done.returncode:
        raise AssertionError("\n".join(over) or done.stderr[-1500:])
    return Outcome(notes={"said": done.stdout.splitlines()[-1]})
