"""What happened lately: a bounded ring, and live streams of what comes next."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import structlog

log = structlog.get_logger()

RING = 1000  # events kept; the oldest are forgotten
_SLOW = 1000  # events a follower may lag behind before it is cut off


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing that happened.

    Attributes:
        time: Seconds since the epoch.
        kind: Past-tense constant, e.g. ``endpoint_attached``.
        subject: The object's name.
        facts: Anything else worth knowing, as text.
    """

    time: float
    kind: str
    subject: str
    facts: dict[str, str] = field(default_factory=dict)


class Events:
    """Remembers and passes on."""

    def __init__(self) -> None:
        self._ring: deque[Event] = deque(maxlen=RING)
        self._followers: set[asyncio.Queue[Event | None]] = set()

    def add(self, kind: str, subject: str, **facts: object) -> Event:
        """Record that something happened, now."""
        event = Event(
            time=time.time(),
            kind=kind,
            subject=subject,
            facts={name: str(value) for name, value in facts.items()},
        )
        self._ring.append(event)
        log.info(kind, subject=subject, **event.facts)
        for queue in tuple(self._followers):
            try:
                queue.put_nowait(event)
            except asyncio.QueueFull:
                self._followers.discard(queue)
                queue.get_nowait()
                queue.put_nowait(None)  # it sees the end, and may ask again
        return event

    def since(self, moment: float = 0.0) -> list[Event]:
        """Return the remembered events from *moment* on, oldest first."""
        return [event for event in self._ring if event.time >= moment]

    async def follow(self) -> AsyncIterator[Event]:
        """Yield events as they happen; ends for a reader that is too slow."""
        queue: asyncio.Queue[Event | None] = asyncio.Queue(_SLOW)
        self._followers.add(queue)
        try:
            while (event := await queue.get()) is not None:
                yield event
        finally:
            self._followers.discard(queue)
