"""Finding and ending processes, without ever mistaking one for another.

A process is a number *and* the moment it started: the kernel hands numbers
out again.  Signals go through a pidfd, opened before that moment is compared.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from seaway.errors import KernelBusy
from seaway.kernel import netns

_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Process:
    """One process for ever.

    Attributes:
        pid: Its number in our PID namespace.
        started: Clock ticks after boot (proc(5), stat field 22).
    """

    pid: int
    started: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stat:
    """What /proc says about a process now.

    Attributes:
        state: One letter of proc(5): T is stopped by a signal, Z has ended.
        parent: PID of its parent.
        name: The first 15 bytes of its program's name.
    """

    process: Process
    state: str
    parent: int
    name: str


def look(pid: int) -> Stat | None:
    """Read about a process; None if it has ended, whether reaped or not."""
    stat = read_stat(pid)
    return None if stat is None or stat.state in "ZX" else stat


def read_stat(pid: int) -> Stat | None:
    """Read about a process, also one that has ended and waits for its parent.

    Source:
        proc(5), /proc/<pid>/stat.
    """
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except OSError:  # ENOENT, or ESRCH when it goes while we read
        return None
    # The second field is the program's name in parentheses, and may hold any of ") ".
    head, _, tail = text.rpartition(")")
    fields = tail.split()
    return Stat(
        process=Process(pid, int(fields[19])),
        state=fields[0],
        parent=int(fields[1]),
        name=head.partition("(")[2],
    )


def write_pid_file(path: Path, process: Process) -> None:
    """Remember *process* in *path*, whole or not at all."""
    new = path.with_suffix(".new")
    new.write_text(f"{process.pid} {process.started}\n")
    new.replace(path)


def read_pid_file(path: Path) -> Stat | None:
    """Look at the process that *path* remembers; None if it has ended or was never there."""
    try:
        pid, started = map(int, path.read_text().split())
    except (OSError, ValueError):
        return None
    stat = look(pid)
    return stat if stat and stat.process.started == started else None


def send(process: Process, number: signal.Signals) -> bool:
    """Signal exactly *process*; False if it has ended."""
    with _pidfd(process) as fd:
        if fd is None:
            return False
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(fd, number)
        return True


def kill(processes: Collection[Process], seconds: float) -> None:
    """SIGKILL *processes* and wait until all have ended.

    Raises:
        KernelBusy: Some are still there after *seconds* (stuck in the kernel).
    """
    for process in processes:
        send(process, signal.SIGKILL)
    deadline = time.monotonic() + seconds
    for process in processes:
        if not _ends(process, deadline):
            raise KernelBusy("end process", str(process.pid), errno.EBUSY)


def reap(process: Process) -> None:
    """Take the exit status of *process* if it was our own child, so that no zombie stays."""
    stat = read_stat(process.pid)
    if stat and stat.process == process:
        with suppress(ChildProcessError):
            os.waitpid(process.pid, os.WNOHANG)


def inhabitants(namespaces: Iterable[Path]) -> frozenset[Process]:
    """Who runs in one of *namespaces* (paths that open them), with all descendants.

    A descendant may have gone into a namespace of its own, as a container of
    an engine that was started inside does.  Whoever asks, and those it
    descends from, are never counted: the lab may be taken down from a shell in it.
    """
    # A file that a reboot left behind opens no namespace, and PID 1's is never a lab's.
    inodes = {_inode(path) for path in namespaces if netns.exists(str(path))}
    inodes -= {None, _inode(_PROC / "1/ns/net")}
    everyone = {stat.process.pid: stat for stat in _all()}
    children: dict[int, list[int]] = {}
    for pid, stat in everyone.items():
        children.setdefault(stat.parent, []).append(pid)
    todo = [pid for pid in everyone if _inode(_PROC / str(pid) / "ns/net") in inodes]
    found: set[int] = set()
    while todo:
        pid = todo.pop()
        if pid not in found:
            found.add(pid)
            todo += children.get(pid, ())
    return frozenset(everyone[pid].process for pid in found - _lineage(everyone))


def named(name: str, namespace: Path) -> list[Process]:
    """The processes of the program *name* whose network namespace is the one at *namespace*."""
    if not netns.exists(str(namespace)):
        return []
    home = _inode(namespace)
    return [
        stat.process
        for stat in _all()
        if stat.name == name and _inode(_PROC / str(stat.process.pid) / "ns/net") == home
    ]


def _ends(process: Process, deadline: float) -> bool:
    with _pidfd(process) as fd:
        if fd is None:
            return True
        poll = select.poll()
        poll.register(fd, select.POLLIN)  # readable when it ends, pidfd_open(2)
        return bool(poll.poll(max(0.0, deadline - time.monotonic()) * 1000))


def _lineage(everyone: dict[int, Stat]) -> set[int]:
    """Ourselves, our parent, its parent, ..."""
    line, pid = set(), os.getpid()
    while pid in everyone and pid not in line:
        line.add(pid)
        pid = everyone[pid].parent
    return line


def _all() -> Iterator[Stat]:
    for entry in _PROC.iterdir():
        if entry.name.isdigit() and (stat := look(int(entry.name))):
            yield stat


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except OSError:
        return None


@contextmanager
def _pidfd(process: Process) -> Iterator[int | None]:
    try:
        fd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        yield None
        return
    try:
        now = look(process.pid)
        yield fd if now and now.process == process else None
    finally:
        os.close(fd)
