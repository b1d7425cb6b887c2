"""How fast are names of containers answered?

The rate with 32 questions on their way at any time, and the latency of one after the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.engines.podman import NETWORK
from bench.samples import Probe
from bench.stage import Stage

RATE = "own names, 32 outstanding"
LATENCY = "own names, one at a time"
AARDVARK = "podman (aardvark-dns)"
_AHEAD = 32


@dataclass(frozen=True, slots=True)
class _Server:
    who: str
    space: Path  # where the asking is done
    address: str
    name: str


def measure(stage: Stage) -> None:
    """Measure Seaway's server, Docker's and aardvark-dns."""
    servers = [_seaway(stage), _docker(stage), _podman(stage)]
    probes = [Probe(RATE, s.who, "/s", partial(_rate, stage, s)) for s in servers]
    probes += [Probe(LATENCY, s.who, "µs", partial(_latency, stage, s)) for s in servers]
    stage.take(probes)


def _seaway(stage: Stage) -> _Server:
    asker = stage.seaway.attach(stage.spaces.make(), name="asker")
    stage.seaway.attach(stage.spaces.make(), name="asked")
    return _Server("seaway", asker.space, asker.resolver, "asked")


def _docker(stage: Stage) -> _Server:
    stage.docker.network("names")
    asker = stage.docker.start("--network", "names", "--name", "asker")
    stage.docker.start("--network", "names", "--name", "asked")
    return _Server("docker", stage.docker.space(asker), "127.0.0.11", "asked")


def _podman(stage: Stage) -> _Server:
    asker = stage.podman.start("--network", NETWORK, "--name", "asker")
    stage.podman.start("--network", NETWORK, "--name", "asked")
    space = stage.podman.space(asker)
    return _Server(AARDVARK, space, stage.podman.gateway(), "asked.dns.podman")


def _rate(stage: Stage, server: _Server) -> float:
    asked = stage.load.questions(
        server.space, server.address, server.name, _AHEAD, stage.sizes.seconds
    )
    return asked.per_second


def _latency(stage: Stage, server: _Server) -> float:
    asked = stage.load.questions(server.space, server.address, server.name, 1, stage.sizes.seconds)
    return asked.p50_us
