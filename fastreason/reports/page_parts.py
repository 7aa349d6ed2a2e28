"""Parts shared by the pages of runs and studies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def trace_parts(trace: Mapping[str, Any]) -> list[tuple[str | None, str]]:
    """(status or None, text); offsets of steps are in bytes."""
    data, parts, at = trace["completion"].encode(), [], 0
    for step in trace["steps"]:
        parts.append((None, data[at : step["begin"]].decode(errors="replace")))
        parts.append((step["status"], data[step["begin"] : step["end"]].decode(errors="replace")))
        at = step["end"]
    parts.append((None, data[at:].decode(errors="replace")))
    return [(status, text) for status, text in parts if text]
