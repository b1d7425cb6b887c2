"""Stay reachable beside firewalls that drop forwarded packets (Docker's, ufw's)."""

from __future__ import annotations

import asyncio

import structlog

from seaway.agent.events import Events
from seaway.errors import SeawayError
from seaway.kernel import forward_policy

log = structlog.get_logger()


class FirewallGuard:
    """Keeps our accept rules at the head of a FORWARD chain whose policy is drop."""

    def __init__(self, events: Events) -> None:
        self._events = events
        self._kicked = asyncio.Event()
        self.error = ""

    def kick(self) -> None:
        """Look again soon: somebody else's rules changed."""
        self._kicked.set()

    async def run(self, settle: float = 0.2, every: float = 30.0) -> None:
        """Look when kicked, and on a timer for rules that change unannounced."""
        loop = asyncio.get_running_loop()
        while True:
            self._kicked.clear()
            try:
                done = await loop.run_in_executor(None, forward_policy.ensure)
                self.error = ""
            except SeawayError as err:
                done, self.error = (), str(err)
            for line in done:
                log.info("forward_accepted", rule=line)
                self._events.add("forward_accepted", "firewall", rule=line)
            try:
                async with asyncio.timeout(every):
                    await self._kicked.wait()
                await asyncio.sleep(settle)
            except TimeoutError:
                continue
