"""Names: what users may call things, and what Seaway calls kernel objects."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from typing import Final

from seaway.errors import InvalidSpec

IFNAME_MAX: Final = 15
"""Visible characters in an interface name (IFNAMSIZ - 1, include/uapi/linux/if.h)."""

VETH_PREFIX: Final = "swv-"
"""Host side of every endpoint's veth pair.  nftables rules match ``swv-*``."""

GATEWAY_LINK: Final = "swg0"
"""The one link that carries the gateway addresses of all networks."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_ID = re.compile(
    r"[0-9a-f]{12}"
)  # as we and engines write them; in full they are too long for names
_LABEL_MAX = 63  # octets in a DNS label, RFC 1035 section 2.3.4
_NAMED = 5  # of many


def check_name(kind: str, name: str) -> str:
    """Return *name*, or say why no network, container or alias can be called so.

    The rule is Docker's, with DNS's limit on length, because every name is
    also a DNS name.

    Raises:
        InvalidSpec: Empty, too long, or with characters outside [A-Za-z0-9_.-].
    """
    if not _NAME.fullmatch(name):
        raise InvalidSpec(
            f"{kind} name {name!r} is not valid: use letters, digits, '_', '.' and '-', "
            "starting with a letter or digit"
        )
    if any(len(label) > _LABEL_MAX for label in name.split(".")) or len(name) > 200:
        raise InvalidSpec(f"{kind} name {name!r} is too long: at most {_LABEL_MAX} characters")
    return name


def check_new_name(kind: str, name: str) -> str:
    """As check_name(), for what is about to be called so: it must not pass for an id either.

    Raises:
        InvalidSpec: Not a name, or 12 hexadecimal digits.
    """
    if _ID.fullmatch(name):
        raise InvalidSpec(f"{kind} name {name!r} looks like an id: choose a name that does not")
    return check_name(kind, name)


def some_of(names: Sequence[str]) -> str:
    """Name five at most and count the rest, e.g. "a, b, c, d, e and 8 more"."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more}"


def digest(*parts: str) -> bytes:
    """Hash *parts* so that moving a character between two of them changes the result."""
    return hashlib.sha256("\0".join(parts).encode()).digest()


def ifname(prefix: str, owner: str) -> str:
    """Name the interface that *owner* owns, e.g. ``swv-k5w3qx2mna7``.

    The hash comes from the whole identifier, so two long names that differ
    only at the end still differ here, and a restart computes the same name.

    Args:
        prefix: ASCII role tag, at most 4 characters.
        owner: Endpoint or network id, any length.

    Source:
        Length limit: IFNAMSIZ in include/uapi/linux/if.h.
    """
    tail = base64.b32encode(digest(owner)).decode().lower()
    return (prefix + tail)[:IFNAME_MAX]


def mac_for(owner: str) -> str:
    """Make the MAC address that *owner* keeps for life.

    Locally administered and unicast: the two low bits of the first octet
    (IEEE 802-2014 section 8.2.2).
    """
    return ":".join(["02", *(f"{octet:02x}" for octet in digest("mac", owner)[:5])])
