"""Docker: a dockerd of its own inside a host of the lab, with its state in the lab's folders.

It is started with nsenter, which leaves /sys and the control groups visible to it.
"""

from __future__ import annotations

import subprocess
import tarfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.programs import ENVIRONMENT, Failed, enter, run
from seaway.cli.client import Client
from seaway.errors import SeawayError
from seaway.lab.topology import Machine

IMAGE = "bench"
_READY_SECONDS = 60.0
_END_SECONDS = 30.0


class Docker:
    """One dockerd."""

    def __init__(self, machine: Machine, process: subprocess.Popen[bytes]) -> None:
        self.machine = machine
        self._process = process
        self._socket = _socket(machine)
        self._client = Client(str(self._socket))

    @classmethod
    @contextmanager
    def running(cls, machine: Machine, binary: Path) -> Iterator[Docker]:
        """Start dockerd; its image holds nothing but *binary*, the load tool."""
        state, log = machine.state_dir / "docker", machine.state_dir / "docker.log"
        state.mkdir(parents=True, exist_ok=True)
        config = state / "daemon.json"
        config.write_text("{}")  # so that /etc/docker is not read
        argv = ["dockerd", "--config-file", str(config), "--data-root", str(state / "data")]
        argv += ["--exec-root", str(machine.run_dir / "docker")]
        argv += ["--pidfile", str(machine.run_dir / "docker.pid")]
        argv += ["--host", f"unix://{_socket(machine)}"]
        with log.open("wb") as out:
            process = subprocess.Popen(
                enter(machine.netns, argv), stdout=out, stderr=out, env=ENVIRONMENT
            )
        docker = cls(machine, process)
        try:
            docker._wait_ready(log)
            docker._import(binary)
            yield docker
        finally:
            process.terminate()
            try:
                process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def command(self, *words: str) -> str:
        """Run ``docker WORDS`` and return what it prints, stripped."""
        return run(["docker", "--host", f"unix://{self._socket}", *words]).strip()

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Make one API call, on a connection of its own."""
        return self._client.request(method, path, body)

    def network(self, name: str) -> None:
        """Have a user-defined bridge network."""
        if name not in self.command("network", "ls", "--format", "{{.Name}}").split():
            self.command("network", "create", name)

    def start(self, *flags: str) -> str:
        """Start a container that does nothing; return its id."""
        return self.command("run", "-d", *flags, IMAGE, "/load", "pause")

    def remove(self, container: str) -> None:
        """Remove a container, running or not."""
        self.command("rm", "-f", container)

    def space(self, container: str) -> Path:
        """Return the container's network namespace."""
        pid = self.command("inspect", "-f", "{{.State.Pid}}", container)
        return Path(f"/proc/{pid}/ns/net")

    def address(self, container: str, network: str) -> str:
        """Return the container's IPv4 address on *network*."""
        form = f'{{{{(index .NetworkSettings.Networks "{network}").IPAddress}}}}'
        return self.command("inspect", "-f", form, container)

    @property
    def pid(self) -> int:
        """The daemon's process number: nsenter has become it."""
        return self._process.pid

    def _wait_ready(self, log: Path) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        while True:
            try:
                self.call("GET", "/info")
            except SeawayError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise Failed(f"dockerd did not start: {log.read_text()[-400:]}") from None
                time.sleep(0.05)
            else:
                return

    def _import(self, binary: Path) -> None:
        archive = binary.with_suffix(".tar")
        with tarfile.open(archive, "w") as tar:
            tar.add(binary, "load")
        self.command("import", str(archive), IMAGE)


def _socket(machine: Machine) -> Path:
    return machine.run_dir / "docker.sock"
