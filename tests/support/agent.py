"""A real agent in a namespace, as a process of its own.

with agent_on(host) as agent:
    agent.attach("web", box, publish=["8080:80"])
    agent.kill()
    agent.start()
    assert [] == agent.plan()
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from seaway.cli.client import Client
from seaway.errors import AgentUnreachable
from seaway.kernel import netns
from tests.support.netns import ENVIRONMENT, Namespace, wait_until


class AgentProcess:
    """The process, its folders, and what is asked of it.

    Attributes:
        host: The namespace that plays its host.
        state_dir, run_dir: Its folders.
    """

    def __init__(self, host: Namespace, folder: Path) -> None:
        self.host = host
        self.state_dir, self.run_dir = folder / "state", folder / "run"
        self.client = Client(str(self.run_dir / "seaway.sock"))
        self._log = folder / "agent.log"
        self._process: subprocess.Popen[bytes] | None = None

    def argv(self) -> list[str]:
        """The command that starts it."""
        words = [sys.executable, "-m", "seaway", "agent", "--state-dir", str(self.state_dir)]
        return self.host.argv(*words, "--run-dir", str(self.run_dir))

    def start(self) -> None:
        """Start it and wait until it answers."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self.argv(), stdout=log, stderr=log, env=ENVIRONMENT, cwd="/"
            )
        process = self._process
        wait_until(lambda: process.poll() is not None or self._answers(), 20, "no answer")
        assert process.poll() is None, self.log()

    def _answers(self) -> bool:
        try:
            return bool(self.status())
        except AgentUnreachable:
            return False

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End it and wait for its end; fine if it has ended."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(10)
            self._process = None

    @property
    def pid(self) -> int:
        """Of the running agent."""
        assert self._process is not None
        return self._process.pid

    def log(self) -> str:
        """All it has said."""
        return self._log.read_text()

    # -- asking it --------------------------------------------------------------------------

    def get(self, path: str) -> Any:
        """GET /v1/PATH."""
        return self.client.request("GET", f"/v1/{path}")

    def post(self, path: str, body: object | None = None) -> Any:
        """POST /v1/PATH."""
        return self.client.request("POST", f"/v1/{path}", body if body is not None else {})

    def delete(self, path: str) -> Any:
        """DELETE /v1/PATH."""
        return self.client.request("DELETE", f"/v1/{path}")

    def status(self) -> Any:
        """What ``seaway status`` shows."""
        return self.get("status")

    def plan(self) -> list[str]:
        """What ``seaway plan`` shows."""
        return list(self.get("plan")["lines"])

    def network(self, name: str, n: int, **more: Any) -> Any:
        """Create 10.77.N.0/24 and fd77:N::/64."""
        return self.post(
            "networks", {"name": name, "subnets": [f"10.77.{n}.0/24", f"fd77:{n:x}::/64"]} | more
        )

    def attach(self, name: str, space: Namespace, *networks: str, **more: Any) -> Any:
        """Attach a namespace to networks (bridge, if none is named)."""
        wanted = [{"network": network} for network in networks or ("bridge",)]
        return self.post(
            "sandboxes", {"name": name, "netns": str(space.path), "networks": wanted} | more
        )

    def events(self, kind: str = "") -> list[dict[str, Any]]:
        """What happened since it started, of one kind if named."""
        found: list[Any] = list(self.client.stream("GET", "/v1/events"))
        return [event for event in found if kind in ("", event["kind"])]


@contextmanager
def agent_on(host: Namespace, *, start: bool = True) -> Iterator[AgentProcess]:
    """Run an agent in *host*; at the end it is dead and what it mounted is gone."""
    with tempfile.TemporaryDirectory(prefix="swa") as folder:
        agent = AgentProcess(host, Path(folder))
        try:
            if start:
                agent.start()
            yield agent
        finally:
            agent.kill()
            for kept in Path(folder).glob("run/netns/*"):
                netns.remove(str(kept))


def seaway(host: Namespace, *words: str, seconds: float = 30) -> subprocess.CompletedProcess[str]:
    """Run ``seaway WORDS`` in *host*, whatever comes of it."""
    mine = {k: v for k, v in ENVIRONMENT.items() if k not in ("SEAWAY_SOCKET", "NOTIFY_SOCKET")}
    argv = host.argv(sys.executable, "-m", "seaway", *words)
    return subprocess.run(
        argv, text=True, capture_output=True, timeout=seconds, check=False, env=mine
    )
