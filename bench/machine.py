"""What a run was made on: a figure without its machine says nothing."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from bench.programs import Failed, run

_PACKAGES = (
    "docker.io",
    "podman",
    "netavark",
    "aardvark-dns",
    "containernetworking-plugins",
    "wireguard-go",
    "etcd-server",
)


def describe() -> list[str]:
    """Describe the machine and the versions of what was compared, a line each."""
    cpu = _field("/proc/cpuinfo", "model name") or platform.machine()
    memory = int(_field("/proc/meminfo", "MemTotal").split()[0]) / 2**20
    system = platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    return [
        f"{os.cpu_count()} CPUs ({cpu}), {memory:.0f} GiB",
        f"{system}, Linux {platform.release()}, Python {platform.python_version()}",
        ", ".join(_versions()) or "no peer is installed as a package",
    ]


def _field(path: str, name: str) -> str:
    """Read the first ``name : value`` of a file in /proc; "" if there is none."""
    for line in Path(path).read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def _versions() -> list[str]:
    argv = ["dpkg-query", "--show", "--showformat", "${Package} ${Version}"]
    found = []
    for package in _PACKAGES:
        try:
            found.append(run([*argv, package]))
        except (Failed, FileNotFoundError):  # not installed as a package, or no Debian
            continue
    return found
