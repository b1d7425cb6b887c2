"""How long does it take to attach something to a network?  One API call, or what peers have for it.

Measured with nobody attached, and again with hundreds: the 500th as fast as the 1st.
"""

from __future__ import annotations

import time

from bench.engines.docker import Docker
from bench.programs import milliseconds
from bench.samples import Probe, Sample
from bench.stage import Stage

ATTACH = "attach"
CONNECT = "connect to one more network"
EARLY, LATE = "attach, the first 20 of many", "attach, the last 20 of many"
_GROUP = 20


def measure(stage: Stage) -> None:
    """Measure single attaches in rounds, then many in a row."""
    stage.take([*_alone(stage), *_connects(stage)])
    _many(stage)


def _alone(stage: Stage) -> list[Probe]:
    seaway, netavark, cni = stage.seaway, stage.netavark, stage.cni

    def by_seaway() -> float:
        space = stage.spaces.make_bare()
        began = time.perf_counter()
        made = seaway.attach(space)
        took = (time.perf_counter() - began) * 1e3
        seaway.detach(made)
        stage.spaces.remove(space)
        return took

    def by_netavark() -> float:
        space = stage.spaces.make_bare()
        began = time.perf_counter()
        joined = netavark.join(space)
        took = (time.perf_counter() - began) * 1e3
        netavark.leave(joined)
        stage.spaces.remove(space)
        return took

    def by_cni() -> float:
        space = stage.spaces.make_bare()
        began = time.perf_counter()
        added = cni.add(space, [18080])
        took = (time.perf_counter() - began) * 1e3
        cni.delete(added)
        stage.spaces.remove(space)
        return took

    # One stays on each bridge, so that none is measured making or removing it.
    netavark.join(stage.spaces.make_bare())
    cni.add(stage.spaces.make_bare())
    return [
        Probe(ATTACH, "seaway", "ms", by_seaway),
        Probe(ATTACH, "netavark", "ms", by_netavark),
        Probe(ATTACH, "CNI bridge + portmap", "ms", by_cni),
    ]


def _connects(stage: Stage) -> list[Probe]:
    seaway, docker = stage.seaway, stage.docker
    seaway.call("POST", "/v1/networks", {"name": "second"})
    member = seaway.attach(stage.spaces.make_bare(), name="joiner")
    docker.network("first")
    docker.network("second")
    container = docker.start("--network", "first")

    def by_seaway() -> float:
        body = {"sandbox": member.id, "endpoint": {"network": "second"}}
        took = milliseconds(lambda: seaway.call("POST", "/v1/networks/second/connect", body))
        seaway.call("POST", "/v1/networks/second/disconnect", {"sandbox": member.id})
        return took

    return [
        Probe(CONNECT, "seaway", "ms", by_seaway),
        Probe(CONNECT, "docker network connect", "ms", lambda: _docker_connect(docker, container)),
    ]


def _docker_connect(docker: Docker, container: str) -> float:
    body = {"Container": container}
    took = milliseconds(lambda: docker.call("POST", "/v1.41/networks/second/connect", body))
    docker.call("POST", "/v1.41/networks/second/disconnect", body)
    return took


def _many(stage: Stage) -> None:
    """Attach to a network of its own, as fast as the answers come."""
    seaway, count = stage.seaway, stage.sizes.endpoints
    seaway.call("POST", "/v1/networks", {"name": "many", "subnets": ["10.244.0.0/16"]})
    spaces = [stage.spaces.make_bare() for _ in range(count)]
    made, times = [], []
    for space in spaces:
        began = time.perf_counter()
        made.append(seaway.attach(space, network="many"))
        times.append((time.perf_counter() - began) * 1e3)
    for one in made:
        seaway.detach(one)
    for space in spaces:
        stage.spaces.remove(space)
    seaway.call("DELETE", "/v1/networks/many")
    group = min(_GROUP, count // 2)
    stage.samples += (
        Sample(what=what, who="seaway", unit="ms", round=number, value=value)
        for what, part in ((EARLY, times[:group]), (LATE, times[-group:]))
        for number, value in enumerate(part)
    )
