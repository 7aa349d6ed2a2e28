"""Shared set-up: two threads, no model hub, and where the reference data lie."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(2)
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


@pytest.fixture
def one_thread() -> Iterator[None]:
    """For models so small that threads only wait for each other, for long on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
