"""One etcd member on this host: started, adopted, watched and ended by the agent.

It is a process of its own and outlives the agent, since a store that goes
whenever an agent is updated is none.  What it is asked for is not known here;
who should run one, and how it joins the others, is in stores.py.

    <folder>/data       etcd's
    <folder>/etcd.log   what it says, cut off when it grows (etcd.log.1 is the part before)
    <folder>/etcd.pid   number and start time of the process
"""

from __future__ import annotations

import asyncio
import os
import platform
import re
import shutil
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import msgspec
import structlog

from seaway.errors import NotFound, StoreError, Unsupported
from seaway.kernel import processes
from seaway.model.cluster import Ports
from seaway.model.network import Address
from seaway.store.etcd import Etcd

log = structlog.get_logger()

Urls = tuple[str, ...]

LOG_BYTES: Final = 8 << 20
"""How long its log may get; half of that at its start."""
QUOTA_BYTES: Final = 8 << 30
"""What etcd advises at most; a cluster of a thousand hosts needs a hundredth of it."""

_HISTORY: Final = "1h"
"""How long etcd keeps what was before: a watch that lags behind is told all of it."""

_FIRST_WAIT, _LONGEST_WAIT = 0.5, 30.0
_HEALTHY = 60.0  # seconds of life after which a death is no longer the last one's fault
_LAST_BYTES: Final = 1 << 18  # of the log are read for its last words
_LOOK = 30.0  # seconds between looks at the log's size
_TERM = 10.0  # a leader hands over first, which may take two elections
_KILL = 10.0

_MACHINES: Final = {"aarch64": "arm64", "armv7l": "arm", "i686": "386", "riscv64": "riscv64"}
"""What Go calls machines on which etcd 3.4 starts only when told that it is meant to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EtcdConfig:
    """How one member is started.

    Attributes:
        name: The host's id.
        addresses: Where others reach it.
        certificate, key, ca, crl: PEM files. etcd reads all but *ca* anew for each connection, so
            that renewed certificates and new revocations need no restart; open connections stay.
        members: Name and peer URLs of each member, this one too. It matters only at the first
            start, as *state* and *token* do.
        state: "new" makes a cluster, "existing" joins one.
        token: The cluster's id.
    """

    name: str
    addresses: tuple[Address, ...]
    ports: Ports
    certificate: Path
    key: Path
    ca: Path
    crl: Path
    members: tuple[tuple[str, Urls], ...]
    state: Literal["new", "existing"]
    token: str


def client_urls(addresses: tuple[Address, ...], ports: Ports) -> Urls:
    """Where agents reach a host's etcd."""
    return tuple(_url(address, ports.etcd) for address in addresses)


def peer_urls(addresses: tuple[Address, ...], ports: Ports) -> Urls:
    """Where the other members reach a host's etcd."""
    return tuple(_url(address, ports.etcd_peers) for address in addresses)


def _url(address: Address, port: int) -> str:
    return f"https://[{address}]:{port}" if address.version == 6 else f"https://{address}:{port}"


