"""Putting a network's subnets together from what was named and what was left open."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv6Network, ip_address

from seaway.errors import InvalidSpec
from seaway.ipam.addresses import first_and_last
from seaway.ipam.pools import SPECIAL, Taken, check_free, free_v4, free_v6, gateway_of
from seaway.model.network import Address, Driver, Prefix, Subnet


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The address part of ``network create``: flags in the order they were given."""

    name: str
    driver: Driver
    subnets: Sequence[Prefix] = ()
    gateways: Sequence[Address] = ()
    ip_ranges: Sequence[Prefix] = ()
    reserved: dict[str, Address] = field(default_factory=dict)
    ipv4: bool = True
    ipv6: bool = True


def assemble(wanted: Wanted, site: IPv6Network, taken: Collection[Taken]) -> tuple[Subnet, ...]:
    """Return the network's subnets, IPv4 first.

    Args:
        site: This host's own /48, where IPv6 subnets come from when none is named.
        taken: Everything in use: routes, resolvers, other networks.

    Raises:
        InvalidSpec: The flags do not fit together.
        Conflict: A named subnet overlaps something; says what.
    """
    if not (wanted.ipv4 or wanted.ipv6):
        raise InvalidSpec("a network needs IPv4 or IPv6: leave one of them on")
    prefixes = list(wanted.subnets)
    for version, on in ((4, wanted.ipv4), (6, wanted.ipv6)):
        named = [p for p in prefixes if p.version == version]
        if len(named) > 1:
            raise InvalidSpec(f"two IPv{version} subnets are named: a network has one of each kind")
        if named and not on:
            raise InvalidSpec(f"{named[0]} is named, but IPv{version} is turned off: drop one")
        if not on or named:
            continue
        if wanted.driver is Driver.MACVLAN:
            continue  # its subnet is the wire's: nothing to invent
        shared = wanted.driver is Driver.OVERLAY
        v4 = version == 4
        found = free_v4(taken, shared=shared) if v4 else free_v6(site, wanted.name, taken)
        prefixes.append(found)
    for prefix in wanted.subnets:
        # A macvlan's subnet is the wire's, which the host itself has a route to.
        check_free(prefix, SPECIAL if wanted.driver is Driver.MACVLAN else [*SPECIAL, *taken])
    if not prefixes:
        raise InvalidSpec("a macvlan network needs the wire's subnet: add --subnet and --gateway")
    subnets = [Subnet(cidr=p) for p in sorted(prefixes, key=lambda p: p.version)]
    return tuple(_with_gateway(s, wanted.driver) for s in _distribute(wanted, subnets))


def _distribute(wanted: Wanted, subnets: list[Subnet]) -> list[Subnet]:
    """Give each gateway, range and reserved address to the subnet it lies in."""
    for gateway in wanted.gateways:
        at = _home("gateway", gateway, subnets)
        if subnets[at].gateway is not None:
            raise InvalidSpec(f"two gateways are named in {subnets[at].cidr}: keep one")
        low, high = first_and_last(Subnet(cidr=subnets[at].cidr))
        if not low <= int(gateway) <= high:
            raise InvalidSpec(
                f"gateway {gateway} stands for the subnet {subnets[at].cidr} itself: choose another"
            )
        subnets[at] = replace(subnets[at], gateway=gateway)
    for pool in wanted.ip_ranges:
        at = _home("ip-range", pool.network_address, subnets)
        subnets[at] = replace(subnets[at], ip_range=pool)
    for name, address in wanted.reserved.items():
        at = _home(f"aux-address {name}", address, subnets)
        if address == subnets[at].gateway:
            raise InvalidSpec(f"aux-address {name}={address} is the gateway, too: change one")
        subnets[at] = replace(subnets[at], reserved=subnets[at].reserved | {name: address})
    return subnets


def _home(what: str, address: Address, subnets: Sequence[Subnet]) -> int:
    for at, subnet in enumerate(subnets):
        if address in subnet.cidr:
            return at
    same = [str(s.cidr) for s in subnets if s.version == address.version]
    where = f"the subnet {same[0]}" if same else f"any subnet (none is IPv{address.version})"
    raise InvalidSpec(f"{what} {address} is outside {where}: choose one inside")


def _with_gateway(subnet: Subnet, driver: Driver) -> Subnet:
    """Without one named, a routed network's gateway is the first address not reserved."""
    if subnet.gateway is not None or driver is Driver.MACVLAN:
        return subnet
    gateway = ip_address(gateway_of(subnet.cidr))
    while gateway in subnet.reserved.values() and gateway + 1 in subnet.cidr:
        gateway += 1
    return replace(subnet, gateway=gateway)
