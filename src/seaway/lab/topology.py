"""What a lab looks like: its machines, their names, addresses and folders.

Pure values; nothing here touches the system.

          swlab-<lab>-wire
      ---------- wire ----------           one bridge, one port for each machine
        |         |          |
      eth0      eth0       eth0
      host1     host2      outside         network namespaces swlab-<lab>-<machine>
      agent     agent      203.0.113.1     outside plays the internet
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)
from pathlib import Path
from typing import Final

from seaway.errors import InvalidSpec, NotFound
from seaway.model.names import mac_for

DEFAULT_NAME: Final = "lab"
OUTSIDE: Final = "outside"
WIRE: Final = "wire"

UNDERLAY_4: Final = IPv4Network("192.0.2.0/24")  # TEST-NET-1, RFC 5737
UNDERLAY_6: Final = IPv6Network("2001:db8:5ea::/64")  # documentation prefix, RFC 3849
OUTSIDE_NUMBER: Final = 200
"""Where ``outside`` sits in both prefixes: .200 and ::200 (read the same, not the same number)."""

INTERNET_4: Final = IPv4Address("203.0.113.1")  # TEST-NET-3, RFC 5737
INTERNET_6: Final = IPv6Address("2001:db8:ffff::1")
"""Addresses of "a server on the internet", on the loopback of ``outside``."""

HOSTS_MAX: Final = 99

STATE_ROOT: Final = Path("/var/lib/seaway/lab")
RUN_ROOT: Final = Path("/run/seaway/lab")
IMAGE_STORE: Final = Path("/var/lib/seaway/images")
"""Images that all hosts of all labs read; written by nobody here."""
NETNS_ROOT: Final = Path("/run/netns")  # where ip-netns(8) looks for names

_NAME = re.compile(r"[a-z]([a-z0-9-]{0,14}[a-z0-9])?")
# Podman refuses a run root of more than 50 characters, and a host's is
# /run/seaway/lab/<lab>/host99/podman: 16 for the name leaves a few to spare.
_NAMESPACE = re.compile(rf"swlab-(?P<lab>{_NAME.pattern})-(?P<machine>host[1-9]\d?|outside|wire)")
_HOST = re.compile(r"host([1-9]\d?)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A host, or ``outside``.

    Attributes:
        lab: Name of its lab.
        name: host1, host2, ... or outside; also its port's name on the wire.
        netns: Path that opens its network namespace.
        v4, v6: Its addresses on eth0.
        mac: Of its eth0, the same after a power-off.
        state_dir: Survives a power-off.  Unused by ``outside``.
        run_dir: Empty after a power-off.
    """

    lab: str
    name: str
    netns: Path
    v4: IPv4Interface
    v6: IPv6Interface
    mac: str
    state_dir: Path
    run_dir: Path

    @property
    def has_agent(self) -> bool:
        """Does an agent run on it?"""
        return self.name != OUTSIDE

    @property
    def start_command(self) -> str:
        """What to type to switch it on, for messages."""
        if self.has_agent:
            return command_line(self.lab, "start", self.name)
        return command_line(self.lab, "up")

    @property
    def socket(self) -> Path:
        """Where its agent's API answers; nothing is there for ``outside``."""
        return self.run_dir / "seaway.sock"

    @property
    def podman_root(self) -> Path:
        """Its own image and container storage."""
        return self.state_dir / "podman"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lab:
    """One lab.  Labs of different names share nothing but the kernel.

    Attributes:
        name: 1 to 16 of a-z, 0-9 and '-', starting with a letter.
        hosts: How many, 1..HOSTS_MAX.
        state_root: Folder of all labs' state.
        run_root: Folder of all labs' sockets and pid files.
    """

    name: str = DEFAULT_NAME
    hosts: int = 1
    state_root: Path = STATE_ROOT
    run_root: Path = RUN_ROOT

    def __post_init__(self) -> None:
        if not is_lab_name(self.name):
            raise InvalidSpec(
                f"lab name {self.name!r} is not valid: use 1 to 16 of a-z, 0-9 and '-', "
                "starting with a letter and not ending with '-'"
            )
        if not 1 <= self.hosts <= HOSTS_MAX:
            raise InvalidSpec(f"a lab has 1 to {HOSTS_MAX} hosts, not {self.hosts}")

    @property
    def host_names(self) -> tuple[str, ...]:
        """host1 .. hostN."""
        return tuple(f"host{n}" for n in range(1, self.hosts + 1))

    @property
    def machines(self) -> tuple[Machine, ...]:
        """Everything on the wire: the hosts, then ``outside``."""
        return tuple(self.machine(name) for name in (*self.host_names, OUTSIDE))

    @property
    def wire_netns(self) -> Path:
        """Path that opens the namespace of the bridge."""
        return self._netns(WIRE)

    @property
    def state_dir(self) -> Path:
        """The lab's own state, one folder for each host."""
        return self.state_root / self.name

    @property
    def run_dir(self) -> Path:
        """The lab's own sockets and pid files, one folder for each machine."""
        return self.run_root / self.name

    def host(self, name: str) -> Machine:
        """Look up a host, which has an agent.

        Raises:
            NotFound: The lab has no such host.
        """
        if name not in self.host_names:
            raise NotFound(f"lab {self.name!r} has no host {name!r}: {self._roll(self.host_names)}")
        return self.machine(name)

    def machine(self, name: str) -> Machine:
        """Look up a host or ``outside``.

        Raises:
            NotFound: The lab has no such machine.
        """
        names = (*self.host_names, OUTSIDE)
        if name not in names:
            raise NotFound(f"lab {self.name!r} has no machine {name!r}: {self._roll(names)}")
        number = OUTSIDE_NUMBER if name == OUTSIDE else int(name.removeprefix("host"))
        return Machine(
            lab=self.name,
            name=name,
            netns=self._netns(name),
            v4=IPv4Interface(f"{UNDERLAY_4[number]}/{UNDERLAY_4.prefixlen}"),
            # The decimal digits are written into the address: host12 is ::12.
            v6=IPv6Interface(f"{UNDERLAY_6.network_address}{number}/{UNDERLAY_6.prefixlen}"),
            mac=mac_for(f"lab/{self.name}/{name}"),
            state_dir=self.state_dir / name,
            run_dir=self.run_dir / name,
        )

    def _netns(self, tail: str) -> Path:
        return NETNS_ROOT / f"swlab-{self.name}-{tail}"

    def _roll(self, names: tuple[str, ...]) -> str:
        return f"it has {', '.join(names)}"


def command_line(lab: str, command: str, *words: str) -> str:
    """What to type to run ``seaway lab COMMAND`` on *lab*, for messages."""
    option = () if lab == DEFAULT_NAME else ("--name", lab)
    return " ".join(("seaway", "lab", command, *option, *words))


def is_lab_name(name: str) -> bool:
    """Can a lab be called *name*?"""
    return _NAME.fullmatch(name) is not None


def lab_of_namespace(namespace: str) -> tuple[str, str] | None:
    """Split ``swlab-<lab>-<machine>``; None for a namespace that is no lab's."""
    if found := _NAMESPACE.fullmatch(namespace):
        return found["lab"], found["machine"]
    return None


def count_hosts(names: Iterable[str]) -> int:
    """The highest N for which ``hostN`` is among *names*, or 0."""
    return max((int(m[1]) for m in map(_HOST.fullmatch, names) if m), default=0)
