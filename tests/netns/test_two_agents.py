"""Two agents for one directory: one of them serves, the other says why not, at once."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from contextlib import ExitStack

from tests.support.agent import agent_on, seaway
from tests.support.netns import ENVIRONMENT, namespaces, wait_until


def test_of_agents_started_at_once_one_serves():
    """All the others end with one line, and its socket is where clients look."""
    with namespaces("host") as (host,), agent_on(host, start=False) as agent:
        started = [
            subprocess.Popen(
                agent.argv(), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, env=ENVIRONMENT
            )
            for _ in range(4)
        ]
        try:
            wait_until(lambda: sum(p.poll() is not None for p in started) >= 3, 20, "the others")
            wait_until(agent._answers, 20, "no answer")
            last_words = [p.stderr.read().decode() for p in started if p.poll() is not None]

            assert 3 == len(last_words)
            for words in last_words:
                assert 1 == len(words.splitlines()), words
                assert "already: stop it first" in words
        finally:
            for process in started:
                process.kill()
                process.communicate()


def test_a_frozen_agent_that_nobody_can_call_any_more_is_still_there():
    """Its socket's queue is full, so that a call would wait for ever: the second one does not."""
    with namespaces("host") as (host,), agent_on(host) as agent, ExitStack() as open_ones:
        os.kill(agent.pid, signal.SIGSTOP)
        while True:
            caller = open_ones.enter_context(socket.socket(socket.AF_UNIX))
            caller.setblocking(False)
            try:
                caller.connect(str(agent.run_dir / "seaway.sock"))
            except BlockingIOError:
                break

        done = seaway(host, *agent.argv()[agent.argv().index("agent") :], seconds=10)

        assert 1 == done.returncode
        assert "already: stop it first" in done.stderr
