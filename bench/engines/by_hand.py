"""What one would build by hand between two hosts: nothing, VXLAN, a WireGuard tunnel.

No packet filter and no connection tracking anywhere, so these are what the
carriers themselves cost.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from bench.programs import ENVIRONMENT, Failed, enter, run
from bench.spaces import Spaces

_MTU = 1450  # 1500 less 50 of VXLAN over IPv4
_WIREGUARD_MTU = 1420
_WIREGUARD_PORT = 51820
_WIREGUARD_SOCKETS = Path("/var/run/wireguard")  # one folder for all namespaces
_WIREGUARD_LINKS = ("swbench-wg1", "swbench-wg2")
_WAIT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Ends:
    """Two namespaces, and where the second one answers."""

    client: Path
    server: Path
    address: str


@dataclass(frozen=True, slots=True)
class _Side:
    """One host of the two; *number* is 1 or 2."""

    number: int
    host: Path
    address: str

    @property
    def other(self) -> int:
        return 3 - self.number

    @property
    def mac(self) -> str:
        return _mac(self.number)


class ByHand:
    """Two hosts with nothing but what is made here."""

    def __init__(self, hosts: tuple[Path, Path], addresses: tuple[str, str]) -> None:
        self._sides = [
            _Side(number, host, address)
            for number, host, address in zip((1, 2), hosts, addresses, strict=True)
        ]

    @property
    def bare(self) -> Ends:
        """From host to host."""
        a, b = self._sides
        return Ends(a.host, b.host, b.address)

    def bridged(self, spaces: Spaces) -> Ends:
        """VXLAN as most draw it: a bridge on each host holds the tunnel and the containers."""
        a, b = (self._bridged(side, spaces.make()) for side in self._sides)
        return Ends(a, b, "10.221.0.2")

    def routed(self, spaces: Spaces) -> Ends:
        """VXLAN between routers: /32 endpoints, everything known ahead, no bridge."""
        a, b = (self._routed(side, spaces.make()) for side in self._sides)
        return Ends(a, b, "10.222.0.2")

    @contextmanager
    def wireguard(self) -> Iterator[Ends]:
        """A tunnel by wireguard-go from host to host."""
        processes: list[subprocess.Popen[bytes]] = []
        try:
            for side, link in zip(self._sides, _WIREGUARD_LINKS, strict=True):
                processes.append(_wireguard_go(side.host, link))
            self._introduce()
            a, b = self._sides
            yield Ends(a.host, b.host, "10.223.0.2")
        finally:
            for process in processes:
                process.terminate()
                process.wait()

    def _bridged(self, side: _Side, space: Path) -> Path:
        remote = self._sides[side.other - 1].address
        names = ("iptables", "ip6tables", "arptables")
        run(["sysctl", "-qw", *(f"net.bridge.bridge-nf-call-{n}=0" for n in names)], side.host)
        tunnel = f"id 42 local {side.address} remote {remote} dstport 4789"
        _batch(
            side.host,
            f"link add vx0 type vxlan {tunnel}",
            "link add br0 type bridge",
            "link set br0 up",
            f"link set vx0 mtu {_MTU} master br0 up",
            f"link add port0 mtu {_MTU} type veth peer name eth0 mtu {_MTU} netns {space.name}",
            "link set port0 master br0 up",
        )
        _batch(space, f"addr add 10.221.0.{side.number}/24 dev eth0", "link set eth0 up")
        return space

    def _routed(self, side: _Side, space: Path) -> Path:
        remote, hop = self._sides[side.other - 1].address, f"169.254.0.{side.other}"
        run(["sysctl", "-qw", "net.ipv4.ip_forward=1"], side.host)
        tunnel = f"id 43 local {side.address} dstport 4790 nolearning"
        _batch(
            side.host,
            f"link add vx1 address {side.mac} type vxlan {tunnel}",
            f"link set vx1 mtu {_MTU} up",
            f"neigh replace {hop} lladdr {_mac(side.other)} dev vx1 nud permanent",
            f"link add veth1 mtu {_MTU} type veth peer name eth0 mtu {_MTU} netns {space.name}",
            "link set veth1 up",
        )
        run(["bridge", "fdb", "append", _mac(side.other), "dev", "vx1", "dst", remote], side.host)
        _batch(
            space,
            f"addr add 10.222.0.{side.number}/32 dev eth0",
            "link set eth0 up",
            "route add default via 169.254.1.1 dev eth0 onlink",
            f"neigh replace 169.254.1.1 lladdr {_link_mac(side.host, 'veth1')} dev eth0 "
            "nud permanent",
        )
        inner = _link_mac(space, "eth0")
        _batch(
            side.host,
            f"neigh replace 10.222.0.{side.number} lladdr {inner} dev veth1 nud permanent",
            f"route add 10.222.0.{side.number}/32 dev veth1",
            f"route add 10.222.0.{side.other}/32 via {hop} dev vx1 onlink",
        )
        return space

    def _introduce(self) -> None:
        secrets = [run(["wg", "genkey"]).strip() for _ in self._sides]
        for side, link, secret in zip(self._sides, _WIREGUARD_LINKS, secrets, strict=True):
            other = self._sides[side.other - 1]
            public = run(["wg", "pubkey"], stdin=secrets[other.number - 1]).strip()
            config = (
                f"[Interface]\nPrivateKey = {secret}\nListenPort = {_WIREGUARD_PORT}\n"
                f"[Peer]\nPublicKey = {public}\nAllowedIPs = 10.223.0.{other.number}/32\n"
                f"Endpoint = {other.address}:{_WIREGUARD_PORT}\n"
            )
            run(["wg", "setconf", link, "/dev/stdin"], side.host, config)
            _batch(
                side.host,
                f"addr add 10.223.0.{side.number}/24 dev {link}",
                f"link set {link} mtu {_WIREGUARD_MTU} up",
            )


def _wireguard_go(host: Path, link: str) -> subprocess.Popen[bytes]:
    socket = _WIREGUARD_SOCKETS / f"{link}.sock"
    socket.unlink(missing_ok=True)  # of a run that was killed
    argv = enter(host, ["wireguard-go", "-f", link])
    silence = subprocess.DEVNULL
    process = subprocess.Popen(argv, stdout=silence, stderr=silence, env=ENVIRONMENT)
    deadline = time.monotonic() + _WAIT_SECONDS
    while not socket.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            with suppress(ProcessLookupError):
                process.kill()
            process.wait()
            raise Failed("wireguard-go did not start: is it installed, is /dev/net/tun there?")
        time.sleep(0.01)
    return process


def _batch(space: Path, *lines: str) -> None:
    run(["ip", "-batch", "-"], space, "\n".join(lines) + "\n")


def _mac(number: int) -> str:
    return f"02:00:5e:00:00:{number:02x}"


def _link_mac(space: Path, link: str) -> str:
    (told,) = json.loads(run(["ip", "-json", "link", "show", link], space))
    return str(told["address"])
