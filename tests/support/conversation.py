"""A program in a namespace that a test keeps talking to, a line at a time.

with conversation(outside, code) as ask:
    assert "pong" == ask("ping")
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.support.netns import ENVIRONMENT, Namespace

UDP_CLIENT = """
import socket, sys
s = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(3)
s.connect((sys.argv[1], int(sys.argv[2])))
for line in sys.stdin:
    s.send(line.encode())
    try:
        print(s.recv(100).decode().strip(), flush=True)
    except OSError as err:
        print(err, flush=True)
"""
"""Sends each line from one and the same port, and prints what is answered."""


@contextmanager
def conversation(space: Namespace, code: str, *args: str) -> Iterator[Callable[[str], str]]:
    """Run Python *code* in *space*; the function sends one line and returns the next one."""
    process = subprocess.Popen(
        space.argv(sys.executable, "-c", code, *args),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    pipes = process.stdin, process.stdout

    def ask(line: str = "") -> str:
        pipes[0].write(line + "\n")
        pipes[0].flush()
        return pipes[1].readline().strip()

    try:
        yield ask
    finally:
        process.kill()
        process.communicate()
