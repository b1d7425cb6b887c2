"""Short ways to write down hosts of a cluster, and what two of them have in common.

host1, host2 = host("host1", 1), host("host2", 2)    # 192.0.2.1 and .2, 2001:db8::1 and ::2
blue = overlay("blue", 7)                            # 10.77.7.0/24 and fd77:7::/64, encrypted
plan_peer(here(host1), there(host2, blue))           # host2 has 10.77.7.32/28, fd77:7::2:0/112
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv6Network, ip_address, ip_network
from typing import Any

from seaway.model.cluster import Block, Cluster, Host, HostId, TunnelKey
from seaway.model.network import Driver, Network
from seaway.plan.carriers import Paths, UnderlayPath, reachable
from seaway.plan.host import HostFacts
from seaway.plan.overlay import Here, There
from tests.support.model import network

CLUSTER = Cluster(id="c" * 12, site=IPv6Network("fd77::/48"))


def overlay(name: str, n: int, *, clear: bool = False, carrier: str = "", **more: Any) -> Network:
    """An overlay network with both families; encrypted unless it is to go in clear."""
    options = more.pop("options", {}) | ({"encrypted": "false"} if clear else {})
    options |= {"carrier": carrier} if carrier else {}
    return network(name, n, driver=Driver.OVERLAY, options=options, **more)


def host(name: str, n: int, addresses: Iterable[str] = (), **more: Any) -> Host:
    """Host number *n* of the cluster, with the first generation of keys."""
    given = {
        "id": HostId(f"{n:012x}"),
        "name": name,
        "number": n,
        "addresses": tuple(
            ip_address(a) for a in addresses or (f"192.0.2.{n}", f"2001:db8::{n:x}")
        ),
        "mac": f"02:00:00:00:00:{n:02x}",
        "keys": (key(n, 0),),
    }
    return Host(**given | more)


def key(n: int, generation: int) -> TunnelKey:
    """A key of host *n*: no real one, but as long and always the same."""
    return TunnelKey(generation=generation, public=f"{n:020d}{generation:023d}=")


def here(me: Host, **facts: Any) -> Here:
    """This host, by default with a link of 1500 bytes."""
    versions = frozenset(a.version for a in me.addresses)
    return Here(me=me, cluster=CLUSTER, facts=HostFacts(**{"underlay_versions": versions} | facts))


def paths(me: Host, peer: Host, **more: Any) -> Paths:
    """From *me* to all addresses of *peer* that it may send to, by eth0 without a router."""
    found = {}
    for to in reachable(me, peer):
        source = me.address(to.version)
        assert source is not None
        given = {"to": to, "link": "eth0", "source": source, "mtu": 1500, "on_link": True}
        found[to.version] = UnderlayPath(**given | {"link_mac": me.mac} | more)
    return found


def blocks(where: Network, peer: Host) -> tuple[Block, ...]:
    """The blocks of a host on a network: one of each family, by its number."""
    cidrs = []
    for subnet in where.subnets:
        length, step = (28, 16) if subnet.version == 4 else (112, 1 << 16)
        first = subnet.cidr.network_address + peer.number * step
        cidrs.append(ip_network((first, length)))
    return tuple(Block(network=where.id, cidr=cidr, host=peer.id) for cidr in cidrs)


def there(peer: Host, *networks: Network, me: Host | None = None, **more: Any) -> There:
    """Another host with its blocks on some networks, on a link with *me*: host 1."""
    given = {
        "paths": paths(me or host("host1", 1), peer),
        "networks": tuple((where, blocks(where, peer)) for where in networks),
    }
    return There(peer=peer, **given | more)