def arguments(config: EtcdConfig, data: Path, *, ipv6: bool) -> tuple[str, ...]:
    """Return etcd's arguments.

    Only what versions from 3.4 to 3.6 all know.  Without the v2 API, which 3.4
    has switched off by default and 3.6 no longer has.

    Args:
        ipv6: This host has IPv6 on its loopback; "::" then stands for IPv4 as well.

    Source:
        etcd --help; etcd 3.4, op-guide "Configuration flags".
    """
    everywhere = "[::]" if ipv6 else "0.0.0.0"  # noqa: S104 - certificates decide who gets in
    files = {
        "cert-file": config.certificate,
        "key-file": config.key,
        "trusted-ca-file": config.ca,
    }
    flags = {
        "name": config.name,
        "data-dir": data,
        "listen-client-urls": f"https://{everywhere}:{config.ports.etcd}",
        "listen-peer-urls": f"https://{everywhere}:{config.ports.etcd_peers}",
        "advertise-client-urls": ",".join(client_urls(config.addresses, config.ports)),
        "initial-advertise-peer-urls": ",".join(peer_urls(config.addresses, config.ports)),
        "initial-cluster": ",".join(f"{n}={url}" for n, urls in config.members for url in urls),
        "initial-cluster-state": config.state,
        "initial-cluster-token": config.token,
        "strict-reconfig-check": "true",
        "client-cert-auth": "true",
        "peer-client-cert-auth": "true",
        **files,
        **{f"peer-{name}": path for name, path in files.items()},
        "client-crl-file": config.crl,
        "peer-crl-file": config.crl,
        "auto-compaction-mode": "periodic",
        "auto-compaction-retention": _HISTORY,
        "quota-backend-bytes": QUOTA_BYTES,
        "max-txn-ops": 1024,
        "experimental-watch-progress-notify-interval": "1m",
        "logger": "zap",
        "log-outputs": "stderr",
        # With client certificates 3.4 warns of each request through its gateway, all of ours.
        "log-level": "error",
    }
    return tuple(f"--{name}={value}" for name, value in flags.items())


def _matters(argument: str) -> bool:
    """etcd looks at it at each start, not only at the first."""
    return not argument.startswith("--initial-")


