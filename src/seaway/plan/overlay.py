"""What this host needs to exchange packets of overlay networks with other hosts.

It grows with hosts and their blocks of addresses, and knows of no endpoint: another container
on another host changes nothing here.  The picture is in docs/internals/nftables.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network, ip_network
from typing import Final

from seaway.model.cluster import Block, Carrier, Cluster, Host, TunnelKey
from seaway.model.names import ifname
from seaway.model.network import IPV6_MTU_MIN, Address, Network, Prefix
from seaway.plan.carriers import (
    KEEPALIVE,
    Paths,
    Refused,
    Way,
    choose,
    path_mtu,
    reachable,
    shared_generations,
    tunnel_mtu,
)
from seaway.plan.host import HostFacts
from seaway.plan.resources import (
    VXLAN_LINKS,
    WIREGUARD_PREFIX,
    Element,
    Fdb,
    Link,
    LinkAddress,
    LinkKind,
    Neighbour,
    Resource,
    Route,
    RouteKind,
    WireGuardDevice,
    WireGuardPeer,
)
from seaway.plan.ruleset import (
    HOST_BY_VXLAN,
    HOST_ON_LINK,
    HOST_PORT,
    TUNNEL_LINKS,
    UNDERLAY_LINKS,
    VXLAN_PORT,
)

VNI: Final = 0x5357
"""Of every VXLAN packet: networks are told apart by their addresses (RFC 7348 section 5)."""

_METRIC: Final = 64
"""From here on, routes to tunnel addresses: the same address is behind several devices, and
probes say by which they go."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Here:
    """This host as a member of the cluster."""

    me: Host
    cluster: Cluster
    facts: HostFacts

    def mtu(self, carrier: Carrier, version: int) -> int:
        """Of a tunnel's device, in bytes; *version* is the underlay's of a VXLAN device."""
        if carrier is Carrier.DIRECT:
            return self.facts.underlay_mtu
        versions = (version,) if carrier is Carrier.VXLAN else self.facts.underlay_versions
        return tunnel_mtu(carrier, versions, self.facts.underlay_mtu)


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivateKey:
    """One generation of this host's own key: the public half, and the file with the private."""

    key: TunnelKey
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Tunnels:
    """Which tunnels this host has.

    Attributes:
        vxlan: Underlay IP versions: what vxlan_versions() says, for all peers together.
        keys: Of WireGuard, one device each.
        checksums: No host that VXLAN goes to has trouble with its checksums.
        links: By which packets may come without a tunnel.
    """

    vxlan: frozenset[int] = frozenset()
    keys: tuple[PrivateKey, ...] = ()
    checksums: bool = True
    links: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class There:
    """Another host, and what we have in common.

    Attributes:
        networks: Overlay networks this host takes part in, with the blocks of *peer* on each.
        generation: Of the WireGuard keys to send with, if both have it.
    """

    peer: Host
    paths: Paths
    networks: tuple[tuple[Network, tuple[Block, ...]], ...] = ()
    generation: int = 0


def wireguard_link(me: Host, generation: int) -> str:
    """Name a WireGuard device, differently on every host: wireguard-go's are in one folder."""
    return ifname(WIREGUARD_PREFIX, f"{me.id}/{generation}")


def plan_tunnels(here: Here, tunnels: Tunnels) -> tuple[Resource, ...]:
    """Compute the tunnels' devices, with this host's address on each."""
    found: list[Resource] = []
    for version in sorted(tunnels.vxlan):
        found.append(
            Link(
                name=VXLAN_LINKS[version],
                kind=LinkKind.VXLAN,
                mac=here.me.tunnel_mac,
                mtu=here.mtu(Carrier.VXLAN, version),
                ipv6=here.facts.ipv6,
                vni=VNI,
                port=here.cluster.ports.vxlan,
                family=version,
                checksum=tunnels.checksums,
                reason=f"VXLAN over IPv{version}",
            )
        )
        found += _own_end(here, VXLAN_LINKS[version])
    if tunnels.vxlan:
        port = str(here.cluster.ports.vxlan)
        found.append(Element(set=VXLAN_PORT, match=(port,), reason="VXLAN: from hosts only"))
    for own in tunnels.keys:
        found += _wireguard(here, own)
    found += (
        Element(set=UNDERLAY_LINKS, match=(f'"{name}"',), reason="leads to other hosts")
        for name in sorted(tunnels.links)
    )
    return tuple(found)


