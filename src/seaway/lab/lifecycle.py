"""Labs as a whole: bring one up, take it down, tell what there is."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Final

from seaway.errors import Conflict, NotFound, SeawayError, Unsupported
from seaway.kernel import netns
from seaway.lab import agents, cluster, hosts, stores, wire
from seaway.lab.agents import AgentCommand, agent_command
from seaway.lab.programs import need
from seaway.lab.topology import (
    NETNS_ROOT,
    RUN_ROOT,
    STATE_ROOT,
    Lab,
    Machine,
    command_line,
    count_hosts,
    is_lab_name,
    lab_of_namespace,
)

Report = Callable[[str], None]
"""Gets one line about each step that takes a moment."""

_LOCK_SECONDS: Final = 60.0
_LOCK_PACE: Final = 0.05


class AgentState(StrEnum):
    """What a host's agent does."""

    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"
    OFF = "off"  # the whole host is


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineStatus:
    """One machine of a lab, as it is now.

    Attributes:
        on: Has it its namespace?
        agent: None for ``outside``, which has no agent.
        pid: Of the agent, 0 if there is none.
        on_wire: Is its port there and up?
        parted_from: Machines that it cannot reach by a cut between two.
        store: Does it run etcd?
        store_held: Is that kept from everybody?
    """

    machine: Machine
    on: bool
    agent: AgentState | None
    pid: int
    on_wire: bool
    parted_from: tuple[str, ...]
    store: bool = False
    store_held: bool = False


def silent(line: str) -> None:
    """Report to nobody."""


def up(
    lab: Lab,
    command: AgentCommand = agent_command,
    report: Report = silent,
    *,
    clustered: bool = False,
) -> Lab:
    """Bring up what *lab* lacks; what it has stays.  A failure undoes what this call made.

    Args:
        report: Gets a line about each step.
        clustered: Make one cluster of all its hosts if there are several.

    Returns:
        The lab as it is: with more hosts than asked for if it had more.

    Raises:
        Unsupported: Not root, or a program is missing.
        Conflict: Somebody else is working on this lab.
        AgentUnreachable: An agent did not get ready; the message has its last words.
        StoreError: The cluster did not come together.
        KernelError: Linux refused.
    """
    require_root()
    need("ip", "nft", "nsenter", "umount")
    with locked(lab):
        known = known_hosts(lab)
        lab = replace(lab, hosts=max(lab.hosts, known or 0))
        try:
            _bring_up(lab, command, report)
            if clustered and lab.hosts > 1:
                cluster.form(lab, report)
        except BaseException:
            report("that failed: removing what was made")
            # The reason for the failure matters more than what cannot be undone.
            with suppress(SeawayError):
                _undo(lab, known)
            raise
    return lab


def down(lab: Lab, report: Report = silent) -> bool:
    """Remove *lab* with all its containers, processes and state; False if there is none.

    Works on a half-broken lab: every step is tried, what has gone is fine.

    Raises:
        Unsupported: Not root.
        Conflict: Somebody else is working on this lab.
        KernelBusy: Something would not go; all the rest has.
    """
    require_root()
    known = known_hosts(lab)
    if known is None:
        return False
    with locked(lab):
        lab = replace(lab, hosts=max(1, known))
        report(f"removing lab {lab.name!r}")
        _remove(lab)
    return True


@contextmanager
def running_lab(
    name: str,
    hosts: int = 1,
    command: AgentCommand = agent_command,
    *,
    cluster: bool = False,
    state_root: Path = STATE_ROOT,
    run_root: Path = RUN_ROOT,
) -> Iterator[Lab]:
    """A fresh lab for a test or benchmark, gone at the end whatever happens.

    Args:
        name: The caller's own: what an interrupted run has left under it is removed.
        cluster: Make one cluster of its hosts, if there are several.

    Raises:
        As ``up`` and ``down``.
    """
    lab = Lab(name=name, hosts=hosts, state_root=state_root, run_root=run_root)
    down(lab)
    try:
        yield up(lab, command, clustered=cluster)
    finally:
        down(lab)


def find(name: str, state_root: Path = STATE_ROOT, run_root: Path = RUN_ROOT) -> Lab:
    """The lab called *name*, with as many hosts as it has.

    Raises:
        NotFound: There is none.
    """
    lab = Lab(name=name, state_root=state_root, run_root=run_root)
    known = known_hosts(lab)
    if known is None:
        raise NotFound(f"there is no lab {name!r}: make it with `{command_line(name, 'up')}`")
    return replace(lab, hosts=max(1, known))


