"""The load tool (load.c): compiled here, its servers kept running, its clients read."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.programs import ENVIRONMENT, Failed, enter, run

_SOURCE = Path(__file__).with_name("load.c")
CPU = 1
"""Both ends of a connection run on this one: see load.c."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a client counted; latencies in microseconds."""

    per_second: float
    p50_us: float
    p99_us: float
    failed: int


class Load:
    """Starts servers, once each, and runs clients."""

    def __init__(self, binary: Path) -> None:
        self.binary = binary
        self._servers: dict[tuple[int, int], subprocess.Popen[str]] = {}

    @classmethod
    @contextmanager
    def built(cls, folder: Path) -> Iterator[Load]:
        """Compile it (static, so that it runs in an empty container image)."""
        binary = folder / "load"
        run(["gcc", "-O2", "-static", "-o", str(binary), str(_SOURCE)])
        load = cls(binary)
        try:
            yield load
        finally:
            for server in load._servers.values():
                server.kill()
                server.communicate()

    def serve(self, space: Path, port: int) -> None:
        """Have a TCP server on *port* in *space*, until the end."""
        key = (space.stat().st_ino, port)
        if key in self._servers:
            return
        argv = enter(space, [str(self.binary), "serve", str(port), str(CPU)])
        server = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)
        self._servers[key] = server
        assert server.stdout is not None
        if server.stdout.readline().strip() != "ready":
            raise Failed(f"no server on port {port} in {space}")

    def round_trips(self, space: Path, address: str, port: int, seconds: float) -> Result:
        """One byte there and back on one connection, again and again."""
        return self._client(space, "rr", address, str(port), str(seconds), str(CPU))

    def connections(self, space: Path, address: str, port: int, seconds: float) -> Result:
        """Connect, one byte each way, close; again and again."""
        return self._client(space, "crr", address, str(port), str(seconds), str(CPU))

    def flow(self, space: Path, address: str, port: int, seconds: float) -> float:
        """As many bytes as go through one connection; return Gbit/s of what arrived."""
        sent = self._client(space, "flow", address, str(port), str(seconds), str(CPU))
        return sent.per_second * 8 / 1e9

    def questions(self, space: Path, server: str, name: str, ahead: int, seconds: float) -> Result:
        """Ask for the address of *name*, *ahead* questions at a time."""
        return self._client(space, "dns", server, "53", str(seconds), "-1", str(ahead), name)

    def _client(self, space: Path, *words: str) -> Result:
        result = Result(**json.loads(run([str(self.binary), *words], space)))
        if result.failed > 0.01 * result.per_second:
            raise Failed(f"{' '.join(words)}: {result.failed} failures")
        return result
