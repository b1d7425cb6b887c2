"""The CNI reference plugins bridge, host-local and portmap, called as a runtime calls them.

Source:
    CNI specification 1.0.0, sections 2 and 4.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.programs import ENVIRONMENT, run
from seaway.lab.topology import Machine

_FOLDER = "/usr/lib/cni"


@dataclass(frozen=True, slots=True)
class Added:
    """A namespace that the plugins have attached."""

    space: Path
    v4: str
    result: Mapping[str, Any]
    ports: tuple[int, ...]


class Cni:
    """The plugins on one host of the lab."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self._network = {"cniVersion": "1.0.0", "name": "bench"}
        self._bridge = {
            **self._network,
            "type": "bridge",
            "bridge": "cni0",
            "isGateway": True,
            "ipMasq": True,
            "ipam": {
                "type": "host-local",
                "dataDir": str(machine.run_dir / "cni"),
                "ranges": [[{"subnet": "10.250.0.0/16"}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }

    def add(self, space: Path, ports: Sequence[int] = ()) -> Added:
        """Attach *space*; with *ports*, portmap is called too."""
        result = json.loads(self._call("ADD", space, self._bridge))
        if ports:
            result = json.loads(self._call("ADD", space, self._portmap(result, ports)))
        address = str(result["ips"][0]["address"]).split("/", maxsplit=1)[0]
        return Added(space, address, result, tuple(ports))

    def delete(self, added: Added) -> None:
        """Detach what add() attached."""
        if added.ports:
            self._call("DEL", added.space, self._portmap(added.result, added.ports))
        self._call("DEL", added.space, self._bridge)

    def _portmap(self, result: Mapping[str, Any], ports: Sequence[int]) -> Mapping[str, Any]:
        mappings = [{"hostPort": p, "containerPort": p, "protocol": "tcp"} for p in ports]
        return {
            **self._network,
            "type": "portmap",
            "capabilities": {"portMappings": True},
            "prevResult": result,
            "runtimeConfig": {"portMappings": mappings},
        }

    def _call(self, command: str, space: Path, config: Mapping[str, Any]) -> str:
        environment = {
            **ENVIRONMENT,
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": space.name,
            "CNI_NETNS": str(space),
            "CNI_IFNAME": "eth0",
            "CNI_PATH": _FOLDER,
        }
        program = f"{_FOLDER}/{config['type']}"
        return run([program], self.machine.netns, json.dumps(config), environment)
