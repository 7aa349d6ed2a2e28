"""Processes that end with the one that started them, whatever ended that one."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

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
