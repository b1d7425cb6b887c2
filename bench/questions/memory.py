"""How much memory does the daemon hold, with nothing attached and with hundreds of endpoints?"""

from __future__ import annotations

from pathlib import Path

from bench.samples import Sample
from bench.stage import Stage

EMPTY = "resident memory, nothing attached"
FULL = "resident memory, many endpoints"


def measure(stage: Stage) -> None:
    """Measure the agent twice and dockerd once, on hosts where other questions may have run."""
    seaway, count = stage.seaway, stage.sizes.endpoints
    values = [
        (EMPTY, "seaway", resident(seaway.pid)),
        (EMPTY, "docker", resident(stage.docker.pid)),
    ]
    seaway.call("POST", "/v1/networks", {"name": "crowd", "subnets": ["10.245.0.0/16"]})
    spaces = [stage.spaces.make_bare() for _ in range(count)]
    made = [seaway.attach(space, network="crowd") for space in spaces]
    values.append((FULL, "seaway", resident(seaway.pid)))
    for one in made:
        seaway.detach(one)
    for space in spaces:
        stage.spaces.remove(space)
    seaway.call("DELETE", "/v1/networks/crowd")
    stage.samples += (Sample(what=w, who=who, unit="MB", round=0, value=v) for w, who, v in values)


def resident(pid: int) -> float:
    """Return a process's resident set in MB."""
    return field(pid, "status", "VmRSS")


def field(pid: int, file: str, name: str) -> float:
    """Return an amount of a process's memory in MB (proc(5): the files have kB)."""
    lines = Path(f"/proc/{pid}/{file}").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024 / 1e6
