"""How long does a command take that only asks?"""

from __future__ import annotations

from bench.programs import milliseconds
from bench.samples import Probe
from bench.stage import Stage

LIST = "network ls"


def measure(stage: Stage) -> None:
    """Measure whole processes, from start to exit."""
    seaway, docker = stage.seaway, stage.docker
    stage.take(
        [
            Probe(LIST, "seaway", "ms", lambda: seaway.command_ms("network", "ls")),
            Probe(
                LIST, "docker", "ms", lambda: milliseconds(lambda: docker.command("network", "ls"))
            ),
        ],
    )
