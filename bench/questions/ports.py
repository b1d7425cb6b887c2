"""How long does it take to publish many ports, each a mapping of its own?

Seaway attaches a namespace with all of them in one API call.  The peers take
half a minute and more for 1,000, so they are asked only when there is time.
"""

from __future__ import annotations

import time

from bench.programs import milliseconds
from bench.samples import Probe, Sample
from bench.stage import Stage

PUBLISH = "publish many ports"
WITHDRAW = "withdraw many ports"
_FIRST_PORT = 20000


def measure(stage: Stage) -> None:
    """Measure Seaway in rounds, and each peer once."""
    _seaway(stage)
    if stage.sizes.slow:
        stage.take(_peers(stage), rounds=1)


def _range(stage: Stage) -> range:
    return range(_FIRST_PORT, _FIRST_PORT + stage.sizes.ports)


def _seaway(stage: Stage) -> None:
    seaway = stage.seaway
    flags = [f"{port}:{port}" for port in _range(stage)]
    removals: list[float] = []

    def publish() -> float:
        space = stage.spaces.make_bare()
        began = time.perf_counter()
        made = seaway.attach(space, publish=flags)
        took = (time.perf_counter() - began) * 1e3
        removals.append(milliseconds(lambda: seaway.detach(made)))
        stage.spaces.remove(space)
        return took

    stage.take([Probe(PUBLISH, "seaway", "ms", publish)])
    stage.samples += (
        Sample(what=WITHDRAW, who="seaway", unit="ms", round=number, value=value)
        for number, value in enumerate(removals)
    )


def _peers(stage: Stage) -> list[Probe]:
    ports = _range(stage)

    def by_docker() -> float:
        flags = [word for port in ports for word in ("-p", f"{port}:{port}")]
        container = ""

        def start() -> None:
            nonlocal container
            container = stage.docker.start(*flags)

        took = milliseconds(start)
        stage.docker.remove(container)
        return took

    def by_netavark() -> float:
        space = stage.spaces.make_bare()
        # Not taken down again, which takes two minutes: its rules go with the lab.
        return milliseconds(lambda: stage.netavark.join(space, ports))

    def by_cni() -> float:
        space = stage.spaces.make_bare()
        return milliseconds(lambda: stage.cni.add(space, ports))

    return [
        Probe(PUBLISH, "docker run", "ms", by_docker),
        Probe(PUBLISH, "netavark", "ms", by_netavark),
        Probe(PUBLISH, "CNI bridge + portmap", "ms", by_cni),
    ]
