"""Starting an agent inside a host and knowing when it is ready.

An agent is started as systemd would start it: detached, its words in a log,
and with NOTIFY_SOCKET set, on which it says ``READY=1`` (sd_notify(3)).
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import seaway
from seaway.errors import AgentUnreachable
from seaway.lab import processes
from seaway.lab.processes import Process, Stat
from seaway.lab.topology import IMAGE_STORE, Machine

AgentCommand = Callable[[Machine], Sequence[str]]
"""Makes the command that is started in a host; tests give a stand-in."""

READY_SECONDS: Final = 20.0
END_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class _Starting:
    """An agent that has not said READY=1 yet.  ``log_from`` is where its log begins, in bytes."""

    host: Machine
    process: Process
    notify: socket.socket
    log_from: int


def agent_command(host: Machine) -> list[str]:
    """The real agent."""
    return [
        *(sys.executable, "-m", "seaway", "agent"),
        *("--state-dir", str(host.state_dir)),
        *("--run-dir", str(host.run_dir)),
        *("--podman-root", str(host.podman_root)),
        *("--image-store", str(IMAGE_STORE)),
        *("--node-name", host.name),
    ]


def log_path(host: Machine) -> Path:
    """Where the agent's words go; kept over restarts."""
    return host.state_dir / "agent.log"


def running(host: Machine) -> Stat | None:
    """The host's agent, or None if it is not running."""
    return processes.read_pid_file(_pid_file(host))


def start(hosts: Sequence[Machine], command: AgentCommand = agent_command) -> None:
    """Start the agents of *hosts* side by side; return when all are ready.

    Raises:
        AgentUnreachable: One ended, or was not ready within READY_SECONDS.
            None that was started by this call is left running.
    """
    started: list[_Starting] = []
    deadline = time.monotonic() + READY_SECONDS
    try:
        for host in hosts:
            # One by one: those before must be known if the next one fails.
            started.append(_spawn(host, command))  # noqa: PERF401
        for agent in started:
            _wait_ready(agent, deadline)
    except BaseException:
        _end([agent.process for agent in started])
        raise
    finally:
        for agent in started:
            agent.notify.close()
            _notify_path(agent.host).unlink(missing_ok=True)


def stop(hosts: Sequence[Machine]) -> list[str]:
    """SIGKILL the agents of *hosts*; return the names of the hosts where one ran.

    Raises:
        KernelBusy: One did not end.
    """
    alive = {host.name: stat.process for host in hosts if (stat := running(host))}
    _end(list(alive.values()))
    for host in hosts:
        _pid_file(host).unlink(missing_ok=True)
    return list(alive)


def signal_agent(host: Machine, number: signal.Signals) -> None:
    """Send *number* to the host's agent.

    Raises:
        AgentUnreachable: It is not running.
    """
    stat = running(host)
    if stat is None or not processes.send(stat.process, number):
        raise AgentUnreachable(
            f"the agent of {host.name} is not running: start it with `{host.start_command}`"
        )


def _end(those: Sequence[Process]) -> None:
    processes.kill(those, END_SECONDS)
    for process in those:
        processes.reap(process)


def _spawn(host: Machine, command: AgentCommand) -> _Starting:
    notify = _listen(_notify_path(host))
    log = log_path(host)
    log_from = log.stat().st_size if log.exists() else 0
    append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    # posix_spawn rather than subprocess: the agent is meant to outlive us, and
    # whoever ends it finds it by its pid file, not by being its parent.
    pid = os.posix_spawnp(
        "nsenter",
        ["nsenter", f"--net={host.netns}", "--wd=/", "--", *command(host)],
        _environment(host),
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), append, 0o640),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
        setsigmask=(),
        setsigdef=(signal.SIGINT, signal.SIGPIPE),
    )
    stat = processes.read_stat(pid)
    assert stat is not None  # our own child, which nobody has reaped
    processes.write_pid_file(_pid_file(host), stat.process)
    return _Starting(host, stat.process, notify, log_from)


def _wait_ready(agent: _Starting, deadline: float) -> None:
    """Wait for READY=1, the agent's end, or *deadline*, whichever is first."""
    end = os.pidfd_open(agent.process.pid)
    try:
        poll = select.poll()
        poll.register(end, select.POLLIN)
        poll.register(agent.notify, select.POLLIN)
        while events := dict(poll.poll(max(0.0, deadline - time.monotonic()) * 1000)):
            if agent.notify.fileno() in events and _said_ready(agent.notify):
                return
            if end in events:
                raise AgentUnreachable(
                    f"the agent of {agent.host.name} ended before it was ready: {_why(agent)}"
                )
    finally:
        os.close(end)
    raise AgentUnreachable(
        f"the agent of {agent.host.name} was not ready after {READY_SECONDS:.0f} s: {_why(agent)}"
    )


def _said_ready(notify: socket.socket) -> bool:
    with suppress(BlockingIOError):
        return b"READY=1" in notify.recv(4096, socket.MSG_DONTWAIT).splitlines()
    return False


def _why(agent: _Starting) -> str:
    """The last words that this agent has logged."""
    with log_path(agent.host).open("rb") as log:
        log.seek(agent.log_from)
        lines = log.read().decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")


def _listen(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    # A path, not an abstract name: those belong to one network namespace.
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        notify.bind(str(path))
    except BaseException:
        notify.close()
        raise
    return notify


def _environment(host: Machine) -> dict[str, str]:
    mine = {k: v for k, v in os.environ.items() if not k.startswith("SEAWAY_")}
    mine["NOTIFY_SOCKET"] = str(_notify_path(host))
    # The agent must be the same Seaway as ours, also when ours was found
    # through sys.path and not installed.
    source = Path(seaway.__file__).parents[1]
    if source.name not in {"site-packages", "dist-packages"}:
        mine["PYTHONPATH"] = os.pathsep.join(filter(None, (str(source), mine.get("PYTHONPATH"))))
    return mine


def _pid_file(host: Machine) -> Path:
    return host.run_dir / "agent.pid"


def _notify_path(host: Machine) -> Path:
    return host.run_dir / "notify.sock"
