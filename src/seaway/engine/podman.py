"""How to call Podman on this machine.  Knows nothing about networks.

Podman keeps some flags with a store on first use, so every call on one store
uses the same ones; they are computed here and nowhere else.
"""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
from dataclasses import dataclass
from pathlib import Path

_CAP_SYS_RESOURCE = 24  # include/uapi/linux/capability.h
_QUIET = "PODMAN_IGNORE_CGROUPSV1_WARNING"  # Podman 5 would print it at every call
_SHORT_NAMES = "unqualified-search-registries"
_NOFILE, _NPROC = 1048576, 32768  # what Podman asks for where it may


@dataclass(frozen=True, slots=True, kw_only=True)
class Podman:
    """Podman with the flags this machine needs.

    Attributes:
        flags: Global flags, before the subcommand.
        run_flags: Flags of ``run`` and ``create``, before the user's, whose win.
        environment: Variables to set for every call.
    """

    flags: tuple[str, ...] = ()
    run_flags: tuple[str, ...] = ()
    environment: dict[str, str]

    def argv(self, *words: str) -> list[str]:
        """Return the command line of ``podman WORDS``."""
        return ["podman", *self.flags, *words]


def find(root: Path | None, run_dir: Path, image_store: Path | None) -> Podman:
    """Work out the flags.

    Args:
        root: A store of our own (labs), or None for the machine's.
        run_dir: Where a store of our own keeps what does not survive a reboot.
        image_store: A read-only store of images, used beside its own if it exists.
    """
    flags: list[str] = []
    if root is not None:
        flags += ["--root", str(root), "--runroot", str(run_dir / "podman")]
        flags += ["--tmpdir", str(run_dir / "podman-tmp")]
    if not Path("/run/systemd/system").is_dir():
        flags += ["--cgroup-manager", "cgroupfs", "--events-backend", "file"]
    if not Path("/sys/fs/cgroup/cgroup.controllers").exists() and shutil.which("runc"):
        flags += ["--runtime", "runc"]  # crun refuses version 1 hierarchies
    if image_store is not None and image_store.is_dir():
        flags += ["--storage-opt", f"additionalimagestore={image_store}"]
    environment = {_QUIET: "1", **_registries(run_dir)}
    if root is not None:
        environment |= _own_settings(run_dir)
    return Podman(flags=tuple(flags), run_flags=_ulimits(), environment=environment)


def _own_settings(run_dir: Path) -> dict[str, str]:
    """Keep stores on one machine apart: locks of their own, and not the machine's /etc/hosts."""
    text = '[containers]\nbase_hosts_file = "none"\n[engine]\nlock_type = "file"\n'
    return {"CONTAINERS_CONF": _write_once(run_dir / "containers.conf", text)}


def _write_once(path: Path, text: str) -> str:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(path)


def _registries(
    run_dir: Path, system: Path = Path("/etc/containers/registries.conf")
) -> dict[str, str]:
    """Make ``nginx`` mean what it means to Docker, where the machine does not say what it means.

    Debian's registries.conf names no registry for short names, so Podman refuses them.
    """
    try:
        told = any(line.startswith(_SHORT_NAMES) for line in system.read_text().splitlines())
    except OSError:
        told = False
    if told:
        return {}
    text = f'{_SHORT_NAMES} = ["docker.io"]\n'
    return {"CONTAINERS_REGISTRIES_CONF": _write_once(run_dir / "registries.conf", text)}


def _ulimits() -> tuple[str, ...]:
    """Ask for no more than we may raise to, where we may not raise at all."""
    if _has_capability(_CAP_SYS_RESOURCE):
        return ()
    nofile = min(_NOFILE, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    nproc = min(_NPROC, resource.getrlimit(resource.RLIMIT_NPROC)[1])
    # Both, because naming one makes Podman fall back to its own figure for the other.
    return ("--ulimit", f"nofile={nofile}:{nofile}", "--ulimit", f"nproc={nproc}:{nproc}")


def _has_capability(number: int) -> bool:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> number & 1)
    return False


async def container_ids(podman: Podman) -> set[str] | None:
    """List the ids of all containers, running or not; None when Podman cannot tell."""
    try:
        process = await asyncio.create_subprocess_exec(
            *podman.argv("ps", "-a", "-q", "--no-trunc"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={**os.environ, **podman.environment},
        )
    except FileNotFoundError:
        return None
    out, _ = await process.communicate()
    return set(out.decode().split()) if process.returncode == 0 else None
