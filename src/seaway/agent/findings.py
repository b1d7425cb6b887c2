"""What the doctor says: findings, their levels and subjects, and their shape in JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad it is; from good to bad."""

    OK = "ok"
    WARN = "warn"  # works, but less than it should, or not for long
    FAIL = "fail"  # something Seaway promises does not work here


class Subject(StrEnum):
    """What a finding is about.  Scripts may rely on these words."""

    PRIVILEGE = "privilege"
    AGENT = "agent"
    KERNEL = "kernel"
    NFTABLES = "nftables"
    CONNTRACK = "conntrack"
    ENGINE = "engine"
    FIREWALL = "firewall"
    FORWARDING = "forwarding"
    IPV6 = "ipv6"
    ROUTING = "routing"
    MTU = "mtu"
    DNS = "dns"
    PORTS = "ports"
    LIMITS = "limits"
    STATE = "state"
    HOSTS = "hosts"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        what: One sentence: how it is, and what follows from that.
        cure: A command line to type as root; empty exactly when all is well.
    """

    level: Level
    subject: Subject
    what: str
    cure: str = ""

    def __post_init__(self) -> None:
        if bool(self.cure) == (self.level is Level.OK):
            raise ValueError(f"{self.level} with cure {self.cure!r}: {self.what}")


def worst(findings: Iterable[Finding]) -> Level:
    """Return the worst level; nothing found is OK."""
    order = list(Level)
    return max((f.level for f in findings), key=order.index, default=Level.OK)


def as_json(findings: Iterable[Finding]) -> dict[str, object]:
    """Shape findings for ``--format json``.

    Returns:
        {"worst": level, "findings": [{"level", "subject", "what", "cure"}, ...]}.
    """
    found = tuple(findings)
    return {
        "worst": str(worst(found)),
        "findings": [
            {"level": str(f.level), "subject": str(f.subject), "what": f.what, "cure": f.cure}
            for f in found
        ],
    }


Verdict = tuple[Level, str, str]
"""Level, what, cure: a finding before its subject is known."""
Said = Iterator[Verdict]


def ok(what: str) -> Verdict:
    """All is well."""
    return Level.OK, what, ""


def warn(what: str, cure: str) -> Verdict:
    """It works, but less than it should, or not for long."""
    return Level.WARN, what, cure


def fail(what: str, cure: str) -> Verdict:
    """Something Seaway promises does not work here."""
    return Level.FAIL, what, cure
