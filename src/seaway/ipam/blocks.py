"""Blocks: parts of a subnet that one host hands out addresses from.  Pure.

A host needs one route per block of another host, not one per container; and
it gives out addresses of its own blocks without asking anybody.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final, cast

from seaway.errors import Exhausted
from seaway.ipam.addresses import allocate, reserved
from seaway.model.cluster import Block
from seaway.model.network import Address, Prefix, Subnet

_SMALL_POOL: Final = 26  # prefix length from which on a pool is cut into four
_V4_LENGTH, _V4_LARGE_LENGTH = 28, 26
_LARGE_POOL: Final = 22  # prefix length up to which blocks are of 64 addresses
_V6_STEP: Final = 48
_V6_LENGTH_MAX: Final = 120
_TRIES: Final = 4096  # blocks looked at before giving up: an IPv6 subnet is not walked


def block_length(pool: Prefix) -> int:
    """Return the prefix length of the blocks that *pool* is cut into.

    16 addresses of a /24, 64 of a /22 and larger, a quarter of a small one.  An
    IPv6 /64 is cut into /112s of 65,536 addresses.
    """
    if pool.version == 6:
        quarter = min(pool.prefixlen + 2, 128)
        return max(min(pool.prefixlen + _V6_STEP, _V6_LENGTH_MAX), quarter)
    if pool.prefixlen >= _SMALL_POOL:
        return min(pool.prefixlen + 2, 32)
    return _V4_LARGE_LENGTH if pool.prefixlen <= _LARGE_POOL else _V4_LENGTH


def pool_of(subnet: Subnet) -> Prefix:
    """Return the part of *subnet* that addresses are handed out from."""
    return subnet.ip_range or subnet.cidr


def block_of(subnet: Subnet, address: Address) -> Prefix:
    """Return the block that *address* lies in; alone, if it is outside the pool."""
    pool = pool_of(subnet)
    length = block_length(pool) if address in pool else address.max_prefixlen
    return ip_network((address, length), strict=False)


def free_blocks(subnet: Subnet, taken: Container[Prefix], number: int) -> Iterator[Prefix]:
    """Yield blocks that nobody owns, beginning where the host with this *number* should.

    Two hosts that look at the same time begin at different ones.
    """
    pool = pool_of(subnet)
    length = block_length(pool)
    count = 1 << (length - pool.prefixlen)
    size = 1 << (pool.max_prefixlen - length)
    for step in range(min(count, _TRIES)):
        at = int(pool.network_address) + ((number - 1 + step) % count) * size
        block = _prefix(pool, at, length)
        if block not in taken and not _useless(subnet, block):
            yield block


def _useless(subnet: Subnet, block: Prefix) -> bool:
    """Does it hold nothing that could be handed out?"""
    if block.num_addresses > 8:  # the network, broadcast, gateway and what was set aside: never all
        return len(reserved(subnet)) + 2 >= block.num_addresses
    try:
        allocate(replace(subnet, ip_range=block), {})
    except Exhausted:
        return True
    return False


def _prefix(pool: Prefix, at: int, length: int) -> Prefix:
    if isinstance(pool, IPv4Network):
        return IPv4Network((at, length))
    return IPv6Network((at, length))


def lendable(block: Prefix) -> tuple[int, int]:
    """Return the first and last address of *block*, as numbers, that other hosts may borrow.

    It is the back half.  While its owner is cut off from the store it hands out
    the front half only, so that nobody has the same address at the same time.
    """
    low, high = int(block.network_address), int(block.broadcast_address)
    return low + (high - low + 1) // 2, high


def front_half(block: Prefix) -> Prefix:
    """Return the part that its owner may hand out without asking."""
    if block.prefixlen == block.max_prefixlen:
        return block
    return next(iter(cast("Iterator[Prefix]", block.subnets(prefixlen_diff=1))))


def pick(
    subnet: Subnet,
    own: Mapping[Prefix, Block],
    held: Mapping[Address, str],
    *,
    alone: bool,
    after: Address | None = None,
) -> Address | None:
    """Pick a free address of one's own blocks; None if they are full.

    Args:
        own: The host's blocks of this subnet; single borrowed addresses are left out.
        held: Address -> holder, at least of everything in those blocks.
        alone: The store is out of reach.
        after: Where the last search ended.
    """
    for cidr in own:
        if cidr.prefixlen == cidr.max_prefixlen and cidr != block_of(subnet, cidr.network_address):
            continue
        part = front_half(cidr) if alone else cidr
        start = after if after is not None and after in part else None
        try:
            return allocate(replace(subnet, ip_range=part), held, start)
        except Exhausted:
            continue
    return None


def borrowable(
    subnet: Subnet, blocks: Mapping[Prefix, Block], held: Container[Address]
) -> Iterator[Address]:
    """Yield addresses of others' blocks that may be borrowed.

    Args:
        held: Every address of the subnet that is claimed, by whomever.
    """
    fixed = reserved(subnet)
    whole = Subnet(cidr=subnet.cidr)
    for cidr in sorted(blocks, key=lambda c: int(c.network_address)):
        if cidr.version != subnet.version or cidr.prefixlen == cidr.max_prefixlen:
            continue
        first, last = lendable(cidr)
        for number in range(first, last + 1):
            address = type(subnet.cidr.network_address)(number)
            if address not in held and address not in fixed and _usable(whole, address):
                yield address


def _usable(whole: Subnet, address: Address) -> bool:
    cidr = whole.cidr
    if cidr.prefixlen >= cidr.max_prefixlen - 1:
        return True
    ends = {cidr.network_address} | ({cidr.broadcast_address} if cidr.version == 4 else set())
    return address not in ends
