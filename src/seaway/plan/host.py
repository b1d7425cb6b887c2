"""What every host needs, whatever runs on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from seaway.model.names import GATEWAY_LINK
from seaway.model.network import IPV6_MTU_MIN
from seaway.plan.resources import Element, Link, LinkKind, Resource, Sysctl
from seaway.plan.ruleset import EXIT_BRIDGES, ruleset

GATEWAY_MAC: Final = "02:53:57:00:00:01"
"""Host side of every endpoint.  One for all: each veth is a wire with two ends, and a
container's fixed neighbour entry for its gateway is then the same everywhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """What a plan has to know about this machine.

    Attributes:
        ipv6: The kernel has IPv6 and nobody disabled it.
        mtu: Bytes of IP packet that fit the way out; endpoints send no larger ones.
        exit_bridges: Bridges of others that lead to other machines.  What is behind
            any other bridge belongs to another engine, and endpoints get there
            through its published ports only.
        underlay_mtu: Bytes of IP packet that fit the link to the cluster's other hosts.
        underlay_versions: Of IP of this host's addresses in the cluster.
    """

    ipv6: bool = True
    mtu: int = 1500
    exit_bridges: frozenset[str] = frozenset()
    underlay_mtu: int = 1500
    underlay_versions: frozenset[int] = frozenset({4})


def plan_host(host: HostFacts) -> tuple[Resource, ...]:
    """Compute the table, the gateway link and forwarding."""
    found: list[Resource] = [
        ruleset(),
        Sysctl(name="net.ipv4.ip_forward", value="1", reason="endpoints are routed"),
        Link(
            name=GATEWAY_LINK,
            kind=LinkKind.BRIDGE,  # never has a port: it only carries addresses
            mac=GATEWAY_MAC,
            mtu=host.mtu,
            ipv6=host.ipv6 and host.mtu >= IPV6_MTU_MIN,
            reason="holds every network's gateway address",
        ),
    ]
    if host.ipv6:
        found.insert(
            2, Sysctl(name="net.ipv6.conf.all.forwarding", value="1", reason="endpoints are routed")
        )
    found += (
        Element(set=EXIT_BRIDGES, match=(f'"{name}"',), reason="leads to other machines")
        for name in sorted(host.exit_bridges)
    )
    return tuple(found)
