"""The virtual wire: namespaces, the bridge between them, and cutting it.

The bridge is alone in a namespace of its own, so no packet filter of the
machine ever sees the lab's frames, and no lab's frames reach the machine.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Interface, IPv6Interface
from pathlib import Path
from typing import Final

from seaway.errors import KernelError, NotFound
from seaway.kernel import netns
from seaway.lab.programs import ip_batch, run
from seaway.lab.topology import (
    INTERNET_4,
    INTERNET_6,
    OUTSIDE,
    UNDERLAY_4,
    UNDERLAY_6,
    WIRE,
    Lab,
    Machine,
)

LINK: Final = "eth0"
"""Every machine's one link to the wire."""

_PROC_SYS = Path("/proc/sys")  # its net/ shows the namespace of the reading thread

_BRIDGE_LINES = (
    # No spanning tree and no snooping: a port carries frames at once, and
    # IPv6 neighbour discovery needs no querier.
    f"link add {WIRE} type bridge stp_state 0 forward_delay 0 mcast_snooping 0",
    f"link set {WIRE} up",
)

_WIRE_SYSCTLS = {
    # Off, or every frame would also pass the routed hooks and connection tracking.
    "net/bridge/bridge-nf-call-arptables": "0",
    "net/bridge/bridge-nf-call-iptables": "0",
    "net/bridge/bridge-nf-call-ip6tables": "0",
    # A wire has no addresses of its own.
    "net/ipv6/conf/all/disable_ipv6": "1",
    "net/ipv6/conf/default/disable_ipv6": "1",
}

_MACHINE_SYSCTLS = {
    # A namespace starts with the machine's own IPv4 settings.  These are a
    # freshly installed machine's: no forwarding, loose reverse-path filter as
    # systemd's sysctl.d/50-default.conf sets it.  ip_forward resets others,
    # so it is the first.
    "net/ipv4/ip_forward": "0",
    "net/ipv4/conf/all/rp_filter": "0",
    "net/ipv4/conf/default/rp_filter": "2",
    "net/ipv4/conf/all/route_localnet": "0",
    "net/ipv4/conf/default/route_localnet": "0",
    "net/ipv6/conf/all/disable_ipv6": "0",
    "net/ipv6/conf/default/disable_ipv6": "0",
}

_LINK_SYSCTLS = {
    # No duplicate-address detection on the link: usable at once.
    f"net/ipv6/conf/{LINK}/accept_dad": "0",
    f"net/ipv6/conf/{LINK}/accept_ra": "0",
}

_TABLE = "bridge seaway_lab"
_CUT_RULES = f"""\
add table {_TABLE}
add set {_TABLE} cut {{ type ifname . ifname ; }}
add chain {_TABLE} forward {{ type filter hook forward priority 0 ; }}
flush chain {_TABLE} forward
add rule {_TABLE} forward iifname . oifname @cut counter drop
"""


@dataclass(frozen=True, slots=True)
class Cuts:
    """What does not get through now.

    Attributes:
        off: Machines that are off the wire altogether.
        pairs: Directed pairs of machines that do not hear each other.
    """

    off: frozenset[str] = frozenset()
    pairs: frozenset[tuple[str, str]] = frozenset()


def lay(lab: Lab) -> None:
    """Make sure the bridge exists.  Asking twice is not an error.

    Raises:
        KernelError: Linux refused.
    """
    where = lab.wire_netns
    netns.share(str(where.parent))
    netns.create(str(where))
    if WIRE not in links(where):
        _set_sysctls(where, _WIRE_SYSCTLS)
        ip_batch(where, _BRIDGE_LINES)


def plug(lab: Lab, machine: Machine) -> None:
    """Make sure *machine* has its namespace, link, addresses and routes.

    What is there stays: forwarding that an agent has switched on, and a cut.

    Raises:
        KernelError: Linux refused.
    """
    if not netns.exists(str(machine.netns)):
        netns.create(str(machine.netns))
        _set_sysctls(machine.netns, _MACHINE_SYSCTLS)
    if machine.name not in links(lab.wire_netns) or LINK not in links(machine.netns):
        # One end alone belongs to a namespace that the kernel is still taking apart.
        _drop(lab.wire_netns, machine.name)
        _drop(machine.netns, LINK)
        ip_batch(lab.wire_netns, port_lines(machine))
        _set_sysctls(machine.netns, _LINK_SYSCTLS)
    ip_batch(machine.netns, address_lines(machine, lab.machine(OUTSIDE)))


def unplug(lab: Lab, machine: Machine) -> None:
    """Remove *machine*'s link, then let go of its namespace.  Fine if both have gone.

    The kernel takes a namespace apart some time after its last process; the
    port on the wire must be gone now, or booting again would find it.
    """
    _drop(lab.wire_netns, machine.name)
    netns.remove(str(machine.netns))


def port_lines(machine: Machine) -> tuple[str, ...]:
    """The ip(8) commands, in the wire's namespace, that connect *machine*."""
    peer = f"{LINK} address {machine.mac} netns {machine.netns.name}"
    return (
        f"link add {machine.name} type veth peer name {peer}",
        f"link set {machine.name} master {WIRE} up",
    )


