"""Join tokens: the fingerprint of the cluster's authority, and a secret.

The first makes the new host sure of the cluster before it says anything; the second
makes the cluster sure of the new host.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass, field
from typing import Final

from seaway.errors import InvalidSpec

PREFIX: Final = "SWY1"
FINGERPRINT_DIGITS: Final = 64
SECRET_DIGITS: Final = 32

_LENGTH: Final = len(PREFIX) + 1 + FINGERPRINT_DIGITS + 1 + SECRET_DIGITS
_ADVICE: Final = "copy the line that `seaway cluster token` prints on a host of the cluster"


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """What lets a host into a cluster; str() writes it out, repr() does not.

    Attributes:
        fingerprint: SHA-256 of the authority's certificate, 64 hexadecimal digits.
        secret: 32 hexadecimal digits (128 bits).
    """

    fingerprint: str
    secret: str = field(repr=False)

    def __str__(self) -> str:
        return f"{PREFIX}-{self.fingerprint}-{self.secret}"


def make_token(fingerprint: str) -> Token:
    """Draw a new secret for the authority with *fingerprint*."""
    return Token(fingerprint=fingerprint, secret=secrets.token_hex(SECRET_DIGITS // 2))


def parse_token(text: str) -> Token:
    """Read a token as somebody has pasted it: blanks, line ends and case do not matter.

    Raises:
        InvalidSpec: Not a token, cut off, too long, or with other characters; says which.
    """
    given = "".join(text.split())
    prefix, _, rest = given.partition("-")
    if prefix.upper() != PREFIX:
        if prefix[:3].upper() == PREFIX[:3] and prefix[3:].isdigit():
            raise InvalidSpec(
                f"the join token starts with {prefix}-, not {PREFIX}-: it is of another Seaway's "
                "making: upgrade this one"
            )
        raise InvalidSpec(f"this is no join token, it does not start with {PREFIX}-: {_ADVICE}")
    if len(given) != _LENGTH:
        what = "cut off" if len(given) < _LENGTH else "too long"
        raise InvalidSpec(
            f"the join token is {what}: {len(given)} characters instead of {_LENGTH}; {_ADVICE}"
        )
    fingerprint, _, secret = rest.lower().partition("-")
    for part, digits in ((fingerprint, FINGERPRINT_DIGITS), (secret, SECRET_DIGITS)):
        if len(part) != digits or not set(part) <= set("0123456789abcdef"):
            raise InvalidSpec(f"the join token is mistyped: {_where(rest)}; {_ADVICE}")
    return Token(fingerprint=fingerprint, secret=secret)


def secret_hash(secret: str) -> str:
    """Return what the cluster keeps of a secret: its SHA-256, hexadecimal."""
    return hashlib.sha256(secret.encode()).hexdigest()


def secret_fits(secret: str, kept: str) -> bool:
    """Compare a secret with what secret_hash() kept, in a time that tells nothing."""
    return bool(kept) and hmac.compare_digest(secret_hash(secret).encode(), kept.encode())


def _where(rest: str) -> str:
    """Name the first character that cannot be there."""
    for place, sign in enumerate(rest.lower()):
        wanted = "-" if place == FINGERPRINT_DIGITS else "0123456789abcdef"
        if sign not in wanted:
            return f"character {place + len(PREFIX) + 2} is {sign!r}"
    return "a hyphen is in the wrong place"
