"""Run other firewalls' own programs, and keep their words when they refuse."""

from __future__ import annotations

import errno
import shlex
import subprocess
from collections.abc import Iterable
from typing import Final

from seaway.errors import from_errno

Command = tuple[str, ...]

_SECONDS: Final = 20.0
_LOCK_HELD: Final = 4  # exit status of iptables when another run holds the lock, iptables(8)


def run(commands: Iterable[Command]) -> tuple[str, ...]:
    """Run *commands* one after the other.

    Returns:
        Each command as a user would type it.

    Raises:
        KernelError: One refused, and those after it were not run.
        KernelBusy: The same, but it may work later.
    """
    ran = []
    for command in commands:
        done = _run(command)
        if done.returncode != 0:
            code = errno.EAGAIN if done.returncode == _LOCK_HELD else errno.EINVAL
            words = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise from_errno("run", shlex.join(command), code, words)
        ran.append(shlex.join(command))
    return tuple(ran)


def ask(*command: str) -> str | None:
    """Return what *command* prints; None when it fails or is not installed.

    Raises:
        KernelBusy: It does not end.
    """
    try:
        done = _run(command)
    except FileNotFoundError:
        return None
    return done.stdout if done.returncode == 0 else None


def _run(command: Command) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise from_errno("run", shlex.join(command), errno.EAGAIN, "it does not end") from None