def labs(state_root: Path = STATE_ROOT, run_root: Path = RUN_ROOT) -> list[Lab]:
    """Every lab of this machine, by name."""
    names = {name for name, _ in filter(None, map(lab_of_namespace, _children(NETNS_ROOT)))}
    names.update(filter(is_lab_name, (*_children(state_root), *_children(run_root))))
    found = []
    for name in sorted(names):
        with suppress(NotFound):  # only an empty folder is left of it
            found.append(find(name, state_root, run_root))
    return found


def known_hosts(lab: Lab) -> int | None:
    """How many hosts exist, powered off or not; None if nothing at all is left of *lab*."""
    found = map(lab_of_namespace, _children(NETNS_ROOT))
    names = [machine for name, machine in filter(None, found) if name == lab.name]
    names += [*_children(lab.state_dir), *_children(lab.run_dir)]
    return count_hosts(names) if names else None


def status(lab: Lab) -> list[MachineStatus]:
    """Every machine of *lab*, hosts first.

    Raises:
        KernelError: The kernel, or nft, cannot say what is cut.
    """
    ports, pairs = wire.links(lab.wire_netns), wire.cuts(lab).pairs
    return [_machine_status(lab, machine, ports, pairs) for machine in lab.machines]


def require_root() -> None:
    """Check that we may make network namespaces.

    Raises:
        Unsupported: We are not root.
    """
    if os.geteuid() != 0:
        raise Unsupported("a lab is made of network namespaces, which needs root: use sudo")


@contextmanager
def locked(lab: Lab) -> Iterator[None]:
    """Keep everybody else from changing *lab*.  The lock is its run dir, and ends with us.

    Raises:
        Conflict: Somebody else has held it for _LOCK_SECONDS.
    """
    deadline = time.monotonic() + _LOCK_SECONDS
    while (held := _try_lock(lab)) is None:
        if time.monotonic() > deadline:
            raise Conflict(
                f"another command is working on lab {lab.name!r}: try again when it has ended"
            )
        time.sleep(_LOCK_PACE)
    try:
        yield
    finally:
        os.close(held)


def _bring_up(lab: Lab, command: AgentCommand, report: Report) -> None:
    wire.lay(lab)
    for machine in lab.machines:
        if not hosts.is_on(machine):
            report(f"booting {machine.name} ({machine.v4.ip}, {machine.v6.ip})")
        hosts.boot(lab, machine)
    idle = [lab.host(name) for name in lab.host_names if not agents.running(lab.host(name))]
    if idle:
        report(f"starting the agent of {', '.join(host.name for host in idle)}")
        agents.start(idle, command)


def _undo(lab: Lab, known: int | None) -> None:
    if known is None:
        _remove(lab)
    elif new := [lab.host(name) for name in lab.host_names[known:]]:
        cluster.forget(lab, new)
        hosts.dismantle(lab, new)


def _remove(lab: Lab) -> None:
    teardown = hosts.Teardown()
    teardown.step(hosts.dismantle, lab, lab.machines)
    teardown.step(netns.remove, str(lab.wire_netns))
    teardown.step(hosts.remove_folder, lab.state_dir)
    teardown.step(hosts.remove_folder, lab.run_dir)
    teardown.finish(f"lab {lab.name!r}")


def _machine_status(
    lab: Lab, machine: Machine, ports: dict[str, bool], pairs: frozenset[tuple[str, str]]
) -> MachineStatus:
    stat = agents.running(machine)
    return MachineStatus(
        machine=machine,
        on=hosts.is_on(machine),
        agent=_agent_state(machine, stat.state if stat else "") if machine.has_agent else None,
        pid=stat.process.pid if stat else 0,
        on_wire=ports.get(machine.name, False),
        parted_from=tuple(sorted(b for a, b in pairs if a == machine.name)),
        store=machine.has_agent and bool(stores.running(machine)),
        store_held=machine.has_agent and stores.held(machine),
    )


def _agent_state(host: Machine, letter: str) -> AgentState:
    """*letter* as in processes.Stat.state, empty if the agent is not running."""
    if not hosts.is_on(host):
        return AgentState.OFF
    if not letter:
        return AgentState.STOPPED
    return AgentState.PAUSED if letter == "T" else AgentState.RUNNING


def _try_lock(lab: Lab) -> int | None:
    """Lock the run dir; None if somebody has it, or removed it while we waited."""
    try:
        lab.run_dir.mkdir(parents=True, exist_ok=True)
        fd = os.open(lab.run_dir, os.O_RDONLY | os.O_DIRECTORY)
    except (FileExistsError, FileNotFoundError):  # removed between two steps
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(fd), lab.run_dir.stat()):
            return fd
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(fd)
    return None


def _children(folder: Path) -> list[str]:
    try:
        return [child.name for child in folder.iterdir()]
    except OSError:
        return []
