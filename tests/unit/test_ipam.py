"""Handing out addresses and subnets."""

from __future__ import annotations

from ipaddress import IPv6Network, ip_address, ip_network

import pytest

from seaway.errors import Conflict, Exhausted, InvalidSpec
from seaway.ipam.addresses import allocate, claim, first_and_last
from seaway.ipam.pools import (
    V4_POOLS,
    Taken,
    check_free,
    free_v4,
    free_v6,
    gateway_of,
    overlap,
    site_prefix,
)
from seaway.ipam.subnets import Wanted, assemble
from seaway.model.network import Driver, Subnet

SITE = IPv6Network("fd00:1:2::/48")


def sub(cidr, gateway=None, ip_range=None, **reserved):
    """A subnet in short."""
    return Subnet(
        cidr=ip_network(cidr),
        gateway=ip_address(gateway) if gateway else None,
        ip_range=ip_network(ip_range) if ip_range else None,
        reserved={name: ip_address(text) for name, text in reserved.items()},
    )


def held(*texts):
    """Addresses that somebody has."""
    return {ip_address(text): f"c{n}" for n, text in enumerate(texts)}


# -- addresses ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("subnet", "first", "last"),
    [
        (sub("10.0.0.0/24"), "10.0.0.1", "10.0.0.254"),
        (sub("10.0.0.0/30"), "10.0.0.1", "10.0.0.2"),
        (sub("10.0.0.0/31"), "10.0.0.0", "10.0.0.1"),
        (sub("10.0.0.7/32"), "10.0.0.7", "10.0.0.7"),
        (sub("10.0.0.0/24", ip_range="10.0.0.128/25"), "10.0.0.128", "10.0.0.254"),
        (sub("10.0.0.0/24", ip_range="10.0.0.0/25"), "10.0.0.1", "10.0.0.127"),
        (sub("fd00::/126"), "fd00::1", "fd00::3"),
        (sub("fd00::/127"), "fd00::", "fd00::1"),
    ],
)
def test_the_range_leaves_out_what_stands_for_the_subnet(subnet, first, last):
    """Network and broadcast address of IPv4, the anycast address of IPv6; RFC 3021 and 4291."""
    assert (int(ip_address(first)), int(ip_address(last))) == first_and_last(subnet)


def test_the_gateway_and_the_reserved_are_never_handed_out():
    """The next one is."""
    subnet = sub("10.0.0.0/29", "10.0.0.1", printer="10.0.0.3")

    assert "10.0.0.2" == str(allocate(subnet, {}))
    assert "10.0.0.4" == str(allocate(subnet, held("10.0.0.2")))


def test_a_freed_address_rests():
    """The search goes on behind the last one, and starts again at the end of the range."""
    subnet = sub("10.0.0.0/29", "10.0.0.1")

    assert "10.0.0.4" == str(allocate(subnet, {}, ip_address("10.0.0.3")))
    assert "10.0.0.2" == str(allocate(subnet, {}, ip_address("10.0.0.6")))
    assert "10.0.0.2" == str(allocate(subnet, {}, ip_address("192.0.2.1")))


def test_small_ipv6_numbers_stay_ipv6():
    """An address below 2**32 is not taken for an IPv4 one."""
    assert "::2" == str(allocate(sub("::/96", "::1"), {}))


def test_nothing_left_says_who_has_them():
    """Names some holders and counts the others."""
    subnet = sub("10.0.0.0/28", "10.0.0.1")
    everything = {ip_address(f"10.0.0.{n}"): f"c{n:02}" for n in range(2, 15)}

    with pytest.raises(Exhausted, match=r"10\.0\.0\.0/28: held by c02, .* and 8 more; remove"):
        allocate(subnet, everything)


def test_a_range_with_nothing_in_it():
    """A range that holds only the gateway says so without holders."""
    with pytest.raises(Exhausted, match=r"no addresses left in 10\.0\.0\.1/32"):
        allocate(sub("10.0.0.0/24", "10.0.0.1", "10.0.0.1/32"), {})


@pytest.mark.parametrize(
    ("wanted", "error", "words"),
    [
        ("10.1.0.5", InvalidSpec, "outside"),
        ("fd00::5", InvalidSpec, "outside"),
        ("10.0.0.0", InvalidSpec, "stands for the subnet"),
        ("10.0.0.255", InvalidSpec, "stands for the subnet"),
        ("10.0.0.1", Conflict, "held by the gateway"),
        ("10.0.0.9", Conflict, "held by aux-address printer"),
        ("10.0.0.2", Conflict, "held by c0"),
    ],
)
def test_an_address_that_cannot_be_had_is_refused(wanted, error, words):
    """With the holder's name, or why it cannot be an address."""
    subnet = sub("10.0.0.0/24", "10.0.0.1", "10.0.0.128/25", printer="10.0.0.9")

    with pytest.raises(error, match=words):
        claim(subnet, held("10.0.0.2"), ip_address(wanted))


