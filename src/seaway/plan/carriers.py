"""What carries a network's packets to one other host, and how large they may be.

Decides and computes only; plan/overlay.py makes resources of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from seaway.model.cluster import Carrier, Host
from seaway.model.network import IPV6_MTU_MIN, Address, Network

_IP: Final = {4: 20, 6: 40}  # bytes of header: RFC 791 section 3.1, RFC 8200 section 3
_INSIDE: Final = {
    Carrier.VXLAN: 8 + 8 + 14,  # UDP, VXLAN, the inner Ethernet header (RFC 7348 section 5)
    # UDP; type, receiver and counter; tag (the WireGuard paper, section 5.4.6)
    Carrier.WIREGUARD: 8 + 16 + 16,
}
_PADDING: Final = 16
"""WireGuard fills packets up to a multiple of these bytes, but not beyond its device's MTU."""

KEEPALIVE: Final = 25
"""Seconds between packets that keep a NAT's mapping alive (wg(8), PersistentKeepalive)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnderlayPath:
    """How the kernel would send to an underlay address of another host.

    Attributes:
        to: That address.
        link: Leaves by it.
        source: Our address it leaves from.
        mtu: Bytes of IP packet that fit all the way, as far as the kernel knows.
        on_link: There is no router between.
        link_mac: Of *link*, in lower case; "" if it has none.
    """

    to: Address
    link: str
    source: Address
    mtu: int
    on_link: bool
    link_mac: str = ""


Paths = Mapping[int, UnderlayPath]
"""The paths to one host by IP version, as far as there are routes to reachable()'s addresses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """A carrier, and the underlay path it takes."""

    carrier: Carrier
    path: UnderlayPath


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """There is no way to carry it.  *reason* says why, and what to do."""

    reason: str


def overhead(carrier: Carrier, version: int) -> int:
    """Bytes a carrier adds to an IP packet, with IPv4 or IPv6 below: 0, 50, 60, 70 or 80.

    The outer Ethernet header is not counted, as in an MTU.
    """
    return 0 if carrier is Carrier.DIRECT else _IP[version] + _INSIDE[carrier]


def tunnel_mtu(carrier: Carrier, versions: Iterable[int], underlay_mtu: int) -> int:
    """MTU of a tunnel's device on a host, in bytes: what fits by any of its IP *versions*.

    Never below what IPv6 needs (RFC 8200 section 5), or the kernel would take it off the device.
    """
    most = max(overhead(carrier, version) for version in versions)
    return max(IPV6_MTU_MIN, underlay_mtu - most)


def path_mtu(carrier: Carrier, underlay_mtu: int, version: int, device_mtu: int) -> int:
    """Bytes of IP packet that fit a way whose underlay path carries *underlay_mtu*.

    Args:
        version: Of IP below.
        device_mtu: Of the tunnel's device, which bounds it; wireguard-go pads up to it, so a
            narrower way must have room for the padding.
    """
    fits = underlay_mtu - overhead(carrier, version)
    if fits >= device_mtu:
        return device_mtu
    return fits - fits % _PADDING if carrier is Carrier.WIREGUARD else fits


def endpoint_mtu(network: Network, versions: Iterable[int], underlay_mtu: int) -> int:
    """Bytes of IP packet an endpoint of an overlay network may send.

    What the widest of its possible carriers' headers leave of this host's own link, so that it
    does not change when hosts come and go.

    Args:
        versions: Of IP of this host's addresses in the cluster.
        underlay_mtu: Of the link with them.
    """
    if network.mtu:
        return network.mtu
    if network.encrypted:
        worst = Carrier.WIREGUARD
    else:
        worst = Carrier.DIRECT if network.carrier == "direct" else Carrier.VXLAN
    most = max(overhead(worst, version) for version in versions)
    least = IPV6_MTU_MIN if network.subnet(6) else 68  # RFC 791 section 3.2
    return max(least, underlay_mtu - most)


def widest_mtu(network: Network, versions: Iterable[int], underlay_mtu: int) -> int:
    """Bytes of IP packet that fit the widest way an overlay network's packets may take.

    Args:
        versions: Of IP of this host's addresses in the cluster.
        underlay_mtu: Of the link with them.
    """
    best = Carrier.VXLAN if network.carrier == "vxlan" else Carrier.DIRECT
    if network.encrypted:
        best = Carrier.WIREGUARD
    return underlay_mtu - min(overhead(best, version) for version in versions)