def plan_hosts(cluster: Cluster, addresses: Iterable[Address]) -> tuple[Resource, ...]:
    """Keep containers from the cluster's own ports: masqueraded, they would pass for their host.

    Args:
        cluster: That this host is in, with or without any overlay network.
        addresses: Of all its hosts on the underlay.  They are one object, and not a part of
            plan_peer(): two hosts behind different NATs may have the same.
    """
    ports, why = cluster.ports, "what hosts have for each other"
    own = (ports.join, ports.etcd, ports.etcd_peers)
    there = sorted(set(addresses), key=lambda a: (a.version, int(a)))
    return (
        *(Element(set=HOST_PORT, match=(str(port),), reason=why) for port in own),
        *(Element(set=f"host_address{a.version}", match=(str(a),), reason=why) for a in there),
    )


def _wireguard(here: Here, own: PrivateKey) -> Iterator[Resource]:
    generation = own.key.generation
    link = wireguard_link(here.me, generation)
    why = f"WireGuard, keys of generation {generation}"
    yield Link(
        name=link,
        kind=LinkKind.WIREGUARD,
        mtu=here.mtu(Carrier.WIREGUARD, 0),
        ipv6=here.facts.ipv6,
        reason=why,
    )
    yield WireGuardDevice(
        link=link,
        private_key_path=own.path,
        public_key=own.key.public,
        port=here.cluster.ports.wireguard(generation),
        reason=why,
    )
    yield from _own_end(here, link)


def _own_end(here: Here, link: str) -> Iterator[Resource]:
    yield LinkAddress(
        link=link, address=here.me.tunnel, prefixlen=32, reason="this host in the tunnel"
    )
    yield Element(set=TUNNEL_LINKS, match=(f'"{link}"',), reason="leads to other hosts")


def plan_peer(here: Here, there: There) -> tuple[Resource, ...]:
    """Compute all that leads to another host, and that lets in what comes from it.

    Returns:
        For each of its blocks one route, or one that says unreachable where refusals() says
        why, and one element; for each way to it an entry or two.
    """
    found: list[Resource] = []
    ways: dict[Carrier, Way] = {}
    for network, block in _blocks(here, there):
        way = choose(network, here.me, there.peer, there.paths, block.cidr.version)
        if isinstance(way, Way):
            ways[way.carrier] = way
        found.append(_route(here, there, network, block, way))
        if not network.encrypted and not _nat_between(here, there):
            found.append(_source(there.peer, network, block))
    if Carrier.VXLAN in ways:
        found += _by_vxlan(here, there, ways[Carrier.VXLAN])
    if Carrier.WIREGUARD in ways:
        found += _by_wireguard(here, there, ways[Carrier.WIREGUARD])
    found += _let_in(here, there)
    return tuple(found)


def refusals(here: Here, there: There) -> dict[str, str]:
    """Say which networks' packets cannot get to a host: network name -> why, and what to do."""
    found: dict[str, str] = {}
    for network, block in _blocks(here, there):
        way = choose(network, here.me, there.peer, there.paths, block.cidr.version)
        if isinstance(way, Refused):
            found.setdefault(network.name, way.reason)
    return found


def vxlan_versions(here: Here, there: There) -> frozenset[int]:
    """Underlay IP versions of the VXLAN devices that packets to or from a host may take.

    What comes from it may do so by VXLAN although what we send goes without: each side
    chooses by its own routes.
    """
    able = here.me.vxlan and there.peer.vxlan and not _nat_between(here, there)
    if not (able and _shares(there, ("auto", "vxlan"))):
        return frozenset()
    return frozenset(a.version for a in reachable(here.me, there.peer))


def _nat_between(here: Here, there: There) -> bool:
    return here.me.behind != there.peer.behind


def _shares(there: There, carriers: tuple[str, ...]) -> bool:
    """Is there a network with blocks of the host's that may be carried so, in clear?"""
    return any(
        blocks and not network.encrypted and network.carrier in carriers
        for network, blocks in there.networks
    )


def _blocks(here: Here, there: There) -> Iterator[tuple[Network, Block]]:
    for network, blocks in there.networks:
        for block in blocks:
            if block.cidr.version == 4 or here.facts.ipv6:
                yield network, block


def _route(here: Here, there: There, network: Network, block: Block, way: Way | Refused) -> Route:
    why = f"{network.name}: addresses of {there.peer.name}"
    if isinstance(way, Refused):
        return Route(to=block.cidr, kind=RouteKind.UNREACHABLE, reason=f"{why}: {way.reason}")
    link, via = _hop(here, there, way, block.cidr.version)
    fits = fitting(here, way)
    mtu = fits if block.cidr.version == 4 else max(fits, IPV6_MTU_MIN)
    return Route(to=block.cidr, link=link, via=via, mtu=mtu, reason=f"{why} by {way.carrier}")


