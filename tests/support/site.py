"""A lab with one host and real containers, and what tests say to it; fleet.py has several.

    with running_site("t-ports") as site:
        with site.container("web", "-p", "8080:80") as web, answering(web, "web", tcp=[80]):
            assert ["web 80 192.0.2.200"] == reach(site.outside, f"tcp://{HOST}:8080")

At the end of a site nothing is left of what was removed: see ``check_empty``.
"""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import gettempdir
from typing import Any

from seaway.cli.client import Client
from seaway.lab import shell
from seaway.lab.lifecycle import running_lab
from seaway.lab.topology import INTERNET_4, INTERNET_6, OUTSIDE, Lab
from tests.support.netns import ENVIRONMENT, Namespace, Refused

HOST, HOST6 = "192.0.2.1", "2001:db8:5ea::1"
CLIENT, CLIENT6 = "192.0.2.200", "2001:db8:5ea::200"
INTERNET, INTERNET6 = str(INTERNET_4), str(INTERNET_6)
"""Addresses of the lab's host1, of ``outside`` on the wire, and of ``outside`` as the internet."""

NOTHING = "Nothing: the kernel is as it should be."
PREDEFINED = {"bridge", "host", "none"}
_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended."""

    status: int
    out: str
    err: str


class Container(Namespace):
    """A container's network namespace, and what Seaway says about the container."""

    def __init__(self, site: Site, name: str) -> None:
        super().__init__(name)
        self.site = site
        self.path = Path(self.view()["netns"])

    def view(self) -> dict[str, Any]:
        """Ask the agent afresh."""
        return dict(self.site.ask(f"/v1/sandboxes/{self.name}"))

    def on(self, network: str = "bridge") -> dict[str, Any]:
        """Return its endpoint on *network*."""
        (found,) = [n for n in self.view()["networks"] if n["network"] == network]
        return dict(found)

    def inside(self, *command: str) -> str:
        """Run *command* in the container itself, with its own files."""
        return self.site.seaway("exec", self.name, *command)


