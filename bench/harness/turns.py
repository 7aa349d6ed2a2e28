"""The one test of every suite: a turn of one contestant at one question. pytest_plugin.py says which."""

from __future__ import annotations

from typing import Any

from .pytest_plugin import Turn


def bench_turn(turn: Turn, benchmark: Any) -> None:
    try:
        turn.take(benchmark)
    finally:
        turn.close()
