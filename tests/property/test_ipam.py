"""Handing out addresses and subnets: what must hold for any of them."""

from __future__ import annotations

from contextlib import suppress
from ipaddress import IPv4Network, IPv6Network, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seaway.errors import Conflict, Exhausted
from seaway.ipam.addresses import allocate, claim, first_and_last, reserved
from seaway.ipam.pools import Taken, check_free, free_v4, free_v6, overlap, site_prefix
from seaway.model.network import Subnet

prefixes4 = st.builds(
    lambda base, length: IPv4Network((base, length), strict=False),
    st.integers(0, 2**32 - 1),
    st.integers(24, 32),
)
prefixes6 = st.builds(
    lambda base, length: IPv6Network((base, length), strict=False),
    st.integers(0, 2**128 - 1),
    st.integers(120, 128),
)


@st.composite
def subnets(draw):
    """A small subnet with a gateway, reserved addresses and a range, each or none."""
    cidr = draw(prefixes4 | prefixes6)
    inside = st.integers(0, cidr.num_addresses - 1).map(lambda n: cidr[n])
    length = draw(st.none() | st.integers(cidr.prefixlen, cidr.max_prefixlen))
    pool = None if length is None else ip_network((draw(inside), length), strict=False)
    names = draw(st.dictionaries(st.sampled_from("abc"), inside, max_size=3))
    gateway = draw(st.none() | inside)
    return Subnet(cidr=cidr, gateway=gateway, ip_range=pool, reserved=names)


@given(subnets(), st.data())
def test_handing_out_until_nothing_is_left(subnet, data):
    """Every usable address is handed out exactly once, and no other one ever."""
    low, high = first_and_last(subnet)
    usable = {
        n for n in range(low, high + 1) if subnet.cidr[0].__class__(n) not in reserved(subnet)
    }
    held = {}
    cursor = data.draw(
        st.none() | st.integers(0, subnet.cidr.num_addresses - 1).map(lambda n: subnet.cidr[n])
    )
    while True:
        try:
            cursor = allocate(subnet, held, cursor)
        except Exhausted:
            break
        assert cursor not in held
        assert cursor in subnet.cidr
        held[cursor] = f"c{len(held)}"

    assert usable == {int(address) for address in held}


@given(subnets(), st.data())
def test_what_is_free_can_be_claimed_and_is_handed_out_no_more(subnet, data):
    """Claiming agrees with handing out."""
    try:
        address = allocate(subnet, {})
    except Exhausted:
        return
    assert address == claim(subnet, {}, address)
    with pytest.raises(Conflict):
        claim(subnet, {address: "web"}, address)
    with suppress(Exhausted):
        assert address != allocate(subnet, {address: "web"})


@given(st.lists(prefixes4 | prefixes6, max_size=5), prefixes4 | prefixes6)
def test_overlap_is_sharing_an_address(taken, wanted):
    """Whatever the order and the families."""
    users = [Taken(prefix=p, by=str(p)) for p in taken]
    shared = [
        p
        for p in taken
        if p.version == wanted.version
        and int(p[0]) <= int(wanted[-1])
        and int(wanted[0]) <= int(p[-1])
    ]

    assert bool(shared) == bool(overlap(wanted, users))
    if shared:
        with pytest.raises(Conflict, match=str(shared[0])):
            check_free(wanted, users)


@given(
    st.lists(st.integers(0, 255), max_size=30),
    st.binary(min_size=5, max_size=5),
    st.text(max_size=5),
)
def test_free_subnets_collide_with_nothing(octets, seed, name):
    """However many are taken, the next one is free, and of the right length."""
    users = [Taken(prefix=IPv4Network(f"10.83.{octet}.0/24"), by="x") for octet in octets]
    site = site_prefix(seed)
    first = free_v6(site, name, [])
    users.append(Taken(prefix=first, by="x"))

    assert overlap(free_v4(users), users) is None
    second = free_v6(site, name, users)
    assert overlap(second, users) is None
    assert second.subnet_of(site)
