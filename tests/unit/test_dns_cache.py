"""How long other servers' answers are kept, and how they are given on."""

import dns.flags
import dns.message
import dns.rcode
import pytest

from seaway.dns import cache, wire
from seaway.dns.cache import Cache, extract, failure, render
from tests.support.dns import answering, ask, read

SOA = "900 SOA ns.example. admin.example. 1 2 3 4 60"


def query(name: str = "www.example", **options: object) -> wire.Query:
    made = wire.parse_query(ask(name, **options))
    assert isinstance(made, wire.Query)
    return made


def taken(*records: str, **options: object) -> cache.Answer:
    """Return what is kept of an upstream's answer with these records."""
    message = dns.message.make_query("www.example", "A", **options.pop("query", {}))
    reply = wire.parse_reply(answering(*records, **options)(message, True))
    assert reply is not None
    return extract(reply)


@pytest.mark.parametrize(
    ("records", "options", "lifetime"),
    [
        (["60 A 192.0.2.1"], {}, 60),
        (["60 CNAME a.example.", "20 A 192.0.2.1"], {}, 20),
        (["86400 A 192.0.2.1"], {}, 300),
        (["0 A 192.0.2.1"], {}, 0),
        ([], {"authority": SOA}, 60),
        ([], {"authority": SOA.replace("900", "30")}, 30),
        ([], {"authority": SOA, "rcode": 3}, 60),
        (["300 CNAME a.example."], {"authority": SOA, "rcode": 3}, 60),
        ([], {}, 0),
        ([], {"rcode": 3}, 0),
        (["300 CNAME a.example."], {"rcode": 3}, 0),
        ([], {"rcode": 2, "authority": SOA}, 0),
    ],
    ids=[
        "one record", "the smallest", "no more than 300 s", "zero", "no data: SOA minimum",
        "no data: SOA's own", "no such name", "alias to no such name", "no data, no SOA",
        "no such name, no SOA", "alias to nowhere, no SOA", "failure",
    ],
)  # fmt: skip
def test_lifetime(records, options, lifetime):
    """The smallest time to live counts, for negative answers with the SOA's minimum."""
    assert lifetime == taken(*records, **options).lifetime


def test_a_negative_time_to_live_is_zero():
    """RFC 2181: the top bit is never set on purpose."""
    reply = bytearray(answering("60 A 192.0.2.1")(dns.message.from_wire(ask("www.example")), False))
    reply[-10] |= 0x80
    kept = extract(wire.parse_reply(bytes(reply)))

    assert 0 == kept.lifetime
    assert 0 == read(render(query(), kept, age=0, limit=512)).answer[0].ttl


def test_a_truncated_answer_is_not_kept():
    """The next asker may be on TCP and get all of it."""
    reply = bytearray(answering("60 A 192.0.2.1")(dns.message.from_wire(ask("www.example")), False))
    reply[2] |= 0x02

    assert 0 == extract(wire.parse_reply(bytes(reply))).lifetime


def test_times_to_live_count_down():
    """Every record has as many seconds less as the answer is old, and never below zero."""
    kept = taken("60 CNAME a.example.", "20 A 192.0.2.1")
    reply = dns.message.from_wire(render(query(), kept, age=25, limit=512), one_rr_per_rrset=True)

    assert [35, 0] == [rrset.ttl for rrset in reply.answer]


def test_the_asker_gets_its_own_question_back():
    """Id, case, recursion flag and EDNS are the asker's, not those of who asked first."""
    kept = taken("60 A 192.0.2.1", query={"use_edns": 0})
    mine = dns.message.make_query("wWw.ExAmPlE", "A", flags=0)
    reply = read(render(wire.parse_query(mine.to_wire()), kept, age=0, limit=512))

    assert mine.to_wire()[12:] == reply.to_wire()[12 : len(mine.to_wire())]
    assert (mine.id, -1) == (reply.id, reply.edns)
    assert dns.flags.QR | dns.flags.RA == reply.flags


def test_edns_is_ours():
    """The upstream's OPT record is replaced by our own for those who sent one."""
    kept = taken("60 A 192.0.2.1", query={"use_edns": 0, "payload": 4096})
    reply = read(render(query(use_edns=0, want_dnssec=True), kept, age=0, limit=1232))

    assert (0, 1232, dns.flags.DO) == (reply.edns, reply.payload, reply.ednsflags)


def test_validated_is_told_to_those_who_asked_for_it():
    """AD comes through for askers that set DO only."""
    message = dns.message.make_query("www.example", "A")
    reply = bytearray(answering("60 A 192.0.2.1")(message, False))
    reply[3] |= 0x20
    kept = extract(wire.parse_reply(bytes(reply)))
    flags = [
        read(render(query(**options), kept, age=0, limit=512)).flags & dns.flags.AD
        for options in ({}, {"use_edns": 0, "want_dnssec": True})
    ]

    assert [0, dns.flags.AD] == flags


def test_a_large_answer_is_cut_for_those_who_take_less():
    """One kept answer serves UDP and TCP."""
    kept = taken(*(f"60 A 192.0.2.{n}" for n in range(60)))

    assert read(render(query(), kept, age=0, limit=512)).flags & dns.flags.TC
    assert 60 == len(read(render(query(), kept, age=0, limit=65535)).answer[0])


@pytest.mark.parametrize(("rcode", "given"), [(5, 5), (2, 2), (1, 1), (16, 2), (23, 2)])
def test_failures_are_passed_on_when_they_can_be(rcode, given):
    """A code that only EDNS can carry becomes SERVFAIL."""
    assert given == read(render(query(), failure(rcode), age=0, limit=512)).rcode()


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_an_answer_is_kept_for_its_lifetime():
    """To the second."""
    clock = Clock()
    kept = Cache(clock)
    kept.put("key", taken("60 A 192.0.2.1"))
    clock.now += 59.9
    assert 59 == kept.get("key")[1]

    clock.now += 0.2
    assert kept.get("key") is None
    assert 0 == len(kept)


def test_the_least_recently_used_answer_leaves_first():
    """The cache is bounded."""
    kept = Cache(Clock(), entries=2)
    for key in ("a", "b"):
        kept.put(key, taken("60 A 192.0.2.1"))
    kept.get("a")
    kept.put("c", taken("60 A 192.0.2.1"))

    assert [True, False, True] == [kept.get(key) is not None for key in "abc"]


def test_answers_without_a_lifetime_or_of_great_size_are_not_kept():
    """The first must not be, the second would make the bound meaningless."""
    kept = Cache(Clock())
    kept.put("zero", taken("0 A 192.0.2.1"))
    kept.put("huge", taken(*(f"60 A 192.0.{n // 250}.{n % 250}" for n in range(200))))

    assert 0 == len(kept)
