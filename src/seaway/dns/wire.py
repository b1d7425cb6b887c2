"""DNS messages as bytes: reads questions, walks replies, writes answers.

Knows the format and nothing about who asks, what exists or how bytes travel.

Source: RFC 1035 section 4, RFC 6891 (EDNS), RFC 2308 (negative answers).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from seaway.errors import InvalidSpec

HEADER = struct.Struct("!6H")
"""Id, flags, then how many questions, answers, authority and additional records."""

TYPE_A, TYPE_SOA, TYPE_PTR, TYPE_HINFO, TYPE_AAAA, TYPE_OPT, TYPE_ANY = 1, 6, 12, 13, 28, 41, 255
CLASS_IN = 1

FLAG_RESPONSE = 0x8000
FLAG_AUTHORITATIVE = 0x0400
FLAG_TRUNCATED = 0x0200
FLAG_RECURSION_WANTED = 0x0100
FLAG_RECURSION_OFFERED = 0x0080
FLAG_AUTHENTIC = 0x0020
FLAG_CHECKING_DISABLED = 0x0010
OPCODE_MASK = 0x7800
DNSSEC_OK = 0x8000  # in the flags of an OPT record, RFC 3225

NAME_MAX = 255
"""Bytes of a name on the wire, lengths and the final zero included."""
LABEL_MAX = 63
"""Bytes of one label; a larger length byte is a compression pointer or reserved."""
UDP_PLAIN = 512
"""Bytes an asker without EDNS accepts over UDP."""
UDP_EDNS = 1232
"""Bytes we send over UDP at most: fits IPv6's minimum MTU, so it is never fragmented."""
TCP_MAX = 65535
"""Bytes of a message over TCP; its length prefix has 16 bits."""
EXTRA_RECORDS_MAX = 4
"""Additional records a question may carry; OPT and TSIG are the only useful ones."""
POINTER_TO_QUESTION = b"\xc0\x0c"
"""A compression pointer to offset 12, where the question's name starts."""

_RECORD = struct.Struct("!HHIH")


