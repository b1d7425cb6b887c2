"""The parts that every operation needs, and what they keep in step."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from ipaddress import IPv6Network
from pathlib import Path
from typing import TYPE_CHECKING

from seaway.agent.bindings import Bindings
from seaway.agent.events import Events
from seaway.agent.ground import Ground
from seaway.agent.names import Names
from seaway.agent.reconcile import Plans, Reconciler
from seaway.agent.state import State
from seaway.errors import StoreError
from seaway.ipam.pools import Taken, site_prefix
from seaway.kernel import netns
from seaway.kernel.processes import alive
from seaway.model.network import Address, Driver, Network, NetworkId
from seaway.model.sandbox import Phase, Sandbox, SandboxId
from seaway.plan.host import HostFacts, plan_host
from seaway.plan.networks import plan_network
from seaway.plan.sandboxes import Attachment, plan_sandbox

if TYPE_CHECKING:
    from seaway.agent.membership import Membership


@dataclass(slots=True, kw_only=True)
class Core:
    """Everything an operation may use.

    Attributes:
        run_dir: Sockets, namespaces, pid files: gone after a reboot.
        ground: Tells how the kernel sends to other hosts.
        taken: Lists what this host's routes and resolvers use, afresh at each call.
        local: Lists this host's own addresses, likewise.
        cursors: Where the last address search of each subnet ended.
        failures: Why a sandbox's ports could not be bound.
        attached: Sandboxes by their namespace's inode; ask holder_of().
        cluster: This host's part in a cluster; None while it is by itself.
    """

    state: State
    kernel: Reconciler
    bindings: Bindings
    names: Names
    events: Events
    host: HostFacts
    site: IPv6Network
    run_dir: Path
    taken: Callable[[], list[Taken]]
    ground: Ground
    local: Callable[[], set[Address]] = set
    cursors: dict[tuple[NetworkId, int], Address] = field(default_factory=dict)
    failures: dict[SandboxId, str] = field(default_factory=dict)
    attached: dict[int, SandboxId] = field(default_factory=dict)
    cluster: Membership | None = None
    _locks: dict[str, tuple[asyncio.Lock, int]] = field(default_factory=dict)  # and its users

    @contextlib.asynccontextmanager
    async def only_one(self, name: str) -> AsyncIterator[None]:
        """Let one operation at a time work on the object called *name*."""
        lock, users = self._locks.get(name) or (asyncio.Lock(), 0)
        self._locks[name] = lock, users + 1
        try:
            async with lock:
                yield
        finally:
            # A lock let go of looks free before the one who waits for it has it: count users.
            lock, users = self._locks.pop(name)
            if users > 1:
                self._locks[name] = lock, users - 1

    def holder_of(self, path: str) -> Sandbox | None:
        """Find the sandbox whose namespace *path* opens, so that none is attached twice."""
        found = self.state.sandboxes.get(self.attached.get(netns.inode(path), SandboxId("")))
        # Inode numbers are given out again as soon as a namespace has gone.
        return found if found and netns.same(path, found.netns) else None

    def index(self, sandbox: Sandbox) -> None:
        """Let holder_of() find a sandbox, if its namespace is there."""
        if reachable(sandbox) and (inode := netns.inode(sandbox.netns)):
            self.attached[inode] = sandbox.id

    def unindex(self, sandbox: SandboxId) -> None:
        """Let holder_of() find it no more; its namespace may have gone."""
        self.attached = {inode: who for inode, who in self.attached.items() if who != sandbox}

    def netns_path(self, sandbox: SandboxId) -> str:
        """Return where the namespace of a sandbox of our making is kept."""
        return str(self.run_dir / "netns" / sandbox)

    async def sync(self, sandbox: SandboxId) -> None:
        """Bring kernel and names to what the state says of one sandbox.

        Raises:
            KernelError: Refused; an audit is on its way.
        """
        found = self.state.sandboxes.get(sandbox)
        if found is None:
            await self.kernel.change(f"sandbox/{sandbox}", ())
            return
        attachments = self._usable(sandbox)
        if reachable(found):
            await self.kernel.change(
                f"sandbox/{sandbox}", plan_sandbox(found, attachments, self.host)
            )
        self.names.put(found, attachments)

    def _usable(self, sandbox: SandboxId) -> tuple[Attachment, ...]:
        """Return a sandbox's attachments, but none whose address another host has by now."""
        found = self.state.attachments(sandbox)
        if self.cluster is None or not self.cluster.lost:
            return found
        return tuple(a for a in found if a.endpoint.id not in self.cluster.lost)

    def served(self) -> list[Network]:
        """List the networks of this host itself, and those of the cluster that it takes part in."""
        part = self.cluster.taking_part if self.cluster is not None else frozenset()
        return [
            n
            for n in self.state.networks.values()
            if n.driver is not Driver.OVERLAY or n.id in part
        ]

    def plans(self) -> Plans:
        """Plan everything this host should have."""
        plans = {"host": plan_host(self.host)}
        for network in self.state.networks.values():
            if network.driver is not Driver.OVERLAY:
                plans[f"network/{network.id}"] = plan_network(network, self.host)
        if self.cluster is not None:
            plans |= self.cluster.plans()
        for sandbox in self.state.sandboxes.values():
            if reachable(sandbox):
                attachments = self._usable(sandbox.id)
                plans[f"sandbox/{sandbox.id}"] = plan_sandbox(sandbox, attachments, self.host)
        return plans


def reachable(sandbox: Sandbox) -> bool:
    """Can its namespace be entered, or be made?

    Never if it is somebody else's by now: /proc/NUMBER/ns/net opens whatever process has that
    number today, and a named file may have been made to show the host's own namespace.
    """
    if sandbox.made_netns:
        return True
    if sandbox.pid and not alive(sandbox.pid, sandbox.started):
        return False
    return netns.exists(sandbox.netns) and not netns.same(sandbox.netns, "/proc/self/ns/net")


def serves(sandbox: Sandbox) -> bool:
    """Are its ports published?"""
    return sandbox.phase is not Phase.STOPPED


def new_id() -> str:
    """Make a 12-digit hexadecimal id."""
    return secrets.token_hex(6)


def now() -> float:
    """Return seconds since the epoch."""
    return time.time()


def load_site(state_dir: Path) -> IPv6Network:
    """Read this host's own IPv6 /48, drawing it the first time.

    Raises:
        StoreError: It cannot be kept, or what is there is no such thing.
    """
    path = state_dir / "site"
    try:
        if not path.exists():
            temporary = path.with_suffix(".new")
            with temporary.open("w") as file:
                file.write(secrets.token_hex(5) + "\n")
                file.flush()
                os.fsync(file.fileno())  # before the name: a power cut leaves none or all of it
            temporary.replace(path)
        seed = bytes.fromhex(path.read_text().strip())
    except (OSError, ValueError) as err:
        raise StoreError(f"cannot keep {path}: {err}; check the disk and --state-dir") from None
    if len(seed) < 5:
        raise StoreError(f"{path} is damaged: remove it, networks keep the subnets they have")
    return site_prefix(seed)
