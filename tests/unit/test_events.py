"""What happened lately, remembered and followed."""

from __future__ import annotations

import asyncio

from seaway.agent import events
from seaway.agent.events import Events


def test_events_are_remembered_in_order_and_the_oldest_forgotten(monkeypatch):
    """Facts become text; a moment cuts off what was before."""
    found = Events()
    for number in range(events.RING + 5):
        found.add("tick", "clock", number=number)

    kept = found.since()
    assert events.RING == len(kept)
    assert "5" == kept[0].facts["number"]
    assert [] == found.since(kept[-1].time + 1)
    assert kept[-1] in found.since(kept[-1].time)


def test_a_follower_gets_what_comes_next():
    """Not what was before, and everyone gets all of it."""

    async def work():
        found = Events()
        found.add("before", "x")
        streams = [aiter(found.follow()) for _ in range(2)]
        async with asyncio.TaskGroup() as group:
            waiting = [group.create_task(anext(stream)) for stream in streams]
            await asyncio.sleep(0)
            found.add("after", "x")
        kinds = [task.result().kind for task in waiting]
        for stream in streams:
            await stream.aclose()
        return kinds, found._followers

    kinds, left = asyncio.run(work())
    assert ["after", "after"] == kinds
    assert not left


def test_a_follower_that_is_too_slow_sees_the_end():
    """It is cut off instead of filling memory; the others go on."""

    async def work():
        found = Events()
        stream = aiter(found.follow())
        first = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        for number in range(events._SLOW + 10):
            found.add("tick", "clock", number=number)
        assert not found._followers
        await first
        return 1 + len([event async for event in stream])

    assert asyncio.run(work()) <= events._SLOW
