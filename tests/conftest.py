"""Shared set-up: one thread, no model hub, and where the reference data lie."""

from __future__ import annotations

import gzip
import json
import os
import signal
import threading
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# a thread that waits sleeps, in this process and in those that tests start
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# what a test starts is no worker of these tests: pytest-benchmark times nothing in one
os.environ.pop("PYTEST_XDIST_WORKER", None)

# a job in the background ignores Ctrl-C, which some tests send to themselves
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN and threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)

import pytest
import torch
from hypothesis import settings

# models of the tests are so small that more threads only wait for each other
torch.set_num_threads(1)
# the same examples in every run; `pytest --hypothesis-profile=random` looks further
settings.register_profile("repeatable", derandomize=True, deadline=None, max_examples=100)
settings.register_profile("random", deadline=None, max_examples=1000)
settings.load_profile("repeatable")

REFERENCE = Path(__file__).parents[1] / ".." / "shared" / "reference"


@pytest.fixture(scope="session")
def reference() -> Any:
    """Reads a file of the reference data by name; skips the test where they are absent."""
    if not REFERENCE.is_dir():
        pytest.skip("the reference data are not on this machine (../shared/reference)")

    def read(name: str) -> list[dict[str, Any]]:
        with gzip.open(REFERENCE / name, "rt", encoding="utf-8") as file:
            return [json.loads(line) for line in file]

    return read
