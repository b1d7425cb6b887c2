"""WireGuard links: the kernel's, or a wireguard-go's where the kernel has none.

Both are told what to do by wg(8).  A wireguard-go is a process of its own that outlives the
agent and belongs to its link: it ends when the link is deleted, and the link goes when it ends.
What is left is its socket, by which it is known.

Source: wg(8); wireguard-go's README; the cross-platform userspace protocol,
https://www.wireguard.com/xplatform/.
"""

from __future__ import annotations

import base64
import errno
import math
import os
import socket
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Final, TypeAlias

from seaway.errors import KernelError, Unsupported, from_errno
from seaway.kernel import features
from seaway.kernel import netlink as nl
from seaway.kernel.messages import new_link, set_attributes
from seaway.model.network import Address, Prefix
from seaway.plan.resources import Link, LinkKind, WireGuardDevice, WireGuardPeer

KERNEL: Final = "kernel"
WIREGUARD_GO: Final = "wireguard-go"
SOCKETS: Final = Path("/var/run/wireguard")
"""Where wireguard-go has them: one folder for all network namespaces."""

_SECONDS: Final = 2.0
"""For what takes a few milliseconds, unless a wireguard-go hangs: nobody can wait for that."""
_END: Final = 5.0  # seconds for a wireguard-go to end
_HURRY: Final = 1.0  # seconds; connecting is at once, or somebody is stuck
_ARGS_MAX: Final = 1 << 19  # bytes in one command line: a quarter of what Linux takes
_NO_KEY: Final = "(none)"  # wg(8) writes so what is not set
_NO_TOOL: Final = "there is no wg command: install wireguard-tools"
_NO_WAY: Final = (
    "this kernel has no WireGuard, and there is no wireguard-go: install one, wireguard-go "
    "being the package"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenPeer:
    """A peer as it is.

    Attributes:
        endpoint: Where its last packet came from, or was told to be.
        handshake: Seconds since the epoch; 0: never.
        received, sent: Bytes.
        keepalive: Seconds; 0: none.
    """

    public_key: str
    endpoint: tuple[Address, int] | None
    allowed: tuple[Prefix, ...]
    handshake: float
    received: int
    sent: int
    keepalive: int


# -- what there is -------------------------------------------------------------------------


def available() -> str:
    """Return KERNEL, WIREGUARD_GO, or "" where there is no WireGuard; about 2 ms."""
    if not features.installed("wg"):
        return ""
    if features.wireguard():
        return KERNEL
    return WIREGUARD_GO if features.installed(WIREGUARD_GO) else ""


def why_not() -> str:
    """Say in a line why available() is "", and what to do."""
    return _NO_WAY if features.installed("wg") else _NO_TOOL


# -- links ----------------------------------------------------------------------------------


def create(sock: nl.Netlink, link: Link) -> None:
    """Make *link*, down, in the namespace of *sock* and the calling thread; fine if it is there.

    Raises:
        Unsupported: Neither the kernel nor wireguard-go can.
        KernelError: Refused.
    """
    if not features.installed("wg"):
        raise Unsupported(_NO_TOOL)
    if link.name in _links():
        return
    end(link.name)
    try:
        sock.batch([new_link(link, 0, 0)])
    except KernelError as err:
        if err.errno != errno.EOPNOTSUPP:
            raise
    else:
        return
    _start(link.name)
    sock.batch([set_attributes(socket.if_nametoindex(link.name), link, mac=False)])


def _start(name: str) -> None:
    """Start a wireguard-go, which goes to the background when its link is there."""
    try:
        done = subprocess.run(
            [WIREGUARD_GO, name],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_SECONDS,
            check=False,
            cwd="/",
            env={"PATH": os.environ.get("PATH", os.defpath)},
            start_new_session=True,
        )
    except FileNotFoundError:
        raise Unsupported(_NO_WAY) from None
    except subprocess.TimeoutExpired:
        raise from_errno("start", f"{WIREGUARD_GO} {name}", errno.EAGAIN) from None
    if done.returncode != 0:
        words = (done.stdout.strip().splitlines() or ["no reason given"])[-1]
        raise from_errno("start", f"{WIREGUARD_GO} {name}", errno.EIO, words)


def end(name: str) -> None:
    """See a wireguard-go whose link has gone to its end, and its socket with it.

    Raises:
        KernelError: It does not end.
    """
    path = _socket(name)
    deadline = time.monotonic() + _END
    while _listens(path):
        if time.monotonic() > deadline:
            raise from_errno("end", f"{WIREGUARD_GO} {name}", errno.EAGAIN, "it does not end")
        time.sleep(0.005)
    path.unlink(missing_ok=True)  # left behind by one that was killed


def answers(name: str, kind: str) -> bool:
    """Is there somebody behind a link of this rtnetlink kind who makes a WireGuard of it?"""
    return kind == LinkKind.WIREGUARD or (kind == "tun" and _listens(_socket(name)))


def _socket(link: str) -> Path:
    return SOCKETS / f"{link}.sock"


def _listens(path: Path) -> bool:
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(_HURRY)
            sock.connect(str(path))
    except OSError:
        return False
    return True


# -- configuration --------------------------------------------------------------------------


Device: TypeAlias = tuple[WireGuardDevice | None, WireGuardDevice]
Peer: TypeAlias = tuple[WireGuardPeer | None, WireGuardPeer]
"""What was, None for nothing, and what shall be."""


def configure(devices: Iterable[Device], peers: Iterable[Peer]) -> None:
    """Set keys, ports and peers, touching nothing that stays as it is.

    Kernel:
        One wg(8) process for each link, 1 ms, and 75 us a peer with wireguard-go.

    Raises:
        KernelError: Refused.
        Unsupported: There is no wg command.
    """
    by_link: dict[str, list[list[str]]] = {}
    for old, new in devices:
        by_link.setdefault(new.link, []).append(_device_words(old, new))
    shifts: dict[str, list[tuple[WireGuardPeer, WireGuardPeer]]] = {}
    for before, after in peers:
        known = before
        if before is not None and _socket(after.link).exists():
            shifts.setdefault(after.link, []).append((before, after))
            known = replace(before, allowed=after.allowed)
        by_link.setdefault(after.link, []).append(_peer_words(known, after))
    for link, pairs in shifts.items():
        _shift_allowed(link, pairs)
    for link, groups in by_link.items():
        _set(link, groups)


def _shift_allowed(link: str, pairs: Iterable[tuple[WireGuardPeer, WireGuardPeer]]) -> None:
    """Have a wireguard-go let in what is new from some peers, and no more what is old.

    ``wg set`` takes all away before it gives all, and packets of established flows that come
    in between are lost.  What must go is given to a peer that nobody is, which then goes;
    before what is new, since the one may be what another peer had.

    Source:
        https://www.wireguard.com/xplatform/, "Configuration Protocol".
    """
    gone: set[Prefix] = set()
    given: list[str] = []
    for old, new in pairs:
        gone |= set(old.allowed) - set(new.allowed)
        if more := set(new.allowed) - set(old.allowed):
            given += [f"public_key={_hexadecimal(new.public_key)}", "update_only=true"]
            given += (f"allowed_ip={prefix}" for prefix in sorted(more, key=_order))
    lines: list[str] = []
    if gone:
        nobody = os.urandom(32).hex()
        lines += [f"public_key={nobody}"]
        lines += (f"allowed_ip={prefix}" for prefix in sorted(gone, key=_order))
        lines += [f"public_key={nobody}", "remove=true"]
    if gone or given:
        _tell(link, ["set=1", *lines, *given])


def _hexadecimal(key: str) -> str:
    return base64.b64decode(key).hex()


def _tell(link: str, lines: Sequence[str]) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(_SECONDS)
        try:
            sock.connect(str(_socket(link)))
            sock.sendall("\n".join([*lines, "", ""]).encode())
            answer = sock.recv(4096).decode(errors="replace")
        except OSError as err:
            raise from_errno("configure", link, err.errno or errno.ETIMEDOUT) from None
    if "errno=0" not in answer:
        code = int(answer.partition("errno=")[2].strip() or errno.EIO)
        raise from_errno("configure", link, abs(code))


def remove(items: Iterable[WireGuardDevice | WireGuardPeer]) -> None:
    """Take away peers, and the keys of devices; what has gone already is fine.

    Raises:
        KernelError: Refused.
    """
    by_link: dict[str, list[list[str]]] = {}
    for item in items:
        words = ["private-key", "/dev/null", "listen-port", "0"]
        if isinstance(item, WireGuardPeer):
            words = ["peer", item.public_key, "remove"]
        by_link.setdefault(item.link, []).append(words)
    for link in _links() & by_link.keys():
        _set(link, by_link[link])


def _links() -> set[str]:
    return {name for _, name in socket.if_nameindex()}


def _device_words(old: WireGuardDevice | None, new: WireGuardDevice) -> list[str]:
    words = []
    if old is None or old.public_key != new.public_key:
        words += ["private-key", new.private_key_path]
    if old is None or old.port != new.port:
        words += ["listen-port", str(new.port)]
    return words


def _peer_words(old: WireGuardPeer | None, new: WireGuardPeer) -> list[str]:
    words = ["peer", new.public_key]
    stays = old is not None and (old.endpoint == new.endpoint or old.knows_better(new))
    if new.endpoint and not stays:
        address, port = new.endpoint
        words += [
            "endpoint",
            f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}",
        ]
    if old is None or old.keepalive != new.keepalive:
        words += ["persistent-keepalive", str(new.keepalive)]
    if old is None or old.allowed != new.allowed:
        words += ["allowed-ips", ",".join(map(str, new.allowed))]
    return words


