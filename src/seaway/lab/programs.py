"""Running ip, nft, nsenter and umount, with their complaints turned into errors."""

from __future__ import annotations

import errno
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from seaway.errors import KernelError, Unsupported
from seaway.kernel import netns

_PACKAGES = {"ip": "iproute2", "nft": "nftables", "nsenter": "util-linux", "umount": "util-linux"}

_SECONDS = 20.0
"""None of these programs takes a second; one that hangs must not hang us."""


def need(*programs: str) -> None:
    """Check that *programs* are installed.

    Raises:
        Unsupported: One is missing; the message names its package.
    """
    for program in programs:
        if shutil.which(program) is None:
            raise Unsupported(
                f"the lab needs the program {program!r}: install the package {_PACKAGES[program]}"
            )


def run(argv: Sequence[str], where: Path | None = None, stdin: str = "") -> str:
    """Run a program in the network namespace *where* (None: our own); return its output.

    Raises:
        KernelError: It failed; the message has its own first words.
        NotFound: The namespace has gone.
    """
    try:
        with netns.inside(str(where or "")):
            done = subprocess.run(
                argv, input=stdin, capture_output=True, text=True, timeout=_SECONDS, check=False
            )
    except subprocess.TimeoutExpired:
        raise KernelError("run", argv[0], errno.ETIMEDOUT) from None
    if done.returncode != 0:
        words = (done.stderr.strip() or done.stdout.strip()).split("\n")[0]
        target = f"{argv[0]} in {where.name}" if where else argv[0]
        raise KernelError("run", target, errno.EIO, words or f"exit status {done.returncode}")
    return done.stdout


def ip_batch(where: Path, lines: Sequence[str]) -> None:
    """Apply ip(8) commands, one a line, in the namespace *where*; stops at the first failure."""
    run(["ip", "-batch", "-"], where, "\n".join(lines) + "\n")
