"""What the commands of ``seaway lab`` do, in terms of seaway.lab."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Final

from seaway.cli.flags import UsageError
from seaway.cli.output import listing
from seaway.cli.parse import Parsed
from seaway.lab import faults, lifecycle, shell
from seaway.lab.lifecycle import MachineStatus
from seaway.lab.topology import Lab, command_line

_COLUMNS: Final = {
    "LAB": "Lab",
    "MACHINE": "Machine",
    "IPV4": "IPv4",
    "IPV6": "IPv6",
    "AGENT": "Agent",
    "PID": "Pid",
    "WIRE": "Wire",
    "STORE": "Store",
}


def up(parsed: Parsed) -> int:
    """Bring up a lab and say what to do next."""
    lab = lifecycle.up(
        Lab(name=_name(parsed), hosts=_hosts(parsed)),
        report=_progress,
        clustered=not parsed.flag("no-cluster").on,
    )
    print(f"Lab {lab.name!r} is up: {', '.join(lab.host_names)} and outside.  Go on with")
    print(f"  {command_line(lab.name, 'exec', 'host1', 'seaway', 'status')}")
    return 0


def ls(parsed: Parsed) -> int:
    """Print one row for each machine of each lab."""
    lifecycle.require_root()
    name = parsed.flag("name").value
    labs = [lifecycle.find(name)] if name else lifecycle.labs()
    records = [_record(lab, status) for lab in labs for status in lifecycle.status(lab)]
    style = parsed.flag("format").value or ""
    print(listing(records, _COLUMNS, style=style), end="")
    return 0


def down(parsed: Parsed) -> int:
    """Remove a lab; one that is not there is no error."""
    if not lifecycle.down(Lab(name=_name(parsed)), report=_progress):
        _progress(f"there is no lab {_name(parsed)!r}")
    return 0


def exec_(parsed: Parsed) -> int:
    """Become the command, on that machine."""
    lifecycle.require_root()
    shell.become(_find(parsed), _host(parsed), parsed.argument("COMMAND").list)


def start(parsed: Parsed) -> int:
    """Start an agent; one that runs is no error."""
    if not faults.start(_find(parsed), _host(parsed)):
        _progress(f"the agent of {_host(parsed)} runs already")
    return 0


def kill(parsed: Parsed) -> int:
    """Kill an agent; one that does not run is no error."""
    if not faults.kill(_find(parsed), _host(parsed)):
        _progress(f"the agent of {_host(parsed)} was not running")
    return 0


def pause(parsed: Parsed) -> int:
    """Freeze an agent."""
    faults.pause(_find(parsed), _host(parsed))
    return 0


def resume(parsed: Parsed) -> int:
    """Let an agent go on."""
    faults.resume(_find(parsed), _host(parsed))
    return 0


def power_off(parsed: Parsed) -> int:
    """Pull a host's plug; one that is off is no error."""
    if not faults.power_off(_find(parsed), _host(parsed)):
        _progress(f"{_host(parsed)} was off")
    return 0


def kill_store(parsed: Parsed) -> int:
    """Kill a host's etcd; one that does not run is no error."""
    if not faults.kill_store(_find(parsed), _host(parsed), once=parsed.flag("once").on):
        _progress(f"no etcd was running on {_host(parsed)}")
    return 0


def cut(parsed: Parsed) -> int:
    """Cut the wire."""
    faults.cut(_find(parsed), _host(parsed), parsed.argument("HOST2").value)
    return 0


def heal(parsed: Parsed) -> int:
    """Mend the wire, and let go of stores."""
    first, second = parsed.argument("HOST").value, parsed.argument("HOST2").value
    faults.heal(_find(parsed), first, second)
    return 0


COMMANDS: Final[dict[str, Callable[[Parsed], int]]] = {
    "up": up,
    "ls": ls,
    "down": down,
    "exec": exec_,
    "start": start,
    "kill": kill,
    "pause": pause,
    "resume": resume,
    "power-off": power_off,
    "kill-store": kill_store,
    "cut": cut,
    "heal": heal,
}
"""By the names in lab.LAB."""


def names(kind: str, lab: str) -> list[str]:
    """Names of all labs (*kind* "lab"), or of *lab*'s machines ("lab-host", "lab-machine").

    Raises:
        NotFound: There is no such lab.
    """
    if kind == "lab":
        return [lab.name for lab in lifecycle.labs()]
    machines = lifecycle.find(lab).machines
    return [machine.name for machine in machines if machine.has_agent or kind == "lab-machine"]


def _record(lab: Lab, status: MachineStatus) -> dict[str, object]:
    return {
        "Lab": lab.name,
        "Machine": status.machine.name,
        "IPv4": str(status.machine.v4.ip),
        "IPv6": str(status.machine.v6.ip),
        "Agent": str(status.agent or "-"),
        "Pid": status.pid or "-",
        "Wire": _wire(status),
        "Store": "held" if status.store_held else "up" if status.store else "-",
    }


def _wire(status: MachineStatus) -> str:
    if not status.on:
        return "-"
    if not status.on_wire:
        return "cut"
    return f"cut from {', '.join(status.parted_from)}" if status.parted_from else "up"


def _hosts(parsed: Parsed) -> int:
    text = parsed.flag("hosts").value
    if text is None:
        return 1
    if not (text.isascii() and text.isdigit()):
        raise UsageError(f"seaway lab up: --hosts is a number, not {text!r}")
    return int(text)


def _name(parsed: Parsed) -> str:
    return parsed.flag("name").value or ""


def _find(parsed: Parsed) -> Lab:
    return lifecycle.find(_name(parsed))


def _host(parsed: Parsed) -> str:
    return parsed.argument("HOST").value or ""


def _progress(line: str) -> None:
    """Progress goes beside the output, not into it."""
    print(line, file=sys.stderr, flush=True)
