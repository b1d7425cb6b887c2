"""What is a question, what is malformed, and how an answer is cut to size."""

import struct

import dns.flags
import dns.message
import dns.rrset
import pytest

from seaway.dns import wire
from seaway.dns.wire import Rcode
from seaway.errors import InvalidSpec
from tests.support.dns import ask, read

HEADER = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00"
QUESTION = b"\x03web\x00\x00\x01\x00\x01"


def with_counts(questions: int, answers: int, authority: int, additional: int) -> bytes:
    return struct.pack("!6H", 1, 0x0100, questions, answers, authority, additional)


def test_a_question_is_read():
    """Name, type, class and flags arrive as they were sent."""
    query = wire.parse_query(HEADER + QUESTION)

    assert isinstance(query, wire.Query)
    assert (0x1234, 0x0100) == (query.ident, query.flags)
    assert (b"\x03web\x00", (0,)) == (query.name, query.labels)
    assert (1, 1, None, True) == (query.qtype, query.qclass, query.edns, query.plain)


def test_the_root_is_a_name():
    """A question for the root has no labels and is well-formed."""
    query = wire.parse_query(ask(".", "NS"))

    assert isinstance(query, wire.Query)
    assert (b"\x00", ()) == (query.name, query.labels)


def test_edns_is_read():
    """Size, version and DO come from the OPT record."""
    query = wire.parse_query(ask("web", use_edns=0, payload=4096, want_dnssec=True))

    assert isinstance(query, wire.Query)
    assert wire.Edns(size=4096, version=0, dnssec_ok=True) == query.edns
    assert query.plain


def test_edns_options_are_accepted_but_make_the_question_special():
    """A cookie is different each time, so such a message must not be kept as a key."""
    cookie = dns.edns.GenericOption(10, b"12345678")
    query = wire.parse_query(ask("web", use_edns=0, options=[cookie]))

    assert isinstance(query, wire.Query)
    assert not query.plain


def test_a_signed_question_is_read():
    """A record other than OPT behind the question is stepped over."""
    record = b"\x00\x00\xfa\x00\xff\x00\x00\x00\x00\x00\x02ab"
    query = wire.parse_query(with_counts(1, 0, 0, 1) + QUESTION + record)

    assert isinstance(query, wire.Query)
    assert (None, False) == (query.edns, query.plain)


@pytest.mark.parametrize(
    "message",
    [b"", HEADER[:11], HEADER[:2] + b"\x81\x80" + HEADER[4:] + QUESTION],
    ids=["empty", "short", "answer"],
)
def test_what_is_no_question_is_not_answered(message):
    """Fragments and answers get nothing back, or two servers could talk for ever."""
    assert wire.parse_query(message) is None


@pytest.mark.parametrize(
    "message",
    [
        with_counts(0, 0, 0, 0),
        with_counts(2, 0, 0, 0) + QUESTION * 2,
        with_counts(1, 1, 0, 0) + QUESTION,
        with_counts(1, 0, 1, 0) + QUESTION,
        HEADER,
        HEADER + QUESTION[:-1],
        HEADER + QUESTION + b"x",
        HEADER + b"\x03we",
        HEADER + b"\xc0\x0c\x00\x01\x00\x01",
        HEADER + b"\x03web\xc0\x0c\x00\x01\x00\x01",
        HEADER + b"\x40" + b"a" * 64 + b"\x00\x00\x01\x00\x01",
        HEADER + (b"\x3f" + b"a" * 63) * 4 + b"\x00\x00\x01\x00\x01",
        with_counts(1, 0, 0, 1) + QUESTION,
        with_counts(1, 0, 0, 1) + QUESTION + b"\0\0\x29\4\xd0\0\0\0\0\0\5",
        with_counts(1, 0, 0, 2) + QUESTION + b"\0\0\x29\4\xd0\0\0\0\0\0\0" * 2,
        with_counts(1, 0, 0, 1) + QUESTION + b"\1a\0\0\x29\4\xd0\0\0\0\0\0\0",
        with_counts(1, 0, 0, 1) + QUESTION + b"\0\0\x29\4\xd0\0\0\0\0\0\0" + b"x",
        with_counts(1, 0, 0, 1) + QUESTION + b"\x80\0\0\x29\4\xd0\0\0\0\0\0\0",
        with_counts(1, 0, 0, 900) + QUESTION + b"\0\0\x01\0\1\0\0\0\0\0\0" * 900,
    ],
    ids=[
        "no question", "two questions", "an answer in it", "an authority in it", "header only",
        "class cut off", "trailing byte", "label cut off", "pointer", "pointer after a label",
        "label of 64", "name of 257", "OPT missing", "OPT cut off", "two OPT", "OPT with a name",
        "byte after OPT", "reserved label", "900 records",
    ],
)  # fmt: skip
def test_a_malformed_question_is_a_format_error(message):
    """Whatever breaks RFC 1035 or 6891 is answered with FORMERR."""
    assert wire.parse_query(message) is Rcode.FORMERR


