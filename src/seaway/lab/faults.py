"""What goes wrong on purpose: dead, frozen and unplugged hosts, cut wires.

Only ``start`` and ``power_off`` keep others from changing the lab meanwhile;
the rest must work at any moment, also while an agent is starting.
"""

from __future__ import annotations

import signal

from seaway.lab import agents, hosts, stores, wire
from seaway.lab.agents import AgentCommand, agent_command
from seaway.lab.lifecycle import locked, require_root
from seaway.lab.topology import Lab


def start(lab: Lab, host: str, command: AgentCommand = agent_command) -> bool:
    """Boot *host* if it is off and start its agent; False if the agent runs already.

    Raises:
        NotFound: No such host.
        AgentUnreachable: The agent did not get ready.
        KernelError: Linux refused.
    """
    require_root()
    machine = lab.host(host)
    with locked(lab):
        if agents.running(machine):
            return False
        hosts.boot(lab, machine)
        agents.start([machine], command)
    return True


def kill(lab: Lab, host: str) -> bool:
    """SIGKILL the agent of *host*, and nothing else there; False if it was not running.

    Raises:
        NotFound: No such host.
    """
    require_root()
    return bool(agents.stop([lab.host(host)]))


def pause(lab: Lab, host: str) -> None:
    """SIGSTOP the agent of *host*: it is there and does not answer.

    Raises:
        NotFound: No such host.
        AgentUnreachable: The agent is not running.
    """
    require_root()
    agents.signal_agent(lab.host(host), signal.SIGSTOP)


def resume(lab: Lab, host: str) -> None:
    """SIGCONT the agent of *host*; fine if it was not paused.

    Raises:
        NotFound: No such host.
        AgentUnreachable: The agent is not running.
    """
    require_root()
    agents.signal_agent(lab.host(host), signal.SIGCONT)


def power_off(lab: Lab, host: str) -> bool:
    """Pull the plug of *host*; False if it was off.

    What ran there is killed, its namespaces and run dir go, its state dir
    stays.  ``start`` boots it again, as after a crash.

    Raises:
        NotFound: No such host.
        KernelBusy: Something would not go; asking again is right.
    """
    require_root()
    machine = lab.host(host)
    with locked(lab):
        was_on = hosts.is_on(machine)
        hosts.power_off(lab, [machine])
    return was_on


def cut(lab: Lab, machine: str, other: str | None = None) -> None:
    """Take *machine* off the wire, or part it only from *other*, both ways.

    Raises:
        NotFound: No such machine, or it is off.
        KernelError: Linux refused.
    """
    require_root()
    wire.cut(lab, lab.machine(machine), lab.machine(other) if other else None)


def heal(lab: Lab, machine: str | None = None, other: str | None = None) -> None:
    """Undo cuts: between two machines, all of one machine's, or all there are.

    All but the first let go of killed stores, too.

    Raises:
        NotFound: No such machine.
        KernelError: Linux refused.
    """
    require_root()
    wire.heal(lab, lab.machine(machine) if machine else None, lab.machine(other) if other else None)
    if other is None:
        for host in [lab.machine(machine)] if machine else lab.machines:
            stores.release(host)


def kill_store(lab: Lab, host: str, *, once: bool = False) -> bool:
    """SIGKILL the etcd of *host* and keep it away until ``heal``; False if it did not run.

    Args:
        once: Do not keep it away: the agent starts it again.

    Raises:
        NotFound: No such host, or it is off.
        KernelBusy: It did not end.
        KernelError: nft refused.
    """
    require_root()
    machine = lab.host(host)
    if not once:
        stores.hold(machine)
    return stores.kill(machine)


def readdress(lab: Lab, host: str, number: int) -> None:
    """Give *host* the addresses that end in *number* instead of those it has on the wire.

    As with a new lease from DHCP, everything that hung on the old ones goes with them.  The
    lab's own description of the host, ``lab.host(host)``, keeps the first ones, which come
    back when it is booted again.

    Args:
        number: 1 to 254, and nobody else's.

    Raises:
        NotFound: No such host, or it is off.
        KernelError: Linux refused.
    """
    require_root()
    wire.readdress(lab, lab.host(host), number)
