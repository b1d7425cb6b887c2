"""Other servers' answers, kept while they are valid and given to whoever asks the same.

No sockets; the clock is handed in.

Source: RFC 2308 section 5 (negative answers), RFC 2181 section 8 (times to live).
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from seaway.dns import wire
from seaway.dns.wire import Query, Rcode, Record, Reply

TTL_MAX = 300
"""Seconds an answer is kept at most: an upstream's mistake must not outlive a coffee."""
ENTRIES_MAX = 4096
"""Answers kept."""
SIZE_MAX = 2048
"""Bytes of an answer worth keeping, which bounds the whole cache to 8 MiB."""

_TTL = struct.Struct("!I")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer without what belongs to one asker: id, question, EDNS.

    Attributes:
        flags: As received.
        counts: Answer, authority and additional records, OPT not counted.
        body: The records; pointers in it count from the message's start.
        ttls: Offset in *body* and seconds, for each record.
        lifetime: Seconds it may be kept.
    """

    flags: int
    counts: tuple[int, int, int]
    body: bytes
    ttls: tuple[tuple[int, int], ...]
    lifetime: int


def extract(reply: Reply) -> Answer:
    """Take from *reply*, which repeats the question, what is worth giving to others.

    Records from an OPT record on are left out: OPT belongs to one hop, and cutting there
    moves nothing that a pointer could point at.
    """
    end_of_question = wire.HEADER.size + len(reply.question)
    opt_at = next((r.start for r in reply.records if r.rtype == wire.TYPE_OPT), None)
    kept = [r for r in reply.records if opt_at is None or r.start < opt_at]
    end = kept[-1].end if kept else end_of_question
    counts = [sum(1 for r in kept if r.section == section) for section in range(3)]
    return Answer(
        flags=reply.flags,
        counts=(counts[0], counts[1], counts[2]),
        body=reply.message[end_of_question:end],
        ttls=tuple((r.ttl_at - end_of_question, _seconds(r)) for r in kept),
        lifetime=_lifetime(reply, kept),
    )


def failure(rcode: int) -> Answer:
    """Return the answer that carries only *rcode*; one that needs EDNS becomes SERVFAIL."""
    flags = rcode if rcode < 16 else Rcode.SERVFAIL
    return Answer(flags=flags, counts=(0, 0, 0), body=b"", ttls=(), lifetime=0)


def _seconds(record: Record) -> int:
    """Return the time to live; with the top bit set it counts as zero."""
    return record.ttl if record.ttl < 2**31 else 0


def _lifetime(reply: Reply, records: list[Record]) -> int:
    """Return for how many seconds *reply* may be kept, 0 for not at all."""
    if reply.flags & wire.FLAG_TRUNCATED or reply.rcode not in (Rcode.NOERROR, Rcode.NXDOMAIN):
        return 0
    soa = [record for record in records if record.rtype == wire.TYPE_SOA and record.section == 1]
    found = any(record.section == 0 for record in records)
    if not soa and (not found or reply.rcode == Rcode.NXDOMAIN):
        return 0  # RFC 2308 section 5: nothing says for how long it is true
    limits = [TTL_MAX, *map(_seconds, records)]
    limits += (_TTL.unpack_from(reply.message, record.end - 4)[0] for record in soa)
    return min(limits)


def render(query: Query, answer: Answer, *, age: int, limit: int) -> bytes:
    """Give *answer* to the asker of *query*.

    Args:
        query: Has the same name, in any case, type and class.
        answer: What extract returned.
        age: Seconds since it was received, taken off every time to live.
        limit: Bytes the message may have.
    """
    body = bytearray(answer.body)
    if age > 0:
        for at, ttl in answer.ttls:
            _TTL.pack_into(body, at, max(ttl - age, 0))
    extra = answer.flags & wire.FLAG_TRUNCATED
    if query.edns and query.edns.dnssec_ok:
        extra |= answer.flags & wire.FLAG_AUTHENTIC
    opt = wire.opt_record(query)
    answers, authority, additional = answer.counts
    head = wire.HEADER.pack(
        query.ident,
        wire.reply_flags(query, answer.flags & 0xF, extra),
        1,
        answers,
        authority,
        additional + (1 if opt else 0),
    )
    return wire.fit(head + query.question + body + opt, limit)


class Cache:
    """Answers by key, the least recently used one leaving first."""

    def __init__(self, clock: Callable[[], float], entries: int = ENTRIES_MAX) -> None:
        self._clock = clock
        self._entries = entries
        self._kept: OrderedDict[Hashable, tuple[float, Answer]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def put(self, key: Hashable, answer: Answer) -> None:
        """Keep *answer* for its lifetime, if it has one and is not too large."""
        if answer.lifetime == 0 or len(answer.body) > SIZE_MAX:
            return
        self._kept[key] = (self._clock(), answer)
        self._kept.move_to_end(key)
        if len(self._kept) > self._entries:
            self._kept.popitem(last=False)

    def get(self, key: Hashable) -> tuple[Answer, int] | None:
        """Return the answer and its age in whole seconds, or None when it is gone."""
        held = self._kept.get(key)
        if held is None:
            return None
        born, answer = held
        age = self._clock() - born
        if age >= answer.lifetime:
            del self._kept[key]
            return None
        self._kept.move_to_end(key)
        return answer, int(age)
