"""Keep the ways to other hosts: tunnels, routes to their blocks, keys that change.

Everything here is set ahead from what the cluster's store says; nothing is
learnt from packets.  A host that falls silent keeps its routes: it may only be
the store that it cannot reach.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import structlog

from seaway.errors import SeawayError
from seaway.kernel import features, wireguard
from seaway.model.cluster import Carrier, Host, HostId, TunnelKey
from seaway.model.network import Address, Network
from seaway.plan.carriers import Paths, Refused, UnderlayPath, Way, choose, reachable
from seaway.plan.overlay import (
    Here,
    PrivateKey,
    There,
    Tunnels,
    fitting,
    plan_hosts,
    plan_peer,
    plan_tunnels,
    refusals,
    sending,
    vxlan_versions,
    wireguard_link,
)
from seaway.plan.resources import VXLAN_LINKS

if TYPE_CHECKING:
    from seaway.agent.commons import Commons
    from seaway.agent.core import Core
    from seaway.agent.member import MemberFolder
    from seaway.agent.reconcile import Plans
    from seaway.plan.resources import Resource

log = structlog.get_logger()

_PACE: Final = 1.0
"""Seconds between looks at whether new keys work yet."""
_LOOK: Final = 15.0
"""Seconds between looks at what the kernel has learnt of the paths below."""
_SETTLE: Final = 0.2
"""Seconds to let changes of routes and addresses come to an end."""
_NARROWEST: Final = 576
"""Bytes of IP packet that every host takes (RFC 791 section 3.1)."""
_DISCARD: Final = 9  # RFC 863: a port that nobody answers on


class Overlay:
    """Plans tunnels and peers, and applies what changed.

    Attributes:
        keys: This host's public keys, oldest first.
        settled: The newest generation of keys that everything is sent with.
        host_changed: Something that others should know of this host is different.
        moved: This host's addresses are different.
        new_ways: There are other ways to hosts than before, that nobody has tried.
        checksums: VXLAN's may be left to the network card.
        problems: Networks that do not reach a host: (host, network) -> why.
    """

    def __init__(
        self,
        core: Core,
        commons: Commons,
        folder: MemberFolder,
        networks: Callable[[], list[Network]],
    ) -> None:
        self._core = core
        self._commons = commons
        self._folder = folder
        self._networks = networks
        self.encryption = wireguard.available()
        self.vxlan = has_vxlan()
        self.keys: tuple[TunnelKey, ...] = ()
        self.settled = 0
        self.checksums = True
        self.host_changed = asyncio.Event()
        self.new_ways = asyncio.Event()
        self.moved = asyncio.Event()
        self.problems: dict[tuple[str, str], str] = {}
        self._paths: dict[HostId, Paths] = {}
        self._vxlan: dict[HostId, frozenset[int]] = {}
        self._sending: dict[HostId, int] = {}
        self._fenced: frozenset[Address] = frozenset()
        self._kicked = asyncio.Event()
        self._stopped = False

    @property
    def why_no_encryption(self) -> str:
        """Say what is missing."""
        return wireguard.why_not()

    # -- what is known --------------------------------------------------------------------

    @property
    def _ready(self) -> bool:
        known = self._commons.cluster is not None and self._commons.me in self._commons.hosts
        return known and not self._stopped

    def to(self, peer: Host) -> tuple[Here, There]:
        """Return all that plans to a host are made of."""
        return self._here(), self._there(peer)

    def probe_link(self, peer: Host, way: Way) -> str:
        """Name the tunnel that a way leads through; "" for none."""
        if way.carrier is Carrier.VXLAN:
            return VXLAN_LINKS[way.path.to.version]
        if way.carrier is Carrier.WIREGUARD:
            return wireguard_link(self._commons.host, sending(*self.to(peer)))
        return ""

    def trust_hardware(self, trusted: bool) -> None:
        """Have VXLAN's checksums made with or without the network card's help."""
        self.checksums = trusted
        self.host_changed.set()

    def _here(self) -> Here:
        assert self._commons.cluster is not None
        me = replace(self._commons.host, keys=self.keys)
        return Here(me=me, cluster=self._commons.cluster, facts=self._core.host)

    def _there(self, peer: Host) -> There:
        owned = self._commons.owned(peer.id)
        shared = tuple(
            (network, tuple(self._commons.blocks_of(peer.id, network.id)))
            for network in self._networks()
            if owned.get(network.id)
        )
        return There(
            peer=peer,
            paths=self._paths.get(peer.id, {}),
            networks=shared,
            generation=self._sending.get(peer.id, self._oldest),
        )

    @property
    def _oldest(self) -> int:
        return self.keys[0].generation if self.keys else 0

    def peers(self) -> list[Host]:
        """List the other hosts that have blocks on networks of ours."""
        hosts = (self._commons.hosts.get(h) for h in self._commons.owners - {self._commons.me})
        return [host for host in hosts if host is not None]

    def _look(self, peers: Iterable[Host]) -> None:
        """Ask the kernel how it would send to *peers*."""
        me = self._commons.host
        wanted: dict[HostId, tuple[Address, ...]] = {p.id: reachable(me, p) for p in peers}
        every = {address for addresses in wanted.values() for address in addresses}
        found = self._core.ground.paths(sorted(every, key=str))
        for peer, addresses in wanted.items():
            here = (found[a] for a in addresses if a in found)
            self._paths[peer] = {
                p.to.version: _no_wider(p, self._commons.hosts[peer]) for p in here
            }

    def _changed_paths(self) -> set[HostId]:
        """Look how the kernel sends to all hosts by now: nobody tells when a path gets narrower.

        Returns:
            The hosts it would send to otherwise than before.
        """
        before = dict(self._paths)
        self._look(self.peers())
        return {host for host, paths in self._paths.items() if paths != before.get(host)}

    # -- planning -------------------------------------------------------------------------

    def plans(self) -> Plans:
        """Plan everything that leads to other hosts."""
        if not self._ready:
            return {}
        peers = self.peers()
        self._look(peers)
        found = {f"peer/{peer.id}": self._plan_peer(peer) for peer in peers}
        return {"tunnels": self._plan_tunnels(), "hosts": self._plan_hosts(), **found}

    def _plan_peer(self, peer: Host) -> tuple[Resource, ...]:
        here, there = self._here(), self._there(peer)
        self._vxlan[peer.id] = vxlan_versions(here, there)
        for at in [at for at in self.problems if at[0] == peer.name]:
            del self.problems[at]
        for network, why in refusals(here, there).items():
            self.problems[peer.name, network] = why
        return plan_peer(here, there)

    def _plan_tunnels(self) -> tuple[Resource, ...]:
        versions = frozenset(v for found in self._vxlan.values() for v in found)
        encrypted = any(network.encrypted for network in self._networks())
        in_clear = any(not network.encrypted for network in self._networks())
        own = tuple(
            PrivateKey(key=key, path=str(self._folder.wireguard_key(key.generation)))
            for key in self.keys
        )
        checksums = all(
            host.checksums
            for host in self._commons.hosts.values()
            if host.id == self._commons.me or self._vxlan.get(host.id)
        )
        return plan_tunnels(
            self._here(),
            Tunnels(
                vxlan=versions,
                keys=own if encrypted else (),
                checksums=checksums,
                links=self._links() if in_clear else frozenset(),
            ),
        )

    def _plan_hosts(self) -> tuple[Resource, ...]:
        assert self._commons.cluster is not None
        return plan_hosts(self._commons.cluster, self._addresses())

    def _addresses(self) -> frozenset[Address]:
        """Of all hosts of the cluster, with and without networks of ours."""
        return frozenset(a for host in self._commons.hosts.values() for a in host.addresses)

    def _links(self) -> frozenset[str]:
        return frozenset(p.link for paths in self._paths.values() for p in paths.values())

    def carriers(self) -> dict[str, int]:
        """Count the networks that this host takes part in, by what carries them to others."""
        found = {"direct": 0, "vxlan": 0, "wireguard": 0}
        for network in self._networks():
            if network.encrypted:
                found["wireguard"] += 1
                continue
            used = {str(way["carrier"]) for p in self.peers() for way in self.ways(p, network)}
            for carrier in used - {""}:
                found[carrier] += 1
        return found

    def ways(self, peer: Host, only: Network | None = None) -> list[dict[str, str | int]]:
        """Say what carries each network that we share with *peer*, and how large packets may be."""
        if not self._ready or peer.id == self._commons.me:
            return []
        here, there = self._here(), self._there(peer)
        found: list[dict[str, str | int]] = []
        for network, blocks in there.networks:
            if only is not None and network.id != only.id:
                continue
            for version in sorted({block.cidr.version for block in blocks}):
                way = choose(network, here.me, peer, there.paths, version)
                told: dict[str, str | int] = {"network": network.name, "ip": version}
                if isinstance(way, Refused):
                    found.append(told | {"carrier": "", "mtu": 0, "reason": way.reason})
                else:
                    fits = fitting(here, way)
                    found.append(told | {"carrier": way.carrier, "mtu": fits, "reason": ""})
        return found

    # -- applying ---------------------------------------------------------------------------

    def prepare(self) -> None:
        """Take up what was known before the agent started."""
        if self._ready:
            self._facts()
            self.settled = self._commons.host.settled
            self._make_keys()
            self._sending = dict.fromkeys(self._commons.hosts, self._oldest)

    async def refresh(self, hosts: Iterable[HostId]) -> None:
        """Bring the ways to some hosts to what is known of them.

        Raises:
            KernelError: Refused; an audit is on its way.
        """
        if not self._ready:
            return
        if self._commons.me in hosts:
            self._facts()
            self.moved.set()
            hosts = [*hosts, *self._commons.owners]
        if not self.keys:
            self._make_keys()
        known = {h: self._commons.hosts.get(h) for h in hosts if h != self._commons.me}
        there = [host for host in known.values() if host is not None]
        self._look(there)
        plans: dict[str, tuple[Resource, ...]] = {}
        for identity, host in known.items():
            if host is None or not any(self._commons.owned(identity).values()):
                self._forget(identity)
                plans[f"peer/{identity}"] = ()
            else:
                plans[f"peer/{identity}"] = self._plan_peer(host)
        if (addresses := self._addresses()) != self._fenced:  # a thousand: not at each change
            self._fenced, plans["hosts"] = addresses, self._plan_hosts()
        await self._core.kernel.change_all({"tunnels": self._plan_tunnels(), **plans})
        self.new_ways.set()
        self._kicked.set()

    def _forget(self, host: HostId) -> None:
        for table in (self._paths, self._vxlan, self._sending):
            table.pop(host, None)

    async def refresh_all(self) -> None:
        """Bring the ways to all hosts to what is known of them."""
        await self.refresh([*self._commons.owners, self._commons.me])

    def stop(self) -> None:
        """Have no ways to other hosts any more, from the next audit on."""
        self._stopped = True

    def underlay_changed(self) -> None:
        """Addresses, routes or MTUs below are different: look again soon."""
        self._again = True
        self._kicked.set()

    _again = False

    def _facts(self) -> None:
        """Let plans know the link to the other hosts."""
        me = self._commons.host
        own = self._core.ground.mtu(me.addresses)
        versions = frozenset(address.version for address in me.addresses)
        if own and (own, versions) != (
            self._core.host.underlay_mtu,
            self._core.host.underlay_versions,
        ):
            self._core.host = replace(self._core.host, underlay_mtu=own, underlay_versions=versions)
            self._core.kernel.kick("the link to other hosts is different")

    # -- keys -----------------------------------------------------------------------------------

    async def cluster_changed(self) -> None:
        """A new generation of keys may be wanted."""
        if self._ready and self._make_keys():
            await self.refresh_all()

    def _make_keys(self) -> bool:
        """Have the keys that the cluster's generation asks for; True if that is a change."""
        if not self.encryption or self._commons.cluster is None:
            return False
        newest = self._commons.cluster.generation
        wanted = [newest] if self._all_settled(newest) else [newest - 1, newest]
        if wanted == [key.generation for key in self.keys]:
            return False
        found = []
        for generation in wanted:
            path = self._folder.wireguard_key(generation)
            if generation == newest and not path.exists():
                wireguard.make_key(path)
            if path.exists():
                found.append(TunnelKey(generation=generation, public=wireguard.public_key(path)))
        if tuple(found) == self.keys:
            return False
        self.keys = tuple(found)
        for generation in range(wanted[0]):  # nobody can read with them what is recorded now
            self._folder.wireguard_key(generation).unlink(missing_ok=True)
        self.host_changed.set()
        return True

    def _all_settled(self, generation: int) -> bool:
        """Does everybody send with the newest keys?  Then the ones before can go.

        A silent host counts too: it may only have lost the store, and its packets still come.
        """
        commons = self._commons
        return self.settled >= generation and all(
            host.settled >= generation for host in commons.hosts.values() if host.keys
        )

    def _try_new_keys(self) -> set[HostId]:
        """Send to peers with the newest keys once they have answered to them; returns which."""
        if not self.keys or self._commons.cluster is None:
            return set()
        newest = self.keys[-1].generation
        behind = [
            p
            for p in self.peers()
            if p.keys and self._sending.get(p.id, self._oldest) < newest and self._encrypts(p)
        ]
        link = wireguard_link(self._commons.host, newest)
        moved: set[HostId] = set()
        if behind:
            with suppress(SeawayError):
                seen = {p.public_key: p.handshake for p in wireguard.peers(link)}
                for peer in behind:
                    key = next((k for k in peer.keys if k.generation == newest), None)
                    if key is not None and seen.get(key.public):
                        self._sending[peer.id] = newest
                        moved.add(peer.id)
                    elif key is not None:
                        nudge(link, str(peer.tunnel))
        left = {p.id for p in behind} - moved
        if not left & self._commons.alive and self.settled != newest:
            self.settled = newest
            self.host_changed.set()
        return moved

    def _encrypts(self, peer: Host) -> bool:
        """Do we share a network with *peer* that WireGuard carries?"""
        return any(network.encrypted for network, _ in self._there(peer).networks)

    # -- running --------------------------------------------------------------------------------

    async def run(self) -> None:
        """Follow the underlay and the keys, until cancelled."""
        clock = asyncio.get_running_loop().time
        looked = clock()
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_PACE if self._rotating else _LOOK):
                    await self._kicked.wait()
            self._kicked.clear()
            if not self._ready:
                continue
            try:
                if clock() - looked >= _LOOK:  # not at each kick: there may be a thousand hosts
                    looked = clock()
                    if changed := self._changed_paths():
                        await self.refresh(changed)
                if self._again:
                    await asyncio.sleep(_SETTLE)
                    self._again = False
                    self.host_changed.set()
                    await self.refresh_all()
                    # With a link's last address its routes go, of which Linux says nothing.
                    self._core.kernel.kick("the link to other hosts is different")
                moved = self._try_new_keys()
                if self._make_keys():
                    await self.refresh_all()
                elif moved:
                    await self.refresh(moved)
            except SeawayError as err:
                log.warning("overlay_step_failed", error=str(err))
                self._core.kernel.kick("ways to other hosts could not be changed")

    @property
    def _rotating(self) -> bool:
        if not self.keys or self._commons.cluster is None:
            return False
        newest = self._commons.cluster.generation
        return len(self.keys) > 1 or self.settled < newest or self.keys[-1].generation < newest


def _no_wider(path: UnderlayPath, peer: Host) -> UnderlayPath:
    """What does not fit the other host's own link gets lost there without a word."""
    return replace(path, mtu=min(path.mtu, max(peer.mtu, _NARROWEST))) if peer.mtu else path


def has_vxlan() -> bool:
    """Does this kernel have VXLAN?"""
    return "vxlan" in (features.link_kinds() or ())


def nudge(link: str, address: str) -> None:
    """Send a packet by a tunnel, so that its ends agree on keys."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, link.encode())
        sock.sendto(b"", (address, _DISCARD))


def lines(problems: Mapping[tuple[str, str], str]) -> list[str]:
    """Say which networks do not reach which hosts."""
    return [f"{network} does not reach {host}: {why}" for (host, network), why in problems.items()]
