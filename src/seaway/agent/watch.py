"""Notice when containers start and end, whoever starts or ends them.

The engine writes a container's pid file, ``containers/<sandbox>.pid`` in the
run directory, at every start, also when it restarts a container by itself.
Its process is then watched through a pidfd, which is readable the moment it
ends.  Nothing is polled, and no engine process is kept running.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import structlog

from seaway.agent import sandboxes
from seaway.agent.core import Core, reachable
from seaway.errors import NotFound, SeawayError, from_errno
from seaway.kernel import netns
from seaway.kernel.processes import alive, open_pidfd
from seaway.model.sandbox import Phase, Sandbox, SandboxId

log = structlog.get_logger()

_IN_CLOSE_WRITE, _IN_MOVED_TO, _IN_Q_OVERFLOW = 0x8, 0x80, 0x4000  # inotify(7)
_EVENT = struct.Struct("=iIII")  # struct inotify_event without the name
_libc = ctypes.CDLL(None, use_errno=True)


class ContainerWatch:
    """Turns pid files and ends of processes into started() and stopped()."""

    def __init__(self, core: Core, forgotten: Callable[[], Awaitable[set[str] | None]]) -> None:
        """Args:
        forgotten: Returns the ids of all containers that the engine still has,
            or None when it cannot tell.
        """
        self._core = core
        self._engine_has = forgotten
        self._folder = core.run_dir / "containers"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._pidfds: dict[SandboxId, tuple[int, int]] = {}  # sandbox -> (pid, pidfd)
        self._work: asyncio.Queue[Callable[[], Awaitable[object]]] = asyncio.Queue()
        self._inotify = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        mask = _IN_CLOSE_WRITE | _IN_MOVED_TO
        if self._inotify < 0 or (
            _libc.inotify_add_watch(self._inotify, os.fsencode(self._folder), mask) < 0
        ):
            raise from_errno("watch", str(self._folder), ctypes.get_errno())

    async def adopt(self) -> None:
        """Find out, at the agent's start, what became of every sandbox meanwhile."""
        for sandbox in list(self._core.state.sandboxes.values()):
            with suppress(SeawayError):
                await self._adopt(sandbox)

    async def _adopt(self, sandbox: Sandbox) -> None:
        pid = self._read_pid(sandbox.id) if sandbox.made_netns else sandbox.pid
        if sandbox.made_netns and pid and netns.same(netns.of_pid(pid), sandbox.netns):
            await sandboxes.started(self._core, sandbox.id, self._read_cid(sandbox.id), pid)
        elif not sandbox.made_netns and netns.exists(sandbox.netns):
            if sandbox.pid and not alive(sandbox.pid, sandbox.started):
                await sandboxes.stopped(self._core, sandbox.id)
                return
        elif sandbox.phase is Phase.CREATED and alive(sandbox.pid, sandbox.started):
            return  # whoever made it is still about to start the container
        else:
            await sandboxes.stopped(self._core, sandbox.id)
            return
        self.follow(self._core.state.sandboxes[sandbox.id])

    def follow(self, sandbox: Sandbox) -> None:
        """Watch the sandbox's process, and call stopped() when it ends."""
        if not sandbox.pid or self._pidfds.get(sandbox.id, (0, 0))[0] == sandbox.pid:
            return
        self._unfollow(sandbox.id)
        try:
            fd = open_pidfd(sandbox.pid)
        except NotFound:
            self._ended(sandbox.id, sandbox.pid)
            return
        self._pidfds[sandbox.id] = (sandbox.pid, fd)
        asyncio.get_running_loop().add_reader(fd, self._ended, sandbox.id, sandbox.pid)

    def _unfollow(self, sandbox: SandboxId) -> None:
        if found := self._pidfds.pop(sandbox, None):
            asyncio.get_running_loop().remove_reader(found[1])
            os.close(found[1])

    def _ended(self, sandbox: SandboxId, pid: int) -> None:
        self._unfollow(sandbox)

        async def work() -> None:
            found = self._core.state.sandboxes.get(sandbox)
            if found is None or found.pid != pid:
                return  # it has been started again, or removed, in the meantime
            if found.phase is Phase.CREATED and found.made_netns:
                await self._abandoned(found)
            else:
                await sandboxes.stopped(self._core, sandbox)

        self._work.put_nowait(work)

    async def _abandoned(self, sandbox: Sandbox) -> None:
        """Whoever made the sandbox has gone without starting or removing the container."""
        if container := self._read_cid(sandbox.id):
            await sandboxes.stopped(self._core, sandbox.id, container)
        else:
            await sandboxes.remove(self._core, sandbox.id)

    def check_attached(self) -> None:
        """Forget what was attached by its namespace, if that has gone."""

        async def work() -> None:
            for sandbox in list(self._core.state.sandboxes.values()):
                if not reachable(sandbox):
                    await sandboxes.stopped(self._core, sandbox.id)

        self._work.put_nowait(work)

    async def run(self) -> None:
        """Watch until cancelled."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._inotify, self._files_changed)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._do_work(), name="container-work")
                group.create_task(self._sweep_often(), name="container-sweep")
        finally:
            loop.remove_reader(self._inotify)
            os.close(self._inotify)
            for sandbox in list(self._pidfds):
                self._unfollow(sandbox)

    async def _do_work(self) -> None:
        while True:
            work = await self._work.get()
            try:
                await work()
            except SeawayError as err:
                log.warning("container_work_failed", error=str(err))
            except Exception:  # one container must not end the agent of them all
                log.exception("container_work_crashed")

    def _files_changed(self) -> None:
        data = os.read(self._inotify, 1 << 16)
        at = 0
        while at < len(data):
            _, mask, _, length = _EVENT.unpack_from(data, at)
            name = os.fsdecode(data[at + 16 : at + 16 + length].rstrip(b"\0"))
            at += 16 + length
            if mask & _IN_Q_OVERFLOW:
                self._work.put_nowait(self._find_starts)
            stem, _, suffix = name.rpartition(".")
            if suffix == "pid":
                self._work.put_nowait(partial(self._appeared, SandboxId(stem)))

    async def _appeared(self, sandbox: SandboxId) -> None:
        """A pid file was written."""
        if sandbox in self._core.state.sandboxes:
            await self.appeared(sandbox)

    async def _find_starts(self) -> None:
        """Look at every pid file: more were written than the kernel remembers."""
        for sandbox in list(self._core.state.sandboxes.values()):
            pid = self._read_pid(sandbox.id)
            if pid and netns.same(netns.of_pid(pid), sandbox.netns):
                with suppress(SeawayError):
                    await self._appeared(sandbox.id)

    async def appeared(self, sandbox: SandboxId, container: str = "", pid: int = 0) -> Sandbox:
        """Take note that a container's process runs, and watch it."""
        pid = pid or self._read_pid(sandbox)
        container = container or self._read_cid(sandbox)
        try:
            found = await sandboxes.started(self._core, sandbox, container, pid)
        finally:
            if current := self._core.state.sandboxes.get(sandbox):
                self.follow(current)
        return found

    def _read_pid(self, sandbox: SandboxId) -> int:
        with suppress(OSError, ValueError):
            return int((self._folder / f"{sandbox}.pid").read_text())
        return 0

    def _read_cid(self, sandbox: SandboxId) -> str:
        with suppress(OSError):
            return (self._folder / f"{sandbox}.cid").read_text().strip()
        return ""

    # -- what nobody tells us ----------------------------------------------------------------

    async def _sweep_often(self, every: float = 60.0) -> None:
        while True:
            await asyncio.sleep(every)
            await self.sweep()
            await self.publish_again()

    async def sweep(self) -> None:
        """Forget stopped sandboxes whose container the engine no longer has."""
        stopped = [
            s
            for s in self._core.state.sandboxes.values()
            if s.phase is Phase.STOPPED and s.container and s.made_netns
        ]
        if not stopped:
            return
        there = await self._engine_has()
        for sandbox in stopped:
            if there is not None and sandbox.container not in there:
                with suppress(SeawayError):
                    await sandboxes.remove(self._core, sandbox.id)

    async def publish_again(self) -> None:
        """Try again to publish the ports that were taken when a container started."""
        for sandbox in list(self._core.state.sandboxes.values()):
            if sandboxes.lacks_ports(sandbox):
                with suppress(SeawayError):
                    await sandboxes.publish_again(self._core, sandbox.id)


def pid_file(folder: Path, sandbox: SandboxId) -> Path:
    """Where the engine writes the container's process number."""
    return folder / "containers" / f"{sandbox}.pid"


def cid_file(folder: Path, sandbox: SandboxId) -> Path:
    """Where the engine writes the container's id."""
    return folder / "containers" / f"{sandbox}.cid"
