"""What a host's containers leave on the machine: storage, runtime state, mounts.

All of it is reached through the host's own folders, with the agent already
gone, so nothing here asks anybody.
"""

from __future__ import annotations

import errno
import json
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from seaway.errors import EngineError, KernelBusy, KernelError
from seaway.kernel import netns, wireguard
from seaway.lab import wire
from seaway.lab.programs import run
from seaway.lab.topology import IMAGE_STORE, Machine
from seaway.plan.resources import WIREGUARD_PREFIX

_RUNTIMES = ("runc", "crun")
_PODMAN_SECONDS = 20.0


def remove_containers(hosts: Sequence[Machine]) -> None:
    """Have Podman end and remove every container of *hosts*, all hosts side by side.

    Fine if there is no Podman, or a host never ran one.

    Raises:
        EngineError: Podman refused, or took too long.
    """
    if shutil.which("podman") is None:
        return
    calls = [(host, _call_podman(host)) for host in hosts if container_ids(host)]
    causes = [words for host, call in calls if (words := _outcome(host, call))]
    if causes:
        raise EngineError("; ".join(causes))


def container_ids(host: Machine) -> list[str]:
    """The containers in *host*'s storage, running or not."""
    ids: list[str] = []
    for listing in host.podman_root.glob("*-containers/containers.json"):
        # Half a file is as good as none: the folders go anyway.
        with suppress(OSError, ValueError):
            ids += [entry["id"] for entry in json.loads(listing.read_text())]
    return ids


def forget_runtime_state(host: Machine) -> None:
    """Remove what the OCI runtimes keep in /run about *host*'s containers, as a reboot does.

    They keep it under the container's id in one folder for the whole machine,
    and refuse to start a container that seems to exist.  A container that
    still runs, in whatever namespace, is killed.
    """
    for container in container_ids(host):
        for runtime in _RUNTIMES:
            state = Path("/run", runtime, container)
            if state.exists():
                with suppress(KernelError, OSError):  # broken, or uninstalled
                    run([runtime, "delete", "--force", container])
                shutil.rmtree(state, ignore_errors=True)


def tunnels(machines: Iterable[Machine]) -> list[Path]:
    """The control sockets of the WireGuard devices that *machines* have.

    A wireguard-go that is killed leaves its socket behind, in one folder for
    the whole machine.  Once its device has gone, nothing says whose it was.
    """
    links: list[str] = []
    for machine in machines:
        with suppress(KernelError):  # a namespace that is going
            links += wire.links(machine.netns)
    return [
        wireguard.SOCKETS / f"{link}.sock" for link in links if link.startswith(WIREGUARD_PREFIX)
    ]


def mounts_under(folders: Iterable[Path], mountinfo: str | None = None) -> list[str]:
    """Mount points inside *folders*, the latest mount first.

    Args:
        mountinfo: Text to read instead of the kernel's.

    Source:
        proc(5), /proc/<pid>/mountinfo, field 5.
    """
    text = Path("/proc/self/mountinfo").read_text() if mountinfo is None else mountinfo
    prefixes = tuple(f"{folder}/" for folder in folders)
    points = [_unescape(line.split(" ")[4]) for line in text.splitlines()]
    return [point for point in reversed(points) if point.startswith(prefixes)]


def sandbox_namespaces(folders: Iterable[Path]) -> list[Path]:
    """Network namespaces that are kept at paths inside *folders*: those of containers."""
    return [Path(point) for point in mounts_under(folders) if netns.exists(point)]


def unmount(folders: Iterable[Path]) -> None:
    """Detach every mount inside *folders*.

    Raises:
        KernelBusy: Some would not go.
    """
    folders = tuple(folders)
    if points := mounts_under(folders):
        # A detached parent takes its children along, so complaints mean
        # nothing; what is still mounted afterwards does.
        with suppress(KernelError):
            run(["umount", "--lazy", "--", *points])
    if left := mounts_under(folders):
        raise KernelBusy("unmount", left[0], errno.EBUSY)


def _unescape(point: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), point)


def _call_podman(host: Machine) -> subprocess.Popen[str]:
    from seaway.engine import podman  # noqa: PLC0415 - it loads asyncio, which takes 40 ms

    # With the flags that the store was made with, which are the agent's own.
    engine = podman.find(host.podman_root, host.run_dir, IMAGE_STORE)
    # In the host's namespace, so that what Podman starts meanwhile is found there.
    with netns.inside(str(host.netns) if netns.exists(str(host.netns)) else ""):
        return subprocess.Popen(
            engine.argv("rm", "--force", "--all", "--time", "0"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )


def _outcome(host: Machine, call: subprocess.Popen[str]) -> str:
    """Wait for Podman; return what went wrong, or nothing."""
    try:
        _, words = call.communicate(timeout=_PODMAN_SECONDS)
    except subprocess.TimeoutExpired:
        call.kill()
        call.communicate()
        return f"podman on {host.name} did not end the containers in {_PODMAN_SECONDS:.0f} s"
    if call.returncode == 0:
        return ""
    return f"podman on {host.name}: {words.strip().rpartition(chr(10))[2]}"