def test_the_longest_name_is_fine():
    """255 bytes are allowed, with labels of 63."""
    name = (b"\x3f" + b"a" * 63) * 3 + b"\x3d" + b"a" * 61 + b"\x00"
    query = wire.parse_query(HEADER + name + b"\x00\x01\x00\x01")

    assert isinstance(query, wire.Query)
    assert 255 == len(query.name)


@pytest.mark.parametrize("opcode", range(1, 16))
def test_other_opcodes_are_not_implemented(opcode):
    """Only standard queries are answered; the opcode is kept in the error."""
    message = struct.pack("!6H", 7, opcode << 11 | 0x0100, 0, 0, 0, 0)
    assert wire.parse_query(message) is Rcode.NOTIMP

    ident, flags, *counts = struct.unpack("!6H", wire.error_reply(message, Rcode.NOTIMP))

    assert (7, 0x8000 | opcode << 11 | 0x0100 | 0x80 | 4) == (ident, flags)
    assert [0, 0, 0, 0] == counts


@pytest.mark.parametrize(
    ("options", "limit"),
    [
        ({}, 512),
        ({"use_edns": 0, "payload": 100}, 512),
        ({"use_edns": 0, "payload": 800}, 800),
        ({"use_edns": 0, "payload": 4096}, 1232),
    ],
)
def test_the_asker_says_how_much_it_takes(options, limit):
    """512 bytes without EDNS, else what it says, within 512..1232; TCP takes all."""
    query = wire.parse_query(ask("web", **options))

    assert isinstance(query, wire.Query)
    assert limit == query.limit(stream=False)
    assert 65535 == query.limit(stream=True)


@pytest.mark.parametrize("text", ["", "a..b", "a" * 64, ".".join(["a" * 63] * 4), "ä", ".a"])
def test_a_name_that_cannot_be_asked_for_is_refused(text):
    """Empty or long parts, too long names and letters outside ASCII have no wire form."""
    with pytest.raises(InvalidSpec):
        wire.encode_name(text)


def test_names_are_written_lower_case():
    """So that look-ups by the lower-cased question find them."""
    assert b"\x03web\x07backend\x00" == wire.encode_name("Web.Backend.")


def big_reply(count: int, **options: object) -> bytes:
    reply = dns.message.make_response(dns.message.from_wire(ask("web", "TXT", **options)))
    for number in range(count):
        text = f'"{number:050}"'
        reply.answer.append(dns.rrset.from_text("web.", 5, "IN", "TXT", text))
    reply.additional.append(dns.rrset.from_text("other.", 5, "IN", "TXT", '"extra"'))
    return reply.to_wire(max_size=65535)


def test_an_answer_that_fits_is_left_alone():
    """Nothing is copied or marked."""
    message = big_reply(3)

    assert message is wire.fit(message, 512)


def test_a_long_answer_keeps_the_records_that_fit():
    """It is cut between records and marked truncated, so a new client comes back over TCP."""
    short = wire.fit(big_reply(40), 512)
    reply = read(short)

    assert 400 < len(short) <= 512
    assert reply.flags & dns.flags.TC
    assert 0 < len(reply.answer[0]) < 40
    assert not reply.additional


def test_dropping_only_extras_is_no_truncation():
    """Additional records may go without a mark (RFC 2181 section 9)."""
    message = big_reply(5)
    reply = read(wire.fit(message, len(message) - 1))

    assert not reply.flags & dns.flags.TC
    assert 5 == len(reply.answer[0])
    assert not reply.additional


def test_edns_survives_truncation():
    """The OPT record stays in a shortened answer."""
    reply = read(wire.fit(big_reply(40, use_edns=0), 600))

    assert 0 == reply.edns
    assert reply.flags & dns.flags.TC


@pytest.mark.parametrize(
    "change",
    [lambda m: m[:-1], lambda m: m[:2] + b"\x01" + m[3:], lambda m: m[:11], lambda m: m[:14]],
    ids=["cut", "a question", "short", "question cut"],
)
def test_a_malformed_reply_is_none(change):
    """Other servers' answers are only used when they hold together."""
    assert wire.parse_reply(change(big_reply(1))) is None


def test_questions_are_the_same_whatever_their_case():
    """Only the name has a case; types 65 and 97 look like A and a."""
    assert wire.same_question(b"\x01A\0\0\x41\0\1", b"\x01a\0\0\x41\0\1")
    assert not wire.same_question(b"\x01A\0\0\x41\0\1", b"\x01a\0\0\x61\0\1")