class EtcdMember:
    """The etcd of this host.

    Args:
        folder: Its own, made if missing.
        program: A name on PATH or a path.

    Attributes:
        trouble: Why it is not running, in one line; "" if it is or should not be.
    """

    def __init__(self, folder: Path, program: str = "etcd") -> None:
        self.data = folder / "data"
        self.log = folder / "etcd.log"
        self.trouble = ""
        self._folder = folder
        self._pid_file = folder / "etcd.pid"
        self._program = program
        self._changing = asyncio.Lock()
        self._log_from = 0  # where the log of the latest start begins
        self._exit: int | None = None  # how our own child ended; None: not known

    @property
    def has_data(self) -> bool:
        """It has been started before and knows its cluster."""
        return (self.data / "member" / "wal").exists()

    def alive(self) -> bool:
        """Its process is there."""
        pid, started = self._remembered()
        with suppress(ChildProcessError):
            if pid and os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                _, status = os.waitpid(pid, 0)  # one of our own that has ended ends for good
                self._exit = os.waitstatus_to_exitcode(status)
        return processes.alive(pid, started) and not _unreaped(pid)

    async def ensure_running(self, config: EtcdConfig) -> bool:
        """Start it; leave one that runs with these settings, restart one with others.

        It need not answer yet when this returns: wait_ready().

        Returns:
            It was started or restarted.

        Raises:
            Unsupported: etcd is not installed.
            StoreError: A file it needs is missing, or the folder cannot be written.
        """
        async with self._changing:
            wanted = arguments(config, self.data, ipv6=_has_ipv6())
            if self.alive() or self._adopt():
                if self._same(wanted):
                    return False
                log.info("etcd_settings_changed")
                await self._end()
            self._start(config, wanted)
            return True

    async def keep_running(self, config: EtcdConfig) -> None:
        """Start it and start it again whenever it ends; until cancelled, which leaves it running.

        The wait between two starts grows from half a second to half a minute.
        Cancel this before stop() or wipe(); restart() may come at any time.
        """
        wait = _FIRST_WAIT
        while True:
            began = time.monotonic()
            try:
                await self.ensure_running(config)
                self.trouble = ""
                await self._ended()
                async with self._changing:  # a restart() holds it
                    if self.alive():
                        continue
                self.trouble = f"etcd ended: {self.last_words()}"
            except (StoreError, Unsupported) as err:
                self.trouble = str(err)
            if time.monotonic() - began > _HEALTHY:
                wait = _FIRST_WAIT
            log.warning("etcd_ended", reason=self.trouble, again_in=wait)
            await asyncio.sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT)

    async def wait_ready(self, client: Etcd, endpoint: str, seconds: float = 15.0) -> None:
        """Wait until it answers and knows a leader.

        Raises:
            StoreError: It ended, or does not answer after *seconds*.
        """
        deadline = time.monotonic() + seconds
        while True:
            try:
                if (await client.status(endpoint)).leader:
                    return
                why = "it knows no leader"
            except StoreError as err:
                why = str(err)
            if not self.alive():
                raise StoreError(f"etcd ended: {self.last_words()}; see {self.log}")
            if time.monotonic() > deadline:
                raise StoreError(f"etcd is not ready after {seconds:.0f} s: {why}; see {self.log}")
            await asyncio.sleep(0.05)

    async def restart(self, config: EtcdConfig) -> None:
        """Kill it and start it anew, so that open connections end at once.

        Asked to end, a leader looks for a successor first, among members that may be restarting
        as well, and its clients are served meanwhile.  A kill loses nothing: etcd answers only
        what is on disk.
        """
        async with self._changing:
            await self._end((signal.SIGKILL, _KILL))
            self._start(config, arguments(config, self.data, ipv6=_has_ipv6()))

    async def stop(self) -> None:
        """End it; fine if it does not run.  Its data stays.

        Raises:
            StoreError: It is stuck in the kernel.
        """
        async with self._changing:
            await self._end()

    async def wipe(self) -> None:
        """End it and delete its data: it is no member any more."""
        async with self._changing:
            await self._end()
            await asyncio.to_thread(shutil.rmtree, self.data, ignore_errors=True)

    def last_words(self) -> str:
        """Return what its log says about its end, in one line."""
        try:
            text = self.log.read_bytes()[self._log_from :]
        except OSError:
            text = b""
        said = [words for line in text[-_LAST_BYTES:].splitlines() if (words := _words(line))]
        weightiest = max((weight for weight, _ in said), default=0)
        most = [words for weight, words in said if weight == weightiest]
        if weightiest:
            return most[-1]
        return most[0] if most else _unsaid(self._exit)  # text begins with its reason

    # --- the process ------------------------------------------------------------------------------

    def _start(self, config: EtcdConfig, wanted: tuple[str, ...]) -> None:
        for path in (config.certificate, config.key, config.ca, config.crl):
            if not path.exists():  # etcd would start, and turn everyone away
                raise StoreError(f"etcd cannot run: {path} is missing; leave the cluster and join")
        program = shutil.which(self._program)
        if program is None:
            raise Unsupported("etcd is not installed: apt-get install etcd-server")
        try:
            self.data.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.data.chmod(0o700)  # etcd warns otherwise
            self._trim_log(at=LOG_BYTES // 2)
            self._log_from = self.log.stat().st_size if self.log.exists() else 0
            self._exit = None
            pid = _spawn(program, wanted, self.log)
            self._remember(pid)
        except OSError as err:
            raise StoreError(f"etcd cannot be started in {self._folder}: {err}") from err
        log.info("etcd_started", pid=pid, state=config.state)

    def _adopt(self) -> bool:
        """Find one that was started just before its starter died, and wrote no pid file."""
        mark = f"\0--data-dir={self.data}\0".encode()
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and mark in _command_line(int(entry.name)):
                self._remember(int(entry.name))
                return self.alive()
        return False

    def _remember(self, pid: int) -> None:
        new = self._pid_file.with_suffix(".new")
        new.write_text(f"{pid} {processes.start_time(pid)}\n")
        new.replace(self._pid_file)

    def _remembered(self) -> tuple[int, int]:
        try:
            pid, started = map(int, self._pid_file.read_text().split())
        except (OSError, ValueError):
            return 0, 0
        return pid, started

    def _same(self, wanted: tuple[str, ...]) -> bool:
        """The process runs with these arguments, as far as they matter."""
        pid, _ = self._remembered()
        given = os.fsdecode(_command_line(pid)).split("\0")[1:-1]
        return set(filter(_matters, given)) == set(filter(_matters, wanted))

    async def _end(self, *steps: tuple[signal.Signals, float]) -> None:
        for number, seconds in steps or ((signal.SIGTERM, _TERM), (signal.SIGKILL, _KILL)):
            pid, _ = self._remembered()
            if not self.alive():
                break
            with suppress(NotFound, ProcessLookupError):
                handle = processes.open_pidfd(pid)
                try:
                    if self.alive():  # still: the descriptor is of this one and no later one
                        signal.pidfd_send_signal(handle, number)
                        await _readable(handle, seconds)
                finally:
                    os.close(handle)
        if self.alive():
            raise StoreError("etcd does not end, not even when killed: its disk may be stuck")
        self._pid_file.unlink(missing_ok=True)

    async def _ended(self) -> None:
        """Wait for its end, and keep its log short meanwhile."""
        pid, _ = self._remembered()
        try:
            handle = processes.open_pidfd(pid)
        except NotFound:
            return
        try:
            while self.alive():
                await _readable(handle, _LOOK)
                self._trim_log(at=LOG_BYTES)
        finally:
            os.close(handle)

    def _trim_log(self, *, at: int) -> None:
        """Move a log that is too long aside.  It is copied and cut: etcd keeps writing to it."""
        with suppress(OSError):
            if self.log.stat().st_size > at:
                shutil.copyfile(self.log, self.log.with_suffix(".log.1"))
                os.truncate(self.log, 0)
                self._log_from = 0


def _spawn(program: str, args: tuple[str, ...], log_file: Path) -> int:
    """Start a process that outlives us, in a session of its own."""
    append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    return os.posix_spawn(
        program,
        [program, *args],
        _environment(),
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log_file), append, 0o640),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
        setsigmask=(),
        setsigdef=(signal.SIGINT, signal.SIGPIPE),
    )


