"""Blocks of addresses: what must hold for any subnet, any hosts and any containers."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_network

from hypothesis import given
from hypothesis import strategies as st

from seaway.ipam.addresses import first_and_last, reserved
from seaway.ipam.blocks import (
    block_length,
    block_of,
    borrowable,
    free_blocks,
    front_half,
    lendable,
    pick,
    pool_of,
)
from seaway.model.cluster import Block, HostId
from seaway.model.network import NetworkId, Subnet

NET, ME, OTHER = NetworkId("n"), HostId("me"), HostId("other")


def prefixes(shortest4=16, shortest6=48):
    """Subnets of both families, up to single addresses."""
    return st.builds(
        lambda base, length: IPv4Network((base, length), strict=False),
        st.integers(0, 2**32 - 1),
        st.integers(shortest4, 32),
    ) | st.builds(
        lambda base, length: IPv6Network((base, length), strict=False),
        st.integers(0, 2**128 - 1),
        st.integers(shortest6, 128),
    )


@st.composite
def subnets(draw, shortest4=16, shortest6=48):
    """With a gateway, reserved addresses and a range, each or none."""
    cidr = draw(prefixes(shortest4, shortest6))
    inside = st.integers(0, cidr.num_addresses - 1).map(lambda n: cidr[n])
    length = draw(st.none() | st.integers(cidr.prefixlen, cidr.max_prefixlen))
    pool = None if length is None else ip_network((draw(inside), length), strict=False)
    gateway = draw(st.none() | st.just(cidr[min(1, cidr.num_addresses - 1)]) | inside)
    names = draw(st.dictionaries(st.sampled_from("abc"), inside, max_size=3))
    return Subnet(cidr=cidr, gateway=gateway, ip_range=pool, reserved=names)


small = subnets(26, 121)


def block(cidr, host=ME):
    """A block of the one network."""
    return Block(network=NET, cidr=cidr, host=host)


def usable(subnet):
    """Every address that may be handed out at all."""
    low, high = first_and_last(subnet)
    every = (type(subnet.cidr[0])(n) for n in range(low, high + 1))
    return {address for address in every if address not in reserved(subnet)}


@given(subnets(), st.integers(1, 20000))
def test_free_blocks_are_parts_of_the_pool(subnet, number):
    """All of one size, each once, none beyond the pool."""
    pool, length = pool_of(subnet), block_length(pool_of(subnet))
    found = [b for b, _ in zip(free_blocks(subnet, (), number), range(50), strict=False)]

    assert pool.prefixlen <= length <= pool.max_prefixlen
    assert len(found) == len(set(found))
    for cidr in found:
        assert cidr.subnet_of(pool)
        assert length == cidr.prefixlen
        assert cidr == block_of(subnet, cidr[0]) == block_of(subnet, cidr[-1])


@given(small, st.integers(1, 600))
def test_blocks_hold_every_address(subnet, number):
    """Whichever host begins: all that may be handed out is in some block, which holds nothing
    twice; and no block is offered that holds nothing."""
    found = list(free_blocks(subnet, (), number))

    every = usable(subnet)
    for address in every:
        assert 1 == sum(address in cidr for cidr in found)
    for cidr in found:
        assert any(address in cidr for address in every)
    assert set(found[1:]) == set(free_blocks(subnet, found[:1], number + 1))


@given(prefixes(16, 48), st.integers(1, 16000), st.integers(1, 16000))
def test_hosts_begin_at_different_blocks(cidr, one, other):
    """Two that choose in the same moment choose differently, as long as there are enough."""
    count = 1 << (block_length(cidr) - cidr.prefixlen)
    size = 1 << (cidr.max_prefixlen - block_length(cidr))
    if (one - other) % count == 0 or size < 4:  # so small that a block may hold nothing
        return
    gateway = cidr[1]
    found = [next(free_blocks(Subnet(cidr=cidr, gateway=gateway), (), n)) for n in (one, other)]

    assert found[0] != found[1]


@given(prefixes(0, 0))
def test_the_halves_of_a_block(cidr):
    """What its owner gives out alone, and what it lends, is all of it and nothing twice."""
    if cidr.prefixlen == cidr.max_prefixlen:
        assert cidr == front_half(cidr)
        return
    front, (first, last) = front_half(cidr), lendable(cidr)

    assert int(front.network_address) == int(cidr.network_address)
    assert int(front.broadcast_address) + 1 == first
    assert last == int(cidr.broadcast_address)
    assert front.num_addresses == last - first + 1


@given(small, st.integers(1, 600), st.booleans(), st.data())
def test_picking_until_nothing_is_left(subnet, number, alone, data):
    """Exactly what is in our own blocks, or in their front halves; nothing that somebody holds,
    nothing that stands for the network, and no borrowed address."""
    every, free = usable(subnet), list(free_blocks(subnet, (), number))
    own = {cidr: block(cidr) for cidr in free[: data.draw(st.integers(0, 4))]}
    parts = [front_half(cidr) if alone else cidr for cidr in own]
    wanted = {a for a in every if any(a in part for part in parts)}
    lent = dict.fromkeys(data.draw(st.sets(st.sampled_from(sorted(wanted)))) if wanted else (), "x")
    length = subnet.cidr.max_prefixlen
    if block_length(pool_of(subnet)) < length:
        beyond = sorted(a for a in every if not any(a in cidr for cidr in own))
        singles = [ip_network((a, length)) for a in beyond[:2]]
        own |= {cidr: block(cidr) for cidr in singles}
    held, cursor = dict(lent), None
    while (found := pick(subnet, own, held, alone=alone, after=cursor)) is not None:
        assert found not in held
        held[found] = "mine"
        cursor = found

    assert wanted == set(held)


@given(small, st.data())
def test_what_may_be_borrowed(subnet, data):
    """The back halves of others' blocks, without what is claimed and what is nobody's."""
    every = sorted(usable(subnet))
    blocks = {b: block(b, OTHER) for b in free_blocks(subnet, (), 1) if data.draw(st.booleans())}
    single = [ip_network((a, subnet.cidr.max_prefixlen)) for a in every[:2]]
    blocks |= {cidr: block(cidr, OTHER) for cidr in single}
    held = data.draw(st.sets(st.sampled_from(every))) if every else set()
    found = list(borrowable(subnet, blocks, held))

    lent = {
        address
        for address in usable(
            Subnet(cidr=subnet.cidr, gateway=subnet.gateway, reserved=subnet.reserved)
        )
        for cidr in blocks
        if cidr.prefixlen < cidr.max_prefixlen
        and lendable(cidr)[0] <= int(address) <= lendable(cidr)[1]
    }
    assert len(set(found)) == len(found)
    assert lent - held == set(found)


@given(subnets(), st.data())
def test_the_block_of_an_address_that_was_chosen(subnet, data):
    """In the pool one of its blocks; outside the address alone."""
    address = subnet.cidr[data.draw(st.integers(0, subnet.cidr.num_addresses - 1))]
    found = block_of(subnet, address)

    assert address in found
    if address in pool_of(subnet):
        assert found.subnet_of(pool_of(subnet))
        assert block_length(pool_of(subnet)) == found.prefixlen
    else:
        assert found == ip_network((address, address.max_prefixlen))


def test_sizes_of_blocks():
    """As documented: 16 addresses of a /24, 64 of a large pool, a quarter of a small one."""
    sizes = {
        text: block_length(ip_network(text))
        for text in (
            *("10.0.0.0/8", "10.0.0.0/22", "10.0.0.0/23", "10.0.0.0/24", "10.0.0.0/26"),
            *("10.0.0.0/29", "10.0.0.0/30", "10.0.0.0/31", "10.0.0.1/32"),
            *(
                "fd00::/48",
                "fd00::/64",
                "fd00::/72",
                "fd00::/112",
                "fd00::/120",
                "fd00::/126",
                "fd00::/128",
            ),
        )
    }

    assert {
        *{"10.0.0.0/8": 26, "10.0.0.0/22": 26, "10.0.0.0/23": 28, "10.0.0.0/24": 28}.items(),
        *{"10.0.0.0/26": 28, "10.0.0.0/29": 31, "10.0.0.0/30": 32, "10.0.0.0/31": 32}.items(),
        *{"10.0.0.1/32": 32, "fd00::/48": 96, "fd00::/64": 112, "fd00::/72": 120}.items(),
        *{"fd00::/112": 120, "fd00::/120": 122, "fd00::/126": 128, "fd00::/128": 128}.items(),
    } == set(sizes.items())
