"""Network namespaces for tests: made with a unique name, gone at the end.

    with namespaces("web", "db") as (web, db):
        cable(web, "eth0", "10.0.0.1/24", db, "eth0", "10.0.0.2/24")
        with db.serving(5432, "rows"):
            assert "rows" == web.ask("10.0.0.2", 5432)

Commands enter a namespace with nsenter, which leaves /sys and the cgroup
mounts alone; ``ip netns exec`` would hide them from Podman and dockerd.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT / "src"), str(ROOT)))}

_serial = itertools.count()

_SERVER = """
import socket, sys
kind, address, port, reply = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4].encode()
family = socket.AF_INET6 if ":" in address else socket.AF_INET
s = socket.socket(family, socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind((address, port))
if kind == "tcp":
    s.listen(128)
print("ready", flush=True)
while True:
    if kind == "udp":
        _, peer = s.recvfrom(65535)
        s.sendto(reply or peer[0].encode(), peer)
    else:
        c, peer = s.accept()
        try:
            c.sendall(reply or peer[0].encode())
        except OSError:
            pass
        c.close()
"""

_CLIENT = """
import socket, sys
kind, address, port, seconds = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
family = socket.AF_INET6 if ":" in address else socket.AF_INET
s = socket.socket(family, socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM)
s.settimeout(seconds)
s.connect((address, port))
if kind == "udp":
    s.send(b"?")
print(s.recv(65535).decode())
"""


class Refused(AssertionError):
    """A command in a namespace failed; the text holds its own words."""


class Namespace:
    """A named network namespace.

    Attributes:
        name: Unique on this machine, e.g. "swt-4711-0-web".
        path: Where it is mounted; what ``--network ns:`` and nsenter take.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.path = Path("/run/netns") / name

    def argv(self, *command: str) -> list[str]:
        """Return the command line that runs *command* in here."""
        return ["nsenter", f"--net={self.path}", "--", *command]

    def run(self, command: str | Sequence[str], stdin: str = "", seconds: float = 30) -> str:
        """Run *command* (a string is split at blanks) and return its output.

        Raises:
            Refused: it failed; carries its stderr.
        """
        words = command.split() if isinstance(command, str) else command
        done = subprocess.run(
            self.argv(*words),
            input=stdin,
            text=True,
            capture_output=True,
            timeout=seconds,
            check=False,
            env=ENVIRONMENT,
        )
        if done.returncode != 0:
            raise Refused(f"[{self.name}] {' '.join(words)}\n{done.stdout}{done.stderr}")
        return done.stdout

    def shell(self, line: str) -> str:
        """Run a line of shell, as a user would type it."""
        return self.run(["sh", "-ec", line])

    def python(self, code: str, *args: str) -> str:
        """Run Python with Seaway and the tests importable; return what it prints, stripped."""
        return self.run([sys.executable, "-c", code, *args]).strip()

    def ask(self, address: str, port: int, kind: str = "tcp", seconds: float = 2) -> str:
        """Connect from here (UDP: send one datagram) and return the reply.

        Raises:
            Refused: no connection or no reply within *seconds*.
        """
        return self.python(_CLIENT, kind, address, str(port), str(seconds))

    @contextmanager
    def started(self, *command: str) -> Iterator[subprocess.Popen[str]]:
        """Keep *command* running in here until the block ends; its stdout is a pipe."""
        process = subprocess.Popen(
            self.argv(*command), stdout=subprocess.PIPE, text=True, env=ENVIRONMENT
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()

    @contextmanager
    def serving(
        self, port: int, reply: str = "", kind: str = "tcp", address: str = "0.0.0.0"
    ) -> Iterator[int]:
        """Answer everyone on *port* with *reply*; ready on entry.

        An empty *reply* answers with the client's address as it arrived.

        Yields:
            The server's pid.
        """
        argv = (sys.executable, "-c", _SERVER, kind, address, str(port), reply)
        with self.started(*argv) as server:
            assert server.stdout is not None
            assert "ready" == server.stdout.readline().strip(), f"port {port} in {self.name}"
            yield server.pid


@contextmanager
def namespaces(*names: str) -> Iterator[tuple[Namespace, ...]]:
    """Make namespaces with loopback up, and delete them whatever happens."""
    assert os.geteuid() == 0, "these tests make network namespaces: run them as root"
    batch = f"swt-{os.getpid()}-{next(_serial)}"
    with ExitStack() as stack:
        made = []
        for name in names:
            space = Namespace(f"{batch}-{name}")
            _ip("netns", "add", space.name)
            stack.callback(_ip, "netns", "del", space.name)
            space.run("ip link set lo up")
            made.append(space)
        yield tuple(made)


def cable(
    a: Namespace, a_link: str, a_address: str, b: Namespace, b_link: str, b_address: str
) -> None:
    """Join two namespaces with a veth pair that carries packets at once.

    Addresses may be lists joined by commas, or "".
    """
    a.run(f"ip link add {a_link} type veth peer name {b_link} netns {b.name}")
    ends = ((a, a_link, a_address), (b, b_link, b_address))
    for space, link, addresses in ends:
        # an IPv6 address, the link-local one too, is usable at once instead of seconds later
        space.run(f"sysctl -eqw net.ipv6.conf.{link}.accept_dad=0")
        for address in filter(None, addresses.split(",")):
            space.run(f"ip address add {address} dev {link}")
        space.run(f"ip link set {link} up")
    for space, link, _ in ends:  # the kernel drops what is sent before it has seen the carrier
        wait_until(lambda s=space, n=link: "state UP" in s.run(f"ip -o link show dev {n}"))


def wait_until(true: Callable[[], object], seconds: float = 5, what: str = "") -> None:
    """Poll until *true* says so; never sleep for a guessed time."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"still not true after {seconds} s: {what}"
        time.sleep(0.02)


def _ip(*args: str) -> None:
    subprocess.run(["ip", *args], check=True, timeout=30)
