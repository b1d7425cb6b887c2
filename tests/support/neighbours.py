"""Other engines and firewalls, real ones, at work in a namespace that plays a host.

Nothing of the machine's own is used or changed: each gets folders of its own, and
what it leaves in the namespace is taken away at the end.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from seaway.engine import podman
from seaway.lab import leftovers
from seaway.lab.topology import IMAGE_STORE, Machine
from tests.support.netns import ENVIRONMENT, Namespace, Refused, wait_until


def need(*programs: str) -> None:
    """Skip the test where a program is not installed."""
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")


@contextmanager
def folder() -> Iterator[Path]:
    """A folder with a short name, which sockets need; whatever was mounted in it goes too."""
    path = Path(tempfile.mkdtemp(prefix="swt-"))
    try:
        yield path
    finally:
        leftovers.unmount([path])
        shutil.rmtree(path)


class Foreign(Namespace):
    """The namespace of a container of another engine."""

    def __init__(self, pid: str, name: str, address: str) -> None:
        super().__init__(name)
        self.path = Path(f"/proc/{pid}/ns/net")
        self.address = address


class Docker:
    """A dockerd in *host*."""

    def __init__(self, host: Namespace, home: Path) -> None:
        self.host = host
        self._home = home
        self._process: subprocess.Popen[bytes] | None = None
        (home / "daemon.json").write_text("{}")  # never read the machine's own

    def start(self) -> None:
        """Start the daemon, and wait until it answers."""
        words = ["dockerd", "--config-file", f"{self._home}/daemon.json"]
        words += ["--data-root", f"{self._home}/data", "--exec-root", f"{self._home}/exec"]
        words += ["--pidfile", f"{self._home}/pid", "--host", self._url]
        with (self._home / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self.host.argv(*words), stdout=log, stderr=log, env=ENVIRONMENT
            )
        wait_until(self._answers, 20, "dockerd answers")

    def stop(self) -> None:
        """Stop the daemon as its service manager does."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)
            self._process = None

    def __call__(self, *words: str) -> str:
        """Run ``docker WORDS`` and return what it prints, stripped.

        Raises:
            Refused: It failed; carries its stderr.
        """
        return self.host.run(["docker", "--host", self._url, *words]).strip()

    def load(self, machine: Machine, image: str) -> None:
        """Give Docker an image of the lab's store."""
        engine = podman.find(machine.podman_root, machine.run_dir, IMAGE_STORE)
        tar = str(self._home / "image.tar")
        subprocess.run(
            engine.argv("save", "--quiet", "--output", tar, image),
            check=True,
            env={**ENVIRONMENT, **engine.environment},
        )
        self("load", "--quiet", "--input", tar)

    @contextmanager
    def container(self, name: str, *flags: str) -> Iterator[Foreign]:
        """Run busybox, asleep."""
        try:
            # as process 1, sleep would ignore the signal that dockerd sends when it stops
            own = ("--name", name, "--stop-signal", "KILL")
            self("run", "-d", *own, *flags, "busybox", "sleep", "1000")
            facts = self("inspect", "--format", _FACTS, name)
            yield Foreign(facts.split()[0], name, facts.split()[1])
        finally:
            with suppress(Refused):
                self("rm", "--force", name)

    @property
    def _url(self) -> str:
        return f"unix://{self._home}/docker.sock"

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._home / "log").read_text()[-2000:]
        with suppress(Refused):
            return bool(self("version"))
        return False


_FACTS = "{{.State.Pid}} {{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"


@contextmanager
def docker(host: Namespace) -> Iterator[Docker]:
    """A dockerd in *host*, started by the test; its bridge and its rules go at the end."""
    need("dockerd", "docker")
    with folder() as home:
        it = Docker(host, home)
        try:
            yield it
        finally:
            it.stop()
            host.shell("ip link delete docker0 2>&- || true")
            forget_iptables(host)


def forget_iptables(host: Namespace) -> None:
    """Remove every table that iptables has made."""
    for family in ("ip", "ip6"):
        for table in ("filter", "nat", "mangle", "raw"):
            host.shell(f"nft delete table {family} {table} 2>&- || true")


class Ufw:
    """ufw in *host*; it sees and writes a copy of /etc that nobody else sees."""

    def __init__(self, host: Namespace, etc: Path) -> None:
        self._host = host
        options = f"lowerdir=/etc,upperdir={etc}/upper,workdir={etc}/work"
        for name in ("upper", "work"):
            (etc / name).mkdir()
        self._line = f'mount -t overlay overlay -o {options} /etc && exec "$@"'

    def run(self, *words: str) -> str:
        """Run any command that sees ufw's /etc."""
        return self._host.run(
            ["unshare", "--mount", "--propagation", "private", "sh", "-ec", self._line, "", *words]
        )

    def __call__(self, *words: str) -> str:
        """Run ``ufw WORDS``, saying yes to every question."""
        return self.run("ufw", "--force", *words)


