"""Processes by number, told from later ones that got the same number."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from pathlib import Path

from seaway.errors import NotFound


def start_time(pid: int) -> int:
    """Return when *pid* started, in clock ticks since boot; 0 if there is no such process.

    Source: proc(5), /proc/pid/stat, field 22.  The name in field 2 may hold
    spaces and brackets, so counting starts behind the last bracket.
    """
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    return 0


def alive(pid: int, started: int) -> bool:
    """Is the process that had this number when it was recorded still there?"""
    return pid > 0 and started > 0 and start_time(pid) == started


def open_pidfd(pid: int) -> int:
    """Open a descriptor that becomes readable when *pid* ends (pidfd_open(2)).

    Raises:
        NotFound: It has ended already.
    """
    try:
        return os.pidfd_open(pid)
    except OSError:
        raise NotFound(f"there is no process {pid}") from None


def trim() -> None:
    """Give memory that was freed back to the kernel.

    What has passed through a C library's heap once stays with the process otherwise; a
    large cluster that is read leaves 20 MB.  Other C libraries than GNU's do it by themselves.

    Source: malloc_trim(3).
    """
    if (give_back := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        give_back(0)
