"""One server on many ports, and one client for many of them, inside a namespace.

A test of reachability asks a dozen questions; a process for each would take longer
than all the rest of it.

    with answering(web, "web", tcp=(80,), udp=(53,)):
        assert ["web 80 192.0.2.200"] == reach(outside, "tcp://192.0.2.1:8080")
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Thread

from tests.support.netns import ENVIRONMENT, Namespace

_SERVER = """
import selectors, socket, sys
label, *specs = sys.argv[1:]
waiting = selectors.DefaultSelector()
for spec in specs:
    kind, port = spec.split(":")
    s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM)
    s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(("::", int(port)))
    if kind == "tcp":
        s.listen(128)
    waiting.register(s, selectors.EVENT_READ, (kind, port))
def reply(port, peer):
    return f"{label} {port} {peer[0].removeprefix('::ffff:')}".encode()
print("ready", flush=True)
while True:
    for key, _ in waiting.select():
        kind, port = key.data
        if kind == "udp":
            _, peer = key.fileobj.recvfrom(65535)
            key.fileobj.sendto(reply(port, peer), peer)
            continue
        client, peer = key.fileobj.accept()
        try:
            client.sendall(reply(port, peer))
        except OSError:
            pass
        client.close()
"""

_CLIENT = """
import concurrent.futures, json, socket, sys
seconds, source, *targets = sys.argv[1:]
def ask(target):
    kind, _, where = target.partition("://")
    address, _, port = where.rpartition(":")
    address = address.strip("[]")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM) as s:
        s.settimeout(float(seconds))
        try:
            if source:
                s.bind((source, 0))
            s.connect((address, int(port)))
            if kind == "udp":
                s.send(b"?")
            return s.recv(65535).decode() or "nothing"
        except ConnectionRefusedError:
            return "refused"
        except TimeoutError:
            return "silence"
        except OSError as err:
            return err.strerror
with concurrent.futures.ThreadPoolExecutor(max(len(targets), 1)) as pool:
    print(json.dumps(list(pool.map(ask, targets))))
"""

_RECORDER = """
import socket, sys
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
s.bind(("::", int(sys.argv[1])))
print("ready", flush=True)
while True:
    data, peer = s.recvfrom(65535)
    print(peer[0].removeprefix("::ffff:"), data.decode(), flush=True)
"""

_TELL = """
import socket, sys
address, port, words = sys.argv[1:]
family = socket.AF_INET6 if ":" in address else socket.AF_INET
socket.socket(family, socket.SOCK_DGRAM).sendto(words.encode(), (address, int(port)))
"""

_CALLER = """
import socket, sys
address, port = sys.argv[1], int(sys.argv[2])
family = socket.AF_INET6 if ":" in address else socket.AF_INET
s = socket.socket(family, socket.SOCK_DGRAM)
s.bind(("", 0))
print("ready", flush=True)
for line in sys.stdin:
    s.settimeout(float(line))
    try:
        s.sendto(b"?", (address, port))
        print(s.recv(65535).decode(), flush=True)
    except ConnectionRefusedError:
        print("refused", flush=True)
    except OSError:
        print("silence", flush=True)
"""

_PATIENCE = 10  # seconds


@contextmanager
def answering(
    space: Namespace, label: str, *, tcp: Sequence[int] = (), udp: Sequence[int] = ()
) -> Iterator[None]:
    """Answer on every address and port with "LABEL PORT CLIENT"; ready on entry."""
    specs = [*(f"tcp:{port}" for port in tcp), *(f"udp:{port}" for port in udp)]
    with space.started(sys.executable, "-c", _SERVER, label, *specs) as server:
        assert server.stdout is not None
        assert "ready" == server.stdout.readline().strip(), f"{specs} in {space.name}"
        yield


def reach(space: Namespace, *targets: str, seconds: float = 2, source: str = "") -> list[str]:
    """Ask ``tcp://ADDRESS:PORT`` or ``udp://[ADDRESS]:PORT``, all at once, from *source* if given.

    Returns:
        For each target the reply; or "refused", "silence" after *seconds*, or the kernel's words.
    """
    found: list[str] = json.loads(space.python(_CLIENT, str(seconds), source, *targets))
    return found


@contextmanager
def calling(space: Namespace, address: str, port: int) -> Iterator[Callable[..., str]]:
    """A UDP client that keeps its one socket, as clients of DNS, QUIC or SIP do.

    Yields:
        A function that sends one datagram and returns the reply, "refused", or "silence"
        after *seconds*.
    """
    process = subprocess.Popen(
        space.argv(sys.executable, "-c", _CALLER, address, str(port)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    send, replies = process.stdin, process.stdout

    def ask(seconds: float = 2) -> str:
        send.write(f"{seconds}\n")
        send.flush()
        return replies.readline().strip()

    try:
        assert "ready" == replies.readline().strip()
        yield ask
    finally:
        process.kill()
        process.communicate()


@contextmanager
def recording(space: Namespace, port: int) -> Iterator[Callable[[], str]]:
    """Note who sends datagrams to *port*, and answer none.

    Yields:
        A function that returns the next sender and its words: "192.0.2.200 hello".
    """
    with space.started(sys.executable, "-c", _RECORDER, str(port)) as recorder:
        heard = lines(recorder)
        assert "ready" == heard()
        yield heard


def lines(process: subprocess.Popen[str]) -> Callable[[], str]:
    """Return a function that waits a few seconds at most for the process's next line."""
    assert process.stdout is not None
    found: queue.SimpleQueue[str] = queue.SimpleQueue()
    own = os.dup(process.stdout.fileno())  # whoever started the process closes its pipe

    def read() -> None:
        with os.fdopen(own) as pipe:
            for line in pipe:
                found.put(line.strip())

    Thread(target=read).start()  # because a pipe's line cannot be waited for with a deadline

    def following() -> str:
        try:
            return found.get(timeout=_PATIENCE)
        except queue.Empty:
            raise AssertionError(f"no word from {process.args} in {_PATIENCE} s") from None

    return following


def tell(space: Namespace, address: str, port: int, words: str) -> None:
    """Send one datagram, and wait for no answer."""
    space.python(_TELL, address, str(port), words)