class Rcode(IntEnum):
    """RFC 1035 section 4.1.1; BADVERS is RFC 6891 section 9."""

    NOERROR = 0
    FORMERR = 1
    SERVFAIL = 2
    NXDOMAIN = 3
    NOTIMP = 4
    REFUSED = 5
    BADVERS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Edns:
    """What the asker's OPT record says.  ``size`` is the bytes it accepts over UDP."""

    size: int
    version: int
    dnssec_ok: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One well-formed question.

    Attributes:
        ident: The asker's message id.
        flags: The second 16 bits of the message, as received.
        question: Name, type and class exactly as received, upper and lower case kept.
        name: The name alone, lower case, in wire form with its final zero.
        labels: Where each label of *name* starts; empty for the root.
        edns: None when the asker sent no OPT record.
        plain: Nothing but the question and an OPT record without options was sent,
            so an equal message may be given an equal answer.
    """

    ident: int
    flags: int
    question: bytes
    name: bytes
    labels: tuple[int, ...]
    qtype: int
    qclass: int
    edns: Edns | None
    plain: bool

    def limit(self, *, stream: bool) -> int:
        """Return how many bytes the answer may have, over TCP if *stream*."""
        if stream:
            return TCP_MAX
        size = self.edns.size if self.edns else UDP_PLAIN
        return max(UDP_PLAIN, min(size, UDP_EDNS))


class Record(NamedTuple):
    """Where one resource record lies in a message.  All but *rtype* and *ttl* are offsets."""

    section: int
    """0 answer, 1 authority, 2 additional."""
    start: int
    rtype: int
    ttl_at: int
    ttl: int
    """Seconds for every type but OPT."""
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """Another server's answer, walked to its end so every offset in it is valid.

    Attributes:
        question: Name, type and class, or empty when the server left it out.
        records: In order, OPT included.
        rcode: With the upper bits an OPT record adds.
    """

    message: bytes
    ident: int
    flags: int
    question: bytes
    records: tuple[Record, ...]
    rcode: int


def encode_name(text: str) -> bytes:
    """Write *text* ("web.backend") in wire form, lower case, with the final zero.

    Raises:
        InvalidSpec: *text* is empty, not ASCII, or has a label or total that is too long.
    """
    try:
        labels = text.lower().removesuffix(".").encode("ascii").split(b".")
    except UnicodeEncodeError:
        raise InvalidSpec(f"name {text!r} is not ASCII; use letters, digits and dashes") from None
    if any(not 0 < len(label) <= LABEL_MAX for label in labels):
        raise InvalidSpec(f"name {text!r} has a part outside 1..{LABEL_MAX} characters; shorten it")
    wire = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    if len(wire) > NAME_MAX:
        raise InvalidSpec(f"name {text!r} is over {NAME_MAX - 2} characters long; shorten it")
    return wire


def parse_query(message: bytes) -> Query | Rcode | None:
    """Read a question.

    Returns:
        The question; or the error code to answer with (see error_reply); or None for what
        must not be answered at all: a fragment, or an answer, which could start a ping-pong.
    """
    if len(message) < HEADER.size or message[2] & 0x80:
        return None
    ident, flags, questions, answers, authority, additional = HEADER.unpack_from(message)
    if flags & OPCODE_MASK:
        return Rcode.NOTIMP
    labels = _labels(message)
    if questions != 1 or answers or authority or labels is None:
        return Rcode.FORMERR
    after = labels[-1] + 1
    extras = _extras(message, after + 4, additional)
    if extras is None:
        return Rcode.FORMERR
    edns, plain = extras
    return Query(
        ident=ident,
        flags=flags,
        question=message[HEADER.size : after + 4],
        name=message[HEADER.size : after].lower(),
        labels=tuple(at - HEADER.size for at in labels[:-1]),
        qtype=message[after] << 8 | message[after + 1],
        qclass=message[after + 2] << 8 | message[after + 3],
        edns=edns,
        plain=plain,
    )


def _labels(message: bytes) -> list[int] | None:
    """Return where the question's labels start and, last, where its final zero is.

    None when it is not a name followed by four more bytes.  A pointer is refused: nothing
    comes before the question that it could point at.
    """
    starts = []
    at = HEADER.size
    last = min(len(message) - 5, HEADER.size + NAME_MAX - 1)
    while at <= last:
        starts.append(at)
        length = message[at]
        if length == 0:
            return starts
        if length > LABEL_MAX:
            return None
        at += length + 1
    return None


def _extras(message: bytes, at: int, count: int) -> tuple[Edns | None, bool] | None:
    """Read what follows the question; None when malformed, see Query.plain for the flag."""
    if count == 0:
        return (None, True) if at == len(message) else None
    if count > EXTRA_RECORDS_MAX:
        return None
    walked = _walk(message, at, (0, 0, count))
    if walked is None or walked[-1].end != len(message):
        return None
    options = [record for record in walked if record.rtype == TYPE_OPT]
    if not options:
        return None, False
    opt = options[0]
    if len(options) > 1 or message[opt.start] != 0:  # RFC 6891 section 6.1.1
        return None
    size = message[opt.ttl_at - 2] << 8 | message[opt.ttl_at - 1]
    edns = Edns(size=size, version=opt.ttl >> 16 & 0xFF, dnssec_ok=bool(opt.ttl & DNSSEC_OK))
    return edns, count == 1 and opt.end == opt.ttl_at + 6


def _walk(message: bytes, at: int, counts: tuple[int, int, int]) -> tuple[Record, ...] | None:
    """Step over the records from offset *at*; None when one of them runs past the end."""
    records = []
    for section, count in enumerate(counts):
        for _ in range(count):
            fixed = _skip_name(message, at)
            if fixed is None or fixed + _RECORD.size > len(message):
                return None
            rtype, _, ttl, length = _RECORD.unpack_from(message, fixed)
            end = fixed + _RECORD.size + length
            if end > len(message):
                return None
            records.append(Record(section, at, rtype, fixed + 4, ttl, end))
            at = end
    return tuple(records)


def _skip_name(message: bytes, at: int) -> int | None:
    """Return the offset after the name at *at*; pointers are stepped over, not followed."""
    stop = min(len(message), at + NAME_MAX)
    while at < stop:
        length = message[at]
        if length == 0:
            return at + 1
        if length >= 0xC0:
            return at + 2
        if length > LABEL_MAX:
            return None
        at += length + 1
    return None


def parse_reply(message: bytes) -> Reply | None:
    """Read another server's answer; None when it is malformed or not an answer."""
    if len(message) < HEADER.size or not message[2] & 0x80:
        return None
    ident, flags, questions, *counts = HEADER.unpack_from(message)
    labels = _labels(message) if questions else None
    if questions > 1 or (questions and labels is None):
        return None
    after = labels[-1] + 5 if labels else HEADER.size
    records = _walk(message, after, (counts[0], counts[1], counts[2]))
    if records is None:
        return None
    extended = next((r.ttl >> 24 for r in records if r.rtype == TYPE_OPT), 0)
    return Reply(
        message=message,
        ident=ident,
        flags=flags,
        question=message[HEADER.size : after],
        records=records,
        rcode=extended << 4 | flags & 0xF,
    )


