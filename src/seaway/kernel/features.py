"""What this kernel can do, found out by trying.

Every try happens in a network namespace that a child process makes and that
dies with it; nothing is ever made in the caller's.  A kernel may load modules
for it, as it would for the real thing.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from seaway.kernel.facts import LINK_KINDS, Version
from seaway.plan.ruleset import ruleset

NFT_FEATURES: Final = {
    # name: body of a table of family inet.  "@" stands for a name that is free.
    "nat in family inet": "chain @ { type nat hook prerouting priority dstnat; }",
    "maps with intervals of concatenations": (
        "map @ { type ipv4_addr . inet_proto . inet_service : ipv4_addr; flags interval; "
        "elements = { 192.0.2.0/24 . tcp . 8000-8010 : 192.0.2.1 }; }"
    ),
    "fib": "chain @ { type filter hook prerouting priority raw; fib daddr type local accept; }",
    "ct status": "chain @ { type filter hook forward priority filter; ct status dnat accept; }",
    "masquerade": "chain @ { type nat hook postrouting priority srcnat; masquerade; }",
    "clamping of the TCP segment size": (
        "chain @ { type filter hook forward priority filter; "
        "tcp flags syn tcp option maxseg size set rt mtu; }"
    ),
}
"""What our table is made of."""

RULESET: Final = "Seaway's own rules"
"""The feature that is the whole table."""

_MAKE: Final = {
    "macvlan": "link add p-macvlan link p-veth type macvlan",
    "vxlan": "link add p-vxlan type vxlan id 1 dstport 4789",
}
"""Batch lines of ip(8) for the kinds that need more than their name."""

_IN_A_NEW_NAMESPACE: Final = ("unshare", "--net", "--")
_SECONDS: Final = 20

_NETLINK_NETFILTER = 12  # include/uapi/linux/netlink.h
_GET_STATS = (1 << 8) | 5  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_GET_STATS
_REQUEST = 1  # NLM_F_REQUEST


def link_kinds() -> frozenset[str] | None:
    """Try to make one link of each kind.

    Returns:
        The kinds that work, out of LINK_KINDS; None when it could not be
        tried, because unshare or ip is not installed or not permitted.

    Kernel:
        RTM_NEWLINK; CAP_SYS_ADMIN.  One run of ip, about 5 ms.
    """
    promised = [kind for kind in ("dummy",) if _is_a_module(kind)]
    tried = [kind for kind in LINK_KINDS if kind not in promised]
    batch = [_MAKE.get(kind, f"link add p-{kind} type {kind}") for kind in tried]
    done = _run(*_IN_A_NEW_NAMESPACE, "ip", "-force", "-batch", "-", stdin="\n".join(batch) + "\n")
    if done is None or (done.returncode != 0 and "Command failed -:" not in done.stderr):
        return None
    failed = {int(n) for n in re.findall(r"^Command failed -:(\d+)", done.stderr, re.MULTILINE)}
    return frozenset((*promised, *(k for n, k in enumerate(tried, 1) if n not in failed)))


def wireguard() -> bool:
    """Does the kernel have WireGuard?  False also where it cannot be tried."""
    made = _run(*_IN_A_NEW_NAMESPACE, "ip", "link", "add", "p-wireguard", "type", "wireguard")
    return made is not None and made.returncode == 0


def installed(program: str) -> bool:
    """Is *program* on the PATH?"""
    return shutil.which(program) is not None


def nft_refused() -> tuple[tuple[str, ...] | None, str]:
    """Load everything our table needs in one transaction; look closer only if that fails.

    Returns:
        The names of the features that do not work, empty when all do, None
        when nft or unshare could not be run; and nft's first complaint, or "".

    Kernel:
        One nftables transaction, about 5 ms; one per feature when it is refused.
    """
    texts = {**{name: _table([name]) for name in NFT_FEATURES}, RULESET: ruleset().text}
    complaint = _load([_table(NFT_FEATURES), texts[RULESET]])
    if not complaint:
        return (None if complaint is None else ()), ""
    return tuple(name for name, text in texts.items() if _load([text])), complaint


def nft_version() -> Version | None:
    """Return e.g. (1, 0, 6), or None without nft."""
    done = _run("nft", "--version")
    return None if done is None else version(done.stdout)


def version(text: str) -> Version | None:
    """Take the first dotted number out of what a program says about itself."""
    found = re.search(r"\d+(?:\.\d+)+", text)
    return tuple(int(n) for n in found[0].split(".")) if found else None


def conntrack_netlink() -> bool:
    """Can connections be listed and deleted one by one?

    Asks for a statistic, which changes nothing.

    Source:
        include/uapi/linux/netfilter/nfnetlink_conntrack.h
    """
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as asking:
            asking.settimeout(1)
            asking.send(struct.pack("=IHHIIBBH", 20, _GET_STATS, _REQUEST, 1, 0, 0, 0, 0))
            _, kind = struct.unpack_from("=IH", asking.recv(4096))
    except OSError:
        return False
    return bool(kind == _GET_STATS)


def _table(names: Iterable[str]) -> str:
    bodies = (NFT_FEATURES[name].replace("@", f"n{n}") for n, name in enumerate(names))
    return "\n".join(("table inet seaway_probe {", *bodies, "}"))


def _load(texts: list[str]) -> str | None:
    """Return nft's first complaint, "" for none; None when it could not be asked."""
    done = _run(*_IN_A_NEW_NAMESPACE, "nft", "-f", "-", stdin="\n".join([*texts, ""]))
    if done is None or done.stderr.startswith("unshare:"):
        return None
    return (done.stderr.strip().splitlines() or ["it did not say why"])[0] * bool(done.returncode)


def _is_a_module(kind: str) -> bool:
    """Tell whether *kind* waits on disk as a module.

    Asked for dummy alone: loading that module makes a link, dummy0, in the
    host's own namespace, which is not ours to cause.
    """
    index = Path("/lib/modules", os.uname().release, "modules.dep")
    try:
        return f"/{kind}.ko" in index.read_text()
    except OSError:
        return False


def _run(*argv: str, stdin: str = "") -> subprocess.CompletedProcess[str] | None:
    """Run a program; None when it is not installed."""
    try:
        return subprocess.run(
            argv,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        )
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
