"""Which process is which, whether it still runs, and one that ends with whoever started it."""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import sys
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def end_with_parent(parent: int) -> None:
    """Asks the kernel to send this process SIGTERM once the thread that started it is gone; Linux alone can.

    The first call of a process, so that one that still imports ends, too.

    Args:
        parent: the process that is expected to have started this one; if it is gone already, this one exits with 143.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit(128 + signal.SIGTERM)


def this_process() -> dict[str, Any]:
    """What tells this process from any other, on whatever machine."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    namespace = Path("/proc/self/ns/pid")  # two containers may have one name and the same numbers of processes
    return {
        "host": platform.node(),
        "boot": boot.read_text().strip() if boot.exists() else "",
        "namespace": os.readlink(namespace) if namespace.exists() else "",
        "pid": os.getpid(),
        "start": process_start(os.getpid()),
    }


def process_start(pid: int) -> str | None:
    """What tells a process from a later one of the same number; None if it does not run (a zombie does not)."""
    try:
        # the name, in brackets, may hold anything; the state is field 3 and the start field 22
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] == "Z" else fields[19]
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return None
    except (ProcessLookupError, PermissionError):
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return "running"
