"""Handing out addresses of a subnet.  Pure: who holds what comes in, an address goes out."""

from __future__ import annotations

from collections.abc import Mapping

from seaway.errors import Conflict, Exhausted, InvalidSpec
from seaway.model.names import some_of
from seaway.model.network import Address, Subnet


def first_and_last(subnet: Subnet) -> tuple[int, int]:
    """Return the range that addresses are handed out from, as integers.

    Leaves out the network and broadcast address of IPv4 (not of a /31, RFC
    3021) and the subnet-router anycast address of IPv6 (RFC 4291 section 2.6.1).
    """
    whole = subnet.cidr
    low, high = int(whole.network_address), int(whole.broadcast_address)
    if whole.prefixlen < whole.max_prefixlen - 1:
        low += 1
        high -= 1 if whole.version == 4 else 0
    if subnet.ip_range is not None:
        low = max(low, int(subnet.ip_range.network_address))
        high = min(high, int(subnet.ip_range.broadcast_address))
    return low, high


def reserved(subnet: Subnet) -> dict[Address, str]:
    """Return the subnet's own addresses, never handed out, with what they are for."""
    found = {address: f"aux-address {name}" for name, address in subnet.reserved.items()}
    if subnet.gateway is not None:
        found[subnet.gateway] = "the gateway"
    return found


def allocate(subnet: Subnet, held: Mapping[Address, str], after: Address | None = None) -> Address:
    """Pick the next free address.

    Args:
        held: Address -> holder's name, everything taken on this network.
        after: Where the last search ended.  Going on from there keeps a freed
            address unused for as long as possible, so that nobody's stale
            connection reaches a stranger, and makes each search short.

    Raises:
        Exhausted: None is left; says who holds them.
    """
    low, high = first_and_last(subnet)
    fixed = reserved(subnet)
    start = int(after) + 1 if after is not None and low <= int(after) < high else low
    # More than len(taken)+1 candidates cannot all be taken: IPv6 ranges are not walked.
    taken = len(held) + len(fixed)
    size = high - low + 1
    for step in range(min(size, taken + 1) if size > 0 else 0):
        # The subnet's own class: ip_address() would read a small IPv6 number as IPv4.
        candidate = type(subnet.cidr.network_address)(low + (start - low + step) % size)
        if candidate not in held and candidate not in fixed:
            return candidate
    raise Exhausted(_nothing_left(subnet, held))


def claim(subnet: Subnet, held: Mapping[Address, str], wanted: Address) -> Address:
    """Check that *wanted* may be had.

    Raises:
        InvalidSpec: It is outside the subnet, or means the subnet itself.
        Conflict: Somebody holds it; says who.
    """
    if wanted not in subnet.cidr:
        raise InvalidSpec(f"address {wanted} is outside the network's subnet {subnet.cidr}")
    whole = Subnet(cidr=subnet.cidr)
    low, high = first_and_last(whole)
    if not low <= int(wanted) <= high:
        raise InvalidSpec(
            f"address {wanted} stands for the subnet {subnet.cidr} itself: choose another"
        )
    holder = held.get(wanted) or reserved(subnet).get(wanted)
    if holder:
        raise Conflict(f"address {wanted} is held by {holder}: choose another or free it")
    return wanted


def _nothing_left(subnet: Subnet, held: Mapping[Address, str]) -> str:
    pool = subnet.ip_range or subnet.cidr
    holders = sorted({name for address, name in held.items() if address in pool})
    by = f": held by {some_of(holders)}" if holders else ""
    return f"no addresses left in {pool}{by}; remove containers or use a larger range"
