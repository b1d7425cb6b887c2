"""Files of the kernel and of other programs, read into facts."""

from __future__ import annotations

import json
from ipaddress import IPv4Address, IPv6Address

import pytest

from seaway.kernel import firewalls, ports_held, probe
from seaway.kernel.facts import DropChain
from seaway.kernel.features import version
from seaway.kernel.ports_held import Held

TCP = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1
   1: 00000000:0035 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4712 1
   2: 0200000A:1F90 0300000A:9C40 01 00000000:00000000 00:00000000 00000000     0        0 4713 1
"""
TCP6 = """\
  sl  local_address                         remote_address                        st ...
   0: 00000000000000000000000001000000:0050 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 9
   1: 0000000000000000FFFF00000100000A:0050 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 8
"""
SCTP = """\
 ENDPT     SOCK   STY SST HBKT LPORT   UID INODE LADDRS
ffff8880 ffff8881 2   10  12   9899      0 4714  10.0.0.2 fd00::2
"""


def held(address: str, port: int, inode: int, waiting: bool = True) -> Held:
    kind = IPv6Address if ":" in address else IPv4Address
    return Held(address=kind(address), port=port, inode=inode, waiting=waiting)


def test_proc_net_tcp():
    """Addresses come out of the kernel's byte order; listeners are told from connections."""
    assert (
        held("127.0.0.1", 8080, 4711),
        held("0.0.0.0", 53, 4712),
        held("10.0.0.2", 8080, 4713, waiting=False),
    ) == ports_held.parse_sockets(TCP, 0x0A)


def test_proc_net_tcp_one_port():
    """Only the lines of the wanted port are read."""
    assert [4712] == [s.inode for s in ports_held.parse_sockets(TCP, 0x0A, 53)]


def test_proc_net_tcp6():
    """A mapped IPv4 address counts as IPv4."""
    assert (held("::1", 80, 9), held("10.0.0.1", 80, 8)) == ports_held.parse_sockets(TCP6, 0x0A)


def test_proc_net_sctp():
    """An SCTP endpoint holds its port on each of its addresses."""
    assert (
        held("10.0.0.2", 9899, 4714),
        held("fd00::2", 9899, 4714),
    ) == ports_held.parse_sctp(SCTP)


def test_resolv_conf():
    """Name servers in order; comments, scopes and nonsense do no harm."""
    text = "# nameserver 1.1.1.1\nnameserver 127.0.0.53\n nameserver fe80::1%eth0\nnameserver x\n"

    assert (IPv4Address("127.0.0.53"), IPv6Address("fe80::1")) == probe.parse_resolvers(text)


def test_default_routes():
    """Links with a default route, and whether IPv6 learnt it from a router."""
    head = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n"
    route = (
        head
        + "eth0 00000000 010200C0 0003 0 0 0 00000000 0 0 0\n"
        + "eth1 000200C0 00000000 0001 0 0 0 00FFFFFF 0 0 0\n"
        + "* 00000000 00000000 0200 0 0 0 00000000 0 0 0\n"
    )
    any6, via = "0" * 32, "fe80" + "0" * 28
    ipv6_route = (
        f"{any6} 00 {any6} 00 {via} 00000400 00000001 00000000 00450003     eth2\n"
        f"{any6} 00 {any6} 00 {any6} ffffffff 00000001 00000000 00200200       lo\n"
        f"fd{'0' * 30} 40 {any6} 00 {any6} 00000100 00000001 00000000 00000001 eth0\n"
    )

    assert {"eth0": False, "eth2": True} == probe.parse_default_links(route, ipv6_route)


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("nftables v1.0.6 (Lester Gooch #5)", (1, 0, 6)),
        ("podman version 5.4.2", (5, 4, 2)),
        ("6.1.0-18-amd64", (6, 1, 0)),
        ("unknown", None),
    ],
)
def test_version(text, numbers):
    """The first dotted number is the version."""
    assert numbers == version(text)


@pytest.fixture
def etc(tmp_path):
    def write(files: dict[str, str]):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return write


@pytest.mark.parametrize(("enabled", "found"), [("no", False), ("yes", True), ('"YES"', True)])
def test_ufw(etc, enabled, found):
    """Whether ufw is active comes from its own file."""
    assert found == firewalls.ufw(etc({"ufw/ufw.conf": f"# comment\nENABLED={enabled}\n"}))


def test_no_ufw(tmp_path):
    """A machine without ufw has no files of it."""
    assert not firewalls.ufw(tmp_path)


def nft(*objects: object) -> str:
    return json.dumps({"nftables": [{"metainfo": {}}, *objects]})


def chain(**more: object) -> dict[str, object]:
    made = {"family": "inet", "table": "t", "name": "c", "hook": "forward", "policy": "drop"}
    return {"chain": {**made, **more}}


def test_only_chains_that_drop_by_policy_count():
    """Other hooks, families and policies, chains without a hook and our own are passed over."""
    listing = nft(
        chain(),
        chain(policy="accept"),
        chain(hook="output"),
        chain(family="bridge"),
        chain(table="seaway"),
        {"chain": {"family": "inet", "table": "t", "name": "no-hook"}},
    )

    assert (
        DropChain(family="inet", table="t", name="c", hook="forward"),
    ) == firewalls.parse_chains(listing)


def test_nothing_listed_is_nothing_found():
    """Without nft, or when it refuses, there are no chains."""
    assert () == firewalls.parse_chains("")


def test_rules_that_admit_our_links():
    """An accept that names our links counts; a drop, or other links, do not."""

    def rule(key: str, links: str, verdict: str) -> dict[str, object]:
        match = {"op": "==", "left": {"meta": {"key": key}}, "right": links}
        return {"rule": {"expr": [{"match": match}, {"counter": {}}, {verdict: None}]}}

    listing = nft(
        rule("iifname", "swv*", "accept"),
        rule("oifname", "swv*", "drop"),
        rule("oifname", "eth0", "accept"),
        rule("mark", "swv*", "accept"),
    )

    assert {"iifname"} == firewalls.parse_admits(listing)