def _hop(here: Here, there: There, way: Way, version: int) -> tuple[str, Address | None]:
    """Link and next hop of a way, for packets of one IP version."""
    if way.carrier is Carrier.DIRECT:
        return way.path.link, way.path.to
    if way.carrier is Carrier.VXLAN:
        inside = there.peer.tunnel if version == 4 else there.peer.tunnel6
        return VXLAN_LINKS[way.path.to.version], inside
    return wireguard_link(here.me, sending(here, there)), None


def fitting(here: Here, way: Way) -> int:
    """Bytes of IP packet that fit a way to another host."""
    version = way.path.to.version
    return path_mtu(way.carrier, way.path.mtu, version, here.mtu(way.carrier, version))


def sending(here: Here, there: There) -> int:
    """Return the generation of keys to send with: the wanted one, or else the newest both have."""
    shared = shared_generations(here.me, there.peer)
    return there.generation if there.generation in shared else shared[-1]


def _source(peer: Host, network: Network, block: Block) -> Element:
    """What comes in clear with these sources comes from this host only.

    A single address may be lent out of another host's block, and intervals must not overlap.
    """
    single = block.cidr.prefixlen == block.cidr.max_prefixlen
    version = block.cidr.version
    return Element(
        set=f"address_of{version}" if single else f"block_of{version}",
        match=(str(block.cidr.network_address),) if single else (str(block.cidr), "0"),
        value=(str(peer.number),),
        reason=f"{network.name}: addresses of {peer.name}",
    )


def _by_vxlan(here: Here, there: There, way: Way) -> Iterator[Resource]:
    peer, link = there.peer, VXLAN_LINKS[way.path.to.version]
    why = f"{peer.name} by VXLAN"
    yield Fdb(link=link, mac=peer.tunnel_mac, to=way.path.to, reason=why)
    hops: tuple[Address, ...] = (peer.tunnel, peer.tunnel6) if here.facts.ipv6 else (peer.tunnel,)
    for hop in hops:
        yield Neighbour(link=link, address=hop, mac=peer.tunnel_mac, reason=why)
    yield _probe(here, peer, way, link, _METRIC + way.path.to.version)


def _by_wireguard(here: Here, there: There, way: Way) -> Iterator[Resource]:
    """Each generation of keys has it all, so that packets of either are let in."""
    me, peer = here.me, there.peer
    apart = _nat_between(here, there)
    public = {key.generation: key.public for key in peer.keys}
    for generation in shared_generations(me, peer):
        link, port = wireguard_link(me, generation), here.cluster.ports.wireguard(generation)
        yield WireGuardPeer(
            link=link,
            public_key=public[generation],
            # A host behind a NAT speaks first, and is answered where that came from.
            endpoint=None if apart and peer.behind else (way.path.to, port),
            allowed=_allowed(here, there),
            keepalive=KEEPALIVE if apart and me.behind else 0,
            reason=f"{peer.name}, keys of generation {generation}",
        )
        yield _probe(here, peer, way, link, _METRIC + 8 + generation % 2)


def _allowed(here: Here, there: There) -> tuple[Prefix, ...]:
    blocks = (block.cidr for network, block in _blocks(here, there) if network.encrypted)
    prefixes: set[Prefix] = {ip_network((there.peer.tunnel, 32)), *blocks}
    return tuple(sorted(prefixes, key=lambda p: (p.version, p.network_address, p.prefixlen)))


def _probe(here: Here, peer: Host, way: Way, link: str, metric: int) -> Route:
    return Route(
        to=IPv4Network((peer.tunnel, 32)),
        link=link,
        metric=metric,
        mtu=fitting(here, way),
        reason=f"{peer.name} in the tunnel",
    )


def _let_in(here: Here, there: There) -> Iterator[Element]:
    """The elements by which packets in clear are known to be from this host."""
    peer, number = there.peer, str(there.peer.number)
    if vxlan_versions(here, there):
        yield Element(
            set=HOST_BY_VXLAN, match=(peer.tunnel_mac, number), reason=f"{peer.name} by VXLAN"
        )
        for address in peer.addresses:
            yield Element(
                set=f"vxlan_peer{address.version}",
                match=(str(address),),
                reason=f"{peer.name} by VXLAN",
            )
    on_link = peer.mac and not _nat_between(here, there)
    if on_link and _shares(there, ("auto", "direct")):
        yield Element(set=HOST_ON_LINK, match=(peer.mac, number), reason=f"{peer.name} on a link")
