"""Live beside others on this host: firewalls that drop our packets, engines with bridges."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import structlog

from seaway.agent.core import Core
from seaway.errors import SeawayError
from seaway.kernel import firewalld, host_firewall, surroundings
from seaway.kernel.netlink import Netlink
from seaway.plan.host import plan_host

log = structlog.get_logger()


class Neighbours:
    """Keeps what depends on others: our rules in their firewalls, and what their bridges are.

    Attributes:
        error: Why the last look failed; "" if it did not.
    """

    def __init__(self, core: Core, netlink: Netlink) -> None:
        self._core = core
        self._netlink = netlink
        self._kicked = asyncio.Event()
        self.error = ""

    def kick(self) -> None:
        """Look again soon: somebody else changed something."""
        self._kicked.set()

    async def run(self, settle: float = 0.2, every: float = 30.0) -> None:
        """Look when kicked, and on a timer for what changes unannounced, until cancelled."""
        while True:
            self._kicked.clear()
            try:
                await self._look()
                self.error = ""
            except SeawayError as err:
                self.error = str(err)
            except Exception as err:  # what others do on this host must not end the agent
                self.error = f"{type(err).__name__}: {err}"
                log.exception("look_at_others_crashed")
            try:
                async with asyncio.timeout(every):
                    await self._kicked.wait()
                await asyncio.sleep(settle)
            except TimeoutError:
                continue

    async def _look(self) -> None:
        await self._facts()
        loop = asyncio.get_running_loop()
        for ensure in (host_firewall.ensure, firewalld.ensure):
            for line in await loop.run_in_executor(None, ensure):
                self._core.events.add("firewall_adjusted", "host", command=line)

    async def _facts(self) -> None:
        """At boot the agent starts before the network is up; later there may come a VPN."""
        before, now = self._core.host, surroundings.facts(self._netlink)
        if now.exit_bridges != before.exit_bridges:
            self._core.host = replace(self._core.host, exit_bridges=now.exit_bridges)
            await self._core.kernel.change("host", plan_host(self._core.host))
            bridges = ", ".join(sorted(now.exit_bridges))
            self._core.events.add("exit_bridges_changed", "host", bridges=bridges)
        if now.mtu != before.mtu:
            self._core.host = replace(self._core.host, mtu=now.mtu)
            self._core.kernel.kick("the way out takes packets of another size")
            self._core.events.add("mtu_changed", "host", before=before.mtu, now=now.mtu)
