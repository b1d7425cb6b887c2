"""What a host needs because a sandbox is attached to its networks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_network

from seaway.model.names import VETH_PREFIX, ifname
from seaway.model.network import IPV6_MTU_MIN, Address, Driver, Network
from seaway.model.sandbox import Endpoint, Sandbox
from seaway.plan.carriers import endpoint_mtu
from seaway.plan.host import GATEWAY_MAC, HostFacts
from seaway.plan.ports import plan_ports
from seaway.plan.resources import (
    LINK_GATEWAY,
    LOCAL_TABLE,
    Element,
    Link,
    LinkAddress,
    LinkKind,
    Neighbour,
    Netns,
    Resource,
    Route,
    RouteKind,
    Sysctl,
)

_EVERYWHERE = {4: ip_network("0.0.0.0/0"), 6: ip_network("::/0")}
_LOOPBACK6 = ip_network("::1/128")
_BEHIND_LO = 2048  # route metric; lo's own ::1 has 0 and stays first


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """One endpoint with the network it is on."""

    endpoint: Endpoint
    network: Network


def veth_name(endpoint: Endpoint) -> str:
    """Name the host side of an endpoint's veth pair."""
    return ifname(VETH_PREFIX, endpoint.id)


def gateway_order(attachments: Sequence[Attachment]) -> tuple[Attachment, ...]:
    """Order attachments by who should have the default route, best first.

    Highest gw-priority, then networks with a way out before internal ones, then
    both families before one, then by network name; stable across restarts.

    Source:
        Docker's rule since 28.0 ("gateway priority", docker network connect).
    """
    return tuple(
        sorted(
            attachments,
            key=lambda a: (
                -a.endpoint.gw_priority,
                a.network.internal,
                -len(a.endpoint.addresses),
                a.network.name,
            ),
        )
    )


def gateway_endpoint(attachments: Sequence[Attachment], version: int) -> Attachment | None:
    """Return the attachment with the default route of one family, None if there is no way out."""
    for item in gateway_order(attachments):
        subnet = item.network.subnet(version)
        has_address = any(a.version == version for a in item.endpoint.addresses)
        if has_address and not item.network.internal and subnet and subnet.gateway:
            return item
    return None


def plan_sandbox(
    sandbox: Sandbox, attachments: Sequence[Attachment], host: HostFacts
) -> tuple[Resource, ...]:
    """Compute everything one sandbox needs, in its own namespace and on the host.

    Args:
        attachments: Its endpoints, in any order.

    Returns:
        Resources whose number grows with this sandbox's endpoints and ports only.
    """
    found: list[Resource] = []
    if sandbox.made_netns:
        found.append(Netns(path=sandbox.netns, reason=f"container {sandbox.name}"))
    found += (
        Sysctl(netns=sandbox.netns, name=name, value=value, reason=f"container {sandbox.name}")
        for name, value in sandbox.sysctls.items()
        if "IFNAME" not in name
    )
    exits = {v: gateway_endpoint(attachments, v) for v in (4, 6)}
    for item in attachments:
        found += _link(sandbox, item, host)
        for address in item.endpoint.addresses:
            if address.version == 4 or host.ipv6:
                is_exit = exits[address.version] is item
                found += _address(sandbox, item, address, is_exit=is_exit)
    found += _published(sandbox, exits, host)
    found += _by_other_links(sandbox, attachments, host)
    return tuple(found)


def _mtu(network: Network, host: HostFacts) -> int:
    if network.driver is Driver.OVERLAY:
        return endpoint_mtu(network, host.underlay_versions, host.underlay_mtu)
    return network.mtu or host.mtu


def _link(sandbox: Sandbox, item: Attachment, host: HostFacts) -> Iterator[Resource]:
    endpoint, network = item.endpoint, item.network
    why = f"{sandbox.name} on {network.name}"
    if network.driver is Driver.MACVLAN:
        yield Link(
            netns=sandbox.netns,
            name=endpoint.ifname,
            kind=LinkKind.MACVLAN,
            mac=endpoint.mac,
            mtu=network.mtu or host.mtu,
            parent=network.options["parent"],
            mode=network.options.get("mode", "bridge"),
            reason=why,
        )
        return
    veth, mtu = veth_name(endpoint), _mtu(network, host)
    yield Link(
        name=veth,
        kind=LinkKind.VETH,
        mac=GATEWAY_MAC,
        mtu=mtu,
        peer_netns=sandbox.netns,
        peer_name=endpoint.ifname,
        peer_mac=endpoint.mac,
        ipv6=host.ipv6 and mtu >= IPV6_MTU_MIN,
        localnet=True,
        reason=why,
    )
    if endpoint.v6 and host.ipv6:
        yield LinkAddress(link=veth, address=LINK_GATEWAY, prefixlen=64, reason=f"{why}: router")


