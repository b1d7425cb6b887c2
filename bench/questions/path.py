"""What does the path cost that packets take?  Round trips, and connections of one byte each way.

Everything is a ratio to the barest thing that does the same: a veth pair between two
namespaces, a process on the host itself, loopback.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bench.samples import Probe
from bench.spaces import wire
from bench.stage import Stage
from seaway.lab.topology import Machine

SAME_HOST, OUTSIDE, LOCAL = "same host", "from outside", "from the host"
LOCAL4, LOCAL6 = "127.0.0.1", "::1"
KINDS = ("round trips", "connections")

VETH, LOOPBACK = "bare veth", "loopback"
SEAWAY, DOCKER, NETAVARK, CNI = "seaway", "docker", "netavark", "CNI bridge + portmap"

_INNER = 7001  # published as itself
_HOST = 7101  # of a process on the host, not published


@dataclass(frozen=True, slots=True)
class _Path:
    what: str
    who: str
    client: Path
    server: Path
    address: str
    port: int = _INNER


@dataclass(frozen=True, slots=True)
class _Pair:
    """Two containers of one engine; the second one's port is published."""

    engine: str
    host: Machine
    asker: Path
    server: Path
    v4: str


def measure(stage: Stage) -> None:
    """Measure every path in rounds."""
    pairs = [_seaway(stage), _docker(stage), _netavark(stage), _cni(stage)]
    paths = [*_bare(stage), *(path for pair in pairs for path in _of(stage, pair))]
    for path in paths:
        stage.load.serve(path.server, path.port)
    stage.take([_probe(stage, path, kind) for path in paths for kind in KINDS])


def name(*words: str) -> str:
    """Name what is measured, e.g. "same host, round trips"."""
    return ", ".join(words)


def on_host(engine: str) -> str:
    """Name the process on an engine's host that its published port is compared with."""
    return f"process on {engine}'s host"


def _probe(stage: Stage, path: _Path, kind: str) -> Probe:
    client = stage.load.round_trips if kind == KINDS[0] else stage.load.connections

    def take() -> float:
        seconds = stage.sizes.seconds
        return client(path.client, path.address, path.port, seconds).per_second

    return Probe(name(path.what, kind), path.who, "/s", take)


def _bare(stage: Stage) -> list[_Path]:
    a, b, alone = (stage.spaces.make() for _ in range(3))
    return [
        _Path(SAME_HOST, VETH, a, b, wire(a, b)[1]),
        _Path(name(LOCAL, LOCAL4), LOOPBACK, alone, alone, LOCAL4),
        _Path(name(LOCAL, LOCAL6), LOOPBACK, alone, alone, LOCAL6),
    ]


def _of(stage: Stage, pair: _Pair) -> list[_Path]:
    home, outside, engine = pair.host.netns, stage.outside, pair.engine
    address = str(pair.host.v4.ip)
    paths = [
        _Path(SAME_HOST, engine, pair.asker, pair.server, pair.v4),
        _Path(OUTSIDE, engine, outside, pair.server, address),
        _Path(OUTSIDE, on_host(engine), outside, home, address, _HOST),
        _Path(name(LOCAL, LOCAL4), engine, home, pair.server, LOCAL4),
    ]
    if engine in (SEAWAY, DOCKER):  # the others have no IPv6 here
        paths.append(_Path(name(LOCAL, LOCAL6), engine, home, pair.server, LOCAL6))
    return paths


def _seaway(stage: Stage) -> _Pair:
    asker, server = stage.spaces.make(), stage.spaces.make()
    stage.seaway.attach(asker)
    made = stage.seaway.attach(server, publish=[f"{_INNER}:{_INNER}"])
    return _Pair(SEAWAY, stage.seaway.machine, asker, server, made.v4)


def _docker(stage: Stage) -> _Pair:
    docker = stage.docker
    docker.network("paths")
    asker = docker.start("--network", "paths")
    server = docker.start("--network", "paths", "-p", f"{_INNER}:{_INNER}")
    address = docker.address(server, "paths")
    return _Pair(DOCKER, docker.machine, docker.space(asker), docker.space(server), address)


def _netavark(stage: Stage) -> _Pair:
    asker, server = stage.spaces.make(), stage.spaces.make()
    stage.netavark.join(asker)
    made = stage.netavark.join(server, [_INNER])
    return _Pair(NETAVARK, stage.netavark.machine, asker, server, made.v4)


def _cni(stage: Stage) -> _Pair:
    asker, server = stage.spaces.make(), stage.spaces.make()
    stage.cni.add(asker)
    made = stage.cni.add(server, [_INNER])
    return _Pair(CNI, stage.cni.machine, asker, server, made.v4)
