"""What a host needs because a network exists, before anything is attached to it."""

from __future__ import annotations

from collections.abc import Iterator

from seaway.model.names import GATEWAY_LINK
from seaway.model.network import Driver, Network, Subnet
from seaway.plan.host import HostFacts
from seaway.plan.resources import Element, LinkAddress, Resource, Route, RouteKind

_LAST_RESORT = 4_000_000_000
"""Route metric that anything else beats (unsigned 32 bits, larger is worse)."""


def plan_network(network: Network, host: HostFacts) -> tuple[Resource, ...]:
    """Compute gateway addresses, the subnets' routes, and the sets that know them.

    Only routed networks need anything on the host: a macvlan's wire, the host's
    own network and none at all are somebody else's.  Of an overlay network only hosts with
    an endpoint on it need this; what leads to other hosts is plan/overlay.py's.
    """
    if not network.routed:
        return ()
    return tuple(
        item for subnet in usable_subnets(network, host) for item in _subnet(network, subnet)
    )


def usable_subnets(network: Network, host: HostFacts) -> tuple[Subnet, ...]:
    """Return the subnets this host can carry: no IPv6 where the kernel has none."""
    return tuple(s for s in network.subnets if s.version == 4 or host.ipv6)


def _subnet(network: Network, subnet: Subnet) -> Iterator[Resource]:
    family, cidr = subnet.version, str(subnet.cidr)
    why = f"network {network.name}"
    gateway = subnet.gateway
    assert gateway is not None, "a routed network always has gateways"
    yield LinkAddress(
        link=GATEWAY_LINK,
        address=gateway,
        prefixlen=gateway.max_prefixlen,
        reason=f"{why}: gateway and name server",
    )
    # Addresses that nobody has are answered "unreachable" here, and never
    # leave by the default route.
    yield Route(
        to=subnet.cidr, kind=RouteKind.UNREACHABLE, metric=_LAST_RESORT, reason=f"{why}: subnet"
    )
    yield Element(set=f"same_network{family}", match=(cidr, cidr), reason=f"{why}: members talk")
    yield Element(
        set=f"gateway{family}", match=(cidr,), value=(str(gateway),), reason=f"{why}: gateway"
    )
    if network.internal:
        yield Element(set=f"internal{family}", match=(cidr,), reason=f"{why}: internal")
    if network.masquerade:
        yield Element(set=f"masquerade{family}", match=(cidr,), reason=f"{why}: masquerade")
    if network.driver is Driver.OVERLAY:
        yield Element(set=f"overlay{family}", match=(cidr,), reason=f"{why}: on many hosts")
    if network.encrypted:
        yield Element(set=f"encrypted{family}", match=(cidr,), reason=f"{why}: never in clear")