def _unreaped(pid: int) -> bool:
    """It has ended, and its number is still taken: its parent has not asked (proc(5), stat)."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    return False


def _command_line(pid: int) -> bytes:
    """Words that end with NUL each (proc(5)); b"" if the process has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _environment() -> Mapping[str, str]:
    """Nothing of ours: etcd takes ETCD_NAME and the like for flags, proxies for its peers too."""
    path = {"PATH": os.environ.get("PATH", os.defpath)}
    machine = _MACHINES.get(platform.machine())
    return path | {"ETCD_UNSUPPORTED_ARCH": machine} if machine else path


def _has_ipv6() -> bool:
    """etcd also calls itself, over loopback."""
    try:
        return Path("/proc/sys/net/ipv6/conf/lo/disable_ipv6").read_text().strip() == "0"
    except OSError:
        return False


async def _readable(handle: int, seconds: float) -> None:
    """Wait until a pidfd's process ends, or *seconds* are over."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(handle, ended.set)
    try:
        async with asyncio.timeout(seconds):
            await ended.wait()
    except TimeoutError:
        pass
    finally:
        loop.remove_reader(handle)


_EARLY: Final = re.compile(r"[0-9-]+ [0-9:.]+ ([A-Z]) \| (.*)")
"""How 3.4 writes what it says before it knows its log's format, with a letter for its level."""

_WEIGHTS: Final = {"fatal": 3, "panic": 3, "C": 3, "error": 2, "E": 2}


class _LogLine(msgspec.Struct):
    level: str = ""
    msg: str = ""
    error: str = ""


def _words(line: bytes) -> tuple[int, str] | None:
    """Weigh and shorten one line of etcd's log; what is wrong with a flag, it writes as text."""
    try:
        said = msgspec.json.decode(line, type=_LogLine)
    except msgspec.MsgspecError:
        text = line.decode(errors="replace").strip()
        if early := _EARLY.fullmatch(text):
            weight = _WEIGHTS.get(early[1])
            return (weight, early[2]) if weight else None
        weight = 3 if text.startswith(("panic: ", "fatal error: ")) else 0  # Go's own
        return (weight, text) if text else None
    return _WEIGHTS.get(said.level, 1), ": ".join(filter(None, (said.msg, said.error)))


def _unsaid(status: int | None) -> str:
    """Explain an end without a word; *status* as waitstatus_to_exitcode() has it."""
    if status == 0:
        return "it was told to, or is no member any more"
    if status is None:
        return "no reason"
    return f"status {status}" if status > 0 else f"killed by {signal.Signals(-status).name}"