def reachable(me: Host, peer: Host) -> tuple[Address, ...]:
    """Where this host sends to reach *peer*, at most one of each IP version, best first.

    Both sides prefer the same version.  () if they cannot meet: choose() says why.
    """
    if peer.behind is not None and peer.behind != me.behind:
        return (peer.behind,) if me.behind is None and me.address(peer.behind.version) else ()
    first = min(me, peer, key=lambda host: host.number)
    both = (peer.address(a.version) for a in first.addresses if me.address(a.version))
    return tuple(a for a in both if a is not None)


def choose(network: Network, me: Host, peer: Host, paths: Paths, version: int) -> Way | Refused:
    """Choose what carries a network's packets of one IP *version* to *peer*.

    Args:
        network: An overlay network.
        paths: To the addresses that reachable() names.
    """
    if why := _apart(me, peer, paths):
        return Refused(reason=why)
    best = next(paths[a.version] for a in reachable(me, peer) if a.version in paths)
    if network.encrypted:
        why = _no_keys(me, peer)
        return Refused(reason=why) if why else Way(carrier=Carrier.WIREGUARD, path=best)
    way = _in_clear(network, me, peer, paths.get(version), best)
    needs = IPV6_MTU_MIN + overhead(Carrier.VXLAN, best.to.version)
    # WireGuard's packets are cut where they are too large; those of VXLAN never are.
    if version == 6 and way == Way(carrier=Carrier.VXLAN, path=best) and best.mtu < needs:
        return Refused(
            reason=f"the way to {peer.name} carries packets of {best.mtu} bytes, IPv6 by VXLAN "
            f"needs {needs}: raise the MTU of the links between"
        )
    return way


def shared_generations(me: Host, peer: Host) -> tuple[int, ...]:
    """Generations of WireGuard keys that both hosts have, oldest first."""
    ours = {key.generation for key in me.keys}
    return tuple(sorted(ours & {key.generation for key in peer.keys}))


def _apart(me: Host, peer: Host, paths: Paths) -> str:
    """Why two hosts cannot send to each other at all, or ""."""
    if me.behind and peer.behind and me.behind != peer.behind:
        return (
            f"{me.name} and {peer.name} are behind different NATs: let one of them be reached "
            "from outside and name that address with --advertise"
        )
    to = reachable(me, peer)
    if not to:
        return (
            f"{me.name} and {peer.name} have no addresses of the same IP version: "
            "give one of them both with --advertise"
        )
    if not any(a.version in paths for a in to):
        return f"{me.name} has no route to {to[0]} ({peer.name}): add one, see 'ip route get'"
    return ""


def _no_keys(me: Host, peer: Host) -> str:
    """Why WireGuard does not work between two hosts, or ""."""
    if lacking := next((host for host in (me, peer) if not host.keys), None):
        return f"{lacking.name} has no WireGuard: install wireguard-go there and restart its agent"
    if not shared_generations(me, peer):
        newest = {host.name: host.keys[-1].generation for host in (me, peer)}
        behind = min(newest, key=lambda name: newest[name])
        return f"{behind} has no new WireGuard key yet: look whether its agent runs"
    return ""


def _in_clear(
    network: Network, me: Host, peer: Host, same: UnderlayPath | None, best: UnderlayPath
) -> Way | Refused:
    """Choose where nothing is encrypted; *same* is the path of the packets' own IP version."""
    if me.behind != peer.behind:
        inner = peer if peer.behind else me
        return Refused(
            reason=f"{inner.name} is behind a NAT, which only encrypted packets pass: "
            f"make network {network.name} with -o encrypted=true"
        )
    if network.carrier != "vxlan" and same and _straight(me, peer, same):
        return Way(carrier=Carrier.DIRECT, path=same)
    if network.carrier == "direct":
        return Refused(
            reason=f"{peer.name} is not on one link with {me.name}, as "
            f"carrier=direct needs: make network {network.name} with carrier=auto"
        )
    if lacking := next((host for host in (me, peer) if not host.vxlan), None):
        return Refused(
            reason=f"{lacking.name} has no VXLAN: load its kernel module vxlan there, or make "
            f"network {network.name} with -o encrypted=true"
        )
    return Way(carrier=Carrier.VXLAN, path=best)


def _straight(me: Host, peer: Host, path: UnderlayPath) -> bool:
    """Do packets need no tunnel?

    Both hosts check the other's MAC address, so it must be by the links whose addresses they
    published.
    """
    return path.on_link and bool(peer.mac) and bool(me.mac) and path.link_mac == me.mac
