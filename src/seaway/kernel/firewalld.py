"""Beside firewalld: have our interfaces in a zone that lets them through.

firewalld rejects what comes from an interface that is in no accepting zone:
containers reach neither the world nor their name server.  So, as Docker and
Podman do, the agent puts our interfaces into the zone ``trusted``.  Only at
run time: after a reload it does so again, and firewalld's files stay as they
are.  Interfaces that the administrator has put into a zone stay in that zone.

What the daemon has made of its settings is read from its nftables table, which
stands in the caller's network namespace, so a firewalld of another namespace
is never spoken to.

Source:
    firewalld 1.3.3: interface "swv+" of a zone becomes ``iifname "swv*" goto
    filter_IN_<zone>``; firewall-cmd(1).
"""

from __future__ import annotations

import re
import shutil
from typing import Final

from seaway.kernel.commands import Command, ask, run
from seaway.kernel.host_firewall import LINKS

ZONE: Final = "trusted"
_CLIENT: Final = "firewall-cmd"
_OF_LINKS: Final = re.compile(rf'iifname "{LINKS[:-1]}\*" goto filter_IN_(\S+)')
_ACCEPTS: Final = re.compile(r"^\s*accept$", re.MULTILINE)


def zone() -> str | None:
    """Name the zone that has our interfaces: "" for none, None without a firewalld."""
    zones = _chain("filter_INPUT_ZONES")
    if zones is None:
        return None
    found = _OF_LINKS.search(zones)
    return found[1] if found else ""


def accepts(zone: str) -> bool:
    """Does *zone* let through what comes from its interfaces?"""
    return bool(_ACCEPTS.search(_chain(f"filter_FWD_{zone}") or ""))


def ensure() -> tuple[str, ...]:
    """Put our interfaces into ZONE if they are in none.

    Returns:
        The command that was run; empty when nothing was to do, or when
        firewall-cmd is not installed.

    Raises:
        KernelError: firewalld refused; its own words say why.
    """
    if zone() != "" or not shutil.which(_CLIENT):
        return ()
    return run([_client("--add-interface")])


def remove() -> tuple[str, ...]:
    """Take our interfaces out of ZONE, unless the administrator has put them there for good.

    Raises:
        KernelError: firewalld refused.
    """
    if zone() != ZONE or not shutil.which(_CLIENT):
        return ()
    if ask(*_client("--query-interface"), "--permanent") is not None:
        return ()
    return run([_client("--remove-interface")])


def _client(verb: str) -> Command:
    return (_CLIENT, f"--zone={ZONE}", f"{verb}={LINKS}")


def _chain(name: str) -> str | None:
    return ask("nft", "list", "chain", "inet", "firewalld", name)
