"""Who else on this machine may drop our packets.  Looks, and changes nothing."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from seaway.kernel import firewalld, host_firewall, surroundings
from seaway.kernel.facts import DropChain, Firewalld, Firewalls
from seaway.kernel.host_firewall import LINKS
from seaway.kernel.netlink import Netlink
from seaway.plan.resources import TABLE

ETC: Final = Path("/etc")
_NFT_LINKS: Final = LINKS.replace("+", "*")
_SIDES: Final = frozenset({"iifname", "oifname"})


def find(etc: Path = ETC) -> Firewalls:
    """Look at ufw, firewalld, Docker, iptables and foreign nftables chains.

    Args:
        etc: Where the configuration files are; another folder only in tests.
    """
    return Firewalls(
        ufw=ufw(etc),
        firewalld=_firewalld(),
        docker="dockerd" in running({"dockerd"}),
        iptables=host_firewall.observe(),
        chains=drop_chains(),
        bridge_filter=_text(Path("/proc/sys/net/bridge/bridge-nf-call-iptables")).strip() == "1",
        shut_bridges=_shut_bridges(),
    )


def ufw(etc: Path = ETC) -> bool:
    """Is ufw active?  Its own files say so (ufw 0.36.2)."""
    return _setting(_text(etc / "ufw/ufw.conf"), "ENABLED") == "yes"


def _firewalld() -> Firewalld | None:
    zone = firewalld.zone()
    return None if zone is None else Firewalld(zone=zone, accepts=firewalld.accepts(zone))


def _shut_bridges() -> tuple[str, ...]:
    with Netlink() as sock:
        return tuple(name for name, leads in surroundings.bridges(sock).items() if not leads)


def running(names: Iterable[str]) -> frozenset[str]:
    """Tell which of these programs run in our network namespace.

    Args:
        names: As in /proc/PID/comm, at most 15 characters.
    """
    here = _namespace("thread-self")
    return frozenset(
        name
        for comm in Path("/proc").glob("[0-9]*/comm")
        if (name := _text(comm).strip()) in names and _namespace(comm.parent.name) == here
    )


def drop_chains() -> tuple[DropChain, ...]:
    """Find nftables base chains of others that drop forwarded or incoming packets by policy."""
    chains = parse_chains(_nft("list chains"))
    return tuple(
        DropChain(
            family=c.family,
            table=c.table,
            name=c.name,
            hook=c.hook,
            admits=parse_admits(_nft(f"list chain {c.family} {c.table} {c.name}")),
        )
        for c in chains
    )


def parse_chains(listing: str) -> tuple[DropChain, ...]:
    """Pick out of ``nft -j list chains`` the chains whose policy can hurt us.

    Rules that drop are not looked for: what they are about is their owner's
    business, and a policy is about everything.
    """
    return tuple(
        DropChain(family=c["family"], table=c["table"], name=c["name"], hook=c["hook"])
        for c in _objects(listing, "chain")
        if c.get("policy") == "drop"
        and c.get("hook") in ("forward", "input")
        and c["family"] in ("ip", "ip6", "inet")
        and c["table"] != TABLE
    )


def parse_admits(listing: str) -> frozenset[str]:
    """Tell from ``nft -j list chain`` for which sides an accept names our links."""
    return frozenset(
        side
        for rule in _objects(listing, "rule")
        if any("accept" in statement for statement in rule["expr"])
        for statement in rule["expr"]
        if (side := _side(statement)) is not None
    )


def _side(statement: dict[str, Any]) -> str | None:
    match statement:
        case {"match": {"left": {"meta": {"key": str(key)}}, "right": str(right)}}:
            ours = key in _SIDES and right == _NFT_LINKS
            return key if ours else None
    return None


def _objects(listing: str, kind: str) -> Iterator[dict[str, Any]]:
    """Yield the objects of one kind out of libnftables-json(5) output; "" holds none."""
    for item in json.loads(listing)["nftables"] if listing else ():
        if kind in item:
            yield item[kind]


def _nft(command: str) -> str:
    """Ask nft for JSON; "" when it is missing, refused, or the object has just gone."""
    try:
        done = subprocess.run(
            ["nft", "-j", *command.split()], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return ""
    return done.stdout if done.returncode == 0 else ""


def _setting(text: str, name: str) -> str:
    """Return the value of NAME=value in a file of shell settings, lower case, unquoted."""
    found = re.findall(rf"^\s*{name}=(.*)$", text, re.MULTILINE)
    return str(found[-1]).strip().strip("\"'").lower() if found else ""


def _namespace(process: str) -> str:
    try:
        return str(Path("/proc", process, "ns/net").readlink())
    except OSError:
        return ""


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
