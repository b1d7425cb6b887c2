"""Seaway: its API, asked as the command line asks it, and its commands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.programs import milliseconds, run
from seaway.cli.client import Client
from seaway.lab import agents, shell
from seaway.lab.topology import Lab, Machine


@dataclass(frozen=True, slots=True, kw_only=True)
class Attached:
    """A namespace on Seaway's default network."""

    id: str
    space: Path
    v4: str
    resolver: str


class Seaway:
    """The agent of one host of the lab."""

    def __init__(self, lab: Lab, machine: Machine) -> None:
        self.machine = machine
        self._client = Client(str(machine.socket))
        self._environment = shell.environment(lab, machine.name)

    # -- the API -----------------------------------------------------------------------------

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Make one API call, on a connection of its own."""
        return self._client.request(method, path, body)

    def attach(
        self, space: Path, name: str = "", network: str = "bridge", publish: Sequence[str] = ()
    ) -> Attached:
        """Attach an existing namespace to a network."""
        body = {
            "netns": str(space),
            "name": name,
            "networks": [{"network": network}],
            "publish": list(publish),
        }
        made = self.call("POST", "/v1/sandboxes", body)
        return Attached(
            id=made["id"],
            space=space,
            v4=made["networks"][0]["ipv4"],
            resolver=made["resolver"],
        )

    def detach(self, made: Attached) -> None:
        """Detach what attach() attached."""
        self.call("DELETE", f"/v1/sandboxes/{made.id}")

    # -- the commands --------------------------------------------------------------------------

    def command(self, *words: str) -> str:
        """Run ``seaway WORDS`` on the host and return what it prints."""
        return run(["seaway", *words], self.machine.netns, environment=self._environment)

    def command_ms(self, *words: str) -> float:
        """Return how long ``seaway WORDS`` takes, the start of Python included."""
        return milliseconds(lambda: self.command(*words))

    def podman(self, *words: str) -> str:
        """Run Podman on the host, with the flags that ``seaway run`` uses."""
        told = self.call("GET", "/v1/engine")
        words = (words[0], *told["run_flags"], *words[1:]) if words[0] == "run" else words
        environment = {**self._environment, **told["environment"]}
        return run([*told["argv"], *words], self.machine.netns, environment=environment)

    # -- the agent's process -------------------------------------------------------------------

    @property
    def pid(self) -> int:
        """The agent's process number."""
        stat = agents.running(self.machine)
        assert stat is not None, "the lab's agent runs until the lab goes"
        return stat.process.pid
