"""Beside iptables: the only foreign rules Seaway keeps.

Docker and ufw set the policy of iptables' FORWARD chain to DROP, ufw and many
administrators that of INPUT; other machines come with chains whose last rule
rejects all that is left.  An accept in our own nftables table is not final: the
packet meets their chains as well and dies there.  So while a chain is closed in
one of these ways, rules with the comment "seaway" let through, at the head of

- FORWARD, what comes from and goes to our interfaces.  Our own table has
  already decided about those packets, also about what is not Seaway's to
  reach: other engines' containers.  Where there is Docker, the rules stand in
  DOCKER-USER, the chain that it leaves to its users and never empties;
- INPUT, what containers ask the name server on their gateway, and nothing else.

A policy is never changed, a rule without our comment never touched, and when
the chain is open again our rules go.  Whether they stand first is checked
only when they are put there: two programs that both insist on being first
would fight for ever.

Everything happens in the network namespace of the calling thread.

Source:
    nft(8), "verdict statements": accept ends the current base chain only.
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

from seaway.kernel.commands import Command, ask, run

COMMENT: Final = "seaway"
LINKS: Final = "swv+"
"""Our interfaces, as iptables, ufw and firewalld write "everything that starts with swv"."""

_ACCEPT: Final = ("-m", "comment", "--comment", COMMENT, "-j", "ACCEPT")
FORWARDED: Final = tuple((side, LINKS, *_ACCEPT) for side in ("-i", "-o"))
"""The rules in a closed FORWARD, as iptables prints them back."""
QUESTIONS: Final = tuple(
    ("-i", LINKS, "-p", kind, "-m", kind, "--dport", "53", *_ACCEPT) for kind in ("udp", "tcp")
)
"""The rules in a closed INPUT, likewise."""

DOCKER_USER: Final = "DOCKER-USER"
_LOCK_SECONDS: Final = "5"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A rule of ours where it stands.  ``spec`` is all after the chain's name."""

    chain: str
    spec: Command


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """The filter table of one iptables command.

    Attributes:
        command: e.g. "iptables-nft", "ip6tables-legacy".
        drops_forwarded: FORWARD is closed: nothing passes that no rule accepts.
        drops_incoming: INPUT is closed.
        docker: FORWARD consults DOCKER-USER.
        ours: n rules with our comment, in the order they stand.
    """

    command: str
    drops_forwarded: bool = False
    drops_incoming: bool = False
    docker: bool = False
    ours: tuple[Rule, ...] = ()

    @property
    def wanted(self) -> tuple[Rule, ...]:
        """Our rules as they should stand."""
        home = DOCKER_USER if self.docker else "FORWARD"
        forwarded = FORWARDED if self.drops_forwarded else ()
        questions = QUESTIONS if self.drops_incoming else ()
        return (
            *(Rule(chain=home, spec=spec) for spec in forwarded),
            *(Rule(chain="INPUT", spec=spec) for spec in questions),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFirewall:
    """One Filter per family and back end that is in use, IPv4 first."""

    filters: tuple[Filter, ...] = ()

    @property
    def drops_forwarded(self) -> bool:
        """Does any of them drop forwarded packets that nobody accepts?"""
        return any(f.drops_forwarded for f in self.filters)

    @property
    def drops_incoming(self) -> bool:
        """Does any of them drop packets for this host that nobody accepts?"""
        return any(f.drops_incoming for f in self.filters)

    @property
    def docker(self) -> bool:
        """Has Docker put its chain for users there?"""
        return any(f.docker for f in self.filters)


def observe() -> HostFirewall:
    """Read INPUT, FORWARD and DOCKER-USER of every iptables in use.

    A machine without iptables, or a family that the kernel does not speak,
    yields no Filter.

    Kernel:
        At most three runs of ``iptables -S`` a Filter, about 2 ms each.  CAP_NET_ADMIN.
    """
    return HostFirewall(filters=tuple(f for c in _commands() if (f := _observe(c)) is not None))


def plan(observed: HostFirewall) -> tuple[Command, ...]:
    """Compute the commands that leave our rules exactly where they are needed.

    New rules come before old ones go, so a chain change lets no packet drop.
    Empty when nothing is to do.
    """
    return tuple(command for f in observed.filters for command in _plan(f))


def ensure() -> tuple[str, ...]:
    """Bring our rules where they belong.

    Returns:
        The commands that were run; empty when nothing was to do.

    Raises:
        KernelError: iptables refused, for one because the chain has just gone;
            looking again later is the remedy.
    """
    return run(plan(observe()))


def remove() -> tuple[str, ...]:
    """Remove every rule with our comment from the filter table, whatever its chain.

    Needs no state; the absence of iptables or of rules is success.

    Raises:
        KernelError: iptables refused.
    """
    commands: list[Command] = []
    for command in _commands():
        listing = _list(command)
        commands.extend(_delete(command, rule) for rule in ours(listing or ""))
    return run(commands)


def parse(command: str, *listings: str) -> Filter:
    """Turn the outputs of ``iptables -S CHAIN``, one a chain, into a Filter."""
    text = "\n".join(listings)
    lines = text.splitlines()
    return Filter(
        command=command,
        drops_forwarded=_closed("FORWARD", lines),
        drops_incoming=_closed("INPUT", lines),
        docker=f"-A FORWARD -j {DOCKER_USER}" in lines,
        ours=ours(text),
    )


def _closed(chain: str, lines: Iterable[str]) -> bool:
    """Is all dropped that no rule accepts: by policy, or by a rule that asks for nothing?"""
    ends = (f"-P {chain} DROP", f"-A {chain} -j DROP")
    return any(line in ends or line.startswith(f"-A {chain} -j REJECT ") for line in lines)


def ours(listing: str) -> tuple[Rule, ...]:
    """Pick the rules with our comment out of ``iptables -S``."""
    found = []
    for line in listing.splitlines():
        if COMMENT not in line:  # thousands of other rules are not worth splitting
            continue
        words = shlex.split(line)
        if words[0] == "-A" and ("--comment", COMMENT) in pairwise(words):
            found.append(Rule(chain=words[1], spec=tuple(words[2:])))
    return tuple(found)


def _plan(observed: Filter) -> list[Command]:
    spare = list(observed.ours)
    commands: list[Command] = []
    for rule in reversed(observed.wanted):
        if rule in spare:
            spare.remove(rule)  # one is enough: a second one like it stays in spare and goes
        else:
            commands.append((*_call(observed.command), "-I", rule.chain, "1", *rule.spec))
    return commands + [_delete(observed.command, rule) for rule in spare]


def _call(command: str) -> Command:
    return (command, "-w", _LOCK_SECONDS)


def _delete(command: str, rule: Rule) -> Command:
    return (*_call(command), "-D", rule.chain, *rule.spec)


def _commands() -> tuple[str, ...]:
    return tuple(c for family in ("ip", "ip6") for c in _back_ends(family))


def _back_ends(family: str) -> Iterable[str]:
    """Name the iptables commands whose tables may hold rules.

    The legacy one is asked only where its table exists: asking creates it.
    """
    nft, legacy = f"{family}tables-nft", f"{family}tables-legacy"
    if shutil.which(nft):
        yield nft
    elif not shutil.which(legacy) and shutil.which(f"{family}tables"):
        yield f"{family}tables"
    if shutil.which(legacy) and "filter" in _tables(family):
        yield legacy


def _tables(family: str) -> list[str]:
    try:
        return Path(f"/proc/thread-self/net/{family}_tables_names").read_text().split()
    except OSError:  # the module is not loaded
        return []


def _observe(command: str) -> Filter | None:
    forward = _list(command, "FORWARD")
    if forward is None:
        return None
    docker = f"-j {DOCKER_USER}" in forward
    chains = ("INPUT", DOCKER_USER) if docker else ("INPUT",)
    return parse(command, forward, *(_list(command, chain) or "" for chain in chains))


def _list(command: str, *chain: str) -> str | None:
    return ask(*_call(command), "-S", *chain)
