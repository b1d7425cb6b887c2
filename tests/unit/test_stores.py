"""Who runs etcd, which of its members a host is, and what etcd is started with."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

import pytest

from seaway.cluster.etcd_process import EtcdConfig, arguments, client_urls
from seaway.cluster.stores import find_member, wanted_signers, wanted_stores
from seaway.model.cluster import Host, Ports
from seaway.store.etcd import Member

ADDRESS = ip_address("192.0.2.1")


def hosts(names, drained="", behind=""):
    """A host for each letter, the first joined first."""
    return [
        Host(
            id=name,
            name=name,
            number=1 + i,
            addresses=(ADDRESS,),
            joined=float(i),
            drained=name in drained,
            behind=ADDRESS if name in behind else None,
        )
        for i, name in enumerate(names)
    ]


@pytest.mark.parametrize(
    ("names", "members", "dead", "size", "wanted"),
    [
        ("a", "", "", 3, "a"),
        ("ab", "a", "", 3, "a"),
        ("abc", "a", "", 3, "abc"),
        ("abcdef", "a", "", 3, "abc"),
        ("abcdef", "abc", "", 5, "abcde"),
        ("abcd", "abc", "", 5, "abc"),
        ("abc", "a", "", 1, "a"),
        ("abcdef", "def", "", 3, "def"),  # who joined first does not matter to members
        ("abcd", "a", "b", 3, "acd"),  # the dead are not asked to begin
        ("abcd", "abc", "c", 3, "abc"),  # but may come back
        ("abc", "abc", "abc", 3, "abc"),
        ("abd", "abc", "", 3, "abd"),  # c was removed
        ("ab", "abc", "", 3, "a"),  # two would be worse than one
        ("abcd", "abcd", "b", 5, "acd"),  # of an even number the dead one goes
        ("abcde", "abcde", "", 3, "abc"),
        ("", "", "", 3, ""),
    ],
)
def test_an_odd_number_of_hosts_runs_etcd(names, members, dead, size, wanted):
    """Members stay, those that joined first are next, and never an even number."""
    alive = set(names) - set(dead)

    assert tuple(wanted) == wanted_stores(hosts(names), set(members), alive, size)


@pytest.mark.parametrize(
    ("names", "members", "drained", "wanted"),
    [
        ("abcd", "abc", "b", "acd"),
        ("abc", "abc", "b", "abc"),  # nobody can take its place
        ("ab", "a", "a", "b"),
        ("a", "a", "a", "a"),
        ("abc", "a", "b", "a"),
        ("abcd", "a", "b", "acd"),
    ],
)
def test_a_drained_member_goes_when_another_takes_its_place(names, members, drained, wanted):
    """And a drained host does not become one."""
    assert tuple(wanted) == wanted_stores(hosts(names, drained), set(members), set(names), 3)


def test_a_host_behind_a_nat_is_not_asked():
    """Others could not reach it; where it is one already it stays."""
    assert ("a", "c", "d") == wanted_stores(hosts("abcd", behind="b"), {"a"}, set("abcd"), 3)
    assert ("b",) == wanted_stores(hosts("ab", behind="b"), {"b"}, set("ab"), 3)


@pytest.mark.parametrize(
    ("names", "dead", "behind", "wanted"),
    [
        ("a", "", "", "a"),
        ("ab", "", "", "ab"),
        ("dcba", "", "", "dcb"),
        ("abcde", "a", "", "bcd"),
        ("abcde", "", "b", "acd"),
        ("abc", "abc", "", ""),
    ],
)
def test_three_hosts_have_the_authority_s_key(names, dead, behind, wanted):
    """Where the store is somebody else's: the longest-joined that live and can be reached."""
    found = wanted_signers(hosts(names, behind=behind), set(names) - set(dead))

    assert tuple(wanted) == found


def test_a_member_is_known_by_its_name_or_where_it_will_be():
    """One that has never been started has no name yet; one that has is not another's."""

    def member(number, name, url):
        return Member(id=number, name=name, peer_urls=(url,), client_urls=(), learner=False)

    members = (member(1, "a", "https://x"), member(2, "", "https://y"), member(3, "c", "https://z"))

    assert 1 == find_member(members, "a", ("https://moved",)).id
    assert 2 == find_member(members, "b", ("https://y",)).id
    assert find_member(members, "d", ("https://z",)) is None


def test_etcd_is_started_with_certificates_on_every_side():
    """Both families' addresses are said, all are listened on, and nobody gets in without one."""
    addresses = (ADDRESS, ip_address("2001:db8::1"))
    config = EtcdConfig(
        name="a",
        addresses=addresses,
        ports=Ports(),
        certificate=Path("/c"),
        key=Path("/k"),
        ca=Path("/ca"),
        crl=Path("/crl"),
        members=(("a", ("https://192.0.2.1:7902",)), ("b", ("https://192.0.2.2:7902",))),
        state="existing",
        token="t",
    )
    given = arguments(config, Path("/data"), ipv6=True)

    assert ("https://192.0.2.1:7901", "https://[2001:db8::1]:7901") == client_urls(
        addresses, Ports()
    )
    assert {
        "--listen-client-urls=https://[::]:7901",
        "--initial-advertise-peer-urls=https://192.0.2.1:7902,https://[2001:db8::1]:7902",
        "--initial-cluster=a=https://192.0.2.1:7902,b=https://192.0.2.2:7902",
        "--client-cert-auth=true",
        "--peer-client-cert-auth=true",
        "--trusted-ca-file=/ca",
        "--peer-trusted-ca-file=/ca",
        "--client-crl-file=/crl",
        "--peer-crl-file=/crl",
    } <= set(given)
    assert "--listen-peer-urls=https://0.0.0.0:7902" in arguments(config, Path("/d"), ipv6=False)
