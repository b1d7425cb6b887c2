"""Prove that packets get to other hosts and back, in full size, by every carrier in use.

A host's kernel answers echoes, whatever runs there.  What hardware does to checksums
shows only in packets that a socket made, so VXLAN is also tried with UDP to a closed port,
which the kernel refuses if the checksum is right.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import structlog

from seaway.errors import SeawayError
from seaway.kernel.echo import Echo, Echoed
from seaway.model.cluster import Carrier, Host, HostId
from seaway.model.network import Address
from seaway.plan.carriers import Refused, Way, choose
from seaway.plan.overlay import fitting
from seaway.plan.resources import VXLAN_LINKS

if TYPE_CHECKING:
    from seaway.agent.membership import Membership

log = structlog.get_logger()

_SMALL: Final = 64  # bytes: fits every way there is
_TRIES: Final = 3
_EVERY: Final = 60.0
_AT_ONCE: Final = 8
_UDP_HEADERS: Final = 20 + 8  # bytes: IPv4's and UDP's
_REFUSAL: Final = 1.2
"""Seconds to wait for a refusal: Linux makes one a second (icmp_ratelimit, ip-sysctl)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What was found out about one way to a host.

    Attributes:
        size: Bytes of IP packet that were sent and should have come back.
        milliseconds: Until the answer; 0 if there was none.
        why: What does not work, and what to do; "" if it works.
        time: Seconds since the epoch.
    """

    host: str
    carrier: Carrier
    size: int
    milliseconds: float
    why: str
    time: float

    def view(self) -> dict[str, Any]:
        """Describe it for the API."""
        return {
            "host": self.host,
            "carrier": self.carrier,
            "size": self.size,
            "milliseconds": round(self.milliseconds, 3),
            "error": self.why,
            "time": self.time,
        }


class Probes:
    """Tries the ways to other hosts, and remembers how that went."""

    def __init__(self, ship: Membership) -> None:
        self._ship = ship
        self.proofs: dict[tuple[HostId, Carrier], Proof] = {}
        self._echoes: dict[int, Echo] = {}
        self._suspected: set[HostId] = set()  # on the way there checksums may be spoilt
        self._silent: set[HostId] = set()  # do not refuse what comes to closed ports
        self._proving = asyncio.Lock()
        self._limit = asyncio.Semaphore(_AT_ONCE)

    # -- proving ------------------------------------------------------------------------------

    async def prove_all(self) -> list[Proof]:
        """Try every way to every living host that we share a network with, now."""
        peers = [p for p in self._ship.overlay.peers() if p.id in self._ship.commons.alive]
        async with self._proving, asyncio.TaskGroup() as group:
            asked = [group.create_task(self._limited(peer)) for peer in peers]
        self._forget_others({peer.id for peer in peers})
        return [proof for task in asked for proof in task.result()]

    async def answers(self, peer: Host) -> bool:
        """Does a host send back anything, by any way there is to it?  In about a second."""
        async with asyncio.TaskGroup() as group:
            ways = self._ways(peer).values()
            asked = [group.create_task(self._answers_by(peer, way)) for way in ways]
        return any(task.result() for task in asked)

    async def _answers_by(self, peer: Host, way: Way) -> bool:
        direct = way.carrier is Carrier.DIRECT
        to: Address = way.path.to if direct else peer.tunnel
        echo, link = self._echo(to.version), self._ship.overlay.probe_link(peer, way)
        for _ in range(2):  # the first may have to wait for keys
            if (await echo.ask(to, _SMALL, link=link, seconds=0.6)).seconds is not None:
                return True
        return False

    async def _limited(self, peer: Host) -> list[Proof]:
        async with self._limit:
            return [await self._prove(peer, way) for way in self._ways(peer).values()]

    def _ways(self, peer: Host) -> dict[Carrier, Way]:
        here, there = self._ship.overlay.to(peer)
        found: dict[Carrier, Way] = {}
        for network, blocks in there.networks:
            for version in {block.cidr.version for block in blocks}:
                way = choose(network, here.me, peer, there.paths, version)
                if not isinstance(way, Refused):
                    found[way.carrier] = way
        return found

    async def _prove(self, peer: Host, way: Way) -> Proof:
        here, _ = self._ship.overlay.to(peer)
        size = fitting(here, way)
        link, to = self._ship.overlay.probe_link(peer, way), peer.tunnel
        if way.carrier is Carrier.DIRECT:
            link, to = "", way.path.to  # type: ignore[assignment]
        echo = self._echo(to.version)
        full = await self._several(echo, to, size, link)
        why = ""
        if full.seconds is None:
            small = await self._several(echo, to, _SMALL, link)
            why = _blame(peer, way, size, full, small)
        elif way.carrier is Carrier.VXLAN:
            why = await self._check_sums(peer, way, size)
        proof = Proof(
            host=peer.name,
            carrier=way.carrier,
            size=size,
            milliseconds=(full.seconds or 0.0) * 1e3,
            why=why,
            time=time.time(),
        )
        before = self.proofs.get((peer.id, way.carrier))
        self.proofs[peer.id, way.carrier] = proof
        if (before.why if before else "") != why:
            self._ship.core_events(
                "path_broken" if why else "path_works", peer=peer.name, carrier=way.carrier, why=why
            )
        return proof

    @staticmethod
    async def _several(echo: Echo, to: Any, size: int, link: str) -> Echoed:
        """Ask more than once: the first packet may have to wait for keys, and any may get lost."""
        found = Echoed()
        for _ in range(_TRIES):
            found = await echo.ask(to, size, link=link)
            if found.seconds is not None or found.too_large:
                break
        return found

    def _echo(self, version: int) -> Echo:
        if version not in self._echoes:
            self._echoes[version] = Echo(version)
        return self._echoes[version]

    def _forget_others(self, peers: set[HostId]) -> None:
        for key in [key for key in self.proofs if key[0] not in peers]:
            del self.proofs[key]

    # -- checksums ------------------------------------------------------------------------------

    async def _check_sums(self, peer: Host, way: Way, size: int) -> str:
        """See that what a socket sends arrives whole; if not, do without the hardware's help.

        A second failure shows that it was not the hardware.
        """
        if peer.id in self._silent or await self._refused(peer, way, size):
            return ""
        if peer.id in self._suspected:
            self._suspected.discard(peer.id)
            self._silent.add(peer.id)  # a firewall there, most likely
            if not self._suspected:
                self._ship.overlay.trust_hardware(True)
                self._ship.core_events("checksum_offload_on", peer=peer.name)
            return ""
        self._suspected.add(peer.id)
        if self._ship.overlay.checksums:
            self._ship.overlay.trust_hardware(False)
            self._ship.core_events("checksum_offload_off", peer=peer.name)
        return (
            f"UDP by VXLAN does not arrive at {peer.name} though echoes do: hardware that spoils "
            "checksums is suspected, and kept out of it from now on; look again in a minute"
        )

    async def _refused(self, peer: Host, way: Way, size: int) -> bool:
        """Did a host refuse what we sent to a port that nobody there listens on?

        Its kernel looks at the checksum before it says so (__udp4_lib_rcv, net/ipv4/udp.c).
        """
        loop = asyncio.get_running_loop()
        body = os.urandom(max(0, size - _UDP_HEADERS))
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
                link = VXLAN_LINKS[way.path.to.version]
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, link.encode() + b"\0")
                sock.connect((str(peer.tunnel), self._ship.cluster.ports.join))
                for _ in range(_TRIES):
                    sock.send(body)
                    with suppress(TimeoutError):
                        async with asyncio.timeout(_REFUSAL):
                            await loop.sock_recv(sock, 1)
                            return True
        except ConnectionRefusedError:
            return True
        except OSError as err:
            log.info("checksum_probe_failed", peer=peer.name, error=err.strerror)
            return True
        return False

    # -- running --------------------------------------------------------------------------------

    async def run(self) -> None:
        """Try all ways from time to time, until cancelled: the network may change unannounced."""
        try:
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_EVERY):
                        await self._ship.overlay.new_ways.wait()
                self._ship.overlay.new_ways.clear()
                try:
                    await self.prove_all()
                except* SeawayError as err:
                    log.info("probe_failed", error=str(err.exceptions[0]))
        finally:
            self._close()

    def _close(self) -> None:
        for echo in self._echoes.values():
            echo.close()
        self._echoes.clear()


def _blame(peer: Host, way: Way, size: int, full: Echoed, small: Echoed) -> str:
    """Say what is wrong with a way by which no packet of full size came back."""
    by = f"{peer.name} by {way.carrier}"
    if full.too_large:
        return (
            f"packets of {size} bytes do not fit the way to {by} any more: "
            "routes are being adjusted, look again in a minute"
        )
    if small.seconds is not None:
        return (
            f"packets of {size} bytes to {by} get lost and small ones do not: something on the "
            f"way carries less than {way.path.mtu} bytes and does not say so; lower the MTU of "
            f"{way.path.link}, or let ICMP 'fragmentation needed' pass"
        )
    if small.error:
        return f"nothing can be sent to {by}: {small.error}"
    ports = {
        Carrier.DIRECT: "do firewalls let ICMP pass?",
        Carrier.VXLAN: "do firewalls let VXLAN's UDP port pass, in both directions?",
        Carrier.WIREGUARD: "do firewalls let WireGuard's two UDP ports pass?",
    }
    return f"nothing comes back from {by}: is it up, and {ports[way.carrier]}"
