"""What a DriftMonitor says of something that is done to a host."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable

from seaway.agent.drift import DriftMonitor
from seaway.kernel import netns
from seaway.kernel.apply import Applier
from seaway.plan.resources import Resource
from tests.support.netns import Namespace


class Ears(list[str]):
    """Hear what a DriftMonitor in a namespace says, once; "underlay" for what is about that.

    Attributes:
        known: What is ours, for the test to fill.
        applier: What our own doing is done by.
    """

    def __init__(self, host: Namespace) -> None:
        super().__init__()
        self.known: dict[Hashable, Resource] = {}
        self.path = str(host.path)
        with netns.inside(self.path):
            self.applier = Applier()
            self.monitor = DriftMonitor(
                lambda: self.known,
                self.applier.ports,
                self.append,
                lambda: None,
                lambda: self.append("underlay"),
            )

    def after(self, do: Callable[[], object]) -> list[str]:
        """Do something, and return what was said about it."""

        async def work() -> None:
            listening = asyncio.ensure_future(self.monitor.run())
            await asyncio.sleep(0)
            self.clear()
            await asyncio.to_thread(do)
            # What the kernel has announced by then has been read when the loop comes round.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            listening.cancel()

        try:
            with netns.inside(self.path):
                asyncio.run(work())
        finally:
            self.applier.close()
        return list(self)
