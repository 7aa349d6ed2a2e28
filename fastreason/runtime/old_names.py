"""Names in files of earlier versions, and what they are called today."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_TODAY = {
    # metrics.jsonl, and the curves of results.json
    "silent_groups": "zero_advantage",
    # recipes
    "count_silent": "count_zero_advantage",
}


def with_current_names(content: Any) -> Any:
    """What a file holds, with every name as it is today; where a table has a value by both names, today's counts.

    >>> with_current_names({"rl": {"count_silent": True}, "lines": [{"silent_groups": 0.5}]})
    {'rl': {'count_zero_advantage': True}, 'lines': [{'zero_advantage': 0.5}]}
    """
    if isinstance(content, list):
        return [with_current_names(item) for item in content]
    if not isinstance(content, Mapping):
        return content
    return {
        _TODAY.get(name, name): with_current_names(value)
        for name, value in content.items()
        if _TODAY.get(name, name) == name or _TODAY[name] not in content
    }
