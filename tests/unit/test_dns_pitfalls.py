"""The mistakes other servers made with container names; each test holds us to the right way.

They are numbered as in the notes the design was made from, 1 to 11.
"""

import asyncio
from ipaddress import ip_network

import dns.edns
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.reversename
import pytest

from seaway.dns import wire
from seaway.dns.answer import Directory, Forward
from seaway.dns.exchange import Pace
from seaway.dns.forward import Forwarder
from seaway.dns.upstreams import HostResolvers
from tests.support.dns import addresses, answering, ask, member, read, silent, upstream

ME = "10.1.0.2"


@pytest.fixture
def directory():
    """me, web (IPv4 only) and six (IPv6 only) on front; far on a network of its own."""
    made = Directory()
    front = [ip_network("10.1.0.0/24"), ip_network("fd01::/64")]
    made.set_subnets([*front, ip_network("10.2.0.0/24")])
    made.put("me", [member("me", "front", "me", at=(ME,))])
    made.put("web", [member("web", "front", "web", at=("10.1.0.3",))])
    made.put("six", [member("six", "front", "six", at=("fd01::4",))])
    made.put("far", [member("far", "back", "far", at=("10.2.0.2",))])
    return made


def is_nodata(reply):
    """Tell whether *reply* says "the name exists, this type does not" as RFC 2308 wants it."""
    message = read(reply)
    soa = [rrset for rrset in message.authority if rrset.rdtype == dns.rdatatype.SOA]
    return message.rcode() == dns.rcode.NOERROR and not message.answer and len(soa) == 1


@pytest.mark.parametrize(("name", "rtype"), [("web", "AAAA"), ("web.front", "AAAA"), ("six", "A")])
def test_1_the_other_family_is_no_data(directory, name, rtype):
    """musl fails the whole look-up when AAAA of an IPv4-only name is not NOERROR."""
    assert is_nodata(directory.answer(ask(name, rtype), ME))


@pytest.mark.parametrize(
    "rtype", ["MX", "SRV", "TXT", "HTTPS", "SVCB", "NS", "SOA", "CAA", "TYPE99"]
)
@pytest.mark.parametrize("name", ["web", "web.front", "3.0.1.10.in-addr.arpa"])
def test_2_other_types_of_known_names_are_no_data(directory, name, rtype):
    """They are neither an error nor another server's business."""
    assert is_nodata(directory.answer(ask(name, rtype), ME))


@pytest.mark.parametrize("name", ["nosuch.front", "x.y.front", "_http._tcp.web.front"])
@pytest.mark.parametrize("rtype", ["A", "SRV"])
def test_2_names_under_our_networks_do_not_leak(directory, name, rtype):
    """Below the name of a network it is on every name is ours: a missing one does not exist."""
    reply = read(directory.answer(ask(name, rtype), ME))

    assert dns.rcode.NXDOMAIN == reply.rcode()
    assert name.rsplit(".", maxsplit=1)[1] + "." == str(reply.authority[0].name)


def test_2_services_of_our_names_do_not_leak(directory):
    """``_http._tcp.web`` belongs to web; ``www.web`` need not: "app" is a public domain too."""
    service = read(directory.answer(ask("_http._tcp.web", "SRV"), ME))

    assert (dns.rcode.NXDOMAIN, "web.") == (service.rcode(), str(service.authority[0].name))
    assert isinstance(directory.answer(ask("www.web"), ME), Forward)
    assert isinstance(directory.answer(ask("_http._tcp.nosuch", "SRV"), ME), Forward)


@pytest.mark.parametrize(("name", "rtype"), [("web", "AAAA"), ("nosuch.front", "A")])
def test_3_negative_answers_are_short_lived(directory, name, rtype):
    """Both the SOA's own time to live and its minimum are 1 second."""
    (soa,) = read(directory.answer(ask(name, rtype), ME)).authority

    assert (1, 1) == (soa.ttl, soa[0].minimum)


def test_3_positive_answers_are_short_lived(directory):
    """600 seconds is stale after a restart, 0 defeats every cache."""
    assert 5 == read(directory.answer(ask("web"), ME)).answer[0].ttl


