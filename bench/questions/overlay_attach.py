"""How long does it take to attach something to an overlay network, through the API?

On a cluster of three hosts with three stores.  Docker attaches no namespaces,
so ``network connect`` of a running container stands for it.  Both have a
member on that host already.
"""

from __future__ import annotations

import time
from functools import partial

from bench.engines.docker import Docker
from bench.engines.members import Members
from bench.engines.swarm import NETWORK
from bench.programs import Failed, milliseconds
from bench.samples import Probe, say
from bench.stage import Stage
from seaway.errors import SeawayError

ATTACH = "attach to an overlay network"
SEAWAY, SWARM = "seaway", "docker swarm"

_IN_A_ROUND = 10  # attaches of Seaway for one of Docker, which takes forty times as long
_NETWORK = "joined"


def measure(stage: Stage) -> None:
    """Measure both in rounds."""
    probes: list[Probe] = []
    for find in (_seaway, _swarm):
        try:
            probes += find(stage)
        except (Failed, SeawayError, OSError) as err:
            say(f"left out, {find.__name__.strip('_')}: {err}")
    stage.take(probes, rounds=max(1, stage.sizes.calls // _IN_A_ROUND))


def _seaway(stage: Stage) -> list[Probe]:
    members = stage.far.cluster
    members.network(_NETWORK)
    members.first.attach(stage.spaces.make_bare(), network=_NETWORK)
    return [Probe(ATTACH, SEAWAY, "ms", partial(_attach, stage, members))] * _IN_A_ROUND


def _attach(stage: Stage, members: Members) -> float:
    space = stage.spaces.make_bare()
    began = time.perf_counter()
    made = members.first.attach(space, network=_NETWORK)
    took = (time.perf_counter() - began) * 1e3
    members.first.detach(made)
    stage.spaces.remove(space)
    return took


def _swarm(stage: Stage) -> list[Probe]:
    docker = stage.far.swarm.first
    docker.start("--network", NETWORK)
    docker.network("first")
    container = docker.start("--network", "first")
    return [Probe(ATTACH, SWARM, "ms", partial(_connect, docker, container))]


def _connect(docker: Docker, container: str) -> float:
    body = {"Container": container}
    took = milliseconds(lambda: docker.call("POST", f"/v1.41/networks/{NETWORK}/connect", body))
    docker.call("POST", f"/v1.41/networks/{NETWORK}/disconnect", body)
    return took