def _set(link: str, groups: Iterable[Sequence[str]]) -> None:
    """Run ``wg set`` on all *groups* of words, cut where a command line would get too long."""
    line: list[str] = []
    size = 0
    for words in groups:
        if size > _ARGS_MAX:
            _wg("set", link, *line)
            line, size = [], 0
        line += words
        size += sum(len(word) + 9 for word in words)  # and its end, and a pointer to it
    if line:
        _wg("set", link, *line)


# -- observation ----------------------------------------------------------------------------


def observed(link: str) -> list[WireGuardDevice | WireGuardPeer]:
    """Read a WireGuard link's key, port and peers, as a plan has them; [] without wg(8).

    Raises:
        KernelError: It is there, but does not tell.
    """
    if not features.installed("wg"):
        return []
    try:
        rows = _dump(link)
    except KernelError:
        if link not in _links():
            return []  # it went while we looked
        raise
    (_private, public, port, _mark), *rows = rows
    found: list[WireGuardDevice | WireGuardPeer] = []
    if public != _NO_KEY:
        found.append(WireGuardDevice(link=link, public_key=public, port=int(port)))
    now = time.time()
    found += (
        WireGuardPeer(
            link=link,
            public_key=peer.public_key,
            endpoint=peer.endpoint,
            allowed=peer.allowed,
            keepalive=peer.keepalive,
            age=max(0.0, now - peer.handshake) if peer.handshake else math.inf,
        )
        for peer in map(_peer, rows)
    )
    return found


