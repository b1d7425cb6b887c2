"""Real etcd members on loopback, with ports of their own; gone at the end.

with etcds(3) as members:
    client = Etcd([m.url for m in members], None)
    members[0].kill()
"""

from __future__ import annotations

import asyncio
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

from seaway.errors import StoreError
from seaway.store.etcd import Etcd

T = TypeVar("T")

QUICK = ("--heartbeat-interval=20", "--election-timeout=200")  # leases then last 1 s at least


class Member:
    """One etcd.

    Attributes:
        url: For clients.
        argv: Its whole command line.
    """

    def __init__(self, url: str, argv: Sequence[str], log: Path) -> None:
        self.url = url
        self.argv = argv
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; it may not answer yet."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self.argv, stdout=log, stderr=log, cwd="/")

    def send(self, number: signal.Signals) -> None:
        """Signal it."""
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it without warning; fine if it has ended."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def need_etcd() -> None:
    """Skip where etcd is not installed."""
    if shutil.which("etcd") is None:
        pytest.skip("etcd is not installed")


@contextmanager
def etcds(
    count: int = 1, scheme: str = "http", flags: Sequence[str] = ()
) -> Iterator[list[Member]]:
    """Run a cluster of *count* members that answers."""
    need_etcd()
    ports = free_ports(2 * count)
    peers = [f"{scheme}://127.0.0.1:{port}" for port in ports[count:]]
    cluster = ",".join(f"m{i}={url}" for i, url in enumerate(peers))
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        members = []
        for i in range(count):
            url = f"{scheme}://127.0.0.1:{ports[i]}"
            argv = [
                *("etcd", "--name", f"m{i}", "--data-dir", f"{folder}/m{i}", "--logger=zap"),
                *("--listen-client-urls", url, "--advertise-client-urls", url),
                *("--listen-peer-urls", peers[i], "--initial-advertise-peer-urls", peers[i]),
                *("--initial-cluster", cluster, "--max-txn-ops=1024", *QUICK, *flags),
            ]
            members.append(Member(url, argv, Path(folder) / f"m{i}.log"))
            stack.callback(members[-1].kill)
            members[-1].start()
        if scheme == "http":
            for member in members:
                run(answers(member.url))
        yield members


async def answers(url: str, seconds: float = 15) -> None:
    """Wait until the member at *url* knows a leader."""
    client = Etcd([url], None, timeout=1)
    try:
        await succeeds(lambda: _has_leader(client, url), seconds)
    finally:
        await client.aclose()


async def _has_leader(client: Etcd, url: str) -> None:
    if not (await client.status(url)).leader:
        raise StoreError("no leader yet")


async def succeeds(ask: Any, seconds: float = 15) -> Any:
    """Repeat *ask* until it raises no StoreError; return what it returns."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return await ask()
        except StoreError:
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(0.02)


def run(work: Coroutine[Any, Any, T], seconds: float = 30) -> T:
    """Run *work* in a loop of its own, with a deadline."""

    async def bounded() -> T:
        async with asyncio.timeout(seconds):
            return await work

    return asyncio.run(bounded())
