"""Who sees which names: an index of containers by network, and one view per set of networks.

Pure: no I/O, no clock.  Changing one container touches its own networks only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Generic, TypeVar

from seaway.dns.reverse import Address
from seaway.dns.wire import encode_name
from seaway.errors import InvalidSpec

_K = TypeVar("_K")


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One container's attachment to one network.

    Attributes:
        owner: The sandbox's id.
        network: The network's name.
        names: What it is called on this network; the first one answers reverse look-ups.
            Empty while it must not be found yet.
        v4: Its addresses there; likewise *v6*.
        asks_from: The addresses its questions on this network come from.
    """

    owner: str
    network: str
    names: tuple[str, ...]
    v4: tuple[IPv4Address, ...] = ()
    v6: tuple[IPv6Address, ...] = ()
    asks_from: tuple[Address, ...] = ()

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Return its addresses of both families."""
        return self.v4 + self.v6


class Entry:
    """A finished answer: everything but the id and the question, which the asker supplies.

    Attributes:
        head: Flags and counts, 10 bytes.
        end: Offset in the asker's message where its question ends.
        tails: What follows the question; endless, each one rotated against the last.
    """

    __slots__ = ("end", "head", "tails")

    def __init__(self, head: bytes, end: int, tails: Iterator[bytes]) -> None:
        self.head = head
        self.end = end
        self.tails = tails


class _Holders(Generic[_K]):
    """Members by key, in order of arrival.

    Nearly every name and address has one holder, and there may be a hundred thousand of
    them: a key with one holder gets no table of its own.
    """

    def __init__(self) -> None:
        self._alone: dict[_K, Member] = {}
        self._shared: dict[_K, dict[int, Member]] = {}

    def add(self, key: _K, member: Member) -> None:
        """Let *member* have *key*, after those that have it already."""
        shared = self._shared.get(key)
        if shared is not None:
            shared[id(member)] = member
        elif (first := self._alone.setdefault(key, member)) is not member:
            del self._alone[key]
            self._shared[key] = {id(first): first, id(member): member}

    def discard(self, key: _K, member: Member) -> None:
        """Take *key* from *member*; fine if it has it not."""
        if self._alone.get(key) is member:
            del self._alone[key]
        elif shared := self._shared.get(key):
            shared.pop(id(member), None)
            if not shared:
                del self._shared[key]

    def of(self, key: _K) -> Iterable[Member]:
        """Return who has *key*."""
        alone = self._alone.get(key)
        return (alone,) if alone is not None else self._shared.get(key, {}).values()


class Network:
    """What is known on one network.  Names are in wire form."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.suffix = encode_or_none(name)
        self.members = 0
        self.viewers = 0
        self._names: _Holders[bytes] = _Holders()
        self._addresses: _Holders[Address] = _Holders()
        self._warm: set[View] = set()

    def add(self, member: Member) -> None:
        """Let *member* be found; it must be a different object from those added before."""
        self.members += 1
        for wire in _wire_names(member):
            self._names.add(wire, member)
        for address in member.addresses:
            self._addresses.add(address, member)

    def discard(self, member: Member) -> None:
        """Forget *member*, which was added before."""
        self.members -= 1
        for wire in _wire_names(member):
            self._names.discard(wire, member)
        for address in member.addresses:
            self._addresses.discard(address, member)

    def find(self, name: bytes) -> Iterable[Member]:
        """Return who is called *name* here, in order of arrival."""
        return self._names.of(name)

    def pointer(self, address: Address) -> bytes | None:
        """Return the full name of *address*'s holder here, in wire form."""
        found = map(_pointer, self._addresses.of(address))
        return next((name for name in found if name), None)

    def warm(self, view: View) -> None:
        """Remember that *view* keeps answers that depend on this network."""
        self._warm.add(view)

    def cool(self, view: View) -> None:
        """Forget *view*; it keeps nothing any more."""
        self._warm.discard(view)

    def spoil(self) -> int:
        """Throw away every answer that depends on this network; return how many went."""
        gone = sum(view.forget() for view in self._warm)
        self._warm.clear()
        return gone

    @property
    def idle(self) -> bool:
        """Whether nobody is here and nobody looks."""
        return self.members == 0 and self.viewers == 0


class View:
    """What containers attached to the same set of networks see, and the answers they got.

    Containers on the same networks share one view, so its answers are kept once.
    """

    def __init__(self, networks: tuple[Network, ...]) -> None:
        self.networks = networks
        self.askers = 0
        self.cache: dict[bytes, Entry] = {}
        self.suffixes: dict[bytes, list[Network]] = {}
        for network in networks:
            network.viewers += 1
            if network.suffix is not None:
                self.suffixes.setdefault(network.suffix, []).append(network)

    def close(self) -> int:
        """Let go of the networks; return how many answers went."""
        for network in self.networks:
            network.viewers -= 1
            network.cool(self)
        return self.forget()

    def remember(self, key: bytes, entry: Entry) -> None:
        """Keep *entry* until one of our networks changes."""
        if not self.cache:
            for network in self.networks:
                network.warm(self)
        self.cache[key] = entry

    def forget(self) -> int:
        """Throw away the kept answers; return how many went."""
        gone = len(self.cache)
        self.cache.clear()
        return gone

    def find(self, name: bytes, labels: tuple[int, ...]) -> list[Member]:
        """Return who is called *name* on our networks: bare, or else as ``name.network``."""
        bare = [member for network in self.networks for member in network.find(name)]
        if bare:
            return bare
        return [
            member
            for at in labels[1:]
            for network in self.suffixes.get(name[at:], ())
            for member in network.find(name[:at] + b"\0")
        ]

    def pointer(self, address: Address) -> bytes | None:
        """Return the full name of whoever has *address* on one of our networks."""
        found = (network.pointer(address) for network in self.networks)
        return next((name for name in found if name), None)


def encode_or_none(text: str) -> bytes | None:
    """Write *text* in wire form; None when no question could ever carry it.

    Engines allow names of more than 63 characters.  Such a container is reachable by its
    other names, so it is no error here.
    """
    try:
        return encode_name(text)
    except InvalidSpec:
        return None


def _wire_names(member: Member) -> Iterator[bytes]:
    return (wire for wire in map(encode_or_none, member.names) if wire)


def _pointer(member: Member) -> bytes | None:
    full = (encode_or_none(f"{name}.{member.network}") for name in member.names)
    return next((wire for wire in full if wire), None)
