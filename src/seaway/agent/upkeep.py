"""Keep room in the etcd that this host runs, and say in plain words what etcd complains of.

A file of etcd's never shrinks by itself, and when it has reached its limit etcd takes
nothing new: every host then counts as cut off from the store.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import structlog

from seaway.cluster.etcd_process import QUOTA_BYTES
from seaway.errors import SeawayError
from seaway.model.cluster import HostId
from seaway.store.etcd import Etcd, Member, Status

if TYPE_CHECKING:
    from seaway.agent.membership import Membership

log = structlog.get_logger()

Health = Mapping[str, Status | None]
"""How each member is, by name; None: it does not answer."""

_PACE: Final = 600.0
_SOON: Final = 60.0
"""Seconds between looks, and between those while something is wrong."""
_PATIENCE: Final = 2.0
"""Seconds that a member may take to say how it is."""
_WORTH: Final = 100_000_000
"""Bytes: a smaller file is not worth stopping its etcd for the time that takes."""
_FULL: Final = 0.9
"""Part of the limit above which a file has no room."""
_ALARM: Final = re.compile(r"memberID:(\d+) alarm:(\w+)")
"""In a member's status (etcd's AlarmMember, as protobuf writes it for readers)."""


class Upkeep:
    """Looks after the file of this host's etcd, if it runs one."""

    def __init__(self, ship: Membership) -> None:
        self._ship = ship
        self._looked = self._defragmented = -_PACE
        self._urgent = False

    async def run(self) -> None:
        """Look every ten minutes, and more often while something is wrong, until cancelled."""
        while True:
            await asyncio.sleep(_SOON)
            try:
                await self._look()
            except SeawayError as err:
                log.info("upkeep_failed", error=str(err))

    async def _look(self) -> None:
        ship, clock = self._ship, time.monotonic()
        calm = ship.session.online and not self._urgent
        if ship.member.foreign or not ship.stores.process.has_data:
            return
        if calm and clock - self._looked < _PACE:
            return
        self._looked = clock
        etcd = ship.session.etcd
        if clock - self._defragmented >= _PACE and await defragment(etcd, ship.me, QUOTA_BYTES):
            self._defragmented = time.monotonic()
            ship.core_events("store_defragmented")
        if await disarm(etcd, QUOTA_BYTES):
            ship.core_events("store_has_room_again")
        ship.stores.health = await statuses(etcd, await etcd.members())
        self._urgent = any(alarms(ship.stores.health))


# -- doing ----------------------------------------------------------------------------------------


async def statuses(etcd: Etcd, members: Sequence[Member]) -> dict[str, Status | None]:
    """Ask every member how it is; None for one that does not answer."""

    async def ask(member: Member) -> Status | None:
        for url in member.client_urls:
            with suppress(SeawayError, TimeoutError):
                async with asyncio.timeout(_PATIENCE):
                    return await etcd.status(url)
        return None

    async with asyncio.TaskGroup() as group:
        asked = {m.name: group.create_task(ask(m)) for m in members}
    return {name: task.result() for name, task in asked.items()}


async def defragment(etcd: Etcd, name: str, quota: int) -> bool:
    """Make the file of the member called *name* smaller, if that helps and it is its turn.

    Args:
        quota: Bytes that a file may have.

    Returns:
        Whether it was done.

    Raises:
        StoreError: The store is out of reach.
    """
    members = await etcd.members()
    if in_turn(await statuses(etcd, members), quota) != name:
        return False
    urls = next(member.client_urls for member in members if member.name == name)
    await etcd.defragment(urls[0])
    return True


def in_turn(health: Health, quota: int) -> str:
    """Name the member whose file is to be made smaller now; "" if none is.

    It answers nobody meanwhile: so never two at once, only while all others are well, and
    the leader last.
    """
    found = {name: status for name, status in health.items() if status is not None}
    alarmed = list(alarms(health))
    well = all(s.leader and len(s.errors) == len(alarmed) for s in found.values())
    if len(found) < len(health) or not well or any(kind != "NOSPACE" for _, kind in alarmed):
        return ""
    due = [
        (status.leader == status.member, status.member, name)
        for name, status in found.items()
        if (status.size > _WORTH and status.size > 2 * status.used)
        or (alarmed and status.size > _FULL * quota)
    ]
    return min(due)[2] if due else ""


async def disarm(etcd: Etcd, quota: int) -> bool:
    """Have etcd take new things again, as far as there is room by now.

    Returns:
        Whether there was anything to do.

    Raises:
        StoreError: The store is out of reach.
    """
    members = await etcd.members()
    health = await statuses(etcd, members)
    full = {s.member for s in health.values() if s is not None and s.size > _FULL * quota}
    silent = {member.id for member in members if health[member.name] is None}
    found = [m for m, kind in alarms(health) if kind == "NOSPACE" and m not in full | silent]
    for member in found:
        await etcd.disarm(member, "NOSPACE")
    return bool(found)


# -- saying ---------------------------------------------------------------------------------------


def alarms(health: Health) -> Iterator[tuple[int, str]]:
    """Yield etcd's alarms, as (number of the member, kind); each member tells all of them."""
    told = {
        match
        for s in health.values()
        if s is not None
        for e in s.errors
        for match in _ALARM.findall(e)
    }
    for member, kind in sorted(told):
        yield int(member), kind


def complaints(health: Health, name_of: Callable[[HostId], str]) -> Iterator[str]:
    """Say what etcd has raised an alarm for, a line each, and what to do.

    Args:
        name_of: What people call a host.
    """
    by_number = {s.member: (name, s) for name, s in health.items() if s is not None}
    for member, kind in alarms(health):
        name, status = by_number.get(member, ("", None))
        host = name_of(HostId(name)) if name else f"member {member:x}"
        if kind == "NOSPACE":
            size = f" ({status.size / 1e9:.1f} GB)" if status is not None else ""
            yield (
                f"etcd on {host} has no room left{size}, so nothing shared can change: Seaway "
                "makes some within the hour; if this stays, see what writes so much"
            )
        elif kind == "CORRUPT":
            yield (
                f"etcd on {host} has other data than the others: 'seaway cluster leave' there, "
                "and join again"
            )
        else:
            yield f"etcd on {host} says {kind}: its etcd.log may say why"


def silences(health: Health, name_of: Callable[[HostId], str]) -> Iterator[str]:
    """Say which members do not answer, or cannot work, a line each, and what to do.

    Args:
        name_of: What people call a host.
    """
    for name, status in health.items():
        host = name_of(HostId(name))
        if status is None:
            yield f"etcd on {host} does not answer: does that host run?"
        elif not status.leader:
            yield f"etcd on {host} finds no leader: is it cut off from the others?"