def test_a_chosen_address_may_lie_outside_the_range():
    """--ip-range is for what is handed out; the rest of the subnet can be chosen."""
    subnet = sub("10.0.0.0/24", "10.0.0.1", "10.0.0.128/25")

    assert "10.0.0.5" == str(claim(subnet, {}, ip_address("10.0.0.5")))


# -- pools --------------------------------------------------------------------------------------


def test_overlap_names_what_is_hit():
    """In both directions, and never across families."""
    taken = [Taken(prefix=ip_network("10.0.0.0/16"), by="the route via eth0")]

    assert overlap(ip_network("10.0.5.0/24"), taken)
    assert overlap(ip_network("10.0.0.0/8"), taken)
    assert not overlap(ip_network("10.1.0.0/16"), taken)
    assert not overlap(ip_network("::/0"), taken)
    with pytest.raises(Conflict, match=r"overlaps 10\.0\.0\.0/16, the route via eth0"):
        check_free(ip_network("10.0.5.0/24"), taken)


def test_the_first_free_subnet_of_the_pools():
    """A taken pool is passed over; all taken is an error that says what to do."""
    first, *others = V4_POOLS
    taken = [Taken(prefix=first, by="x")]

    assert free_v4([]).subnet_of(first)
    assert free_v4(taken).subnet_of(others[0])
    with pytest.raises(Exhausted, match="--subnet"):
        free_v4([Taken(prefix=pool, by="x") for pool in V4_POOLS])


def test_a_range_of_any_size_keeps_the_subnets_it_touches():
    """A single address, a range across two pools' edge, the last one of a pool."""
    first, second, _ = V4_POOLS
    blocks = list(first.subnets(new_prefix=24))
    touched = [ip_network("10.0.0.0/15"), *blocks[:3], ip_network((blocks[3][77], 32))]
    taken = [Taken(prefix=prefix, by="x") for prefix in touched]

    assert blocks[4] == free_v4([*taken, Taken(prefix=SITE, by="x")])
    all_but_last = [Taken(prefix=block, by="x") for block in blocks[:-1]]
    assert blocks[-1] == free_v4(all_but_last)
    rest = [*all_but_last, Taken(prefix=ip_network((blocks[-1][255], 32)), by="x")]
    assert next(second.subnets(new_prefix=24)) == free_v4(rest)


def test_networks_of_many_hosts_come_from_the_other_end():
    """The last free one of a pool, so that no host is likely to have it for its own."""
    blocks = list(V4_POOLS[0].subnets(new_prefix=24))

    assert blocks[-1] == free_v4([], shared=True)
    assert blocks[-2] == free_v4([Taken(prefix=blocks[-1], by="x")], shared=True)
    wanted = Wanted(name="sea", driver=Driver.OVERLAY, ipv6=False)
    assert [blocks[-1]] == [s.cidr for s in assemble(wanted, SITE, [])]


def test_the_thousandth_network_is_found_as_fast_as_the_first():
    """What is taken is gone through once a pool, and not once for each candidate."""

    class Counting(list):
        """Counts how often it is gone through."""

        times = 0

        def __iter__(self):
            """Once more."""
            self.times += 1
            return super().__iter__()

    blocks = [block for pool in V4_POOLS for block in pool.subnets(new_prefix=24)]
    taken = Counting(Taken(prefix=block, by="x") for block in blocks[:1000])

    assert blocks[1000] == free_v4(taken)
    assert taken.times <= len(V4_POOLS)


def test_ipv6_subnets_come_from_the_name():
    """The same name has the same subnet again; if that is taken, another of the site's."""
    found = free_v6(SITE, "front", [])

    assert found.subnet_of(SITE)
    assert 64 == found.prefixlen
    assert found == free_v6(SITE, "front", [])
    assert found != free_v6(SITE, "front", [Taken(prefix=found, by="x")])
    with pytest.raises(Exhausted):
        free_v6(SITE, "front", [Taken(prefix=SITE, by="x")])


def test_a_site_s_prefix():
    """A unique local /48 of the given random bits (RFC 4193)."""
    assert "fd01:203:405::/48" == str(site_prefix(bytes([1, 2, 3, 4, 5, 6])))


