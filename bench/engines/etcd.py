"""One real etcd in a namespace, without TLS, for what is measured against a store."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from time import monotonic, sleep
from typing import Any, TypeVar

from bench.programs import ENVIRONMENT, Failed, enter
from seaway.errors import StoreError
from seaway.kernel import netns
from seaway.store.etcd import Etcd, Write

URL = "http://127.0.0.1:2379"
_PEER_URL = "http://127.0.0.1:2380"
_AT_ONCE = 1000  # writes in one transaction
_READY_SECONDS = 20.0
_ASK_SECONDS = 30.0

T = TypeVar("T")


class Store:
    """etcd on the loopback of *space*."""

    def __init__(self, space: Path, process: subprocess.Popen[bytes]) -> None:
        self.space = space
        self._process = process

    @classmethod
    @contextmanager
    def running(cls, space: Path, folder: Path) -> Iterator[Store]:
        """Start it with its data in *folder*."""
        argv = ["etcd", "--name", "bench", "--data-dir", str(folder / "etcd")]
        argv += ["--listen-client-urls", URL, "--advertise-client-urls", URL]
        argv += ["--listen-peer-urls", _PEER_URL, "--initial-advertise-peer-urls", _PEER_URL]
        argv += ["--initial-cluster", f"bench={_PEER_URL}", "--max-txn-ops", "2000"]
        argv += ["--quota-backend-bytes", str(2**32)]
        with (folder / "etcd.log").open("wb") as log:
            process = subprocess.Popen(enter(space, argv), stdout=log, stderr=log, env=ENVIRONMENT)
        store = cls(space, process)
        try:
            store._wait_ready(folder / "etcd.log")
            yield store
        finally:
            process.terminate()
            process.wait()

    def ask(self, work: Callable[[Etcd], Coroutine[Any, Any, T]]) -> T:
        """Have *work* done by a client in etcd's namespace."""

        async def asked() -> T:
            client = Etcd([URL], None, _ASK_SECONDS)
            try:
                return await work(client)
            finally:
                await client.aclose()

        with netns.inside(str(self.space)):
            return asyncio.run(asked())

    def write(self, records: Iterable[tuple[str, bytes]]) -> int:
        """Write *records*, many at once; return how many."""

        async def put(client: Etcd) -> int:
            left, count = iter(records), 0
            while batch := [Write(key, value) for key, value in islice(left, _AT_ONCE)]:
                await client.txn(puts=batch)
                count += len(batch)
            return count

        return self.ask(put)

    def _wait_ready(self, log: Path) -> None:
        deadline = monotonic() + _READY_SECONDS
        while True:
            try:
                self.ask(lambda client: client.get("ready"))
            except StoreError:
                if self._process.poll() is not None or monotonic() > deadline:
                    words = log.read_text(errors="replace")[-300:]
                    raise Failed(f"etcd did not start: {words}") from None
                sleep(0.05)
            else:
                return
