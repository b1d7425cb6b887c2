"""Who holds a port on this machine, in words a person can act on.

Reads only /proc, so it needs no other program and changes nothing.  Without
root the sockets are still seen, but the processes behind them may not be.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Final

from seaway.model.network import Address
from seaway.model.ports import Protocol

UNKNOWN: Final = "an unknown process"

# State column of /proc/net/tcp and udp (include/net/tcp_states.h).  A UDP
# socket without a peer is "closed", and is the one that receives from anybody.
_WAITING: Final = {Protocol.TCP: 0x0A, Protocol.UDP: 0x07}


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """One local port that a socket occupies.

    Attributes:
        address: Local address; unspecified means every address of the host.
        port: 1..65535.
        inode: The socket's number in /proc/PID/fd, 0 when no process owns it any more.
        waiting: True for a listener (TCP) or a socket without a peer (UDP).
    """

    address: Address
    port: int
    inode: int
    waiting: bool


def holder(protocol: Protocol, address: Address | None, port: int) -> str:
    """Name the process that stops *address*:*port* from being bound.

    Looks in the network namespace of the calling thread.

    Args:
        protocol: The transport wanted.
        address: The address wanted; None or unspecified means all of them.
        port: 1..65535.

    Returns:
        "nginx (pid 123)", or "an unknown process" when nobody is found: a
        TCP socket that is bound but does not listen has no line in /proc.
    """
    clashing = [s for s in sockets(protocol, port) if _clash(address, s.address)]
    for socket in sorted(clashing, key=lambda s: not s.waiting):
        if (process := owner(socket.inode)) is not None:
            return process
    return UNKNOWN


def sockets(protocol: Protocol, port: int | None = None) -> tuple[Held, ...]:
    """List what is bound in the calling thread's network namespace, IPv4 first.

    Args:
        protocol: The transport to list.
        port: Only sockets on this port, or None for all.
    """
    if protocol is Protocol.SCTP:
        held = parse_sctp(_table("sctp/eps"))
    else:
        held = (
            *parse_sockets(_table(protocol), _WAITING[protocol], port),
            *parse_sockets(_table(protocol + "6"), _WAITING[protocol], port),
        )
    return tuple(s for s in held if port in (None, s.port))


def owner(inode: int) -> str | None:
    """Find the process with that socket open; the eldest when several share it.

    Returns:
        "nginx (pid 123)", or None.

    Kernel:
        Reads /proc/PID/fd of every process: some milliseconds.
    """
    if inode == 0:
        return None
    wanted = f"socket:[{inode}]"
    for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):  # noqa: PTH208
        if wanted in _descriptors(pid):
            return f"{_name(pid)} (pid {pid})"
    return None


def parse_sockets(text: str, waiting: int, port: int | None = None) -> tuple[Held, ...]:
    """Parse /proc/net/{tcp,tcp6,udp,udp6}.

    Args:
        text: The file, heading included.
        waiting: The state number of a socket that waits for peers.
        port: Skip the lines of other ports unread; the file can be long.

    Source:
        get_tcp4_sock() in net/ipv4/tcp_ipv4.c; proc(5).
    """
    mark = None if port is None else f":{port:04X} "
    found = []
    for line in text.splitlines()[1:]:
        if mark is not None and mark not in line:
            continue
        _, local, _, state, _, _, _, _, _, inode, *_ = line.split()
        address, _, number = local.partition(":")
        found.append(
            Held(
                address=_address(address),
                port=int(number, 16),
                inode=int(inode),
                waiting=int(state, 16) == waiting,
            )
        )
    return tuple(found)


def parse_sctp(text: str) -> tuple[Held, ...]:
    """Parse /proc/net/sctp/eps: one line an endpoint, its addresses at the end.

    Source:
        sctp_eps_seq_show() in net/sctp/proc.c.
    """
    found = []
    for line in text.splitlines()[1:]:
        _, _, _, _, _, port, _, inode, *addresses = line.split()
        for word in addresses:
            with contextlib.suppress(ValueError):
                address = IPv6Address(word) if ":" in word else IPv4Address(word)
                found.append(Held(address=address, port=int(port), inode=int(inode), waiting=True))
    return tuple(found)


def _address(text: str) -> Address:
    """Decode 32-bit words in the byte order of the machine, as the kernel prints them."""
    words = [int(text[i : i + 8], 16) for i in range(0, len(text), 8)]
    raw = b"".join(word.to_bytes(4, sys.byteorder) for word in words)
    if len(raw) == 4:
        return IPv4Address(raw)
    address = IPv6Address(raw)
    return address.ipv4_mapped or address


def _clash(wanted: Address | None, found: Address) -> bool:
    """Tell whether a socket at *found* keeps another from binding *wanted*.

    "::" normally serves IPv4 as well, so it counts against both families.
    """
    if wanted is None or wanted == found:
        return True
    one_family = wanted.version == found.version
    if found.is_unspecified:
        return one_family or found.version == 6
    return wanted.is_unspecified and (one_family or wanted.version == 6)


def _table(name: str) -> str:
    # thread-self, because /proc/net means the main thread's namespace
    try:
        return Path("/proc/thread-self/net", name).read_text()
    except OSError:  # no IPv6, no SCTP
        return ""


def _descriptors(pid: int) -> Iterator[str]:
    folder = f"/proc/{pid}/fd"
    try:
        entries = os.listdir(folder)  # noqa: PTH208 - Path costs ten times as much here
    except OSError:  # gone, or not ours to see
        return
    for entry in entries:
        with contextlib.suppress(OSError):
            yield os.readlink(f"{folder}/{entry}")  # noqa: PTH115


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return "a process that just ended"
