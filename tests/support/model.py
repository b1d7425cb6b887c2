"""Short ways to write down networks, sandboxes and endpoints.

front = network("front", 1)                 # 10.77.1.0/24 and fd77:1::/64
web = sandbox("web", publish=["8080:80"])
on(web, front, 2)                           # 10.77.1.2 and fd77:1::2
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

from seaway.model.names import digest, mac_for
from seaway.model.network import Driver, Network, NetworkId, Subnet
from seaway.model.ports import PublishedPort, parse_publish
from seaway.model.sandbox import Endpoint, Phase, Sandbox, SandboxId, endpoint_id
from seaway.plan.sandboxes import Attachment


def subnet(cidr: str, gateway: str = "", **more: Any) -> Subnet:
    """A subnet; its first address is the gateway unless another is named."""
    prefix = ip_network(cidr)
    first = ip_address(gateway) if gateway else prefix.network_address + 1
    return Subnet(cidr=prefix, gateway=first, **more)


def network(name: str, n: int, **more: Any) -> Network:
    """A bridge network with both families, unless told otherwise."""
    both = (subnet(f"10.77.{n}.0/24"), subnet(f"fd77:{n:x}::/64"))
    return Network(**{"id": NetworkId(_id(name)), "name": name, "subnets": both} | more)


def macvlan(name: str, cidr: str, gateway: str = "", parent: str = "eth0") -> Network:
    """A macvlan network of one family."""
    prefix = ip_network(cidr)
    return Network(
        id=NetworkId(_id(name)),
        name=name,
        driver=Driver.MACVLAN,
        subnets=(Subnet(cidr=prefix, gateway=ip_address(gateway) if gateway else None),),
        options={"parent": parent},
    )


def sandbox(name: str, publish: tuple[str, ...] | list[str] = (), **more: Any) -> Sandbox:
    """A running sandbox whose ports are bound where they were asked for."""
    asked = tuple(parse_publish(text) for text in publish)
    given = {
        "id": SandboxId(_id(name)),
        "name": name,
        "netns": f"/run/netns/{name}",
        "asked": asked,
        "published": tuple(bound(text) for text in publish),
        "phase": Phase.RUNNING,
    }
    return Sandbox(**given | more)


def bound(text: str) -> PublishedPort:
    """The port that ``-p`` *text* publishes when its first choice is free."""
    spec = parse_publish(text)
    assert spec.host_first is not None, "a port that the kernel chooses has no number yet"
    return spec.bound_at(spec.host_first)


def on(who: Sandbox, where: Network, n: int, ifname: str = "eth0", **more: Any) -> Attachment:
    """Attach: the *n*-th address of each of the network's subnets."""
    identity = endpoint_id(who.id, where.id)
    addresses = {s.version: s.cidr.network_address + n for s in where.subnets}
    v4, v6 = addresses.get(4), addresses.get(6)
    assert isinstance(v4, IPv4Address | None)
    assert isinstance(v6, IPv6Address | None)
    given = {
        "id": identity,
        "sandbox": who.id,
        "network": where.id,
        "ifname": ifname,
        "mac": mac_for(identity),
        "v4": v4,
        "v6": v6,
    }
    return Attachment(endpoint=Endpoint(**given | more), network=where)


def _id(name: str) -> str:
    return digest("test", name).hex()[:12]
