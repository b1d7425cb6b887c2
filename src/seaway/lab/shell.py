"""Running a command on a machine of a lab."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from seaway.errors import NotFound, Unsupported
from seaway.kernel import netns
from seaway.lab.topology import Lab


def enter(lab: Lab, machine: str, command: Sequence[str]) -> list[str]:
    """Make the argument list that runs *command* on *machine*.

    Only the network namespace changes, so the machine's files and control
    groups are the ones everybody sees.

    Raises:
        NotFound: No such machine, or it is off.
    """
    there = lab.machine(machine)
    if not netns.exists(str(there.netns)):
        raise NotFound(f"{machine} is off: switch it on with `{there.start_command}`")
    return ["nsenter", f"--net={there.netns}", "--", *command]


def environment(lab: Lab, machine: str, base: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Make the environment in which ``seaway`` is this Seaway and talks to *machine*'s agent.

    On ``outside`` there is no agent, and none must be found.

    Args:
        base: What the variables are added to.

    Raises:
        NotFound: No such machine.
    """
    path = [*_script_folders(), base.get("PATH", os.defpath)]
    return {
        **base,
        "SEAWAY_SOCKET": str(lab.machine(machine).socket),
        "PATH": os.pathsep.join(path),
    }


def become(lab: Lab, machine: str, command: Sequence[str]) -> NoReturn:
    """Turn this process into *command* on *machine*: its terminal, signals and exit status.

    Raises:
        NotFound: No such machine, or it is off.
        Unsupported: There is no nsenter.
    """
    argv = enter(lab, machine, command)
    try:
        os.execvpe(argv[0], argv, environment(lab, machine))  # noqa: S606 - no shell wanted
    except FileNotFoundError:
        raise Unsupported(
            "the lab needs the program 'nsenter': install the package util-linux"
        ) from None


def _script_folders() -> list[str]:
    """Where this installation's ``seaway`` is; nowhere when it runs from its source."""
    candidates = (Path(sys.argv[0]).parent, Path(sysconfig.get_path("scripts")))
    return [str(c.resolve()) for c in candidates if (c / "seaway").is_file()][:1]
