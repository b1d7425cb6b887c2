"""Our codec against dnspython's, and against noise."""

import socket
import string
from ipaddress import IPv4Address, IPv6Address, ip_network

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
from hypothesis import given
from hypothesis import strategies as st

from seaway.dns import wire
from seaway.dns.answer import Directory, Forward, Member
from seaway.dns.cache import extract, render
from seaway.dns.reverse import address_of
from seaway.dns.wire import Query
from tests.support.dns import ask, member

LABEL = st.text(string.ascii_letters + string.digits + "-_", min_size=1, max_size=63)
NAME = st.lists(LABEL, min_size=1, max_size=6).map(".".join).filter(lambda name: len(name) <= 253)
TYPES = st.sampled_from(["A", "AAAA", "MX", "TXT", "SRV", "HTTPS", "SVCB", "ANY", "PTR", "SOA"])
OPTIONS = st.one_of(
    st.just({}),
    st.fixed_dictionaries(
        {"use_edns": st.just(0), "payload": st.integers(0, 65535), "want_dnssec": st.booleans()}
    ),
)


LONGEST = "a" * 63 + "." + "b" * 63 + "." + "c" * 63 + "." + "d" * 57
"""With ".net" behind it, as long as a name can be."""


def directory() -> Directory:
    """Return a few names, among them one with many addresses and the longest there can be."""
    made = Directory()
    made.set_subnets([ip_network("10.0.0.0/24")])
    made.put("me", [member("me", "net", "me", at=("10.0.0.2", "fd00::2"))])
    many = tuple(IPv4Address("10.0.0.10") + n for n in range(30))
    six = tuple(IPv6Address("fd00::10") + n for n in range(30))
    held = Member(owner="many", network="net", names=(LONGEST, "web", "a-b"), v4=many, v6=six)
    made.put("many", [held])
    return made


DIRECTORY = directory()


@given(message=st.binary(max_size=600))
def test_noise_never_raises(message):
    """Whatever arrives, the answer is bytes, a forward or nothing."""
    said = DIRECTORY.answer(message, "10.0.0.2")

    assert said is None or isinstance(said, bytes | Forward)
    assert wire.parse_reply(message) is None or message[2] & 0x80


@given(name=NAME, rtype=TYPES, options=OPTIONS, at=st.integers(0, 400), value=st.integers(0, 255))
def test_a_damaged_question_never_raises(name, rtype, options, at, value):
    """One wrong byte in a good message breaks nothing."""
    message = bytearray(dns.message.make_query(name, rtype, **options).to_wire())
    message[at % len(message)] = value
    said = DIRECTORY.answer(bytes(message), "10.0.0.2")

    assert said is None or isinstance(said, bytes | Forward)


@given(name=NAME, rtype=TYPES, options=OPTIONS)
def test_questions_are_read_as_dnspython_wrote_them(name, rtype, options):
    """Every field agrees with the library's."""
    theirs = dns.message.make_query(name, rtype, **options)
    ours = wire.parse_query(theirs.to_wire())

    assert isinstance(ours, Query)
    assert theirs.id == ours.ident
    assert theirs.question[0].name.canonicalize().to_wire() == ours.name
    assert theirs.question[0].rdtype == ours.qtype
    assert [len(label) for label in theirs.question[0].name.labels[:-1]] == [
        ours.name[at] for at in ours.labels
    ]
    assert (theirs.edns == 0) == (ours.edns is not None)
    if ours.edns:
        assert theirs.payload == ours.edns.size
        assert bool(theirs.ednsflags & dns.flags.DO) == ours.edns.dnssec_ok


@given(name=NAME)
def test_names_are_written_as_dnspython_writes_them(name):
    """Same bytes, in lower case."""
    assert dns.name.from_text(name).canonicalize().to_wire() == wire.encode_name(name)


@given(name=st.one_of(NAME, st.sampled_from(["web", LONGEST, LONGEST + ".net", "x.net", "A-b"])),
       rtype=TYPES, options=OPTIONS)  # fmt: skip
def test_our_answers_are_well_formed_and_short(name, rtype, options):
    """dnspython reads each answer as one to that question, and it fits 512 bytes."""
    query = dns.message.make_query(name, rtype, **options)
    for _ in range(2):  # worked out, then kept
        said = DIRECTORY.answer(query.to_wire(), "10.0.0.2")
        if isinstance(said, Forward):
            return
        reply = dns.message.from_wire(said)

        assert query.is_response(reply)
        assert len(said) <= 512
        assert (query.edns == 0) == (reply.edns == 0)
        assert reply.answer or reply.authority


RECORD = st.one_of(
    st.tuples(st.just("A"), st.ip_addresses(v=4).map(str)),
    st.tuples(st.just("AAAA"), st.ip_addresses(v=6).map(str)),
    st.tuples(st.just("CNAME"), NAME.map(lambda name: name + ".")),
    st.tuples(st.just("MX"), NAME.map(lambda name: f"10 {name}.")),
)


@given(
    name=NAME,
    records=st.lists(st.tuples(NAME, st.integers(0, 2**31 - 1), RECORD), max_size=12),
    options=OPTIONS,
    age=st.integers(0, 100),
)
def test_a_relayed_answer_says_what_the_server_said(name, records, options, age):
    """Taken apart, kept and given on, an answer has the same records with less time to live."""
    query = dns.message.make_query(name, "A", **options)
    theirs = dns.message.make_response(query)
    for owner, ttl, (rtype, data) in records:
        theirs.answer.append(dns.rrset.from_text(owner + ".", ttl, "IN", rtype, data))
    reply = wire.parse_reply(theirs.to_wire(max_size=65535))
    ours = wire.parse_query(query.to_wire())
    assert reply is not None
    assert isinstance(ours, Query)
    given = dns.message.from_wire(
        render(ours, extract(reply), age=age, limit=65535), one_rr_per_rrset=True
    )
    sent = dns.message.from_wire(theirs.to_wire(max_size=65535), one_rr_per_rrset=True)

    assert query.is_response(given)
    assert sent.answer == given.answer
    assert [max(r.ttl - age, 0) for r in sent.answer] == [r.ttl for r in given.answer]


@given(name=NAME, count=st.integers(0, 40), limit=st.integers(300, 1232), options=OPTIONS)
def test_a_shortened_answer_is_well_formed(name, count, limit, options):
    """It is within the limit, and its records are the first ones of the whole."""
    query = dns.message.make_query(name, "A", **options)
    reply = dns.message.make_response(query)
    for number in range(count):
        reply.answer.append(dns.rrset.from_text(name + ".", 5, "IN", "A", f"10.0.0.{number}"))
    whole = reply.to_wire(max_size=65535)
    short = dns.message.from_wire(wire.fit(whole, limit), one_rr_per_rrset=True)
    records = dns.message.from_wire(whole, one_rr_per_rrset=True).answer

    assert len(wire.fit(whole, limit)) <= limit
    assert records[: len(short.answer)] == short.answer
    assert bool(short.flags & dns.flags.TC) == (len(short.answer) < len(records))


@given(address=st.ip_addresses())
def test_reverse_names_lead_back(address):
    """The address of an address's reverse name is that address."""
    query = wire.parse_query(ask(address.reverse_pointer, "PTR"))

    assert isinstance(query, Query)
    assert address == address_of(query.name, query.labels)


@given(address=st.ip_addresses(v=6, network="fc00::/7"))
def test_addresses_are_spelt_as_the_kernel_spells_them(address):
    """The source of a datagram is looked up as text, so both spellings have to agree."""
    assert socket.inet_ntop(socket.AF_INET6, address.packed) == str(address)
