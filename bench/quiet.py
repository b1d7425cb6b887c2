"""Waiting for a quiet machine, and noticing when it was not.

Everything here shares a few CPUs with whatever else runs, so a sample taken
while others work says nothing.  Before each sample we wait until the CPUs are
idle; afterwards we add up what processes that are not the benchmark's used.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from seaway.lab import processes

_TICKS = os.sysconf("SC_CLK_TCK")
_KERNEL_THREADS = 2  # the parent of them all


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How quiet it must be.

    Attributes:
        idle: Busy part of all CPUs that counts as idle.
        window: Seconds over which it is looked at.
        longest: Seconds to wait for it, at most.
        foreign: CPUs that others may use during a sample, on average.
        tries: How often a disturbed sample is taken again.
    """

    idle: float = 0.1
    window: float = 0.3
    longest: float = 30.0
    foreign: float = 0.08
    tries: int = 4


@dataclass(frozen=True, slots=True)
class _Usage:
    parent: int
    seconds: float


def wait(patience: Patience) -> None:
    """Return when the CPUs are idle, or patience is at its end."""
    deadline = time.monotonic() + patience.longest
    while time.monotonic() < deadline:
        before = _busy()
        time.sleep(patience.window)
        if (_busy() - before) / patience.window / (os.cpu_count() or 1) < patience.idle:
            return


def disturbance(spaces: Sequence[Path], work: Callable[[], object]) -> float:
    """Do *work*; return how many CPUs others used meanwhile, on average.

    Others are all processes but ourselves, our descendants, kernel threads, and those
    that live in one of *spaces* (paths of network namespaces) with their descendants.
    A process that starts and ends meanwhile is not seen.
    """
    before, began = _usage(), time.monotonic()
    work()
    elapsed = time.monotonic() - began
    after = _usage()
    ours = _descendants(after, {os.getpid(), *(p.pid for p in processes.inhabitants(spaces))})
    used = sum(
        max(0.0, usage.seconds - before[pid].seconds)
        for pid, usage in after.items()
        if pid in before and pid not in ours and _KERNEL_THREADS not in (pid, usage.parent)
    )
    return used / elapsed


def _busy() -> float:
    """Return the seconds that all CPUs have worked since boot (proc(5), /proc/stat)."""
    user, nice, system, _, _, irq, softirq = map(
        int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:8]
    )
    return (user + nice + system + irq + softirq) / _TICKS


def _usage() -> dict[int, _Usage]:
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            text = (entry / "stat").read_text()
        except OSError:
            continue
        fields = text.rpartition(")")[2].split()
        found[int(entry.name)] = _Usage(
            int(fields[1]), (int(fields[11]) + int(fields[12])) / _TICKS
        )
    return found


def _descendants(everyone: dict[int, _Usage], roots: set[int]) -> set[int]:
    children: dict[int, list[int]] = {}
    for pid, usage in everyone.items():
        children.setdefault(usage.parent, []).append(pid)
    found: set[int] = set()
    todo = list(roots)
    while todo:
        pid = todo.pop()
        if pid not in found:
            found.add(pid)
            todo += children.get(pid, ())
    return found
