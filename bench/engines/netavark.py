"""Netavark, called as Podman calls it, without Podman around it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bench.programs import run
from seaway.lab.topology import Machine

_PROGRAM = "/usr/lib/podman/netavark"
_DNS_SERVER = "/usr/lib/podman/aardvark-dns"
_BRIDGE = "nav0"
_PREFIX = "10.243"


@dataclass(frozen=True, slots=True)
class Joined:
    """A namespace that netavark has set up; *request* takes it down again."""

    space: Path
    v4: str
    request: str


class Netavark:
    """Netavark on one host of the lab."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self._config = machine.run_dir / "netavark"
        self._config.mkdir(parents=True, exist_ok=True)
        self._count = 0
        # What Podman does before its first container.
        run(["sysctl", "-qw", "net.ipv4.ip_forward=1"], machine.netns)

    def join(self, space: Path, ports: Iterable[int] = ()) -> Joined:
        """Attach *space*, each of *ports* a mapping of its own."""
        self._count += 1
        number = self._count
        address = f"{_PREFIX}.{number // 200}.{number % 200 + 2}"
        joined = Joined(space, address, _request(number, address, ports))
        run([*self._argv("setup"), str(space)], self.machine.netns, joined.request)
        return joined

    def leave(self, joined: Joined) -> None:
        """Detach what join() attached."""
        run([*self._argv("teardown"), str(joined.space)], self.machine.netns, joined.request)

    def _argv(self, command: str) -> list[str]:
        options = ["--config", str(self._config), "--aardvark-binary", _DNS_SERVER]
        return [_PROGRAM, *options, command]


def _request(number: int, address: str, ports: Iterable[int]) -> str:
    return json.dumps(
        {
            "container_id": f"{number:064x}",
            "container_name": f"bench{number}",
            "networks": {_BRIDGE: {"static_ips": [address], "interface_name": "eth0"}},
            "network_info": {
                _BRIDGE: {
                    "name": _BRIDGE,
                    "id": "5ea" + "0" * 61,
                    "driver": "bridge",
                    "network_interface": _BRIDGE,
                    "subnets": [{"subnet": f"{_PREFIX}.0.0/16", "gateway": f"{_PREFIX}.255.254"}],
                    "ipv6_enabled": False,
                    "internal": False,
                    "dns_enabled": False,
                    "ipam_options": {"driver": "host-local"},
                }
            },
            "port_mappings": [
                {
                    "container_port": port,
                    "host_ip": "",
                    "host_port": port,
                    "protocol": "tcp",
                    "range": 1,
                }
                for port in ports
            ],
        }
    )
