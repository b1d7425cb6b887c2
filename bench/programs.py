"""Running programs, in a network namespace or not, and telling how long they took."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

ENVIRONMENT: Mapping[str, str] = {
    **os.environ,
    # The distribution's own engines, not what else may be installed in /usr/local.
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
}


class Failed(Exception):
    """A program failed; the text has its last words."""


def enter(where: Path | None, argv: Sequence[str]) -> list[str]:
    """Return the command line that runs *argv* in the network namespace *where*.

    nsenter and not ``ip netns exec``, which hides the control groups from engines.
    """
    return [*argv] if where is None else ["nsenter", f"--net={where}", "--", *argv]


def run(
    argv: Sequence[str],
    where: Path | None = None,
    stdin: str = "",
    environment: Mapping[str, str] = ENVIRONMENT,
    seconds: float = 600.0,
) -> str:
    """Run a program and return what it prints.

    Raises:
        Failed: It failed, or took more than *seconds*.
    """
    words = enter(where, argv)
    try:
        done = subprocess.run(
            words, input=stdin, capture_output=True, text=True, env=environment, timeout=seconds
        )
    except subprocess.TimeoutExpired:
        raise Failed(f"{argv[0]} took more than {seconds:g} s") from None
    if done.returncode != 0:
        text = (done.stderr.strip() or done.stdout.strip())[-400:]
        raise Failed(f"{' '.join(argv)[:120]}: exit status {done.returncode}: {text}")
    return done.stdout


def milliseconds(work: Callable[[], object]) -> float:
    """Do *work* and return how long it took."""
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1e3
