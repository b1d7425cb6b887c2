"""Answers a container's question from what its networks hold, or says who else to ask.

Bytes in, bytes out: no sockets, no clock.  A question that was answered before costs two
dictionary look-ups and one concatenation; anything else is parsed and worked out.

Source: RFC 1034 section 4.3, RFC 2308 (no such data), RFC 8482 (ANY), RFC 6891 (EDNS).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from itertools import repeat
from typing import NamedTuple

from seaway.dns import wire
from seaway.dns.reverse import Subnets, address_of
from seaway.dns.scope import Entry, Member, Network, View
from seaway.dns.wire import Query, Rcode

__all__ = ["Directory", "Forward", "Member", "as_owner"]

TTL = 5
"""Seconds.  Short, because a container's address changes when it is replaced."""
NEGATIVE_TTL = 1
"""Seconds.  A name that is missing now may be there when its container has started."""
ADDRESSES_MAX = 8
"""Addresses in one answer: with any name and an OPT record it stays within 512 bytes."""
KEPT_PER_VIEW = 16_384
"""Finished answers kept for one set of networks, about 400 bytes each."""
KEPT_MAX = 32_768
"""Finished answers kept in all."""

_SOA_DATA = (
    wire.encode_name("ns.seaway.invalid")
    + wire.encode_name("nobody.invalid")
    + struct.pack("!5I", 1, 3600, 600, 86400, NEGATIVE_TTL)
)
_HINFO_DATA = b"\x07RFC8482\x00"


def as_owner(owner: str) -> str:
    """Return the *source* that stands for *owner*, on a socket only that owner can reach."""
    return "=" + owner  # no address starts like this


@dataclass(frozen=True, slots=True, kw_only=True)
class Forward:
    """A question that is not ours.  No *upstreams* means the host's own resolvers."""

    query: Query
    owner: str
    upstreams: tuple[str, ...] = ()


class _Verdict(NamedTuple):
    """What to say: record data of one type, or none and whose zone says so."""

    rcode: Rcode
    rtype: int = 0
    data: Sequence[bytes] = ()
    zone_at: int = 0
    """Offset in the question's name where the zone starts that has no such record."""


class _Asker:
    """An owner that may ask.  ``cache`` is its view's, one step nearer for the hot path."""

    __slots__ = ("cache", "forwards", "owner", "sources", "upstreams", "view")

    def __init__(self, owner: str, view: View, upstreams: tuple[str, ...], forwards: bool) -> None:
        self.owner = owner
        self.view = view
        self.cache = view.cache
        self.upstreams = upstreams
        self.forwards = forwards
        self.sources: tuple[str, ...] = ()