@contextmanager
def ufw(host: Namespace) -> Iterator[Ufw]:
    """ufw, as it is after installation; its chains go at the end."""
    need("ufw")
    with folder() as etc:
        try:
            yield Ufw(host, etc)
        finally:
            forget_iptables(host)


class Firewalld:
    """A firewalld in *host* with a D-Bus of its own.

    Attributes:
        environment: What firewall-cmd needs in order to find this one.
    """

    def __init__(self, host: Namespace, home: Path) -> None:
        self._host = host
        self._home = home
        self.environment = {"DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={home}/bus"}
        (home / "etc").mkdir()
        (home / "bus.conf").write_text(_BUS.format(home=home))

    def __call__(self, *words: str) -> str:
        """Run ``firewall-cmd WORDS``."""
        return self._host.run([*self._env(), "firewall-cmd", *words]).strip()

    def shell(self, line: str) -> str:
        """Run a line of shell in which firewall-cmd finds this daemon."""
        return self._host.run([*self._env(), "sh", "-ec", line])

    def forget(self) -> None:
        """Drop every setting that was made, for good or at run time."""
        shutil.rmtree(self._home / "etc")
        (self._home / "etc").mkdir()
        self("--reload")

    @contextmanager
    def running(self) -> Iterator[None]:
        """Keep the daemon running, from the moment it answers."""
        bus = ("dbus-daemon", f"--config-file={self._home}/bus.conf", "--nofork")
        daemon = ("firewalld", "--nofork", "--nopid", f"--system-config={self._home}/etc")
        log = ("--log-target=file", f"--log-file={self._home}/log")
        with self._host.started("sh", "-c", 'exec "$@" 2>&-', "", *bus):
            wait_until((self._home / "bus").exists, 10, "D-Bus listens")
            with self._host.started(*self._env(), *daemon, *log) as process:
                wait_until(self._answers, 20, "firewalld answers")
                yield
                process.terminate()  # it takes its rules away
                process.wait(10)

    def _env(self) -> Sequence[str]:
        return ["env", *(f"{name}={value}" for name, value in self.environment.items())]

    def _answers(self) -> bool:
        with suppress(Refused):
            return self("--state") == "running"
        return False


_BUS = """\
<busconfig>
  <type>system</type>
  <listen>unix:path={home}/bus</listen>
  <policy context="default">
    <allow user="*"/> <allow own="*"/>
    <allow send_type="method_call"/> <allow send_type="signal"/>
    <allow send_requested_reply="true" send_type="method_return"/>
    <allow send_requested_reply="true" send_type="error"/>
    <allow receive_type="method_call"/> <allow receive_type="signal"/>
    <allow receive_type="method_return"/> <allow receive_type="error"/>
  </policy>
</busconfig>
"""


@contextmanager
def firewalld(host: Namespace) -> Iterator[Firewalld]:
    """A firewalld to be started by the test."""
    need("firewalld", "firewall-cmd", "dbus-daemon")
    with folder() as home:
        yield Firewalld(host, home)


class Podman:
    """Podman with its own bridge network in *host*, a store and settings of its own."""

    def __init__(self, host: Namespace, home: Path) -> None:
        self._host = host
        self._engine = podman.find(home / "root", home / "run", IMAGE_STORE)
        settings = Path(self._engine.environment["CONTAINERS_CONF"])
        networks = f'[network]\nnetwork_backend = "netavark"\nnetwork_config_dir = "{home}/nets"\n'
        settings.write_text(settings.read_text() + networks)

    def __call__(self, *words: str) -> str:
        """Run ``podman WORDS`` and return what it prints, stripped."""
        variables = [f"{name}={value}" for name, value in self._engine.environment.items()]
        return self._host.run(["env", *variables, *self._engine.argv(*words)]).strip()

    def run(self, name: str, *flags: str) -> Foreign:
        """Run busybox, asleep."""
        own = self._engine.run_flags
        self("run", "-d", "--name", name, *own, *flags, "busybox", "sleep", "1000")
        facts = self("inspect", "--format", "{{.State.Pid}} {{.NetworkSettings.IPAddress}}", name)
        return Foreign(facts.split()[0], name, facts.split()[1])


@contextmanager
def podman_bridge(host: Namespace) -> Iterator[Podman]:
    """Podman, whose containers and rules go at the end."""
    need("podman", "/usr/lib/podman/netavark")
    with folder() as home:
        it = Podman(host, home)
        try:
            yield it
        finally:
            it("rm", "--force", "--all", "--time", "0")
            host.shell("ip link delete podman0 2>&- || true")
            forget_iptables(host)
