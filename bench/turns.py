"""The one test of every suite: a turn of one contestant at one question. bench/side_by_side.py says which there are."""

from __future__ import annotations

from typing import Any

from .side_by_side import Turn


def bench_turn(turn: Turn, benchmark: Any) -> None:
    try:
        turn.take(benchmark)
    finally:
        turn.close()
