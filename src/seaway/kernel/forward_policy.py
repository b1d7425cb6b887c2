"""Beside another firewall's FORWARD policy: the only foreign rules Seaway keeps.

Docker and ufw set the policy of iptables' FORWARD chain to DROP.  An accept in
our own nftables table is not final: the packet meets their chain as well and
dies there.  So while that policy stands, two rules with the comment "seaway"
accept what comes from and goes to our interfaces; our own table has already
decided about those packets.  They live in DOCKER-USER, the chain that Docker
leaves to its users and never empties, or in FORWARD where there is no Docker.

A policy is never changed, a rule without our comment never touched, and when
the policy is ACCEPT again our rules go.  Whether they stand first is checked
only when they are put there: two programs that both insist on being first
would fight for ever.

Everything happens in the network namespace of the calling thread.

Source:
    nft(8), "verdict statements": accept ends the current base chain only.
"""

from __future__ import annotations

import errno
import shlex
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

from seaway.errors import from_errno

COMMENT: Final = "seaway"
LINKS: Final = "swv+"
"""Our interfaces, as iptables, ufw and firewalld write "everything that starts with swv"."""

WANTED: Final = tuple(
    (side, LINKS, "-m", "comment", "--comment", COMMENT, "-j", "ACCEPT") for side in ("-i", "-o")
)
"""The two rules, as iptables prints them back."""

DOCKER_USER: Final = "DOCKER-USER"
_LOCK_SECONDS: Final = "5"
_LOCK_HELD = 4  # exit status of iptables when another run holds the lock, iptables(8)

Command = tuple[str, ...]


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
        drops: FORWARD's policy is DROP.
        docker: FORWARD consults DOCKER-USER.
        ours: n rules with our comment, in the order they stand.
    """

    command: str
    drops: bool = False
    docker: bool = False
    ours: tuple[Rule, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardPolicy:
    """One Filter per family and back end that is in use, IPv4 first."""

    filters: tuple[Filter, ...] = ()

    @property
    def drops(self) -> bool:
        """Does any of them drop what nobody accepts?"""
        return any(f.drops for f in self.filters)

    @property
    def docker(self) -> bool:
        """Has Docker put its chain for users there?"""
        return any(f.docker for f in self.filters)


def observe() -> ForwardPolicy:
    """Read FORWARD and DOCKER-USER of every iptables in use.

    A machine without iptables, or a family that the kernel does not speak,
    yields no Filter.

    Kernel:
        At most two runs of ``iptables -S`` a Filter, about 2 ms each.  CAP_NET_ADMIN.
    """
    return ForwardPolicy(filters=tuple(f for c in _commands() if (f := _observe(c)) is not None))


def plan(observed: ForwardPolicy) -> tuple[Command, ...]:
    """Compute the commands that leave our two rules exactly where they are needed.

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
    return _run(plan(observe()))


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
    return _run(commands)


def parse(command: str, forward: str, docker_user: str = "") -> Filter:
    """Turn the output of ``iptables -S CHAIN`` for both chains into a Filter."""
    lines = [shlex.split(line) for line in forward.splitlines()]
    return Filter(
        command=command,
        drops=["-P", "FORWARD", "DROP"] in lines,
        docker=["-A", "FORWARD", "-j", DOCKER_USER] in lines,
        ours=ours(forward + "\n" + docker_user),
    )


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
    home = DOCKER_USER if observed.docker else "FORWARD"
    spare = list(observed.ours)
    commands: list[Command] = []
    for spec in reversed(WANTED) if observed.drops else ():
        rule = Rule(chain=home, spec=spec)
        if rule in spare:
            spare.remove(rule)  # one is enough: a second one like it stays in spare and goes
        else:
            commands.append((*_call(observed.command), "-I", home, "1", *spec))
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
    return parse(command, forward, (_list(command, DOCKER_USER) or "") if docker else "")


def _list(command: str, *chain: str) -> str | None:
    done = subprocess.run([*_call(command), "-S", *chain], capture_output=True, text=True)  # noqa: PLW1510
    return done.stdout if done.returncode == 0 else None


def _run(commands: Iterable[Command]) -> tuple[str, ...]:
    ran = []
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True)  # noqa: PLW1510
        if done.returncode != 0:
            code = errno.EAGAIN if done.returncode == _LOCK_HELD else errno.EINVAL
            words = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise from_errno("run", shlex.join(command), code, words)
        ran.append(shlex.join(command))
    return tuple(ran)
