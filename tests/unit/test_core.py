"""Turns on one object, and whose namespace a path opens."""

from __future__ import annotations

import asyncio

from tests.support.core import MemoryStore, bare_core


def test_one_at_a_time_whoever_comes_when():
    """Also for one that comes just when a second is about to follow a first; locks do not pile."""
    core = bare_core(MemoryStore())
    busy = worst = 0

    async def work():
        nonlocal busy, worst
        async with core.only_one("web"):
            busy += 1
            worst = max(worst, busy)
            await asyncio.sleep(0)
            busy -= 1

    async def scenario():
        async with asyncio.TaskGroup() as group:
            group.create_task(work())  # works
            group.create_task(work())  # waits for it
            for _ in range(10):  # one of these comes in between the two
                await asyncio.sleep(0)
                group.create_task(work())

    asyncio.run(scenario())

    assert 1 == worst
    assert {} == core._locks