@pytest.mark.parametrize("name", ["web", "web.front", "web.front."])
def test_4_the_name_works_in_every_form(directory, name):
    """Bare, with its network, and with a final dot, so no search list is needed."""
    assert ["10.1.0.3"] == addresses(directory.answer(ask(name), ME))


def test_5_both_questions_of_one_socket_are_answered(directory):
    """A and AAAA from one port differ by their ids only, and each gets its own answer."""
    first = read(directory.answer(ask("web", "A", id=1), ME))
    second = read(directory.answer(ask("web", "AAAA", id=2), ME))

    assert (1, dns.rdatatype.A) == (first.id, first.question[0].rdtype)
    assert (2, dns.rdatatype.AAAA) == (second.id, second.question[0].rdtype)


@pytest.mark.parametrize("options", [{}, {"use_edns": 0, "payload": 1232}])
def test_6_many_addresses_stay_within_512_bytes(directory, options):
    """Eight of thirty are given, with the longest name there is."""
    name = "a" * 63 + "." + "b" * 63 + "." + "c" * 63 + "." + "d" * 61
    at = tuple(f"fd01::{n}" for n in range(100, 130))
    directory.put("many", [member("many", "front", name, at=at)])
    reply = directory.answer(ask(name, "AAAA", **options), ME)

    assert 8 == len(addresses(reply))
    assert len(reply) <= 512
    assert not read(reply).flags & dns.flags.TC


def test_6_edns_is_echoed(directory):
    """With our own size and the asker's DO; who sent none gets none."""
    with_edns = read(directory.answer(ask("web", use_edns=0, want_dnssec=True), ME))

    assert (0, 1232, dns.flags.DO) == (with_edns.edns, with_edns.payload, with_edns.ednsflags)
    assert -1 == read(directory.answer(ask("web"), ME)).edns


def test_6_unknown_edns_versions_are_told_so(directory):
    """BADVERS, with an OPT record of version 0."""
    for name in ("web", "www.example"):
        reply = read(directory.answer(ask(name, use_edns=1), ME))

        assert (dns.rcode.BADVERS, 0) == (reply.rcode(), reply.edns)


def test_6_options_do_not_hinder(directory):
    """dig sends a cookie each time; the answer is the same without one."""
    cookie = dns.edns.GenericOption(10, b"12345678")
    reply = directory.answer(ask("web", use_edns=0, options=[cookie]), ME)

    assert ["10.1.0.3"] == addresses(reply)


@pytest.mark.parametrize("spelling", ["wEb", "WEB.FRONT", "Web"])
def test_7_the_spelling_is_echoed(directory, spelling):
    """0x20: names match in any case, and the question comes back byte for byte."""
    message = ask(spelling)
    reply = directory.answer(message, ME)

    assert ["10.1.0.3"] == addresses(reply)
    assert message[12:] == reply[12 : len(message)]


def test_8_the_stub_and_ourselves_are_not_asked(tmp_path):
    """A resolv.conf that points at the stub leads to the servers behind it."""
    stub, behind = tmp_path / "resolv.conf", tmp_path / "behind"
    stub.write_text("nameserver 127.0.0.53\n")
    behind.write_text("nameserver 192.0.2.1\n")

    assert ["192.0.2.1"] == HostResolvers(stub, behind)()


def forward(owner):
    query = wire.parse_query(ask("www.example"))
    assert isinstance(query, wire.Query)
    return Forward(query=query, owner=owner)


def test_8_a_loop_is_not_fed(directory):
    """Whoever brings our own forwarded question back is no container: refused, not forwarded."""
    reply = directory.answer(wire.ask(forward("me").query, 1), "127.0.0.1")

    assert dns.rcode.REFUSED == read(reply).rcode()


