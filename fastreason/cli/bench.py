"""The command `bench`: throughput beside peers, from a checkout of the repository, where bench/ is."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

_PACKAGE = Path(__file__).parents[1]


def bench_command(arguments: Sequence[str], package: Path = _PACKAGE) -> int:
    """`fastreason bench`; returns the exit status.

    Args:
        package: the folder of the package; bench/ lies beside it in a checkout.
    Raises:
        ValueError: fastreason was not installed from a checkout, or the arguments are wrong.
        ModuleNotFoundError: pytest-benchmark is not installed.
    """
    root = package.parent
    if not (root / "bench" / "__main__.py").is_file():
        raise ValueError(f"needs a checkout of the repository, whose bench/ is not installed with {package}")
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    status: int = importlib.import_module("bench.__main__").main(list(arguments))
    return status
