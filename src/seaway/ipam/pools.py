"""Choosing subnets that collide with nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final

from seaway.errors import Conflict, Exhausted
from seaway.model.names import digest
from seaway.model.network import Prefix

V4_POOLS: Final = tuple(
    IPv4Network(text) for text in ("10.83.0.0/16", "172.28.0.0/14", "192.168.128.0/17")
)
"""Where subnets come from when none is named: 1,408 networks of 254 addresses each, from the
corners of RFC 1918 that home routers, offices and other engines use least."""

V4_LENGTH, V6_LENGTH = 24, 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """A range that is in use, and by what, e.g. "the route via eth0"."""

    prefix: Prefix
    by: str


SPECIAL: Final = tuple(
    Taken(prefix=ip_network(text), by=by)
    for text, by in (
        ("0.0.0.0/8", "which stands for no host"),
        ("127.0.0.0/8", "every host's own loopback"),
        ("169.254.0.0/16", "the link-local addresses"),
        ("224.0.0.0/4", "the multicast addresses"),
        ("::/127", "every host's own loopback"),
        ("fe80::/10", "the link-local addresses"),
        ("ff00::/8", "the multicast addresses"),
    )
)
"""Ranges that no network can have.  Source: IANA's special-purpose address registries, RFC 6890."""


def overlap(wanted: Prefix, taken: Iterable[Taken]) -> Taken | None:
    """Return the first of *taken* that shares an address with *wanted*."""
    return next((t for t in taken if _overlaps(wanted, t.prefix)), None)


def _overlaps(a: Prefix, b: Prefix) -> bool:
    if isinstance(a, IPv4Network) and isinstance(b, IPv4Network):
        return a.overlaps(b)
    if isinstance(a, IPv6Network) and isinstance(b, IPv6Network):
        return a.overlaps(b)
    return False


def check_free(wanted: Prefix, taken: Iterable[Taken]) -> None:
    """Raise Conflict, naming what *wanted* overlaps, if it overlaps anything."""
    if hit := overlap(wanted, taken):
        raise Conflict(
            f"subnet {wanted} overlaps {hit.prefix}, {hit.by}: choose another with --subnet"
        )


def free_v4(taken: Collection[Taken], *, shared: bool = False) -> IPv4Network:
    """Pick the first free /24 of the pools.

    Args:
        shared: For hosts that may have other networks than this one: pick the last of the first
            pool with a free one, which their own are the furthest from.

    Raises:
        Exhausted: Every one of them overlaps something.
    """
    for pool in V4_POOLS:
        first, last = _blocks(pool)
        used: set[int] = set()
        for low, high in (_blocks(t.prefix) for t in taken if isinstance(t.prefix, IPv4Network)):
            used.update(range(max(low, first), min(high, last) + 1))
        numbers = range(first, last + 1)
        for number in reversed(numbers) if shared else numbers:
            if number not in used:
                return IPv4Network((number << (32 - V4_LENGTH), V4_LENGTH))
    raise Exhausted("every subnet of the address pools is in use: name one with --subnet")


def _blocks(prefix: IPv4Network) -> tuple[int, int]:
    """Return the first and the last /24 that *prefix* has a share of, as numbers."""
    shift = 32 - V4_LENGTH
    return int(prefix.network_address) >> shift, int(prefix.broadcast_address) >> shift


def free_v6(site: IPv6Network, name: str, taken: Collection[Taken]) -> IPv6Network:
    """Pick a /64 of this site's own /48 for the network called *name*.

    The subnet number comes from the name, so that a network made again gets its
    old addresses.
    """
    for candidate in _v6_candidates(site, name):
        if overlap(candidate, taken) is None:
            return candidate
    raise Exhausted(f"every /64 of {site} is in use: name a subnet with --subnet")


def _v6_candidates(site: IPv6Network, name: str) -> Iterator[IPv6Network]:
    slots = 1 << (V6_LENGTH - site.prefixlen)
    start = int.from_bytes(digest("subnet", name)[:4]) % slots
    for step in range(slots):
        number = (start + step) % slots
        base = int(site.network_address) + (number << (128 - V6_LENGTH))
        yield IPv6Network((base, V6_LENGTH))


def site_prefix(seed: bytes) -> IPv6Network:
    """Make this host's unique local /48 from random bytes (RFC 4193 section 3.2).

    Args:
        seed: At least 5 bytes, drawn once and kept with the state.
    """
    packed = b"\xfd" + seed[:5] + bytes(10)
    return IPv6Network((packed, 48))


def gateway_of(prefix: Prefix) -> str:
    """Return the address a gateway has when none was named: the first usable one."""
    step = 1 if prefix.prefixlen < prefix.max_prefixlen - 1 else 0
    return str(ip_network(prefix).network_address + step)
