"""The stage that questions are measured on: a lab with one host for each engine.

All hosts and the client machine ``outside`` hang on the lab's one virtual wire,
so every engine has the same way in.  Only host1 has a Seaway agent.  Taking the
lab down ends everything that was started on it, whatever state it is in.
"""

from __future__ import annotations

import compileall
import fcntl
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol, TypeVar

import seaway
from bench import far
from bench.engines.cni import Cni
from bench.engines.docker import Docker
from bench.engines.netavark import Netavark
from bench.engines.podman import Podman
from bench.engines.seaway import Seaway
from bench.far import Far
from bench.load import Load
from bench.quiet import Patience
from bench.samples import Probe, Sample, take_rounds
from bench.spaces import Spaces, host_settings
from seaway.errors import Conflict
from seaway.lab.agents import agent_command
from seaway.lab.lifecycle import running_lab
from seaway.lab.topology import Lab, Machine

NAME = "bench"
_LOCK = Path("/run/seaway-bench.lock")
_HOSTS = {"seaway": "host1", "docker": "host2", "podman": "host3", "cni": "host4"}

_NO_AGENT = """
import os, socket
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
    sock.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
"""


class Closable(Protocol):
    """What has to be closed."""

    def close(self) -> None:
        """Let go of it."""
        ...


Kept = TypeVar("Kept", bound=Closable)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How much is measured.

    Attributes:
        rounds: Times that everything is measured.
        seconds: Of traffic for a sample.
        endpoints: "the 500th as fast as the 1st".
        ports: "publish 1,000 separate ports".
        hosts: In the simulated cluster, beside the real one.
        containers: On each of them, on each of four networks.
        calls: Of what takes milliseconds and is to have a 99th percentile.
        slow: Also what takes peers half a minute and more.
    """

    rounds: int = 7
    seconds: float = 1.0
    endpoints: int = 500
    ports: int = 1000
    hosts: int = 999
    containers: int = 25
    calls: int = 100
    slow: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How to measure, and where to put what is measured."""

    sizes: Sizes
    patience: Patience
    samples: list[Sample]


QUICK = Sizes(rounds=1, seconds=0.1, endpoints=10, ports=20, hosts=20, containers=2, calls=5)


class Stage:
    """Where a question finds what it measures; engines start when first asked for.

    Attributes:
        samples: Everything that was measured so far.
    """

    def __init__(self, lab: Lab, plan: Plan, stack: ExitStack) -> None:
        self.lab = lab
        self._homes: list[Path] = []
        self.sizes = plan.sizes
        self.samples = plan.samples
        self.spaces = stack.enter_context(Spaces.made())
        self._patience = plan.patience
        self._stack = stack
        self._folder = Path(stack.enter_context(TemporaryDirectory(prefix="seaway-bench-")))
        self._prepare(lab)

    @property
    def outside(self) -> Path:
        """The namespace of the client machine."""
        return self.lab.machine("outside").netns

    def host(self, engine: str) -> Machine:
        """Return the host that belongs to *engine*."""
        return self.lab.host(_HOSTS[engine])

    def kept(self, thing: Kept) -> Kept:
        """Close *thing* at the end."""
        self._stack.callback(thing.close)
        return thing

    def take(self, probes: Sequence[Probe], rounds: int = 0) -> None:
        """Measure *probes* in rounds (0: as many as the sizes say)."""
        rounds = rounds or self.sizes.rounds
        # One by one, so that those before are kept when the run is ended.
        for sample in take_rounds(probes, rounds, self._patience, self._homes):
            self.samples.append(sample)

    def _prepare(self, lab: Lab) -> None:
        for machine in lab.machines:
            host_settings(machine.netns)
            self._homes.append(machine.netns)

    @cached_property
    def load(self) -> Load:
        """The load tool, compiled."""
        return self._stack.enter_context(Load.built(self._folder))

    @cached_property
    def seaway(self) -> Seaway:
        """The agent on host1."""
        return Seaway(self.lab, self.host("seaway"))

    @cached_property
    def far(self) -> Far:
        """Hosts for what happens between hosts."""
        lab = self._stack.enter_context(running_lab(far.NAME, far.HOSTS, _no_agent))
        self._prepare(lab)
        return Far(lab, self.spaces, self.load.binary, self._stack)

    @cached_property
    def docker(self) -> Docker:
        """A dockerd on host2."""
        return self._stack.enter_context(Docker.running(self.host("docker"), self.load.binary))

    @cached_property
    def podman(self) -> Podman:
        """Podman with its own networks, on host3."""
        podman = Podman(self.host("podman"))
        self._stack.callback(podman.remove_all)
        return podman

    @cached_property
    def netavark(self) -> Netavark:
        """Netavark called as Podman calls it, on host3."""
        return Netavark(self.host("podman"))

    @cached_property
    def cni(self) -> Cni:
        """The CNI plugins called as a runtime calls them, on host4."""
        return Cni(self.host("cni"))


@contextmanager
def built(plan: Plan) -> Iterator[Stage]:
    """Build the stage, and remove all of it at the end."""
    # As pip does when it installs: the environment may keep a checkout from doing it by itself.
    compileall.compile_dir(Path(seaway.__file__).parent, quiet=1)
    with _only_one(), running_lab(NAME, len(_HOSTS), _command) as lab, ExitStack() as stack:
        yield Stage(lab, plan, stack)


@contextmanager
def _only_one() -> Iterator[None]:
    """Two benchmarks at a time would measure each other.

    Raises:
        Conflict: Another one runs.
    """
    with _LOCK.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict("another benchmark is running: wait for its end") from None
        yield


def _command(machine: Machine) -> list[str]:
    if machine.name == _HOSTS["seaway"]:
        return agent_command(machine)
    return _no_agent(machine)


def _no_agent(_machine: Machine) -> list[str]:
    return [sys.executable, "-c", _NO_AGENT]
