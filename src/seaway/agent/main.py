"""Put the pieces together and keep them running.  No decisions live here."""

from __future__ import annotations

import asyncio
import fcntl
import gc
import grp
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import structlog
import uvicorn

from seaway import __version__
from seaway.agent.agent import Agent, Settings
from seaway.agent.api import application
from seaway.errors import Conflict, StoreError, Unsupported

log = structlog.get_logger()

SOCKET = "seaway.sock"
GROUP = "seaway"
"""Members may use the API; without the group only root may."""
_FILES_EXPECTED = 8191  # descriptors that there is room for from the start

Service = Callable[[], Coroutine[Any, Any, None]]


def run(settings: Settings) -> int:
    """Run an agent until SIGTERM or SIGINT; returns the exit status.

    Raises:
        Unsupported, Conflict, StoreError: It cannot start; one line says why.
    """
    if os.geteuid() != 0:
        raise Unsupported("the agent needs root: run it with sudo, or as a service")
    _configure_log()
    _raise_open_files()
    with _alone_in(settings.run_dir):
        listener = _listen(settings.run_dir)
        try:
            asyncio.run(_main(settings, listener))
        finally:
            with suppress(FileNotFoundError):
                (settings.run_dir / SOCKET).unlink()
    return 0


async def _main(settings: Settings, listener: socket.socket) -> None:
    agent = Agent(settings)
    try:
        await agent.prepare()
        # What there is by now stays: it need not be searched for garbage again and again.
        gc.freeze()
        gc.set_threshold(50_000)
        api = _Api(uvicorn.Config(application(agent), log_config=None, lifespan="off"))
        services = {**agent.services(), "watchdog": _tell_that_we_live}
        await _serve({**services, "api": lambda: api.serve(sockets=[listener])})
    finally:
        agent.close()


class _Api(uvicorn.Server):
    """uvicorn, without its own signal handlers and with a word to systemd once it answers."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are _serve()'s business."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start answering, and say so."""
        await super().startup(sockets)
        _notify("READY=1")
        log.info("agent_ready", version=__version__)


async def _serve(services: dict[str, Service]) -> None:
    """Run every service until a signal, or until one crashes: then all stop, and systemd
    starts everything anew."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(s(), name=name) for name, s in services.items()]
        await stop.wait()
        _notify("STOPPING=1")
        for task in reversed(tasks):  # last started, first stopped
            task.cancel()


@contextmanager
def _alone_in(run_dir: Path) -> Iterator[None]:
    """Hold the run directory: two agents, started at once or one of them frozen, would both write.

    The kernel lets go of the lock when the process ends, however it ends.

    Raises:
        Conflict: Another agent holds it.
        StoreError: It cannot be made.

    Source:
        flock(2), which takes a directory as well as a file.
    """
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        held = os.open(run_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as err:
        raise StoreError(f"cannot make {run_dir}: {err.strerror}; check --run-dir") from None
    try:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(f"an agent has {run_dir} already: stop it first") from None
        yield
    finally:
        os.close(held)


def _listen(run_dir: Path) -> socket.socket:
    """Open the API's socket in a directory that we hold: a file there is a dead agent's."""
    path = run_dir / SOCKET
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(before)
    with suppress(KeyError):
        os.chown(path, 0, grp.getgrnam(GROUP).gr_gid)
        path.chmod(0o660)
    listener.listen(128)
    listener.setblocking(False)
    return listener


def _raise_open_files() -> None:
    """Every published port is a bound socket."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # The kernel's table of them grows by doubling, and waits some 10 ms for all processors each
    # time in a process with threads (expand_fdtable, fs/file.c).  Better now than in a request.
    os.close(fcntl.fcntl(sys.stderr.fileno(), fcntl.F_DUPFD, min(_FILES_EXPECTED, hard - 1)))


def _notify(message: str) -> None:
    """Tell systemd (sd_notify(3)); nothing when nobody asked to be told."""
    where = os.environ.get("NOTIFY_SOCKET")
    if not where:
        return
    address = "\0" + where[1:] if where.startswith("@") else where
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock, suppress(OSError):
        sock.sendto(message.encode(), address)


async def _tell_that_we_live() -> None:
    """Tell systemd three times as often as it asks for, until cancelled; a frozen agent does not.

    Source:
        sd_watchdog_enabled(3): microseconds in WATCHDOG_USEC, meant for WATCHDOG_PID if it is set.
    """
    me, asked = str(os.getpid()), os.environ.get("WATCHDOG_USEC", "")
    if not asked.isdecimal() or os.environ.get("WATCHDOG_PID", me) != me:
        await asyncio.Event().wait()
    while True:
        _notify("WATCHDOG=1")
        await asyncio.sleep(int(asked) / 3e6)


def _configure_log() -> None:
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *(
                (structlog.dev.ConsoleRenderer(colors=False),)
                if sys.stderr.isatty()
                else (structlog.processors.format_exc_info, structlog.processors.JSONRenderer())
            ),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