class Directory:
    """All names of one host, and who may ask for which."""

    def __init__(self) -> None:
        self._networks: dict[str, Network] = {}
        self._members: dict[str, tuple[Member, ...]] = {}
        self._views: dict[tuple[str, ...], View] = {}
        self._askers: dict[str, _Asker] = {}
        self._subnets = Subnets()
        self._kept = 0
        self._turn = 0

    def put(
        self,
        owner: str,
        members: Iterable[Member],
        upstreams: tuple[str, ...] = (),
        asks: bool = True,
        *,
        forwards: bool = True,
    ) -> None:
        """Make *owner* hold exactly *members*; the next question already sees it.

        Costs as much as the owner's networks and names, whatever else there is.

        Args:
            owner: The sandbox's id.
            members: One for each network it is on, none of them another owner's.
            upstreams: Resolvers to use for it in place of the host's, see parse_server.
            asks: Whether questions from its addresses are answered.
            forwards: Whether it may ask for names that are not ours; not so for an owner
                on internal networks only.
        """
        self.remove(owner)
        held = tuple(members)
        self._members[owner] = held
        for member in held:
            network = self._networks.get(member.network)
            if network is None:
                network = self._networks[member.network] = Network(member.network)
            network.add(member)
            self._kept -= network.spoil()
        if asks:
            self._admit(owner, held, upstreams, forwards)

    def remove(self, owner: str) -> None:
        """Forget *owner*'s names and answer it no more.  Unknown owners are fine."""
        if asker := self._askers.get(as_owner(owner)):
            self._dismiss(asker)
        for member in self._members.pop(owner, ()):
            network = self._networks[member.network]
            network.discard(member)
            self._kept -= network.spoil()
            if network.idle:
                del self._networks[member.network]

    def set_subnets(self, subnets: Iterable[IPv4Network | IPv6Network]) -> None:
        """Say which subnets there are.

        Reverse names inside them are ours: unknown ones are answered so, and never shown to
        another server.  No kept answer depends on them: only names that exist are kept.
        """
        self._subnets = Subnets(subnets)

    def answer(self, message: bytes, source: str) -> bytes | Forward | None:
        """Answer one message.

        Args:
            message: As received, without TCP's length prefix.
            source: The address it came from as text, or as_owner().

        Returns:
            The answer, at most 512 bytes long, so it fits every transport; or the question to
            forward; or None when nothing may be said.
        """
        asker = self._askers.get(source)
        if asker is not None:
            # Lower-casing the whole message also folds a few numbers of types we hold nothing
            # of and sizes above 512 together; their answers are equal, so that is harmless.
            entry = asker.cache.get(message[2:].lower())
            if entry is not None:
                return message[:2] + entry.head + message[12 : entry.end] + next(entry.tails)
        return self._consider(message, asker)

    def owner_of(self, source: str) -> str:
        """Return who asks from *source*; a stranger is its own owner."""
        asker = self._askers.get(source)
        return asker.owner if asker is not None else source

    def _admit(
        self, owner: str, held: tuple[Member, ...], upstreams: tuple[str, ...], forwards: bool
    ) -> None:
        key = tuple(sorted({member.network for member in held}))
        view = self._views.get(key)
        if view is None:
            view = self._views[key] = View(tuple(self._networks[name] for name in key))
        view.askers += 1
        asker = _Asker(owner, view, upstreams, forwards)
        addresses = (str(address) for member in held for address in member.asks_from)
        asker.sources = (as_owner(owner), *addresses)
        for source in asker.sources:
            self._askers[source] = asker

    def _dismiss(self, asker: _Asker) -> None:
        for source in asker.sources:
            if self._askers.get(source) is asker:  # its address may have a new holder already
                del self._askers[source]
        view = asker.view
        view.askers -= 1
        if view.askers == 0:
            self._kept -= view.close()
            del self._views[tuple(network.name for network in view.networks)]

    def _consider(self, message: bytes, asker: _Asker | None) -> bytes | Forward | None:
        query = wire.parse_query(message)
        if query is None:
            return None
        if isinstance(query, Rcode):
            return wire.error_reply(message, query)
        if query.edns and query.edns.version != 0:
            return wire.empty_reply(query, Rcode.BADVERS)
        if asker is None or query.qclass != wire.CLASS_IN:
            return wire.empty_reply(query, Rcode.REFUSED)
        return self._resolve(message, query, asker)

    def _resolve(self, message: bytes, query: Query, asker: _Asker) -> bytes | Forward:
        verdict = self._look_up(query, asker.view)
        if verdict is not None:
            return self._finish(message, query, verdict, asker.view)
        if not asker.forwards:
            return wire.empty_reply(query, Rcode.SERVFAIL)
        return Forward(query=query, owner=asker.owner, upstreams=asker.upstreams)

    def _look_up(self, query: Query, view: View) -> _Verdict | None:
        """Work out what we have to say; None when the name is not ours."""
        name, labels = query.name, query.labels
        if members := view.find(name, labels):
            return _records(query.qtype, members)
        if address := address_of(name, labels):
            if pointer := view.pointer(address):
                asked = query.qtype == wire.TYPE_PTR
                return _Verdict(Rcode.NOERROR, wire.TYPE_PTR, (pointer,) if asked else ())
            return _Verdict(Rcode.NXDOMAIN, zone_at=labels[1]) if address in self._subnets else None
        zone_at = self._zone_at(name, labels, view)
        return _Verdict(Rcode.NXDOMAIN, zone_at=zone_at) if zone_at else None

    def _zone_at(self, name: bytes, labels: tuple[int, ...], view: View) -> int | None:
        """Return where the part of *name* starts below which every name is ours.

        That is the name of a network the asker is on (others may be called "dev" or "app",
        which are public domains), and also a container's when only a service such as
        ``_http._tcp`` is in front of it.  Other names below a container's are not ours:
        a container may be called "app", and "app" is a public domain too.
        """
        for at in labels[1:]:
            if name[at:] in view.suffixes:
                return at
        at = next((at for at in labels if name[at + 1 : at + 2] != b"_"), 0)
        below = tuple(start - at for start in labels if start >= at)
        return at if at and view.find(name[at:], below) else None

    def _finish(self, message: bytes, query: Query, verdict: _Verdict, view: View) -> bytes:
        """Render *verdict*, keep it for the next equal question, and answer this one."""
        self._turn += 1
        opt = wire.opt_record(query)
        flags = wire.reply_flags(query, verdict.rcode, wire.FLAG_AUTHORITATIVE)
        records = [_record(wire.POINTER_TO_QUESTION, verdict.rtype, d, TTL) for d in verdict.data]
        answers = min(len(records), ADDRESSES_MAX)
        head = struct.pack("!5H", flags, 1, answers, 0 if answers else 1, 1 if opt else 0)
        tails = _tails(records, opt, self._turn) if records else repeat(_soa(verdict) + opt)
        entry = Entry(head, wire.HEADER.size + len(query.question), tails)
        if query.plain and verdict.rcode == Rcode.NOERROR:
            self._keep(view, message[2:].lower(), entry)
        return message[:2] + head + query.question + next(tails)

    def _forget_all(self) -> None:
        for view in self._views.values():
            view.forget()
        self._kept = 0

    def _keep(self, view: View, key: bytes, entry: Entry) -> None:
        if len(view.cache) >= KEPT_PER_VIEW:
            self._kept -= view.forget()
        if self._kept >= KEPT_MAX:
            self._forget_all()
        view.remember(key, entry)
        self._kept += 1