def same_question(ours: bytes, theirs: bytes) -> bool:
    """Compare name, type and class; upper and lower case are equal in the name only."""
    return ours[-4:] == theirs[-4:] and ours[:-4].lower() == theirs[:-4].lower()


def opt_record(query: Query, rcode: int = 0) -> bytes:
    """Return the OPT record that answers *query*'s; empty when it brought none."""
    if query.edns is None:
        return b""
    flags = DNSSEC_OK if query.edns.dnssec_ok else 0
    return b"\0" + _RECORD.pack(TYPE_OPT, UDP_EDNS, rcode >> 4 << 24 | flags, 0)


def reply_flags(query: Query, rcode: int, extra: int = 0) -> int:
    """Return the flags of our answer: an answer, recursion offered, the asker's RD and CD kept."""
    kept = query.flags & (FLAG_RECURSION_WANTED | FLAG_CHECKING_DISABLED)
    return FLAG_RESPONSE | FLAG_RECURSION_OFFERED | kept | extra | rcode & 0xF


def empty_reply(query: Query, rcode: Rcode) -> bytes:
    """Answer *query* with a code and no records."""
    opt = opt_record(query, rcode)
    counts = (1, 0, 0, 1 if opt else 0)
    return HEADER.pack(query.ident, reply_flags(query, rcode), *counts) + query.question + opt


def error_reply(message: bytes, rcode: Rcode) -> bytes:
    """Answer at least a header's worth of bytes that parse_query could not read."""
    ident, flags, *_ = HEADER.unpack_from(message)
    kept = flags & (OPCODE_MASK | FLAG_RECURSION_WANTED)
    return HEADER.pack(ident, FLAG_RESPONSE | FLAG_RECURSION_OFFERED | kept | rcode, 0, 0, 0, 0)


def ask(query: Query, ident: int) -> bytes:
    """Write *query* anew for another server: our id, recursion wanted, no options passed on."""
    opt = opt_record(query)
    flags = FLAG_RECURSION_WANTED | query.flags & (FLAG_CHECKING_DISABLED | FLAG_AUTHENTIC)
    return HEADER.pack(ident, flags, 1, 0, 0, 1 if opt else 0) + query.question + opt


def fit(message: bytes, limit: int) -> bytes:
    """Shorten our own answer to at most *limit* bytes, at the end of a record.

    Whole records are kept as long as they fit, because old musl libc takes what it gets
    and never asks again over TCP.  The answer is marked truncated unless only additional
    records went (RFC 2181 section 9).  An OPT record stays.
    """
    if len(message) <= limit:
        return message
    reply = parse_reply(message)
    assert reply is not None
    opt = b"".join(message[r.start : r.end] for r in reply.records if r.rtype == TYPE_OPT)
    rest = [r for r in reply.records if r.rtype != TYPE_OPT]
    kept = [r for r in rest if r.end <= limit - len(opt)]
    counts = [sum(1 for r in kept if r.section == section) for section in range(3)]
    lost = any(r.section < 2 for r in rest[len(kept) :])
    flags = reply.flags | (FLAG_TRUNCATED if lost else 0)
    counts[2] += 1 if opt else 0
    end = kept[-1].end if kept else HEADER.size + len(reply.question)
    head = HEADER.pack(reply.ident, flags, 1 if reply.question else 0, *counts)
    return head + message[HEADER.size : end] + opt
