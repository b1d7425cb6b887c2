"""The etcd that hosts of a lab run: finding it, killing it, keeping everybody from it.

An agent starts its etcd again within seconds.  A store that is to stay away is therefore held:
a packet filter of the lab's own, in the host's namespace, resets every connection to it, as a
host does on which it does not run.
"""

from __future__ import annotations

import json
from typing import Final

from seaway.kernel import netns
from seaway.lab import processes
from seaway.lab.processes import Process
from seaway.lab.programs import run
from seaway.lab.topology import Machine
from seaway.model.cluster import Ports

_PROGRAM: Final = "etcd"
_END_SECONDS: Final = 5.0

_TABLE: Final = "inet seaway_lab_store"
_PORTS: Final = Ports()  # a lab's cluster has the usual ones

_RULES: Final = f"""\
add table {_TABLE}
delete table {_TABLE}
table {_TABLE} {{
    chain input {{
        type filter hook input priority -400
        tcp dport {{ {_PORTS.etcd}, {_PORTS.etcd_peers} }} counter reject with tcp reset
    }}
    chain output {{
        type filter hook output priority -400
        tcp dport {_PORTS.etcd_peers} counter reject with tcp reset
    }}
}}
"""
"""Nobody reaches it, this host's own agent included, and it reaches no other member.  The agent
still reaches the etcd of others."""


def running(machine: Machine) -> list[Process]:
    """The etcd processes of *machine*: one, or none."""
    return processes.named(_PROGRAM, machine.netns)


def kill(machine: Machine) -> bool:
    """SIGKILL the etcd of *machine* and wait for its end; False if there is none.

    Raises:
        KernelBusy: It did not end.
    """
    found = running(machine)
    processes.kill(found, _END_SECONDS)
    return bool(found)


def hold(machine: Machine) -> None:
    """Keep everybody from the etcd of *machine*, also from one that starts later.

    Raises:
        NotFound: The machine is powered off.
        KernelError: nft refused.
    """
    run(["nft", "-f", "-"], machine.netns, _RULES)


def release(machine: Machine) -> None:
    """Undo ``hold``; fine if it is not held, or off.

    Raises:
        KernelError: nft refused.
    """
    if held(machine):
        run(["nft", "delete", "table", *_TABLE.split()], machine.netns)


def held(machine: Machine) -> bool:
    """Is the store of *machine* held?

    Raises:
        KernelError: nft cannot say.
    """
    if not netns.exists(str(machine.netns)):
        return False
    listing = json.loads(run(["nft", "-json", "list", "tables", "inet"], machine.netns))
    tables = (entry["table"]["name"] for entry in listing["nftables"] if "table" in entry)
    return _TABLE.split()[1] in tables
