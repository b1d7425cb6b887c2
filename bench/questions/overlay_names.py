"""A container starts on one host: when can one on another host use its name?

From the moment it is asked for until both its name is answered in a container
on the third host, and its address there answers.  Seaway attaches an existing
namespace; Docker makes and starts a container through its API, without the command line.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from bench.engines.docker import IMAGE, Docker
from bench.engines.swarm import NETWORK
from bench.look import Look
from bench.programs import Failed
from bench.samples import Probe, say
from bench.stage import Stage
from seaway.errors import SeawayError

T = TypeVar("T")

USABLE = "a new container's name and address, usable on another host"
SEAWAY, SWARM = "seaway", "docker swarm"

_IN_A_ROUND = 10  # of Seaway's for one of Docker's
_NETWORK = "named"
_SECONDS = 10.0
_serial = itertools.count()


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
    here, there = members.first, members.third
    # One of it is on each host already: not the network is new, the container is.
    here.attach(stage.spaces.make_bare(), network=_NETWORK)
    watcher = there.attach(stage.spaces.make(), network=_NETWORK)
    look = stage.kept(Look(watcher.space, watcher.resolver))

    def take() -> float:
        name, space = f"new{next(_serial)}", stage.spaces.make()
        took, made = _usable(look, name, lambda: here.attach(space, name, _NETWORK))
        here.detach(made)
        stage.spaces.remove(space)
        return took

    return [Probe(USABLE, SEAWAY, "ms", take)] * _IN_A_ROUND


def _swarm(stage: Stage) -> list[Probe]:
    here, there = stage.far.swarm.first, stage.far.swarm.second
    here.start("--network", NETWORK)
    watcher = there.start("--network", NETWORK)
    look = stage.kept(Look(there.space(watcher), "127.0.0.11"))

    def take() -> float:
        name = f"new{next(_serial)}"
        took, _ = _usable(look, name, partial(_run, here, name))
        here.remove(name)
        return took

    return [Probe(USABLE, SWARM, "ms", take)]


def _run(docker: Docker, name: str) -> None:
    body = {"Image": IMAGE, "Cmd": ["/load", "pause"], "HostConfig": {"NetworkMode": NETWORK}}
    made = docker.call("POST", f"/v1.41/containers/create?name={name}", body)
    docker.call("POST", f"/v1.41/containers/{made['Id']}/start")


def _usable(look: Look, name: str, make: Callable[[], T]) -> tuple[float, T]:
    """Have it made, and return how long its name and address took, in ms, and what was made."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        began = time.perf_counter()
        making = pool.submit(make)
        look.address(look.name(name, _SECONDS), _SECONDS)
        took = (time.perf_counter() - began) * 1e3
        return took, making.result()