def _address(
    sandbox: Sandbox, item: Attachment, address: Address, *, is_exit: bool
) -> Iterator[Resource]:
    endpoint, network = item.endpoint, item.network
    subnet = network.subnet(address.version)
    assert subnet is not None, "an endpoint has addresses only from its network's subnets"
    why = f"{sandbox.name} on {network.name}"
    netns, link = sandbox.netns, endpoint.ifname
    if not network.routed:
        # The wire is shared, so the subnet is on-link and neighbours are asked for.
        yield LinkAddress(
            netns=netns,
            link=link,
            address=address,
            prefixlen=subnet.cidr.prefixlen,
            reason=why,
        )
        yield Route(netns=netns, link=link, to=subnet.cidr, source=address, reason=why)
        if is_exit:
            out = _EVERYWHERE[address.version]
            yield Route(netns=netns, link=link, to=out, via=subnet.gateway, reason=why)
        return
    gateway = subnet.gateway
    assert gateway is not None, "a routed network always has gateways"
    yield from _host_side(endpoint, address, gateway, why)

    yield LinkAddress(
        netns=netns, link=link, address=address, prefixlen=address.max_prefixlen, reason=why
    )
    next_hop = gateway if address.version == 4 else LINK_GATEWAY
    yield Neighbour(netns=netns, link=link, address=next_hop, mac=GATEWAY_MAC, reason=why)
    if address.version == 4:
        yield Route(netns=netns, link=link, to=ip_network((gateway, 32)), reason=why)
    yield Route(
        netns=netns,
        link=link,
        to=_EVERYWHERE[address.version] if is_exit else subnet.cidr,
        via=next_hop,
        source=address,
        reason=why,
    )


def _host_side(
    endpoint: Endpoint, address: Address, gateway: Address, why: str
) -> Iterator[Resource]:
    veth = veth_name(endpoint)
    yield Element(
        set=f"from{address.version}",
        match=(veth, endpoint.mac, str(address)),
        reason=f"{why}: may send from this address only",
    )
    whole = ip_network((address, address.max_prefixlen))
    yield Route(to=whole, link=veth, source=gateway, reason=why)
    yield Neighbour(link=veth, address=address, mac=endpoint.mac, reason=why)


def _published(
    sandbox: Sandbox, exits: dict[int, Attachment | None], host: HostFacts
) -> Iterator[Resource]:
    """Ports lead to the endpoint with the default route: replies leave where they came in."""
    if not sandbox.published:
        return
    for version, item in exits.items():
        if item is None or not item.network.routed or (version == 6 and not host.ipv6):
            continue
        address = next(a for a in item.endpoint.addresses if a.version == version)
        yield from plan_ports(sandbox.published, address, reason=f"port of {sandbox.name}")
        if version == 6:
            # Replies to ::1 come back on the veth, and the kernel takes loopback
            # destinations only by a route on the very link they arrive on
            # (rt6_need_strict, include/net/ip6_route.h).
            yield Route(
                to=_LOOPBACK6,
                link=veth_name(item.endpoint),
                kind=RouteKind.LOCAL,
                table=LOCAL_TABLE,
                metric=_BEHIND_LO,
                reason=f"{sandbox.name}: ports on ::1",
            )


def _by_other_links(
    sandbox: Sandbox, attachments: Sequence[Attachment], host: HostFacts
) -> Iterator[Element]:
    """Every address of a sandbox may leave by each of its links.

    A client on one of its networks that asks at a port on another is answered by the link to the
    client's network.  And the default route may move while connections are open, when a network
    is connected or disconnected: they go on from the address they began with.
    """
    routed = [item for item in attachments if item.network.routed]
    for link in routed:
        for item in routed:
            for address in item.endpoint.addresses:
                if item is not link and (address.version == 4 or host.ipv6):
                    yield Element(
                        set=f"from{address.version}",
                        match=(veth_name(link.endpoint), link.endpoint.mac, str(address)),
                        reason=f"{sandbox.name} on {link.network.name}: its other address",
                    )
