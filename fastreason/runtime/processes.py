"""Identity of processes, and processes that end with their parent."""

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
    """Makes the kernel send this process SIGTERM when the thread that started it ends; on Linux only.

    To be called first, so that it works during imports too.

    Args:
        parent: id of the parent; if it is gone already, this process exits with 143.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit(128 + signal.SIGTERM)


def this_process() -> dict[str, Any]:
    """Identifies this process among all processes of all machines."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    namespace = Path("/proc/self/ns/pid")  # two containers may share a host name and process ids
    return {
        "host": platform.node(),
        "boot": boot.read_text().strip() if boot.exists() else "",
        "namespace": os.readlink(namespace) if namespace.exists() else "",
        "pid": os.getpid(),
        "start": process_start(os.getpid()),
    }


def process_start(pid: int) -> str | None:
    """Distinguishes a process from a later one with the same id; None if it is not running (or a zombie)."""
    try:
        # the name, in parentheses, may contain anything; the state is field 3 and the start time field 22
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
