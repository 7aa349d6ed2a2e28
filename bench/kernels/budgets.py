"""What every kernel may use at most: budgets.toml, and for other versions of Triton what their machine code needs.

budgets.toml holds the figures of one minor version of Triton, `MADE_WITH`. Another version has a file of its own,
budgets_triton_X_Y.toml, with those kernels alone whose figures differ from these; a version without one is held to
budgets.toml.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import tomli_w
import triton

__all__ = ["BUDGETED", "MADE_WITH", "Budgets", "path_of", "read_budgets", "record_budgets"]

BUDGETED = ("registers", "shared_bytes", "instructions")
MADE_WITH = "3.7"
FOLDER = Path(__file__).parent
Budgets = dict[str, dict[str, dict[str, int]]]  # by kernel and architecture


def path_of(version: str, folder: Path = FOLDER) -> Path:
    """The file of what is particular to a version."""
    minor = ".".join(version.split(".")[:2])
    return folder / ("budgets.toml" if minor == MADE_WITH else f"budgets_triton_{minor.replace('.', '_')}.toml")


def read_budgets(version: str = triton.__version__, folder: Path = FOLDER) -> Budgets:
    """Of all kernels, for a version of Triton."""
    found = _read(path_of(MADE_WITH, folder))
    for key, archs in _read(path_of(version, folder)).items():
        found[key] = found.get(key, {}) | archs
    return found


def record_budgets(
    figures: Iterable[tuple[str, int, Mapping[str, int]]],
    *,
    whole: bool,
    version: str = triton.__version__,
    folder: Path = FOLDER,
) -> None:
    """Makes figures the budgets of a version.

    Args:
        figures: (key, architecture, value of each of BUDGETED) of every kernel that was looked at.
        whole: these are all kernels; what the file says of others is dropped.
    """
    path = path_of(version, folder)
    usual = {} if path == path_of(MADE_WITH, folder) else _read(path_of(MADE_WITH, folder))
    own = {} if whole else _read(path)
    for key, arch, values in figures:
        own.setdefault(key, {})[str(arch)] = dict(values)
        if usual.get(key, {}).get(str(arch)) == own[key][str(arch)]:
            del own[key][str(arch)]
    kept: dict[str, Any] = {key: archs for key, archs in sorted(own.items()) if archs}
    path.write_text(tomli_w.dumps(kept), encoding="utf-8")


def _read(path: Path) -> Budgets:
    return tomllib.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
