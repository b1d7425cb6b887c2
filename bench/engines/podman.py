"""Podman with its own networks (netavark, aardvark-dns), on images that Seaway's labs share."""

from __future__ import annotations

from pathlib import Path

from bench.programs import ENVIRONMENT, run
from seaway.engine.podman import find
from seaway.lab.topology import IMAGE_STORE, Machine

IMAGE = "docker.io/library/busybox"
NETWORK = "bench"


class Podman:
    """One Podman storage, with one network that has DNS."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        home = machine.state_dir / "peer"
        (home / "networks").mkdir(parents=True, exist_ok=True)
        config = home / "containers.conf"
        config.write_text(
            f'[network]\nnetwork_backend = "netavark"\nnetwork_config_dir = "{home / "networks"}"\n'
        )
        self._flags = find(home / "storage", machine.run_dir / "peer", IMAGE_STORE)
        self._environment = {**ENVIRONMENT, "CONTAINERS_CONF": str(config)}
        self.command("network", "create", NETWORK)

    def command(self, *words: str) -> str:
        """Run ``podman WORDS`` and return what it prints, stripped."""
        argv = self._flags.argv(*words)
        return run(argv, self.machine.netns, environment=self._environment).strip()

    def start(self, *flags: str) -> str:
        """Start a container that does nothing; return its id."""
        words = ("run", *self._flags.run_flags, "-d", *flags, IMAGE, "sleep", "100000")
        return self.command(*words)

    def remove(self, container: str) -> None:
        """Remove a container, running or not."""
        self.command("rm", "-f", "-t", "0", container)

    def remove_all(self) -> None:
        """Remove every container; Podman keeps the namespaces of those that are merely killed."""
        self.command("rm", "-f", "-t", "0", "-a")

    def space(self, container: str) -> Path:
        """Return the container's network namespace."""
        return Path(f"/proc/{self.command('inspect', '-f', '{{.State.Pid}}', container)}/ns/net")

    def gateway(self) -> str:
        """Return where the network's DNS server listens."""
        return self.command(
            "network", "inspect", "-f", "{{range .Subnets}}{{.Gateway}}{{end}}", NETWORK
        )