@pytest.mark.parametrize(
    ("cidr", "gateway"),
    [("10.0.0.0/24", "10.0.0.1"), ("10.0.0.0/31", "10.0.0.0"), ("fd00::/64", "fd00::1")],
)
def test_the_gateway_is_the_first_address(cidr, gateway):
    """Or the only first there is."""
    assert gateway == gateway_of(ip_network(cidr))


# -- subnets ------------------------------------------------------------------------------------


def wanted(*subnets, driver=Driver.BRIDGE, gateways=(), ip_ranges=(), reserved=None, **more):
    """What the flags of ``network create`` say."""
    return Wanted(
        name="front",
        driver=driver,
        subnets=[ip_network(text) for text in subnets],
        gateways=[ip_address(text) for text in gateways],
        ip_ranges=[ip_network(text) for text in ip_ranges],
        reserved={name: ip_address(text) for name, text in (reserved or {}).items()},
        **more,
    )


def test_both_families_without_asking():
    """A network nobody said anything about has a /24 and a /64, each with its first as gateway."""
    four, six = assemble(wanted(), SITE, [])

    assert (24, 64) == (four.cidr.prefixlen, six.cidr.prefixlen)
    assert four.gateway == four.cidr.network_address + 1
    assert six.gateway == six.cidr.network_address + 1


def test_flags_find_their_subnet():
    """Gateways, ranges and reserved addresses go where they belong, in any order."""
    four, six = assemble(
        wanted(
            *("fd00:9::/64", "10.10.0.0/24"),
            gateways=["10.10.0.9", "fd00:9::9"],
            ip_ranges=["fd00:9::100/120", "10.10.0.128/25"],
            reserved={"printer": "10.10.0.5"},
        ),
        SITE,
        [],
    )

    assert ("10.10.0.9", "10.10.0.128/25") == (str(four.gateway), str(four.ip_range))
    assert ("fd00:9::9", "fd00:9::100/120") == (str(six.gateway), str(six.ip_range))
    assert ["10.10.0.5"] == [str(a) for a in four.reserved.values()]


def test_one_family_can_be_turned_off():
    """And naming a subnet of it then is a mistake."""
    assert [4] == [s.version for s in assemble(wanted(ipv6=False), SITE, [])]
    assert [6] == [s.version for s in assemble(wanted(ipv4=False), SITE, [])]


def test_a_macvlan_s_subnet_is_the_wire_s():
    """Nothing is invented, and overlapping the host's own route is the point of it."""
    taken = [Taken(prefix=ip_network("192.0.2.0/24"), by="the route via eth0")]
    (four,) = assemble(wanted("192.0.2.0/24", driver=Driver.MACVLAN), SITE, taken)

    assert four.gateway is None
    with pytest.raises(InvalidSpec, match="macvlan network needs the wire's subnet"):
        assemble(wanted(driver=Driver.MACVLAN), SITE, [])


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (wanted(ipv4=False, ipv6=False), "leave one of them on"),
        (wanted("10.1.0.0/24", "10.2.0.0/24"), "two IPv4 subnets"),
        (wanted("10.1.0.0/24", ipv4=False), "IPv4 is turned off"),
        (wanted("10.1.0.0/24", gateways=["10.2.0.1"]), "gateway 10.2.0.1 is outside"),
        (wanted("10.1.0.0/24", gateways=["fd00::1"], ipv6=False), "none is IPv6"),
        (wanted("10.1.0.0/24", gateways=["10.1.0.1", "10.1.0.2"]), "two gateways"),
        (wanted("10.1.0.0/24", ip_ranges=["10.2.0.0/25"]), "ip-range 10.2.0.0 is outside"),
        (wanted("10.1.0.0/24", reserved={"a": "10.2.0.1"}), "aux-address a 10.2.0.1"),
    ],
)
def test_flags_that_do_not_fit_together_are_refused(request_, words):
    """Each mistake has its own message."""
    with pytest.raises(InvalidSpec, match=words):
        assemble(request_, SITE, [])


def test_an_overlap_is_refused_by_name():
    """Whatever is in the way is named."""
    taken = [Taken(prefix=ip_network("10.1.0.0/16"), by="network back")]

    with pytest.raises(Conflict, match="network back"):
        assemble(wanted("10.1.2.0/24"), SITE, taken)


def test_a_reserved_address_does_not_become_the_gateway():
    """The first address that is not reserved does."""
    (four,) = assemble(wanted("10.1.0.0/24", reserved={"a": "10.1.0.1"}, ipv6=False), SITE, [])

    assert "10.1.0.2" == str(four.gateway)