def _records(qtype: int, members: Sequence[Member]) -> _Verdict:
    """Return what *members*, at least one, hold of *qtype*; none is no error."""
    data: Iterable[bytes] = ()
    if qtype == wire.TYPE_A:
        data = (address.packed for member in members for address in member.v4)
    elif qtype == wire.TYPE_AAAA:
        data = (address.packed for member in members for address in member.v6)
    elif qtype == wire.TYPE_ANY:
        return _Verdict(Rcode.NOERROR, wire.TYPE_HINFO, (_HINFO_DATA,))
    return _Verdict(Rcode.NOERROR, qtype, tuple(dict.fromkeys(data)))


def _record(owner: bytes, rtype: int, data: bytes, ttl: int) -> bytes:
    return owner + struct.pack("!HHIH", rtype, wire.CLASS_IN, ttl, len(data)) + data


def _soa(verdict: _Verdict) -> bytes:
    """Return the record that says how long to believe that there is nothing."""
    owner = struct.pack("!H", 0xC000 | wire.HEADER.size + verdict.zone_at)
    return _record(owner, wire.TYPE_SOA, _SOA_DATA, NEGATIVE_TTL)


def _tails(records: list[bytes], opt: bytes, turn: int) -> Iterator[bytes]:
    """Return the answer sections to give one after the other, for ever."""
    if len(records) == 1:
        return repeat(records[0] + opt)
    return _rotated(records, opt, turn % len(records))


def _rotated(records: list[bytes], opt: bytes, first: int) -> Iterator[bytes]:
    wanted = min(len(records), ADDRESSES_MAX)
    around = records + records[:wanted]
    at = first
    while True:
        yield b"".join(around[at : at + wanted]) + opt
        at = (at + 1) % len(records)