def test_9_failover_is_quick_and_failure_is_told(directory):
    """The second server is asked after one patience; silence of all is SERVFAIL in time."""

    async def scenario():
        pace = Pace(patience=0.1, total=0.5)
        good = answering("60 A 192.0.2.1")
        async with upstream(silent) as mute, upstream(good) as server:
            servers = [mute.text, server.text]
            made = Forwarder(lambda: servers, pace=pace)
            assert ["192.0.2.1"] == addresses(await made.resolve(forward("me"), stream=False))

            servers.pop()
            made = Forwarder(lambda: servers, pace=pace)
            reply = await made.resolve(forward("me"), stream=False)
            assert dns.rcode.SERVFAIL == read(reply).rcode()

    asyncio.run(scenario())
    assert Pace().total < 5


@pytest.mark.parametrize(
    "question",
    [
        b"\xc0\x0c\x00\x01\x00\x01",
        b"\x03web\xc0\x0c\x00\x01\x00\x01",
        b"\x40" + b"a" * 64 + b"\x00\x00\x01\x00\x01",
        (b"\x3f" + b"a" * 63) * 4 + b"\x00\x00\x01\x00\x01",
    ],
    ids=["pointer", "pointer after a label", "label of 64", "name of 257"],
)
def test_10_broken_names_are_format_errors(directory, question):
    """Also from strangers."""
    message = ask("x")[:12] + question
    for source in (ME, "192.0.2.7"):
        assert dns.rcode.FORMERR == read(directory.answer(message, source)).rcode()


@pytest.mark.parametrize("count", [0, 2])
def test_10_exactly_one_question(directory, count):
    """More or fewer are a format error."""
    message = bytearray(ask("web"))
    message[5] = count

    assert dns.rcode.FORMERR == read(directory.answer(bytes(message), ME)).rcode()


def test_10_any_is_answered_with_little(directory):
    """RFC 8482: one made-up HINFO record, nothing to amplify with."""
    (rrset,) = read(directory.answer(ask("web", "ANY"), ME)).answer

    assert (dns.rdatatype.HINFO, b"RFC8482") == (rrset.rdtype, rrset[0].cpu)


@pytest.mark.parametrize("rclass", ["CH", "HS", "ANY", "NONE"])
def test_10_other_classes_are_refused(directory, rclass):
    """Names of ours and of others alike."""
    for name in ("web", "version.bind", "www.example"):
        message = dns.message.make_query(name, "TXT", rclass).to_wire()
        assert dns.rcode.REFUSED == read(directory.answer(message, ME)).rcode()


def test_10_other_operations_are_not_implemented(directory):
    """An update, a notification: not here."""
    message = bytearray(ask("web"))
    message[2] |= 5 << 3

    assert 4 == directory.answer(bytes(message), ME)[3] & 0xF


def pointer(directory, address, source=ME):
    """Ask for the name of *address*."""
    return directory.answer(ask(dns.reversename.from_address(address), "PTR"), source)


def test_11_addresses_lead_to_names(directory):
    """For addresses of either family on shared networks."""
    assert "web.front." == str(read(pointer(directory, "10.1.0.3")).answer[0][0])
    assert "six.front." == str(read(pointer(directory, "fd01::4")).answer[0][0])
    assert "me.front." == str(read(pointer(directory, ME)).answer[0][0])


@pytest.mark.parametrize("address", ["10.1.0.99", "fd01::99", "10.2.0.2", "10.2.0.99"])
def test_11_other_addresses_of_ours_have_no_name(directory, address):
    """Free ones, and those on networks the asker is not on; nobody else is asked."""
    reply = read(pointer(directory, address))

    assert dns.rcode.NXDOMAIN == reply.rcode()
    assert 1 == reply.authority[0][0].minimum


def test_11_other_peoples_addresses_are_forwarded(directory):
    """Outside our subnets somebody else knows."""
    assert isinstance(pointer(directory, "192.0.2.1"), Forward)


def test_11_one_name_means_different_things_to_different_askers(directory):
    """Scope comes from the source address."""
    directory.put("web2", [member("web2", "back", "web", at=("10.2.0.3",))])

    assert ["10.1.0.3"] == addresses(directory.answer(ask("web"), ME))
    assert ["10.2.0.3"] == addresses(directory.answer(ask("web"), "10.2.0.2"))