def peers(link: str) -> list[SeenPeer]:
    """List the peers of a WireGuard link, with their last handshakes and bytes.

    Raises:
        KernelError: There is no such link.
        Unsupported: There is no wg command.
    """
    return [_peer(row) for row in _dump(link)[1:]]


def _dump(link: str) -> list[list[str]]:
    return [line.split("\t") for line in _wg("show", link, "dump").splitlines()]


def _peer(row: Sequence[str]) -> SeenPeer:
    key, _shared, endpoint, allowed, handshake, received, sent, keepalive = row
    prefixes = (ip_network(text) for text in allowed.split(",") if text != _NO_KEY)
    return SeenPeer(
        public_key=key,
        endpoint=_endpoint(endpoint),
        allowed=tuple(sorted(prefixes, key=_order)),
        handshake=float(handshake),
        received=int(received),
        sent=int(sent),
        keepalive=0 if keepalive == "off" else int(keepalive),
    )


def _order(prefix: Prefix) -> tuple[int, int, int]:
    return (prefix.version, int(prefix.network_address), prefix.prefixlen)


def _endpoint(text: str) -> tuple[Address, int] | None:
    if text == _NO_KEY:
        return None
    address, _, port = text.rpartition(":")
    return ip_address(address.strip("[]").partition("%")[0]), int(port)


# -- keys -----------------------------------------------------------------------------------


def make_key(path: Path) -> str:
    """Write a new private key to *path*, for its owner's eyes only; return the public one.

    Raises:
        Unsupported: There is no wg command.
        KernelError: The file cannot be written.
    """
    private = _wg("genkey")
    try:
        path.unlink(missing_ok=True)
        path.touch(mode=0o600)
        path.write_text(private)
    except OSError as err:
        raise from_errno("write", str(path), err.errno or errno.EIO) from None
    return _wg("pubkey", stdin=private).strip()


def public_key(path: Path) -> str:
    """Return what belongs to the private key in *path*.

    Raises:
        Unsupported: There is no wg command.
        KernelError: The file cannot be read, or holds no key.
    """
    try:
        private = path.read_text()
    except OSError as err:
        raise from_errno("read", str(path), err.errno or errno.EIO) from None
    return _wg("pubkey", stdin=private).strip()


def _wg(*words: str, stdin: str = "") -> str:
    what = " ".join(words)[:60]
    try:
        done = subprocess.run(
            ["wg", *words],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except FileNotFoundError:
        raise Unsupported(_NO_TOOL) from None
    except subprocess.TimeoutExpired:
        raise from_errno("run", f"wg {what}", errno.EAGAIN, "it does not end") from None
    if done.returncode != 0:
        # What it says of a key that is none has the key in it.
        lines = [line for line in done.stderr.strip().splitlines() if "Key is not" not in line]
        words_of_it = (lines or ["the key is none, or cannot be read"])[0]
        raise from_errno("run", f"wg {what}", errno.EIO, words_of_it)
    return done.stdout
