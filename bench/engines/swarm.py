"""Docker's overlay network: two dockerds in one swarm."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from bench.engines.by_hand import Ends
from bench.engines.docker import Docker
from bench.programs import Failed
from seaway.lab.topology import Machine

NETWORK = "far"
_PORT = 2377


class Swarm:
    """A manager and a worker with an attachable overlay network."""

    def __init__(self, members: Sequence[Docker], addresses: Sequence[str]) -> None:
        self.first, self.second = members
        self._addresses = addresses

    @property
    def hosts(self) -> Ends:
        """From host to host."""
        return Ends(self.first.machine.netns, self.second.machine.netns, self._addresses[1])

    @classmethod
    @contextmanager
    def running(
        cls, machines: Sequence[Machine], addresses: Sequence[str], binary: Path
    ) -> Iterator[Swarm]:
        """Start both on hosts that reach each other at *addresses*."""
        with ExitStack() as stack:
            members = [stack.enter_context(Docker.running(m, binary)) for m in machines]
            swarm = cls(members, addresses)
            swarm._form()
            for member in members:
                stack.callback(_leave, member)
            yield swarm

    def _form(self) -> None:
        first, second = self._addresses
        here = ("--advertise-addr", first, "--listen-addr", f"{first}:{_PORT}")
        self.first.command("swarm", "init", *here, "--data-path-addr", first)
        token = self.first.command("swarm", "join-token", "--quiet", "worker")
        there = ("--advertise-addr", second, "--listen-addr", f"{second}:{_PORT}")
        self.second.command("swarm", "join", *there, "--token", token, f"{first}:{_PORT}")
        self.first.command("network", "create", "--driver", "overlay", "--attachable", NETWORK)


def _leave(member: Docker) -> None:
    """Remove all containers, so that none keeps its network, and leave the swarm.

    Ctrl-C may have ended the daemon already; then the lab takes the rest down.
    """
    with suppress(Failed):
        if containers := member.command("ps", "--all", "--quiet").split():
            member.command("rm", "--force", *containers)
        member.command("swarm", "leave", "--force")
