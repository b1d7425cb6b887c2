"""Reverse names: which address does ``4.3.2.1.in-addr.arpa`` mean, and is it ours?

Pure functions on bytes and addresses.

Source: RFC 1035 section 3.5, RFC 3596 section 2.5.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

Address = IPv4Address | IPv6Address

_V4_ZONE = b"\x07in-addr\x04arpa\0"
_V6_ZONE = b"\x03ip6\x04arpa\0"
_V6_DIGITS = 32
_HEX = frozenset(b"0123456789abcdef")


def address_of(name: bytes, labels: tuple[int, ...]) -> Address | None:
    """Return the address that a complete reverse name stands for.

    Args:
        name: Lower case, in wire form.
        labels: Where each label of *name* starts.

    Returns:
        None for any other name, and for the name of a whole reverse zone.
    """
    if len(labels) == 6 and name[labels[4] :] == _V4_ZONE:
        return _v4(name, labels)
    if len(labels) == _V6_DIGITS + 2 and name[labels[_V6_DIGITS] :] == _V6_ZONE:
        return _v6(name)
    return None


def _v4(name: bytes, labels: tuple[int, ...]) -> IPv4Address | None:
    parts = [name[at + 1 : at + 1 + name[at]] for at in labels[:4]]
    if not all(part.isdigit() and len(part) <= 3 for part in parts):
        return None
    octets = [int(part) for part in reversed(parts)]
    return IPv4Address(bytes(octets)) if max(octets) <= 255 else None


def _v6(name: bytes) -> IPv6Address | None:
    digits = name[1 : 2 * _V6_DIGITS : 2]
    if len(name) != 2 * _V6_DIGITS + len(_V6_ZONE) or not set(digits) <= _HEX:
        return None
    return IPv6Address(bytes.fromhex(digits[::-1].decode("ascii")))


class Subnets:
    """A set of subnets that finds the one around an address.

    A look-up costs one dictionary access per *length* of prefix in use, not per subnet.
    """

    def __init__(self, subnets: Iterable[IPv4Network | IPv6Network] = ()) -> None:
        self._by_length: dict[tuple[int, int], set[int]] = {}
        for subnet in subnets:
            spare = subnet.max_prefixlen - subnet.prefixlen
            prefix = int(subnet.network_address) >> spare
            self._by_length.setdefault((subnet.version, spare), set()).add(prefix)

    def __contains__(self, address: Address) -> bool:
        number = int(address)
        return any(
            version == address.version and number >> spare in prefixes
            for (version, spare), prefixes in self._by_length.items()
        )
