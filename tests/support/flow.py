"""Traffic that counts itself: what is sent and does not come back is named.

    with flowing(one, [*at(two, "sea")]) as flow:
        ...                         # break something
        assert flow.lost() == {}    # by now, and none of it is still under way

Over each address goes a datagram every hundredth of a second, always from the same socket, and
the same number of bytes over one TCP connection that is opened once.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from tests.support.netns import ENVIRONMENT, Namespace

_ECHO = """
import selectors, socket
waiting = selectors.DefaultSelector()
tcp = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
port = tcp.getsockname()[1]
udp = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
udp.bind(("::", port))
for s in (udp, tcp):
    waiting.register(s, selectors.EVENT_READ)
print(port, flush=True)
while True:
    for key, _ in waiting.select():
        s = key.fileobj
        try:
            if s is tcp:
                waiting.register(s.accept()[0], selectors.EVENT_READ)
            elif s is udp:
                udp.sendto(*udp.recvfrom(100))
            elif piece := s.recv(65536):
                s.sendall(piece)
            else:
                waiting.unregister(s)
                s.close()
        except OSError:
            pass
"""

_SENDER = """
import json, selectors, socket, sys, time
port, pace, patience, *targets = sys.argv[1:]
pace, patience = float(pace), float(patience)
waiting = selectors.DefaultSelector()
flows = {}
class Flow:
    def __init__(self, kind, address):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.kind = kind
        until = time.monotonic() + 15  # whoever is behind a NAT has to speak first
        while True:
            self.s = socket.socket(family, kind)
            self.s.settimeout(10)
            try:
                self.s.connect((address, int(port)))
                break
            except OSError:
                self.s.close()
                if time.monotonic() > until:
                    raise
                time.sleep(0.05)
        self.s.setblocking(False)
        self.number, self.words, self.rest = 0, "", b""
        self.reset()
        waiting.register(self.s, selectors.EVENT_READ, self)
    def reset(self):
        self.sent, self.missing, self.longest, self.last = 0, {}, 0.0, time.monotonic()
    def send(self):
        self.number += 1
        self.sent += 1
        self.missing[self.number] = time.monotonic()
        try:
            self.s.send(b"%08d" % self.number)
        except BlockingIOError:
            self.missing.pop(self.number)  # never left: a TCP window that is full
            self.sent -= 1
            self.number -= 1
        except OSError as err:
            self.words = str(err)
    def read(self):
        try:
            piece = self.s.recv(65536)
        except OSError as err:
            self.words = str(err)
            return
        now = time.monotonic()
        self.longest, self.last = max(self.longest, now - self.last), now
        self.rest += piece
        while len(self.rest) >= 8:
            self.missing.pop(int(self.rest[:8]), None)
            self.rest = self.rest[8:]
for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
    for address in targets:
        name = ("udp " if kind == socket.SOCK_DGRAM else "tcp ") + address
        flows[name] = Flow(kind, address)
waiting.register(sys.stdin, selectors.EVENT_READ, None)
def pump(until):
    while True:
        for key, _ in waiting.select(max(until - time.monotonic(), 0)):
            if key.data is not None:
                key.data.read()
            elif sys.stdin.readline():
                return True
            else:
                sys.exit()
        if time.monotonic() >= until:
            return False
def report():
    end = time.monotonic() + patience
    while any(f.missing for f in flows.values()) and (left := end - time.monotonic()) > 0:
        for key, _ in waiting.select(left):
            if key.data is not None:
                key.data.read()
    told = {}
    for name, f in flows.items():
        told[name] = {
            "sent": f.sent, "lost": sorted(f.missing), "silence": f.longest, "error": f.words
        }
        f.reset()
    print(json.dumps(told), flush=True)
print("ready", flush=True)
due = time.monotonic()
while True:
    for f in flows.values():
        f.send()
    due = max(due + pace, time.monotonic())
    if pump(due):
        report()
"""


class Flow:
    """Traffic from one namespace to several addresses."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def report(self) -> dict[str, dict[str, Any]]:
        """Say what became of all since the last time, for each "udp ADDRESS", "tcp ADDRESS".

        "sent" and "lost" are numbers, and a list of them; "silence" is the longest time in seconds
        between two answers; "error" is what the kernel said against sending.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        found: dict[str, dict[str, Any]] = json.loads(self._process.stdout.readline())
        return found

    def lost(self) -> dict[str, str]:
        """Name the flows of which something did not come back since the last time, and say what."""
        found = self.report()
        assert all(told["sent"] for told in found.values()), found
        return {
            name: f"{len(missing)} of {told['sent']}, from {min(missing, default=0)} on, "
            f"{told['silence']:.3f} s of silence, {told['error']}"
            for name, told in found.items()
            if (missing := told["lost"]) or told["error"]
        }


@contextmanager
def flowing(
    source: Namespace, target: Namespace, addresses: Sequence[str], *, pace: float = 0.01
) -> Iterator[Flow]:
    """Send to each of *target*'s addresses by UDP and TCP, and count what comes back."""
    with ExitStack() as stack:
        echo = stack.enter_context(target.started(sys.executable, "-c", _ECHO))
        assert echo.stdout is not None
        port = echo.stdout.readline().strip()
        command = source.argv(sys.executable, "-c", _SENDER, port, str(pace), "2", *addresses)
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT
        )
        try:
            assert process.stdout is not None
            assert "ready" == process.stdout.readline().strip()
            yield Flow(process)
        finally:
            process.kill()
            process.communicate()
