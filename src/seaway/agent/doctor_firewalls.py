"""What other firewalls do to our packets, and how to make them let ours through.

Each cure was tried on the real program: ufw 0.36.2, firewalld 1.3.3, nft 1.0.6.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from typing import Final

from seaway.agent.findings import Said, fail, ok, warn
from seaway.kernel import host_firewall
from seaway.kernel.facts import DropChain, Firewalld, Firewalls
from seaway.kernel.host_firewall import LINKS

_NFT_LINKS: Final = LINKS.replace("+", "*")


def firewalls(walls: Firewalls) -> Said:
    """Judge every firewall that was found; say so when there is none."""
    found = [*_iptables(walls), *_firewalld(walls.firewalld), *_drop_chains(walls)]
    if walls.ufw:
        found.append(
            ok(
                "ufw is active; it does not filter published ports: "
                "to choose the clients use -p ...,from=CIDR"
            )
        )
    if walls.bridge_filter:
        found.append(
            ok("br_netfilter shows bridged frames to iptables; our containers use no bridge")
        )
    if walls.shut_bridges:
        found.append(
            ok(
                f"behind {' and '.join(walls.shut_bridges)} are other engines' containers: "
                "ours reach their published ports only"
            )
        )
    yield from found or [ok("no other firewall stands in the way")]


def _firewalld(found: Firewalld | None) -> Said:
    if found is None:
        return
    if found.accepts:
        yield ok(f"firewalld has our links in its zone {found.zone}, which accepts them")
    elif found.zone:
        yield fail(
            f"firewalld has our links in its zone {found.zone}, which rejects "
            "what containers send to the world and to this host",
            _trust(),
        )
    else:
        yield warn(
            "firewalld rejects what containers send to the world and to this host; the agent "
            "sees to that while it runs and firewall-cmd is installed",
            _trust(),
        )


def _trust() -> str:
    return (
        f"firewall-cmd --permanent --zone=trusted --change-interface={LINKS} "
        "&& firewall-cmd --reload"
    )


def _iptables(walls: Firewalls) -> Said:
    iptables = walls.iptables
    docker = walls.docker or iptables.docker
    if commands := host_firewall.plan(iptables):
        closed = iptables.drops_forwarded or iptables.drops_incoming
        what = (
            "iptables drops what nobody accepts, and our own rules are not as they should be"
            if closed
            else "rules of ours are left in iptables, which needs them no more"
        )
        yield warn(
            f"{what}; the agent sees to that while it runs",
            " && ".join(map(shlex.join, commands)),
        )
        return
    if iptables.drops_forwarded:
        who = "Docker" if docker else "ufw" if walls.ufw else "iptables"
        yield ok(
            f"{who} drops forwarded packets that nobody accepts; our rules with the comment "
            f"{host_firewall.COMMENT!r} let containers' through"
        )
    elif docker:
        yield ok("Docker runs beside Seaway, and its FORWARD policy is not in the way")
    if iptables.drops_incoming:
        yield ok(
            "iptables drops incoming packets that nobody accepts; our rules with the comment "
            f"{host_firewall.COMMENT!r} let containers' questions for names through"
        )


def _drop_chains(walls: Firewalls) -> Said:
    for chain in walls.chains:
        if _judged_elsewhere(chain, walls):
            continue
        needed = ("iifname", "oifname") if chain.hook == "forward" else ("iifname",)
        missing = [side for side in needed if side not in chain.admits]
        name = f"{chain.family} {chain.table} {chain.name}"
        if not missing:
            yield ok(f"nftables chain {name} drops by policy, but lets our links through")
        elif chain.hook == "forward":
            yield fail(
                f"nftables chain {name} drops what is forwarded from and to containers",
                _insert(f"insert rule {name} {side} {_NFT_LINKS} accept" for side in missing),
            )
        else:
            yield fail(
                f"nftables chain {name} drops the questions that containers ask this host, "
                "so they find no names",
                _admit_dns(chain),
            )


def _judged_elsewhere(chain: DropChain, walls: Firewalls) -> bool:
    """Is the chain's owner known, and the cure therefore another?"""
    if chain.table == "firewalld":
        return walls.firewalld is not None
    if chain.family not in ("ip", "ip6") or chain.table != "filter":
        return False
    return chain.name in ("FORWARD", "INPUT") and bool(walls.iptables.filters)


def _admit_dns(chain: DropChain) -> str:
    where = f"{chain.family} {chain.table} {chain.name}"
    return _insert(
        f"insert rule {where} iifname {_NFT_LINKS} {p} dport 53 accept" for p in ("udp", "tcp")
    )


def _insert(rules: Iterable[str]) -> str:
    return f"nft '{'; '.join(rules)}'".replace(_NFT_LINKS, f'"{_NFT_LINKS}"')
