"""What kind of machine is this?  Gathers the facts that `seaway doctor` judges.

Read-only: nothing of this machine or of another program is changed, nothing
needs the agent.  What must be tried out is tried in a namespace that is thrown
away (features.py).  Everything is about the calling thread's network namespace.
"""

from __future__ import annotations

import fcntl
import os
import re
import resource
import socket
import struct
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from seaway.kernel import features, firewalls, ports_held
from seaway.kernel.facts import (
    Engine,
    Facts,
    Folder,
    Ipv6,
    Kernel,
    Occupied,
    Routing,
    Uplink,
    Version,
)
from seaway.model.network import Address
from seaway.model.ports import Protocol

FOLDERS: Final = (Path("/var/lib/seaway"), Path("/run/seaway"))
_SYSTEMD: Final = Path("/run/systemd/system")  # sd_booted(3)
_RUNTIMES: Final = ("crun", "runc")
_NEEDED: Final = (12, 21)  # CAP_NET_ADMIN, CAP_SYS_ADMIN, include/uapi/linux/capability.h
_SIOCGIFMTU: Final = 0x8921  # include/uapi/linux/sockios.h
_PROC: Final = Path("/proc/thread-self/net")
_SYSCTL: Final = Path("/proc/sys/net")

_RTF_ADDRCONF: Final = 0x00040000  # include/uapi/linux/ipv6_route.h
_RTF_REJECT: Final = 0x0200  # include/uapi/linux/route.h


def gather(folders: Iterable[Path] = FOLDERS) -> Facts:
    """Find out everything; takes a tenth of a second.

    Args:
        folders: What the agent must be able to write: its state and its run folder.
    """
    return Facts(
        privileged=_privileged(),
        kernel=_kernel(),
        engine=_engine(),
        firewalls=firewalls.find(),
        routing=_routing(),
        connections=_connections(),
        resolvers=parse_resolvers(_text(Path("/etc/resolv.conf"))),
        dns_port=_dns_port(),
        files=resource.getrlimit(resource.RLIMIT_NOFILE)[1],
        folders=tuple(Folder(path=str(f), writable=_writable(f)) for f in folders),
    )


def parse_resolvers(text: str) -> tuple[Address, ...]:
    """Read the name servers out of resolv.conf(5), in order, without scopes."""
    found = []
    for word in re.findall(r"^\s*nameserver\s+(\S+)", text, re.MULTILINE):
        with suppress(ValueError):
            found.append(ip_address(word.partition("%")[0]))
    return tuple(found)


def parse_default_links(route: str, ipv6_route: str) -> dict[str, bool]:
    """Find the links with a default route, in /proc/net/route and /proc/net/ipv6_route.

    Returns:
        Link name -> an IPv6 default route of it was learnt from a router.

    Source:
        fib_route_seq_show() in net/ipv4/fib_trie.c, ipv6_route_native_seq_show()
        in net/ipv6/ip6_fib.c.
    """
    links: dict[str, bool] = {}
    for line in route.splitlines()[1:]:
        link, destination, _, flags, _, _, _, mask, *_ = line.split()
        if destination == mask == "00000000" and not int(flags, 16) & _RTF_REJECT:
            links[link] = False
    for line in ipv6_route.splitlines():
        destination, length, *_, flags, link = line.split()
        bits = int(flags, 16)
        if int(destination, 16) == int(length, 16) == 0 and not bits & _RTF_REJECT:
            links[link] = links.get(link, False) or bool(bits & _RTF_ADDRCONF)
    return links


def _kernel() -> Kernel:
    refused, words = features.nft_refused()
    return Kernel(
        version=features.version(os.uname().release) or (),
        kinds=features.link_kinds(),
        nft=features.nft_version(),
        refused=refused,
        nft_words=words,
        conntrack_netlink=features.conntrack_netlink(),
        wireguard_go=features.installed("wireguard-go"),
        wg=features.installed("wg"),
    )


def _engine() -> Engine:
    # `podman info` would tell more, but creates Podman's folders where there are none
    return Engine(
        podman=_podman(),
        runtimes=tuple(filter(features.installed, _RUNTIMES)),
        cgroup=2 if Path("/sys/fs/cgroup/cgroup.controllers").exists() else 1,
        systemd=_SYSTEMD.is_dir(),
    )


def _podman() -> Version | None:
    if not features.installed("podman"):
        return None
    done = subprocess.run(["podman", "--version"], capture_output=True, text=True, check=False)
    return features.version(done.stdout)


def _routing() -> Routing:
    return Routing(
        forward4=_number("ipv4/ip_forward") == 1,
        forward6=_number("ipv6/conf/all/forwarding") == 1,
        ipv6=_ipv6(),
        rp_filter=_number("ipv4/conf/all/rp_filter") or 0,
        uplinks=_uplinks(),
    )


def _ipv6() -> Ipv6:
    disabled = _number("ipv6/conf/all/disable_ipv6")
    if disabled is None:
        return Ipv6.ABSENT
    return Ipv6.DISABLED if disabled else Ipv6.ON


def _uplinks() -> tuple[Uplink, ...]:
    links = parse_default_links(_text(_PROC / "route"), _text(_PROC / "ipv6_route"))
    return tuple(
        Uplink(
            name=name,
            mtu=_mtu(name),
            accept_ra=_number(f"ipv6/conf/{name}/accept_ra") if advertised else None,
        )
        for name, advertised in links.items()
    )


def _mtu(link: str) -> int:
    """Ask the kernel, not /sys: that shows the namespace it was mounted in."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16s24x", link.encode())  # struct ifreq
        answer = fcntl.ioctl(any_socket, _SIOCGIFMTU, request)
    return int(struct.unpack_from("i", answer, 16)[0])


def _connections() -> tuple[int, int] | None:
    count = _number("netfilter/nf_conntrack_count")
    limit = _number("netfilter/nf_conntrack_max")
    return None if count is None or limit is None else (count, limit)


def _dns_port() -> tuple[Occupied, ...]:
    return tuple(
        Occupied(protocol=protocol, holder=ports_held.owner(s.inode) or ports_held.UNKNOWN)
        for protocol in (Protocol.UDP, Protocol.TCP)
        for s in ports_held.sockets(protocol, 53)
        if s.waiting and s.address.is_unspecified
    )


def _privileged() -> bool:
    found = re.search(r"^CapEff:\s*(\w+)", _text(Path("/proc/thread-self/status")), re.MULTILINE)
    mask = int(found[1], 16) if found else 0
    return all(mask >> bit & 1 for bit in _NEEDED)


def _writable(folder: Path) -> bool:
    """Can the folder be written, or made?  False on a read-only file system, also for root."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)


def _number(sysctl: str) -> int | None:
    """Read a sysctl below net; None when this kernel has none of that name."""
    try:
        return int(_text(_SYSCTL / sysctl))
    except ValueError:
        return None


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