def address_lines(machine: Machine, outside: Machine) -> tuple[str, ...]:
    """The ip(8) commands, in *machine*'s namespace, that configure it; each can be repeated.

    ``outside`` is every host's way to the internet, and the internet itself.
    """
    lines = (
        "link set lo up",
        f"addr replace {machine.v4} dev {LINK}",
        f"addr replace {machine.v6} dev {LINK} nodad",
        f"link set {LINK} up",
    )
    if machine.name == OUTSIDE:
        return (
            *lines,
            f"addr replace {INTERNET_4}/32 dev lo",
            f"addr replace {INTERNET_6}/128 dev lo nodad",
        )
    return (
        *lines,
        f"route replace default via {outside.v4.ip} dev {LINK}",
        f"route replace default via {outside.v6.ip} dev {LINK}",
    )


def readdress(lab: Lab, host: Machine, number: int) -> None:
    """Replace every address that *host* has on the wire by those that end in *number*.

    Raises:
        NotFound: The host is powered off.
        KernelError: Linux refused.
    """
    _check_plugged(host)
    moved = replace(
        host,
        v4=IPv4Interface(f"{UNDERLAY_4[number]}/{UNDERLAY_4.prefixlen}"),
        v6=IPv6Interface(f"{UNDERLAY_6.network_address}{number}/{UNDERLAY_6.prefixlen}"),
    )
    flush = [f"addr flush dev {LINK} scope global"]
    ip_batch(host.netns, [*flush, *address_lines(moved, lab.machine(OUTSIDE))])


def links(where: Path) -> dict[str, bool]:
    """The links in a namespace and whether each is up; empty if it has gone."""
    if not netns.exists(str(where)):
        return {}
    try:
        listing = run(["ip", "-json", "link", "show"], where)
    except NotFound:
        return {}
    return {link["ifname"]: "UP" in link["flags"] for link in json.loads(listing)}


def cut(lab: Lab, machine: Machine, other: Machine | None = None) -> None:
    """Take *machine* off the wire, or only part it from *other*, both ways.

    Off the wire, eth0 loses its carrier, as with a pulled cable; between two,
    frames just do not arrive, as with a broken switch.

    Raises:
        NotFound: The machine is powered off.
        KernelError: Linux refused.
    """
    for end in (machine, other) if other else (machine,):
        _check_plugged(end)
    if other is None:
        ip_batch(lab.wire_netns, [f"link set {machine.name} down"])
    else:
        pair = _elements({(machine.name, other.name), (other.name, machine.name)})
        run(["nft", "-f", "-"], lab.wire_netns, f"{_CUT_RULES}add element {_TABLE} cut {pair}\n")


def heal(lab: Lab, machine: Machine | None = None, other: Machine | None = None) -> None:
    """Undo ``cut``: between two machines, everything about one, or everything.

    Healing what is not cut is fine.

    Raises:
        KernelError: Linux refused.
    """
    now = cuts(lab)
    names = {end.name for end in (machine, other) if end}
    if pairs := {pair for pair in now.pairs if names.issubset(pair)}:
        gone = f"delete element {_TABLE} cut {_elements(pairs)}\n"
        run(["nft", "-f", "-"], lab.wire_netns, gone)
    if other is None and (back := [name for name in now.off if not names or name in names]):
        ip_batch(lab.wire_netns, [f"link set {name} up" for name in back])


def cuts(lab: Lab) -> Cuts:
    """Read from the kernel what is cut.

    Raises:
        KernelError: The kernel, or nft, cannot say.
    """
    ports = links(lab.wire_netns)
    if not ports:
        return Cuts()
    rules = run(["nft", "-json", "list", "ruleset", "bridge"], lab.wire_netns)
    return Cuts(
        off=frozenset(name for name, up in ports.items() if not up and name != "lo"),
        pairs=parse_pairs(rules),
    )


def parse_pairs(listing: str) -> frozenset[tuple[str, str]]:
    """Read the cut pairs out of nft's JSON; empty when nothing was ever cut.

    Source:
        libnftables-json(5), SET and CONCATENATION.
    """
    sets = [entry["set"] for entry in json.loads(listing)["nftables"] if "set" in entry]
    ours = [s for s in sets if f"{s['family']} {s['table']}" == _TABLE and s["name"] == "cut"]
    return frozenset((a, b) for s in ours for a, b in (e["concat"] for e in s.get("elem", ())))


def _drop(where: Path, link: str) -> None:
    """Remove *link*; fine if it has gone, also when it goes just now."""
    if link in links(where):
        try:
            ip_batch(where, [f"link del {link}"])
        except KernelError:
            if link in links(where):
                raise


def _elements(pairs: Collection[tuple[str, str]]) -> str:
    return "{ " + ", ".join(f'"{a}" . "{b}"' for a, b in sorted(pairs)) + " }"


def _check_plugged(machine: Machine) -> None:
    if not netns.exists(str(machine.netns)):
        raise NotFound(f"{machine.name} is off: switch it on with `{machine.start_command}`")


def _set_sysctls(where: Path, settings: Mapping[str, str]) -> None:
    """Write *settings*; those that this kernel does not have are left out."""
    with netns.inside(str(where)):
        for key, value in settings.items():
            if (path := _PROC_SYS / key).exists():
                path.write_text(value)