class Site:
    """The commands of one host of a lab.

    Attributes:
        host, outside: Namespaces of the host and of ``outside``.
    """

    def __init__(self, lab: Lab, host: str = "host1") -> None:
        self.lab = lab
        self.machine = lab.host(host)
        self.host = Namespace(self.machine.netns.name)
        self.outside = Namespace(lab.machine(OUTSIDE).netns.name)
        self.environment = shell.environment(lab, host, ENVIRONMENT)

    def argv(self, *words: str) -> list[str]:
        """Return the command line of ``seaway WORDS`` on the host."""
        return self.host.argv(sys.executable, "-m", "seaway", *words)

    def attempt(self, *words: str, stdin: str = "") -> Done:
        """Run ``seaway WORDS`` on the host, whatever comes of it."""
        done = subprocess.run(
            self.argv(*words),
            input=stdin,
            text=True,
            capture_output=True,
            timeout=_SECONDS,
            check=False,
            env=self.environment,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def seaway(self, *words: str) -> str:
        """Run ``seaway WORDS`` on the host and return what it prints, stripped.

        Raises:
            Refused: It failed; carries its stderr.
        """
        done = self.attempt(*words)
        if done.status != 0:
            raise Refused(f"seaway {' '.join(words)}: {done.status}\n{done.out}{done.err}")
        return done.out.strip()

    def json(self, *words: str) -> list[dict[str, Any]]:
        """Run ``seaway WORDS --format json`` and read the lines."""
        lines = self.seaway(*words, "--format", "json").splitlines()
        return [json.loads(line) for line in lines]

    def ask(self, path: str) -> Any:
        """GET *path* of the agent's API; a hundred times faster than a command."""
        return Client(str(self.machine.socket)).request("GET", path)

    def inspect(self, name: str) -> dict[str, Any]:
        """Return the one object that ``seaway inspect`` shows."""
        (found,) = self.json("inspect", name)
        return found

    def network(self, name: str) -> dict[str, Any]:
        """Return what ``seaway network inspect`` shows."""
        (found,) = self.json("network", "inspect", name)
        return found

    def start(
        self, name: str, *flags: str, image: str = "busybox", command: tuple[str, ...] = ()
    ) -> Container:
        """Run a container in the background; busybox sleeps unless told otherwise."""
        if image == "busybox" and not command:
            command = ("sleep", "1000")
        self.seaway("run", "-d", "--name", name, *flags, image, *command)
        return Container(self, name)

    @contextmanager
    def container(
        self, name: str, *flags: str, image: str = "busybox", command: tuple[str, ...] = ()
    ) -> Iterator[Container]:
        """As start(), and removed at the end if it is still there."""
        try:
            yield self.start(name, *flags, image=image, command=command)
        finally:
            self.attempt("rm", "-f", name)

    @contextmanager
    def networks(self, *names: str, flags: tuple[str, ...] = ()) -> Iterator[None]:
        """Networks of these names, removed at the end."""
        try:
            for name in names:
                self.seaway("network", "create", *flags, name)
            yield
        finally:
            self.attempt("network", "rm", "-f", *names)

    def drops(self, name: str) -> int:
        """Return how many packets were dropped under the counter drop_NAME."""
        return int(self.ask("/v1/status")["drops"][f"drop_{name}"])

    def elements(self, name: str) -> list[Any]:
        """List the elements of one set or map of our table, as nft's JSON has them."""
        kind = "map" if name.startswith(("publish", "gateway")) else "set"
        listing = json.loads(self.host.run(f"nft -j list {kind} inet seaway {name}"))
        (found,) = [item[kind] for item in listing["nftables"] if kind in item]
        return list(found.get("elem", []))

    def snapshot(self) -> dict[str, Any]:
        """Take down all that exists: what Seaway says, the kernel's objects, Podman's."""
        return {
            "networks": {n["name"]: n for n in self.ask("/v1/networks")},
            "attached": {s["name"]: s for s in self.ask("/v1/sandboxes")},
            "containers": {c["Names"]: c["State"] for c in self.json("ps", "-a")},
            "rules": self._rules(),
            "links": self.host.run("ip -o link show").count("\n"),
            "routes": sorted(self.host.run("ip route").splitlines()),
            "sockets": sorted(
                " ".join(line.split()[3:4]) for line in self.host.run("ss -Htuln").splitlines()
            ),
            "namespaces": sorted(p.name for p in self.machine.run_dir.glob("netns/*")),
            "files": sorted(p.name for p in self.machine.run_dir.glob("containers/*")),
            "plan": self.ask("/v1/plan")["lines"],
        }

    def _rules(self) -> list[str]:
        """Read our table without what packets change, the counters, and without handles."""
        listing = json.loads(self.host.run("nft -j list table inet seaway"))["nftables"]
        for item in (*(o.get("set", {}) for o in listing), *(o.get("map", {}) for o in listing)):
            item["elem"] = sorted(map(json.dumps, item.get("elem", [])))
        for item in (body for o in listing for body in o.values()):
            item.pop("handle", None)
        return sorted(json.dumps(o) for o in listing if "counter" not in o)


@contextmanager
def running_site(name: str) -> Iterator[Site]:
    """A lab for one module of tests; at the end it is as empty as at the start."""
    with free_name(name) as own, running_lab(own) as lab:
        site = Site(lab)
        before = site.snapshot()
        assert [] == before["plan"]
        yield site
        assert NOTHING == site.seaway("plan")  # the second plan is empty
        check_empty(site, before)


@contextmanager
def free_name(name: str) -> Iterator[str]:
    """Keep other runs of the same tests on this machine from the lab that is yielded."""
    for candidate in (name, *(f"{name}-{n}" for n in range(2, 10))):
        with Path(gettempdir(), f"seaway-test-{candidate}.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            yield candidate
            return
    raise AssertionError(f"nine runs of {name} at once")


def check_empty(site: Site, before: dict[str, Any]) -> None:
    """Remove what tests have shared, and find the host as it was before them."""
    for container in site.json("ps", "-a"):
        site.seaway("rm", "-f", container["Names"])
    for network in {n["Name"] for n in site.json("network", "ls")} - PREDEFINED:
        site.seaway("network", "rm", network)
    assert before == site.snapshot()
