"""What other firewalls do to our packets, and how to make them let ours through.

Each cure was tried on the real program: ufw 0.36.2, firewalld 1.3.3, nft 1.0.6.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from typing import Final

from seaway.agent.findings import Said, fail, ok, warn
from seaway.kernel import forward_policy
from seaway.kernel.facts import DropChain, Firewalls, Ufw
from seaway.kernel.forward_policy import LINKS

_NFT_LINKS: Final = LINKS.replace("+", "*")


def firewalls(walls: Firewalls) -> Said:
    """Judge every firewall that was found; say so when there is none."""
    found = [*_ufw(walls.ufw), *_firewalld(walls), *_forward_policy(walls), *_drop_chains(walls)]
    if walls.bridge_filter:
        found.append(
            ok("br_netfilter shows bridged frames to iptables; our containers use no bridge")
        )
    yield from found or [ok("no other firewall stands in the way")]


def _ufw(ufw: Ufw | None) -> Said:
    if ufw is None:
        return
    if ufw.denies_incoming and not ufw.admits_dns:
        yield fail(
            "ufw drops the questions that containers ask this host, so they find no names",
            f"ufw allow in on {LINKS} to any port 53",
        )
    yield ok(
        "ufw is active; it does not filter published ports: "
        "to choose the clients use -p ...,from=CIDR"
    )


def _firewalld(walls: Firewalls) -> Said:
    if walls.firewalld is None:
        return
    if walls.firewalld.zone:
        yield ok(f"firewalld has our links in its zone {walls.firewalld.zone}")
        return
    yield fail(
        "firewalld rejects what containers send to the world and to this host",
        f"firewall-cmd --permanent --zone=trusted --change-interface={LINKS} "
        "&& firewall-cmd --reload",
    )


def _forward_policy(walls: Firewalls) -> Said:
    docker = walls.docker or walls.forward.docker
    who = "Docker" if docker else "ufw" if walls.ufw else "another firewall"
    if commands := forward_policy.plan(walls.forward):
        yield warn(
            f"iptables' FORWARD policy is {who}'s and our rules beside it are not as they "
            "should be; the agent sees to that while it runs",
            " && ".join(map(shlex.join, commands)),
        )
    elif walls.forward.drops:
        yield ok(
            f"{who} drops forwarded packets by policy; two rules with the comment "
            f"{forward_policy.COMMENT!r} let ours through"
        )
    elif walls.docker:
        yield ok("Docker runs beside Seaway and its FORWARD policy is not in the way")


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
    if not _is_iptables(chain):
        return False
    return bool(walls.forward.filters) if chain.hook == "forward" else walls.ufw is not None


def _is_iptables(chain: DropChain) -> bool:
    return chain.family in ("ip", "ip6") and (chain.table, chain.name) in (
        ("filter", "FORWARD"),
        ("filter", "INPUT"),
    )


def _admit_dns(chain: DropChain) -> str:
    if _is_iptables(chain):
        command = "iptables" if chain.family == "ip" else "ip6tables"
        rule = f"{command} -I INPUT -i {LINKS} -p {{}} --dport 53 -j ACCEPT"
        return " && ".join(map(rule.format, ("udp", "tcp")))
    where = f"{chain.family} {chain.table} {chain.name}"
    return _insert(
        f"insert rule {where} iifname {_NFT_LINKS} {p} dport 53 accept" for p in ("udp", "tcp")
    )


def _insert(rules: Iterable[str]) -> str:
    return f"nft '{'; '.join(rules)}'".replace(_NFT_LINKS, f'"{_NFT_LINKS}"')
