"""What a run says of where it ran: the machine and its class, versions, the commit."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

from fastreason.runtime.machine import describe_machine, package_version

from .records import SCHEMA, Record, Run

__all__ = ["LIBRARIES", "ROOT", "commit", "machine", "machine_class", "new_run", "versions"]

ROOT = Path(__file__).parents[2]
# by their names on PyPI; of those that take part in every run
LIBRARIES = ("fastreason", "torch", "numpy", "pytest-benchmark")
# the processor's instructions that decide which code runs here
_FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_tile", "asimd", "sve", "sve2")


def machine() -> dict[str, Any]:
    """`fastreason.runtime.machine.describe_machine()` and the class."""
    described = describe_machine()
    return described | {"class": machine_class(described, _cpuinfo())}


def machine_class(described: Mapping[str, Any], cpuinfo: Mapping[str, str]) -> str:
    """A short name of what decides about speed: processor, its widest instructions, number of cores, GPU.

    >>> cpuinfo = {"cpu family": "26", "model": "2", "flags": "fpu avx2 avx512f avx512_bf16"}
    >>> machine_class({"cpu": "AMD EPYC", "cores": 2, "gpu": None}, cpuinfo)
    'amd-epyc-26-2-avx2-avx512f-avx512bf16-2c'
    """
    family = [cpuinfo[name] for name in ("cpu family", "model") if name in cpuinfo]
    family = family or [cpuinfo[name] for name in ("CPU implementer", "CPU part") if name in cpuinfo]
    present = (cpuinfo.get("flags") or cpuinfo.get("Features") or "").split()
    flags = [flag.replace("_", "") for flag in _FLAGS if flag in present]
    words = [str(described["cpu"]), *family, *flags, f"{described['cores']}c", described.get("gpu") or ""]
    return "-".join(filter(None, (re.sub(r"[^a-z0-9]+", "-", word.lower()).strip("-") for word in words)))


def _cpuinfo() -> dict[str, str]:
    """The lines of the first processor in /proc/cpuinfo; elsewhere the architecture alone."""
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return {"model": platform.machine()}
    first = path.read_text(encoding="utf-8").split("\n\n")[0]
    lines = [line.partition(":") for line in first.splitlines()]
    return {name.strip(): value.strip() for name, _, value in lines}


def commit() -> str:
    """The short hash of the checkout, with "-dirty" where files that git knows differ from it.

    A tree that `make gpu-bundle` made is no checkout: its file COMMIT says which it is of.
    """
    if (ROOT / "COMMIT").exists():
        return (ROOT / "COMMIT").read_text(encoding="utf-8").strip()
    found = _git("rev-parse", "--short", "HEAD")
    return f"{found}-dirty" if found and _git("status", "--porcelain", "-uno") else found or "unknown"


def _git(*arguments: str) -> str:
    # the repository is the checkout's own, not one that a surrounding git command is about
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def versions(modules: Iterable[str] = ()) -> dict[str, str]:
    """Of the libraries of every run and of those that `modules` are imported from, where they are installed."""
    owners = _distributions()
    names = [*LIBRARIES, *(name for module in modules for name in owners.get(module, [module]))]
    found = {name: package_version(name) for name in dict.fromkeys(names)}
    return {name: version for name, version in found.items() if version}


@cache  # it reads every installed file's name
def _distributions() -> Mapping[str, list[str]]:
    return packages_distributions()


def new_run(
    records: Iterable[Record],
    *,
    threads: int,
    peaks: Mapping[str, float],
    skipped: Mapping[str, str] | None = None,
    modules: Iterable[str] = (),
) -> Run:
    """A run of now, of this machine and this checkout.

    Args:
        records: what was measured.
        threads: of the providers.
        peaks: of `bench.harness.machine_peaks.machine_peaks`, or {}.
        skipped: what took no part, and why.
        modules: what was imported for it, beside the libraries of every run.
    """
    return Run(
        schema=SCHEMA,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=machine(),
        versions=versions(modules),
        commit=commit(),
        threads=threads,
        peaks=dict(peaks),
        skipped=dict(skipped or {}),
        records=list(records),
    )
