"""One host's life: boot, power off, and gone for good."""

from __future__ import annotations

import errno
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, ParamSpec

from seaway.errors import KernelBusy, SeawayError
from seaway.kernel import netns
from seaway.lab import agents, leftovers, processes, wire
from seaway.lab.topology import Lab, Machine

_END_SECONDS: Final = 5.0

P = ParamSpec("P")


class Teardown:
    """Steps that are all tried, whatever became of the ones before.

    Attributes:
        failures: One line for each step that failed.
    """

    def __init__(self) -> None:
        self.failures: list[str] = []

    def step(self, work: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        """Try *work*; remember why it failed."""
        try:
            work(*args, **kwargs)
        except (SeawayError, OSError) as err:
            self.failures.append(str(err))

    def finish(self, target: str) -> None:
        """Say what is left.

        Raises:
            KernelBusy: A step failed; asking again is right.
        """
        if self.failures:
            raise KernelBusy("remove", target, errno.EBUSY, "; ".join(self.failures))


def boot(lab: Lab, machine: Machine) -> None:
    """Switch *machine* on: folders, namespace, link, addresses.  Fine if it is on."""
    machine.run_dir.mkdir(parents=True, exist_ok=True)
    if machine.has_agent:
        machine.state_dir.mkdir(parents=True, exist_ok=True)
        machine.state_dir.chmod(0o700)
    wire.plug(lab, machine)


def is_on(machine: Machine) -> bool:
    """Does *machine* have its namespace?"""
    return netns.exists(str(machine.netns))


def power_off(lab: Lab, machines: Sequence[Machine]) -> None:
    """Pull the plug: everything that runs in *machines* is killed, only their state dirs stay.

    Raises:
        KernelBusy: Something would not go; all the rest has.
    """
    teardown = Teardown()
    teardown.step(agents.stop, machines)
    _switch_off(lab, machines, teardown)
    teardown.finish(_names(machines))


def dismantle(lab: Lab, machines: Sequence[Machine]) -> None:
    """Remove *machines* with all they hold.

    Raises:
        KernelBusy: Something would not go; all the rest has.
    """
    teardown = Teardown()
    # The agent first, or it would restart what Podman ends.
    teardown.step(agents.stop, machines)
    teardown.step(leftovers.remove_containers, machines)
    _switch_off(lab, machines, teardown)
    for machine in machines:
        teardown.step(remove_folder, machine.state_dir)
    teardown.finish(_names(machines))


def remove_folder(folder: Path) -> None:
    """Remove *folder* with everything in it; fine if it has gone.

    Raises:
        KernelBusy: Something is mounted in it, which is not ours to empty.
    """
    if mounts := leftovers.mounts_under([folder]):
        raise KernelBusy("remove", str(folder), errno.EBUSY, f"{mounts[0]} is still mounted")
    with suppress(FileNotFoundError):
        shutil.rmtree(folder)


def _switch_off(lab: Lab, machines: Sequence[Machine], teardown: Teardown) -> None:
    folders = [folder for m in machines for folder in (m.run_dir, m.state_dir)]
    homes = [m.netns for m in machines]
    tunnels = leftovers.tunnels(machines)
    teardown.step(_end_everyone, [*homes, *leftovers.sandbox_namespaces(folders)])
    for machine in machines:
        teardown.step(leftovers.forget_runtime_state, machine)
    for tunnel in tunnels:
        teardown.step(tunnel.unlink, missing_ok=True)
    teardown.step(leftovers.unmount, folders)
    for machine in machines:
        teardown.step(wire.unplug, lab, machine)
        teardown.step(remove_folder, machine.run_dir)


def _end_everyone(namespaces: Sequence[Path]) -> None:
    """SIGKILL until nobody is left: what is killed may just have started another.

    Raises:
        KernelBusy: Some are still there after _END_SECONDS.
    """
    deadline = time.monotonic() + _END_SECONDS
    while people := processes.inhabitants(namespaces):
        if (left := deadline - time.monotonic()) <= 0:
            pids = ", ".join(str(p.pid) for p in people)
            raise KernelBusy("end processes", pids, errno.EBUSY)
        processes.kill(people, left)


def _names(machines: Sequence[Machine]) -> str:
    return ", ".join(machine.name for machine in machines)
